package task

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// podLaunch is a pod of two containers that share an external volume; network "" is the host's.
func podLaunch(t *testing.T, network string) scheduler.Launch {
	t.Helper()
	index := 1
	spec := state.Spec{CPUs: .8, MemMB: 160, DiskMB: 10, Labels: map[string]string{"team": "storage"}, PodExecutor: &state.PodExecutor{CPUs: .1, MemMB: 32, DiskMB: 10},
		Ports: []state.Port{{Name: "sql", Protocol: "tcp"}, {Name: "web-ui", Protocol: "tcp"}},
		Volumes: []state.Mount{{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: "pgdata", Options: map[string]string{"size": "5"}},
			{Kind: state.MountHost, ContainerPath: "logs", HostPath: "/var/log/pg"}},
		Containers: []state.PodContainer{
			{Name: "db", CPUs: .5, MemMB: 64, Cmd: "run", User: "postgres", Env: map[string]string{"PGDATA": "d"}, Labels: map[string]string{"a": "b"}, Ports: []int{0},
				KillGrace: 20 * time.Second, Fetch: []state.Fetch{{URI: "http://x/y", Extract: true}},
				Mounts: []state.PodMount{{Volume: "data", Path: "d"}, {Volume: "run", Path: "run", Shared: true}, {Volume: "logs", Path: "logs", ReadOnly: true}}},
			{Name: "ui", CPUs: .2, MemMB: 64, Args: []string{"-x"}, Image: "ui:1", ForcePull: true, Ports: []int{1},
				Health: &state.HealthCheck{Protocol: "MESOS_HTTP", Path: "/up", PortIndex: &index, Interval: time.Second, Timeout: time.Second, MaxFailures: 3},
				Mounts: []state.PodMount{{Volume: "data", Path: "/d", ReadOnly: true}, {Volume: "run", Path: "run", Shared: true}}},
		}}
	if network != "" {
		spec.Container = state.Container{Type: "MESOS", Network: "container", NetName: network}
		spec.Ports[0].ContainerPort, spec.Ports[1].ContainerPort = 5432, 80
	}
	l := launchOf(t, spec)
	// The reserved part of the cpus does for the executor and a part of the first container.
	l.Resources[0] = take(l.Resources[0], .3)
	l.Resources[1] = take(l.Resources[1], 160)
	l.Resources = append(l.Resources, take(offered(t, "cpus", 4), .5), take(offered(t, "disk", 100), 10))
	return l
}

func TestPodResourcesMustFit(t *testing.T) {
	for name, change := range map[string]func(*scheduler.Launch){
		"too little": func(l *scheduler.Launch) { l.Resources = l.Resources[:2] },
		"more resources": func(l *scheduler.Launch) {
			l.Resources = append(l.Resources, take(offered(t, "mem", 100), 10))
		},
		`no volume "data"`:              func(l *scheduler.Launch) { l.Volumes = nil },
		"no resources for its executor": func(l *scheduler.Launch) { l.Def.Spec.PodExecutor = nil },
	} {
		l := podLaunch(t, "")
		change(&l)
		_, err := (&Encoder{}).LaunchGroup(&l, "S0")
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

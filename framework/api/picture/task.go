package picture

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Task is Marathon's Task.
type Task struct {
	AppID              state.AppID    `json:"appId"`
	HealthCheckResults []healthResult `json:"healthCheckResults"`
	Host               string         `json:"host"`
	ID                 state.TaskID   `json:"id"`
	IPAddresses        []ipAddress    `json:"ipAddresses"`
	Ports              []int          `json:"ports"`
	ServicePorts       []int          `json:"servicePorts"`
	SlaveID            state.AgentID  `json:"slaveId"`
	State              string         `json:"state"`
	StagedAt           string         `json:"stagedAt,omitempty"`
	StartedAt          string         `json:"startedAt,omitempty"`
	Version            string         `json:"version,omitempty"`
	LocalVolumes       []LocalVolume  `json:"localVolumes"`
	Region             string         `json:"region,omitempty"`
	Zone               string         `json:"zone,omitempty"`
	Role               string         `json:"role,omitempty"`
}

type ipAddress struct {
	Address  string `json:"ipAddress"`
	Protocol string `json:"protocol"`
}

// HasTask tells whether an instance has something that Marathon would list as a task: launched, and not known to be over.
func HasTask(i *state.Instance) bool {
	if i.Run == nil {
		return false
	}
	switch i.Phase {
	case state.PhaseLaunching, state.PhaseStaging, state.PhaseRunning, state.PhaseKilling, state.PhaseLost:
		return true
	}
	return false
}

func taskState(i *state.Instance) string {
	switch i.Phase {
	case state.PhaseLaunching:
		return "TASK_STAGING"
	case state.PhaseKilling:
		return "TASK_KILLING"
	case state.PhaseLost:
		return cmp.Or(i.Run.MesosState, "TASK_UNREACHABLE")
	case state.PhaseRunning:
		return "TASK_RUNNING"
	}
	return cmp.Or(i.Run.MesosState, "TASK_STAGING")
}

// Tasks lists the tasks of instances without service ports, as everywhere but in /v2/tasks.
func Tasks(instances []*state.Instance, checks Checks) []Task {
	out := []Task{}
	for _, i := range instances {
		if HasTask(i) {
			out = append(out, TaskOf(i, checks))
		}
		for _, r := range i.Away { // replaced, and not forgotten yet: Marathon lists these, too
			lost := *i
			lost.Run, lost.Phase = r, state.PhaseLost
			out = append(out, TaskOf(&lost, checks))
		}
	}
	return out
}

// TasksWithPorts lists an app's tasks with their service ports.
func (p *App) TasksWithPorts(checks Checks) []Task {
	out := Tasks(p.Instances, checks)
	var current []int
	for n := range out {
		if out[n].Version != p.Def.Version {
			if d := p.older[out[n].Version]; d != nil {
				out[n].ServicePorts = append(out[n].ServicePorts, ServicePorts(d)...)
			}
			continue
		}
		if current == nil {
			current = append([]int{}, ServicePorts(p.Def)...)
		}
		out[n].ServicePorts = current
	}
	return out
}

// TaskOf prints the task of an instance that has one.
func TaskOf(i *state.Instance, checks Checks) Task {
	r := i.Run
	t := Task{AppID: i.App, HealthCheckResults: healthResults(i, checks), Host: r.Hostname, ID: r.Task, IPAddresses: []ipAddress{}, Ports: append([]int{}, r.Ports...),
		ServicePorts: []int{}, SlaveID: r.Agent, State: taskState(i), StagedAt: desk.Stamp(r.StagedAt), StartedAt: desk.Stamp(r.StartedAt), Version: r.Version,
		LocalVolumes: localVolumes(i), Region: r.Region, Zone: r.Zone}
	if r.ContainerIP != "" {
		t.IPAddresses = append(t.IPAddresses, ipAddress{r.ContainerIP, desk.IPProtocol(r.ContainerIP)})
	}
	return t
}

// ServicePorts are the service ports of a definition. On the host network the spec has them, elsewhere only the source.
func ServicePorts(d *state.Def) []int {
	var out []int
	if d.Spec.Pod() {
		return nil
	}
	switch d.Spec.Container.Network {
	case "", definition.NetworkHost:
		if !d.Spec.RequirePort {
			for _, p := range d.Spec.Ports {
				out = append(out, p.Want)
			}
		}
		return out
	}
	if a, err := marathon.Stored(d.Source); err == nil {
		out = a.ServicePorts()
	}
	return out
}

type stats struct {
	Counts struct {
		Staged    int `json:"staged"`
		Running   int `json:"running"`
		Healthy   int `json:"healthy"`
		Unhealthy int `json:"unhealthy"`
	} `json:"counts"`
	LifeTime *lifeTime `json:"lifeTime,omitempty"`
}

type lifeTime struct {
	Average float64 `json:"averageSeconds"`
	Median  float64 `json:"medianSeconds"`
}

// statsOf counts tasks in four ways; a set without tasks is left out.
func statsOf(a *state.App, instances []*state.Instance, now time.Time) map[string]any {
	out := map[string]any{}
	add := func(name string, want func(*state.Instance) bool) {
		var some []*state.Instance
		for _, i := range instances {
			if HasTask(i) && want(i) {
				some = append(some, i)
			}
		}
		if len(some) > 0 {
			out[name] = map[string]any{"stats": statsOfSome(some, now)}
		}
	}
	add("startedAfterLastScaling", func(i *state.Instance) bool { return !i.Run.StagedAt.Before(a.LastScalingAt) })
	add("withLatestConfig", func(i *state.Instance) bool { return i.Run.Version == a.Version })
	add("withOutdatedConfig", func(i *state.Instance) bool { return i.Run.Version != a.Version })
	add("totalSummary", func(*state.Instance) bool { return true })
	return out
}

func statsOfSome(instances []*state.Instance, now time.Time) stats {
	var out stats
	c := CountsOf(instances)
	out.Counts.Staged, out.Counts.Running, out.Counts.Healthy, out.Counts.Unhealthy = c.Staged, c.Running, c.Healthy, c.Unhealthy
	var ages []float64
	sum := 0.0
	for _, i := range instances {
		if !i.Run.StartedAt.IsZero() {
			ages = append(ages, now.Sub(i.Run.StartedAt).Seconds())
			sum += ages[len(ages)-1]
		}
	}
	if n := len(ages); n > 0 {
		slices.Sort(ages)
		out.LifeTime = &lifeTime{Average: sum / float64(n), Median: (ages[(n-1)/2] + ages[n/2]) / 2}
	}
	return out
}

// LocalVolume is a local persistent volume of a task, as Marathon shows it.
type LocalVolume struct {
	RunSpecID     state.AppID `json:"runSpecId"`
	ContainerPath string      `json:"containerPath"`
	UUID          string      `json:"uuid"`
	PersistenceID string      `json:"persistenceId"`
}

func localVolumes(i *state.Instance) []LocalVolume {
	out := []LocalVolume{}
	for _, v := range i.Run.Local {
		out = append(out, LocalVolume{RunSpecID: i.App, ContainerPath: v.ContainerPath, UUID: v.ID[strings.LastIndexByte(v.ID, '#')+1:], PersistenceID: v.ID})
	}
	return out
}

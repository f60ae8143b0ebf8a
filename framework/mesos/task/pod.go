package task

import (
	"math"
	"strconv"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// sharedPrefix is where, in the executor's sandbox, the directories that a pod's containers share are, as Marathon has it.
const sharedPrefix = "volumes/"

// LaunchGroup makes the operation that launches a pod: one task per container, under Mesos's default executor. Ports and networks belong to the
// executor; a volume is asked for by every container that mounts it, because a nested container does not see its parent's mounts.
func (e *Encoder) LaunchGroup(l *scheduler.Launch, agent state.AgentID) (*mesos.Offer_Operation_LaunchGroup, error) {
	if l.Instance == nil || l.Run == nil || l.Def == nil {
		return nil, fault.New(fault.Internal, "launch without instance, run or definition")
	}
	spec := &l.Def.Spec
	if spec.PodExecutor == nil {
		return nil, fault.New(fault.Internal, "pod %s: no resources for its executor", l.Def.App)
	}
	left := newShares(l.Resources)
	x := mesos.ExecutorInfo{Type: mesos.ExecutorInfo_DEFAULT, ExecutorID: mesos.ExecutorID{Value: string(l.Run.Task)}, Labels: labels(spec.Labels)}
	var err error
	if x.Resources, err = left.take(spec.PodExecutor.CPUs, spec.PodExecutor.MemMB, spec.PodExecutor.DiskMB, true); err != nil {
		return nil, fault.Op(err, "pod %s: its executor", l.Def.App)
	}
	if !hostNetwork(&spec.Container) {
		x.Container = e.mesosContainer(l, nil)
		x.Container.Mesos = nil
	}
	group := mesos.TaskGroupInfo{}
	for i := range spec.Containers {
		t, err := e.podTask(l, agent, &spec.Containers[i], left)
		if err != nil {
			return nil, fault.Op(err, "pod %s: container %s", l.Def.App, spec.Containers[i].Name)
		}
		group.Tasks = append(group.Tasks, *t)
	}
	if !left.empty() {
		return nil, fault.New(fault.Internal, "pod %s: more resources were taken than its containers have use for", l.Def.App)
	}
	return &mesos.Offer_Operation_LaunchGroup{Executor: x, TaskGroup: group}, nil
}

func (e *Encoder) podTask(l *scheduler.Launch, agent state.AgentID, c *state.PodContainer, left *shares) (*mesos.TaskInfo, error) {
	t := &mesos.TaskInfo{Name: c.Name, TaskID: mesos.TaskID{Value: string(l.Run.Task.Container(c.Name))}, AgentID: mesos.AgentID{Value: string(agent)},
		Labels: labels(c.Labels), Command: e.podCommand(l, c)}
	var err error
	if t.Resources, err = left.take(c.CPUs, c.MemMB, c.DiskMB, false); err != nil {
		return nil, err
	}
	if t.Container, err = podContainer(l, c); err != nil {
		return nil, err
	}
	// Checks and discovery look at the container's own ports.
	own := *l
	def, run := *l.Def, *l.Run
	own.Def, own.Run = &def, &run
	def.Spec.Ports, run.Ports, def.Spec.HealthChecks = nil, nil, nil
	at := map[int]int{}
	for n, i := range c.Ports {
		at[i] = n
		def.Spec.Ports = append(def.Spec.Ports, l.Def.Spec.Ports[i])
		if i < len(l.Run.Ports) {
			run.Ports = append(run.Ports, l.Run.Ports[i])
		}
	}
	if c.Health != nil {
		h := *c.Health
		if h.PortIndex != nil {
			n := at[*h.PortIndex]
			h.PortIndex = &n
		}
		def.Spec.HealthChecks = []state.HealthCheck{h}
	}
	if t.HealthCheck, err = healthCheck(&own); err != nil {
		return nil, err
	}
	if c.KillGrace > 0 {
		t.KillPolicy = killPolicy(c.KillGrace)
	}
	t.Discovery = discovery(&own, reversedName(l.Def.App))
	return t, nil
}

func (e *Encoder) podCommand(l *scheduler.Launch, c *state.PodContainer) *mesos.CommandInfo {
	cmd := &mesos.CommandInfo{Environment: e.podEnvironment(l, c), Shell: ptr(false)}
	switch {
	case c.Cmd != "":
		cmd.Shell, cmd.Value = ptr(true), ptr(c.Cmd)
	case len(c.Args) > 0:
		cmd.Arguments = c.Args
		if c.Image == "" { // there is no entry point
			cmd.Value = ptr(c.Args[0])
		}
	}
	if c.User != "" {
		cmd.User = ptr(c.User)
	}
	cmd.URIs = fetched(c.Fetch)
	return cmd
}

// podContainer is nil for a container that has neither image nor volumes.
func podContainer(l *scheduler.Launch, c *state.PodContainer) (*mesos.ContainerInfo, error) {
	out := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
	if c.Image != "" {
		out.Mesos = &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{
			Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: c.Image}, Cached: ptr(!c.ForcePull)}}
	}
	for _, m := range c.Mounts {
		v, err := podVolume(l, m)
		if err != nil {
			return nil, err
		}
		out.Volumes = append(out.Volumes, v)
	}
	if out.Mesos == nil && len(out.Volumes) == 0 {
		return nil, nil
	}
	return out, nil
}

func podVolume(l *scheduler.Launch, m state.PodMount) (out mesos.Volume, err error) {
	if m.Shared {
		return mesos.Volume{ContainerPath: m.Path, Mode: mode(m.ReadOnly), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SANDBOX_PATH,
			SandboxPath: &mesos.Volume_Source_SandboxPath{Type: mesos.Volume_Source_SandboxPath_PARENT, Path: sharedPrefix + m.Volume}}}, nil
	}
	for i := range l.Volumes {
		if v := l.Volumes[i]; v.ContainerPath == m.Volume {
			v.ContainerPath, v.ReadOnly = m.Path, v.ReadOnly || m.ReadOnly
			return dockerVolume(&v, false), nil
		}
	}
	for _, v := range l.Def.Spec.Volumes {
		if v.Kind == state.MountHost && v.ContainerPath == m.Volume {
			return mesos.Volume{ContainerPath: m.Path, HostPath: ptr(v.HostPath), Mode: mode(v.ReadOnly || m.ReadOnly)}, nil
		}
	}
	return out, fault.New(fault.Internal, "the launch has no volume %q", m.Volume)
}

// podEnvironment is Marathon's set for a container of a pod, then ours, then the container's own, which has the pod's in it and wins:
//
//	MESOS_EXECUTOR_ID, MARATHON_CONTAINER_ID, MARATHON_CONTAINER_RESOURCE_…
//	ENDPOINT_<NAME>      the port at which the container is to serve an endpoint of any container of the pod
//	EP_HOST_<NAME>       its host port, EP_CONTAINER_<NAME> its container port
func (e *Encoder) podEnvironment(l *scheduler.Launch, c *state.PodContainer) *mesos.Environment {
	spec, env := &l.Def.Spec, map[string]string{}
	env["MESOS_TASK_ID"] = string(l.Run.Task.Container(c.Name))
	env["MESOS_EXECUTOR_ID"] = string(l.Run.Task)
	env["MARATHON_APP_ID"] = string(l.Def.App)
	env["MARATHON_APP_VERSION"] = l.Def.Version
	env["MARATHON_CONTAINER_ID"] = c.Name
	env["MARATHON_CONTAINER_RESOURCE_CPUS"] = jvmDouble(c.CPUs)
	env["MARATHON_CONTAINER_RESOURCE_MEM"] = jvmDouble(c.MemMB)
	env["MARATHON_CONTAINER_RESOURCE_DISK"] = jvmDouble(c.DiskMB)
	env["MARATHON_CONTAINER_RESOURCE_GPUS"] = "0"
	all := map[string]string{}
	for _, m := range []map[string]string{spec.Labels, c.Labels} {
		for k, v := range m {
			all[k] = v
		}
	}
	labelVariables(env, all)
	env["HOST"] = l.Run.Hostname
	prefix := strings.ToUpper(e.EnvPrefix)
	for i, p := range spec.Ports {
		name, host := variable(p.Name), 0
		if i < len(l.Run.Ports) {
			host = l.Run.Ports[i]
		}
		inside := p.ContainerPort
		if hostNetwork(&spec.Container) {
			inside = host
		}
		for key, n := range map[string]int{"ENDPOINT_": inside, "EP_HOST_": host, "EP_CONTAINER_": p.ContainerPort} {
			if n > 0 {
				env[prefix+key+name] = strconv.Itoa(n)
			}
		}
	}
	env["HOLDFAST_APP_ID"] = string(l.Def.App)
	env["HOLDFAST_INSTANCE"] = strconv.Itoa(l.Instance.Ordinal)
	incarnation := l.Instance.Incarnation
	if _, n, ok := state.ParseTaskID(l.Run.Task); ok {
		incarnation = n
	}
	env["HOLDFAST_INCARNATION"] = strconv.FormatUint(incarnation, 10)
	for _, m := range c.Mounts {
		for i := range l.Volumes {
			if key := variable(strings.Trim(m.Path, "/")); !m.Shared && l.Volumes[i].ContainerPath == m.Volume && key != "" {
				env["HOLDFAST_VOLUME_"+key] = l.Volumes[i].Ref.Name
			}
		}
	}
	if e.API != "" {
		env["HOLDFAST_API"] = e.API
	}
	for k, v := range c.Env {
		env[k] = v
	}
	out := &mesos.Environment{}
	for _, k := range sortedKeys(env) {
		out.Variables = append(out.Variables, mesos.Environment_Variable{Name: k, Value: ptr(env[k])})
	}
	return out
}

// shares deals out what was taken from the offers for a pod as a whole. Amounts are counted in thousandths, as Mesos does.
type shares struct {
	list []state.Resource
	left []int64
}

func newShares(list []state.Resource) *shares {
	s := &shares{list: list}
	for i := range list {
		s.left = append(s.left, milli(list[i].Scalar))
	}
	return s
}

func milli(f float64) int64 { return int64(math.Round(f * 1000)) }

// take gives one member its part; rest is for the executor, which has everything but cpus, mem and disk: the ports.
func (s *shares) take(cpus, mem, disk float64, rest bool) (out []mesos.Resource, err error) {
	want := map[string]int64{"cpus": milli(cpus), "mem": milli(mem), "disk": milli(disk)}
	for i := range s.list {
		r := s.list[i]
		need, scalar := want[r.Name]
		switch {
		case scalar && min(need, s.left[i]) > 0:
			n := min(need, s.left[i])
			s.left[i] -= n
			want[r.Name] -= n
			r.Scalar = float64(n) / 1000
		case !scalar && rest:
			s.left[i] = 0
		default:
			continue
		}
		one, err := encodeResource(&r)
		if err != nil {
			return nil, err
		}
		out = append(out, *one)
	}
	for name, n := range want {
		if n > 0 {
			return nil, fault.New(fault.Internal, "the launch has %v %s too little", float64(n)/1000, name)
		}
	}
	return out, nil
}

func (s *shares) empty() bool {
	for _, n := range s.left {
		if n > 0 {
			return false
		}
	}
	return true
}

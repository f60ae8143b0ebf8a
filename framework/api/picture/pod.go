package picture

import (
	"encoding/json"
	"io"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon/pod"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Pods takes pictures of all pods, in no order. The caller holds the read lock.
func Pods(st *state.State) (list []*App) {
	for _, a := range st.Apps {
		if d := st.Def(a.ID, a.Version); d != nil && !a.Removed && d.Spec.Pod() {
			list = append(list, Of(st, a))
		}
	}
	return list
}

// PrintPods prints definitions of pods as an array.
func PrintPods(w io.Writer, pods []*App) {
	_, _ = w.Write([]byte{'['})
	for i, p := range pods {
		if i > 0 {
			_, _ = w.Write([]byte{','})
		}
		_, _ = w.Write(p.PrintPod())
	}
	_, _ = w.Write([]byte{']'})
}

// PrintPod prints the definition of a pod.
func (p *App) PrintPod() []byte { return printPod(p.Def, p.App.Instances) }

func printPod(d *state.Def, instances int) []byte {
	b, err := pod.Print(d.Source, d.Version, instances)
	if err != nil {
		return []byte("{}") // what we stored can be read
	}
	return b
}

// PrintPodVersion prints one version of a pod, with the instances that it was written with.
func PrintPodVersion(d *state.Def) []byte {
	var in struct{ Scaling pod.Scaling }
	_ = json.Unmarshal(d.Source, &in) // what we stored can be read
	return printPod(d, in.Scaling.Instances)
}

// PodStatus is Marathon's status of a pod.
type PodStatus struct {
	ID          state.AppID         `json:"id"`
	Spec        json.RawMessage     `json:"spec"`
	Status      string              `json:"status"` // DEGRADED, STABLE, TERMINAL
	StatusSince string              `json:"statusSince"`
	Message     string              `json:"message,omitempty"`
	Instances   []PodInstanceStatus `json:"instances"`
	History     []struct{}          `json:"terminationHistory"`
	LastUpdated string              `json:"lastUpdated"`
	LastChanged string              `json:"lastChanged"`
}

// PodInstanceStatus is the status of one instance of a pod.
type PodInstanceStatus struct {
	ID            state.InstanceID  `json:"id"`
	Status        string            `json:"status"` // PENDING, STAGING, STABLE, DEGRADED, TERMINAL
	StatusSince   string            `json:"statusSince"`
	Message       string            `json:"message,omitempty"`
	AgentHostname string            `json:"agentHostname,omitempty"`
	AgentID       state.AgentID     `json:"agentId,omitempty"`
	AgentRegion   string            `json:"agentRegion,omitempty"`
	AgentZone     string            `json:"agentZone,omitempty"`
	Resources     *pod.Resources    `json:"resources,omitempty"`
	Networks      []podNetwork      `json:"networks,omitempty"`
	Containers    []containerStatus `json:"containers,omitempty"`
	SpecReference string            `json:"specReference,omitempty"`
	LastUpdated   string            `json:"lastUpdated"`
	LastChanged   string            `json:"lastChanged"`
}

type podNetwork struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses"`
}

type containerStatus struct {
	Name        string           `json:"name"`
	Status      string           `json:"status"`
	StatusSince string           `json:"statusSince"`
	Message     string           `json:"message,omitempty"`
	Conditions  []condition      `json:"conditions"`
	ContainerID state.TaskID     `json:"containerId"`
	Endpoints   []endpointStatus `json:"endpoints"`
	Resources   *pod.Resources   `json:"resources,omitempty"`
	Termination *termination     `json:"termination,omitempty"`
	LastUpdated string           `json:"lastUpdated"`
	LastChanged string           `json:"lastChanged"`
}

type condition struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	LastUpdated string `json:"lastUpdated"`
	LastChanged string `json:"lastChanged"`
}

type endpointStatus struct {
	Name    string `json:"name"`
	Port    int    `json:"allocatedHostPort,omitempty"`
	Healthy *bool  `json:"healthy,omitempty"`
}

type termination struct {
	Message string `json:"message,omitempty"`
}

// PodStatus tells how a pod does.
func (p *App) PodStatus(now time.Time) PodStatus {
	out := PodStatus{ID: p.App.ID, Spec: p.PrintPod(), Status: "STABLE", Instances: []PodInstanceStatus{}, History: []struct{}{}, LastUpdated: desk.Stamp(now)}
	since, stable := p.App.LastConfigChangeAt, 0
	for _, i := range p.Instances {
		s := p.InstanceStatus(i, now)
		out.Instances = append(out.Instances, s)
		if s.Status == "STABLE" {
			stable++
		}
		if i.Since.After(since) {
			since = i.Since
		}
	}
	switch {
	case p.App.Removed:
		out.Status = "TERMINAL"
	case stable < p.App.Instances:
		out.Status = "DEGRADED"
	}
	out.StatusSince, out.LastChanged = desk.Stamp(since), desk.Stamp(since)
	return out
}

// InstanceStatus tells how one instance of a pod does.
func (p *App) InstanceStatus(i *state.Instance, now time.Time) PodInstanceStatus {
	at := desk.Stamp(i.Since)
	out := PodInstanceStatus{ID: i.ID, StatusSince: at, LastUpdated: desk.Stamp(now), LastChanged: at, Message: i.KillReason}
	d := p.Def
	if i.Run != nil && p.older[i.Run.Version] != nil {
		d = p.older[i.Run.Version]
	}
	switch {
	case i.Goal == state.GoalStop || i.Phase == state.PhaseKilling || i.Phase == state.PhaseEnded || i.Phase == state.PhaseStopped:
		out.Status = "TERMINAL"
	case i.Phase == state.PhaseRunning && i.Up(&d.Spec):
		out.Status = "STABLE"
	case i.Phase == state.PhaseRunning || i.Phase == state.PhaseLost:
		out.Status = "DEGRADED"
	case i.Phase == state.PhaseLaunching || i.Phase == state.PhaseStaging:
		out.Status = "STAGING"
	default:
		out.Status = "PENDING"
	}
	r := i.Run
	if r == nil || i.Phase == state.PhaseGranting {
		return out
	}
	out.AgentHostname, out.AgentID, out.AgentRegion, out.AgentZone = r.Hostname, r.Agent, r.Region, r.Zone
	out.Resources = &pod.Resources{CPUs: d.Spec.CPUs, Mem: d.Spec.MemMB, Disk: d.Spec.DiskMB}
	out.SpecReference = "/v2/pods" + string(i.App) + "::versions/" + r.Version
	if r.ContainerIP != "" {
		out.Networks = []podNetwork{{Name: d.Spec.Container.NetName, Addresses: []string{r.ContainerIP}}}
	}
	for n := range r.Pod {
		if n < len(d.Spec.Containers) {
			out.Containers = append(out.Containers, containerOf(d, r, n, out.LastUpdated))
		}
	}
	return out
}

func containerOf(d *state.Def, r *state.Run, n int, now string) containerStatus {
	c, s := &r.Pod[n], &d.Spec.Containers[n]
	since := c.Since
	if since.IsZero() {
		since = r.StagedAt
	}
	out := containerStatus{Name: c.Name, Status: c.MesosState, StatusSince: desk.Stamp(since), Message: c.Message, Conditions: []condition{}, ContainerID: r.Task.Container(c.Name),
		Endpoints: []endpointStatus{}, Resources: &pod.Resources{CPUs: s.CPUs, Mem: s.MemMB, Disk: s.DiskMB}, LastUpdated: now, LastChanged: desk.Stamp(since)}
	if out.Status == "" {
		out.Status = "TASK_STAGING"
	}
	if c.Healthy != nil && s.Health != nil {
		value := "false"
		if *c.Healthy {
			value = "true"
		}
		out.Conditions = append(out.Conditions, condition{Name: "healthy", Value: value, LastUpdated: now, LastChanged: now})
	}
	switch c.MesosState {
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED":
		out.Termination = &termination{Message: c.Message}
	}
	for _, i := range s.Ports {
		e := endpointStatus{Name: d.Spec.Ports[i].Name}
		if i < len(r.Ports) {
			e.Port = r.Ports[i]
		}
		if s.Health != nil && s.Health.PortIndex != nil && *s.Health.PortIndex == i {
			e.Healthy = c.Healthy
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out
}

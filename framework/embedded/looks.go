package embedded

import (
	"fmt"
	"slices"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/view"
)

// agentCapabilities are what every agent of the engine can do.
var agentCapabilities = []mesos.AgentInfo_Capability{
	{Type: mesos.AgentInfo_Capability_MULTI_ROLE}, {Type: mesos.AgentInfo_Capability_HIERARCHICAL_ROLE},
	{Type: mesos.AgentInfo_Capability_RESERVATION_REFINEMENT}, {Type: mesos.AgentInfo_Capability_RESOURCE_PROVIDER},
	{Type: mesos.AgentInfo_Capability_RESIZE_VOLUME}, {Type: mesos.AgentInfo_Capability_AGENT_OPERATION_FEEDBACK},
	{Type: mesos.AgentInfo_Capability_AGENT_DRAINING}, {Type: mesos.AgentInfo_Capability_TASK_RESOURCE_LIMITS},
}

func stamp(t time.Time) *mesos.TimeInfo {
	if t.IsZero() {
		return nil
	}
	return &mesos.TimeInfo{Nanoseconds: t.UnixNano()}
}

// sorted returns the values of a map in the order of their keys.
func sorted[V any](in map[string]V) []V {
	keys := make([]string, 0, len(in))
	for k := range in {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]V, 0, len(in))
	for _, k := range keys {
		out = append(out, in[k])
	}
	return out
}

// allocated sums what runs, by agent ("" for all) and framework ("" for all).
func (m *Master) allocated(agentID, fw string) resource.List {
	var out resource.List
	count := func(f *framework) {
		for _, t := range f.tasks {
			if !t.released && (agentID == "" || t.AgentID.Value == agentID) {
				out = resource.Add(out, t.Resources...)
			}
		}
		for k, e := range f.executors {
			if agentID == "" || k.agent == agentID {
				out = resource.Add(out, e.resources...)
			}
		}
	}
	switch {
	case fw != "":
		if f := m.fws[fw]; f != nil {
			count(f)
		}
	default:
		a := m.agents[agentID]
		for _, t := range a.tasks {
			if !t.released {
				out = resource.Add(out, t.Resources...)
			}
		}
		for _, f := range m.fws {
			for k, e := range f.executors {
				if k.agent == agentID {
					out = resource.Add(out, e.resources...)
				}
			}
		}
	}
	return out
}

func offered(offers map[string]*offer) resource.List {
	var out resource.List
	for _, o := range sorted(offers) {
		out = resource.Add(out, o.resources...)
	}
	return out
}

func (m *Master) viewAgents() *master.Response_GetAgents {
	resp := &master.Response_GetAgents{}
	for _, a := range sorted(m.agents) {
		deactivated := a.deactivated
		pid := a.pid()
		x := master.Response_GetAgents_Agent{
			AgentInfo: a.info, Active: a.connected && !a.deactivated, Deactivated: &deactivated, Version: a.version, PID: &pid,
			RegisteredTime: stamp(a.registered), ReregisteredTime: stamp(a.rereg), Capabilities: agentCapabilities,
			TotalResources: resource.Both(a.total), AllocatedResources: resource.Both(m.allocated(a.id, "")),
			OfferedResources: resource.Both(offered(a.offers)), DrainInfo: a.drain, EstimatedDrainStartTime: drainStamp(a.drainStart),
		}
		resp.Agents = append(resp.Agents, x)
	}
	for _, a := range sorted(m.recovered) {
		resp.RecoveredAgents = append(resp.RecoveredAgents, a.info)
	}
	return resp
}

func (m *Master) viewFrameworks() *master.Response_GetFrameworks {
	resp := &master.Response_GetFrameworks{}
	for _, f := range sorted(m.fws) {
		resp.Frameworks = append(resp.Frameworks, m.viewFramework(f))
	}
	for _, f := range sorted(m.completed) {
		resp.CompletedFrameworks = append(resp.CompletedFrameworks, m.viewFramework(f))
	}
	return resp
}

func (m *Master) viewFramework(f *framework) master.Response_GetFrameworks_Framework {
	x := master.Response_GetFrameworks_Framework{
		FrameworkInfo: f.info, Active: f.connected(), Connected: f.connected(), Recovered: f.recovered,
		RegisteredTime: stamp(f.registered), ReregisteredTime: stamp(f.reregistered), UnregisteredTime: stamp(f.unregistered),
		AllocatedResources: resource.Both(m.allocated("", f.id)), OfferedResources: resource.Both(offered(f.offers)),
	}
	for _, o := range sorted(f.offers) {
		msg := m.offerMessage(f, m.agents[o.agent], o)
		msg.Resources = resource.Both(o.resources)
		x.Offers = append(x.Offers, msg)
	}
	return x
}

func (m *Master) viewTasks() *master.Response_GetTasks {
	resp := &master.Response_GetTasks{}
	all := slices.Concat(sorted(m.fws), sorted(m.completed))
	for _, f := range all {
		for _, t := range sorted(f.tasks) {
			resp.Tasks = append(resp.Tasks, t.Task)
		}
		for _, t := range sorted(f.unreachable) {
			resp.UnreachableTasks = append(resp.UnreachableTasks, t.Task)
		}
		for _, t := range f.done {
			resp.CompletedTasks = append(resp.CompletedTasks, t.Task)
		}
	}
	return resp
}

func (m *Master) viewExecutors() *master.Response_GetExecutors {
	resp := &master.Response_GetExecutors{}
	for _, f := range sorted(m.fws) {
		for k, e := range f.executors {
			info := e.info
			info.Resources = resource.Both(info.Resources)
			resp.Executors = append(resp.Executors, master.Response_GetExecutors_Executor{ExecutorInfo: info, AgentID: mesos.AgentID{Value: k.agent}})
		}
	}
	return resp
}

func (m *Master) viewOperations() *master.Response_GetOperations {
	resp := &master.Response_GetOperations{}
	for _, f := range sorted(m.fws) {
		for _, op := range sorted(f.operations) {
			resp.Operations = append(resp.Operations, mesos.Operation{FrameworkID: &mesos.FrameworkID{Value: f.id},
				AgentID: &mesos.AgentID{Value: op.agent}, Info: op.info, LatestStatus: op.status,
				Statuses: []mesos.OperationStatus{op.status}, UUID: mesos.UUID{Value: op.uuid}})
		}
	}
	return resp
}

func (m *Master) viewRoles() *master.Response_GetRoles {
	byRole := map[string]*mesos.Role{}
	for _, f := range sorted(m.fws) {
		for _, name := range f.roles {
			r := byRole[name]
			if r == nil {
				r = &mesos.Role{Name: name, Weight: 1}
				byRole[name] = r
			}
			r.Frameworks = append(r.Frameworks, mesos.FrameworkID{Value: f.id})
			used := resource.Filter(resource.Add(m.allocated("", f.id), offered(f.offers)...),
				func(x *mesos.Resource) bool { return x.GetAllocationInfo().GetRole() == name })
			r.Resources = resource.Add(r.Resources, used...)
		}
	}
	resp := &master.Response_GetRoles{}
	for _, r := range sorted(byRole) {
		resp.Roles = append(resp.Roles, *r)
	}
	return resp
}

// flags are the intervals and paths the master runs with, under the names of Mesos's flags.
func (m *Master) flags() [][2]string {
	out := [][2]string{
		{"agent_reregister_timeout", secs(m.timing.AgentReregister)}, {"agent_ping_timeout", secs(m.timing.AgentLost)},
		{"allocation_interval", secs(m.timing.Allocation)}, {"hostname", m.info.GetHostname()},
		{"port", fmt.Sprint(m.info.GetPort())}, {"work_dir", m.cfg.Dir}, {"max_agent_ping_timeouts", "1"},
		{"max_completed_frameworks", fmt.Sprint(maxCompleted)}, {"max_completed_tasks_per_framework", fmt.Sprint(maxCompletedTasks)},
		{"authenticate_http_frameworks", fmt.Sprint(len(m.cfg.Credentials) > 0)},
	}
	if m.timing.Offer > 0 {
		out = append(out, [2]string{"offer_timeout", secs(m.timing.Offer)})
	}
	slices.SortFunc(out, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return out
}

func secs(d time.Duration) string { return fmt.Sprintf("%gsecs", d.Seconds()) }

func (m *Master) versionJSON() any {
	return map[string]any{"version": Version, "build_user": "", "build_date": "", "build_time": 0}
}

// document gathers what the old endpoints show.
func (m *Master) document() view.Input {
	m.mu.Lock()
	defer m.mu.Unlock()
	return view.Input{ID: m.id, Master: m.info, Version: Version, Started: seconds(m.started), Flags: m.flags(),
		Agents: m.viewAgents(), Frameworks: m.viewFrameworks(), Tasks: m.viewTasks(), Executors: m.viewExecutors(), Unreachable: len(m.lost)}
}

func (m *Master) stateJSON() any { return view.State(m.document()) }

func (m *Master) slavesJSON() any { return view.Slaves(m.document()) }

func (m *Master) frameworksJSON() any { return view.Frameworks(m.document()) }

func (m *Master) metricsJSON() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.metrics()
}

// metrics counts under the names Mesos uses; the caller holds mu.
func (m *Master) metrics() map[string]float64 {
	out := map[string]float64{
		"master/uptime_secs": time.Since(m.started).Seconds(), "master/elected": 1,
		"master/frameworks_active": 0, "master/frameworks_disconnected": 0, "master/tasks_unreachable": 0,
		"master/slaves_active": 0, "master/slaves_inactive": 0, "master/slaves_connected": 0, "master/slaves_disconnected": 0,
		"master/slaves_unreachable": float64(len(m.lost)), "master/outstanding_offers": float64(len(m.offers)),
		"master/valid_status_updates": float64(m.counts.updates), "master/invalid_status_updates": float64(m.counts.invalidUpdates),
		"master/messages_received": float64(m.counts.messages), "master/messages_invalid": float64(m.counts.invalidMessages),
		"master/offers_sent": float64(m.counts.offers), "master/tasks_launched": float64(m.counts.tasksLaunched),
		"allocator/mesos/allocation_runs": float64(m.counts.cycles), "allocator/mesos/allocation_run_ms": float64(m.counts.lastCycle) / 1e6,
	}
	for _, f := range m.fws {
		if f.connected() {
			out["master/frameworks_active"]++
			out["master/frameworks_connected"]++
		} else {
			out["master/frameworks_disconnected"]++
		}
		for _, t := range f.tasks {
			out["master/"+strings.ToLower(t.GetState().String())]++
		}
		out["master/tasks_unreachable"] += float64(len(f.unreachable))
	}
	for _, a := range m.agents {
		m.countAgent(out, a)
	}
	return out
}

func (m *Master) countAgent(out map[string]float64, a *agentState) {
	state := map[bool]string{true: "connected", false: "disconnected"}[a.connected]
	out["master/slaves_"+state]++
	state = map[bool]string{true: "active", false: "inactive"}[a.connected && !a.deactivated]
	out["master/slaves_"+state]++
	free := m.alloc.Free(a.id)
	for _, name := range []string{"cpus", "mem", "disk"} {
		total := resource.Sum(a.total, name)
		out["master/"+name+"_total"] += total
		out["allocator/mesos/resources/"+name+"/total"] += total
		out["allocator/mesos/resources/"+name+"/offered_or_allocated"] += total - resource.Sum(free, name)
		out["master/"+name+"_used"] += resource.Sum(m.allocated(a.id, ""), name)
	}
}

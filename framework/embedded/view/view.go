// Package view makes the JSON documents of a Mesos master's older endpoints (/state, /slaves,
// /frameworks) out of what the v1 operator API tells, and completes the latter's JSON where Mesos
// writes fields that mesos-go's messages do not have.
package view

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/master"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// Input is all the documents are made of.
type Input struct {
	ID, Version string
	Master      mesos.MasterInfo
	Started     float64 // seconds since 1970
	Flags       [][2]string
	Agents      *master.Response_GetAgents
	Frameworks  *master.Response_GetFrameworks
	Tasks       *master.Response_GetTasks
	Executors   *master.Response_GetExecutors
	Unreachable int // agents
}

type object = map[string]any

// Metric is one named number.
type Metric struct {
	Name  string
	Value float64
}

// Sorted lists metrics by name.
func Sorted(in map[string]float64) []Metric {
	out := make([]Metric, 0, len(in))
	for k, v := range in {
		out = append(out, Metric{k, v})
	}
	slices.SortFunc(out, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Complete adds to an operator API answer the empty lists and the fields that Mesos always writes.
func Complete(b []byte) ([]byte, error) {
	var v object
	if err := exactly(b, &v); err != nil {
		return nil, err
	}
	parts := v
	if s, ok := v["get_state"].(object); ok {
		parts = s
	}
	lists(parts, "get_tasks", "completed_tasks", "tasks", "unreachable_tasks")
	if a := lists(parts, "get_agents", "agents", "recovered_agents"); a != nil {
		for _, x := range a["agents"].([]any) {
			x.(object)["agent_info"].(object)["checkpoint"] = true
		}
	}
	if f := lists(parts, "get_frameworks", "frameworks", "completed_frameworks"); f != nil {
		for _, x := range slices.Concat(f["frameworks"].([]any), f["completed_frameworks"].([]any)) {
			x.(object)["offer_constraints"] = object{}
		}
	}
	return json.Marshal(v)
}

// exactly reads JSON without rounding: times in nanoseconds are larger than a double can count.
func exactly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

func lists(v object, part string, names ...string) object {
	p, ok := v[part].(object)
	if !ok {
		return nil
	}
	for _, n := range names {
		if p[n] == nil {
			p[n] = []any{}
		}
	}
	return p
}

// quantities are a list's scalars, with zeroes for the usual ones, and its ranges as text.
func quantities(l resource.List, ports bool) object {
	out := object{"cpus": 0.0, "mem": 0.0, "disk": 0.0, "gpus": 0.0}
	for i := range l {
		switch l[i].GetType() {
		case mesos.SCALAR:
			out[l[i].Name] = resource.Sum(l, l[i].Name)
		case mesos.RANGES:
			if ports {
				same := resource.Filter(l, func(r *mesos.Resource) bool { return r.Name == l[i].Name })
				out[l[i].Name] = strings.ReplaceAll(resource.FormatRanges(resource.Unreserved(resource.Unallocate(same))[0].GetRanges().GetRange()), " ", "")
			}
		}
	}
	return out
}

func sumOf(lists ...resource.List) resource.List {
	var out resource.List
	for _, l := range lists {
		out = resource.Add(out, l...)
	}
	return out
}

// State is the document of /state.
func State(in Input) any {
	flags := object{}
	for _, f := range in.Flags {
		flags[f[0]] = f[1]
	}
	active := 0.0
	for _, a := range in.Agents.Agents {
		if a.Active {
			active++
		}
	}
	fws := Frameworks(in).(object)
	slaves := Slaves(in).(object)
	pid := in.Master.GetPID()
	return object{
		"version": in.Version, "id": in.ID, "pid": pid, "leader": pid, "hostname": in.Master.GetHostname(),
		"leader_info": object{"hostname": in.Master.GetHostname(), "id": in.ID, "pid": pid, "port": in.Master.GetPort()},
		"build_date":  "", "build_time": 0.0, "build_user": "", "start_time": in.Started, "elected_time": in.Started,
		"activated_slaves": active, "deactivated_slaves": float64(len(in.Agents.Agents)) - active, "unreachable_slaves": in.Unreachable,
		"capabilities": []string{"AGENT_UPDATE", "AGENT_DRAINING"}, "flags": flags,
		"slaves": slaves["slaves"], "recovered_slaves": slaves["recovered_slaves"],
		"frameworks": fws["frameworks"], "completed_frameworks": fws["completed_frameworks"], "unregistered_frameworks": []any{},
		"orphan_tasks": []any{},
	}
}

// Slaves is the document of /slaves.
func Slaves(in Input) any {
	slaves, recovered := []any{}, []any{}
	for i := range in.Agents.Agents {
		slaves = append(slaves, slave(&in.Agents.Agents[i]))
	}
	for i := range in.Agents.RecoveredAgents {
		a := &in.Agents.RecoveredAgents[i]
		recovered = append(recovered, object{"id": a.GetID().GetValue(), "hostname": a.Hostname, "port": a.GetPort(),
			"attributes": attributes(a), "resources": quantities(a.Resources, true)})
	}
	return object{"slaves": slaves, "recovered_slaves": recovered}
}

func attributes(a *mesos.AgentInfo) object {
	out := object{}
	for _, x := range a.Attributes {
		switch x.Type {
		case mesos.TEXT:
			out[x.Name] = x.GetText().GetValue()
		case mesos.SCALAR:
			out[x.Name] = x.GetScalar().GetValue()
		case mesos.RANGES:
			out[x.Name] = strings.ReplaceAll(resource.FormatRanges(x.GetRanges().GetRange()), " ", "")
		case mesos.SET:
			out[x.Name] = "{" + strings.Join(x.GetSet().GetItem(), ", ") + "}"
		}
	}
	return out
}

func slave(a *master.Response_GetAgents_Agent) object {
	caps := []string{}
	for _, c := range a.Capabilities {
		caps = append(caps, c.Type.String())
	}
	reserved := object{}
	var free resource.List
	byRole := map[string]resource.List{}
	for i := range a.TotalResources {
		r := a.TotalResources[i]
		if resource.IsReserved(&r) {
			byRole[resource.Role(&r)] = append(byRole[resource.Role(&r)], r)
		} else {
			free = append(free, r)
		}
	}
	for role, l := range byRole {
		reserved[role] = quantities(l, true)
	}
	out := object{
		"id": a.AgentInfo.GetID().GetValue(), "hostname": a.AgentInfo.Hostname, "port": a.AgentInfo.GetPort(), "pid": a.GetPID(),
		"active": a.Active, "deactivated": a.GetDeactivated(), "version": a.Version, "capabilities": caps,
		"attributes": attributes(&a.AgentInfo), "registered_time": float64(a.GetRegisteredTime().GetNanoseconds()) / 1e9,
		"resources": quantities(a.TotalResources, true), "unreserved_resources": quantities(free, true), "reserved_resources": reserved,
		"used_resources": quantities(a.AllocatedResources, true), "offered_resources": quantities(a.OfferedResources, true),
	}
	if t := a.ReregisteredTime; t != nil {
		out["reregistered_time"] = float64(t.Nanoseconds) / 1e9
	}
	return out
}

// Frameworks is the document of /frameworks.
func Frameworks(in Input) any {
	live, done := []any{}, []any{}
	tasks := byFramework(in.Tasks.Tasks)
	unreachable := byFramework(in.Tasks.UnreachableTasks)
	completed := byFramework(in.Tasks.CompletedTasks)
	for _, f := range in.Frameworks.Frameworks {
		live = append(live, frameworkDoc(&f, tasks, unreachable, completed))
	}
	for _, f := range in.Frameworks.CompletedFrameworks {
		done = append(done, frameworkDoc(&f, tasks, unreachable, completed))
	}
	return object{"frameworks": live, "completed_frameworks": done, "unregistered_frameworks": []any{}}
}

func byFramework(tasks []mesos.Task) map[string][]any {
	out := map[string][]any{}
	for i := range tasks {
		id := tasks[i].FrameworkID.Value
		out[id] = append(out[id], taskDoc(&tasks[i]))
	}
	return out
}

func orEmpty(l []any) []any {
	if l == nil {
		return []any{}
	}
	return l
}

func frameworkDoc(f *master.Response_GetFrameworks_Framework, tasks, unreachable, completed map[string][]any) object {
	info := &f.FrameworkInfo
	id := info.GetID().GetValue()
	caps := []string{}
	for _, c := range info.Capabilities {
		caps = append(caps, c.Type.String())
	}
	roles := info.Roles
	if roles == nil {
		roles = []string{}
	}
	offers := []any{}
	for i := range f.Offers {
		offers = append(offers, object{"id": f.Offers[i].ID.Value, "framework_id": id, "slave_id": f.Offers[i].AgentID.Value,
			"resources": quantities(f.Offers[i].Resources, true)})
	}
	out := object{
		"id": id, "name": info.Name, "user": info.User, "roles": roles, "hostname": info.GetHostname(), "webui_url": info.GetWebUiURL(),
		"active": f.Active, "connected": f.Connected, "recovered": f.Recovered, "checkpoint": info.GetCheckpoint(), "capabilities": caps,
		"failover_timeout": info.GetFailoverTimeout(), "registered_time": float64(f.GetRegisteredTime().GetNanoseconds()) / 1e9,
		"unregistered_time": float64(f.GetUnregisteredTime().GetNanoseconds()) / 1e9,
		"used_resources":    quantities(f.AllocatedResources, true), "offered_resources": quantities(f.OfferedResources, true),
		"resources": quantities(sumOf(f.AllocatedResources, f.OfferedResources), true),
		"tasks":     orEmpty(tasks[id]), "unreachable_tasks": orEmpty(unreachable[id]), "completed_tasks": orEmpty(completed[id]),
		"offers": offers, "executors": []any{}, "offer_constraints": object{},
	}
	if info.Principal != nil {
		out["principal"] = *info.Principal
	}
	if f.ReregisteredTime != nil && f.ReregisteredTime.Nanoseconds != f.GetRegisteredTime().GetNanoseconds() {
		out["reregistered_time"] = float64(f.ReregisteredTime.Nanoseconds) / 1e9
	}
	return out
}

func taskDoc(t *mesos.Task) object {
	role := "*"
	if len(t.Resources) > 0 {
		role = t.Resources[0].GetAllocationInfo().GetRole()
	}
	statuses := []any{}
	for i := range t.Statuses {
		s := &t.Statuses[i]
		o := object{"state": s.GetState().String(), "timestamp": s.GetTimestamp()}
		if s.ContainerStatus != nil {
			o["container_status"] = message(s.ContainerStatus)
		}
		if s.Healthy != nil {
			o["healthy"] = *s.Healthy
		}
		statuses = append(statuses, o)
	}
	out := object{
		"id": t.TaskID.Value, "name": t.Name, "framework_id": t.FrameworkID.Value, "executor_id": t.GetExecutorID().GetValue(),
		"slave_id": t.AgentID.Value, "state": t.GetState().String(), "resources": quantities(t.Resources, true), "role": role, "statuses": statuses,
	}
	if t.Container != nil {
		out["container"] = message(t.Container)
	}
	if t.Labels != nil {
		out["labels"] = message(t.Labels).(object)["labels"]
	}
	if t.Discovery != nil {
		out["discovery"] = message(t.Discovery)
	}
	return out
}

// message is a protobuf message as a document.
func message(m interface {
	Reset()
	String() string
	ProtoMessage()
}) any {
	b, err := wire.JSON(m)
	var v any
	if err == nil {
		err = exactly(b, &v)
	}
	if err != nil {
		return object{}
	}
	if o, ok := v.(object); ok {
		delete(o, "executor_pid")
	}
	return v
}

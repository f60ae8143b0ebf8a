// Package show turns the scheduler's state into what the API and the web page show: the types of package client.
// It decides nothing and changes nothing; callers hold the read lock (Core.View).
package show

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Apps lists the apps, sorted by id.
func Apps(st *state.State) []client.App {
	out := make([]client.App, 0, len(st.Apps))
	for _, a := range st.Apps {
		out = append(out, App(st, a))
	}
	slices.SortFunc(out, func(a, b client.App) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// App summarises one app.
func App(st *state.State, a *state.App) client.App {
	out := client.App{ID: string(a.ID), Version: a.Version, Instances: a.Instances, Removed: a.Removed, Deployment: string(a.Deployment),
		ScaledAt: a.LastScalingAt, ChangedAt: a.LastConfigChangeAt}
	if d := st.Def(a.ID, a.Version); d != nil {
		s := &d.Spec
		out.CPUs, out.MemMB, out.DiskMB, out.Cmd, out.Image = s.CPUs, s.MemMB, s.DiskMB, s.Cmd, s.Container.Image
		if out.Cmd == "" {
			out.Cmd = strings.Join(s.Args, " ")
		}
		if s.Pod() {
			var names []string
			for i := range s.Containers {
				names = append(names, s.Containers[i].Name)
			}
			out.Cmd = "pod: " + strings.Join(names, ", ")
		}
		for i := range s.Volumes {
			out.Volumes = append(out.Volumes, appVolume(&s.Volumes[i]))
		}
	}
	if f := a.LastTaskFailure; f != nil {
		out.LastFailure = &client.TaskFailure{Instance: string(f.Instance), Task: string(f.Task), State: f.State, Message: f.Message, Host: f.Host, At: f.At}
	}
	first := ""
	for _, i := range st.InstancesOf(a.ID) {
		count(&out, i)
		if first == "" && !asWanted(i) {
			first = string(i.ID) + ": " + why(st, i)
		}
	}
	switch {
	case a.Removed && first != "":
		out.Status = "being removed; " + first
	case a.Removed:
		out.Status = "being removed"
	case first != "":
		out.Status = first
	case a.Instances == 0:
		out.Status = "scaled to 0"
	case out.Running < a.Instances:
		out.Status = "starting"
	default:
		out.Status = "running"
	}
	return out
}

func appVolume(m *state.Mount) client.AppVolume {
	v := client.AppVolume{Kind: string(m.Kind), Driver: m.Driver, Name: m.Pattern, ContainerPath: m.ContainerPath, ReadOnly: m.ReadOnly, Shared: m.Shared, Class: m.Class}
	if m.Size > 0 {
		v.Size = m.Size.String()
	}
	return v
}

func count(out *client.App, i *state.Instance) {
	switch {
	case i.Goal == state.GoalStop:
		out.Stopping++
	case i.Phase == state.PhaseRunning:
		out.Running++
		if i.Run != nil && i.Run.Healthy != nil {
			if *i.Run.Healthy {
				out.Healthy++
			} else {
				out.Unhealthy++
			}
		}
	case i.Phase == state.PhaseLaunching || i.Phase == state.PhaseStaging:
		out.Staged++
	default:
		out.Waiting++
	}
}

// asWanted tells whether an instance is where it should be.
func asWanted(i *state.Instance) bool {
	return i.Goal == state.GoalRun && i.Phase == state.PhaseRunning && !i.Paused && (i.Run == nil || i.Run.Healthy == nil || *i.Run.Healthy)
}

// why is one line on an instance that is not where it should be.
func why(st *state.State, i *state.Instance) string {
	if w := st.WhyOf(i.ID); w != nil && w.Summary != "" {
		return w.Summary
	}
	switch {
	case i.Goal == state.GoalStop:
		return "stopping (" + string(i.Phase) + ")"
	case i.Phase == state.PhaseRunning:
		return "running, not healthy yet"
	}
	return string(i.Phase)
}

// Instances lists instances sorted by app and number; app "" means all.
func Instances(st *state.State, app state.AppID) []client.Instance {
	out := []client.Instance{}
	if app != "" {
		for _, i := range st.InstancesOf(app) {
			out = append(out, Instance(st, i))
		}
		return out
	}
	for _, i := range st.Instances {
		out = append(out, Instance(st, i))
	}
	slices.SortFunc(out, func(a, b client.Instance) int {
		return cmp.Or(cmp.Compare(a.App, b.App), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	return out
}

// Instance gives one instance with its run, volumes and reasons.
func Instance(st *state.State, i *state.Instance) client.Instance {
	out := Run(i)
	out.Volumes = instanceVolumes(st, i)
	if w := st.WhyOf(i.ID); w != nil {
		out.Why = reasons(w)
	}
	return out
}

// Run is Instance without what has to be looked up elsewhere: for events.
func Run(i *state.Instance) client.Instance {
	out := client.Instance{ID: string(i.ID), App: string(i.App), Ordinal: i.Ordinal, Goal: string(i.Goal), Phase: string(i.Phase), Since: i.Since,
		Version: i.Version, Incarnation: i.Incarnation, Failures: i.Failures, BackoffUntil: i.BackoffUntil, KillReason: i.KillReason, CreatedAt: i.CreatedAt}
	if r := i.Run; r != nil {
		out.Task, out.Agent, out.Node, out.Hostname = string(r.Task), string(r.Agent), string(r.Node), r.Hostname
		out.Region, out.Zone, out.Ports, out.ContainerIP = r.Region, r.Zone, r.Ports, r.ContainerIP
		out.MesosState, out.Message, out.Reason, out.Healthy = r.MesosState, r.Message, r.Reason, r.Healthy
		out.StagedAt, out.StartedAt = r.StagedAt, r.StartedAt
	}
	out.Moving, out.Paused = string(i.Moving), i.Paused
	if i.Run != nil {
		out.Idle, out.Ready = i.Run.Idle, i.Run.Ready
	}
	for _, r := range i.Away {
		out.Away = append(out.Away, client.AwayRun{Task: string(r.Task), Agent: string(r.Agent), Hostname: r.Hostname, LostAt: r.LostAt, ForgetAt: r.ForgetAt})
	}
	return out
}

func reasons(w *state.Why) *client.Why {
	out := &client.Why{Since: w.Since, At: w.At, Summary: w.Summary, Reasons: reasonList(w.Reasons)}
	for _, a := range w.Agents {
		out.Agents = append(out.Agents, client.AgentReason{Agent: string(a.Agent), Hostname: a.Hostname, Reasons: reasonList(a.Reasons)})
	}
	return out
}

func reasonList(rs []state.Reason) []client.Reason {
	var out []client.Reason
	for _, r := range rs {
		out = append(out, client.Reason{Code: r.Code, Text: r.Text, Until: r.Until})
	}
	return out
}

// instanceVolumes joins what the definition mounts with what is recorded.
func instanceVolumes(st *state.State, i *state.Instance) []client.InstanceVolume {
	var out []client.InstanceVolume
	seen := map[state.VolumeUID]bool{}
	version := i.Version
	if i.Run != nil {
		version = i.Run.Version
	}
	if d := st.Def(i.App, version); d != nil {
		for k := range d.Spec.Volumes {
			m := &d.Spec.Volumes[k]
			if m.Kind != state.MountExternal {
				continue
			}
			ref := volume.Ref{Driver: m.Driver, Name: volume.NameFor(m.Pattern, i.Ordinal, m.Shared)}
			v := client.InstanceVolume{Driver: ref.Driver, Name: ref.Name, ContainerPath: m.ContainerPath, Phase: string(state.VolumePlanned)}
			if rec := st.VolumeByRef(ref); rec != nil {
				v.UID, v.Phase, v.Epoch = string(rec.UID), string(rec.Phase), uint64(rec.Epoch)
				seen[rec.UID] = true
			}
			out = append(out, v)
		}
	}
	for _, rec := range st.VolumesOfInstance(i.ID) {
		if !seen[rec.UID] {
			out = append(out, client.InstanceVolume{UID: string(rec.UID), Driver: rec.Ref.Driver, Name: rec.Ref.Name, Phase: string(rec.Phase), Epoch: uint64(rec.Epoch)})
		}
	}
	return out
}

// Volumes lists volumes, sorted by driver and name; app "" means all.
func Volumes(st *state.State, app state.AppID) []client.Volume {
	out := []client.Volume{}
	if app != "" {
		for _, v := range st.VolumesOf(app) {
			out = append(out, Volume(st, v))
		}
	} else {
		for _, v := range st.Volumes {
			out = append(out, Volume(st, v))
		}
	}
	slices.SortFunc(out, func(a, b client.Volume) int {
		return cmp.Or(cmp.Compare(a.Driver, b.Driver), cmp.Compare(a.App, b.App), compareNames(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return out
}

// compareNames orders db-2 before db-10.
func compareNames(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// Volume gives one volume with its claim.
func Volume(st *state.State, v *state.Volume) client.Volume {
	out := client.Volume{UID: string(v.UID), Driver: v.Ref.Driver, Name: v.Ref.Name, App: string(v.App), Instance: string(v.Instance),
		Phase: string(v.Phase), SizeBytes: int64(v.Size), Options: v.Options, Class: v.Class, Shared: v.Shared, Adopted: v.Adopted,
		Scope: v.Scope, Node: string(v.Node), Policy: v.Policy, Attempts: v.Attempts, RetryAt: v.RetryAt, Error: v.Error,
		Epoch: uint64(v.Epoch), CreatedAt: v.CreatedAt, InUse: inUse(st, v)}
	if v.Size > 0 {
		out.Size = v.Size.String()
	}
	if c := st.Claims[v.UID]; c != nil {
		claim := Claim(st, c)
		out.Claim = &claim
	}
	out.MadeBy, out.Usage = v.MadeBy, usage(st, v)
	return out
}

func inUse(st *state.State, v *state.Volume) bool {
	if v.Instance != "" {
		i := st.Instances[v.Instance]
		return i != nil && (i.Goal == state.GoalRun || i.Run != nil)
	}
	return st.Apps[v.App] != nil
}

// Claims lists claims sorted by driver and name.
func Claims(st *state.State) []client.Claim {
	out := []client.Claim{}
	for _, c := range st.Claims {
		out = append(out, Claim(st, c))
	}
	slices.SortFunc(out, func(a, b client.Claim) int {
		return cmp.Or(cmp.Compare(a.Driver, b.Driver), compareNames(a.Name, b.Name), cmp.Compare(a.Volume, b.Volume))
	})
	return out
}

// Claim gives one claim.
func Claim(st *state.State, c *state.Claim) client.Claim {
	out := client.Claim{Volume: string(c.Volume), Driver: c.Ref.Driver, Name: c.Ref.Name, State: c.State, Epoch: uint64(c.Epoch), Agent: string(c.Agent),
		Node: string(c.Node), Hostname: hostOf(st, c.Node, c.Agent), Policy: c.Policy, Fence: c.Fence, Revoke: c.Revoke, Owner: c.Owner, Since: c.Since,
		Tombstone: c.Tombstone, FreedBy: c.FreedBy, MinGrade: c.MinGrade, WordBy: c.WordBy, WordWhy: c.WordWhy, WordAt: c.WordAt}
	if c.State != state.ClaimFree && !c.Tombstone {
		if r := scheduler.ClaimReason(st.Nodes[c.Node], c, st.Hold.Why().Code != ""); r.Code == state.ReasonFencing || st.Nodes[c.Node] == nil {
			out.Waits, out.Until = r.Text, r.Until
		}
	}
	return out
}

func hostOf(st *state.State, node state.NodeUID, agent state.AgentID) string {
	if n := st.Nodes[node]; n != nil {
		return cmp.Or(n.AgentHostname, n.Hostname)
	}
	if a := st.Agents[agent]; a != nil {
		return a.Hostname
	}
	return ""
}

// Nodes lists nodes, and agents without an isolator, by host name.
func Nodes(st *state.State) []client.Node {
	out := []client.Node{}
	claims := map[state.NodeUID]int{}
	for _, c := range st.Claims {
		if c.Node != "" && c.State != "free" {
			claims[c.Node]++
		}
	}
	seen := map[state.AgentID]bool{}
	for _, n := range st.Nodes {
		seen[n.Agent] = true
		out = append(out, node(st, n, claims[n.UID]))
	}
	for _, a := range st.Agents {
		if !seen[a.ID] {
			out = append(out, agentOnly(st, a))
		}
	}
	slices.SortFunc(out, func(a, b client.Node) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Agent, b.Agent))
	})
	return out
}

func node(st *state.State, n *state.Node, claims int) client.Node {
	out := client.Node{UID: string(n.UID), Hostname: cmp.Or(n.AgentHostname, n.Hostname), Agent: string(n.Agent), Alive: n.Alive, Generation: n.Generation,
		SuspectSince: n.SuspectSince, FreeBy: n.FreeBy, DeadAt: n.DeadAt, Region: n.Region, Zone: n.Zone, Grade: n.Grade, Version: n.Version, Claims: claims}
	for _, d := range n.Drivers {
		out.Drivers = append(out.Drivers, client.Driver{Name: d.Name, Scope: d.Scope, Exclusive: d.Exclusive, MultiAttach: d.MultiAttach, AttachLimit: d.AttachLimit, Ready: d.Ready, Because: d.Because})
	}
	leaving(st, &out)
	sort.Slice(out.Drivers, func(i, j int) bool { return out.Drivers[i].Name < out.Drivers[j].Name })
	lost := false
	if a := st.Agents[n.Agent]; a != nil {
		fromAgent(st, &out, a)
		lost = !a.LostAt.IsZero()
	}
	switch {
	case !n.Alive:
		out.State = "dead"
	case !n.SuspectSince.IsZero():
		out.State = "suspect"
	case lost:
		out.State = "agent-lost"
	case out.Order != nil:
		out.State = out.Order.State
	case n.Draining:
		out.State = "draining"
	default:
		out.State = "alive"
	}
	return out
}

func agentOnly(st *state.State, a *state.Agent) client.Node {
	out := client.Node{Agent: string(a.ID), Hostname: a.Hostname, State: "no-isolator", Alive: a.LostAt.IsZero()}
	fromAgent(st, &out, a)
	leaving(st, &out)
	if out.Order != nil {
		out.State = out.Order.State
	}
	if !a.LostAt.IsZero() {
		out.State = "agent-lost"
	}
	return out
}

func fromAgent(st *state.State, out *client.Node, a *state.Agent) {
	out.LostAt, out.LastOffer, out.Attributes = a.LostAt, a.LastOffer, a.Attributes
	out.CPUs, out.MemMB, out.DiskMB = a.Total.CPUs, a.Total.MemMB, a.Total.DiskMB
	out.Region, out.Zone = cmp.Or(out.Region, a.Region), cmp.Or(out.Zone, a.Zone)
	for _, id := range st.InstancesOn(a.ID) {
		out.Instances = append(out.Instances, string(id))
	}
}

// Deployments lists what is under way, oldest first.
func Deployments(st *state.State) []client.Deployment {
	out := []client.Deployment{}
	for _, d := range st.Deployments {
		out = append(out, Deployment(d))
	}
	slices.SortFunc(out, func(a, b client.Deployment) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Deployment gives one deployment.
func Deployment(d *state.Deployment) client.Deployment {
	out := client.Deployment{ID: string(d.ID), Version: d.Version, CreatedAt: d.CreatedAt, Step: d.Step + 1, Paused: d.Paused, Apps: []string{}, Steps: []client.DeploymentStep{}, Changes: []client.DeploymentChange{}}
	for _, a := range d.Apps {
		out.Apps = append(out.Apps, string(a))
	}
	for _, s := range d.Steps {
		step := client.DeploymentStep{Actions: []client.DeploymentAction{}}
		for _, a := range s.Actions {
			step.Actions = append(step.Actions, client.DeploymentAction{Action: a.Action, App: string(a.App)})
		}
		out.Steps = append(out.Steps, step)
	}
	for _, c := range d.Changes {
		out.Changes = append(out.Changes, client.DeploymentChange{App: string(c.App), FromVersion: c.FromVersion, FromInstances: c.FromInstances, ToVersion: c.ToVersion, ToInstances: c.ToInstances})
	}
	return out
}

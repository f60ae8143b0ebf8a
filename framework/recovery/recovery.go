// Package recovery makes the records of a framework whose store was lost out of what is still known elsewhere: the definitions of apps from people, instances
// from the tasks that the master knows, volumes and epochs from the claims of the lease authority, reservations from their labels on the agents' resources. It decides
// only; who calls it reads the world and writes the records. The claims themselves are never touched: whatever is wrong in a rebuilt record, they still say who may write.
package recovery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// App is an app as a person gives it.
type App struct {
	Def       *state.Def
	Instances int
}

// World is what is known.
type World struct {
	Cluster   string // of the authority's root
	Framework string // id at the master
	Census    *mesos.Census
	Claims    []lease.ClaimVersion
	Nodes     []lease.NodeVersion
	Apps      []App
	// Kept are records to be taken as they are: classes, groups and other versions of definitions from an older export. Older are its volumes.
	Kept  []state.Write
	Older map[state.VolumeUID]*state.Volume
	Now   time.Time
}

// Result is the state that can be rebuilt, and what a person has to know of it.
type Result struct {
	Writes []state.Write `json:"-"`
	Apps   []AppLine     `json:"apps"`
	// Instances, Volumes and Reservations are those that were found.
	Instances    []InstanceLine `json:"instances"`
	Volumes      []VolumeLine   `json:"volumes"`
	Reservations []ReservedLine `json:"reservations"`
	// Unknown are tasks of apps that nobody gave: a framework on this state kills them.
	Unknown []InstanceLine `json:"unknownTasks,omitempty"`
	Notes   []string       `json:"notes,omitempty"`
}

// AppLine is an app of the plan; InstanceLine a task that becomes an instance again; VolumeLine an external volume; ReservedLine a reservation.
type (
	AppLine struct {
		ID        state.AppID `json:"id"`
		Version   string      `json:"version"`
		Instances int         `json:"instances"`
		Running   int         `json:"running"`
	}
	InstanceLine struct {
		ID    state.InstanceID `json:"id,omitempty"`
		Task  state.TaskID     `json:"task"`
		Host  string           `json:"host"`
		State string           `json:"state"`
	}
	VolumeLine struct {
		UID      state.VolumeUID  `json:"uid"`
		Ref      volume.Ref       `json:"ref"`
		App      state.AppID      `json:"app,omitempty"`
		Instance state.InstanceID `json:"instance,omitempty"`
		Claim    lease.ClaimState `json:"claim"`
		Epoch    volume.Epoch     `json:"epoch"`
	}
	ReservedLine struct {
		Instance state.InstanceID `json:"instance"`
		Host     string           `json:"host"`
		Phase    string           `json:"phase"`
		Volumes  int              `json:"volumes"`
	}
)

// builder collects the records.
type builder struct {
	World
	r         *Result
	apps      map[string]*App // by AppID.Safe
	nodes     map[state.AgentID]*lease.NodeVersion
	instances map[state.InstanceID]*state.Instance
	volumes   map[state.TaskID][]state.Grant // exclusive claims by their owner
}

// Plan makes the records. Error: what is known contradicts itself, so that nothing may be written.
func Plan(w World) (*Result, error) {
	b := &builder{World: w, r: &Result{}, apps: map[string]*App{}, nodes: map[state.AgentID]*lease.NodeVersion{}, instances: map[state.InstanceID]*state.Instance{}, volumes: map[state.TaskID][]state.Grant{}}
	for i := range w.Apps {
		a := &w.Apps[i]
		safe := a.Def.App.Safe()
		if b.apps[safe] != nil {
			return nil, fault.New(fault.Invalid, "app %s is given twice, or %s has the same task ids", a.Def.App, b.apps[safe].Def.App)
		}
		b.apps[safe] = a
	}
	for i := range w.Nodes {
		if n := &w.Nodes[i]; n.AgentID != "" && (b.nodes[state.AgentID(n.AgentID)] == nil || n.Alive) {
			b.nodes[state.AgentID(n.AgentID)] = n
		}
	}
	b.claims()
	if err := b.tasks(); err != nil {
		return nil, err
	}
	reserved := b.reservations()
	b.put(state.KindFramework, "", &state.Framework{Cluster: w.Cluster, ID: w.Framework, Reserves: reserved, Rev: 1})
	b.finish()
	return b.r, nil
}

func (b *builder) put(kind state.Kind, id string, v any) {
	b.r.Writes = append(b.r.Writes, state.Write{Kind: kind, ID: id, Value: v})
}

func (b *builder) note(format string, args ...any) {
	b.r.Notes = append(b.r.Notes, fmt.Sprintf(format, args...))
}

// claims makes the volumes. Which app's a volume is, its name tells; that it exists, its claim.
func (b *builder) claims() {
	type owner struct {
		app     *App
		mount   *state.Mount
		ordinal int
	}
	byRef := map[volume.Ref]owner{}
	for i := range b.Apps {
		a := &b.Apps[i]
		for m := range a.Def.Spec.Volumes {
			mount := &a.Def.Spec.Volumes[m]
			if mount.Kind != state.MountExternal {
				continue
			}
			for n := range max(a.Instances, 1000) { // volumes of numbers that were scaled away stay
				byRef[volume.Ref{Driver: mount.Driver, Name: volume.NameFor(mount.Pattern, n, mount.Shared)}] = owner{a, mount, n}
				if mount.Shared {
					break
				}
			}
		}
	}
	drivers := map[string]string{}
	for i := range b.Nodes {
		for _, d := range b.Nodes[i].Drivers {
			drivers[d.Name] = d.Scope
		}
	}
	slices.SortFunc(b.Claims, func(x, y lease.ClaimVersion) int { return strings.Compare(x.Ref.String(), y.Ref.String()) })
	for i := range b.Claims {
		c := &b.Claims[i]
		if c.Tombstone {
			continue
		}
		v := &state.Volume{UID: state.VolumeUID(c.VolumeUID), Ref: c.Ref, Shared: c.Shared, Policy: c.Policy.Mode, Phase: state.VolumeReady, Adopted: true,
			Epoch: c.Epoch, CreatedAt: c.Since, Rev: 1}
		if old := b.Older[v.UID]; old != nil {
			was := *old
			v = &was
			v.Phase, v.Op, v.Error, v.Epoch, v.Rev = state.VolumeReady, "", "", max(was.Epoch, c.Epoch), was.Rev+1
		} else if o, ok := byRef[c.Ref]; ok {
			v.App, v.Size, v.Options, v.Class, v.User = o.app.Def.App, o.mount.Size, o.mount.Options, o.mount.Class, o.app.Def.Spec.User
			if !c.Shared {
				v.Instance = state.NewInstanceID(o.app.Def.App, o.ordinal)
			}
			if v.Policy == "" {
				v.Policy = o.mount.Policy
			}
		} else {
			b.note("volume %s belongs to no app that was given: it is recorded as nobody's, and stays", c.Ref)
		}
		if v.Policy == "" {
			v.Policy = lease.PolicyOperator
		}
		if b.Older[v.UID] == nil {
			b.place(v, c, drivers[c.Ref.Driver])
		}
		b.put(state.KindVolume, string(v.UID), v)
		b.r.Volumes = append(b.r.Volumes, VolumeLine{v.UID, v.Ref, v.App, v.Instance, c.State, c.Epoch})
		if c.State != lease.Free && !c.Shared {
			task := state.TaskID(c.Owner)
			b.volumes[task] = append(b.volumes[task], state.Grant{Volume: v.UID, Epoch: c.Epoch, Nonce: c.Nonce, Done: true})
		}
	}
}

// place says where a volume can be used. A claim keeps its last node, and a volume of a driver of that scope is on that one; when it is not known the
// nodes are asked: the volume is to be adopted where it is, and never made again.
func (b *builder) place(v *state.Volume, c *lease.ClaimVersion, scope string) {
	switch {
	case c.State == lease.Held && (scope == "node" || scope == "zone"):
		v.Scope, v.Node = scope, state.NodeUID(c.Node)
	case scope == "cluster":
		v.Scope = scope
	case c.State == lease.Held: // the driver's scope is not known: it is where it is
		v.Scope, v.Node = "node", state.NodeUID(c.Node)
	default:
		v.Phase, v.Adopted, v.AdoptOnly = state.VolumePlanned, false, true
		b.note("volume %s is on one node, and nothing says on which: the nodes are asked when it is wanted", c.Ref)
	}
}

// tasks makes the instances.
func (b *builder) tasks() error {
	for i := range b.Census.Tasks {
		t := &b.Census.Tasks[i]
		if t.Framework != b.Framework {
			continue
		}
		host := b.Census.Agents[t.Agent].Hostname
		line := InstanceLine{Task: t.ID, Host: host, State: t.State}
		id, incarnation, ok := state.ParseTaskID(t.ID)
		safe, ordinal, named := id.Split()
		a := b.apps[safe]
		if phase(t.State) == "" {
			continue
		}
		if !ok || !named || a == nil {
			b.r.Unknown = append(b.r.Unknown, line)
			continue
		}
		line.ID = id
		if old := b.instances[id]; old != nil {
			if old.Incarnation == incarnation {
				return fault.New(fault.Conflict, "tasks %s and %s are both run %d of instance %s", old.Run.Task, t.ID, incarnation, id)
			}
			b.note("instance %s has the tasks %s and %s: the newer one counts, and the other is killed", id, old.Run.Task, t.ID)
			if old.Incarnation > incarnation {
				continue
			}
		}
		b.instances[id] = b.instance(a, id, ordinal, incarnation, t)
		b.r.Instances = append(b.r.Instances, line)
	}
	return nil
}

func phase(mesos string) state.Phase {
	switch mesos {
	case "TASK_RUNNING":
		return state.PhaseRunning
	case "TASK_STAGING", "TASK_STARTING":
		return state.PhaseStaging
	case "TASK_KILLING":
		return state.PhaseKilling
	case "TASK_UNREACHABLE", "TASK_LOST", "TASK_UNKNOWN", "TASK_GONE", "TASK_GONE_BY_OPERATOR":
		return state.PhaseLost
	}
	return "" // over: the claims tell the rest
}

func (b *builder) instance(a *App, id state.InstanceID, ordinal int, incarnation uint64, t *mesos.CensusTask) *state.Instance {
	agent := b.Census.Agents[t.Agent]
	run := &state.Run{Task: t.ID, Version: a.Def.Version, Agent: t.Agent, Hostname: agent.Hostname, AgentURL: agent.URL, Region: agent.Region, Zone: agent.Zone,
		Ports: t.Ports, MesosState: t.State, Healthy: t.Healthy, ContainerIP: t.ContainerIP, StagedAt: t.StagedAt, StartedAt: t.BeganAt, Claims: b.volumes[t.ID]}
	if run.StagedAt.IsZero() {
		run.StagedAt = b.Now
	}
	if n := b.nodes[t.Agent]; n != nil {
		run.Node = state.NodeUID(n.UID)
	}
	for _, c := range a.Def.Spec.Constraints {
		if v, ok := agent.Attributes[c.Field]; ok {
			if run.Attributes == nil {
				run.Attributes = map[string]string{}
			}
			run.Attributes[c.Field] = v
		}
	}
	for _, r := range t.Resources {
		if r.Disk != nil && r.Disk.Persistence != "" {
			run.Local = append(run.Local, state.RunVolume{ID: r.Disk.Persistence, ContainerPath: r.Disk.ContainerPath})
		}
	}
	i := &state.Instance{ID: id, App: a.Def.App, Ordinal: ordinal, Goal: state.GoalRun, Version: a.Def.Version, Phase: phase(t.State), Since: b.Now,
		Incarnation: incarnation, Run: run, CreatedAt: run.StagedAt, Rev: 1}
	if i.Phase == state.PhaseLost {
		run.LostAt, i.WakeAt = b.Now, b.Now
	}
	if run.StartedAt.IsZero() && i.Phase == state.PhaseRunning {
		run.StartedAt = b.Now
	}
	return i
}

// reservations makes a record of what each agent keeps for each instance of ours.
func (b *builder) reservations() (some bool) {
	type key struct {
		agent    state.AgentID
		instance state.InstanceID
	}
	found := map[key]*state.Reserved{}
	var order []key
	for id, agent := range b.Census.Agents {
		for k := range agent.Resources {
			res := &agent.Resources[k]
			o, ok := reserve.OwnerOf(res, b.Cluster)
			if !ok {
				continue
			}
			at := key{id, o.Instance}
			r := found[at]
			if r == nil {
				r = &state.Reserved{ID: state.ReservedID(uuid.Must(uuid.NewV7()).String()), App: o.App, Instance: o.Instance, Agent: id, Hostname: agent.Hostname,
					Role: res.Reservations[len(res.Reservations)-1].Role, Phase: state.ReservedRetained, Since: b.Now, Some: true, CreatedAt: b.Now, Rev: 1}
				found[at] = r
				order = append(order, at)
			}
			if res.Disk != nil && res.Disk.Persistence != "" {
				r.Volumes = append(r.Volumes, local(res))
			}
		}
	}
	slices.SortFunc(order, func(x, y key) int {
		return strings.Compare(string(x.instance)+" "+string(x.agent), string(y.instance)+" "+string(y.agent))
	})
	wanted := map[state.InstanceID]state.AgentID{} // where each instance's one held reservation is
	for _, at := range order {
		i := b.instances[at.instance]
		if i != nil && i.Run.Agent == at.agent {
			wanted[at.instance] = at.agent
		}
	}
	for _, at := range order {
		r := found[at]
		safe, ordinal, _ := at.instance.Split()
		a := b.apps[safe]
		if _, there := wanted[at.instance]; !there && a != nil && ordinal < a.Instances && a.Def.Spec.Reserves() {
			wanted[at.instance] = at.agent // it does not run, and goes on where its data is
		}
		if wanted[at.instance] == at.agent && a != nil {
			r.Phase = state.ReservedHeld
			b.sortLocal(r, &a.Def.Spec)
		} else if a == nil {
			b.note("agent %s keeps resources for instance %s, whose app was not given: they stay (holdfast reservations release)", r.Hostname, at.instance)
		}
		if i := b.instances[at.instance]; i != nil && i.Run.Agent == at.agent {
			r.Ports, r.Incarnation = i.Run.Ports, i.Incarnation
			for n := range i.Run.Local {
				for _, v := range r.Volumes {
					if v.ID == i.Run.Local[n].ID && i.Run.Local[n].ContainerPath == "" {
						i.Run.Local[n].ContainerPath = v.ContainerPath
					}
				}
			}
		}
		b.put(state.KindReserved, string(r.ID), r)
		b.r.Reservations = append(b.r.Reservations, ReservedLine{at.instance, r.Hostname, string(r.Phase), len(r.Volumes)})
	}
	return len(order) > 0
}

// local reads a persistent volume; its id is `<safe app>#<container path>#<uuid>`.
func local(r *state.Resource) state.LocalVolume {
	v := state.LocalVolume{ID: r.Disk.Persistence, ContainerPath: r.Disk.ContainerPath, SizeMB: int64(r.Scalar), Created: true, Type: "root"}
	if r.Disk.Source != "" {
		v.Type = strings.ToLower(r.Disk.Source)
	}
	if parts := strings.Split(v.ID, "#"); len(parts) == 3 {
		v.ContainerPath = parts[1]
	}
	return v
}

// sortLocal puts volumes into the order of the app's.
func (b *builder) sortLocal(r *state.Reserved, s *state.Spec) {
	at := map[string]int{}
	for i := range s.Volumes {
		at[s.Volumes[i].ContainerPath] = i
	}
	slices.SortStableFunc(r.Volumes, func(x, y state.LocalVolume) int { return at[x.ContainerPath] - at[y.ContainerPath] })
}

// finish makes the records of apps and instances: as many of each as run, if that is more than was given.
func (b *builder) finish() {
	running := map[state.AppID]int{}
	for _, id := range sorted(b.instances) {
		i := b.instances[id]
		running[i.App]++
		safe, _, _ := id.Split()
		if a := b.apps[safe]; i.Ordinal >= a.Instances {
			b.note("app %s was given with %d instances, and number %d runs: it is rebuilt with %d", a.Def.App, a.Instances, i.Ordinal, i.Ordinal+1)
			a.Instances = i.Ordinal + 1
		}
		b.put(state.KindInstance, string(id), i)
	}
	for _, safe := range sorted(b.apps) {
		a := b.apps[safe]
		b.put(state.KindDef, state.DefID(a.Def.App, a.Def.Version), a.Def)
		b.put(state.KindApp, string(a.Def.App), &state.App{ID: a.Def.App, Version: a.Def.Version, Instances: a.Instances, LastScalingAt: b.Now, LastConfigChangeAt: b.Now, Rev: 1})
		b.r.Apps = append(b.r.Apps, AppLine{a.Def.App, a.Def.Version, a.Instances, running[a.Def.App]})
	}
	b.r.Writes = append(b.r.Writes, b.Kept...)
}

func sorted[K ~string, V any](m map[K]V) []K {
	list := make([]K, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

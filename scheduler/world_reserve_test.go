package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// wOp is an operation as master and agent know it.
type wOp struct {
	id    string
	agent *wAgent
	state string
	uuid  []byte // nil: told once, not repeated
	text  string
}

// wBooks are what a machine has on its disk, whatever its agent is called: what is free, and what became of reservations.
type wBooks struct {
	free *ledger
}

func foreignParts() []state.Resource {
	theirs := []state.Reservation{{Role: "holdfast", Dynamic: true, Labels: map[string]string{reserve.LabelCluster: "another", reserve.LabelInstance: "loc.0", reserve.LabelApp: "/loc"}}}
	return []state.Resource{
		{Name: "cpus", Scalar: 1, AllocationRole: "holdfast", Reservations: theirs},
		{Name: "disk", Scalar: 7, AllocationRole: "holdfast", Reservations: theirs, Disk: &state.Disk{Persistence: "theirs", ContainerPath: "data"}},
		{Name: "disk", Scalar: 7, AllocationRole: "holdfast", Reservations: []state.Reservation{{Role: "holdfast", Dynamic: true}}, Disk: &state.Disk{Persistence: "nobodys", ContainerPath: "data"}},
	}
}

func newBooks() *wBooks {
	b := &wBooks{free: newLedger(foreignParts()...)}
	for _, r := range []state.Resource{{Name: "cpus", Scalar: 4}, {Name: "mem", Scalar: 4000}, {Name: "disk", Scalar: 100000}, {Name: "ports", Ranges: []state.Range{{Begin: 31000, End: 31099}}}} {
		r.AllocationRole = "holdfast"
		b.free.add(r)
	}
	return b
}

// resources are what an agent's offer shows: everything that is free, or now and then a part of it.
func (w *world) resources(h *wHost) []state.Resource {
	list := h.books.free.list()
	if w.calm || w.r.Intn(4) > 0 {
		return list
	}
	return slices.DeleteFunc(list, func(state.Resource) bool { return w.r.Intn(3) == 0 })
}

// operate carries out an ACCEPT's operations and takes its launches' resources. It says which launches have theirs.
func (w *world) operate(c Accept, ok bool, offers []*state.Offer) (launched map[state.TaskID]string) {
	launched = map[state.TaskID]string{}
	a := w.agents[c.Agent]
	lost := a == nil || a.gone || a.parted || !a.reachable
	for _, op := range c.Operations {
		w.checkOp(op)
		if op.ID != "" && w.ops[op.ID] != nil {
			w.broken("operation %s is asked for twice", op.ID)
		}
	}
	if !ok || lost {
		for _, op := range c.Operations {
			if op.ID == "" {
				continue
			}
			if !ok {
				w.tell(OperationStatus{ID: op.ID, State: "OPERATION_ERROR", Message: "Operation attempted with invalid offers"})
			} else {
				w.ops[op.ID] = &wOp{id: op.ID, agent: a, state: "OPERATION_DROPPED", text: "the agent did not get it"}
			}
		}
		return launched
	}
	h := a.host
	pool := newLedger()
	for _, o := range offers {
		if err := h.books.free.take(o.Resources...); err != nil {
			w.broken("offer %s is not there any more: %v", o.ID, err)
		}
		for _, r := range o.Resources {
			pool.add(r)
		}
	}
	for _, op := range c.Operations {
		w.operateOne(a, pool, op)
	}
	for _, l := range c.Launches {
		if err := pool.take(l.Resources...); err != nil {
			launched[l.Run.Task] = err.Error()
		}
	}
	for _, r := range pool.list() {
		h.books.free.add(r)
	}
	return launched
}

func (w *world) operateOne(a *wAgent, pool *ledger, op reserve.Op) {
	err := error(nil)
	if !w.calm && w.r.Intn(12) == 0 {
		err = fmt.Errorf("the master does not want to")
	} else {
		err = pool.apply(op)
	}
	w.logf("operation %s %s for %s: %v", op.Kind, op.ID, op.Instance, err)
	if err == nil {
		for _, r := range op.Resources {
			switch op.Kind {
			case reserve.Create:
				if w.created[r.Disk.Persistence]++; w.created[r.Disk.Persistence] > 1 {
					w.broken("volume %s is created twice", r.Disk.Persistence)
				}
			case reserve.Destroy:
				w.destroyed[r.Disk.Persistence] = true
			}
		}
	}
	if op.ID == "" {
		return
	}
	if err != nil {
		w.tell(OperationStatus{ID: op.ID, Agent: a.id, State: "OPERATION_ERROR", Message: err.Error()})
		return
	}
	w.ops[op.ID] = &wOp{id: op.ID, agent: a, state: "OPERATION_FINISHED", uuid: []byte("op " + op.ID)}
}

// checkOp looks at the promises: what is not ours is never touched, and no volume is destroyed that nobody asked to destroy.
func (w *world) checkOp(op reserve.Op) {
	for _, r := range op.Resources {
		o, ours := reserve.OwnerOf(&r, "c1")
		if !ours {
			w.broken("%s touches %s, which is not ours", op.Kind, place.Identity(&r))
		}
		if o.Instance != op.Instance {
			w.broken("%s for %s touches what is %s's", op.Kind, op.Instance, o.Instance)
		}
		if op.Kind == reserve.Destroy && !w.wipes[string(o.App)] && !w.wipes[string(o.Instance)] {
			w.broken("volume %s is destroyed, and nobody asked for it", r.Disk.Persistence)
		}
	}
}

// opWork tells of an operation's end, again and again until it is acknowledged.
func (w *world) opWork() {
	var list []string
	for id, o := range w.ops {
		if o.uuid != nil && !o.agent.parted && !o.agent.host.dead && !o.agent.gone {
			list = append(list, id)
		}
	}
	if len(list) == 0 || !w.connected {
		return
	}
	slices.Sort(list)
	o := w.ops[list[w.r.Intn(len(list))]]
	w.fromMaster = append(w.fromMaster, OperationStatus{ID: o.id, Agent: o.agent.id, State: o.state, UUID: o.uuid})
}

func (w *world) reconcileOps(c ReconcileOperations) {
	for _, q := range c.Operations {
		s := OperationStatus{ID: q.ID, Agent: q.Agent, State: "OPERATION_UNKNOWN", Message: "Reconciliation: Operation is unknown"}
		a := w.agents[q.Agent]
		switch o := w.ops[q.ID]; {
		case o != nil && !o.agent.gone:
			s.State, s.Message = o.state, o.text
		case a != nil && !a.gone && !a.reachable:
			s.State = "OPERATION_UNREACHABLE"
		}
		if w.calm || w.r.Intn(6) > 0 {
			w.tell(s)
		}
	}
}

// started looks at the local volumes of a task that begins: a volume of an instance never becomes another by itself.
func (w *world) started(t *wTask) {
	for _, r := range t.launch.Resources {
		if r.Disk == nil || r.Disk.Persistence == "" {
			continue
		}
		id, at := r.Disk.Persistence, string(t.launch.Instance.ID)+" "+r.Disk.ContainerPath
		if i := w.s.InstanceByTask(t.id); (i == nil || i.Run == nil || i.Run.Task != t.id) && w.givenUp(id) {
			continue // it was given up by its app's policy while its agent was cut off, and begins there all the same: it is killed when the agent is back
		}
		if before := w.local[at]; before != "" && before != id && !w.givenUp(before) {
			w.broken("%s runs on volume %s, and its data is on %s", t.id, id, before)
		}
		w.local[at] = id
	}
}

// givenUp tells whether a volume was destroyed, or is being, or was left behind by the app's policy.
func (w *world) givenUp(id string) bool {
	if w.destroyed[id] {
		return true
	}
	for _, r := range w.s.Reserved {
		if slices.ContainsFunc(r.Volumes, func(v state.LocalVolume) bool { return v.ID == id }) {
			return r.Phase == state.ReservedLeft || r.Phase == state.ReservedReleasing
		}
	}
	return false
}

// localSpec makes a definition with a local volume, or another that reserves, or one that does not any more.
func (w *world) localSpec(spec *state.Spec) {
	spec.Unreachable = state.Unreachable{Disabled: true}
	spec.Residency = &state.Residency{Relaunch: w.r.Intn(3) == 0, Escalation: time.Duration(w.r.Intn(3)) * time.Second}
	spec.CPUs = []float64{1, 0.5, 1.5}[w.r.Intn(3)]
	for n := range w.r.Intn(3) {
		spec.Ports = append(spec.Ports, state.Port{Want: 10000 + n, Protocol: "tcp"})
	}
	switch w.r.Intn(6) {
	case 0: // reserved, without a volume
	case 1: // neither
		spec.Residency = nil
	case 2:
		spec.Volumes = []state.Mount{{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: "locx"}}
		fallthrough
	default:
		spec.Volumes = append(spec.Volumes, state.Mount{Kind: state.MountPersistent, ContainerPath: "own", SizeMB: []int64{100, 100, 150, 50}[w.r.Intn(4)], DiskType: "root"})
	}
}

// localOrder is an order about reservations; nil when there is nothing to order.
func (w *world) localOrder() Event {
	switch w.r.Intn(3) {
	case 0:
		id := state.NewInstanceID("/loc", w.r.Intn(3))
		w.wipes[string(id)] = true
		return RestartInstance{Instance: id, Wipe: true}
	case 1:
		id := state.NewInstanceID("/loc", w.r.Intn(3))
		w.wipes[string(id)] = true
		return ReplaceInstance{Instance: id, Discard: true}
	}
	ids := sortedKeys(w.s.Reserved)
	if len(ids) == 0 {
		return nil
	}
	r := w.s.Reserved[ids[w.r.Intn(len(ids))]]
	w.wipes[string(r.Instance)] = true
	return ReleaseReservation{ID: r.ID}
}

// localTrouble names what is not as it should be with reservations when all is quiet.
func (w *world) localTrouble(say func(string, ...any)) {
	for _, id := range sortedKeys(w.s.Reserved) {
		r := w.s.Reserved[id]
		i := w.s.Instances[r.Instance]
		switch {
		case (r.Phase == state.ReservedReleasing || r.Phase == state.ReservedRetained) && r.Doubt && !r.MissingSince.IsZero() && w.agents[r.Agent].gone && !w.exists(r):
			// Nobody will ever know whether there was something: it is listed, until a person forgets it.
		case r.Phase == state.ReservedAsked, r.Phase == state.ReservedReleasing, r.Phase == state.ReservedRetained && !r.Trimmed, len(r.Ops) > 0:
			say("reservation of %s on %s is %+v, ops %v, retry %v, error %q", r.Instance, r.Agent, *r, r.Ops, r.RetryAt.Sub(w.now), r.Error)
		case r.Phase == state.ReservedHeld && (i == nil || i.Run == nil || i.Run.Agent != r.Agent):
			say("reservation of %s on %s is held, and nothing runs on it", r.Instance, r.Agent)
		}
	}
	for _, id := range sortedKeys(w.s.Leftovers) {
		say("leftover %s: %v", id, w.s.Leftovers[id].Volumes)
	}
	for _, h := range w.hosts {
		w.booksTrouble(h, say)
	}
}

// booksTrouble compares what a machine has reserved with what there should be.
func (w *world) booksTrouble(h *wHost, say func(string, ...any)) {
	all := h.books.free.clone()
	for _, t := range h.agent.tasks {
		if t.phase != "over" {
			for _, r := range t.launch.Resources {
				all.add(r)
			}
		}
	}
	foreign := newLedger(foreignParts()...)
	for k, n := range foreign.scalars {
		if all.scalars[k] != n {
			say("%s: of %s there is %s, not %s", h.name, k, all.scalars[k], n)
		}
	}
	have := map[state.InstanceID]map[string]place.Milli{}
	for _, r := range all.list() {
		o, ok := reserve.OwnerOf(&r, "c1")
		if !ok {
			continue
		}
		if r.Disk != nil && r.Disk.Persistence != "" {
			if !w.recorded(r.Disk.Persistence) {
				say("%s: volume %s of %s is in no record", h.name, r.Disk.Persistence, o.Instance)
			}
			continue
		}
		if have[o.Instance] == nil {
			have[o.Instance] = map[string]place.Milli{}
		}
		n := place.ToMilli(r.Scalar)
		eachPort(r, func(uint64) { n += 1000 })
		have[o.Instance][r.Name] += n
	}
	for _, id := range sortedKeys(have) {
		i, r := w.s.Instances[id], w.s.CurrentReserved(id)
		if i == nil || r == nil || r.Agent != h.agent.id || i.Run == nil {
			say("%s: %s has %v and should have nothing", h.name, id, have[id])
			continue
		}
		s := w.s.Def(i.App, i.Run.Version).Spec
		for name, want := range map[string]float64{"cpus": s.CPUs, "mem": s.MemMB, "disk": s.DiskMB, "ports": float64(len(s.Ports))} {
			if have[id][name] != place.ToMilli(want) {
				say("%s: %s has %s %s reserved, and needs %g", h.name, id, have[id][name], name, want)
			}
		}
	}
}

// exists tells whether any machine has one of a reservation's volumes.
func (w *world) exists(r *state.Reserved) bool {
	for _, h := range w.hosts {
		for _, x := range h.books.free.list() {
			if x.Disk != nil && volumeIDs(r)[x.Disk.Persistence] {
				return true
			}
		}
	}
	return false
}

func (w *world) recorded(volume string) bool {
	for _, r := range w.s.Reserved {
		if slices.ContainsFunc(r.Volumes, func(v state.LocalVolume) bool { return v.ID == volume }) {
			return true
		}
	}
	return false
}

// released gives back what a task used.
func (w *world) released(t *wTask) {
	for _, r := range t.launch.Resources {
		t.agent.host.books.free.add(r)
	}
}

// endDoubts is a person who gives up what nobody will ever know about: agents that are gone for good, and perhaps had a volume.
func (w *world) endDoubts() {
	for _, id := range sortedKeys(w.s.Reserved) {
		r := w.s.Reserved[id]
		if r != nil && r.Doubt && r.Current() && w.agents[r.Agent].gone && !w.exists(r) {
			w.wipes[string(r.Instance)] = true
			w.step(ReleaseReservation{ID: id}, 0)
		}
	}
}

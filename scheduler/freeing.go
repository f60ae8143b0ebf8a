package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/away"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// sweepFor is how long offers are wanted only to look for leftovers of our reservations, after a subscription and now and then.
const sweepFor = 20 * time.Second

// tend looks through the offers at hand for what is reserved under our labels: it notes what is there, gives back what nobody wants any more,
// and lists what only a person may give back. It costs nothing where nothing is reserved.
func (w *work) tend() {
	if ses := w.session(); !ses.Connected || ses.Stopped != "" || w.frozen() {
		return
	}
	cluster := w.cluster()
	if cluster == "" {
		return
	}
	type where struct {
		agent state.AgentID
		role  string
	}
	var list []where
	offers := w.offers()
	var wanted map[where]bool
	for _, o := range offers {
		k := where{o.Agent, o.Role}
		if o.Bundle != "" || o.Agent == "" || wanted[k] || !ours(o, cluster) && len(w.s.ReservedOn(o.Agent)) == 0 {
			continue
		}
		if wanted == nil {
			wanted = map[where]bool{}
		}
		wanted[k] = true
		list = append(list, k)
	}
	if len(list) == 0 {
		return
	}
	by := map[where][]*state.Offer{}
	for _, o := range offers {
		if o.Bundle == "" {
			by[where{o.Agent, o.Role}] = append(by[where{o.Agent, o.Role}], o)
		}
	}
	for _, k := range list {
		w.tendAgent(k.agent, k.role, by[k])
	}
}

// ours tells whether an offer has anything that is reserved under our labels, or a persistent volume.
func ours(o *state.Offer, cluster string) bool {
	for i := range o.Resources {
		r := &o.Resources[i]
		if len(r.Reservations) == 0 {
			continue
		}
		if _, ok := reserve.OwnerOf(r, cluster); ok || (r.Disk != nil && r.Disk.Persistence != "") {
			return true
		}
	}
	return false
}

func (w *work) tendAgent(agent state.AgentID, role string, offers []*state.Offer) {
	w.followAgent(agent, offers)
	var ops []reserve.Op
	of := map[state.InstanceID]*state.Reserved{}
	known, current := map[state.InstanceID]bool{}, map[state.InstanceID]bool{}
	volumes := map[string]bool{}
	for _, r := range w.reservedOn(agent) {
		if r.Role != role {
			continue
		}
		known[r.Instance] = true
		current[r.Instance] = current[r.Instance] || r.Current()
		for _, v := range r.Volumes {
			volumes[v.ID] = true
		}
	}
	for _, r := range w.reservedOn(agent) {
		if r.Role != role {
			continue
		}
		own := ownedBy(reserve.Own(offers, w.ownerOf(r), volumeIDs(r)), r, volumes, current[r.Instance] && !r.Current())
		if r = w.noteOwn(r, own); r == nil || of[r.Instance] != nil || w.frozen() {
			continue
		}
		if more := w.excess(r, own); len(more) > 0 {
			of[r.Instance] = r
			ops = append(ops, more...)
		}
	}
	if w.frozen() {
		return
	}
	ops = append(ops, w.leftovers(agent, offers, known, volumes)...)
	if len(ops) > 0 {
		w.operate(agent, offers, ops, func(id state.InstanceID) *state.Reserved { return of[id] })
	}
}

// ownedBy leaves out volumes, and disks of volumes, that another record of the same instance knows, and where old says that the instance
// has a newer reservation beside this one, all that is no volume's.
func ownedBy(own []state.Resource, r *state.Reserved, volumes map[string]bool, old bool) []state.Resource {
	mine := volumeIDs(r)
	return slices.DeleteFunc(own, func(x state.Resource) bool {
		id := ""
		if x.Disk != nil {
			id = x.Disk.Persistence
		}
		if id == "" && len(x.Reservations) > 0 {
			id = x.Reservations[len(x.Reservations)-1].Labels[reserve.LabelVolume]
		}
		return id != "" && !mine[id] && volumes[id] || id == "" && old
	})
}

// followAgent finds reservations whose agent has come back under another id: their volumes tell.
func (w *work) followAgent(agent state.AgentID, offers []*state.Offer) {
	for _, o := range offers {
		for i := range o.Resources {
			x := &o.Resources[i]
			owner, ok := reserve.OwnerOf(x, w.cluster())
			if !ok || x.Disk == nil || x.Disk.Persistence == "" {
				continue
			}
			for _, id := range w.s.ReservedOf(owner.Instance) {
				r := w.reserved(id)
				if r == nil || r.Agent == agent || !volumeIDs(r)[x.Disk.Persistence] {
					continue
				}
				c := r.Clone()
				c.Agent, c.Hostname, c.MissingSince = agent, o.Hostname, time.Time{}
				w.putReserved(c)
				w.lookAgain(c)
			}
		}
	}
}

// noteOwn takes into a reservation's record what an offer of its agent shows. nil: there is nothing, and nothing is wanted.
func (w *work) noteOwn(r *state.Reserved, own []state.Resource) *state.Reserved {
	c := r.Clone()
	c.MissingSince = time.Time{}
	seen := map[string]bool{}
	plain := false
	for i := range own {
		if d := own[i].Disk; d != nil && d.Persistence != "" {
			seen[d.Persistence] = true
		} else {
			plain = true
		}
	}
	for n := range c.Volumes {
		c.Volumes[n].Created = c.Volumes[n].Created || seen[c.Volumes[n].ID]
	}
	switch {
	case len(own) > 0:
		c.Some, c.Doubt = true, false
		if c.Phase == state.ReservedAsked && len(c.Ops) == 0 {
			w.setReservedPhase(c, state.ReservedHeld)
		}
		if c.Phase == state.ReservedRetained && plain && len(c.Ops) == 0 {
			c.Trimmed = false
		}
	case len(c.Ops) > 0, w.haunted(c), c.Doubt && w.now.Sub(w.session().Since) < launchPatience:
		// An old task of it may run there, and use it.
	case c.Phase == state.ReservedReleasing && (c.Freed || created(c) == 0):
		// All was asked for and nothing of it is left, or there never was anything.
		w.removeReserved(c)
		return nil
	case (c.Phase == state.ReservedAsked || c.Phase == state.ReservedRetained) && created(c) == 0 && w.idle(c):
		// It never came to be. Nothing was made, so nothing is lost by starting over.
		w.removeReserved(c)
		w.newcomer = true
		return nil
	}
	if !sameReserved(c, r) {
		w.putReserved(c)
		w.lookAgain(c)
		return c
	}
	return r
}

// haunted tells whether a task of the instance that nobody wants any more may still run there, on what is reserved.
func (w *work) haunted(r *state.Reserved) bool {
	is := func(t *state.StrangeTask) bool {
		id, _, ok := state.ParseTaskID(t.Task)
		return ok && id == r.Instance && t.Agent == r.Agent
	}
	for id := range w.s.Strange {
		if t := look(w, state.KindStrange, string(id), w.s.Strange[id]); t != nil && is(t) {
			return true
		}
	}
	for _, k := range w.order {
		if t, ok := w.over[k].(*state.StrangeTask); ok && is(t) {
			return true
		}
	}
	return false
}

// idle tells that no run of the instance can be using a reservation.
func (w *work) idle(r *state.Reserved) bool {
	i := w.instance(r.Instance)
	return i == nil || i.Run == nil || i.Run.Agent != r.Agent || !w.spec(i.App, i.Run.Version).Reserves()
}

// excess gives the operations that give back what a reservation should not have any more.
func (w *work) excess(r *state.Reserved, own []state.Resource) []reserve.Op {
	if len(own) == 0 || len(r.Ops) > 0 || r.RetryAt.After(w.now) {
		return nil
	}
	o := w.ownerOf(r)
	switch r.Phase {
	case state.ReservedReleasing:
		mine := volumeIDs(r)
		ops, _ := reserve.Free(own, o, func(id string) bool { return mine[id] })
		return ops
	case state.ReservedRetained:
		i := w.instance(r.Instance)
		if i != nil && i.Goal == state.GoalRun && w.bound(i) != nil {
			return nil // it is about to run on it again
		}
		ops := reserve.Trim(own, o)
		c := r.Clone()
		c.Trimmed = true
		w.putReserved(c)
		return ops
	case state.ReservedLeft:
		return reserve.Trim(own, o)
	case state.ReservedHeld:
		// What a running task does not use was reserved twice.
		if i := w.instance(r.Instance); i != nil && i.Run != nil && i.Run.Agent == r.Agent && (i.Phase == state.PhaseRunning || i.Phase == state.PhaseStaging) {
			return reserve.Trim(own, o)
		}
	}
	return nil
}

// leftovers gives back what is reserved under our labels for instances that have no reservation there. Volumes are only listed.
func (w *work) leftovers(agent state.AgentID, offers []*state.Offer, known map[state.InstanceID]bool, volumes map[string]bool) (ops []reserve.Op) {
	owners := map[state.InstanceID]reserve.Owner{}
	strange := map[state.InstanceID]bool{} // known, but with a volume that no record has
	for _, o := range offers {
		for i := range o.Resources {
			x, ok := reserve.OwnerOf(&o.Resources[i], w.cluster())
			if !ok {
				continue
			}
			x.Volume = ""
			owners[x.Instance] = x
			if d := o.Resources[i].Disk; d != nil && d.Persistence != "" && !volumes[d.Persistence] {
				strange[x.Instance] = true
			}
		}
	}
	for _, id := range sortedKeys(owners) {
		if known[id] && !strange[id] {
			continue
		}
		left := w.s.Leftovers[state.LeftoverID(agent, id)]
		own := reserve.Own(offers, owners[id], nil)
		if known[id] {
			own = slices.DeleteFunc(own, func(r state.Resource) bool {
				return r.Disk == nil || r.Disk.Persistence == "" || volumes[r.Disk.Persistence]
			})
		}
		more, kept := reserve.Free(own, owners[id], func(string) bool { return left != nil && left.Release })
		if known[id] && (left == nil || !left.Release) {
			more = nil
		}
		ops = append(ops, more...)
		if len(kept) > 0 {
			w.put(state.KindLeftover, state.LeftoverID(agent, id), &state.Leftover{Agent: agent, Hostname: offers[0].Hostname, App: owners[id].App, Instance: id, Volumes: kept, Seen: w.now,
				Reason: "no record of this cluster knows the volume: it may hold data, and is given back only by a person's word"})
		} else if left != nil {
			w.remove(state.KindLeftover, state.LeftoverID(agent, id))
		}
	}
	return ops
}

// destroyedCount counts the volumes whose destruction was asked for, and not refused.
func destroyedCount(r *state.Reserved) (n int) {
	for _, v := range r.Volumes {
		if v.Created && v.Destroyed {
			n++
		}
	}
	return n
}

// missing looks again at the reservations whose agent is not known to be there; agent "" for all such. What was to be given back there waits
// until it is seen; where there is no volume, or all were asked to be destroyed, nothing is waited for: what comes back all the same is a leftover.
func (w *work) missing(agent state.AgentID) {
	for _, id := range sortedKeys(w.s.Reserved) {
		r := w.reserved(id)
		if r == nil || (agent != "" && r.Agent != agent) {
			continue
		}
		if a := w.agent(r.Agent); a != nil && a.LostAt.IsZero() && !(r.WantsOffer() && a.LastOffer.Add(reconcileEvery).Before(w.now)) {
			continue
		}
		switch {
		case (r.Phase == state.ReservedReleasing || r.Phase == state.ReservedRetained) && created(r) == destroyedCount(r) && len(r.Ops) == 0 && !r.Doubt:
			w.removeReserved(r)
		case r.WantsOffer():
			c := r.Clone()
			c.MissingSince = w.now
			w.putReserved(c)
		case r.Current():
			w.instances.add(r.Instance)
		}
	}
}

// retire ends the use of a reservation by an instance that is gone: its volumes stay, unless the app is removed with wipe.
func (w *work) retire(i *state.Instance) {
	if len(w.s.ReservedOf(i.ID)) == 0 && len(w.newReserved) == 0 {
		return
	}
	w.short(i, nil)
	r := w.reservedOf(i.ID)
	if r == nil {
		return
	}
	a := w.app(i.App)
	if (a != nil && a.Removed && a.Wipe) || r.Wipe || !r.HasVolume() {
		w.releaseReserved(r)
		return
	}
	c := r.Clone()
	c.Trimmed, c.MissingSince = false, time.Time{}
	w.setReservedPhase(c, state.ReservedRetained)
	w.putReserved(c)
	w.freeing = true
}

// releaseReserved has everything of a reservation destroyed and given back.
func (w *work) releaseReserved(r *state.Reserved) {
	c := r.Clone()
	c.Wipe, c.MissingSince = false, time.Time{}
	c.Doubt = c.Doubt || c.Phase == state.ReservedAsked && (len(c.Ops) > 0 || !w.idle(c))
	w.setReservedPhase(c, state.ReservedReleasing)
	w.putReserved(c)
	w.lookAgain(c)
	w.freeing = true
}

// leave gives a reservation up whose agent is missing. What is there stays there.
func (w *work) leave(r *state.Reserved) {
	c := r.Clone()
	c.Ops, c.RetryAt = nil, time.Time{}
	if created(r) == 0 && !r.Doubt && w.idle(r) {
		w.removeReserved(c) // should it come back, it is a leftover
		return
	}
	w.setReservedPhase(c, state.ReservedLeft)
	w.putReserved(c)
}

// advanceReserved looks after the reservation of a waiting instance: is its agent there, is it still wanted. It gives the time at which it
// is to be looked at again, zero for none.
func (w *work) advanceReserved(i *state.Instance) (again time.Time) {
	if len(w.s.ReservedOf(i.ID)) == 0 && len(w.newReserved) == 0 {
		return again
	}
	r := w.reservedOf(i.ID)
	switch {
	case r == nil:
		return again
	case r.Wipe:
		w.releaseReserved(r)
		return again
	case !w.spec(i.App, i.Version).Reserves():
		if r.Phase != state.ReservedRetained {
			w.retire(i)
		}
		return again
	}
	ses, a := w.session(), w.agent(r.Agent)
	if !ses.Connected || !ses.Reconciled || w.frozen() {
		return again
	}
	if a != nil && a.LostAt.IsZero() {
		// It was not said to be lost. One that makes no offer for long, although its offers are wanted, has come back as another agent, or does
		// not come back.
		silent := later(later(a.LastOffer, i.Since), ses.Since).Add(w.env.Config.DeclineFor + plainMissing)
		if silent.After(w.now) {
			return silent
		}
	}
	c := r.Clone()
	if c.MissingSince.IsZero() {
		c.MissingSince = w.now
		w.putReserved(c)
	}
	after := w.escalation(i, c)
	if after == 0 {
		return again
	}
	if again = c.MissingSince.Add(after); again.After(w.now) {
		return again
	}
	w.leave(c)
	w.newcomer = true
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lostWithVolume deals with a run whose agent is lost and has a local volume. It tells whether that decides.
func (w *work) lostWithVolume(i *state.Instance) bool {
	if len(w.s.ReservedOf(i.ID)) == 0 {
		return false
	}
	r := w.reservedOf(i.ID)
	if r == nil || !r.HasVolume() || i.Goal == state.GoalStop || !away.MayReturn(i.Run.MesosState, i.Run.Reason) {
		return false
	}
	after := w.patience(i)
	if after == 0 {
		w.setWake(i, time.Time{})
		return true
	}
	if until := i.Run.LostAt.Add(after); until.After(w.now) {
		w.setWake(i, until)
		return true
	}
	w.doubt(i)
	w.leave(w.reservedOf(i.ID))
	w.endRun(i)
	return true
}

// checkReserved retires, after a restart, reservations of instances that are gone.
func (w *work) checkReserved() {
	for _, id := range sortedKeys(w.s.Reserved) {
		r := w.reserved(id)
		if w.instance(r.Instance) == nil && (r.Phase == state.ReservedAsked || r.Phase == state.ReservedHeld) {
			w.retire(&state.Instance{ID: r.Instance, App: r.App})
		}
	}
}

// wipeReserved releases all that is reserved for an app that was removed with wipe.
func (w *work) wipeReserved(app state.AppID) {
	for _, id := range w.s.ReservedFor(app) {
		if r := w.reserved(id); r != nil && r.Phase != state.ReservedReleasing {
			w.releaseReserved(r)
		}
	}
}

// sweep begins a time in which offers are wanted to look for leftovers.
func (w *work) sweep() {
	if f := w.s.Framework; f != nil && f.Reserves {
		w.setSession(func(s *state.Session) { s.SweepUntil = w.now.Add(sweepFor) })
	}
}

// wantsOffers tells whether offers are needed for reservations alone.
func (w *work) wantsOffers() bool {
	return w.releases() > 0 || w.session().SweepUntil.After(w.now)
}

// releaseReservation is a person's word that what an agent keeps for an instance is to be given back, data included.
func (w *work) releaseReservation(e ReleaseReservation) *Reply {
	if r := w.reserved(e.ID); r != nil {
		i := w.instance(r.Instance)
		switch {
		case e.Forget && !r.Current():
			w.removeReserved(r)
		case r.Phase == state.ReservedReleasing:
		case i != nil && r.Current() && i.Run != nil && i.Phase != state.PhaseLost:
			return refuse(fault.New(fault.Conflict, "reservation %s is used by instance %s, which is %s on %s: stop the instance, or delete its task with wipe=true", r.ID, r.Instance, i.Phase, r.Hostname))
		case e.Forget:
			return refuse(fault.New(fault.Conflict, "reservation %s belongs to instance %s: release it first", r.ID, r.Instance))
		case r.Current() && i != nil && i.Phase == state.PhaseLost && len(i.Run.Claims) == 0:
			w.doubt(i)
			w.releaseReserved(w.reserved(r.ID))
			w.endRun(i)
		default:
			w.releaseReserved(r)
		}
		return &Reply{}
	}
	l := w.s.Leftovers[string(e.ID)]
	if l == nil {
		return refuse(fault.New(fault.NotFound, "reservation %s does not exist", e.ID))
	}
	c := *l
	c.Release = true
	w.put(state.KindLeftover, string(e.ID), &c)
	w.setSession(func(s *state.Session) { s.SweepUntil = w.now.Add(sweepFor) })
	w.freeing = true
	return &Reply{}
}

func (ReleaseReservation) event() {}

// doubt notes that a run ends of which nobody can tell, with volumes that were not seen yet.
func (w *work) doubt(i *state.Instance) {
	if len(w.s.ReservedOf(i.ID)) == 0 || meaningOf(i.Run.MesosState) == over {
		return
	}
	// A task of which nothing was ever heard, and which master and agent do not know, never ran: its end would be repeated until it is acknowledged.
	if i.Run.StartedAt.IsZero() && i.Run.MesosState == "TASK_GONE" && i.Run.Reason == "REASON_RECONCILIATION" {
		return
	}
	r := w.reservedOf(i.ID)
	if r == nil || r.Agent != i.Run.Agent || created(r) == len(r.Volumes) {
		return
	}
	c := r.Clone()
	c.Doubt = true
	w.putReserved(c)
}

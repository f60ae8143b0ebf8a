package scheduler

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Pauses around reservations.
const (
	operationRetryMin = time.Second
	operationRetryMax = time.Minute
	plainMissing      = time.Minute // how long a reservation without volumes is waited for when its agent is lost
)

// cluster is the name that reservations are labelled with, "" before the framework's record is there.
func (w *work) cluster() string {
	if f := look(w, state.KindFramework, "", w.s.Framework); f != nil {
		return f.Cluster
	}
	return ""
}

func (w *work) reserved(id state.ReservedID) *state.Reserved {
	return look(w, state.KindReserved, string(id), w.s.Reserved[id])
}

func (w *work) putReserved(r *state.Reserved) {
	old := w.reserved(r.ID)
	r.Rev = 1
	if base := w.s.Reserved[r.ID]; base != nil {
		r.Rev = base.Rev + 1
	}
	w.countWants(old, -1)
	w.countWants(r, 1)
	if w.s.Reserved[r.ID] == nil || w.s.Reserved[r.ID].Agent != r.Agent {
		if w.newReserved == nil {
			w.newReserved = map[state.ReservedID]bool{}
		}
		w.newReserved[r.ID] = true
	}
	w.put(state.KindReserved, string(r.ID), r)
	w.touched[r.Instance] = true
	if f := look(w, state.KindFramework, "", w.s.Framework); f != nil && !f.Reserves {
		c := *f
		c.Reserves = true
		c.Rev++
		w.put(state.KindFramework, "", &c)
	}
}

func (w *work) removeReserved(r *state.Reserved) {
	w.countWants(w.reserved(r.ID), -1)
	w.remove(state.KindReserved, string(r.ID))
	w.touched[r.Instance] = true
	w.instances.add(r.Instance)
}

func (w *work) countWants(r *state.Reserved, n int) {
	if r != nil && r.WantsOffer() {
		w.nwants += n
	}
}

// releases counts the reservations that wait for an offer to be given back, as they are now.
func (w *work) releases() int { return w.s.ReservedWants() + w.nwants }

// reservedOf gives the reservation that an instance's next or current run uses, nil if none.
func (w *work) reservedOf(id state.InstanceID) *state.Reserved {
	for _, rid := range w.s.ReservedOf(id) {
		if r := w.reserved(rid); r != nil && r.Current() {
			return r
		}
	}
	for rid := range w.newReserved {
		if r := w.reserved(rid); r != nil && r.Instance == id && r.Current() {
			return r
		}
	}
	return nil
}

// reservedOn gives the reservations on an agent as they are now, by age.
func (w *work) reservedOn(agent state.AgentID) (list []*state.Reserved) {
	add := func(id state.ReservedID) {
		if r := w.reserved(id); r != nil && r.Agent == agent {
			list = append(list, r)
		}
	}
	for _, id := range w.s.ReservedOn(agent) {
		add(id)
	}
	for _, id := range sortedKeys(w.newReserved) {
		if base := w.s.Reserved[id]; base == nil || base.Agent != agent {
			add(id)
		}
	}
	slices.SortFunc(list, func(a, b *state.Reserved) int { return compare(a.ID, b.ID) })
	return list
}

// bound gives the reservation that an instance's next run is bound to, nil when it may go anywhere.
func (w *work) bound(i *state.Instance) *state.Reserved {
	if len(w.s.ReservedOf(i.ID)) == 0 && len(w.newReserved) == 0 {
		return nil
	}
	if !w.spec(i.App, i.Version).Reserves() {
		return nil
	}
	return w.reservedOf(i.ID)
}

func (w *work) ownerOf(r *state.Reserved) reserve.Owner {
	return reserve.Owner{Cluster: w.cluster(), App: r.App, Instance: r.Instance}
}

func volumeIDs(r *state.Reserved) map[string]bool {
	m := map[string]bool{}
	for _, v := range r.Volumes {
		m[v.ID] = true
	}
	return m
}

// wish is what an instance wants of an agent. r is its reservation, with the volumes that there are; nil for a look at the definition alone.
func (w *work) wish(app state.AppID, id state.InstanceID, spec *state.Spec, role string, r *state.Reserved, ports []int) *reserve.Wish {
	out := &reserve.Wish{Owner: reserve.Owner{Cluster: w.cluster(), App: app, Instance: id}, Role: role, Principal: w.env.Config.Principal, Spec: spec, Ports: ports}
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountPersistent {
			continue
		}
		v := reserve.Volume{ID: fmt.Sprintf("new %d", n), ContainerPath: m.ContainerPath, SizeMB: m.SizeMB, MaxSizeMB: m.MaxSizeMB, Type: m.DiskType, Profile: m.Profile, Constraints: m.DiskConstraints}
		if v.Type == "" {
			v.Type = "root"
		}
		if r != nil {
			if at := r.VolumeAt(m.ContainerPath); at >= 0 {
				l := &r.Volumes[at]
				v.ID, v.Created, v.Fixed = l.ID, l.Created, l.NoResize != "" && l.NoResizeMB == m.SizeMB
			}
		}
		out.Volumes = append(out.Volumes, v)
	}
	return out
}

// withVolumes gives a copy of a reservation in which each local volume of a definition has its id; made anew where it has none.
func (w *work) withVolumes(r *state.Reserved, spec *state.Spec) *state.Reserved {
	c := r.Clone()
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountPersistent {
			continue
		}
		kind := m.DiskType
		if kind == "" {
			kind = "root"
		}
		at := c.VolumeAt(m.ContainerPath)
		if at < 0 {
			at = len(c.Volumes)
			id := fmt.Sprintf("%s#%s#%s", c.App.Safe(), m.ContainerPath, w.uuid())
			c.Volumes = append(c.Volumes, state.LocalVolume{ID: id, ContainerPath: m.ContainerPath, Type: kind})
		}
		c.Volumes[at].SizeMB = m.SizeMB
	}
	return c
}

// unreservable says why nothing can be reserved at a site for a new instance of a definition.
func (w *work) unreservable(s *site, spec *state.Spec) []state.Reason {
	if w.cluster() == "" {
		return []state.Reason{{Code: state.ReasonReservation, Text: "the cluster has no name yet to label reservations with"}}
	}
	if len(s.offers) == 0 {
		return []state.Reason{{Code: state.ReasonReservation, Text: "its offer is used for the reservation of another instance"}}
	}
	_, rs := reserve.Launch(s.pool.Clone(), nil, w.wish("", "", spec, s.offers[0].Role, nil, nil), 0)
	return rs
}

// fitIn takes what an instance's next run needs out of a pool: for one that reserves, on its own resources. ok is false, and the pool as it
// was, when it does not fit.
func (w *work) fitIn(i *state.Instance, spec *state.Spec, pool *place.Pool, offers []*state.Offer, ports []int, seed uint64) (ops reserve.Plan, got []int, ok bool) {
	if !spec.Reserves() {
		res, got, ok := pool.Take(spec, ports, seed)
		return reserve.Plan{Task: res}, got, ok
	}
	r := w.reservedOf(i.ID)
	p, rs := w.roomFor(i, spec, r, pool, offers, ports, seed)
	return p, p.Ports, len(rs) == 0 && !p.Later
}

func (w *work) roomFor(i *state.Instance, spec *state.Spec, r *state.Reserved, pool *place.Pool, offers []*state.Offer, ports []int, seed uint64) (reserve.Plan, []state.Reason) {
	var own []state.Resource
	if r != nil {
		own = reserve.Own(offers, w.ownerOf(r), volumeIDs(r))
		if ports == nil {
			ports = r.Ports
		}
	}
	return reserve.Launch(pool, own, w.wish(i.App, i.ID, spec, offers[0].Role, r, ports), seed)
}

// placeReserved places the waiting instances that are bound to an agent, before all others: nobody else can use what is reserved for them.
// It gives the sites whose offers are still there.
func (w *work) placeReserved(sites []*site) []*site {
	for _, s := range sites {
		if len(w.s.ReservedOn(s.agent.ID)) == 0 && len(w.newReserved) == 0 {
			continue
		}
		for _, r := range w.reservedOn(s.agent.ID) {
			i := w.instance(r.Instance)
			if i == nil || !i.Waits() || !r.Current() || r.Role != s.offers[0].Role || w.bound(i) == nil || w.bound(i).ID != r.ID {
				continue
			}
			if spec := w.spec(i.App, i.Version); w.def(i.App, i.Version) != nil && w.ready(i, spec) {
				w.placeOn(i, r, s, spec)
			}
			if s.offers == nil {
				break
			}
		}
	}
	return slices.DeleteFunc(sites, func(s *site) bool { return s.offers == nil })
}

// placeOn begins the next run of an instance where its reservation is, or notes why not.
func (w *work) placeOn(i *state.Instance, r *state.Reserved, s *site, spec *state.Spec) {
	if len(r.Ops) > 0 || r.RetryAt.After(w.now) {
		return // whyReserved tells
	}
	if slices.ContainsFunc(s.offers, func(o *state.Offer) bool { return w.offer(o.ID) == nil }) {
		return // operations for an instance before this one took them
	}
	rs := w.unfitNode(s, spec)
	if no := w.closed(s.agent); no.Code != "" && (no.Code == state.ReasonDraining || !r.HasVolume()) {
		// What can run only here may come up here again, until the node is being emptied.
		rs = append([]state.Reason{no}, rs...)
	}
	r = w.withVolumes(r, spec)
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountPersistent {
			continue
		}
		if v := r.Volumes[r.VolumeAt(m.ContainerPath)]; m.DiskType != "" && v.Type != m.DiskType && v.Created {
			rs = append(rs, state.Reason{Code: state.ReasonVolume, Text: fmt.Sprintf("its volume %s is of type %s, and the app wants %s: a volume does not change that", v.ID, v.Type, m.DiskType)})
		}
	}
	plan, short := w.roomFor(i, spec, r, s.pool.Clone(), s.offers, nil, w.seed())
	if rs = append(rs, short...); len(rs) > 0 {
		w.short(i, rs)
		return
	}
	w.short(i, nil)
	if !plan.Later {
		w.use(i, spec, s)
		return
	}
	w.operateFirst(r, s, plan.Ops)
}

// operateFirst asks for what has to be over before an instance can be launched at a site. The site's offers are used up by it.
func (w *work) operateFirst(r *state.Reserved, s *site, ops []reserve.Op) {
	if slices.ContainsFunc(s.offers, func(o *state.Offer) bool { return w.offer(o.ID) == nil || w.offer(o.ID).Bundle != "" }) {
		return // the offer is being used; the next one does
	}
	c := r.Clone()
	if c.Phase == state.ReservedRetained {
		w.setReservedPhase(c, state.ReservedHeld)
	}
	c.Error = ""
	w.putReserved(c)
	w.operate(s.agent.ID, s.offers, ops, func(state.InstanceID) *state.Reserved { return w.reserved(c.ID) })
	s.offers, s.pool = nil, place.NewPool(nil)
}

// prepareDisks deals with a new instance whose disk a storage provider has to make first (CREATE_DISK). It tells whether that is so.
func (w *work) prepareDisks(i *state.Instance, spec *state.Spec, s *site) bool {
	if !spec.Local() || w.reservedOf(i.ID) != nil {
		return false
	}
	r := w.withVolumes(w.freshReserved(i, s.agent.ID, s.agent.Hostname, s.offers[0].Role), spec)
	plan, no := w.roomFor(i, spec, r, s.pool.Clone(), s.offers, nil, 0)
	if len(no) > 0 || !plan.Later {
		return false
	}
	w.operateFirst(r, s, plan.Ops)
	return true
}

func (w *work) seed() uint64 {
	r := w.random()
	return binary.BigEndian.Uint64(r[:8])
}

// short notes why an instance's own agent could not take it; nil forgets it.
func (w *work) short(i *state.Instance, rs []state.Reason) {
	old := look(w, state.KindShort, string(i.ID), w.s.Shorts[i.ID])
	switch {
	case rs == nil && old != nil:
		w.remove(state.KindShort, string(i.ID))
		w.touched[i.ID] = true
	case rs != nil && (old == nil || !slices.Equal(old.Reasons, rs)):
		w.put(state.KindShort, string(i.ID), &state.Short{At: w.now, Reasons: rs})
		w.touched[i.ID] = true
	}
}

// launchOps commits what a launch asks for before it: the reservation's record with the ids of its operations and volumes. It gives the
// operations to be sent.
func (w *work) launchOps(i *state.Instance, r *state.Reserved, plan *reserve.Plan) []reserve.Op {
	c := r.Clone()
	c.Ports, c.Trimmed, c.Error = plan.Ports, false, ""
	c.Incarnation = i.Incarnation
	c.MissingSince = time.Time{}
	if c.Phase == state.ReservedRetained {
		w.setReservedPhase(c, state.ReservedHeld)
	}
	w.putReserved(c)
	return w.withIDs(c.ID, plan.Ops)
}

// freshReserved is the record of a new reservation; it is put when something is asked for.
func (w *work) freshReserved(i *state.Instance, agent state.AgentID, hostname, role string) *state.Reserved {
	return &state.Reserved{ID: state.ReservedID(w.uuid7()), App: i.App, Instance: i.ID, Agent: agent, Hostname: hostname, Role: role,
		Phase: state.ReservedAsked, Since: w.now, CreatedAt: w.now}
}

func (w *work) setReservedPhase(c *state.Reserved, p state.ReservedPhase) {
	if c.Phase != p {
		c.Phase, c.Since = p, w.now
	}
}

// withIDs gives operations their ids and notes them as pending in a reservation.
func (w *work) withIDs(id state.ReservedID, ops []reserve.Op) []reserve.Op {
	if len(ops) == 0 {
		return nil
	}
	c := w.reserved(id).Clone()
	out := slices.Clone(ops)
	for n := range out {
		c.Seq++
		p := state.PendingOp{ID: fmt.Sprintf("%s.%d", c.ID, c.Seq), Kind: string(out[n].Kind), At: w.now, Silent: w.silent(c.Agent), Final: c.Phase == state.ReservedReleasing}
		if !p.Silent {
			out[n].ID = p.ID
		}
		switch out[n].Kind {
		case reserve.Grow, reserve.Shrink:
			p.Volume = out[n].Resources[0].Disk.Persistence
		case reserve.Destroy:
			p.Volume = out[n].Resources[0].Disk.Persistence
			destroyed(c, p.Volume, true)
		}
		c.Ops = append(c.Ops, p)
	}
	c.RetryAt = w.now.Add(launchPatience)
	if c.Phase == state.ReservedReleasing {
		c.Error = ""
		c.Freed = !slices.ContainsFunc(c.Volumes, func(v state.LocalVolume) bool { return v.Created && !v.Destroyed })
	}
	w.putReserved(c)
	return out
}

// destroyed notes whether a volume's destruction is asked for.
func destroyed(c *state.Reserved, volume string, asked bool) {
	for n := range c.Volumes {
		if c.Volumes[n].ID == volume {
			c.Volumes[n].Destroyed = asked
		}
	}
}

// silent tells whether an agent's operations must be asked for without an id.
func (w *work) silent(agent state.AgentID) bool {
	a := w.agent(agent)
	return w.session().Silent || (a != nil && a.Silent)
}

// operate accepts offers for operations alone, without a launch.
func (w *work) operate(agent state.AgentID, offers []*state.Offer, ops []reserve.Op, of func(state.InstanceID) *state.Reserved) {
	a := Accept{Agent: agent, Refuse: w.env.Config.DeclineFor}
	for _, o := range offers {
		a.Offers = append(a.Offers, o.ID)
		w.remove(state.KindOffer, o.ID)
	}
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && ops[n].Instance == ops[0].Instance {
			n++
		}
		mine := ops[:n]
		if r := of(ops[0].Instance); r != nil {
			mine = w.withIDs(r.ID, mine)
		}
		a.Operations = append(a.Operations, mine...)
		ops = ops[n:]
	}
	if w.waitingCount() > 0 || w.preparing() > 0 || w.releases() > 0 {
		a.Refuse = 0
	}
	w.master(a)
}

// whyReserved says what an instance that is bound to an agent waits for.
func (w *work) whyReserved(i *state.Instance, r *state.Reserved) *state.Why {
	what := "its reservation"
	if n := created(r); n == 1 {
		what = "its volume"
	} else if n > 1 {
		what = "its volumes"
	}
	say := func(until time.Time, format string, args ...any) *state.Why {
		return summed(&state.Why{Reasons: []state.Reason{{Code: state.ReasonReservation, Text: fmt.Sprintf(format, args...), Until: until}}})
	}
	var kinds []string
	for _, op := range r.Ops {
		kinds = append(kinds, op.Kind)
	}
	short := look(w, state.KindShort, string(i.ID), w.s.Shorts[i.ID])
	a := w.agent(r.Agent)
	switch {
	case len(kinds) > 0:
		return say(time.Time{}, "waits for the end of %s on agent %s, asked for at %s", strings.Join(kinds, ", "), r.Hostname, r.Ops[0].At.UTC().Format(time.RFC3339))
	case r.Error != "" && r.RetryAt.After(w.now):
		return say(r.RetryAt, "agent %s refused what was asked for: %s", r.Hostname, r.Error)
	case !r.MissingSince.IsZero() || (a != nil && !a.LostAt.IsZero()):
		return w.whyMissing(i, r, what, say)
	case short != nil:
		y := &state.Why{Agents: []state.AgentReason{{Agent: r.Agent, Hostname: r.Hostname, Reasons: short.Reasons}}}
		y.Summary = fmt.Sprintf("agent %s has %s, and cannot take it now: %s", r.Hostname, what, short.Reasons[0].Text)
		return y
	}
	return say(time.Time{}, "waits for an offer of agent %s, which has %s", r.Hostname, what)
}

// created counts the volumes of a reservation that exist.
func created(r *state.Reserved) (n int) {
	for _, v := range r.Volumes {
		if v.Created {
			n++
		}
	}
	return n
}

func (w *work) whyMissing(i *state.Instance, r *state.Reserved, what string, say func(time.Time, string, ...any) *state.Why) *state.Why {
	since := r.MissingSince
	if since.IsZero() {
		since = w.now
	}
	text := fmt.Sprintf("agent %s, which has %s, is missing since %s", r.Hostname, what, since.UTC().Format(time.RFC3339))
	if after := w.escalation(i, r); after > 0 {
		return say(since.Add(after), "%s; the instance starts over elsewhere when that has lasted for %s", text, after)
	}
	return say(time.Time{}, "%s; it is waited for (residency.taskLostBehavior WAIT_FOREVER): `holdfast reservations release %s` gives the data there up and starts over", text, r.ID)
}

// escalation is how long the agent of a reservation may be missing before the instance starts over elsewhere; 0: for ever. Where no volume
// was ever seen there is no data to wait for.
func (w *work) escalation(i *state.Instance, r *state.Reserved) time.Duration {
	if created(r) == 0 && !r.Doubt {
		return plainMissing
	}
	return w.patience(i)
}

// patience is how long the app waits for an agent with a volume: 0 is for ever.
func (w *work) patience(i *state.Instance) time.Duration {
	if s := w.spec(i.App, i.Version); s.Residency != nil && s.Residency.Relaunch {
		return max(s.Residency.Escalation, time.Millisecond)
	}
	return 0
}

// takeRoom is fitIn for a launch whose reservation r (nil for those that reserve nothing) is about to be committed.
func (w *work) takeRoom(i *state.Instance, d *state.Def, r *state.Reserved, pool *place.Pool, offers []*state.Offer) (reserve.Plan, []int, bool) {
	if r == nil {
		res, ports, ok := pool.Take(&d.Spec, i.Run.Ports, 0)
		return reserve.Plan{Task: res}, ports, ok
	}
	p, rs := w.roomFor(i, &d.Spec, r, pool, offers, i.Run.Ports, 0)
	return p, p.Ports, len(rs) == 0 && !p.Later
}

// wipeInstance stops an instance's run, destroys its local volumes, and has it start over; with move on another agent. Where the agent is
// lost, the instance starts over at once, and what is left there is destroyed should it come back.
func (w *work) wipeInstance(id state.InstanceID, move bool) *Reply {
	r := w.reservedOf(id)
	if r == nil {
		return w.restartInstance(id, move)
	}
	i := w.instance(id)
	if i != nil && i.Phase == state.PhaseLost && len(i.Run.Claims) == 0 && i.Goal == state.GoalRun {
		w.doubt(i)
		w.releaseReserved(w.reserved(r.ID))
		w.endRun(i)
		return &Reply{Version: i.Version}
	}
	c := r.Clone()
	c.Wipe = true
	w.putReserved(c)
	reply := w.restartInstance(id, move && i != nil && i.Run != nil)
	if reply.Err == nil {
		w.instances.add(id)
	}
	return reply
}

// whyLostWithVolume says what an instance waits for whose agent is lost together with its local volumes.
func (w *work) whyLostWithVolume(i *state.Instance) *state.Why {
	reason := state.Reason{Code: state.ReasonUnreachable, Text: fmt.Sprintf("agent %s, which has its local volume, is out of reach (%s): it is waited for", i.Run.Hostname, lostState(i.Run))}
	if after := w.patience(i); after > 0 {
		reason.Until = i.Run.LostAt.Add(after)
		reason.Text += fmt.Sprintf(", for %s in all; then the instance starts over elsewhere, and what is there is left behind", after)
	}
	return summed(&state.Why{Reasons: []state.Reason{reason}})
}

// localOf gives the local persistent volumes that a task takes.
func localOf(plan *reserve.Plan) (list []state.RunVolume) {
	for _, r := range plan.Task {
		if r.Disk != nil && r.Disk.Persistence != "" {
			list = append(list, state.RunVolume{ID: r.Disk.Persistence, ContainerPath: r.Disk.ContainerPath})
		}
	}
	return list
}

// tallyReserved counts the instances that wait for the agent that has their reservation: they are there, as constraints see it.
func (w *work) tallyReserved(app state.AppID, spec *state.Spec, t place.Tally) {
	for _, id := range w.s.ReservedFor(app) {
		r := w.reserved(id)
		if r == nil || !r.Current() {
			continue
		}
		i := w.instance(r.Instance)
		if i == nil || i.Live() || i.Goal != state.GoalRun {
			continue
		}
		at := place.Site{Hostname: r.Hostname}
		if a := w.agent(r.Agent); a != nil {
			at = place.Site{Hostname: a.Hostname, Region: a.Region, Zone: a.Zone, Attributes: a.Attributes}
		}
		t.Add(spec.Constraints, &at, 1)
	}
}

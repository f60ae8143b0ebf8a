package scheduler

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// work is one Step under way: the state as it was, and over it what this Step has changed so far.
type work struct {
	s   *state.State
	env Env
	now time.Time

	order []key
	over  map[key]any // the newest value; nil: removed

	masterCalls, otherCalls []Call
	acks                    []Call
	reply                   *Reply

	instances queue[state.InstanceID] // to advance
	apps      queue[state.AppID]      // to converge
	began     queue[state.AppID]      // serial apps of which an instance starts: the others have to say that they wait for it
	nextFor   queue[state.AppID]      // serial apps whose next instance may start
	touched   map[state.InstanceID]bool

	stats     map[state.AppID]*state.Stats
	moved     map[state.AppID]map[state.AgentID]int // differences to State.AgentsOf
	newRefs   map[volume.Ref]state.VolumeUID
	newOps    map[string]state.VolumeUID
	newTasks  map[state.TaskID]state.InstanceID
	attached  map[state.NodeUID]map[string]int
	newOffers map[state.AgentID][]string
	never     map[state.Group]string // memory of neverFits
	nwaiting  int                    // difference to the state's count
	nprepare  int

	newReserved map[state.ReservedID]bool // reservations that are new, or moved to another agent
	nwants      int                       // difference to the state's count of those that wait for an offer to be given back
	freeing     bool                      // something came to be given back: filters of declined offers are in its way

	placeable bool // something came to wait for an offer, or an offer came
	changes   int  // instances created, stopped, restarted
	newcomer  bool // an instance came to wait for an offer: filters of declined offers are in its way
	room      bool // a task ended: what it used will be offered, and a filter may be in the way
	vanishing bool // a node came or went: the brake is to look
	more      bool // a bound of this Step was reached: go on at once
	entropy   uint64

	nextLeaving time.Time // when an agent with a maintenance window begins to be emptied
}

type key struct {
	kind state.Kind
	id   string
}

// queue is a first-in-first-out set.
type queue[T comparable] struct {
	list []T
	in   map[T]bool
}

func (q *queue[T]) add(v T) {
	if q.in == nil {
		q.in = map[T]bool{}
	}
	if !q.in[v] {
		q.in[v] = true
		q.list = append(q.list, v)
	}
}

func (q *queue[T]) next() (v T, ok bool) {
	if len(q.list) == 0 {
		return v, false
	}
	v = q.list[0]
	q.list = q.list[1:]
	delete(q.in, v)
	return v, true
}

func newWork(s *state.State, env Env) *work {
	fill := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	fill(&env.Config.DeclineFor, 2*time.Minute)
	fill(&env.Config.HoldFor, 10*time.Second)
	fill(&env.Config.KillRetry, 10*time.Second)
	fill(&env.Config.ReconcileMin, 5*time.Second)
	fill(&env.Config.ReconcileMax, 5*time.Minute)
	fill(&env.Config.TokensEvery, 30*time.Second)
	fill(&env.Config.BrakeWindow, brakeWindow)
	fill(&env.Config.LeaveAhead, leaveAhead)
	if env.Config.BrakeFor == 0 {
		env.Config.BrakeFor = brakeFor
	}
	if env.Config.BrakeShare <= 0 {
		env.Config.BrakeShare = brakeShare
	}
	if env.Config.BrakeMin <= 0 {
		env.Config.BrakeMin = brakeMin
	}
	return &work{
		s: s, env: env, now: env.Now, over: map[key]any{}, touched: map[state.InstanceID]bool{},
		stats: map[state.AppID]*state.Stats{}, moved: map[state.AppID]map[state.AgentID]int{}, newRefs: map[volume.Ref]state.VolumeUID{}, newOps: map[string]state.VolumeUID{},
		newTasks: map[state.TaskID]state.InstanceID{}, attached: map[state.NodeUID]map[string]int{}, newOffers: map[state.AgentID][]string{},
	}
}

// plan gives what the Step came to.
func (w *work) plan() Plan {
	p := Plan{Reply: w.reply}
	for _, k := range w.order {
		if v := w.over[k]; v != nil || w.known(k) {
			p.Writes = append(p.Writes, state.Write{Kind: k.kind, ID: k.id, Value: v})
		}
	}
	p.Calls = append(append(w.masterCalls, w.otherCalls...), w.acks...)
	p.Wake = w.wake()
	return p
}

// known tells whether the state may have the value: what this Step made and took away again is not written.
func (w *work) known(k key) bool {
	switch k.kind {
	case state.KindDeployment:
		return w.s.Deployments[state.DeploymentID(k.id)] != nil
	case state.KindOffer:
		return w.s.Offers[k.id] != nil
	case state.KindInstance:
		return w.s.Instances[state.InstanceID(k.id)] != nil
	case state.KindVolume:
		return w.s.Volumes[state.VolumeUID(k.id)] != nil
	case state.KindStrange:
		return w.s.Strange[state.TaskID(k.id)] != nil
	case state.KindInverse:
		return w.s.Inverse[k.id] != nil
	case state.KindReserved:
		return w.s.Reserved[state.ReservedID(k.id)] != nil
	case state.KindLeftover:
		return w.s.Leftovers[k.id] != nil
	case state.KindShort:
		return w.s.Shorts[state.InstanceID(k.id)] != nil
	case state.KindOperation:
		return w.s.Operations[k.id] != nil
	case state.KindTodo:
		return w.s.Todo[state.AppID(k.id)]
	case state.KindUnanswered:
		_, there := w.s.Unanswered[state.TaskID(k.id)]
		return there
	}
	return true
}

// wake is the earliest time at which something is due.
func (w *work) wake() time.Time {
	if w.more {
		return w.now
	}
	next := w.s.NextDue(func(kind state.Kind, id string) bool {
		if kind == state.KindAway {
			kind = state.KindInstance
		}
		_, changed := w.over[key{kind, id}]
		return changed
	})
	consider := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, k := range w.order {
		switch v := w.over[k].(type) {
		case *state.Instance:
			consider(v.WakeAt)
			consider(v.ForgetAt())
		case *state.Volume:
			consider(v.RetryAt)
		case *state.Reserved:
			consider(v.RetryAt)
		case *state.Operation:
			consider(v.WakeAt)
		case *state.StrangeTask:
			consider(v.KillAfter)
		case *state.Offer:
			consider(v.Until)
		}
	}
	for _, id := range w.inverseIDs() {
		if o := look(w, state.KindInverse, id, w.s.Inverse[id]); !o.Declined.IsZero() {
			consider(o.Declined.Add(inverseKept))
		}
	}
	if h := w.hold(); h != nil && h.Freeze != nil {
		consider(h.Freeze.Until)
	}
	if h := w.hold(); h != nil && h.Brake != nil {
		consider(h.Brake.Until)
	}
	consider(w.nextLeaving)
	if ses := w.session(); ses.Connected {
		consider(ses.ReconcileAt)
		consider(ses.InterestAt)
		consider(ses.TokensAt)
		if ses.SweepUntil.After(w.now) {
			consider(ses.SweepUntil)
		}
	}
	return next
}

// put records a value; a nil pointer of any type must be given as remove.
func (w *work) put(kind state.Kind, id string, v any) {
	k := key{kind, id}
	if _, there := w.over[k]; !there {
		w.order = append(w.order, k)
	}
	w.over[k] = v
}

func (w *work) remove(kind state.Kind, id string) { w.put(kind, id, nil) }

func look[T any](w *work, kind state.Kind, id string, base *T) *T {
	if v, ok := w.over[key{kind, id}]; ok {
		if v == nil {
			return nil
		}
		return v.(*T)
	}
	return base
}

func (w *work) session() *state.Session {
	if v, ok := w.over[key{state.KindSession, ""}]; ok {
		return v.(*state.Session)
	}
	return &w.s.Session
}

// setSession changes the session.
func (w *work) setSession(f func(*state.Session)) {
	c := *w.session()
	f(&c)
	if c != *w.session() {
		w.put(state.KindSession, "", &c)
	}
}

func (w *work) app(id state.AppID) *state.App {
	return look(w, state.KindApp, string(id), w.s.Apps[id])
}

func (w *work) putApp(a *state.App) {
	a.Rev = revOf(w.s.Apps[a.ID]) + 1
	w.put(state.KindApp, string(a.ID), a)
}

func revOf(a *state.App) uint64 {
	if a == nil {
		return 0
	}
	return a.Rev
}

// editApp gives a copy to change and put back.
func (w *work) editApp(id state.AppID) *state.App {
	a := *w.app(id)
	return &a
}

func (w *work) def(app state.AppID, version string) *state.Def {
	return look(w, state.KindDef, state.DefID(app, version), w.s.Defs[app][version])
}

// spec gives the definition that an instance's next run uses; an empty one when it is not known, which is a fault of the store.
func (w *work) spec(app state.AppID, version string) *state.Spec {
	if d := w.def(app, version); d != nil {
		return &d.Spec
	}
	return &noSpec
}

var noSpec state.Spec

func (w *work) deployment(id state.DeploymentID) *state.Deployment {
	return look(w, state.KindDeployment, string(id), w.s.Deployments[id])
}

func (w *work) instance(id state.InstanceID) *state.Instance {
	return look(w, state.KindInstance, string(id), w.s.Instances[id])
}

// edit gives a copy of an instance to change and put back.
func (w *work) edit(i *state.Instance) *state.Instance {
	c := *i
	if i.Run != nil {
		r := *i.Run
		r.Claims = slices.Clone(r.Claims)
		c.Run = &r
	}
	return &c
}

func (w *work) putInstance(i *state.Instance) {
	w.followFailover(w.instance(i.ID), i)
	w.changeInstance(i.ID, i)
	if base := w.s.Instances[i.ID]; base != nil {
		i.Rev = base.Rev + 1
	} else {
		i.Rev = 1
	}
	if i.Run != nil {
		w.newTasks[i.Run.Task] = i.ID
	}
	w.put(state.KindInstance, string(i.ID), i)
}

// changeInstance keeps the counts and marks what depends on the instance.
func (w *work) changeInstance(id state.InstanceID, now *state.Instance) {
	old := w.instance(id)
	var app state.AppID
	if now != nil {
		app = now.App
	} else if old != nil {
		app = old.App
	}
	st := w.statsOf(app)
	st.Add(old, -1)
	st.Add(now, 1)
	count := func(i *state.Instance, n int) {
		if i == nil {
			return
		}
		if i.Waits() {
			w.nwaiting += n
		}
		if i.Phase == state.PhasePreparing {
			w.nprepare += n
		}
		if i.Live() {
			if w.moved[app] == nil {
				w.moved[app] = map[state.AgentID]int{}
			}
			w.moved[app][i.Run.Agent] += n
		}
	}
	count(old, -1)
	count(now, 1)
	if old != nil && old.Live() && (now == nil || !now.Live()) {
		w.room = true
	}
	if now != nil && starts(now) && (old == nil || !starts(old)) && w.serial(app) {
		w.began.add(app)
	}
	if old != nil && starts(old) && (now == nil || !starts(now)) && w.serial(app) {
		w.nextFor.add(app)
	}
	w.apps.add(app)
	w.touched[id] = true
}

// removeInstance takes the record away.
func (w *work) removeInstance(i *state.Instance) {
	for _, r := range i.Away {
		w.watchOn(r, "its instance was stopped while it was out of reach")
	}
	w.retire(i)
	w.changeInstance(i.ID, nil)
	w.remove(state.KindInstance, string(i.ID))
	w.scaledAway(i)
}

func (w *work) statsOf(app state.AppID) *state.Stats {
	st := w.stats[app]
	if st == nil {
		st = w.s.StatsOf(app).Clone()
		w.stats[app] = st
	}
	return st
}

// countOn counts the app's instances that have, or may have, a task on an agent.
func (w *work) countOn(app state.AppID, agent state.AgentID) int {
	return w.s.AgentsOf(app)[agent] + w.moved[app][agent]
}

// agentsOf gives the agents where countOn may not be 0, sorted.
func (w *work) agentsOf(app state.AppID) []state.AgentID {
	list := sortedKeys(w.s.AgentsOf(app))
	for a := range w.moved[app] {
		list = append(list, a)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// instancesOf gives all instances of an app as they are now, by ordinal. It costs as much as the app has.
func (w *work) instancesOf(app state.AppID) []*state.Instance {
	var list []*state.Instance
	for _, i := range w.s.InstancesOf(app) {
		if n := w.instance(i.ID); n != nil {
			list = append(list, n)
		}
	}
	return w.withNew(list, func(i *state.Instance) bool { return i.App == app && w.s.Instances[i.ID] == nil })
}

// withNew adds the instances changed in this Step that f wants, and sorts by ordinal.
func (w *work) withNew(list []*state.Instance, f func(*state.Instance) bool) []*state.Instance {
	n := len(list)
	for _, k := range w.order {
		if i, ok := w.over[k].(*state.Instance); ok && f(i) {
			list = append(list, i)
		}
	}
	if len(list) > n {
		slices.SortFunc(list, func(a, b *state.Instance) int { return a.Ordinal - b.Ordinal })
	}
	return list
}

func (w *work) byTask(t state.TaskID) *state.Instance {
	id, ok := w.newTasks[t]
	if !ok {
		i := w.s.InstanceByTask(t)
		if i == nil {
			return nil
		}
		id = i.ID
	}
	if i := w.instance(id); i != nil && i.Run != nil && i.Run.Task == t {
		return i
	}
	return nil
}

func (w *work) volume(uid state.VolumeUID) *state.Volume {
	return look(w, state.KindVolume, string(uid), w.s.Volumes[uid])
}

func (w *work) volumeByRef(r volume.Ref) *state.Volume {
	if uid, ok := w.newRefs[r]; ok {
		return w.volume(uid)
	}
	if v := w.s.VolumeByRef(r); v != nil {
		return w.volume(v.UID)
	}
	return nil
}

func (w *work) putVolume(v *state.Volume) {
	v.Rev = 1
	if base := w.s.Volumes[v.UID]; base != nil {
		v.Rev = base.Rev + 1
	}
	w.newRefs[v.Ref] = v.UID
	if v.Op != "" {
		w.newOps[v.Op] = v.UID
	}
	w.put(state.KindVolume, string(v.UID), v)
}

func (w *work) volumeByOp(op string) *state.Volume {
	uid, ok := w.newOps[op]
	if !ok {
		v := w.s.VolumeByOp(op)
		if v == nil {
			return nil
		}
		uid = v.UID
	}
	if v := w.volume(uid); v != nil && v.Op == op {
		return v
	}
	return nil
}

func (w *work) claim(uid state.VolumeUID) *state.Claim {
	return look(w, state.KindClaim, string(uid), w.s.Claims[uid])
}

func (w *work) putClaim(c *state.Claim) {
	w.countClaim(w.claim(c.Volume), -1)
	w.countClaim(c, 1)
	w.put(state.KindClaim, string(c.Volume), c)
}

func (w *work) removeClaim(uid state.VolumeUID) {
	w.countClaim(w.claim(uid), -1)
	w.remove(state.KindClaim, string(uid))
}

func (w *work) countClaim(c *state.Claim, n int) {
	if c == nil || c.Node == "" || c.State == state.ClaimFree {
		return
	}
	if w.attached[c.Node] == nil {
		w.attached[c.Node] = map[string]int{}
	}
	w.attached[c.Node][c.Ref.Driver] += n
}

func (w *work) agent(id state.AgentID) *state.Agent {
	return look(w, state.KindAgent, string(id), w.s.Agents[id])
}

func (w *work) node(uid state.NodeUID) *state.Node {
	return look(w, state.KindNode, string(uid), w.s.Nodes[uid])
}

// nodeOf gives the node beside an agent, nil when none is known.
func (w *work) nodeOf(agent state.AgentID) *state.Node {
	if n := w.s.NodeOf(agent); n != nil {
		return w.node(n.UID)
	}
	return nil
}

func (w *work) offer(id string) *state.Offer {
	return look(w, state.KindOffer, id, w.s.Offers[id])
}

// offers gives all offers that are held, sorted by id. Few are: what nothing wants is declined at once.
func (w *work) offers() []*state.Offer {
	var list []*state.Offer
	for id := range w.s.Offers {
		if o := w.offer(id); o != nil {
			list = append(list, o)
		}
	}
	for _, k := range w.order {
		if o, ok := w.over[k].(*state.Offer); ok && w.s.Offers[k.id] == nil {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *state.Offer) int { return compare(a.ID, b.ID) })
	return list
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// waitingCount and preparing count instances as they are now.
func (w *work) waitingCount() int { return w.s.WaitingCount() + w.nwaiting }
func (w *work) preparing() int    { return w.s.PreparingCount() + w.nprepare }

// master asks for a call to the master; it is not made while there is no connection, since whoever wants it asks again.
func (w *work) master(c Call) {
	if _, kill := c.(Kill); kill && w.frozen() {
		return // asked for again when the hold ends
	}
	if ses := w.session(); ses.Connected && ses.Stopped == "" {
		w.masterCalls = append(w.masterCalls, c)
	}
}

// authority asks for a call to the lease authority.
func (w *work) authority(c Call) {
	if _, ok := c.(CancelGrant); ok && slices.Contains(w.otherCalls, c) {
		return
	}
	w.otherCalls = append(w.otherCalls, c)
}

// random gives fresh bytes, the same for the same Step.
func (w *work) random() [32]byte {
	var in [40]byte
	copy(in[:], w.env.Entropy[:])
	binary.BigEndian.PutUint64(in[32:], w.entropy)
	w.entropy++
	return sha256.Sum256(in[:])
}

func (w *work) randomHex(n int) string {
	r := w.random()
	return hex.EncodeToString(r[:])[:n]
}

// uuid gives a random UUID (version 4), uuid7 one that begins with the time.
func (w *work) uuid() string {
	r := w.random()
	r[6] = r[6]&0x0f | 0x40
	return uuidText(r)
}

func (w *work) uuid7() string {
	r := w.random()
	ms := uint64(w.now.UnixMilli())
	for n := range 6 {
		r[n] = byte(ms >> (40 - 8*n))
	}
	r[6] = r[6]&0x0f | 0x70
	return uuidText(r)
}

func uuidText(r [32]byte) string {
	r[8] = r[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", r[0:4], r[4:6], r[6:8], r[8:10], r[10:16])
}

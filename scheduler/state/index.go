package state

import (
	"cmp"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// Group is a set of waiting instances that an offer suits alike: those of one definition of one app.
type Group struct {
	App     AppID
	Version string
}

// Count tells how many instances that are wanted (GoalRun) use one definition, and how far they are.
type Count struct {
	Total   int // all of them
	Running int // PhaseRunning
	Healthy int // PhaseRunning, and the last health report was good
	Ready   int // PhaseRunning, and the readiness checks passed
	Good    int // both Healthy and Ready
	Staged  int // PhaseLaunching or PhaseStaging
}

// Stats counts the instances of one app.
type Stats struct {
	Total    int // all records
	Stopping int // GoalStop
	Paused   int // GoalRun, and paused for repair
	// Versions counts wanted instances that are not paused by the definition they use, Restarts by Instance.RestartSeen.
	Versions map[string]Count
	Restarts map[uint64]int
}

// Add counts one instance in (n = 1) or out (n = -1).
func (s *Stats) Add(i *Instance, n int) {
	if i == nil {
		return
	}
	s.Total += n
	switch {
	case i.Goal == GoalStop:
		s.Stopping += n
	case i.Paused:
		s.Paused += n
	default:
		c := s.Versions[i.Version]
		c.add(i, n)
		setOrDelete(s.Versions, i.Version, c)
		setOrDelete(s.Restarts, i.RestartSeen, s.Restarts[i.RestartSeen]+n)
	}
}

func (c *Count) add(i *Instance, n int) {
	c.Total += n
	switch i.Phase {
	case PhaseRunning:
		if i.Run == nil || i.Run.Idle || i.Leaving() {
			return
		}
		c.Running += n
		healthy := i.Run.Healthy != nil && *i.Run.Healthy
		if healthy {
			c.Healthy += n
		}
		if i.Run.Ready {
			c.Ready += n
		}
		if healthy && i.Run.Ready {
			c.Good += n
		}
	case PhaseLaunching, PhaseStaging:
		c.Staged += n
	}
}

// Up is how many are up: running, and as healthy and ready as the definition's checks want.
func (c Count) Up(s *Spec) int {
	switch health, ready := s.Checked(), len(s.ReadinessChecks) > 0; {
	case health && ready:
		return c.Good
	case health:
		return c.Healthy
	case ready:
		return c.Ready
	}
	return c.Running
}

// Plus adds two counts.
func (c Count) Plus(o Count) Count {
	return Count{c.Total + o.Total, c.Running + o.Running, c.Healthy + o.Healthy, c.Ready + o.Ready, c.Good + o.Good, c.Staged + o.Staged}
}

// Clone gives a copy that may be changed.
func (s *Stats) Clone() *Stats {
	c := NewStats()
	c.Total, c.Stopping, c.Paused = s.Total, s.Stopping, s.Paused
	for k, v := range s.Versions {
		c.Versions[k] = v
	}
	for k, v := range s.Restarts {
		c.Restarts[k] = v
	}
	return c
}

// NewStats returns counts of nothing.
func NewStats() *Stats {
	return &Stats{Versions: map[string]Count{}, Restarts: map[uint64]int{}}
}

func setOrDelete[K, V comparable](m map[K]V, k K, v V) {
	var zero V
	if v == zero {
		delete(m, k)
		return
	}
	m[k] = v
}

// Live tells whether the instance has, or may have, a task or a grant somewhere.
func (i *Instance) Live() bool {
	if i.Run == nil {
		return false
	}
	switch i.Phase {
	case PhaseGranting, PhaseLaunching, PhaseStaging, PhaseRunning, PhaseKilling, PhaseLost:
		return true
	}
	return false
}

// Leaving tells whether a running instance is to be killed as soon as anything may be (it came back during a hold): it is as good as down.
func (i *Instance) Leaving() bool {
	return i.KillReason != "" || i.Run != nil && i.Run.Version != i.Version
}

// Up tells whether the instance runs, and is as healthy and ready as its run's definition wants.
func (i *Instance) Up(s *Spec) bool {
	if i.Phase != PhaseRunning || i.Run == nil || i.Run.Idle || i.Paused {
		return false
	}
	return (!s.Checked() || (i.Run.Healthy != nil && *i.Run.Healthy)) && (len(s.ReadinessChecks) == 0 || i.Run.Ready)
}

// HasTask tells whether the master knows, or may know, a task of the instance's current run.
func (i *Instance) HasTask() bool { return i.Live() && i.Phase != PhaseGranting }

// index is kept by Apply; the lookups below read it.
type index struct {
	apps     map[AppID]*appIndex
	tasks    map[TaskID]InstanceID
	away     map[TaskID]InstanceID // the runs of Instance.Away
	waiting  map[Group][]*Instance // sorted by ordinal
	prepares int                   // instances in PhasePreparing
	nwaiting int
	onAgent  map[AgentID]map[InstanceID]bool
	granting map[AgentID]map[InstanceID]bool // those of onAgent in PhaseGranting

	volRef  map[volume.Ref]VolumeUID
	volApp  map[AppID][]VolumeUID
	volInst map[InstanceID][]VolumeUID
	volOp   map[string]VolumeUID

	nodeOf   map[AgentID]NodeUID
	attached map[NodeUID]map[string]int // granted and held claims by driver
	claimsAt map[NodeUID]map[VolumeUID]bool

	offersOn map[AgentID][]string // sorted
	nlost    int                  // agents with LostAt
	naway    int                  // nodes that are dead or suspect
	due      dueHeap
	reserved reservedIndex
}

type appIndex struct {
	instances []*Instance // sorted by ordinal
	stats     *Stats
	agents    map[AgentID]int // instances that have or may have a task, by agent
}

func newIndex() index {
	return index{
		apps: map[AppID]*appIndex{}, tasks: map[TaskID]InstanceID{}, away: map[TaskID]InstanceID{}, waiting: map[Group][]*Instance{},
		onAgent: map[AgentID]map[InstanceID]bool{}, granting: map[AgentID]map[InstanceID]bool{}, volRef: map[volume.Ref]VolumeUID{}, volApp: map[AppID][]VolumeUID{},
		volInst: map[InstanceID][]VolumeUID{}, volOp: map[string]VolumeUID{}, nodeOf: map[AgentID]NodeUID{},
		attached: map[NodeUID]map[string]int{}, claimsAt: map[NodeUID]map[VolumeUID]bool{}, offersOn: map[AgentID][]string{}, due: newDueHeap(), reserved: newReservedIndex(),
	}
}

func byOrdinal(i *Instance, ordinal int) int { return cmp.Compare(i.Ordinal, ordinal) }

// putSorted inserts or replaces i in a list sorted by ordinal.
func putSorted(list []*Instance, i *Instance) []*Instance {
	at, found := slices.BinarySearchFunc(list, i.Ordinal, byOrdinal)
	if found {
		list[at] = i
		return list
	}
	return slices.Insert(list, at, i)
}

func dropSorted(list []*Instance, i *Instance) []*Instance {
	if at, found := slices.BinarySearchFunc(list, i.Ordinal, byOrdinal); found {
		return slices.Delete(list, at, at+1)
	}
	return list
}

func (x *index) instance(old, now *Instance) {
	if old != nil {
		x.dropInstance(old, now)
	}
	if now == nil {
		x.due.set(dueKey{KindInstance, string(old.ID)}, zeroTime)
		x.due.set(dueKey{KindAway, string(old.ID)}, zeroTime)
		return
	}
	a := x.apps[now.App]
	if a == nil {
		a = &appIndex{stats: NewStats(), agents: map[AgentID]int{}}
		x.apps[now.App] = a
	}
	a.instances = putSorted(a.instances, now)
	a.stats.Add(now, 1)
	if now.Run != nil {
		x.tasks[now.Run.Task] = now.ID
	}
	if now.Live() {
		putSet(x.onAgent, now.Run.Agent, now.ID)
		if now.Phase == PhaseGranting {
			putSet(x.granting, now.Run.Agent, now.ID)
		}
		a.agents[now.Run.Agent]++
	}
	if now.Waits() {
		g := now.Group()
		x.waiting[g] = putSorted(x.waiting[g], now)
		x.nwaiting++
	}
	if now.Phase == PhasePreparing {
		x.prepares++
	}
	x.due.set(dueKey{KindInstance, string(now.ID)}, now.WakeAt)
	for _, r := range now.Away {
		x.away[r.Task] = now.ID
	}
	x.due.set(dueKey{KindAway, string(now.ID)}, now.ForgetAt())
}

// ForgetAt is when the first of the instance's runs that are away is forgotten; zero when there is none.
func (i *Instance) ForgetAt() (first time.Time) {
	for _, r := range i.Away {
		if first.IsZero() || r.ForgetAt.Before(first) {
			first = r.ForgetAt
		}
	}
	return first
}

func (x *index) dropInstance(old, now *Instance) {
	a := x.apps[old.App]
	a.stats.Add(old, -1)
	if now == nil {
		a.instances = dropSorted(a.instances, old)
		if len(a.instances) == 0 {
			delete(x.apps, old.App)
		}
	}
	for _, r := range old.Away {
		delete(x.away, r.Task)
	}
	if old.Run != nil && x.tasks[old.Run.Task] == old.ID {
		delete(x.tasks, old.Run.Task)
	}
	if old.Live() {
		dropSet(x.onAgent, old.Run.Agent, old.ID)
		dropSet(x.granting, old.Run.Agent, old.ID)
		setOrDelete(a.agents, old.Run.Agent, a.agents[old.Run.Agent]-1)
	}
	if old.Waits() {
		g := old.Group()
		if x.waiting[g] = dropSorted(x.waiting[g], old); len(x.waiting[g]) == 0 {
			delete(x.waiting, g)
		}
		x.nwaiting--
	}
	if old.Phase == PhasePreparing {
		x.prepares--
	}
}

func putSet(m map[AgentID]map[InstanceID]bool, agent AgentID, id InstanceID) {
	if m[agent] == nil {
		m[agent] = map[InstanceID]bool{}
	}
	m[agent][id] = true
}

func dropSet(m map[AgentID]map[InstanceID]bool, agent AgentID, id InstanceID) {
	delete(m[agent], id)
	if len(m[agent]) == 0 {
		delete(m, agent)
	}
}

// Waits tells whether the instance looks for an offer.
func (i *Instance) Waits() bool { return i.Phase == PhaseWaiting && i.Goal == GoalRun }

// Group is the group of waiting instances it belongs to.
func (i *Instance) Group() Group { return Group{i.App, i.Version} }

func (x *index) volume(old, now *Volume) {
	if old != nil {
		if x.volRef[old.Ref] == old.UID {
			delete(x.volRef, old.Ref)
		}
		dropUID(x.volApp, old.App, old.UID)
		if old.Instance != "" {
			dropUID(x.volInst, old.Instance, old.UID)
		}
		delete(x.volOp, old.Op)
	}
	if now == nil {
		x.due.set(dueKey{KindVolume, string(old.UID)}, zeroTime)
		return
	}
	x.volRef[now.Ref] = now.UID
	putUID(x.volApp, now.App, now.UID)
	if now.Instance != "" {
		putUID(x.volInst, now.Instance, now.UID)
	}
	if now.Op != "" {
		x.volOp[now.Op] = now.UID
	}
	x.due.set(dueKey{KindVolume, string(now.UID)}, now.RetryAt)
}

func putUID[K comparable](m map[K][]VolumeUID, k K, uid VolumeUID) {
	list := m[k]
	if at, found := slices.BinarySearch(list, uid); !found {
		m[k] = slices.Insert(list, at, uid)
	}
}

func dropUID[K comparable](m map[K][]VolumeUID, k K, uid VolumeUID) {
	list := m[k]
	if at, found := slices.BinarySearch(list, uid); found {
		list = slices.Delete(list, at, at+1)
	}
	if m[k] = list; len(list) == 0 {
		delete(m, k)
	}
}

func (x *index) claim(old, now *Claim) {
	x.countClaim(old, -1)
	x.countClaim(now, 1)
}

// countClaim counts what may be attached at a node. A shared volume's claim is never granted or held.
func (x *index) countClaim(c *Claim, n int) {
	if c == nil || c.Node == "" || (c.State != ClaimGranted && c.State != ClaimHeld) {
		return
	}
	m := x.attached[c.Node]
	if m == nil {
		m = map[string]int{}
		x.attached[c.Node] = m
	}
	setOrDelete(m, c.Ref.Driver, m[c.Ref.Driver]+n)
	if len(m) == 0 {
		delete(x.attached, c.Node)
	}
	at := x.claimsAt[c.Node]
	if at == nil {
		at = map[VolumeUID]bool{}
		x.claimsAt[c.Node] = at
	}
	setOrDelete(at, c.Volume, n > 0)
	if len(at) == 0 {
		delete(x.claimsAt, c.Node)
	}
}

func (x *index) node(old, now *Node, all map[NodeUID]*Node) {
	if old.Away() {
		x.naway--
	}
	if now.Away() {
		x.naway++
	}
	if old != nil && x.nodeOf[old.Agent] == old.UID {
		delete(x.nodeOf, old.Agent)
	}
	if now == nil || now.Agent == "" {
		return
	}
	// Two records may name one agent after an isolator's state was lost; the live one counts.
	if other := all[x.nodeOf[now.Agent]]; other != nil && other.UID != now.UID && other.Alive && !now.Alive {
		return
	}
	x.nodeOf[now.Agent] = now.UID
}

func (x *index) offer(old, now *Offer) {
	if old != nil {
		list := x.offersOn[old.Agent]
		if at, found := slices.BinarySearch(list, old.ID); found {
			list = slices.Delete(list, at, at+1)
		}
		if x.offersOn[old.Agent] = list; len(list) == 0 {
			delete(x.offersOn, old.Agent)
		}
	}
	if now == nil {
		x.due.set(dueKey{KindOffer, old.ID}, zeroTime)
		return
	}
	list := x.offersOn[now.Agent]
	if at, found := slices.BinarySearch(list, now.ID); !found {
		x.offersOn[now.Agent] = slices.Insert(list, at, now.ID)
	}
	x.due.set(dueKey{KindOffer, now.ID}, now.Until)
}

func (x *index) agent(old, now *Agent) {
	if old != nil && !old.LostAt.IsZero() {
		x.nlost--
	}
	if now != nil && !now.LostAt.IsZero() {
		x.nlost++
	}
}

package scheduler

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// world models everything around the scheduler: the master, agents with tasks, the lease authority and the nodes. It delays, loses
// and doubles what it may, and refuses what the real ones would. It panics with a text when a promise is broken.
type world struct {
	r     *rand.Rand
	now   time.Time
	trace []string

	// The framework: its memory, what the store holds, and messages under way.
	s          *state.State
	cfg        Config
	steps      uint64
	wake       time.Time
	connected  bool
	toMaster   []Call
	toAuth     []Call
	fromMaster []Event
	fromAuth   []Event
	fromProbe  []Event // of the framework's own checks; in order, and lost with the process
	replies    []*Reply

	agents   map[state.AgentID]*wAgent
	hosts    []*wHost
	claims   map[state.VolumeUID]*state.Claim
	requests map[string]*wRequest
	data     map[volume.Ref]bool            // what exists on the storage
	uids     map[volume.Ref]state.VolumeUID // which volume a name meant when it was last mounted
	granted  map[string]bool                // every grant that L1 ever made: uid, epoch, nonce
	seen     map[state.VolumeUID]*state.Claim
	unread   map[state.VolumeUID]bool // claims that changed since the framework was told
	nodesNew bool

	takerHeld  string
	suppressed bool
	filters    map[state.AgentID]time.Time
	offered    map[string]*state.Offer
	nOffer     int
	calm       bool

	end       wEnd
	primaries map[state.AppID]wPrimary
	demoted   map[state.TaskID]bool // said that they are the primary no more

	silent    bool // the master tells nothing of operations
	ops       map[string]*wOp
	created   map[string]int    // by persistence id
	destroyed map[string]bool   // by persistence id
	local     map[string]string // the volume that an instance ran on last, by instance and container path
	wipes     map[string]bool   // apps and instances whose local volumes somebody asked to destroy
}

// wHost is a machine: an agent and a node.
type wHost struct {
	name    string
	n       int // how often it was booted
	agent   *wAgent
	node    *state.Node
	dead    bool // the machine is off
	cut     bool // the node cannot reach the authority
	fenceAt time.Time
	takeAt  time.Time
	retired bool // its record was retired
	mounts  map[state.VolumeUID]wMount
	books   *wBooks
}

type wMount struct {
	epoch volume.Epoch
	task  state.TaskID
}

type wAgent struct {
	id        state.AgentID
	host      *wHost
	gone      bool // replaced by another id
	parted    bool // no word between master and agent
	reachable bool // as the master sees it
	partAt    time.Time
	tasks     map[state.TaskID]*wTask

	window *state.Window // when it is planned not to be available
	asked  string        // the inverse offer that is out
	quiet  time.Time     // no other before
}

type wTask struct {
	id      state.TaskID
	agent   *wAgent
	launch  Launch
	phase   string // "mounting", "running", "over"
	sent    string // newest state told to the master
	updates []Status
	told    string // as the master has it
	wanted  bool   // a kill arrived
	orphan  bool   // its framework is over: no word of it reaches the one that is registered now
}

type wRequest struct {
	op     string
	host   *wHost
	create bool
	vol    *state.Volume
	done   *RequestResult

	operation *state.Operation // nil for creation and removal
}

const (
	wF = 3 * time.Second
	wW = 4 * time.Second
)

func newWorld(seed int64) *world {
	w := &world{
		r: rand.New(rand.NewSource(seed)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), s: state.New(),
		cfg: Config{Role: "holdfast", DefaultPolicy: "lease", MinGrade: "soft", DeclineFor: 20 * time.Second, HoldFor: 2 * time.Second, KillRetry: 3 * time.Second,
			ReconcileMin: time.Second, ReconcileMax: 4 * time.Second, LeaveAhead: time.Second, BrakeFor: 3 * time.Second, BrakeWindow: 3 * time.Second},
		agents: map[state.AgentID]*wAgent{}, claims: map[state.VolumeUID]*state.Claim{}, requests: map[string]*wRequest{}, data: map[volume.Ref]bool{}, uids: map[volume.Ref]state.VolumeUID{},
		granted: map[string]bool{}, seen: map[state.VolumeUID]*state.Claim{}, unread: map[state.VolumeUID]bool{}, filters: map[state.AgentID]time.Time{}, offered: map[string]*state.Offer{},
		ops: map[string]*wOp{}, created: map[string]int{}, destroyed: map[string]bool{}, local: map[string]string{}, wipes: map[string]bool{},
		end: newEnd(seed), primaries: map[state.AppID]wPrimary{}, demoted: map[state.TaskID]bool{},
	}
	w.silent = w.r.Intn(4) == 0
	w.s.Apply([]state.Write{{Kind: state.KindFramework, Value: &state.Framework{Cluster: "c1", Rev: 1}}})
	if w.r.Intn(3) == 0 {
		w.cfg.LaunchTokens, w.cfg.TokensEvery = 2+w.r.Intn(3), time.Second
	}
	if w.r.Intn(3) == 0 {
		w.cfg.MaxPerOffer = 1 + w.r.Intn(2)
	}
	for n := range 3 + w.r.Intn(2) {
		h := &wHost{name: fmt.Sprintf("h%d", n), books: newBooks()}
		w.hosts = append(w.hosts, h)
		w.boot(h)
	}
	return w
}

func (w *world) logf(format string, args ...any) {
	if len(w.trace) > 4000 {
		w.trace = w.trace[2000:]
	}
	w.trace = append(w.trace, fmt.Sprintf("%8.3f ", w.now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) broken(format string, args ...any) {
	w.logf("BROKEN "+format, args...)
	panic(brokenPromise(fmt.Sprintf(format, args...)))
}

type brokenPromise string

// boot starts a machine that is off: a new agent id, the node with a new generation and nothing mounted.
func (w *world) boot(h *wHost) {
	h.n++
	h.dead, h.cut = false, false
	h.mounts = map[state.VolumeUID]wMount{}
	if h.agent != nil {
		h.agent.gone = true
		for _, t := range h.agent.tasks {
			if t.phase != "over" {
				w.released(t)
			}
		}
		w.agentGone(h.agent)
	}
	h.agent = &wAgent{id: state.AgentID(fmt.Sprintf("%s-%d", h.name, h.n)), host: h, reachable: true, tasks: map[state.TaskID]*wTask{}}
	w.agents[h.agent.id] = h.agent
	gen := uint64(1)
	if h.node != nil {
		gen = h.node.Generation + 1
	}
	w.freshNode(h, gen)
	w.logf("boot %s as %s", h.name, h.agent.id)
}

// freshNode: nothing managed is mounted; the node begins a new generation and gives back what older ones held.
func (w *world) freshNode(h *wHost, gen uint64) {
	h.node = &state.Node{UID: state.NodeUID("n-" + h.name), Generation: gen, Alive: true, Hostname: h.name, Agent: h.agent.id, AgentHostname: h.name, Grade: "soft",
		Drivers: map[string]state.Driver{"pool": {Name: "pool", Scope: "cluster", Exclusive: true, Ready: true}}}
	w.nodesNew, h.retired = true, false
	for _, uid := range sortedKeys(w.claims) {
		if c := w.claims[uid]; c.State == state.ClaimHeld && c.Node == h.node.UID && c.NodeGeneration < gen {
			w.setClaim(uid, func(c *state.Claim) { c.State, c.FreedBy = state.ClaimFree, "L3" })
		}
	}
}

func (w *world) setClaim(uid state.VolumeUID, f func(*state.Claim)) {
	c := *w.claims[uid]
	f(&c)
	if c.State == state.ClaimFree {
		c.Agent, c.Node, c.NodeGeneration, c.Revoke = "", "", 0, false
	}
	w.claims[uid] = &c
	w.unread[uid] = true
	w.logf("claim %s %s(%d) node=%s %s", c.Ref, c.State, c.Epoch, c.Node, c.FreedBy)
}

// step runs one Step as the framework's loop would, with a crash before the commit, or among the calls, when crash says so.
func (w *world) step(e Event, crash int) {
	w.steps++
	env := Env{Now: w.now, Config: w.cfg}
	w.r.Read(env.Entropy[:])
	p := w.twice(e, env)
	w.logf("step %T%s", e, brief(e))
	if _, tick := e.(Tick); tick && len(p.Writes)+len(p.Calls) == 0 && !p.Wake.IsZero() && !p.Wake.After(w.now) {
		w.broken("a Tick at %s does nothing and asks for another at once", w.now)
	}
	if crash == 1 {
		w.logf("crash before the commit")
		w.restart()
		return
	}
	before := w.census()
	w.s.Apply(p.Writes)
	defer w.compare(before, e)
	w.checkPrimaries()
	for _, wr := range p.Writes {
		if i, ok := wr.Value.(*state.Instance); ok {
			w.logf("  %s", (&scenario{alias: map[string]string{}, start: w.now}).instance(i))
		}
	}
	w.wake = p.Wake
	if p.Reply != nil {
		w.replies = append(w.replies, p.Reply)
		if p.Reply.Err != nil {
			w.logf("  refused: %v", p.Reply.Err)
		}
	}
	calls := p.Calls
	if crash == 2 {
		calls = calls[:w.r.Intn(len(calls)+1)]
	}
	for _, c := range calls {
		w.logf("  call %T%s", c, briefCall(c))
		w.checkHeld(c)
		w.checkAsk(c)
		w.checkEnd(c)
		switch c := c.(type) {
		case HoldTaker:
			w.takerHeld = c.Reason
		case Accept, Decline, Kill, Acknowledge, AcknowledgeOperation, ReconcileOperations, Reconcile, Revive, Suppress, AcceptInverse, DeclineInverse, EndFramework:
			w.toMaster = append(w.toMaster, c)
		default:
			w.toAuth = append(w.toAuth, c)
		}
	}
	if crash == 2 {
		w.logf("crash after the commit")
		w.restart()
	}
}

// twice is Step; now and then it looks whether Step is a function of its arguments and leaves the state alone.
func (w *world) twice(e Event, env Env) Plan {
	if w.steps%40 != 0 {
		return Step(w.s, e, env)
	}
	before := picture(w.s)
	p := Step(w.s, e, env)
	if after := picture(w.s); before != after {
		w.broken("Step changed the state")
	}
	if again := Step(w.s, e, env); !reflect.DeepEqual(p, again) {
		w.broken("Step answered %T in two ways:\n%v\n%v", e, p, again)
	}
	if rebuilt := Step(copied(w.s), e, env); !reflect.DeepEqual(p, rebuilt) {
		w.broken("Step answered %T otherwise on a state built anew:\n%+v\n%+v", e, p, rebuilt)
	}
	return p
}

// picture is everything a state holds, as text.
func picture(s *state.State) string {
	text, err := json.Marshal([]any{s.Framework, s.Apps, s.Defs, s.Instances, s.Volumes, s.Reserved, s.Leftovers, s.Shorts, s.Deployments, s.Session, s.Offers, s.Agents, s.Claims, s.Nodes, s.Why, s.Strange, s.Unanswered, s.Orders, s.Hold, s.Inverse, s.Leaving})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// copied is a state with the same values and indexes made anew, in another order.
func copied(s *state.State) *state.State {
	n := durable(s)
	var writes []state.Write
	add := func(k state.Kind, id string, v any) { writes = append(writes, state.Write{Kind: k, ID: id, Value: v}) }
	ses := s.Session
	add(state.KindSession, "", &ses)
	for id, v := range s.Offers {
		add(state.KindOffer, id, v)
	}
	for id, v := range s.Agents {
		add(state.KindAgent, string(id), v)
	}
	for id, v := range s.Claims {
		add(state.KindClaim, string(id), v)
	}
	for id, v := range s.Nodes {
		add(state.KindNode, string(id), v)
	}
	for id, v := range s.Inverse {
		add(state.KindInverse, id, v)
	}
	for id, v := range s.Leaving {
		add(state.KindLeaving, string(id), v)
	}
	for id, v := range s.Why {
		add(state.KindWhy, string(id), v)
	}
	for id, v := range s.Strange {
		add(state.KindStrange, string(id), v)
	}
	for g, v := range s.Refusals {
		add(state.KindRefusal, state.DefID(g.App, g.Version), v)
	}
	for id, a := range s.Unanswered {
		add(state.KindUnanswered, string(id), &state.Unanswered{Agent: a})
	}
	for id, v := range s.Leftovers {
		add(state.KindLeftover, id, v)
	}
	for id, v := range s.Shorts {
		add(state.KindShort, string(id), v)
	}
	for id := range s.Todo {
		add(state.KindTodo, string(id), &state.Todo{})
	}
	n.Apply(writes)
	return n
}

func brief(e Event) string {
	switch e := e.(type) {
	case Status:
		return fmt.Sprintf(" %s %s", e.Task, e.State)
	case ClaimsSeen:
		return fmt.Sprintf(" %d all=%v", len(e.Claims), e.All)
	case GrantResult:
		return fmt.Sprintf(" epoch=%d ok=%v", e.Epoch, e.OK)
	case RequestResult:
		return fmt.Sprintf(" ok=%v gone=%v %s", e.OK, e.Gone, e.Outcome)
	case ScaleApp:
		return fmt.Sprintf(" %s %d", e.App, e.Instances)
	case RemoveApp:
		return fmt.Sprintf(" %s wipe=%v", e.App, e.Wipe)
	}
	return ""
}

func briefCall(c Call) string {
	switch c := c.(type) {
	case Accept:
		text := ""
		for _, l := range c.Launches {
			text += " " + string(l.Run.Task)
		}
		return text
	case Kill:
		return " " + string(c.Task)
	case Grant:
		return fmt.Sprintf(" %s %d", c.Ref, c.Epoch)
	case CancelGrant:
		return fmt.Sprintf(" %d", c.Epoch)
	case Revoke:
		return fmt.Sprintf(" %d", c.Epoch)
	case CreateVolume:
		return fmt.Sprintf(" %s on %s", c.Volume.Ref, c.Node)
	}
	return ""
}

// restart is what is left after kill -9: the store, calls that had left already, and a connection that ends.
func (w *world) restart() {
	w.s = durable(w.s)
	w.drop(&w.toMaster)
	w.drop(&w.toAuth)
	w.fromMaster, w.fromAuth, w.fromProbe = nil, nil, nil
	w.disconnect()
	w.wake, w.takerHeld = time.Time{}, ""
	w.step(Loaded{}, 0)
	w.seen = map[state.VolumeUID]*state.Claim{}
	w.fromAuth = append(w.fromAuth, w.nodesEvent(), w.claimsEvent(true))
	for _, op := range sortedKeys(w.requests) {
		if r := w.requests[op]; r.done != nil {
			w.fromAuth = append(w.fromAuth, *r.done)
		}
	}
}

// drop loses calls that were about to leave; what is left of them is under way.
func (w *world) drop(calls *[]Call) {
	if n := len(*calls); n > 0 {
		*calls = slices.Clone((*calls)[:w.r.Intn(n+1)])
	}
}

func (w *world) disconnect() {
	w.connected = false
	w.offered = map[string]*state.Offer{}
	w.fromMaster = nil
	for _, h := range w.hosts {
		h.agent.asked, h.agent.quiet = "", time.Time{}
	}
}

func (w *world) subscribe() {
	if !w.mayRegister() {
		return
	}
	w.connected, w.suppressed = true, false
	w.toMaster = nil // the stream's id is another now: the master refuses what was sent on the old one
	w.filters = map[state.AgentID]time.Time{}
	id := fmt.Sprintf("F%d", w.end.n)
	if w.s.Framework != nil && w.s.Framework.ID != "" {
		id = w.s.Framework.ID
	}
	w.fromMaster = []Event{Subscribed{FrameworkID: id, Silent: w.silent}}
}

func (w *world) nodesEvent() Event {
	var e NodesSeen
	for _, h := range w.hosts {
		if h.retired {
			continue
		}
		n := *h.node
		e.Nodes = append(e.Nodes, &n)
	}
	w.nodesNew = false
	return e
}

func (w *world) claimsEvent(all bool) Event {
	e := ClaimsSeen{All: all}
	for _, uid := range sortedKeys(w.claims) {
		if all || w.unread[uid] {
			c := *w.claims[uid]
			e.Claims = append(e.Claims, &c)
		}
	}
	w.unread = map[state.VolumeUID]bool{}
	return e
}

// deliver takes one call that is under way to the authority. They overtake each other, and may come twice.
func (w *world) deliverAuth() {
	if len(w.toAuth) == 0 {
		return
	}
	n := w.r.Intn(len(w.toAuth))
	c := w.toAuth[n]
	if w.calm || w.r.Intn(10) > 0 {
		w.toAuth = slices.Delete(w.toAuth, n, n+1)
	}
	switch c := c.(type) {
	case Grant:
		w.grant(c)
	case CancelGrant:
		if cl := w.claims[c.Volume]; cl != nil && cl.State == state.ClaimGranted && cl.Epoch == c.Epoch && cl.Nonce == c.Nonce {
			w.setClaim(c.Volume, func(c *state.Claim) { c.State, c.FreedBy = state.ClaimFree, "L5" })
		}
	case Revoke:
		if cl := w.claims[c.Volume]; cl != nil && cl.State == state.ClaimHeld && cl.Epoch == c.Epoch {
			w.setClaim(c.Volume, func(c *state.Claim) { c.Revoke = true })
		}
	case CreateVolume:
		if w.claims[c.Volume.UID] == nil {
			w.claims[c.Volume.UID] = &state.Claim{Volume: c.Volume.UID, Ref: c.Volume.Ref, State: state.ClaimFree}
			w.unread[c.Volume.UID] = true
		}
		w.request(c.Op, c.Node, c.Volume, true)
	case RemoveVolumeData:
		if cl := w.claims[c.Volume.UID]; cl != nil && cl.State == state.ClaimHeld {
			w.broken("removal of %s is asked for while its claim is %s", c.Volume.Ref, cl.State)
		}
		w.request(c.Op, c.Node, c.Volume, false)
	case RetireNode:
		for _, h := range w.hosts {
			if h.node.UID == c.Node && h.node.Generation == c.Generation && !h.node.Alive {
				h.retired, w.nodesNew = true, true
				w.logf("node %s is retired", h.name)
				for _, cl := range w.claims {
					if cl.State == state.ClaimHeld && cl.Node == c.Node {
						w.broken("%s is retired and holds %s", c.Node, cl.Ref)
					}
				}
			}
		}
	case AskNode:
		w.askOperation(c)
	case DropClaim:
		w.dropClaim(c)
	case ForgetRequest:
		delete(w.requests, c.Op)
		delete(w.requests, operationKey(c.Op, c.Node))
	}
}

func grantKey(uid state.VolumeUID, e volume.Epoch, nonce string) string {
	return fmt.Sprintf("%s %d %s", uid, e, nonce)
}

// grant is L1.
func (w *world) grant(c Grant) {
	r := GrantResult{Volume: c.Volume, Epoch: c.Epoch, Nonce: c.Nonce}
	cl := w.claims[c.Volume]
	switch {
	case cl == nil:
		r.Reason = "no such claim"
	case (cl.State == state.ClaimGranted || cl.State == state.ClaimHeld) && cl.Epoch == c.Epoch && cl.Nonce == c.Nonce:
		r.OK = true
	case cl.State != state.ClaimFree || cl.Tombstone || cl.Epoch >= c.Epoch:
		r.Reason = "the claim is " + cl.State
		x := *cl
		r.Claim = &x
	default:
		w.setClaim(c.Volume, func(x *state.Claim) {
			x.State, x.Epoch, x.Nonce, x.Agent, x.Node, x.Owner, x.Policy = state.ClaimGranted, c.Epoch, c.Nonce, c.Agent, c.Node, c.Owner, c.Policy
		})
		w.granted[grantKey(c.Volume, c.Epoch, c.Nonce)] = true
		r.OK = true
	}
	w.fromAuth = append(w.fromAuth, r)
}

func (w *world) request(op string, node state.NodeUID, v *state.Volume, create bool) {
	if w.requests[op] != nil {
		if d := w.requests[op].done; d != nil {
			w.fromAuth = append(w.fromAuth, *d)
		}
		return
	}
	if c := w.claims[v.UID]; c != nil && c.Tombstone {
		// The volume is gone for good. A repetition must not touch what may have its name now.
		w.fromAuth = append(w.fromAuth, RequestResult{Op: op, Volume: v.UID, Node: node, OK: !create, Outcome: "absent", Class: "not-found"})
		return
	}
	for _, h := range w.hosts {
		if h.node.UID == node {
			w.requests[op] = &wRequest{op: op, host: h, create: create, vol: v}
		}
	}
}

// nodeWork lets a node answer one request.
func (w *world) nodeWork() {
	var open []string
	for op, r := range w.requests {
		if r.done == nil {
			open = append(open, op)
		}
	}
	if len(open) == 0 {
		return
	}
	sort.Strings(open)
	r := w.requests[open[w.r.Intn(len(open))]]
	if r.operation != nil {
		w.nodeOperation(r)
		return
	}
	res := RequestResult{Op: r.op, Volume: r.vol.UID, Node: r.host.node.UID, OK: true, Scope: "cluster"}
	switch {
	case w.claims[r.vol.UID] != nil && w.claims[r.vol.UID].Tombstone:
		res.OK, res.Outcome, res.Class = !r.create, "absent", "not-found"
	case r.host.dead || r.host.cut:
		if r.host.node.Alive {
			return
		}
		res.OK, res.Gone = false, true
	case !w.calm && w.r.Intn(8) == 0:
		res.OK, res.Class, res.Error = false, "unavailable", "the driver is busy"
	case r.create:
		res.Outcome = "created"
		if w.data[r.vol.Ref] {
			res.Outcome = "adopted"
		}
		w.data[r.vol.Ref] = true
	default:
		if cl := w.claims[r.vol.UID]; cl != nil && cl.State == state.ClaimHeld {
			w.broken("data of %s removed while held", r.vol.Ref)
		} else if cl != nil && cl.State == state.ClaimGranted {
			return // a late grant; it will be cancelled
		}
		delete(w.data, r.vol.Ref)
		delete(w.uids, r.vol.Ref)
		res.Outcome = "removed"
		if w.claims[r.vol.UID] != nil {
			w.setClaim(r.vol.UID, func(c *state.Claim) { c.Tombstone = true })
		}
	}
	r.done = &res
	w.logf("node %s answers %+v", r.host.name, res)
	w.fromAuth = append(w.fromAuth, res)
}

// deliverMaster takes the next call to the master.
func (w *world) deliverMaster() {
	if len(w.toMaster) == 0 {
		return
	}
	c := w.toMaster[0]
	w.toMaster = w.toMaster[1:]
	if w.connected && !w.calm && w.r.Intn(30) == 0 {
		w.logf("call %T fails", c)
		w.fromMaster = append(w.fromMaster, CallFailed{Call: c, Error: "timeout", Unknown: true})
		return
	}
	if !w.connected && w.r.Intn(2) == 0 {
		if a, ok := c.(Accept); ok && w.r.Intn(2) == 0 {
			w.fromMaster = append(w.fromMaster, CallFailed{Call: a, Error: "no connection", Unknown: w.r.Intn(2) == 0})
		}
		return
	}
	switch c := c.(type) {
	case Accept:
		w.accept(c)
	case Decline:
		for _, id := range c.Offers {
			if o := w.offered[id]; o != nil {
				delete(w.offered, id)
				w.filters[o.Agent] = w.now.Add(c.Refuse)
			}
		}
	case Kill:
		a := w.agents[c.Agent]
		if a == nil || a.gone || a.known(c.Task) == nil {
			w.tell(w.answer(ReconcileTask{c.Task, c.Agent}))
			return
		}
		if a.reachable && !a.parted {
			a.tasks[c.Task].wanted = true
		}
	case Acknowledge:
		if a := w.agents[c.Agent]; a != nil && a.known(c.Task) != nil && !a.parted {
			t := a.tasks[c.Task]
			if len(t.updates) > 0 && string(t.updates[0].UUID) == string(c.UUID) {
				t.updates = t.updates[1:]
			}
		}
	case Reconcile:
		w.reconcile(c)
	case AcknowledgeOperation:
		if o := w.ops[c.ID]; o != nil && string(o.uuid) == string(c.UUID) {
			delete(w.ops, c.ID)
		}
	case ReconcileOperations:
		w.reconcileOps(c)
	case Revive:
		w.suppressed, w.filters = false, map[state.AgentID]time.Time{}
	case Suppress:
		w.suppressed = true
	case EndFramework:
		if w.connected {
			w.logf("the master ends the framework")
			w.frameworkEnds()
			w.fromMaster = []Event{Disconnected{Reason: "the master closed the stream"}}
		}
	case AcceptInverse:
		w.answeredInverse(c.IDs, true, 5*time.Second)
	case DeclineInverse:
		w.answeredInverse(c.IDs, false, c.Refuse)
	}
}

func (w *world) tell(e Event) {
	if w.connected && e != nil {
		w.fromMaster = append(w.fromMaster, e)
	}
}

// answer is what an explicit reconciliation says of a task.
func (w *world) answer(t ReconcileTask) Event {
	a := w.agents[t.Agent]
	s := Status{Task: t.Task, Agent: t.Agent, Source: "SOURCE_MASTER", Reason: "REASON_RECONCILIATION"}
	switch {
	case a == nil:
		s.State = "TASK_UNKNOWN"
	case a.gone:
		s.State = "TASK_GONE"
	case !a.reachable:
		s.State = "TASK_UNREACHABLE"
	case a.known(t.Task) == nil || a.tasks[t.Task].told == "":
		s.State = "TASK_GONE"
		if a.known(t.Task) != nil {
			s.State = "TASK_STAGING"
		}
	default:
		s.State = a.tasks[t.Task].told
	}
	return s
}

func (w *world) reconcile(c Reconcile) {
	for _, t := range c.Tasks {
		if w.calm || w.r.Intn(6) > 0 {
			w.tell(w.answer(t))
		}
	}
	if len(c.Tasks) > 0 {
		return
	}
	for _, id := range sortedKeys(w.agents) {
		a := w.agents[id]
		for _, tid := range sortedKeys(a.tasks) {
			if t := a.tasks[tid]; !a.gone && !t.orphan && t.told != "" && meaningOf(t.told) != over {
				w.tell(w.answer(ReconcileTask{tid, id}))
			}
		}
	}
}

func (w *world) accept(c Accept) {
	ok := true
	for _, id := range c.Offers {
		if w.offered[id] == nil {
			ok = false
		}
	}
	var offers []*state.Offer
	for _, id := range c.Offers {
		if o := w.offered[id]; o != nil {
			offers = append(offers, o)
		}
		delete(w.offered, id)
	}
	a := w.agents[c.Agent]
	short := w.operate(c, ok, offers)
	for _, l := range c.Launches {
		for _, g := range l.Run.Claims {
			if !w.granted[grantKey(g.Volume, g.Epoch, g.Nonce)] {
				w.broken("ACCEPT of %s without the grant of epoch %d", l.Run.Task, g.Epoch)
			}
		}
		if !ok || a == nil || a.gone || a.parted || !a.reachable {
			w.tell(Status{Task: l.Run.Task, Agent: c.Agent, State: "TASK_DROPPED", Reason: "REASON_INVALID_OFFERS"})
			continue
		}
		if why := short[l.Run.Task]; why != "" {
			w.tell(Status{Task: l.Run.Task, Agent: c.Agent, State: "TASK_ERROR", Reason: "REASON_TASK_INVALID", Message: why})
			continue
		}
		for _, other := range w.agents {
			if other.tasks[l.Run.Task] != nil {
				w.broken("task %s is launched twice", l.Run.Task)
			}
		}
		a.tasks[l.Run.Task] = &wTask{id: l.Run.Task, agent: a, launch: l, phase: "mounting"}
	}
}

func (w *world) makeOffers() {
	if !w.connected || w.suppressed {
		return
	}
	var e Offers
	for _, h := range w.hosts {
		a := h.agent
		if h.dead || a.parted || !a.reachable || w.filters[a.id].After(w.now) || w.r.Intn(2) == 0 {
			continue
		}
		taken := false
		for _, o := range w.offered {
			taken = taken || o.Agent == a.id
		}
		list := w.resources(h)
		if taken || len(list) == 0 {
			continue
		}
		w.nOffer++
		o := &state.Offer{ID: fmt.Sprintf("o%d", w.nOffer), Agent: a.id, Hostname: h.name, Role: "holdfast", Attributes: map[string]string{"rack": h.name[1:]}, Unavailable: a.window, Resources: list}
		w.offered[o.ID] = o
		e.Offers = append(e.Offers, o)
	}
	if len(e.Offers) > 0 {
		w.fromMaster = append(w.fromMaster, e)
	}
}

// update makes a status that the agent repeats until it is acknowledged.
func (w *world) update(t *wTask, mesos string) {
	t.sent = mesos
	w.nOffer++
	t.updates = append(t.updates, Status{Task: t.id, Agent: t.agent.id, State: mesos, Source: "SOURCE_EXECUTOR", UUID: []byte(fmt.Sprintf("%s/%d", t.id, w.nOffer))})
}

// taskWork moves one task on.
func (w *world) taskWork() {
	h := w.hosts[w.r.Intn(len(w.hosts))]
	if h.dead || len(h.agent.tasks) == 0 {
		return
	}
	ids := sortedKeys(h.agent.tasks)
	t := h.agent.tasks[ids[w.r.Intn(len(ids))]]
	a := h.agent
	if t.orphan {
		t.updates, t.wanted = nil, t.wanted || !a.parted && a.reachable
	}
	if len(t.updates) > 0 && !a.parted && w.connected {
		// Statuses go through the master, which remembers them; a repetition is the same message again.
		u := t.updates[0]
		t.told = u.State
		w.fromMaster = append(w.fromMaster, u)
	}
	switch t.phase {
	case "mounting":
		if t.wanted {
			w.finish(t, "TASK_KILLED")
			return
		}
		w.mount(t)
	case "running":
		w.probe(t)
		if t.wanted {
			w.finish(t, "TASK_KILLED")
		} else if !w.calm && w.r.Intn(40) == 0 {
			w.finish(t, []string{"TASK_FAILED", "TASK_FINISHED"}[w.r.Intn(2)])
		}
	case "over":
		if w.r.Intn(3) == 0 {
			w.unmount(h, t.id)
		}
	}
}

// mount is L2 for each volume, then the mount; it never waits for another.
func (w *world) mount(t *wTask) {
	h := t.agent.host
	for _, g := range t.launch.Run.Claims {
		c := w.claims[g.Volume]
		switch {
		case c.State == state.ClaimHeld && c.Epoch == g.Epoch && c.Node == h.node.UID && h.mounts[g.Volume].epoch == g.Epoch:
			continue
		case h.cut || !h.node.Alive || c.State != state.ClaimGranted || c.Epoch != g.Epoch || c.Nonce != g.Nonce:
			w.logf("mount of %s epoch %d by %s refused: %s(%d)", c.Ref, g.Epoch, t.id, c.State, c.Epoch)
			w.finish(t, "TASK_FAILED")
			return
		}
		w.setClaim(g.Volume, func(c *state.Claim) {
			c.State, c.Node, c.NodeGeneration, c.Fence, c.MinGrade = state.ClaimHeld, h.node.UID, h.node.Generation, "soft", "soft"
		})
		if !w.data[c.Ref] {
			w.broken("%s mounts %s, which does not exist", t.id, c.Ref)
		}
		if uid := w.uids[c.Ref]; uid != "" && uid != g.Volume {
			w.broken("%s became another volume, and nobody removed the old one", c.Ref)
		}
		w.uids[c.Ref] = g.Volume
		for _, other := range w.hosts {
			if m, there := other.mounts[g.Volume]; there {
				w.broken("%s is mounted by %s (epoch %d) and now by %s (epoch %d)", c.Ref, m.task, m.epoch, t.id, g.Epoch)
			}
		}
		h.mounts[g.Volume] = wMount{g.Epoch, t.id}
	}
	for _, tv := range t.launch.Volumes {
		if !w.data[tv.Ref] && w.wiped(tv.Ref) {
			w.finish(t, "TASK_FAILED") // its app was removed and wiped while its agent was out of reach
			return
		}
		if !w.data[tv.Ref] {
			w.broken("%s uses %s, which does not exist", t.id, tv.Ref)
		}
	}
	w.started(t)
	t.phase = "running"
	w.update(t, "TASK_RUNNING")
}

// wiped tells whether a volume of that name was removed for good.
func (w *world) wiped(ref volume.Ref) bool {
	for _, c := range w.claims {
		if c.Ref == ref && c.Tombstone {
			return true
		}
	}
	return false
}

// finish ends a task. Its status leaves before its container and mounts are gone, as in Mesos.
func (w *world) finish(t *wTask, mesos string) {
	t.phase = "over"
	w.released(t)
	w.update(t, mesos)
}

// unmount gives back what a dead task had mounted: L3 after the unmount, at a time of its own.
func (w *world) unmount(h *wHost, task state.TaskID) {
	for _, uid := range sortedKeys(h.mounts) {
		if m := h.mounts[uid]; m.task == task && !h.cut {
			delete(h.mounts, uid)
			w.setClaim(uid, func(c *state.Claim) { c.State, c.FreedBy = state.ClaimFree, "L3" })
			return
		}
	}
}

// fence kills the users of mounts and unmounts them all.
func (w *world) fence(h *wHost, only state.VolumeUID) {
	for _, uid := range sortedKeys(h.mounts) {
		if only != "" && uid != only {
			continue
		}
		if t := h.agent.tasks[h.mounts[uid].task]; t != nil && t.phase != "over" {
			w.finish(t, "TASK_FAILED")
		}
		delete(h.mounts, uid)
	}
}

// hostWork lets time do its part: self-fence, takeover, revokes, detection of lost agents.
func (w *world) hostWork() {
	for _, h := range w.hosts {
		if (h.cut || h.dead) && h.node.Alive && !h.takeAt.After(w.now) && w.takerHeld == "" {
			if len(h.mounts) > 0 {
				w.fence(h, "") // its deadline was before ours
			}
			n := *h.node
			n.Alive, n.DeadAt = false, w.now
			h.node = &n
			w.nodesNew = true
			w.logf("node %s is declared dead", h.name)
			for _, uid := range sortedKeys(w.claims) {
				if c := w.claims[uid]; c.State == state.ClaimHeld && c.Node == n.UID {
					w.setClaim(uid, func(c *state.Claim) { c.State, c.FreedBy = state.ClaimFree, "L4" })
				}
			}
		}
		if h.cut && !h.dead && !h.fenceAt.After(w.now) && len(h.mounts) > 0 {
			w.logf("node %s fences itself", h.name)
			w.fence(h, "")
		}
		if !h.cut && !h.dead {
			for _, uid := range sortedKeys(h.mounts) {
				if c := w.claims[uid]; c.Revoke && w.r.Intn(3) == 0 {
					w.fence(h, uid)
					w.setClaim(uid, func(c *state.Claim) { c.State, c.FreedBy = state.ClaimFree, "L3" })
				}
			}
		}
		a := h.agent
		if (a.parted || h.dead) && a.reachable && w.now.Sub(a.partAt) > 2*time.Second {
			a.reachable = false
			w.logf("agent %s is unreachable", a.id)
			for id, o := range w.offered {
				if o.Agent == a.id {
					delete(w.offered, id)
					w.tell(Rescinded{Offer: id})
				}
			}
			w.tell(AgentLost{Agent: a.id})
			for _, tid := range sortedKeys(a.tasks) {
				if t := a.tasks[tid]; !t.orphan && meaningOf(t.told) != over && w.r.Intn(4) > 0 {
					w.tell(Status{Task: tid, Agent: a.id, State: "TASK_UNREACHABLE", Source: "SOURCE_MASTER", UnreachableAt: w.now})
				}
			}
		}
	}
}

// agentGone: the machine came back as another agent.
func (w *world) agentGone(a *wAgent) {
	a.reachable = false
	if w.r.Intn(2) == 0 {
		for _, tid := range sortedKeys(a.tasks) {
			if a.known(tid) != nil {
				w.tell(Status{Task: tid, Agent: a.id, State: "TASK_GONE", Source: "SOURCE_MASTER"})
			}
		}
	}
}

func (w *world) fault() {
	h := w.hosts[w.r.Intn(len(w.hosts))]
	switch w.r.Intn(8) {
	case 0: // the master loses the agent
		if !h.agent.parted && !h.dead {
			h.agent.parted, h.agent.partAt = true, w.now
			w.logf("agent %s is cut off from the master", h.agent.id)
		}
	case 1:
		w.healAgent(h)
	case 2:
		if !h.cut && !h.dead && h.node.Alive {
			h.cut, h.fenceAt, h.takeAt = true, w.now.Add(wF), w.now.Add(wW)
			w.logf("node %s is cut off from the authority", h.name)
		}
	case 3:
		w.healNode(h)
	case 4:
		if !h.dead && w.r.Intn(2) == 0 {
			h.dead, h.agent.partAt = true, w.now
			if !h.cut {
				h.takeAt = w.now.Add(wW)
			}
			h.mounts = map[state.VolumeUID]wMount{}
			w.logf("machine %s is off", h.name)
		}
	case 5:
		if h.dead {
			w.boot(h)
		}
	case 6:
		if w.connected {
			w.logf("the connection to the master ends")
			w.disconnect()
			w.fromMaster = []Event{Disconnected{Reason: "reset"}}
		}
	case 7:
		w.logf("kill -9 of the framework")
		w.restart()
	}
}

func (w *world) healAgent(h *wHost) {
	a := h.agent
	if !a.parted || h.dead {
		return
	}
	a.parted, a.reachable = false, true
	w.logf("agent %s is back", a.id)
	for _, tid := range sortedKeys(a.tasks) {
		if t := a.tasks[tid]; !t.orphan && t.told != "" && meaningOf(t.told) != over {
			w.tell(w.answer(ReconcileTask{tid, a.id}))
		}
	}
}

func (w *world) healNode(h *wHost) {
	if !h.cut || h.dead {
		return
	}
	h.cut = false
	w.logf("node %s is back", h.name)
	if !h.node.Alive || !h.fenceAt.After(w.now) {
		w.fence(h, "")
		w.freshNode(h, h.node.Generation+1)
	}
}

func (w *world) order() {
	w.yields()
	app := state.AppID([]string{"/db", "/web", "/mq", "/loc"}[w.r.Intn(4)])
	var e Event
	switch w.r.Intn(10) {
	case 0, 1, 2:
		spec := state.Spec{Cmd: fmt.Sprint(w.r.Intn(3)), CPUs: 1, MemMB: 10, Backoff: state.Backoff{Base: 200 * time.Millisecond, Factor: 1.5, Max: 2 * time.Second}, Upgrade: state.Upgrade{MinHealth: []float64{0, 0.5, 1}[w.r.Intn(3)], MaxOver: []float64{0, 0.5, 1}[w.r.Intn(3)]}}
		spec.Unreachable = state.Unreachable{Disabled: w.r.Intn(6) == 0, Inactive: time.Duration(w.r.Intn(3)) * time.Second}
		spec.Unreachable.Expunge = spec.Unreachable.Inactive + time.Duration(w.r.Intn(3)*2)*time.Second
		if w.r.Intn(3) == 0 {
			drain := time.Duration(w.r.Intn(4)) * 700 * time.Millisecond
			spec.Drain = &drain
		}
		spec.Primary = w.steps%4 != 0
		spec.KillSelection = []string{"", "YOUNGEST_FIRST", "OLDEST_FIRST"}[w.r.Intn(3)]
		if app == "/loc" {
			w.localSpec(&spec)
		} else if app != "/web" {
			spec.Volumes = []state.Mount{{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: string(app[1:])}}
		}
		if app == "/mq" {
			spec.Volumes = append(spec.Volumes, state.Mount{Kind: state.MountExternal, ContainerPath: "log", Driver: "pool", Pattern: "mqlog"},
				state.Mount{Kind: state.MountExternal, ContainerPath: "all", Driver: "pool", Pattern: "common", Shared: true})
		}
		if app == "/web" && w.r.Intn(3) == 0 {
			spec.Volumes = []state.Mount{{Kind: state.MountExternal, ContainerPath: "all", Driver: "pool", Pattern: "common", Shared: true}}
		}
		if app == "/web" && w.r.Intn(2) == 0 {
			spec.Constraints = []state.Constraint{{Field: "rack", Operator: "GROUP_BY"}}
		}
		w.vary(&spec)
		e = PutApp{Changes: []AppPut{{Def: &state.Def{App: app, Version: w.now.Format(versionFormat), Spec: spec}, Instances: max(spec.Rollout.Min, w.r.Intn(4))}}, Force: w.r.Intn(2) == 0}
	case 3, 4:
		e = ScaleApp{App: app, Instances: w.r.Intn(4), Force: w.r.Intn(2) == 0}
		if w.r.Intn(3) == 0 {
			e = ScaleApp{App: app, Kill: []state.InstanceID{state.NewInstanceID(app, w.r.Intn(3)), state.NewInstanceID(app, w.r.Intn(3))}, Force: w.r.Intn(2) == 0}
		}
	case 5:
		e = PauseInstance{Instance: state.NewInstanceID(app, w.r.Intn(3)), Resume: w.r.Intn(2) == 0}
		if ids := sortedKeys(w.s.Deployments); len(ids) > 0 && w.r.Intn(2) == 0 {
			e = PauseDeployment{Deployment: ids[w.r.Intn(len(ids))], Resume: w.r.Intn(2) == 0}
		}
	case 6:
		e = RestartApp{App: app, Force: w.r.Intn(2) == 0}
	case 7:
		if w.r.Intn(3) > 0 {
			return
		}
		r := RemoveApp{App: app, Force: w.r.Intn(2) == 0, Wipe: w.r.Intn(2) == 0}
		w.wipes[string(app)] = w.wipes[string(app)] || r.Wipe
		e = r
	case 8:
		id := state.NewInstanceID(app, w.r.Intn(3))
		e = RestartInstance{Instance: id}
		if w.r.Intn(2) == 0 {
			e = MoveInstance{Instance: id}
		}
	case 9:
		uids := sortedKeys(w.s.Volumes)
		if app == "/loc" {
			if e = w.localOrder(); e != nil {
				break
			}
		}
		switch {
		case len(uids) > 0 && w.r.Intn(2) == 0:
			e = RemoveVolume{Volume: uids[w.r.Intn(len(uids))]}
		case len(w.s.Deployments) > 0:
			e = CancelDeployment{Deployment: sortedKeys(w.s.Deployments)[0], Force: w.r.Intn(2) == 0}
		default:
			return
		}
	}
	w.step(e, w.crashing())
}

func (w *world) crashing() int {
	if w.calm {
		return 0
	}
	switch w.r.Intn(60) {
	case 0:
		return 1
	case 1:
		return 2
	}
	return 0
}

// turn lets one random thing happen.
func (w *world) turn() {
	w.now = w.now.Add(time.Duration(w.r.Intn(60)) * time.Millisecond)
	w.hostWork()
	switch n := w.r.Intn(100); {
	case n < 30:
		w.deliverEvent()
	case n < 45:
		w.deliverMaster()
	case n < 65:
		w.deliverAuth()
	case n < 72:
		w.nodeWork()
	case n < 85:
		w.taskWork()
	case n < 90:
		w.opWork()
		w.makeOffers()
		w.askToLeave()
	case n < 92 && !w.connected && len(w.fromMaster) == 0:
		w.subscribe()
	case n < 94:
		if w.nodesNew {
			w.fromAuth = append(w.fromAuth, w.nodesEvent())
		}
		if len(w.unread) > 0 {
			w.fromAuth = append(w.fromAuth, w.claimsEvent(false))
		}
	case n < 97 && !w.calm:
		switch w.r.Intn(16) {
		case 0, 1, 2, 3:
			w.awayOrder()
		case 4, 5, 6:
			w.operationOrder()
		default:
			w.order()
		}
	case n < 99 && !w.calm:
		w.fault()
	case n == 99 && !w.calm:
		w.endOrder()
	}
}

// deliverEvent hands the framework its next event. The master's come in order; the authority's overtake each other.
func (w *world) deliverEvent() {
	if !w.wake.IsZero() && !w.wake.After(w.now) {
		w.wake = time.Time{}
		w.step(Tick{}, w.crashing())
		return
	}
	if len(w.fromProbe) > 0 && w.r.Intn(3) == 0 {
		e := w.fromProbe[0]
		w.fromProbe = w.fromProbe[1:]
		w.step(e, w.crashing())
		return
	}
	if len(w.fromMaster) > 0 && (len(w.fromAuth) == 0 || w.r.Intn(2) == 0) {
		e := w.fromMaster[0]
		w.fromMaster = w.fromMaster[1:]
		w.step(e, w.crashing())
		return
	}
	if len(w.fromAuth) > 0 {
		n := w.r.Intn(len(w.fromAuth))
		switch w.fromAuth[n].(type) {
		case NodesSeen, ClaimsSeen:
			// A reader reports what it saw in order.
			n = slices.IndexFunc(w.fromAuth, func(e Event) bool {
				switch e.(type) {
				case NodesSeen, ClaimsSeen:
					return true
				}
				return false
			})
		}
		e := w.fromAuth[n]
		w.fromAuth = slices.Delete(w.fromAuth, n, n+1)
		w.step(e, w.crashing())
	}
}

// settle ends all faults and lets the world run until nothing is left to do, or too long.
func (w *world) settleDown() {
	w.calm = true
	w.logf("calm")
	for _, h := range w.hosts {
		// An instance that was moved away stays away, so there must be room elsewhere.
		h.books.free.add(state.Resource{Name: "cpus", Scalar: 20, AllocationRole: "holdfast"})
		if h.dead {
			w.boot(h)
		}
		w.healNode(h)
		w.healAgent(h)
	}
	w.openAgain()
	w.resumeAll()
	for n := range 60000 {
		w.turn()
		if n%2000 == 1999 {
			w.endDoubts()
		}
		if n%200 == 100 {
			w.beginAgain()
		}
		if n%200 == 199 && w.trouble() == "" {
			return
		}
	}
	w.broken("it does not settle: %s", w.trouble())
}

// trouble names what is not as it should be when all is quiet; "" when all is well.
func (w *world) trouble() string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if !w.connected {
		say("no connection")
	}
	live := map[state.TaskID]bool{}
	for _, id := range sortedKeys(w.agents) {
		for _, tid := range sortedKeys(w.agents[id].tasks) {
			a := w.agents[id]
			if t := a.tasks[tid]; !a.gone && t.phase != "over" {
				live[tid] = true
				if i := w.s.InstanceByTask(tid); i == nil || len(i.Away) > 0 {
					say("task %s runs and is no instance's", tid)
				}
			}
		}
	}
	w.primaryTrouble(say)
	w.endTrouble(say)
	for _, id := range sortedKeys(w.s.Apps) {
		a := w.s.Apps[id]
		list := w.s.InstancesOf(id)
		if a.Removed || len(list) != a.Instances {
			say("app %s has %d instances, wants %d removed=%v", id, len(list), a.Instances, a.Removed)
		}
		look := newWork(w.s, Env{Now: w.now})
		want := rollout.Ordinals(len(list), a.Skip)
		for n, i := range list {
			switch {
			case i.Ordinal != want[n]:
				say("app %s lacks number %d", id, want[n])
			case i.Phase != state.PhaseRunning || !look.asWanted(a, i) || i.Run.Version != i.Version || !look.up(i) || i.Run.Idle:
				say("%s is %s: %v", i.ID, i.Phase, w.s.WhyOf(i.ID))
			case !live[i.Run.Task]:
				say("%s has no task", i.ID)
			}
		}
	}
	for _, id := range sortedKeys(w.s.Deployments) {
		say("deployment %s is there", id)
	}
	for _, uid := range sortedKeys(w.claims) {
		c, v := w.claims[uid], w.s.Volumes[uid]
		if c.State == state.ClaimFree {
			continue
		}
		var i *state.Instance
		if v != nil {
			i = w.s.Instances[v.Instance]
		}
		if c.State == state.ClaimGranted || i == nil || i.Run == nil || i.Phase != state.PhaseRunning {
			say("claim of %s is %s(%d) for nobody", c.Ref, c.State, c.Epoch)
		}
	}
	for _, op := range sortedKeys(w.requests) {
		say("request %s is left", op)
	}
	for _, uid := range sortedKeys(w.s.Volumes) {
		if v := w.s.Volumes[uid]; v.Phase == state.VolumeCreating || v.Phase == state.VolumeRemoving {
			say("volume %s is %s: %s", v.Ref, v.Phase, v.Error)
		}
	}
	all = append(all, w.awayTrouble()...)
	for _, t := range sortedKeys(w.s.Strange) {
		say("task %s is strange", t)
	}
	w.localTrouble(say)
	w.operationTrouble(say)
	if len(all) > 0 {
		for _, h := range w.hosts {
			running := 0
			for _, t := range h.agent.tasks {
				if t.phase != "over" {
					running++
				}
			}
			say("(%s: %d tasks, filter until %s, reachable %v)", h.agent.id, running, w.filters[h.agent.id].Sub(w.now), h.agent.reachable)
		}
		say("(offers at %v, held %v, suppressed %v)", sortedKeys(w.offered), sortedKeys(w.s.Offers), w.suppressed)
	}
	if len(w.s.Why) > 0 && len(all) == 0 {
		say("whys are left: %v", sortedKeys(w.s.Why))
	}
	return strings.Join(all, "\n")
}

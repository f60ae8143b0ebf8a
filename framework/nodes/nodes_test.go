package nodes

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

var timings = lease.Timings{P: 20 * time.Millisecond, R: 20 * time.Millisecond, W: 300 * time.Millisecond}

// world is an authority with a Nodes on it and the events that came.
type world struct {
	*testing.T
	memory *leasetest.Memory
	net    *network
	a      *lease.Authority // by a good network, beside the Nodes
	n      *Nodes

	mu     sync.Mutex
	events []scheduler.Event
	more   chan struct{}
}

// network is an authority that can be away.
type network struct {
	*leasetest.Faulty
	mu  sync.Mutex
	off bool
}

func (n *network) mishap(bool, []lease.Op) leasetest.Mishap {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.off {
		return leasetest.NotSent
	}
	return leasetest.None
}

func (n *network) set(off bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off = off
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, memory: leasetest.NewMemory(), more: make(chan struct{}, 1)}
	w.net = &network{Faulty: &leasetest.Faulty{Registers: w.memory}}
	w.net.Mishap = w.net.mishap
	w.a = lease.New(w.memory, lease.Options{})
	if _, err := w.a.Init(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	w.run()
	return w
}

// run starts a Nodes, as a new leader does.
func (w *world) run() (stop func()) {
	n, err := New(lease.New(w.net, lease.Options{}), Config{Emit: w.emit, Timings: timings, MinGrade: lease.GradeSoft, By: "test"})
	if err != nil {
		w.Fatal(err)
	}
	w.n = n
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = n.Run(ctx); close(ended) }()
	stop = func() { cancel(); <-ended }
	w.Cleanup(stop)
	return stop
}

func (w *world) emit(e scheduler.Event) {
	w.mu.Lock()
	w.events = append(w.events, e)
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// await waits for an event and takes it away.
func (w *world) await(what string, is func(scheduler.Event) bool) scheduler.Event {
	w.Helper()
	limit := time.After(5 * time.Second)
	for {
		w.mu.Lock()
		for i, e := range w.events {
			if is(e) {
				w.events = append(w.events[:i:i], w.events[i+1:]...)
				w.mu.Unlock()
				return e
			}
		}
		seen := fmt.Sprintf("%+v", w.events)
		w.mu.Unlock()
		select {
		case <-w.more:
		case <-limit:
			w.Fatalf("%s did not come; seen %s", what, seen)
		}
	}
}

func (w *world) node(uid string, seq uint64) lease.NodeVersion {
	w.Helper()
	old, _ := w.a.Node(context.Background(), uid)
	nv, err := w.a.PutNode(context.Background(), lease.Node{UID: uid, Generation: 1, BootID: "b", Seq: seq, Alive: true, Grade: lease.GradeSoft, AgentID: "agent-" + uid,
		Hostname: "host-" + uid, Timing: lease.Timing{F: 0.2, S: 0.1}, Drivers: []lease.DriverFacts{{Name: "pool", Scope: "cluster", Ready: true}}}, old.Version)
	if err != nil {
		w.Fatal(err)
	}
	return nv
}

// renewing keeps a node alive until the end of the test or stop.
func (w *world) renewing(uid string) (stop func()) {
	w.node(uid, 1)
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for seq := uint64(2); ; seq++ {
			select {
			case <-quit:
				return
			case <-time.After(timings.P):
				w.node(uid, seq)
			}
		}
	}()
	var once sync.Once
	stop = func() { once.Do(func() { close(quit); <-ended }) }
	w.Cleanup(stop)
	return stop
}

func vol(i int) *state.Volume {
	uid := fmt.Sprintf("v%d", i)
	return &state.Volume{UID: state.VolumeUID(uid), Ref: volume.Ref{Driver: "pool", Name: "db-" + uid}, Size: 5, Policy: lease.PolicyLease}
}

func (w *world) answer(node, op, outcome string, failure error) {
	w.Helper()
	for range 200 {
		list, err := w.a.Requests(context.Background(), node)
		if err != nil {
			w.Fatal(err)
		}
		for _, r := range list {
			if r.Op == op {
				if err := w.a.FinishRequest(context.Background(), node, r, outcome, failure); err != nil {
					w.Fatal(err)
				}
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.Fatalf("request %s did not come", op)
}

func result(op string) func(scheduler.Event) bool {
	return func(e scheduler.Event) bool { r, ok := e.(scheduler.RequestResult); return ok && r.Op == op }
}

func granted(nonce string) func(scheduler.Event) bool {
	return func(e scheduler.Event) bool { r, ok := e.(scheduler.GrantResult); return ok && r.Nonce == nonce }
}

func claims(is func(scheduler.ClaimsSeen) bool) func(scheduler.Event) bool {
	return func(e scheduler.Event) bool { c, ok := e.(scheduler.ClaimsSeen); return ok && is(c) }
}

func TestVolumeFromCreationToRemoval(t *testing.T) {
	w := newWorld(t)
	defer w.renewing("n1")()
	w.await("nodes", func(e scheduler.Event) bool {
		n, ok := e.(scheduler.NodesSeen)
		return ok && len(n.Nodes) == 1 && n.Nodes[0].Agent == "agent-n1" && n.Nodes[0].Drivers["pool"].Scope == "cluster"
	})
	if w.n.Do(scheduler.Kill{}) {
		t.Error("a call to the master was taken")
	}
	v := vol(1)
	for range 3 {
		w.n.Do(scheduler.CreateVolume{Op: "op1", Node: "n1", Volume: v})
	}
	w.answer("n1", "op1", "created", nil)
	r := w.await("result", result("op1")).(scheduler.RequestResult)
	if !r.OK || r.Outcome != "created" || r.Scope != "cluster" || r.Volume != "v1" || r.Node != "n1" {
		t.Errorf("result %+v", r)
	}
	w.n.Do(scheduler.CreateVolume{Op: "op1", Node: "n1", Volume: v}) // again after a crash: the same answer again
	w.await("result again", result("op1"))
	w.n.Do(scheduler.ForgetRequest{Op: "op1", Node: "n1"})
	w.n.Do(scheduler.Grant{Volume: "v1", Epoch: 1, Nonce: "a", Agent: "agent-n1", Node: "n1", Policy: lease.PolicyLease, Owner: "task"})
	g := w.await("grant", granted("a")).(scheduler.GrantResult)
	if !g.OK || g.Claim == nil || g.Claim.State != "granted" || g.Claim.MinGrade != "soft" {
		t.Errorf("grant %+v", g)
	}
	w.n.Do(scheduler.Grant{Volume: "v1", Epoch: 2, Nonce: "b", Agent: "agent-n2", Node: "n2", Policy: lease.PolicyLease})
	if g := w.await("refusal", granted("b")).(scheduler.GrantResult); g.OK || g.Reason == "" || g.Claim == nil || g.Claim.Nonce != "a" {
		t.Errorf("second grant %+v", g)
	}
	w.n.Do(scheduler.CancelGrant{Volume: "v1", Epoch: 1, Nonce: "a"})
	w.await("free claim", claims(func(c scheduler.ClaimsSeen) bool {
		return len(c.Claims) == 1 && c.Claims[0].State == "free" && c.Claims[0].FreedBy == "L5"
	}))
	w.n.Do(scheduler.RemoveVolumeData{Op: "op2", Node: "n1", Volume: v})
	w.answer("n1", "op2", "removed", nil)
	if r := w.await("removal", result("op2")).(scheduler.RequestResult); !r.OK {
		t.Errorf("removal %+v", r)
	}
	if c, err := w.a.Claim(context.Background(), "v1"); err != nil || !c.Tombstone {
		t.Errorf("claim %+v %v", c, err)
	}
	if l, err := w.a.Requests(context.Background(), "n1"); err != nil || len(l) != 1 || l[0].Op != "op2" {
		t.Errorf("requests left %+v %v", l, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	w := newWorld(t)
	defer w.renewing("n1")()
	w.n.Do(scheduler.CreateVolume{Op: "op1", Node: "n1", Volume: vol(1)})
	w.answer("n1", "op1", "", fault.New(fault.Conflict, "no room"))
	if r := w.await("failure", result("op1")).(scheduler.RequestResult); r.OK || r.Class != "conflict" || r.Error != "no room" {
		t.Errorf("result %+v", r)
	}
	other := vol(1)
	other.UID = "another"
	w.n.Do(scheduler.CreateVolume{Op: "op2", Node: "n1", Volume: other})
	if r := w.await("refusal", result("op2")).(scheduler.RequestResult); r.OK || r.Class != "exists" {
		t.Errorf("result %+v", r)
	}
}

// A dead node frees what it held, and what it was asked for is gone.
func TestNodeLoss(t *testing.T) {
	w := newWorld(t)
	stop := w.renewing("n1")
	ctx := context.Background()
	const many = 40
	for i := range many {
		v := vol(i)
		if _, err := w.a.Create(ctx, string(v.UID), v.Ref, lease.Policy{}, false); err != nil {
			t.Fatal(err)
		}
		w.n.Do(scheduler.Grant{Volume: v.UID, Epoch: 1, Nonce: "a" + string(v.UID), Agent: "agent-n1", Node: "n1", Policy: lease.PolicyLease})
	}
	for i := range many {
		v := vol(i)
		w.await("grant", granted("a"+string(v.UID)))
		if _, err := w.a.Hold(ctx, lease.HoldArgs{VolumeUID: string(v.UID), Epoch: 1, Nonce: "a" + string(v.UID), Node: "n1", Generation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	w.n.Do(scheduler.CreateVolume{Op: "op1", Node: "n1", Volume: vol(100)})
	stop()
	lost := time.Now()
	w.n.Do(scheduler.Revoke{Volume: "v0", Epoch: 1})
	w.await("suspicion", func(e scheduler.Event) bool {
		n, ok := e.(scheduler.NodesSeen)
		return ok && len(n.Nodes) == 1 && !n.Nodes[0].SuspectSince.IsZero() && n.Nodes[0].FreeBy.After(n.Nodes[0].SuspectSince)
	})
	free := map[state.VolumeUID]bool{}
	w.await("free claims", claims(func(c scheduler.ClaimsSeen) bool {
		for _, claim := range c.Claims {
			if claim.State == "free" && claim.FreedBy == "L4" {
				free[claim.Volume] = true
			}
		}
		return len(free) == many
	}))
	if took := time.Since(lost); took < timings.W-timings.P {
		t.Errorf("free after %v, W is %v", took, timings.W)
	}
	t.Logf("%d claims free %v after the last renewal, W %v", many, time.Since(lost), timings.W)
	if r := w.await("gone", result("op1")).(scheduler.RequestResult); !r.Gone || r.OK {
		t.Errorf("result %+v", r)
	}
}

// While the taker is held no node is declared dead and nothing is freed or revoked; its watch goes on, so that the end of the hold is enough.
func TestHeldTaker(t *testing.T) {
	w := newWorld(t)
	stop := w.renewing("n1")
	ctx := context.Background()
	v := vol(1)
	if _, err := w.a.Create(ctx, "v1", v.Ref, lease.Policy{}, false); err != nil {
		t.Fatal(err)
	}
	w.n.Do(scheduler.Grant{Volume: "v1", Epoch: 1, Nonce: "a", Agent: "agent-n1", Node: "n1", Policy: lease.PolicyLease})
	w.await("grant", granted("a"))
	if _, err := w.a.Hold(ctx, lease.HoldArgs{VolumeUID: "v1", Epoch: 1, Nonce: "a", Node: "n1", Generation: 1}); err != nil {
		t.Fatal(err)
	}
	if !w.n.Do(scheduler.HoldTaker{Reason: "frozen"}) {
		t.Fatal("the call was not taken")
	}
	w.n.Do(scheduler.Revoke{Volume: "v1", Epoch: 1})
	stop()
	time.Sleep(3 * timings.W)
	if nv, err := w.a.Node(ctx, "n1"); err != nil || !nv.Alive {
		t.Fatalf("node %+v, %v", nv, err)
	}
	if c, err := w.a.Claim(ctx, "v1"); err != nil || c.State != lease.Held || c.Revoke {
		t.Fatalf("claim %+v, %v", c, err)
	}
	w.n.Do(scheduler.HoldTaker{})
	w.await("the claim, free", claims(func(c scheduler.ClaimsSeen) bool { return len(c.Claims) == 1 && c.Claims[0].FreedBy == "L4" }))
}

// A dead node that an operator forgets is not shown any more; should its machine come back, it goes on above its last generation.
func TestForgottenNode(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	stop := w.renewing("n1")
	seen := func(is func([]*state.Node) bool) func(scheduler.Event) bool {
		return func(e scheduler.Event) bool { n, ok := e.(scheduler.NodesSeen); return ok && is(n.Nodes) }
	}
	w.await("the node", seen(func(l []*state.Node) bool { return len(l) == 1 && l[0].Alive }))
	if err := w.a.RetireNode(ctx, "n1", 1, "ann"); !fault.Is(err, fault.Conflict) {
		t.Errorf("a living node was retired: %v", err)
	}
	stop()
	w.await("its death", seen(func(l []*state.Node) bool { return len(l) == 1 && !l[0].Alive }))
	if err := w.a.RetireNode(ctx, "n1", 2, "ann"); !fault.Is(err, fault.Conflict) {
		t.Errorf("another generation was retired: %v", err)
	}
	w.mu.Lock()
	w.events = nil // the very first look saw nobody, too
	w.mu.Unlock()
	w.n.Do(scheduler.RetireNode{Node: "n1", Generation: 1, By: "ann"})
	w.await("nobody", seen(func(l []*state.Node) bool { return len(l) == 0 }))
	nv, err := w.a.Node(ctx, "n1")
	if err != nil || nv.Generation != 1 || nv.RetiredBy != "ann" {
		t.Fatalf("record %+v, %v", nv, err)
	}
	if err := w.a.RetireNode(ctx, "n1", 1, "bob"); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := w.a.PutNode(ctx, lease.Node{UID: "n1", Generation: 2, BootID: "c", Seq: 1, Alive: true, Grade: lease.GradeSoft, Timing: lease.Timing{F: 0.2, S: 0.1}}, nv.Version); err != nil {
		t.Fatal(err)
	}
	w.await("the node, back", seen(func(l []*state.Node) bool { return len(l) == 1 && l[0].Alive && l[0].Generation == 2 }))
}

// A node whose constants need a longer wait than ours is never declared dead, and that is said while it is well.
func TestNodeThatNeedsALongerWait(t *testing.T) {
	w := newWorld(t)
	nv := w.node("n1", 1)
	nv.Seq, nv.Timing = 2, lease.Timing{F: 0.5, S: 0.1}
	if _, err := w.a.PutNode(context.Background(), nv.Node, nv.Version); err != nil {
		t.Fatal(err)
	}
	w.await("the reason", func(e scheduler.Event) bool {
		n, ok := e.(scheduler.NodesSeen)
		return ok && len(n.Nodes) == 1 && strings.Contains(n.Nodes[0].Kept, "raise W to 600ms")
	})
	time.Sleep(2 * timings.W)
	if now, err := w.a.Node(context.Background(), "n1"); err != nil || !now.Alive {
		t.Errorf("node %+v, %v", now, err)
	}
}

// While the authority is away nothing is reported of calls; when it is back, everything is read anew and the calls have their results.
func TestAuthorityAway(t *testing.T) {
	w := newWorld(t)
	defer w.renewing("n1")()
	v := vol(1)
	if _, err := w.a.Create(context.Background(), "v1", v.Ref, lease.Policy{}, false); err != nil {
		t.Fatal(err)
	}
	w.await("first claims", claims(func(c scheduler.ClaimsSeen) bool { return c.All || len(c.Claims) == 1 }))
	w.net.set(true)
	w.await("loss", func(e scheduler.Event) bool { _, ok := e.(scheduler.AuthorityLost); return ok })
	w.n.Do(scheduler.Grant{Volume: "v1", Epoch: 1, Nonce: "a", Agent: "agent-n1", Node: "n1", Policy: lease.PolicyLease})
	time.Sleep(50 * time.Millisecond)
	w.mu.Lock()
	for _, e := range w.events {
		if _, ok := e.(scheduler.GrantResult); ok {
			t.Errorf("event %+v while the authority is away", e)
		}
	}
	w.events = nil
	w.mu.Unlock()
	w.net.set(false)
	back := w.await("all claims", claims(func(c scheduler.ClaimsSeen) bool { return c.All })).(scheduler.ClaimsSeen)
	if len(back.Claims) != 1 {
		t.Errorf("claims %+v", back.Claims)
	}
	if g := w.await("grant", granted("a")).(scheduler.GrantResult); !g.OK {
		t.Errorf("grant %+v", g)
	}
}

func TestQueueKeepsOrderPerVolume(t *testing.T) {
	q := newCallQueue()
	call := func(v state.VolumeUID, e volume.Epoch) scheduler.Call { return scheduler.Revoke{Volume: v, Epoch: e} }
	for e := volume.Epoch(1); e <= 3; e++ {
		for _, v := range []state.VolumeUID{"a", "b"} {
			for range 2 { // what waits already is not added twice
				key, line, _ := identify(call(v, e))
				q.add(line, key, call(v, e))
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var got []string
	for {
		va, a, _ := q.next(ctx)
		vb, b, ok := q.next(ctx) // the other volume's, while the first is under way
		if !ok {
			break
		}
		got = append(got, fmt.Sprint(a.(scheduler.Revoke).Epoch, b.(scheduler.Revoke).Epoch))
		if va == vb {
			t.Error("two calls on one volume at once")
		}
		q.done(va)
		q.done(vb)
	}
	if fmt.Sprint(got) != "[1 1 2 2 3 3]" {
		t.Errorf("order %v", got)
	}
}

package lease_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

// bench is a Keeper on an authority in memory, in virtual time.
type bench struct {
	*testing.T
	memory *leasetest.Memory
	a      *lease.Authority // beside the keeper's
	k      *lease.Keeper
	clock  *simClock
	ctx    context.Context
	stop   func() // ends the keeper

	mu       sync.Mutex
	cut      bool
	verify   error
	verified int
	lost     []string
	told     map[uint64]time.Duration // generation -> D as handed to the watchdog
}

func inVirtualTime(t *testing.T, f func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, memory: leasetest.NewMemory(), ctx: t.Context(), told: map[uint64]time.Duration{}}
		b.clock = &simClock{start: time.Now(), origin: time.Hour, rate: 1}
		b.a = lease.New(b.memory, lease.Options{})
		if _, err := b.a.Init(b.ctx, "c"); err != nil {
			t.Fatal(err)
		}
		f(b)
	})
}

// start runs a keeper; change may alter its options.
func (b *bench) start(uid, boot string, change func(*lease.KeeperOptions)) *lease.Keeper {
	b.Helper()
	o := lease.KeeperOptions{Timings: lease.EmbeddedTimings(), Clock: b.clock,
		Node: func() lease.Node {
			return lease.Node{UID: uid, BootID: boot, Hostname: "host", Grade: lease.GradeSoft, AgentID: "agent"}
		},
		SetDeadline: func(g uint64, d time.Duration) { b.mu.Lock(); defer b.mu.Unlock(); b.told[g] = d },
		Verify:      func(context.Context) error { b.mu.Lock(); defer b.mu.Unlock(); b.verified++; return b.verify },
		Lost:        func(why string) { b.mu.Lock(); defer b.mu.Unlock(); b.lost = append(b.lost, why) },
	}
	if change != nil {
		change(&o)
	}
	net := &leasetest.Faulty{Registers: b.memory, Mishap: func(bool, []lease.Op) leasetest.Mishap {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.cut {
			return leasetest.NotSent
		}
		return leasetest.None
	}}
	k, err := lease.NewKeeper(lease.New(net, lease.Options{}), o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = k.Run(ctx) }()
	b.k, b.stop = k, func() { cancel(); <-ended }
	b.Cleanup(b.stop)
	return k
}

func (b *bench) set(f func()) { b.mu.Lock(); defer b.mu.Unlock(); f() }

func (b *bench) losses() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.lost...)
}

func (b *bench) verifications() int { b.mu.Lock(); defer b.mu.Unlock(); return b.verified }

// handed is D as the watchdog was told for a generation.
func (b *bench) handed(g uint64) time.Duration { b.mu.Lock(); defer b.mu.Unlock(); return b.told[g] }

func (b *bench) wait(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (b *bench) node(uid string) lease.NodeVersion {
	b.Helper()
	n, err := b.a.Node(b.ctx, uid)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// hold makes a volume and lets the node have it.
func (b *bench) hold(uid, node string) {
	b.Helper()
	_, err := b.a.Create(b.ctx, uid, volume.Ref{Driver: "pool", Name: uid}, lease.Policy{}, false)
	if err == nil {
		_, err = b.a.Grant(b.ctx, lease.GrantArgs{VolumeUID: uid, Epoch: 5, Node: node, Nonce: "n", Policy: lease.Policy{Mode: lease.PolicyOperator}})
	}
	if err == nil {
		_, err = b.a.Hold(b.ctx, lease.HoldArgs{VolumeUID: uid, Epoch: 5, Node: node, Nonce: "n", Generation: b.k.Generation()})
	}
	if err != nil {
		b.Fatal(err)
	}
}

func TestKeeperRenews(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		if err := b.startOnly().MayMount(b.clock.Now(), 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("before the registration: %v", err)
		}
		b.start("n1", "b1", nil)
		<-b.k.Ready()
		b.wait(10 * time.Second)
		n := b.node("n1")
		if !n.Alive || n.Generation != 1 || n.Seq < 19 || n.Seq > 22 || n.Timing != (lease.Timing{F: 3, S: 1}) || n.AgentID != "agent" {
			t.Errorf("record %+v", n.Node)
		}
		now := b.clock.Now()
		if d := b.k.Deadline(); d < now+2*time.Second || d > now+3*time.Second || b.handed(1) != d {
			t.Errorf("D is %v from now, the watchdog was told %v", d-now, b.handed(1)-now)
		}
		if err := b.k.MayMount(now, 2*time.Second); err != nil {
			t.Errorf("MayMount: %v", err)
		}
		if err := b.k.MayMount(now, 4*time.Second); !fault.Is(err, fault.Unavailable) {
			t.Errorf("MayMount beyond D: %v", err)
		}
		b.k.Publish(func(n *lease.Node) { n.Draining = true })
		b.k.NoteEpoch(42)
		b.wait(time.Millisecond)
		b.wait(600 * time.Millisecond)
		if n := b.node("n1"); !n.Draining || n.HighestEpoch != 42 {
			t.Errorf("published record %+v", n.Node)
		}
		if b.verifications() != 1 || len(b.losses()) != 0 {
			t.Errorf("verified %d times, lost %v", b.verifications(), b.losses())
		}
	})
}

// startOnly is a keeper that does not run.
func (b *bench) startOnly() *lease.Keeper {
	k, err := lease.NewKeeper(b.a, lease.KeeperOptions{Node: func() lease.Node { return lease.Node{} }, Verify: func(context.Context) error { return nil }, Lost: func(string) {}})
	if err != nil {
		b.Fatal(err)
	}
	return k
}

// Cut off, it loses the lease at D and says so once; back again, it begins a new generation only after the verification, and gives
// back what it held.
func TestKeeperCutOff(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		b.start("n1", "b1", nil)
		<-b.k.Ready()
		b.hold("v1", "n1")
		b.wait(time.Second)
		d := b.k.Deadline()
		b.set(func() { b.cut, b.verify = true, errors.New("a user is left") })
		b.wait(d - b.clock.Now() - time.Millisecond)
		if len(b.losses()) != 0 || b.k.Generation() != 1 {
			t.Fatalf("before D: lost %v, generation %d", b.lost, b.k.Generation())
		}
		b.wait(2 * time.Millisecond)
		if len(b.losses()) != 1 || b.k.Generation() != 0 || b.k.Deadline() != 0 {
			t.Fatalf("at D: lost %v, generation %d", b.lost, b.k.Generation())
		}
		b.wait(10 * time.Second)
		b.set(func() { b.cut = false })
		b.wait(3 * time.Second)
		if b.verifications() < 3 || b.k.Generation() != 0 || !strings.Contains(b.k.Why(), "a user is left") {
			t.Fatalf("not verified: %d tries, generation %d, why %q", b.verifications(), b.k.Generation(), b.k.Why())
		}
		if c, err := b.a.Claim(b.ctx, "v1"); err != nil || c.State != lease.Held {
			t.Fatalf("claim %+v, %v: given back without verification", c, err)
		}
		b.set(func() { b.verify = nil })
		b.wait(time.Second)
		if c, err := b.a.Claim(b.ctx, "v1"); err != nil || c.State != lease.Free || c.FreedBy != "L3" {
			t.Errorf("claim %+v, %v", c, err)
		}
		if n := b.node("n1"); b.k.Generation() != 2 || n.Generation != 2 || !n.Alive || n.HighestEpoch != 5 || len(b.losses()) != 1 {
			t.Errorf("generation %d, record %+v, lost %v", b.k.Generation(), n.Node, b.losses())
		}
		if err := b.k.Covers(1, b.clock.Now(), 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a hold of generation 1 is covered: %v", err)
		}
	})
}

// L4 while it lives: it learns of it with the next renewal.
func TestKeeperDeclaredDead(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		b.start("n1", "b1", nil)
		<-b.k.Ready()
		b.wait(time.Second)
		if err := b.a.KillNode(b.ctx, b.node("n1"), "taker"); err != nil {
			t.Fatal(err)
		}
		b.wait(600 * time.Millisecond)
		if len(b.losses()) != 1 || !strings.Contains(b.losses()[0], "taker") {
			t.Errorf("lost %v", b.losses())
		}
		b.wait(time.Second)
		if b.k.Generation() != 2 {
			t.Errorf("generation %d", b.k.Generation())
		}
	})
}

// Cases 8 and 20: killed and back before D it goes on in the same generation; later it verifies first.
func TestKeeperRestarts(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		b.start("n1", "b1", nil)
		<-b.k.Ready()
		again := func(after time.Duration) {
			b.wait(time.Second)
			b.stop()
			b.wait(after)
			var g uint64
			for b.handed(g+1) != 0 {
				g++
			}
			d := b.handed(g)
			b.start("n1", "b1", func(o *lease.KeeperOptions) { o.LastGeneration, o.LastDeadline = g, d })
			<-b.k.Ready()
		}
		again(time.Second)
		if b.k.Generation() != 1 || b.verifications() != 1 {
			t.Errorf("back inside F: generation %d, verified %d times", b.k.Generation(), b.verifications())
		}
		again(5 * time.Second)
		if b.k.Generation() != 2 || b.verifications() != 2 {
			t.Errorf("back after D: generation %d, verified %d times", b.k.Generation(), b.verifications())
		}
		if len(b.losses()) != 0 {
			t.Errorf("lost %v", b.losses())
		}
	})
}

// Case 19: another machine with this node's uid gets no lease while the first has one, and says why; after a reboot the wait ends.
func TestKeeperWithTwins(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		first := b.start("n1", "b1", nil)
		stopFirst := b.stop
		<-first.Ready()
		twin := b.start("n1", "b2", nil)
		b.wait(30 * time.Second)
		if first.Generation() != 1 || twin.Generation() != 0 || !strings.Contains(twin.Why(), "uid") || len(b.losses()) != 0 {
			t.Errorf("generations %d and %d, why %q, lost %v", first.Generation(), twin.Generation(), twin.Why(), b.losses())
		}
		stopFirst()
		b.wait(3400 * time.Millisecond)
		if twin.Generation() != 0 {
			t.Error("the twin did not wait until the record stood still")
		}
		b.wait(2 * time.Second)
		if twin.Generation() != 2 {
			t.Errorf("generation %d after the wait, why %q", twin.Generation(), twin.Why())
		}
	})
}

// Case 17: a sealed or another authority ends the lease at D, and nothing begins on it.
func TestKeeperAndRoot(t *testing.T) {
	for name, change := range map[string]func(*lease.Root){"sealed": func(r *lease.Root) { r.Sealed = true }, "restored": func(r *lease.Root) { r.Generation++ }} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(b *bench) {
				b.start("n1", "b1", nil)
				<-b.k.Ready()
				b.wait(time.Second)
				e, err := b.memory.Get(b.ctx, lease.KeyRoot)
				if err != nil {
					t.Fatal(err)
				}
				var r lease.Root
				if err := json.Unmarshal(e.Value, &r); err != nil {
					t.Fatal(err)
				}
				change(&r)
				raw, _ := json.Marshal(r)
				if _, err := b.memory.Txn(b.ctx, lease.Op{Kind: lease.OpPut, Key: lease.KeyRoot, Expect: e.Version, Value: raw}); err != nil {
					t.Fatal(err)
				}
				b.wait(2400 * time.Millisecond)
				if len(b.losses()) != 0 {
					t.Errorf("lost before D: %v", b.losses())
				}
				b.wait(10 * time.Second)
				if len(b.losses()) != 1 || b.k.Generation() != 0 || b.node("n1").Generation != 1 {
					t.Errorf("lost %v, generation %d", b.lost, b.k.Generation())
				}
			})
		})
	}
}

func TestKeeperTellsRevokes(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		b.start("n1", "b1", nil)
		<-b.k.Ready()
		b.hold("v1", "n1")
		b.hold("v2", "n1")
		b.wait(time.Second)
		if _, err := b.a.Revoke(b.ctx, "v2", 5); err != nil {
			t.Fatal(err)
		}
		asked := time.Now()
		for range 3 { // again and again until it is given back
			if c := <-b.k.Revoked(); c.VolumeUID != "v2" || c.Epoch != 5 || !c.Revoke {
				t.Errorf("revoked %+v", c)
			}
		}
		if took := time.Since(asked); took > 2*time.Second {
			t.Errorf("three times took %v", took)
		}
	})
}

func TestKeeperRefusesBadTimings(t *testing.T) {
	o := lease.KeeperOptions{Timings: lease.EmbeddedTimings()}
	o.Timings.F = time.Second
	if _, err := lease.NewKeeper(nil, o); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "I1") {
		t.Errorf("I1: %v", err)
	}
	bad := lease.EmbeddedTimings()
	bad.W = 3 * time.Second
	if _, err := lease.NewTaker(nil, lease.TakerOptions{Timings: bad}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "I2") {
		t.Errorf("I2: %v", err)
	}
}

// Many claims of many nodes that die at once are freed soon after W, and those of policy operator are not.
func TestTakerFreesMany(t *testing.T) {
	inVirtualTime(t, func(b *bench) {
		for _, uid := range []string{"n1", "n2", "n3"} {
			if _, err := b.a.PutNode(b.ctx, lease.Node{UID: uid, Generation: 1, BootID: "b", Seq: 1, Alive: true, Grade: lease.GradeSoft, Timing: lease.EmbeddedTimings().Publish()}, 0); err != nil {
				t.Fatal(err)
			}
		}
		const each = 50
		for i := range 3 * each {
			uid, node := "v"+string(rune('a'+i%26))+time.Duration(i).String(), []string{"n1", "n2", "n3"}[i%3]
			uid = strings.ReplaceAll(uid, ".", "-")
			mode := lease.PolicyLease
			if i%10 == 0 {
				mode = lease.PolicyOperator
			}
			_, err := b.a.Create(b.ctx, uid, volume.Ref{Driver: "pool", Name: uid}, lease.Policy{}, false)
			if err == nil {
				_, err = b.a.Grant(b.ctx, lease.GrantArgs{VolumeUID: uid, Epoch: 1, Node: node, Nonce: "n", Policy: lease.Policy{Mode: mode, MinGrade: lease.GradeSoft}})
			}
			if err == nil {
				_, err = b.a.Hold(b.ctx, lease.HoldArgs{VolumeUID: uid, Epoch: 1, Node: node, Nonce: "n", Generation: 1})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		tk, err := lease.NewTaker(b.a, lease.TakerOptions{Clock: b.clock, By: "test"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		go func() { _ = tk.Run(ctx) }()
		count := func() (free int) {
			claims, err := b.a.Claims(b.ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range claims {
				if c.State == lease.Free {
					free++
				}
			}
			return free
		}
		b.wait(3999 * time.Millisecond)
		if n := count(); n != 0 {
			t.Errorf("%d freed before W", n)
		}
		if w := tk.Waits(); len(w) != 3 || w[0].UID != "n1" {
			t.Errorf("waits %+v", w)
		}
		b.wait(100 * time.Millisecond)
		if n := count(); n != 3*each*9/10 {
			t.Errorf("%d freed, want %d", n, 3*each*9/10)
		}
	})
}

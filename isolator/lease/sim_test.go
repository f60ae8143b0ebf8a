package lease_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

// The simulation runs the real Keeper, Taker and Authority against each other in virtual time: several nodes whose clocks run fast or
// slow, whose calls are late or lost, who are paused, killed, restarted and rebooted; two takers that do not know of each other; a
// framework that grants, cancels and revokes. Mounts stay as long as the protocol allows: a node's watchdog needs nearly all of S after D. The one
// thing checked at every mount is that no other node has the volume mounted.

type simConfig struct {
	seed     uint64
	length   time.Duration
	timings  lease.Timings
	lie      lease.Timing // what takers are told that nodes publish; zero: the truth
	rateLow  float64      // of the nodes' clocks
	rateHigh float64      // of the takers'
	calm     bool         // no lost calls, only what a clock does
}

type sim struct {
	cfg    simConfig
	t      *testing.T
	memory *leasetest.Memory
	start  time.Time

	mu        sync.Mutex
	mounted   map[string]map[string]volume.Epoch // volume -> node -> epoch
	overlaps  []string
	highest   map[string]volume.Epoch
	mounts    int
	takeovers int
	pauses    int
	crashes   int
}

// simClock runs at a rate of the true time.
type simClock struct {
	start  time.Time
	origin time.Duration
	rate   float64
	pause  func() // returns when its process may go on
}

func (c *simClock) Now() time.Duration {
	return c.origin + time.Duration(float64(time.Since(c.start))*c.rate)
}

func (c *simClock) After(d time.Duration) (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	t := time.AfterFunc(time.Duration(float64(max(d, 0))/c.rate)+1, func() {
		if c.pause != nil {
			c.pause()
		}
		ch <- struct{}{}
	})
	return ch, func() { t.Stop() }
}

// simNet is a process's way to the authority.
type simNet struct {
	*leasetest.Memory
	s     *sim
	rng   *rand.Rand
	mu    sync.Mutex
	cut   bool
	lie   lease.Timing
	pause func()
}

func (n *simNet) chance(p float64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.Float64() < p
}

func (n *simNet) latency() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.rng.ExpFloat64() * float64(20*time.Millisecond))
}

func (n *simNet) isCut() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.cut }

// travel is one way of a call; false when it gets lost.
func (n *simNet) travel(ctx context.Context) bool {
	d := n.latency()
	if !n.s.cfg.calm && n.chance(0.01) {
		d += time.Duration(n.rng.Int64N(int64(5 * time.Second)))
	}
	lost := n.isCut() || (!n.s.cfg.calm && n.chance(0.02))
	if lost {
		<-ctx.Done()
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// simReply is what the authority answers.
type simReply struct {
	entries []lease.Entry
	err     error
}

func (n *simNet) call(ctx context.Context, f func(context.Context) ([]lease.Entry, error)) (r simReply, lost error) {
	limit, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	n.pause()
	there := make(chan simReply, 1)
	late := n.latency()
	go func() { // what was sent may arrive long after the caller has given up
		if n.isCut() {
			return
		}
		if !n.s.cfg.calm && n.chance(0.03) {
			time.Sleep(10 * late)
		}
		time.Sleep(late)
		entries, err := f(context.Background())
		there <- simReply{entries, err}
	}()
	ok := false
	select {
	case r = <-there:
		ok = n.travel(limit)
	case <-limit.Done():
	}
	n.pause()
	if !ok {
		return simReply{}, fault.Wrap(fault.Unknown, limit.Err(), "call")
	}
	return r, nil
}

func (n *simNet) Get(ctx context.Context, key string) (lease.Entry, error) {
	r, lost := n.call(ctx, func(ctx context.Context) ([]lease.Entry, error) {
		e, err := n.Memory.Get(ctx, key)
		return []lease.Entry{e}, err
	})
	if lost != nil {
		return lease.Entry{}, fault.Wrap(fault.Unavailable, lost, "get")
	}
	return r.entries[0], r.err
}

func (n *simNet) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	r, lost := n.call(ctx, func(ctx context.Context) ([]lease.Entry, error) { return n.Memory.List(ctx, prefix) })
	if lost != nil {
		return nil, fault.Wrap(fault.Unavailable, lost, "list")
	}
	if n.lie != (lease.Timing{}) && prefix == lease.PrefixNodes {
		for i, e := range r.entries {
			var record lease.Node
			if json.Unmarshal(e.Value, &record) == nil {
				record.Timing = n.lie
				r.entries[i].Value, _ = json.Marshal(record)
			}
		}
	}
	return r.entries, r.err
}

func (n *simNet) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	r, lost := n.call(ctx, func(ctx context.Context) ([]lease.Entry, error) { return n.Memory.Txn(ctx, ops...) })
	if lost != nil {
		return nil, lost
	}
	return r.entries, r.err
}

// gate stops a process: SIGSTOP and SIGCONT.
type gate struct {
	mu     sync.Mutex
	closed chan struct{} // nil while open
}

func (g *gate) wait() {
	g.mu.Lock()
	c := g.closed
	g.mu.Unlock()
	if c != nil {
		<-c
	}
}

func (g *gate) stop(d time.Duration) {
	g.mu.Lock()
	c := make(chan struct{})
	g.closed = c
	g.mu.Unlock()
	time.Sleep(d)
	g.mu.Lock()
	g.closed = nil
	g.mu.Unlock()
	close(c)
}

func (s *sim) rng(stream string) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, b := range []byte(stream) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return rand.New(rand.NewPCG(s.cfg.seed, h))
}

func (s *sim) mount(v, node string, e volume.Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mounts++
	if s.mounted[v] == nil {
		s.mounted[v] = map[string]volume.Epoch{}
	}
	s.mounted[v][node] = e
	for other, oe := range s.mounted[v] {
		if other != node {
			s.overlaps = append(s.overlaps, fmt.Sprintf("%v: %s has epoch %d mounted on %s while %s mounts epoch %d", time.Since(s.start), v, oe, other, node, e))
		}
	}
	if e <= s.highest[v] {
		s.overlaps = append(s.overlaps, fmt.Sprintf("%s: epoch %d after %d", v, e, s.highest[v]))
	}
	s.highest[v] = e
}

func (s *sim) unmount(v, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mounted[v], node)
}

// simNode is one machine: its isolator process comes and goes, its watchdog and its mounts stay.
type simNode struct {
	s     *sim
	uid   string
	boot  int
	clock *simClock // of the machine
	net   *simNet
	gate  *gate // of the isolator process
	a     *lease.Authority

	mu         sync.Mutex
	rng        *rand.Rand
	generation uint64
	deadline   time.Duration
	mounts     map[string]lease.Claim
	queues     map[string]chan struct{}
}

func (n *simNode) random(d time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.rng.Int64N(int64(d)))
}

// fence takes everything down, as late as it may.
func (n *simNode) fence() {
	limit := n.s.cfg.timings.S
	time.Sleep(time.Duration(float64(limit*95/100+n.random(limit/20)) / n.clock.rate))
	n.mu.Lock()
	defer n.mu.Unlock()
	for v := range n.mounts {
		n.s.unmount(v, n.uid)
	}
	clear(n.mounts)
}

// watchdog is never paused.
func (n *simNode) watchdog(ctx context.Context) {
	for ctx.Err() == nil {
		n.mu.Lock()
		left, any := n.deadline-n.clock.Now(), len(n.mounts) > 0
		n.mu.Unlock()
		switch {
		case left > 0:
			time.Sleep(time.Duration(float64(left)/n.clock.rate) + 1)
		case any:
			n.fence()
		default:
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// isolator is one life of the isolator process.
func (n *simNode) isolator(ctx context.Context) {
	n.mu.Lock()
	generation, deadline := n.generation, n.deadline
	boot := fmt.Sprintf("boot-%s-%d", n.uid, n.boot)
	n.mu.Unlock()
	clock := *n.clock
	clock.pause = n.gate.wait
	k, err := lease.NewKeeper(n.a, lease.KeeperOptions{Timings: n.s.cfg.timings, Clock: &clock, LastGeneration: generation, LastDeadline: deadline,
		Node: func() lease.Node {
			return lease.Node{UID: n.uid, BootID: boot, Grade: lease.GradeSoft, AgentID: "agent-" + n.uid}
		},
		SetDeadline: func(g uint64, d time.Duration) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.generation, n.deadline = g, d
		},
		Verify: func(context.Context) error { n.fence(); return nil },
		Lost:   func(string) { go n.fence() },
	})
	if err != nil {
		n.s.t.Error(err)
		return
	}
	var wg sync.WaitGroup
	for _, f := range []func(){func() { _ = k.Run(ctx) }, func() { n.serve(ctx, k, &clock) }, func() { n.giveUp(ctx, k) }} {
		wg.Add(1)
		go func() { defer wg.Done(); f() }()
	}
	wg.Wait()
}

// serve takes what is granted to this node, and gives back what it has had for a while.
func (n *simNode) serve(ctx context.Context, k *lease.Keeper, clock *simClock) {
	for ctx.Err() == nil {
		time.Sleep(n.random(4 * time.Second))
		n.gate.wait()
		claims, err := n.a.Claims(ctx)
		if err != nil {
			continue
		}
		for _, c := range claims {
			if c.Node != n.uid || ctx.Err() != nil {
				continue
			}
			switch {
			case c.State == lease.Granted:
				n.take(ctx, k, clock, c.Claim)
			case c.State == lease.Held && n.random(10) < 2:
				n.giveBack(ctx, c.Claim)
			}
		}
	}
}

func (n *simNode) take(ctx context.Context, k *lease.Keeper, clock *simClock, c lease.Claim) {
	defer n.turn(c.VolumeUID)()
	m, generation := n.s.cfg.timings.M, k.Generation()
	if k.Covers(generation, clock.Now(), m) != nil {
		return
	}
	held, err := n.a.Hold(ctx, lease.HoldArgs{VolumeUID: c.VolumeUID, Epoch: c.Epoch, Nonce: c.Nonce, Node: n.uid, Generation: generation})
	n.gate.wait()
	if err != nil || ctx.Err() != nil || k.Covers(generation, clock.Now(), m) != nil {
		return // held, but nothing is mounted: given back at a revoke, or with the lease
	}
	n.mu.Lock()
	n.mounts[c.VolumeUID] = held.Claim
	n.mu.Unlock()
	n.s.mount(c.VolumeUID, n.uid, c.Epoch) // in flight counts
	time.Sleep(n.random(m))
}

// turn is the queue of a volume: one operation on it at a time, over all lives of the process.
func (n *simNode) turn(v string) (done func()) {
	n.mu.Lock()
	q := n.queues[v]
	if q == nil {
		q = make(chan struct{}, 1)
		n.queues[v] = q
	}
	n.mu.Unlock()
	q <- struct{}{}
	return func() { <-q }
}

func (n *simNode) giveBack(ctx context.Context, c lease.Claim) {
	defer n.turn(c.VolumeUID)()
	n.mu.Lock()
	if mine, ok := n.mounts[c.VolumeUID]; ok && mine.Epoch == c.Epoch {
		delete(n.mounts, c.VolumeUID)
		n.s.unmount(c.VolumeUID, n.uid)
	} else if ok {
		n.mu.Unlock()
		return
	}
	n.mu.Unlock()
	_, _ = n.a.Release(ctx, c.VolumeUID, c.Epoch, n.uid, c.NodeGeneration, c.Nonce)
}

func (n *simNode) giveUp(ctx context.Context, k *lease.Keeper) {
	for {
		select {
		case c := <-k.Revoked():
			n.gate.wait()
			n.giveBack(ctx, c.Claim)
		case <-ctx.Done():
			return
		}
	}
}

// live is the machine's life: lives of the isolator, with crashes, reboots, pauses and cuts.
func (n *simNode) live(ctx context.Context) {
	f := n.s.cfg.timings.F
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); n.isolator(life) }()
		for done := false; !done && ctx.Err() == nil; {
			time.Sleep(n.random(4 * f))
			switch n.random(8) {
			case 0, 1: // killed; the mounts stay
				done = true
			case 2: // rebooted: everything is gone, and so is what was in memory
				end()
				<-ended
				n.mu.Lock()
				n.boot++
				n.generation, n.deadline = 0, 0
				for v := range n.mounts {
					n.s.unmount(v, n.uid)
				}
				clear(n.mounts)
				n.mu.Unlock()
				done = true
			case 3, 4: // paused
				n.s.count(&n.s.pauses)
				n.gate.stop(n.random(3 * f))
			case 5, 6: // cut off
				n.net.setCut(true)
				time.Sleep(n.random(3 * f))
				n.net.setCut(false)
			}
		}
		n.s.count(&n.s.crashes)
		end()
		<-ended
		time.Sleep(n.random(2 * f))
	}
}

func (n *simNet) setCut(cut bool) { n.mu.Lock(); defer n.mu.Unlock(); n.cut = cut }

func (s *sim) count(n *int) { s.mu.Lock(); defer s.mu.Unlock(); *n++ }

// leader grants what is free, cancels old grants, revokes now and then. There are two, one of them stale for long times.
func (s *sim) leader(ctx context.Context, name string, nodes []string) {
	rng, g := s.rng(name), &gate{}
	net := &simNet{Memory: s.memory, s: s, rng: s.rng(name + " net"), pause: g.wait}
	a := lease.New(net, lease.Options{Now: time.Now, NewNonce: func() string { return "" }})
	go func() {
		r := s.rng(name + " pauses")
		for ctx.Err() == nil {
			time.Sleep(time.Duration(r.Int64N(int64(2 * time.Minute))))
			g.stop(time.Duration(r.Int64N(int64(time.Minute))))
		}
	}()
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Second))))
		claims, err := a.Claims(ctx)
		if err != nil {
			continue
		}
		for _, c := range claims {
			node := nodes[rng.IntN(len(nodes))]
			switch p := rng.IntN(20); {
			case c.State == lease.Free && p < 12:
				_, _ = a.Grant(ctx, lease.GrantArgs{VolumeUID: c.VolumeUID, Epoch: c.Epoch + 1, Node: node, Agent: "agent-" + node, Nonce: fmt.Sprintf("%s-%d", name, rng.Uint64()),
					Policy: lease.Policy{Mode: lease.PolicyLease, MinGrade: lease.GradeSoft}})
			case c.State == lease.Granted && p < 2:
				_, _ = a.Cancel(ctx, c.VolumeUID, c.Epoch, c.Nonce)
			case c.State == lease.Held && p < 1:
				_, _ = a.Revoke(ctx, c.VolumeUID, c.Epoch)
			}
		}
	}
}

func (s *sim) taker(ctx context.Context, name string, rate float64) {
	rng, g := s.rng(name), &gate{}
	net := &simNet{Memory: s.memory, s: s, rng: s.rng(name + " net"), pause: g.wait}
	timings := s.cfg.timings
	timings.F, timings.S, timings.H, timings.E = 0, 0, 0, 0 // the nodes' own count
	net.lie = s.cfg.lie
	go func() {
		for ctx.Err() == nil {
			time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Minute))))
			g.stop(time.Duration(rng.Int64N(int64(time.Minute))))
		}
	}()
	tk, err := lease.NewTaker(lease.New(net, lease.Options{}), lease.TakerOptions{Timings: timings, By: name,
		Clock: &simClock{start: s.start, origin: time.Hour, rate: rate, pause: g.wait},
		Freed: func(lease.ClaimVersion) { s.count(&s.takeovers) }})
	if err != nil {
		s.t.Error(err)
		return
	}
	_ = tk.Run(ctx)
}

func runSim(t *testing.T, cfg simConfig) *sim {
	s := &sim{cfg: cfg, t: t, mounted: map[string]map[string]volume.Epoch{}, highest: map[string]volume.Epoch{}}
	synctest.Test(t, func(t *testing.T) {
		s.start, s.memory = time.Now(), leasetest.NewMemory()
		setup := lease.New(s.memory, lease.Options{})
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := setup.Init(ctx, "sim"); err != nil {
			t.Fatal(err)
		}
		for v := range 4 {
			uid := fmt.Sprintf("v%d", v)
			if _, err := setup.Create(ctx, uid, volume.Ref{Driver: "pool", Name: uid}, lease.Policy{}, false); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		run := func(f func(context.Context)) { wg.Add(1); go func() { defer wg.Done(); f(ctx) }() }
		names := []string{"a", "b", "c"}
		for i, name := range names {
			n := s.node(name, cfg.rateLow+(1/cfg.rateLow-cfg.rateLow)*float64(i)/4)
			run(n.watchdog)
			run(n.live)
		}
		for i, name := range []string{"taker 1", "taker 2"} {
			run(func(ctx context.Context) { s.taker(ctx, name, cfg.rateHigh-float64(i)*0.05) })
			run(func(ctx context.Context) { s.leader(ctx, fmt.Sprintf("leader-%d", i), names) })
		}
		time.Sleep(cfg.length)
		cancel()
		wg.Wait()
		time.Sleep(10 * time.Minute) // calls on their way end
	})
	return s
}

func (s *sim) node(uid string, rate float64) *simNode {
	n := &simNode{s: s, uid: uid, rng: s.rng(uid), gate: &gate{}, mounts: map[string]lease.Claim{}, queues: map[string]chan struct{}{},
		clock: &simClock{start: s.start, origin: 5 * time.Minute, rate: rate}}
	n.net = &simNet{Memory: s.memory, s: s, rng: s.rng(uid + " net"), pause: n.gate.wait}
	n.a = lease.New(n.net, lease.Options{})
	return n
}

var simTimings = lease.Timings{P: 3 * time.Second, R: 2 * time.Second, F: 15 * time.Second, S: 5 * time.Second, M: time.Second, W: 24445 * time.Millisecond, Rho: 0.1}

func simSeed(t *testing.T) uint64 {
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return uint64(time.Now().UnixNano()) % 1_000_000
}

// Never two mounts of a volume at once, whatever happens within the assumptions.
func TestSimulation(t *testing.T) {
	seed := simSeed(t)
	t.Logf("HOLDFAST_SEED=%d", seed)
	s := runSim(t, simConfig{seed: seed, length: 30 * time.Minute, timings: simTimings, rateLow: 0.9, rateHigh: 1.1})
	t.Logf("%d mounts, %d takeovers, %d pauses, %d crashes", s.mounts, s.takeovers, s.pauses, s.crashes)
	for _, o := range s.overlaps {
		t.Error(o)
	}
	if s.mounts < 20 || s.takeovers < 3 {
		t.Error("the history is too poor to show anything")
	}
}

// The simulation sees what it has to see: with a wait that is too short (I2), or clocks outside of rho, two mounts overlap.
func TestSimulationCatches(t *testing.T) {
	for name, change := range map[string]func(*simConfig){
		"short wait":  func(c *simConfig) { c.lie = lease.Timing{F: 6, S: 2}; c.timings.W = 10 * time.Second },
		"slow clocks": func(c *simConfig) { c.rateLow = 0.5 },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				cfg := simConfig{seed: seed, length: 30 * time.Minute, timings: simTimings, rateLow: 0.9, rateHigh: 1.1}
				change(&cfg)
				if s := runSim(t, cfg); len(s.overlaps) > 0 {
					t.Logf("seed %d: %s", seed, s.overlaps[0])
					return
				}
			}
			t.Error("no overlap was found in 20 histories")
		})
	}
}

// The same over many seeds.
func TestHeavySimulations(t *testing.T) {
	heavy.Require(t)
	first := simSeed(t)
	t.Logf("HOLDFAST_SEED=%d and following", first)
	for seed := first; seed < first+15; seed++ {
		s := runSim(t, simConfig{seed: seed, length: time.Hour, timings: simTimings, rateLow: 0.9, rateHigh: 1.1})
		for _, o := range s.overlaps {
			t.Errorf("HOLDFAST_SEED=%d: %s", seed, o)
		}
	}
}

package lease

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// TakerOptions configure a Taker.
type TakerOptions struct {
	Timings Timings // the zero value means EmbeddedTimings
	Clock   Clock   // default Monotonic
	Log     *zap.Logger
	By      string // who acts, for the records
	Workers int    // how many transitions at once; default 16
	// Killed is told of each node declared dead by this taker, Freed of each claim that it freed; nil tells nobody. They must not block.
	Killed func(NodeVersion)
	Freed  func(ClaimVersion)
	// Held gives a reason while nothing may be declared dead or freed; "" and nil let it. The observation goes on, so that a lease that stood still
	// for W meanwhile has run out when the hold ends.
	Held func() string
}

// Taker declares nodes dead whose lease has stood still for W (L4), and frees what they held. It keeps nothing: a new Taker, in
// this process or another, begins every wait afresh and finds what an earlier one left half done.
type Taker struct {
	a   *Authority
	o   TakerOptions
	log *zap.Logger

	obs     *observer         // only Run's goroutine
	blocked map[string]string // what was said of nodes that W does not cover; only Run's goroutine
	hold    string            // the reason that was logged; only Run's goroutine
	done    map[string]bool   // dead leases (uid and generation) all of whose claims were dealt with; only Run's goroutine

	mu    sync.Mutex
	waits []NodeWait
}

// NewTaker checks the timings (I2) and returns a Taker that Run starts.
func NewTaker(a *Authority, o TakerOptions) (*Taker, error) {
	if o.Timings == (Timings{}) {
		o.Timings = EmbeddedTimings()
	}
	if err := o.Timings.CheckTaker(); err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = Monotonic()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Workers <= 0 {
		o.Workers = 16
	}
	return &Taker{a: a, o: o, log: o.Log, obs: newObserver(o.Timings), blocked: map[string]string{}, done: map[string]bool{}}, nil
}

// Run observes and acts until ctx ends. Run it only while leader; two at once do no harm.
func (t *Taker) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := t.step(ctx)
		timer, stop := t.o.Clock.After(wait)
		select {
		case <-timer:
		case <-ctx.Done():
		}
		stop()
	}
	return nil
}

// Waits is a snapshot of the leases that the Taker watches, sorted by node uid.
func (t *Taker) Waits() []NodeWait {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waits
}

// step is one look at all nodes, with what follows from it. It gives the time until the next look.
func (t *Taker) step(ctx context.Context) time.Duration {
	nodes, err := t.a.Nodes(ctx)
	received := t.o.Clock.Now()
	bad, err := OnlyBadRecords(err)
	if err != nil {
		t.log.Warn("the nodes cannot be read: every wait begins afresh", zap.Error(err))
		t.obs.hole()
		t.setWaits(nil)
		return t.o.Timings.P
	}
	if bad != nil {
		t.log.Error("node records that cannot be read", zap.Error(bad))
	}
	dead, waits := t.obs.observe(received, nodes)
	t.setWaits(waits)
	if t.held() {
		return t.untilNext(received, waits)
	}
	t.parallel(len(dead), func(i int) { t.kill(ctx, dead[i]) })
	if len(dead) > 0 {
		if nodes, err = t.a.Nodes(ctx); err != nil {
			return 0
		}
	}
	if !t.free(ctx, nodes) {
		return t.o.Timings.P / 5
	}
	return t.untilNext(received, waits)
}

// held tells whether nothing may be done, and logs when that changes.
func (t *Taker) held() bool {
	why := ""
	if t.o.Held != nil {
		why = t.o.Held()
	}
	if why != t.hold {
		t.hold = why
		if why != "" {
			t.log.Warn("no node is declared dead and nothing is freed", zap.String("because", why))
		} else {
			t.log.Info("nodes whose lease has run out are declared dead again")
		}
	}
	return why != ""
}

// untilNext is P, or less when a wait ends before.
func (t *Taker) untilNext(now time.Duration, waits []NodeWait) time.Duration {
	next := t.o.Timings.P
	for _, w := range waits {
		if w.Blocked == "" && w.Due > now {
			next = min(next, w.Due-now)
		}
	}
	return next
}

func (t *Taker) setWaits(w []NodeWait) {
	for _, n := range w {
		if n.Blocked != "" && t.blocked[n.UID] != n.Blocked {
			t.log.Error("this node is not taken over when it is lost", zap.String("node", n.UID), zap.String("because", n.Blocked))
			t.blocked[n.UID] = n.Blocked
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waits = w
}

func (t *Taker) kill(ctx context.Context, n NodeVersion) {
	err := t.a.KillNode(ctx, n, t.o.By)
	switch {
	case err == nil:
		t.log.Warn("a node's lease has run out", zap.String("node", n.UID), zap.String("hostname", n.Hostname),
			zap.Uint64("generation", n.Generation), zap.Uint64("seq", n.Seq))
		if t.o.Killed != nil {
			t.o.Killed(n)
		}
	case fault.Is(err, fault.Conflict): // it renewed in the last moment
	default:
		t.log.Warn("a node whose lease has run out could not be declared dead", zap.String("node", n.UID), zap.Error(err))
	}
}

// free frees what dead nodes hold. It is true when nothing is left to be tried again.
func (t *Taker) free(ctx context.Context, nodes []NodeVersion) bool {
	pending := make([]string, 0)
	for _, n := range nodes {
		if id := leaseID(n); !n.Alive && !t.done[id] {
			pending = append(pending, id)
		}
	}
	if len(pending) == 0 {
		return true
	}
	claims, err := t.a.Claims(ctx)
	if _, err = OnlyBadRecords(err); err != nil {
		return false
	}
	free := freeable(nodes, claims)
	var mu sync.Mutex
	complete := true
	t.parallel(len(free), func(i int) {
		c := free[i]
		next, err := t.a.FreeDead(ctx, c.VolumeUID, c.Epoch, c.Node, c.NodeGeneration)
		if err != nil {
			t.log.Warn("a dead node's claim could not be freed", zap.Stringer("volume", c.Ref), zap.Error(err))
			mu.Lock()
			complete = false
			mu.Unlock()
			return
		}
		if t.o.Freed != nil {
			t.o.Freed(next)
		}
	})
	if complete {
		for _, id := range pending {
			t.done[id] = true
		}
	}
	return complete
}

func leaseID(n NodeVersion) string { return fmt.Sprintf("%s %d", n.UID, n.Generation) }

// parallel calls f(0) to f(n-1), a few at a time, and waits for all.
func (t *Taker) parallel(n int, f func(int)) {
	if t.o.Workers == 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, t.o.Workers)
	for i := range n {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			f(i)
		}()
	}
	wg.Wait()
}

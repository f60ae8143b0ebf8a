// Package nodes is the framework's way to the lease authority. What claims, nodes and requests say comes in as scheduler
// events; the authority calls that the scheduler's Step asks for go out. While it runs it also is the taker: it declares
// nodes dead whose lease has stood still, and frees what they held.
//
// It decides nothing about volumes and keeps nothing: after a restart it reads everything again, and every call may be asked
// for again.
package nodes

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
)

// Config of a Nodes. Emit is needed.
type Config struct {
	// Emit takes the events, in order; it may block. It is called from one goroutine.
	Emit func(scheduler.Event)
	// Timings are the taker's; the zero value means lease.EmbeddedTimings.
	Timings lease.Timings
	Clock   lease.Clock      // of the taker; default lease.Monotonic
	Now     func() time.Time // wall clock, for what is shown; default time.Now
	// MinGrade is the weakest fence grade that policy lease accepts, "reset" (the default) or "soft"; it goes into the claims
	// that are granted.
	MinGrade lease.Grade
	// By names this framework in the records it writes, such as L4.
	By      string
	Workers int // calls at once; default 32
	// Gate, when not nil, is asked before a call is made: with an error it is not, and it is tried again while that is Unavailable or Unknown.
	Gate func(context.Context) error
	Log  *zap.Logger
}

// Nodes is the component. Make it with New.
type Nodes struct {
	a     *lease.Authority
	c     Config
	log   *zap.Logger
	taker *lease.Taker
	calls *callQueue
	out   *eventQueue
	// answers and view are what was reported.
	answers *answers
	view    view
	hold    atomic.Value // string: why the taker does nothing
}

// held says why the taker does nothing; "" when it works.
func (n *Nodes) held() string {
	why, _ := n.hold.Load().(string)
	return why
}

// New checks the timings and returns a Nodes that Run starts.
func New(a *lease.Authority, c Config) (*Nodes, error) {
	if c.Emit == nil {
		return nil, fault.New(fault.Internal, "nodes: Emit is missing")
	}
	if c.Timings == (lease.Timings{}) {
		c.Timings = lease.EmbeddedTimings()
	}
	if c.Clock == nil {
		c.Clock = lease.Monotonic()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MinGrade == "" {
		c.MinGrade = lease.GradeReset
	}
	if c.Workers <= 0 {
		c.Workers = 32
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	n := &Nodes{a: a, c: c, log: c.Log, calls: newCallQueue(), out: newEventQueue(), answers: newAnswers()}
	var err error
	n.taker, err = lease.NewTaker(a, lease.TakerOptions{Timings: c.Timings, Clock: c.Clock, Log: c.Log, By: c.By, Held: n.held})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Run watches and works until ctx ends; then no event comes any more, and calls not yet made are forgotten. It begins
// every wait of the taker afresh, so run it only while leader. It runs once.
func (n *Nodes) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	parts := []func(context.Context){n.observe, func(ctx context.Context) { _ = n.taker.Run(ctx) },
		func(ctx context.Context) { n.out.deliver(ctx, n.c.Emit) }}
	for range n.c.Workers {
		parts = append(parts, n.work)
	}
	for _, part := range parts {
		wg.Add(1)
		go func() { defer wg.Done(); part(ctx) }()
	}
	wg.Wait()
	return nil
}

// Do takes a call that Step asked for and that is committed. It never blocks: the call is made soon, after earlier ones on the same
// volume, and again until its outcome is known. A call that is waiting already is not added twice. false: it is no call
// to the authority.
func (n *Nodes) Do(c scheduler.Call) bool {
	if h, ok := c.(scheduler.HoldTaker); ok {
		n.hold.Store(h.Reason)
		return true
	}
	key, volume, ok := identify(c)
	if ok {
		n.calls.add(volume, key, c)
	}
	return ok
}

// eventQueue holds events until Emit takes them, so that nobody who reports one waits for the loop.
type eventQueue struct {
	mu     sync.Mutex
	events []scheduler.Event
	more   chan struct{}
}

func newEventQueue() *eventQueue { return &eventQueue{more: make(chan struct{}, 1)} }

func (q *eventQueue) add(e scheduler.Event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *eventQueue) deliver(ctx context.Context, emit func(scheduler.Event)) {
	for {
		q.mu.Lock()
		events := q.events
		q.events = nil
		q.mu.Unlock()
		for _, e := range events {
			if ctx.Err() != nil {
				return
			}
			emit(e)
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			return
		}
	}
}

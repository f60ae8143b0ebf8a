package framework

import (
	"context"
	"sync/atomic"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// order is a command with somebody waiting for its answer. It is either taken by the loop or given up by the waiter, never both:
// that is what makes "nothing was done" a certain answer. A nil order is one that nobody waits for.
type order struct {
	state  atomic.Int32 // 0 waiting, 1 taken, 2 given up
	result chan answer
}

type answer struct {
	reply scheduler.Reply
	err   error
}

func newOrder() *order { return &order{result: make(chan answer, 1)} }

func (o *order) take() bool   { return o != nil && o.state.CompareAndSwap(0, 1) }
func (o *order) giveUp() bool { return o.state.CompareAndSwap(0, 2) }

// answer gives the answer to whoever waits; the first one counts.
func (o *order) answer(r scheduler.Reply, err error) {
	if o == nil {
		return
	}
	select {
	case o.result <- answer{r, err}:
	default:
	}
}

// Do implements Core.
func (f *Framework) Do(ctx context.Context, command scheduler.Event) (scheduler.Reply, error) {
	f.mu.RLock()
	t, why := f.term, f.why
	f.mu.RUnlock()
	if t == nil {
		return scheduler.Reply{}, fault.New(fault.Unavailable, "the framework takes no commands now: %s", why)
	}
	o := newOrder()
	select {
	case t.in <- input{event: command, order: o}:
	case <-ctx.Done():
		return scheduler.Reply{}, fault.Wrap(fault.Unavailable, ctx.Err(), "the command was not taken; nothing was done")
	case <-t.over:
		return scheduler.Reply{}, fault.New(fault.Unavailable, "the framework takes no commands now; nothing was done")
	}
	select {
	case a := <-o.result:
		return a.reply, a.err
	case <-ctx.Done():
		if o.giveUp() {
			return scheduler.Reply{}, fault.Wrap(fault.Unavailable, ctx.Err(), "the command was not taken; nothing was done")
		}
	case <-t.over:
	}
	// Taken, or the term is over: an answer that is there already is better than none.
	select {
	case a := <-o.result:
		return a.reply, a.err
	default:
	}
	if o.giveUp() {
		return scheduler.Reply{}, fault.New(fault.Unavailable, "the framework takes no commands now; nothing was done")
	}
	return scheduler.Reply{}, fault.New(fault.Unknown, "the command is under way; whether it was recorded is not known")
}

package isolator

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// slot is the queue of one volume. Whoever holds the turn may change the volume; all others wait.
type slot struct {
	ref  volume.Ref
	turn chan struct{} // holds one token while nobody has the turn
	// urgent counts those who wait for the turn to stop the volume's users: nobody waits for these to leave by themselves then.
	urgent atomic.Int32

	mu      sync.Mutex
	pending map[string]*operation // by key, waiting ones included
	retry   retryState
}

// operation is one thing that is done to a volume, with all who wait for it.
type operation struct {
	verb string
	done chan struct{}
	out  string
	err  error
}

// retryState tells of a take-down that failed and is repeated.
type retryState struct {
	on       bool
	attempts int
	next     time.Time
	because  string
	wake     chan struct{}
}

func (s *Service) slot(ref volume.Ref) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl, ok := s.slots[ref]
	if !ok {
		sl = &slot{ref: ref, turn: make(chan struct{}, 1), pending: map[string]*operation{}}
		sl.turn <- struct{}{}
		s.slots[ref] = sl
	}
	return sl
}

// do runs f in the volume's queue and waits for it as long as ctx lives; f itself lives as long as the service. A call with the
// key of one that is under way joins it and gets its result. An empty key never joins.
func (s *Service) do(ctx context.Context, ref volume.Ref, verb, key string, f func(ctx context.Context) (string, error)) (string, error) {
	if key == "" {
		key = verb + " " + s.o.NewNonce()
	}
	sl := s.slot(ref)
	sl.mu.Lock()
	op, ok := sl.pending[key]
	if !ok {
		op = &operation{verb: verb, done: make(chan struct{})}
		if !s.spawn(func() { s.perform(sl, key, op, f) }) {
			sl.mu.Unlock()
			return "", fault.New(fault.Unavailable, "the isolator is stopping")
		}
		sl.pending[key] = op
	}
	sl.mu.Unlock()
	select {
	case <-op.done:
		return op.out, op.err
	case <-ctx.Done():
		return "", fault.New(fault.Unknown, "%s of volume %s goes on without its caller", verb, ref)
	}
}

// doUrgently is do for what stops the volume's users.
func (s *Service) doUrgently(ctx context.Context, ref volume.Ref, verb, key string, f func(ctx context.Context) (string, error)) (string, error) {
	sl := s.slot(ref)
	sl.urgent.Add(1)
	defer sl.urgent.Add(-1)
	return s.do(ctx, ref, verb, key, f)
}

func (s *Service) perform(sl *slot, key string, op *operation, f func(ctx context.Context) (string, error)) {
	defer close(op.done)
	defer func() {
		sl.mu.Lock()
		delete(sl.pending, key)
		sl.mu.Unlock()
	}()
	select {
	case <-sl.turn:
	case <-s.life.Done():
		op.err = fault.New(fault.Unavailable, "the isolator is stopping")
		return
	}
	defer func() { sl.turn <- struct{}{} }()
	op.out, op.err = f(s.life)
}

func (sl *slot) doing() []string {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	var out []string
	for _, op := range sl.pending {
		out = append(out, op.verb)
	}
	return out
}

func (sl *slot) retrying() retryState {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.retry
}

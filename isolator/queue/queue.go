// Package queue has one queue for each volume: operations on one run one after another, on different ones side by side, and one
// that hangs blocks nobody else. An operation goes on when its caller is gone, and the same request again joins it.
package queue

import (
	"context"
	"sort"
	"strconv"
	"sync"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// Operation is what is done in a volume's queue. Its context lives as long as the Queues.
type Operation func(ctx context.Context) (string, error)

// Queues are the queues of all volumes. Make them with New.
type Queues struct {
	life context.Context

	mu     sync.Mutex
	slots  map[volume.Ref]*slot
	count  uint64
	closed bool
	wg     sync.WaitGroup
}

// slot is the queue of one volume. Whoever holds the turn may change the volume; all others wait.
type slot struct {
	turn    chan struct{}       // holds one token while nobody has the turn
	pending map[string]*pending // by key, waiting ones included
	urgent  int
}

// pending is an operation with all who wait for it.
type pending struct {
	verb string
	done chan struct{}
	out  string
	err  error
}

// New returns queues whose operations live as long as life.
func New(life context.Context) *Queues {
	return &Queues{life: life, slots: map[volume.Ref]*slot{}}
}

// Do runs f in the volume's queue and waits for it as long as ctx lives; f itself lives on. A call with the key of one
// that is under way joins it and gets its result; an empty key never joins. The error is Unknown when ctx ended first, and Unavailable
// when the queues are closed.
func (q *Queues) Do(ctx context.Context, ref volume.Ref, verb, key string, f Operation) (string, error) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return "", fault.New(fault.Unavailable, "the isolator is stopping")
	}
	sl := q.slot(ref)
	if key == "" {
		q.count++
		key = verb + "\x00" + strconv.FormatUint(q.count, 10)
	}
	p, ok := sl.pending[key]
	if !ok {
		p = &pending{verb: verb, done: make(chan struct{})}
		sl.pending[key] = p
		q.wg.Add(1)
		go q.perform(sl, key, p, f)
	}
	q.mu.Unlock()
	select {
	case <-p.done:
		return p.out, p.err
	case <-ctx.Done():
		return "", fault.New(fault.Unknown, "%s of volume %s goes on without its caller", verb, ref)
	}
}

// DoUrgently is Do for what stops the volume's users. While it waits, Urgent tells those who wait for the users to leave by themselves.
func (q *Queues) DoUrgently(ctx context.Context, ref volume.Ref, verb, key string, f Operation) (string, error) {
	q.hurry(ref, 1)
	defer q.hurry(ref, -1)
	return q.Do(ctx, ref, verb, key, f)
}

func (q *Queues) hurry(ref volume.Ref, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slot(ref).urgent += n
}

// Urgent tells whether somebody waits for the turn, or has it, to stop the volume's users.
func (q *Queues) Urgent(ref volume.Ref) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.slot(ref).urgent > 0
}

// Doing names the operations under way and waiting, sorted.
func (q *Queues) Doing(ref volume.Ref) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	sl, ok := q.slots[ref]
	if !ok {
		return nil
	}
	var out []string
	for _, p := range sl.pending {
		out = append(out, p.verb)
	}
	sort.Strings(out)
	return out
}

// Close begins no operation any more and waits for those under way; the context they live in must have ended.
func (q *Queues) Close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wg.Wait()
}

// slot gives a volume's queue. mu is held.
func (q *Queues) slot(ref volume.Ref) *slot {
	sl, ok := q.slots[ref]
	if !ok {
		sl = &slot{turn: make(chan struct{}, 1), pending: map[string]*pending{}}
		sl.turn <- struct{}{}
		q.slots[ref] = sl
	}
	return sl
}

func (q *Queues) perform(sl *slot, key string, p *pending, f Operation) {
	defer q.wg.Done()
	defer close(p.done)
	defer func() {
		q.mu.Lock()
		delete(sl.pending, key)
		q.mu.Unlock()
	}()
	select {
	case <-sl.turn:
	case <-q.life.Done():
		p.err = fault.New(fault.Unavailable, "the isolator is stopping")
		return
	}
	defer func() { sl.turn <- struct{}{} }()
	p.out, p.err = f(q.life)
}

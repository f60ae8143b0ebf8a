package operation

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// Operator begins operations, and goes on with those that an earlier process left. Its methods may be called concurrently.
type Operator struct {
	o    Options
	book *book

	mu      sync.Mutex
	life    context.Context
	end     context.CancelFunc
	runs    map[string]*running // by operation id
	byKey   map[string]string   // the words of those under way -> id
	wg      sync.WaitGroup
	closing bool
}

// running is an operation under way in this process.
type running struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Open reads the operations of o.Dir. Nothing is done before Resume.
func Open(o Options) (*Operator, error) {
	b, err := openBook(o.Dir)
	if err != nil {
		return nil, err
	}
	if o.RetryMin <= 0 {
		o.RetryMin = time.Second
	}
	if o.RetryMax < o.RetryMin {
		o.RetryMax = max(time.Minute, o.RetryMin)
	}
	if o.Log == nil {
		o.Log = func(string, client.Operation, error) {}
	}
	if o.Crash == nil {
		o.Crash = func(string) {}
	}
	p := &Operator{o: o, book: b, runs: map[string]*running{}, byKey: map[string]string{}}
	p.life, p.end = context.WithCancel(context.Background())
	return p, nil
}

// Damaged names records that cannot be read. They are kept as they are.
func (p *Operator) Damaged() []string { return p.book.bad }

// Repositories names the repositories that this node can reach.
func (p *Operator) Repositories() []string {
	if p.o.Repositories == nil {
		return nil
	}
	return p.o.Repositories.Names()
}

// Resume goes on with what an earlier process left under way.
func (p *Operator) Resume() {
	p.book.prune(p.o.Now())
	for _, o := range p.book.list() {
		if !o.Over() {
			p.o.Log("going on with an operation", o, nil)
			p.start(o)
		}
	}
}

// Close ends what is under way, which the next start goes on with, and waits for it.
func (p *Operator) Close() {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	p.end()
	p.wg.Wait()
}

// Begin checks a request, records it and starts it. One with an id that is known is joined, and so is one of the same words that is under way. What
// only asks is answered at once and not recorded.
func (p *Operator) Begin(ctx context.Context, r client.OperationRequest) (client.Operation, error) {
	if err := Check(r); err != nil {
		return client.Operation{}, err
	}
	if Asks(r.Kind) {
		return p.ask(ctx, r)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return client.Operation{}, fault.New(fault.Unavailable, "the isolator is stopping")
	}
	if known, joined, err := p.join(r); joined || err != nil {
		return known, err
	}
	o := client.Operation{ID: r.ID, Request: r, State: client.OperationRunning, Created: p.o.Now().UTC()}
	if o.ID == "" {
		o.ID = p.o.NewID()
		o.Request.ID = o.ID
	}
	if t := r.Target; t != nil {
		copied := *t
		o.Request.Target = &copied
	}
	if err := p.book.put(o); err != nil {
		return client.Operation{}, err
	}
	p.o.Crash("operation.recorded")
	p.startLocked(o)
	return o, nil
}

// join finds the operation that a request means already. mu is held.
func (p *Operator) join(r client.OperationRequest) (client.Operation, bool, error) {
	id := r.ID
	if id == "" {
		id = p.byKey[key(r)]
	}
	known, ok := p.book.get(id)
	if !ok {
		return known, false, nil
	}
	if known.Request.Kind != r.Kind || known.Request.Driver != r.Driver || known.Request.Name != r.Name || known.Request.Snapshot != r.Snapshot {
		return known, false, fault.New(fault.Conflict, "operation %s is another one: %s of volume %s/%s", id, known.Request.Kind, known.Request.Driver, known.Request.Name)
	}
	return known, true, nil
}

// ask answers what only asks.
func (p *Operator) ask(ctx context.Context, r client.OperationRequest) (client.Operation, error) {
	o := client.Operation{ID: r.ID, Request: r, State: client.OperationDone, Created: p.o.Now().UTC()}
	result, err := p.answer(ctx, r)
	o.Result, o.Ended = result, p.o.Now().UTC()
	return o, err
}

func (p *Operator) start(o client.Operation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing && p.runs[o.ID] == nil {
		p.startLocked(o)
	}
}

func (p *Operator) startLocked(o client.Operation) {
	ctx, cancel := context.WithCancel(p.life)
	run := &running{cancel: cancel, done: make(chan struct{})}
	p.runs[o.ID] = run
	words := key(o.Request)
	p.byKey[words] = o.ID
	if o.Cancelled {
		cancel()
	}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer cancel()
		p.run(ctx, o)
		p.mu.Lock()
		delete(p.runs, o.ID)
		if p.byKey[words] == o.ID {
			delete(p.byKey, words)
		}
		p.mu.Unlock()
		close(run.done)
	}()
}

// run does an operation until its outcome is known and recorded.
func (p *Operator) run(ctx context.Context, o client.Operation) {
	j := &job{p: p, op: o}
	pause := p.o.RetryMin
	for {
		result, err := j.perform(ctx)
		switch {
		case p.life.Err() != nil:
			return // it goes on at the next start
		case err != nil && j.cancelled():
			err = fault.New(fault.Conflict, "%s was cancelled", j.op.Request.Kind)
		case fault.Is(err, fault.Unknown):
			j.edit(func(o *client.Operation) { o.Because = err.Error() })
			p.o.Log("an operation is repeated", j.op, err)
			if wait(ctx, pause) {
				pause = min(2*pause, p.o.RetryMax)
			}
			continue
		}
		if j.finish(result, err) {
			return
		}
		if !wait(p.life, pause) {
			return
		}
	}
}

// wait tells whether ctx still lives after d.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Operation gives one, NotFound when it is not known. With a limit it waits so long for its end.
func (p *Operator) Operation(ctx context.Context, id string, limit time.Duration) (client.Operation, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		o, ok := p.book.get(id)
		if !ok {
			return o, fault.New(fault.NotFound, "operation %.80q is not known here; it may have ended more than a day ago", id)
		}
		p.mu.Lock()
		run := p.runs[id]
		p.mu.Unlock()
		if o.Over() || ctx.Err() != nil {
			return o, nil
		}
		if run == nil { // after a start, until Resume
			wait(ctx, 20*time.Millisecond)
			continue
		}
		select {
		case <-run.done:
		case <-ctx.Done():
		}
	}
}

// List gives all that are known, newest first.
func (p *Operator) List() []client.Operation { return p.book.list() }

// Doing names the kinds of the operations under way for a volume.
func (p *Operator) Doing(ref volume.Ref) []string {
	var out []string
	for _, o := range p.book.list() {
		r := o.Request
		if !o.Over() && r.Driver == ref.Driver && (r.Name == ref.Name || r.Target != nil && r.Target.Name == ref.Name) {
			out = append(out, r.Kind)
		}
	}
	return out
}

// Cancel ends an operation early. That it is wanted is durable first.
func (p *Operator) Cancel(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.book.get(id)
	if !ok {
		return fault.New(fault.NotFound, "operation %.80q is not known here", id)
	}
	if o.Over() {
		return nil
	}
	o.Cancelled = true
	if err := p.book.put(o); err != nil {
		return err
	}
	if run := p.runs[id]; run != nil {
		run.cancel()
	}
	return nil
}

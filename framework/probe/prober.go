package probe

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Options of a Prober. Report is needed.
type Options struct {
	// Limit bounds how many probes are under way. Default 512.
	Limit int
	// MinInterval is the shortest time between two probes of a check, whatever it says. Default 1 s, as in Marathon, which knows no fractions.
	MinInterval time.Duration
	// Report takes what changes a decision, one after the other, from a goroutine of its own: it may block.
	Report func(scheduler.Health)
	// Failed is told of every failure that counts; it must not block. May be nil.
	Failed func(Failure)
}

// Failure is one failed health check.
type Failure struct {
	App      state.AppID
	Instance state.InstanceID
	Task     state.TaskID
	Version  string
	Index    int
	Cause    string
}

// Prober runs checks. Watch and the readers may be called from any goroutine.
type Prober struct {
	o     Options
	asker *asker
	slots chan struct{}

	mu    sync.Mutex
	runs  map[state.TaskID]*run
	by    map[state.InstanceID]*run
	queue queue
	wake  chan struct{} // of the dispatcher
	dirty []*run
	tell  chan struct{} // of the reporter
}

// run is one run of an instance with its checks.
type run struct {
	app      state.AppID
	instance state.InstanceID
	task     state.TaskID
	version  string
	checks   []*check
	over     bool // it is not to be probed any more

	// What the scheduler knows, as far as was seen.
	healthy *bool
	ready   bool
	kill    string // to be reported
	queued  bool
}

// check is a Check at work.
type check struct {
	Check
	run    *run
	due    time.Time
	at     int // in the queue, -1 for not there
	health Health
	ready  Readiness
}

// minTimeout is the shortest time that a probe may take, whatever its check says.
const minTimeout = 100 * time.Millisecond

// New makes a prober; Run does the work.
func New(o Options) *Prober {
	if o.Limit <= 0 {
		o.Limit = 512
	}
	if o.MinInterval <= 0 {
		o.MinInterval = time.Second
	}
	return &Prober{o: o, asker: newAsker(), slots: make(chan struct{}, o.Limit), runs: map[state.TaskID]*run{}, by: map[state.InstanceID]*run{},
		wake: make(chan struct{}, 1), tell: make(chan struct{}, 1)}
}

// Watch tells of an instance as it is now, with the definition of its run; a nil definition means that it has nothing to be checked. What is
// known of a run is kept while the run is the same.
func (p *Prober) Watch(i *state.Instance, d *state.Def) {
	checks := ChecksOf(i, d)
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.by[i.ID]
	if r != nil && (i.Run == nil || i.Run.Task != r.task) {
		p.forget(r)
		r = nil
	}
	switch {
	case len(checks) == 0:
		if r != nil {
			p.rest(r)
		}
		return
	case r == nil:
		r = &run{app: i.App, instance: i.ID, task: i.Run.Task, version: i.Run.Version}
		for _, c := range checks {
			c.Interval, c.Timeout = max(c.Interval, p.o.MinInterval), max(c.Timeout, minTimeout)
			r.checks = append(r.checks, &check{Check: c, run: r, at: -1, health: Health{Index: c.Index, Instance: i.ID}, ready: Readiness{Name: c.Name, Task: i.Run.Task, Ready: c.Ready && i.Run.Ready}})
		}
		p.runs[r.task], p.by[r.instance] = r, r
	}
	native, _ := d.Spec.Checks()
	r.healthy, r.ready, r.over = i.Run.Healthy, i.Run.Ready, false
	if native {
		r.healthy = i.Run.Probed
	}
	now := time.Now()
	for n, c := range r.checks {
		c.Address, c.Missing = checks[n].Address, checks[n].Missing // a container's address may come late
		if c.at < 0 && c.due.IsZero() && !(c.Ready && r.ready) {
			c.due = now.Add(rand.N(p.o.MinInterval))
			heap.Push(&p.queue, c)
		}
	}
	poke(p.wake)
}

// Forget tells that an instance is no more.
func (p *Prober) Forget(id state.InstanceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.by[id]; r != nil {
		p.forget(r)
	}
}

// Only forgets all instances but these.
func (p *Prober) Only(ids map[state.InstanceID]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, r := range p.by {
		if !ids[id] {
			p.forget(r)
		}
	}
}

func (p *Prober) forget(r *run) {
	p.rest(r)
	delete(p.runs, r.task)
	delete(p.by, r.instance)
}

// rest stops probing a run; p.mu is held. A probe that is under way finds out when it is back.
func (p *Prober) rest(r *run) {
	r.over = true
	for _, c := range r.checks {
		if c.at >= 0 {
			heap.Remove(&p.queue, c.at)
			c.due = time.Time{}
		}
	}
}

// Run probes until ctx ends, and returns when all probes are back.
func (p *Prober) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Add(1)
	go func() {
		defer wg.Done()
		p.report(ctx)
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c, wait := p.next(time.Now())
		if c == nil {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-p.wake:
			case <-timer.C:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case p.slots <- struct{}{}:
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-p.slots }()
			p.probe(ctx, c)
		}()
	}
}

// next takes the check that is due, or says how long to wait for one.
func (p *Prober) next(now time.Time) (*check, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, time.Minute
	}
	if wait := p.queue[0].due.Sub(now); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&p.queue).(*check), 0
}

// probe asks once, and notes what came of it.
func (p *Prober) probe(ctx context.Context, c *check) {
	began := time.Now()
	p.mu.Lock()
	ask := c.Check
	p.mu.Unlock()
	a := p.asker.ask(ctx, &ask)
	if ctx.Err() != nil {
		return // it was ended, not answered
	}
	p.mu.Lock()
	r := c.run
	if r.over {
		c.due = time.Time{}
		p.mu.Unlock()
		return
	}
	failed := p.note(c, a, time.Now())
	if !(c.Ready && c.ready.Ready && r.ready) {
		// A tenth more or less, so that checks of one start do not stay together for ever.
		c.due = began.Add(c.Interval*9/10 + rand.N(c.Interval/5+1))
		heap.Push(&p.queue, c)
	} else {
		c.due = time.Time{}
	}
	p.mu.Unlock()
	poke(p.wake)
	if failed && p.o.Failed != nil {
		p.o.Failed(Failure{App: r.app, Instance: r.instance, Task: r.task, Version: r.version, Index: c.Index, Cause: a.cause})
	}
}

// note keeps an answer and sees whether there is something to report; p.mu is held.
func (p *Prober) note(c *check, a answer, now time.Time) (failed bool) {
	r, over := c.run, false
	if c.Ready {
		c.ready.Ready = c.ready.Ready || a.ok
		c.ready.Last, c.ready.Cause = a.last, ""
		if !a.ok {
			c.ready.Cause = a.cause
		}
	} else {
		failed, over = c.health.note(&c.Check, a, now)
	}
	if over {
		r.kill = givenUp(&c.Check, &c.health)
	}
	if !r.queued && (over || !same(together(r.checks), r.healthy) || r.readyNow() != r.ready) {
		r.queued = true
		p.dirty = append(p.dirty, r)
		poke(p.tell)
	}
	return failed
}

// readyNow tells whether all readiness checks of a run have passed; a run without any is not told of.
func (r *run) readyNow() bool {
	some := r.ready
	for _, c := range r.checks {
		if c.Ready && !c.ready.Ready {
			return r.ready
		}
		some = some || c.Ready
	}
	return some
}

// same compares what the checks say with what the scheduler knows; checks that do not know yet say nothing.
func same(now, known *bool) bool {
	return now == nil || known != nil && *known == *now
}

// report tells what there is to tell, one run at a time, the newest it is.
func (p *Prober) report(ctx context.Context) {
	for {
		e, ok := p.nextReport()
		if ok {
			p.o.Report(e)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-p.tell:
		}
	}
}

func (p *Prober) nextReport() (scheduler.Health, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.dirty) > 0 {
		r := p.dirty[0]
		p.dirty = p.dirty[1:]
		r.queued = false
		e := scheduler.Health{Task: r.task, Kill: r.kill}
		if h := together(r.checks); !same(h, r.healthy) {
			e.Healthy, r.healthy = h, h
		}
		if r.readyNow() && !r.ready {
			e.Ready, r.ready = true, true
		}
		r.kill = ""
		if !r.over && (e.Healthy != nil || e.Ready || e.Kill != "") {
			return e, true
		}
	}
	p.dirty = nil
	return scheduler.Health{}, false
}

// Results gives what the checks of a task found so far; nil slices for a task that has none.
func (p *Prober) Results(task state.TaskID) (health []Health, ready []Readiness) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.runs[task]
	if r == nil {
		return nil, nil
	}
	for _, c := range r.checks {
		if c.Ready {
			ready = append(ready, c.ready)
		} else {
			health = append(health, c.health)
		}
	}
	return health, ready
}

// poke wakes whoever waits on c; one who is awake already looks again.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// queue is a heap of checks by the time they are due.
type queue []*check

func (q queue) Len() int           { return len(q) }
func (q queue) Less(a, b int) bool { return q[a].due.Before(q[b].due) }
func (q queue) Swap(a, b int) {
	q[a], q[b] = q[b], q[a]
	q[a].at, q[b].at = a, b
}

func (q *queue) Push(v any) {
	c := v.(*check)
	c.at = len(*q)
	*q = append(*q, c)
}

func (q *queue) Pop() any {
	old := *q
	n := len(old) - 1
	c := old[n]
	old[n] = nil
	*q = old[:n]
	c.at = -1
	return c
}

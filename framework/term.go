package framework

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// term is one time of leadership: from the loading of the state to the first commit that fails. Everything that was seen but not
// stored (offers, claims, sessions) lives and ends with it. Its fields belong to the loop's goroutine, but for in, ctx and over.
type term struct {
	f      *Framework
	ctx    context.Context
	cancel context.CancelFunc
	in     chan input
	over   chan struct{} // closed when no input will be answered any more

	st    *state.State // ahead of Framework.view by what is not committed yet
	guard *guard
	nodes Nodes

	batch     store.Batch
	pending   []planned // what waits for the commit of batch
	committed bool

	wake   time.Time // the earliest Wake asked for since the last Tick
	ticked time.Time
}

// input is an event on its way to the loop; order is nil unless somebody waits for the answer.
type input struct {
	event scheduler.Event
	order *order
}

// planned is a plan that was applied and waits for its commit.
type planned struct {
	event scheduler.Event
	plan  scheduler.Plan
	order *order
}

// lead takes the leadership, loads the state and runs the loop until a commit fails or parent ends. committed says that at least
// one commit of the loop was done: the store works, by and large.
func (f *Framework) lead(parent context.Context) (committed bool, err error) {
	if err := f.c.Store.Lead(parent); err != nil {
		return false, err
	}
	writes, bad, err := f.c.Store.Load(parent)
	if err != nil {
		return false, err
	}
	for _, b := range bad {
		f.log.Error("record cannot be read: it is kept as it is, and what it is about is left alone", zap.String("key", b.Key), zap.Error(b.Err))
	}
	writes = append(writes, unreadableHold(bad)...)
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	t := &term{f: f, ctx: ctx, cancel: cancel, in: make(chan input, 1024), over: make(chan struct{}), st: state.New()}
	defer close(t.over)
	t.guard = newGuard(writes, bad)
	t.st.Apply(t.guard.admit(writes))
	if err := t.mint(len(writes) + len(bad)); err != nil {
		return false, err
	}
	view := state.New()
	view.Apply(t.guard.admit(writes))
	if view.Framework == nil {
		view.Framework = t.st.Framework
	}
	f.enter(t, view)
	f.log.Info("state loaded", zap.String("store", f.c.Store.Name()), zap.String("cluster", f.c.Store.Cluster()),
		zap.Int("apps", len(view.Apps)), zap.Int("instances", len(view.Instances)), zap.Int("volumes", len(view.Volumes)))
	err = t.run()
	return t.committed, err
}

// unreadableHold freezes where the record that says whether the cluster is frozen cannot be read. It is not stored: a thaw replaces the record.
func unreadableHold(bad []store.Bad) []state.Write {
	for _, b := range bad {
		if strings.HasSuffix(b.Key, "/v1/meta/hold") {
			return []state.Write{{Kind: state.KindHold, Value: &state.Hold{Freeze: &state.Freeze{Reason: "record " + b.Key + " cannot be read, so it may say that the cluster is frozen"}}}}
		}
	}
	return nil
}

// mint writes the framework record of a new cluster. It is the first record of all: where it is missing among others it was lost, and
// a framework without its id would register as a new one and leave its tasks behind.
func (t *term) mint(others int) error {
	if t.st.Framework != nil {
		return nil
	}
	if others > 0 {
		return fault.New(fault.Internal, "%s has %d records, but %smeta/framework is missing: restore it from a backup", t.f.c.Store.Name(), others, store.Prefix(t.f.c.Store.Cluster()))
	}
	w := []state.Write{{Kind: state.KindFramework, Value: &state.Framework{Cluster: t.f.c.Store.Cluster(), Rev: 1}}}
	ops, err := t.f.c.Store.Encode(w)
	if err != nil {
		return err
	}
	t.batch.Add(ops)
	if err := t.f.c.Store.Commit(t.ctx, &t.batch); err != nil {
		return err
	}
	t.batch.Reset()
	t.st.Apply(w)
	return nil
}

// run is the loop with the two that feed it. It returns the error that ended it, or nil when the context did.
func (t *term) run() error {
	var err error
	if t.nodes, err = t.f.c.Nodes(t.emit); err != nil {
		return err
	}
	// Loaded is committed before anybody else says anything.
	if err = t.take([]input{{event: scheduler.Loaded{}}}); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Add(3)
	go func() {
		defer wg.Done()
		t.probe()
	}()
	go func() {
		defer wg.Done()
		t.registered()
	}()
	nodesErr := make(chan error, 1)
	go func() {
		defer wg.Done()
		if err := t.nodes.Run(t.ctx); err != nil && t.ctx.Err() == nil {
			nodesErr <- err
			t.cancel()
		}
	}()
	err = t.loop()
	t.cancel()
	wg.Wait()
	select {
	case nerr := <-nodesErr:
		if err == nil {
			err = fault.Op(nerr, "lease authority")
		}
	default:
	}
	t.abandon(err)
	return err
}

// emit gives an event to the loop; it waits while the loop is busy and gives up when the term ends.
func (t *term) emit(e scheduler.Event) {
	select {
	case t.in <- input{event: e}:
	case <-t.ctx.Done():
	}
}

// loop takes what comes, a batch at a time, until the context ends or a commit fails.
func (t *term) loop() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	batch := make([]input, 0, t.f.c.MaxBatch)
	for {
		batch = batch[:0]
		timer.Reset(t.untilTick())
		select {
		case <-t.ctx.Done():
			return nil
		case in := <-t.in:
			batch = append(batch, in)
		case <-timer.C:
			batch = append(batch, input{event: scheduler.Tick{}})
		}
	drain:
		for len(batch) < t.f.c.MaxBatch {
			select {
			case in := <-t.in:
				batch = append(batch, in)
			default:
				break drain
			}
		}
		if t.untilTick() <= 0 { // a stream of events must not starve time
			if _, ok := batch[0].event.(scheduler.Tick); !ok {
				batch = append(batch, input{event: scheduler.Tick{}})
			}
		}
		if err := t.take(batch); err != nil {
			return err
		}
	}
}

// untilTick is how long from now the next Tick is due. Two Ticks are at least some milliseconds apart, so that a Wake in the past
// cannot make the loop spin.
func (t *term) untilTick() time.Duration {
	due := t.ticked.Add(t.f.c.TickEvery)
	if !t.wake.IsZero() && t.wake.Before(due) {
		due = t.wake
	}
	if soonest := t.ticked.Add(5 * time.Millisecond); due.Before(soonest) {
		due = soonest
	}
	return due.Sub(t.f.c.Now())
}

// take steps through a batch of events, commits once (or where the back end's limits force a cut between two events, more
// often), and lets calls and answers out after their commit.
func (t *term) take(batch []input) error {
	began := time.Now()
	for _, in := range batch {
		if in.order != nil && !in.order.take() {
			continue // whoever asked has gone, and nothing was done
		}
		if err := t.step(in); err != nil {
			return err
		}
	}
	err := t.flush()
	t.f.c.Metrics.batch(len(batch), time.Since(began))
	return err
}

// step plans one event and applies the plan to the loop's own state.
func (t *term) step(in input) error {
	f := t.f
	f.c.Store.Alive()
	now := f.c.Now()
	if _, ok := in.event.(scheduler.Tick); ok {
		t.ticked, t.wake = now, time.Time{}
	}
	if err := t.guard.refuses(in.event); err != nil {
		in.order.answer(scheduler.Reply{}, err)
		return nil
	}
	plan, err := t.plan(in.event, now)
	if err != nil {
		in.order.answer(scheduler.Reply{}, err)
		if _, first := in.event.(scheduler.Loaded); first {
			return err // what a crash left half done was not looked at: nothing may be decided
		}
		return nil
	}
	f.c.Metrics.event(in.event)
	if !plan.Wake.IsZero() && (t.wake.IsZero() || plan.Wake.Before(t.wake)) {
		t.wake = plan.Wake
	}
	t.guard.strip(&plan)
	ops, err := f.c.Store.Encode(plan.Writes)
	if err == nil && !new(store.Batch).Room(ops, f.c.Store.Limits()) {
		err = fault.New(fault.Internal, "the change of %d records is larger than %s takes at once", len(ops), f.c.Store.Name())
	}
	if err != nil {
		// The plan is whole or nothing, and it can never be committed: forget it.
		f.log.Error("plan refused", zap.String("event", eventName(in.event)), zap.Error(err))
		in.order.answer(scheduler.Reply{}, err)
		return nil
	}
	if !t.batch.Room(ops, f.c.Store.Limits()) {
		if err := t.flush(); err != nil {
			in.order.answer(scheduler.Reply{}, notCommitted(err, false))
			return err
		}
	}
	t.batch.Add(ops)
	t.st.Apply(plan.Writes)
	t.pending = append(t.pending, planned{event: in.event, plan: plan, order: in.order})
	return nil
}

// plan calls Step. A panic in it is a bug, but not the end: Step only reads the state, so that nothing is half done, and one
// event that it cannot bear must not keep all others waiting for ever.
func (t *term) plan(e scheduler.Event, now time.Time) (p scheduler.Plan, err error) {
	f := t.f
	defer func() {
		if r := recover(); r != nil {
			f.log.Error("the scheduler has failed on an event, which is forgotten: please report this", zap.String("event", eventName(e)),
				zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
			err = fault.New(fault.Internal, "the scheduler has failed on %s: %v", eventName(e), r)
		}
	}()
	return f.c.Step(t.st, e, scheduler.Env{Now: now, Entropy: f.c.Entropy(), Config: f.c.Scheduler}), nil
}

// flush commits what is pending, shows it to readers, and lets calls and answers out.
func (t *term) flush() error {
	if len(t.pending) == 0 {
		return nil
	}
	f := t.f
	if t.batch.Writes() > 0 {
		// A stop must not tear a commit that is under way: it is bounded by time alone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), f.c.CommitLimit)
		began := time.Now()
		err := f.c.Store.Commit(ctx, &t.batch)
		cancel()
		f.c.Metrics.commit(time.Since(began), err)
		if err != nil {
			for _, p := range t.pending {
				p.order.answer(scheduler.Reply{}, notCommitted(err, true))
			}
			t.pending = nil
			return err
		}
		t.committed = true
		t.batch.Reset()
	}
	f.publish(t.pending)
	unsure := t.confirm()
	for _, p := range t.pending {
		for _, call := range p.plan.Calls {
			if unsure == nil {
				t.do(call)
			}
		}
	}
	for _, p := range t.pending {
		if p.order == nil {
			continue
		}
		if p.plan.Reply == nil {
			p.order.answer(scheduler.Reply{}, fault.New(fault.Internal, "the scheduler has no answer to this command"))
			continue
		}
		p.order.answer(*p.plan.Reply, p.plan.Reply.Err)
	}
	clear(t.pending)
	t.pending = t.pending[:0]
	return unsure
}

// confirm makes sure, where calls are to be made, that no other process leads by now. A leader that was stopped after a commit and goes on when
// another leads makes none: whoever leads finds the intents in the state.
func (t *term) confirm() error {
	for _, p := range t.pending {
		if len(p.plan.Calls) > 0 {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), t.f.c.CommitLimit)
			defer cancel()
			return fault.Op(t.f.c.Store.Confirm(ctx), "calls were not made")
		}
	}
	return nil
}

func (t *term) do(call scheduler.Call) {
	if !t.f.c.Master.Do(call) && !t.nodes.Do(call) {
		t.f.log.Error("nobody takes this call", zap.String("type", fmt.Sprintf("%T", call)))
	}
}

// abandon answers the orders that the loop never reached.
func (t *term) abandon(why error) {
	for _, p := range t.pending {
		p.order.answer(scheduler.Reply{}, notCommitted(why, true))
	}
	for {
		select {
		case in := <-t.in:
			if in.order.take() {
				in.order.answer(scheduler.Reply{}, notCommitted(why, false))
			}
		default:
			return
		}
	}
}

// notCommitted is the answer to a command whose commit failed, or was not reached.
func notCommitted(err error, tried bool) error {
	if tried && fault.Is(err, fault.Unknown) {
		return fault.Wrap(fault.Unknown, err, "the command may or may not have been recorded")
	}
	if err == nil {
		return fault.New(fault.Unavailable, "the framework is stopping; nothing was done")
	}
	return fault.Wrap(fault.Unavailable, err, "the command was not recorded")
}

// enter makes t the term that serves, with view as what is committed.
func (f *Framework) enter(t *term, view *state.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.term, f.why, f.view = t, "", view
	for id, i := range view.Instances {
		if i.Run != nil {
			f.runs[id] = i.Run
		}
	}
}

// resign ends the term for readers: what they see is the last commit, marked as not connected.
func (f *Framework) resign(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.term, f.why = nil, why
	s := f.view.Session
	s.Connected, s.Reconciled, s.AuthoritySeen = false, false, false
	f.view.Apply([]state.Write{{Kind: state.KindSession, Value: &s}})
}

// registered keeps the framework at the master, and when the master has ended it waits for the order to start over.
func (t *term) registered() {
	for t.ctx.Err() == nil {
		if d := t.f.tornDown(); d != nil {
			t.emit(scheduler.Stopped{Over: true, Reason: fmt.Sprintf("the framework was torn down by %s at %s (holdfast start-over registers it as a new one)", cmp.Or(d.By, "somebody"), d.At.UTC().Format(time.RFC3339))})
		} else if err := t.f.c.Master.Run(t.ctx, t.f.frameworkID, t.emit); err != nil {
			t.f.log.Error("the master has ended this framework; it stays up to say so (holdfast start-over registers it as a new one)", zap.Error(err))
		}
		for t.ctx.Err() == nil && (t.f.frameworkID() != "" || t.f.tornDown() != nil) {
			select {
			case <-t.ctx.Done():
			case <-time.After(startOverPoll):
			}
		}
	}
}

// startOverPoll is how often a framework that is over looks for the order to start over.
const startOverPoll = 200 * time.Millisecond

// tornDown gives the confirmed end of the framework, nil while there is none.
func (f *Framework) tornDown() *state.Teardown {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if fw := f.view.Framework; fw != nil && fw.Teardown != nil && fw.Teardown.Done {
		return fw.Teardown
	}
	return nil
}

func (f *Framework) frameworkID() string {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.view.Framework == nil {
		return ""
	}
	return f.view.Framework.ID
}

package framework

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Step is the type of scheduler.Step.
type Step func(*state.State, scheduler.Event, scheduler.Env) scheduler.Plan

// Master is the way to the Mesos master; mesos.Client is the real one.
type Master interface {
	// Run keeps the framework subscribed until ctx ends, giving events to emit in order, and none after it has returned. frameworkID is
	// asked before each attempt. An error means that it gave up for good; a Stopped event was emitted then.
	Run(ctx context.Context, frameworkID func() string, emit func(scheduler.Event)) error
	// Do takes a call, to be sent soon and in order; it never blocks. false: not a call for the master.
	Do(scheduler.Call) bool
}

// Nodes is the way to the lease authority; nodes.Nodes is the real one.
type Nodes interface {
	// Run works until ctx ends.
	Run(ctx context.Context) error
	// Do takes a call, to be carried out soon; it never blocks. false: not a call for the authority.
	Do(scheduler.Call) bool
}

// Sandboxes reads files of tasks; mesos.Sandboxes is the real one.
type Sandboxes interface {
	Read(ctx context.Context, agentURL, framework string, task state.TaskID, file string, offset int64) ([]byte, int64, error)
}

// Config of a Framework. Store, Master, Nodes and Step are needed.
type Config struct {
	// Info is what Core.Info gives; Cluster, Store, FrameworkID, Master and Elected are filled in.
	Info      Info
	Scheduler scheduler.Config
	Step      Step
	Store     *store.Store
	Master    Master
	// Nodes makes the way to the authority for one time of leadership; emit blocks while the loop is busy.
	Nodes     func(emit func(scheduler.Event)) (Nodes, error)
	Sandboxes Sandboxes
	// Probes bounds how many health and readiness checks of the framework's own are under way. Default 512; below 0: none are made.
	Probes int

	// MaxBatch bounds how many events share one commit. Default 256.
	MaxBatch int
	// TickEvery is the longest time without a Tick. Default 3 s.
	TickEvery time.Duration
	// CommitLimit bounds one commit. Default 30 s.
	CommitLimit time.Duration
	// Standby makes Run wait for the leadership while another process has it, looking every StandbyEvery (default 500 ms), and go back to
	// waiting when it was deposed. Otherwise both are errors of Run.
	Standby      bool
	StandbyEvery time.Duration
	// RetryMin and RetryMax bound the pause before the state is loaded again after a failed commit. Default 100 ms and 5 s.
	RetryMin, RetryMax time.Duration
	// Now and Entropy are time and randomness for Step; tests set them.
	Now     func() time.Time
	Entropy func() [32]byte
	Metrics *Metrics
	Log     *zap.Logger
}

// Framework is the running framework. Make it with New, then Run; the methods of Core may be called before, and answer Unavailable
// until the state is loaded.
type Framework struct {
	c   Config
	log *zap.Logger

	mu   sync.RWMutex
	view *state.State                    // what is committed, for readers
	runs map[state.InstanceID]*state.Run // the newest run of each instance, for its logs after its end
	subs map[*subscriber]struct{}
	term *term  // nil while not leading
	why  string // why term is nil
	// prober makes the health and readiness checks; it is the term\'s, nil while not leading.
	prober *probe.Prober
	end    context.CancelCauseFunc // ends the time of leadership; nil while there is none
}

var _ Core = (*Framework)(nil)

// New checks the configuration; Run does the work.
func New(c Config) (*Framework, error) {
	if c.Step == nil || c.Store == nil || c.Master == nil || c.Nodes == nil {
		return nil, fault.New(fault.Internal, "framework: step, store, master and nodes are needed")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.TickEvery, 3*time.Second)
	def(&c.CommitLimit, 30*time.Second)
	def(&c.StandbyEvery, 500*time.Millisecond)
	def(&c.RetryMin, 100*time.Millisecond)
	def(&c.RetryMax, 5*time.Second)
	if c.MaxBatch <= 0 {
		c.MaxBatch = 256
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Entropy == nil {
		c.Entropy = func() (b [32]byte) {
			_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program first
			return b
		}
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	f := &Framework{c: c, log: c.Log, view: state.New(), runs: map[state.InstanceID]*state.Run{},
		subs: map[*subscriber]struct{}{}, why: "the state is not loaded yet"}
	c.Metrics.watch(f)
	return f, nil
}

// Run leads until ctx ends (nil then). After a failed commit it forgets everything, loads the state anew and goes on; it
// returns an error only when going on makes no sense: the state is damaged, somebody else leads, the authority is another cluster's.
func (f *Framework) Run(ctx context.Context) error {
	defer f.closeSubscribers()
	pause := f.c.RetryMin
	for {
		committed, err := f.leadUntilDeposed(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errAbdicated) {
			if !f.abdicated(ctx) {
				return nil
			}
			continue
		}
		if f.c.Standby && errors.Is(err, store.ErrNotLeader) {
			f.standBy(err)
			pause = f.c.RetryMin
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(f.c.StandbyEvery):
			}
			continue
		}
		if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown) {
			return err
		}
		if committed {
			pause = f.c.RetryMin
		}
		f.log.Error("state not committed: everything since the last commit is forgotten, and the state is loaded again",
			zap.Error(err), zap.Duration("in", pause))
		f.resign(err.Error())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, f.c.RetryMax)
	}
}

// leadUntilDeposed is lead, which also ends when the store notices that another leads: without that, a leader that has nothing to
// commit would go on showing what was.
func (f *Framework) leadUntilDeposed(parent context.Context) (bool, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	f.c.Store.WhenDeposed(func() { cancel(store.ErrNotLeader) })
	f.lets(cancel)
	defer f.lets(nil)
	// Readers are told at once, also when the loop hangs and its end is not to be waited for.
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		if errors.Is(context.Cause(ctx), store.ErrNotLeader) {
			f.resign("another process has taken over, or the loop of this one hangs")
		}
	})
	committed, err := f.lead(ctx)
	if !stop() {
		<-told
	}
	err = whyEnded(ctx, err)
	if parent.Err() == nil && errors.Is(context.Cause(ctx), store.ErrNotLeader) && !errors.Is(err, store.ErrNotLeader) {
		err = fault.Wrap(fault.Conflict, store.ErrNotLeader, "another process has taken over")
	}
	return committed, err
}

// standBy notes that another leads. Only the first of many looks in a row is logged.
func (f *Framework) standBy(why error) {
	f.mu.RLock()
	leading, said := f.term != nil, f.why
	f.mu.RUnlock()
	if leading || said != why.Error() {
		f.log.Info("standing by: another framework process leads", zap.Error(why))
	}
	f.resign(why.Error())
}

// View implements Core.
func (f *Framework) View(read func(*state.State)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	read(f.view)
}

// Info implements Core.
func (f *Framework) Info() Info {
	f.mu.RLock()
	defer f.mu.RUnlock()
	i := f.c.Info
	i.Cluster, i.Store, i.Elected = f.c.Store.Cluster(), f.c.Store.Name(), f.term != nil
	i.Master = f.view.Session.Master
	if f.view.Framework != nil {
		i.FrameworkID = f.view.Framework.ID
	}
	return i
}

// ReadLog implements Core. It serves the newest run of the instance, also after it has ended.
func (f *Framework) ReadLog(ctx context.Context, id state.InstanceID, file string, offset int64) ([]byte, int64, error) {
	f.mu.RLock()
	run, framework := f.runs[id], ""
	if f.view.Framework != nil {
		framework = f.view.Framework.ID
	}
	if i := f.view.Instances[id]; i != nil && i.Run != nil {
		run = i.Run
	}
	f.mu.RUnlock()
	switch {
	case run == nil:
		return nil, 0, fault.New(fault.NotFound, "instance %s has not run since the framework started", id)
	case f.c.Sandboxes == nil:
		return nil, 0, fault.New(fault.Unavailable, "logs cannot be read here")
	}
	return f.c.Sandboxes.Read(ctx, run.AgentURL, framework, run.Task, file, offset)
}

// Ready says whether the framework leads and the state is loaded.
func (f *Framework) Ready() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.term != nil
}

package framework

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// journal is the order in which things happened, as the test saw them.
type journal struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func newJournal() *journal { return &journal{more: make(chan struct{}, 1)} }

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
	j.mu.Unlock()
	select {
	case j.more <- struct{}{}:
	default:
	}
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}

// index gives the place of the first line that is text, -1 for none.
func (j *journal) index(text string) int {
	for i, l := range j.all() {
		if l == text {
			return i
		}
	}
	return -1
}

func (j *journal) await(t testing.TB, text string) int {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if i := j.index(text); i >= 0 {
			return i
		}
		select {
		case <-j.more:
		case <-time.After(2 * time.Millisecond):
		}
	}
	t.Fatalf("%q did not happen; what did: %q", text, j.all())
	return -1
}

// fakeMaster plays mesos.Client: it gives what the test emits and notes the calls.
type fakeMaster struct {
	j *journal

	mu   sync.Mutex
	emit func(scheduler.Event)
	runs int
}

func (m *fakeMaster) Run(ctx context.Context, id func() string, emit func(scheduler.Event)) error {
	m.mu.Lock()
	m.emit = emit
	m.runs++
	m.mu.Unlock()
	m.j.add("master runs with %q", id())
	<-ctx.Done()
	m.mu.Lock()
	m.emit = nil
	m.mu.Unlock()
	m.j.add("master ends")
	return nil
}

func (m *fakeMaster) Do(c scheduler.Call) bool {
	switch c := c.(type) {
	case scheduler.Acknowledge:
		m.j.add("ack %s", c.UUID)
	case scheduler.Kill:
		m.j.add("kill %s", c.Task)
	case scheduler.Revive:
		m.j.add("revive")
	case scheduler.Accept:
		m.j.add("accept %d", len(c.Launches))
	case scheduler.Grant, scheduler.CreateVolume, scheduler.Revoke, scheduler.CancelGrant, scheduler.RemoveVolumeData, scheduler.ForgetRequest:
		return false
	}
	return true
}

func (m *fakeMaster) send(t testing.TB, e scheduler.Event) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		m.mu.Lock()
		emit := m.emit
		m.mu.Unlock()
		if emit != nil {
			emit(e)
			return
		}
	}
	t.Fatal("the master is not run")
}

// fakeNodes plays nodes.Nodes.
type fakeNodes struct {
	j   *journal
	err chan error
}

func (n *fakeNodes) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.err:
		return err
	}
}

func (n *fakeNodes) Do(c scheduler.Call) bool {
	switch c := c.(type) {
	case scheduler.Grant:
		n.j.add("grant %s", c.Volume)
		return true
	case scheduler.Revoke:
		n.j.add("revoke %s", c.Volume)
		return true
	}
	return false
}

// faulty is a back end whose commits fail, hang or are counted as the test wants.
type faulty struct {
	store.Backend
	j *journal

	mu     sync.Mutex
	before func(ops []store.Op) error // an error: nothing is done
	after  func(ops []store.Op) error // an error although it is done
	limits *store.Limits
}

func (f *faulty) set(before, after func([]store.Op) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faulty) Limits() store.Limits {
	if f.limits != nil {
		return *f.limits
	}
	return f.Backend.Limits()
}

func (f *faulty) Commit(ctx context.Context, cluster string, term store.Term, ops []store.Op) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(ops); err != nil {
			f.j.add("commit fails")
			return err
		}
	}
	if err := f.Backend.Commit(ctx, cluster, term, ops); err != nil {
		return err
	}
	if after != nil {
		if err := after(ops); err != nil {
			f.j.add("commit is lost")
			return err
		}
	}
	f.j.add("commit %d", len(ops))
	return nil
}

// bench is a Framework with everything around it faked but the store.
type bench struct {
	*Framework
	t      testing.TB
	j      *journal
	master *fakeMaster
	nodes  *fakeNodes
	back   *faulty
	cancel context.CancelFunc
	done   chan error
}

// setup starts a Framework that steps with step, over the state in dir.
func setup(t testing.TB, dir string, step Step, change ...func(*Config, *faulty)) *bench {
	t.Helper()
	db, err := bolt.Open(dir, bolt.Options{Wait: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	b := &bench{t: t, j: j, master: &fakeMaster{j: j}, nodes: &fakeNodes{j: j, err: make(chan error, 1)}, back: &faulty{Backend: db, j: j}, done: make(chan error, 1)}
	c := Config{Step: step, Master: b.master, Nodes: func(func(scheduler.Event)) (Nodes, error) { return b.nodes, nil },
		RetryMin: time.Millisecond, RetryMax: 10 * time.Millisecond, TickEvery: time.Hour}
	for _, f := range change {
		f(&c, b.back)
	}
	if c.Store, err = store.Open(context.Background(), b.back, "", "test"); err != nil {
		t.Fatal(err)
	}
	if b.Framework, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() { b.done <- b.Run(ctx) }()
	t.Cleanup(b.stop)
	return b
}

func (b *bench) stop() {
	b.t.Helper()
	b.cancel()
	select {
	case err := <-b.done:
		b.done <- err
	case <-time.After(5 * time.Second):
		b.t.Error("the framework does not stop")
	}
	if err := b.back.Close(); err != nil {
		b.t.Error(err)
	}
}

// app gives the app of the committed state.
func (b *bench) app(id state.AppID) (a *state.App) {
	b.View(func(s *state.State) { a = s.Apps[id] })
	return a
}

// writeApp is a step that understands three things: ScaleApp writes an app and kills a task, Status writes an app and acknowledges, Subscribed
// writes the framework id. Everything else does nothing.
func writeApp(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
	switch e := e.(type) {
	case scheduler.ScaleApp:
		rev := uint64(1)
		if old := s.Apps[e.App]; old != nil {
			rev = old.Rev + 1
		}
		a := &state.App{ID: e.App, Version: "v", Instances: e.Instances, Rev: rev}
		return scheduler.Plan{Writes: []state.Write{{Kind: state.KindApp, ID: string(e.App), Value: a}},
			Calls: []scheduler.Call{scheduler.Kill{Task: state.TaskID(fmt.Sprintf("%s#%d", e.App, e.Instances))}},
			Reply: &scheduler.Reply{Version: fmt.Sprint(rev)}}
	case scheduler.Status:
		a := &state.App{ID: state.AppID("/" + e.Task), Version: e.State}
		return scheduler.Plan{Writes: []state.Write{{Kind: state.KindApp, ID: string(a.ID), Value: a}},
			Calls: []scheduler.Call{scheduler.Acknowledge{Task: e.Task, UUID: e.UUID}}}
	case scheduler.Subscribed:
		f := *s.Framework
		f.ID = e.FrameworkID
		return scheduler.Plan{Writes: []state.Write{{Kind: state.KindFramework, Value: &f}, {Kind: state.KindSession, Value: &state.Session{Connected: true}}}}
	}
	return scheduler.Plan{}
}

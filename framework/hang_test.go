package framework

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// A leader whose loop hangs says at once that it does not lead, another leads, and when the loop goes on it makes no call.
func TestLoopHangs(t *testing.T) {
	m := leasetest.NewMemory()
	release := make(chan struct{})
	short := func(c *Config, o *registers.Options) { c.TickEvery, o.Hang = 50*time.Millisecond, time.Second }
	a := start(t, m, "a", short, func(c *Config, _ *registers.Options) {
		c.Step = func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
			p := writeApp(s, e, env)
			if _, ok := e.(scheduler.ScaleApp); ok {
				<-release
				p.Calls = append(p.Calls, scheduler.Revive{})
			}
			return p
		}
	})
	awaitReady(t, a, true)
	calls := count(a.j, "revive")
	answer := make(chan error, 1)
	go func() { answer <- a.scale(1) }()
	b := start(t, m, "b", short)
	for end := time.Now().Add(20 * time.Second); !b.Ready() || a.Ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a's loop hangs: a leads %v, b leads %v", a.Ready(), b.Ready())
		}
	}
	close(release)
	if err := <-answer; err == nil {
		t.Error("the order was answered as done")
	}
	if err := b.scale(2); err != nil {
		t.Fatal(err)
	}
	if n := count(a.j, "revive"); n != calls {
		t.Errorf("%d calls left after another had taken over", n-calls)
	}
}

func count(j *journal, text string) (n int) {
	for _, l := range j.all() {
		if l == text {
			n++
		}
	}
	return n
}

// paused is a back end of a process that is stopped after a commit, and finds another leading when it goes on.
type paused struct {
	faulty
	late atomic.Bool
}

func (p *paused) Confirm(context.Context, string) error {
	if p.late.Load() {
		return fault.New(fault.Conflict, "another leads")
	}
	return nil
}

// What was committed is answered as committed, but the calls of a leader that is none any more stay unmade.
func TestNoCallsOfAnOldTerm(t *testing.T) {
	j := newJournal()
	back := &paused{}
	db, err := bolt.Open(t.TempDir(), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	back.Backend, back.j = db, j
	st, err := store.Open(context.Background(), back, storetest.A, "a")
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Step: writeApp, Store: st, Master: &fakeMaster{j: j}, Nodes: func(func(scheduler.Event)) (Nodes, error) { return &fakeNodes{j: j, err: make(chan error)}, nil }, TickEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(context.Background()) }()
	for end := time.Now().Add(5 * time.Second); !f.Ready() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if _, err := f.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 1}); err != nil {
		t.Fatal(err)
	}
	back.late.Store(true)
	if _, err := f.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 2}); err != nil {
		t.Errorf("it was committed: %v", err)
	}
	select {
	case err := <-done:
		if !fault.Is(err, fault.Conflict) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it goes on")
	}
	if j.index("kill /a#1") < 0 || j.index("kill /a#2") >= 0 {
		t.Errorf("calls: %q", j.all())
	}
}

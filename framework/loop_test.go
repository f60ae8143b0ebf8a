package framework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestAcknowledgesOnlyAfterTheCommit(t *testing.T) {
	gate := make(chan struct{})
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	b.back.set(func([]store.Op) error { <-gate; return nil }, nil)
	b.master.send(t, scheduler.Status{Task: "t1", State: "TASK_RUNNING", UUID: []byte("u1")})
	time.Sleep(30 * time.Millisecond)
	if b.j.index("ack u1") >= 0 {
		t.Fatal("acknowledged before the commit")
	}
	if b.app("/t1") != nil {
		t.Error("readers see what is not committed")
	}
	close(gate)
	ack := b.j.await(t, "ack u1")
	lines := b.j.all()
	if last := lines[ack-1]; last != "commit 1" {
		t.Errorf("before the acknowledgement came %q, of %q", last, lines)
	}
	if b.app("/t1") == nil {
		t.Error("readers do not see what is committed")
	}
}

func TestAnswerOnlyAfterTheCommit(t *testing.T) {
	gate := make(chan struct{})
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	b.back.set(func([]store.Op) error { <-gate; return nil }, nil)
	got := make(chan error, 1)
	go func() {
		r, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 3})
		if err == nil && r.Version != "1" {
			err = fmt.Errorf("reply %+v", r)
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("answered before the commit: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	close(gate)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if a := b.app("/a"); a == nil || a.Instances != 3 {
		t.Errorf("the answer came before readers see the change: %+v", a)
	}
	b.j.await(t, "kill /a#3")
}

// TestFailedCommit: what was planned is forgotten, its calls are not made, and what the store has is what counts from then on.
func TestFailedCommit(t *testing.T) {
	for name, lost := range map[string]bool{"nothing was written": false, "it was written, but the answer was lost": true} {
		t.Run(name, func(t *testing.T) {
			var loaded atomic.Int32
			step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
				if _, ok := e.(scheduler.Loaded); ok {
					loaded.Add(1)
				}
				return writeApp(s, e, env)
			}
			b := setup(t, t.TempDir(), step)
			b.j.await(t, `master runs with ""`)
			if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 1}); err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			fail := func(c fault.Class) func([]store.Op) error {
				return func([]store.Op) (err error) {
					once.Do(func() { err = fault.New(c, "the disk is on fire") })
					return err
				}
			}
			want := fault.Unavailable
			if lost {
				want = fault.Unknown
				b.back.set(nil, fail(fault.Unknown))
			} else {
				b.back.set(fail(fault.Unavailable), nil)
			}
			_, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 2})
			if !fault.Is(err, want) || !strings.Contains(err.Error(), "on fire") {
				t.Errorf("the command got %v (%s)", err, fault.ClassOf(err))
			}
			for end := time.Now().Add(5 * time.Second); loaded.Load() < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			var r scheduler.Reply
			for range 100 { // refused while the state is being loaded
				if r, err = b.Do(context.Background(), scheduler.ScaleApp{App: "/b", Instances: 1}); !fault.Is(err, fault.Unavailable) {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if err != nil {
				t.Fatal(err)
			}
			have := map[bool]int{false: 1, true: 2}[lost]
			if a := b.app("/a"); a.Instances != have {
				t.Errorf("after the reload /a has %d instances, the store has %d", a.Instances, have)
			}
			if r.Version != "1" || b.j.index("kill /a#2") >= 0 {
				t.Errorf("a call of the forgotten plan was made: %q", b.j.all())
			}
			runs := func() int {
				b.master.mu.Lock()
				defer b.master.mu.Unlock()
				return b.master.runs
			}
			for end := time.Now().Add(5 * time.Second); runs() < 2 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			if runs() != 2 || b.j.index("master ends") < 0 {
				t.Errorf("the master was run %d times: what was seen must be seen anew", runs())
			}
		})
	}
}

// TestCommitFailsForAWhile: commands are refused, nothing is called, readers see the last commit, and then it goes on.
func TestCommitFailsForAWhile(t *testing.T) {
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 1}); err != nil {
		t.Fatal(err)
	}
	b.back.set(func([]store.Op) error { return fault.New(fault.Unavailable, "no space left") }, nil)
	for i := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := b.Do(ctx, scheduler.ScaleApp{App: "/a", Instances: 10 + i})
		cancel()
		if !fault.Is(err, fault.Unavailable) {
			t.Fatalf("command %d: %v", i, err)
		}
	}
	if a := b.app("/a"); a == nil || a.Instances != 1 {
		t.Errorf("readers see %+v", a)
	}
	b.back.set(nil, nil)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 2}); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for _, l := range b.j.all() {
		if strings.HasPrefix(l, "kill /a#1") && l != "kill /a#1" {
			t.Errorf("a call that was never committed: %s", l)
		}
	}
}

func TestDeposedLeaderStops(t *testing.T) {
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	if _, err := b.back.Lead(context.Background(), b.c.Store.Cluster(), "another"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 1})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("the command got %v", err)
	}
	select {
	case err := <-b.done:
		b.done <- err
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "another") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("goes on")
	}
	if b.j.index("kill /a#1") >= 0 {
		t.Error("a deposed leader has acted")
	}
}

func TestGivenUpCommand(t *testing.T) {
	gate, reached := make(chan struct{}), make(chan struct{}, 8)
	var stepped atomic.Int32
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		if _, ok := e.(scheduler.ScaleApp); ok {
			stepped.Add(1)
			reached <- struct{}{}
			<-gate
		}
		return writeApp(s, e, env)
	}
	b := setup(t, t.TempDir(), step)
	b.j.await(t, `master runs with ""`)
	do := func(ctx context.Context, app state.AppID) chan error {
		c := make(chan error, 1)
		go func() {
			_, err := b.Do(ctx, scheduler.ScaleApp{App: app, Instances: 1})
			c <- err
		}()
		return c
	}
	ctx1, cancel1 := context.WithCancel(context.Background())
	first := do(ctx1, "/first")
	<-reached // the loop has it
	ctx2, cancel2 := context.WithCancel(context.Background())
	second := do(ctx2, "/second")
	time.Sleep(10 * time.Millisecond) // in the queue
	cancel2()
	if err := <-second; !fault.Is(err, fault.Unavailable) {
		t.Errorf("a command that was never taken: %v", err)
	}
	cancel1()
	if err := <-first; !fault.Is(err, fault.Unknown) {
		t.Errorf("a command under way: %v", err)
	}
	close(gate)
	if err := <-do(context.Background(), "/third"); err != nil {
		t.Fatal(err)
	}
	if stepped.Load() != 2 || b.app("/second") != nil || b.app("/first") == nil {
		t.Errorf("%d commands were stepped; /second %v, /first %v", stepped.Load(), b.app("/second"), b.app("/first"))
	}
}

func TestRefusedCommandWritesNothing(t *testing.T) {
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		if _, ok := e.(scheduler.ScaleApp); ok {
			return scheduler.Plan{Reply: &scheduler.Reply{Err: fault.New(fault.NotFound, "no such app")}}
		}
		return scheduler.Plan{}
	}
	b := setup(t, t.TempDir(), step)
	b.j.await(t, `master runs with ""`)
	before := len(b.j.all())
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := b.Do(context.Background(), scheduler.ResetDelay{}); !fault.Is(err, fault.Internal) {
		t.Errorf("a command that Step does not answer: %v", err)
	}
	if n := len(b.j.all()); n != before {
		t.Errorf("something was done: %q", b.j.all()[before:])
	}
}

func TestStepThatPanics(t *testing.T) {
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		if c, ok := e.(scheduler.ScaleApp); ok && c.App == "/boom" {
			panic("boom")
		}
		return writeApp(s, e, env)
	}
	b := setup(t, t.TempDir(), step)
	b.j.await(t, `master runs with ""`)
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/boom"}); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "boom") {
		t.Errorf("got %v", err)
	}
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a"}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestLoadedThatPanicsIsTheEnd(t *testing.T) {
	b := setup(t, t.TempDir(), func(_ *state.State, e scheduler.Event, _ scheduler.Env) scheduler.Plan {
		if _, ok := e.(scheduler.Loaded); ok {
			panic("boom")
		}
		return scheduler.Plan{}
	})
	select {
	case err := <-b.done:
		b.done <- err
		if !fault.Is(err, fault.Internal) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("goes on without having looked at what a crash left")
	}
}

func TestManyEventsOneCommit(t *testing.T) {
	gate := make(chan struct{})
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	b.back.set(func([]store.Op) error { <-gate; return nil }, nil)
	const n = 300
	for i := range n {
		b.master.send(t, scheduler.Status{Task: state.TaskID(fmt.Sprintf("t%d", i)), UUID: fmt.Appendf(nil, "%d", i)})
	}
	close(gate)
	b.j.await(t, fmt.Sprintf("ack %d", n-1))
	commits, acks := 0, []string{}
	for _, l := range b.j.all() {
		if strings.HasPrefix(l, "commit") {
			commits++
		}
		if strings.HasPrefix(l, "ack") {
			acks = append(acks, l)
		}
	}
	if commits > 6 {
		t.Errorf("%d commits for %d events", commits, n)
	}
	for i, a := range acks {
		if a != fmt.Sprintf("ack %d", i) {
			t.Fatalf("acknowledgement %d is %q: order is lost", i, a)
		}
	}
}

func TestLimitsCutBetweenEvents(t *testing.T) {
	gate := make(chan struct{})
	b := setup(t, t.TempDir(), writeApp, func(_ *Config, f *faulty) { f.limits = &store.Limits{Writes: 10, Bytes: 4000} })
	b.j.await(t, `master runs with ""`)
	b.back.set(func(ops []store.Op) error {
		if len(ops) > 10 {
			return errors.New("too many")
		}
		<-gate
		return nil
	}, nil)
	for i := range 100 {
		b.master.send(t, scheduler.Status{Task: state.TaskID(fmt.Sprintf("t%d", i)), UUID: fmt.Appendf(nil, "%d", i)})
	}
	close(gate)
	b.j.await(t, "ack 99")
	if b.j.index("commit fails") >= 0 {
		t.Error("a batch was too large")
	}
}

func TestPlanThatFitsNoBatchIsRefusedWhole(t *testing.T) {
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		c, ok := e.(scheduler.ScaleApp)
		if !ok || c.App != "/big" {
			return writeApp(s, e, env)
		}
		p := scheduler.Plan{Reply: &scheduler.Reply{}, Calls: []scheduler.Call{scheduler.Revive{}}}
		for i := range 20 {
			id := fmt.Sprintf("/big%d", i)
			p.Writes = append(p.Writes, state.Write{Kind: state.KindApp, ID: id, Value: &state.App{ID: state.AppID(id)}})
		}
		return p
	}
	b := setup(t, t.TempDir(), step, func(_ *Config, f *faulty) { f.limits = &store.Limits{Writes: 10, Bytes: 100000} })
	b.j.await(t, `master runs with ""`)
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/big"}); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "20 records") {
		t.Errorf("got %v", err)
	}
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a"}); err != nil {
		t.Fatal(err)
	}
	if b.app("/big0") != nil || b.j.index("revive") >= 0 {
		t.Error("part of a refused plan was done")
	}
}

func TestTicksWhenDue(t *testing.T) {
	var mu sync.Mutex
	var ticks []time.Time
	wake := time.Now().Add(80 * time.Millisecond)
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := e.(scheduler.Tick); ok {
			ticks = append(ticks, time.Now())
			if len(ticks) < 2 && time.Now().Before(wake) {
				return scheduler.Plan{Wake: wake}
			}
		}
		if _, ok := e.(scheduler.Loaded); ok {
			return scheduler.Plan{Wake: wake.Add(time.Hour)}
		}
		return scheduler.Plan{}
	}
	setup(t, t.TempDir(), step)
	time.Sleep(250 * time.Millisecond)
	mu.Lock()
	defer mu.Unlock()
	if len(ticks) != 2 {
		t.Fatalf("%d ticks, want the first and the one asked for", len(ticks))
	}
	if late := ticks[1].Sub(wake); late < 0 || late > 50*time.Millisecond {
		t.Errorf("woken %s after the time", late)
	}
}

func TestWakeInThePastDoesNotSpin(t *testing.T) {
	var ticks atomic.Int32
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		if _, ok := e.(scheduler.Tick); ok {
			ticks.Add(1)
		}
		return scheduler.Plan{Wake: env.Now.Add(-time.Hour)}
	}
	setup(t, t.TempDir(), step)
	time.Sleep(200 * time.Millisecond)
	if n := ticks.Load(); n > 60 || n < 5 {
		t.Errorf("%d ticks in 200 ms", n)
	}
}

func TestTimeIsNotStarvedByEvents(t *testing.T) {
	var ticks atomic.Int32
	step := func(s *state.State, e scheduler.Event, env scheduler.Env) scheduler.Plan {
		if _, ok := e.(scheduler.Tick); ok {
			ticks.Add(1)
		}
		return scheduler.Plan{}
	}
	b := setup(t, t.TempDir(), step, func(c *Config, _ *faulty) { c.TickEvery = 20 * time.Millisecond })
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		b.master.send(t, scheduler.Rescinded{Offer: "x"})
	}
	if n := ticks.Load(); n < 4 {
		t.Errorf("%d ticks in 200 ms of events", n)
	}
}

func TestFrameworkIDIsDurable(t *testing.T) {
	dir := t.TempDir()
	b := setup(t, dir, writeApp)
	b.j.await(t, `master runs with ""`)
	b.master.send(t, scheduler.Subscribed{FrameworkID: "fw-1"})
	b.j.await(t, "commit 1")
	for end := time.Now().Add(time.Second); b.Info().FrameworkID == "" && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	cluster := b.Info().Cluster
	b.stop()
	again := setup(t, dir, writeApp)
	again.j.await(t, `master runs with "fw-1"`)
	if i := again.Info(); i.Cluster != cluster || i.FrameworkID != "fw-1" || !i.Elected {
		t.Errorf("after a restart: %+v", i)
	}
}

func TestNotices(t *testing.T) {
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	ctx, cancel := context.WithCancel(context.Background())
	events := b.Events(ctx)
	slow := b.Events(context.Background())
	if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: 1}); err != nil {
		t.Fatal(err)
	}
	if n := <-events; n.Type != "app" || n.ID != "/a" || n.Gone {
		t.Errorf("notice %+v", n)
	}
	cancel()
	for range events { // ends
	}
	for i := range noticeRoom + 10 {
		if _, err := b.Do(context.Background(), scheduler.ScaleApp{App: "/a", Instances: i}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for range slow {
		n++
	}
	if n != noticeRoom {
		t.Errorf("a slow reader got %d notices before it was cut off, want %d", n, noticeRoom)
	}
}

func TestAuthorityOfAnotherClusterEndsIt(t *testing.T) {
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	b.nodes.err <- fault.New(fault.Conflict, "authority of another cluster")
	select {
	case err := <-b.done:
		b.done <- err
		if !fault.Is(err, fault.Conflict) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("goes on")
	}
}

func TestConcurrentCommands(t *testing.T) {
	b := setup(t, t.TempDir(), writeApp)
	b.j.await(t, `master runs with ""`)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			app := state.AppID(fmt.Sprintf("/g%d", g))
			for i := range 50 {
				r, err := b.Do(context.Background(), scheduler.ScaleApp{App: app, Instances: i})
				if err != nil || r.Version != fmt.Sprint(i+1) {
					t.Errorf("%s %d: %+v %v", app, i, r, err)
				}
				if a := b.app(app); a == nil || a.Instances != i {
					t.Errorf("%s: an answered command is not to be seen", app)
				}
			}
		}()
	}
	wg.Wait()
}

func TestEventName(t *testing.T) {
	if n := eventName(scheduler.Status{}); n != "Status" {
		t.Error(n)
	}
	if !slices.Contains([]string{"Tick"}, eventName(scheduler.Tick{})) {
		t.Error("Tick")
	}
}

func BenchmarkCommands(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d-clients", clients), func(b *testing.B) {
			f := setup(b, b.TempDir(), writeApp)
			f.j.await(b, `master runs with ""`)
			b.SetParallelism(clients)
			b.ResetTimer()
			var n atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				app := state.AppID(fmt.Sprintf("/a%d", n.Add(1)))
				for pb.Next() {
					if _, err := f.Do(context.Background(), scheduler.ScaleApp{App: app}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

func BenchmarkEvents(b *testing.B) {
	f := setup(b, b.TempDir(), writeApp)
	f.j.await(b, `master runs with ""`)
	b.ResetTimer()
	for i := range b.N {
		f.master.send(b, scheduler.Status{Task: state.TaskID(fmt.Sprintf("t%d", i%1000)), UUID: fmt.Appendf(nil, "%d", i)})
	}
	f.j.await(b, fmt.Sprintf("ack %d", b.N-1))
}

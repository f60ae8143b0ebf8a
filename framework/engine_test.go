package framework_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/embedded"
	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// cable is a TCP proxy before the master that can be cut.
type cable struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
}

func newCable(t *testing.T, to string) *cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: l, to: to, conns: map[net.Conn]bool{}}
	go c.run()
	t.Cleanup(func() { l.Close(); c.Cut(true) })
	return c
}

func (c *cable) run() {
	for {
		in, err := c.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", c.to)
		c.mu.Lock()
		if err != nil || c.cut {
			in.Close()
			if err == nil {
				out.Close()
			}
			c.mu.Unlock()
			continue
		}
		c.conns[in], c.conns[out] = true, true
		c.mu.Unlock()
		go c.pipe(in, out)
		go c.pipe(out, in)
	}
}

func (c *cable) pipe(a, b net.Conn) {
	_, _ = io.Copy(a, b)
	a.Close()
	b.Close()
	c.mu.Lock()
	delete(c.conns, a)
	delete(c.conns, b)
	c.mu.Unlock()
}

// Cut breaks every connection; stay refuses new ones too.
func (c *cable) Cut(stay bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = stay
	for conn := range c.conns {
		conn.Close()
	}
}

// engine is an embedded master with agents whose tasks are real processes.
type engine struct {
	t      *testing.T
	master *embedded.Master
	links  []*embedded.Link
	agents []*agent.Agent
}

func newEngine(t *testing.T, agents int) *engine {
	t.Helper()
	e := &engine{t: t}
	var err error
	e.master, err = embedded.New(embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0",
		Timing: embedded.Timing{Allocation: 20 * time.Millisecond, Heartbeat: 200 * time.Millisecond, AgentLost: 600 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- e.master.Serve(ctx) }()
	t.Cleanup(func() {
		end, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		for _, a := range e.agents {
			if err := a.Close(end); err != nil {
				t.Errorf("close agent: %v", err)
			}
		}
		cancel()
		<-served
	})
	for i := range agents {
		name := fmt.Sprintf("agent%d", i)
		link := e.master.Link(name)
		a, err := agent.New(agent.Config{Dir: t.TempDir(), Hostname: name, Listen: "127.0.0.1:0", Master: link,
			Timing:    agent.Timing{Ping: 100 * time.Millisecond, UpdateRetry: 200 * time.Millisecond},
			Resources: agent.Resources{CPUs: 4, Mem: 1024, Disk: 1024, PortsBegin: uint64(21000 + 100*i), PortsEnd: uint64(21099 + 100*i)}})
		if err == nil {
			err = a.Start(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		e.links, e.agents = append(e.links, link), append(e.agents, a)
	}
	return e
}

// running lists the tasks that the agents themselves have.
func (e *engine) running() (out []string) {
	for _, a := range e.agents {
		for _, task := range a.Tasks() {
			if task.State == "TASK_RUNNING" {
				out = append(out, task.ID)
			}
		}
	}
	sort.Strings(out)
	return out
}

// scheduled is a framework in this process, over the state in dir.
type scheduled struct {
	*framework.Framework
	stop func()
}

func newScheduled(t *testing.T, dir, master string, wrap ...func(store.Backend) store.Backend) *scheduled {
	t.Helper()
	bdb, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var db store.Backend = bdb
	for _, w := range wrap {
		db = w(db)
	}
	log := zaptest.NewLogger(t)
	st, err := store.Open(context.Background(), db, "", "test")
	if err != nil {
		t.Fatal(err)
	}
	client, err := mesos.New(mesos.Config{Master: master, MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Log: log,
		Info: mesos.Identity{Name: "test", User: os.Getenv("USER"), Roles: []string{"holdfast"}, FailoverTimeout: time.Hour}.FrameworkInfo()})
	if err != nil {
		t.Fatal(err)
	}
	f, err := framework.New(framework.Config{Step: scheduler.Step, Store: st, Master: client, Log: log, Sandboxes: &mesos.Sandboxes{},
		Nodes: func(emit func(scheduler.Event)) (framework.Nodes, error) { return quietNodes{emit}, nil },
		Scheduler: scheduler.Config{Role: "holdfast", DefaultPolicy: "lease", MinGrade: "reset", DeclineFor: time.Second, HoldFor: time.Second,
			KillRetry: 300 * time.Millisecond, ReconcileMin: 50 * time.Millisecond, ReconcileMax: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	s := &scheduled{Framework: f, stop: func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("framework: %v", err)
			}
			db.Close()
		})
	}}
	t.Cleanup(s.stop)
	for !f.Ready() {
		time.Sleep(time.Millisecond)
	}
	return s
}

// settled waits until exactly n instances run, both as the framework and as the agents see it.
func (s *scheduled) settled(t *testing.T, e *engine, n int) []string {
	t.Helper()
	var mine, theirs []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		mine = nil
		s.View(func(st *state.State) {
			for _, i := range st.Instances {
				if i.Phase == state.PhaseRunning {
					mine = append(mine, string(i.Run.Task))
				} else {
					mine = append(mine, fmt.Sprintf("%s is %s", i.ID, i.Phase))
				}
			}
		})
		sort.Strings(mine)
		theirs = e.running()
		if len(mine) == n && strings.Join(mine, " ") == strings.Join(theirs, " ") {
			return mine
		}
	}
	t.Fatalf("the framework has %q, the agents run %q; want %d", mine, theirs, n)
	return nil
}

func TestHeavyOnTheEngine(t *testing.T) {
	heavy.Require(t)
	e := newEngine(t, 2)
	dir := t.TempDir()
	f := newScheduled(t, dir, e.master.URL())
	put := webApp("2026-11-21T05:00:00.000Z", 3)
	put.Changes[0].Def.Spec.Cmd = "echo number $HOLDFAST_INSTANCE of $MARATHON_APP_ID; exec sleep 1000"
	if _, err := f.Do(context.Background(), put); err != nil {
		t.Fatal(err)
	}
	first := f.settled(t, e, 3)
	readsLogs(t, f)

	// A stopped framework leaves its tasks alone and finds them again.
	f.stop()
	time.Sleep(300 * time.Millisecond)
	if r := e.running(); len(r) != 3 {
		t.Fatalf("after the framework's end %q run", r)
	}
	f = newScheduled(t, dir, e.master.URL())
	if again := f.settled(t, e, 3); strings.Join(again, " ") != strings.Join(first, " ") {
		t.Errorf("tasks before %q, after %q", first, again)
	}
	if _, err := f.Do(context.Background(), scheduler.ScaleApp{App: "/web", Instances: 1}); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 1)
	if _, err := f.Do(context.Background(), scheduler.RemoveApp{App: "/web", Force: true}); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 0)
}

// readsLogs reads what instance web.1 prints, by pieces and past its end.
func readsLogs(t *testing.T, f *scheduled) {
	t.Helper()
	ctx := context.Background()
	const want = "number 1 of /web\n"
	var data []byte
	var next int64
	var err error
	for end := time.Now().Add(5 * time.Second); len(data) < len(want) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		data, next, err = f.ReadLog(ctx, "web.1", "stdout", 0)
	}
	if err != nil || string(data) != want || next != int64(len(want)) {
		t.Errorf("stdout is %q, next %d, %v", data, next, err)
	}
	if _, size, err := f.ReadLog(ctx, "web.1", "stdout", -1); err != nil || size != int64(len(want)) {
		t.Errorf("size %d, %v", size, err)
	}
	if data, next, err = f.ReadLog(ctx, "web.1", "stdout", 7); err != nil || string(data) != want[7:] || next != int64(len(want)) {
		t.Errorf("from 7: %q, %d, %v", data, next, err)
	}
	if data, next, err = f.ReadLog(ctx, "web.1", "stdout", int64(len(want))); err != nil || len(data) != 0 || next != int64(len(want)) {
		t.Errorf("at the end: %q, %d, %v", data, next, err)
	}
	if _, _, err = f.ReadLog(ctx, "web.1", "nothing", 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, _, err = f.ReadLog(ctx, "web.9", "stdout", 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("an instance that is not there: %v", err)
	}
	for _, bad := range []string{"../stdout", "/etc/passwd", "", "a/../../b", "x\x00"} {
		if _, _, err = f.ReadLog(ctx, "web.1", bad, 0); !fault.Is(err, fault.Invalid) {
			t.Errorf("file %q: %v", bad, err)
		}
	}
}

// TestHeavyTwoSchedulersNeverFight starts a second framework over a copy of the state, with the same framework id: the first one is told that it failed over,
// stops and says so; it does not come back for the id, and the tasks run on under the second.
func TestHeavyTwoSchedulersNeverFight(t *testing.T) {
	heavy.Require(t)
	e := newEngine(t, 1)
	dir, copied := t.TempDir(), t.TempDir()
	first := newScheduled(t, dir, e.master.URL())
	if _, err := first.Do(context.Background(), webApp("2026-11-21T05:00:00.000Z", 2)); err != nil {
		t.Fatal(err)
	}
	tasks := first.settled(t, e, 2)
	first.stop()
	raw, err := os.ReadFile(filepath.Join(dir, bolt.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, bolt.FileName), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	first = newScheduled(t, dir, e.master.URL())
	first.settled(t, e, 2)
	second := newScheduled(t, copied, e.master.URL())
	second.settled(t, e, 2)
	session := func(s *scheduled) (out state.Session) {
		s.View(func(st *state.State) { out = st.Session })
		return out
	}
	for end := time.Now().Add(5 * time.Second); session(first).Stopped == "" && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
	}
	if s := session(first); !strings.Contains(s.Stopped, "failed over") || s.Connected {
		t.Errorf("the first one's session: %+v", s)
	}
	if reply, err := first.Do(context.Background(), scheduler.StartOver{By: "ann"}); err == nil && reply.Err == nil {
		t.Error("the first one may start over, while the framework lives on under its id")
	}
	since := session(second).Since
	time.Sleep(time.Second)
	if s := session(second); !s.Connected || s.Stopped != "" || !s.Since.Equal(since) {
		t.Errorf("the second one's session: %+v", s)
	}
	if now := e.running(); strings.Join(now, " ") != strings.Join(tasks, " ") {
		t.Errorf("tasks before %q, after %q", tasks, now)
	}
	if _, err := second.Do(context.Background(), scheduler.ScaleApp{App: "/web", Instances: 3}); err != nil {
		t.Fatal(err)
	}
	second.settled(t, e, 3)
}

// flaky is a back end of which some commits fail: nothing is done, or it is done and the answer is lost.
type flaky struct {
	store.Backend
	mu    sync.Mutex
	rnd   *rand.Rand
	share float64
	fails int
}

func (f *flaky) Commit(ctx context.Context, cluster string, term store.Term, ops []store.Op) error {
	f.mu.Lock()
	before, after := f.rnd.Float64() < f.share/2, f.rnd.Float64() < f.share/2
	if before || after {
		f.fails++
	}
	f.mu.Unlock()
	if before {
		return fault.New(fault.Unavailable, "flaky: nothing was done")
	}
	if err := f.Backend.Commit(ctx, cluster, term, ops); err != nil {
		return err
	}
	if after {
		return fault.New(fault.Unknown, "flaky: who knows")
	}
	return nil
}

func (f *flaky) setShare(s float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.share = s
}

// TestHeavyCommitsFail lets every fourth commit fail, in both ways, while an app is scaled: in the end the agents run exactly what was wanted.
func TestHeavyCommitsFail(t *testing.T) {
	heavy.Require(t)
	seed, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	e := newEngine(t, 2)
	var back *flaky
	f := newScheduled(t, t.TempDir(), e.master.URL(), func(b store.Backend) store.Backend {
		back = &flaky{Backend: b, rnd: rand.New(rand.NewPCG(seed, 3))}
		return back
	})
	// insist repeats a command until it is answered; one whose outcome is unknown may be repeated too, because it says how it should be.
	insist := func(c scheduler.Event) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			_, err := f.Do(context.Background(), c)
			if err == nil || fault.Is(err, fault.Exists) {
				return
			}
			if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown) || time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	back.setShare(.25)
	insist(webApp("2026-11-21T05:00:00.000Z", 2))
	want := 2
	for range 15 {
		want = rnd.IntN(7)
		insist(scheduler.ScaleApp{App: "/web", Instances: want, Force: true})
		time.Sleep(time.Duration(rnd.IntN(150)) * time.Millisecond)
	}
	back.setShare(0)
	f.settled(t, e, want)
	t.Logf("%d commits failed", back.fails)
	if back.fails < 5 {
		t.Errorf("only %d commits failed: this has tested nothing", back.fails)
	}
}

// TestHeavyCutCables cuts the framework from the master and agents from the master at random while the app is scaled: in the end the agents run exactly
// what the framework believes. The seed is printed; HOLDFAST_SEED repeats one, HOLDFAST_ROUNDS makes it longer.
func TestHeavyCutCables(t *testing.T) {
	heavy.Require(t)
	seed, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	rounds, err := strconv.Atoi(os.Getenv("HOLDFAST_ROUNDS"))
	if err != nil {
		rounds = 4
	}
	t.Logf("HOLDFAST_SEED=%d HOLDFAST_ROUNDS=%d", seed, rounds)
	rnd := rand.New(rand.NewPCG(seed, 1))
	e := newEngine(t, 3)
	wire := newCable(t, e.master.Addr())
	f := newScheduled(t, filepath.Join(t.TempDir(), "state"), wire.Addr().String())
	if _, err := f.Do(context.Background(), webApp("2026-11-21T05:00:00.000Z", 2)); err != nil {
		t.Fatal(err)
	}
	want := 2
	for round := range rounds {
		for range 5 {
			want = rnd.IntN(9)
			if _, err := f.Do(context.Background(), scheduler.ScaleApp{App: "/web", Instances: want, Force: true}); err != nil {
				t.Fatal(err)
			}
			pause := time.Duration(rnd.IntN(60)) * time.Millisecond
			switch rnd.IntN(4) {
			case 0:
				wire.Cut(false)
			case 1:
				wire.Cut(true)
				time.Sleep(pause)
				wire.Cut(false)
			case 2:
				link := e.links[rnd.IntN(len(e.links))]
				link.Cut()
				time.Sleep(time.Duration(rnd.IntN(1200)) * time.Millisecond)
				link.Heal()
			}
			time.Sleep(pause)
		}
		f.settled(t, e, want)
		t.Logf("round %d: %d instances", round, want)
	}
}

// The end of a framework, and its start as a new one: refused while there is something to lose, confirmed by the master, kept over a restart.
func TestHeavyTeardownAndStartOver(t *testing.T) {
	heavy.Require(t)
	e := newEngine(t, 1)
	dir := t.TempDir()
	f := newScheduled(t, dir, e.master.URL())
	ctx := context.Background()
	put := webApp("2026-11-21T05:00:00.000Z", 2)
	put.Changes[0].Def.Spec.Cmd = "exec sleep 1000"
	if _, err := f.Do(ctx, put); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 2)
	refused := func(command scheduler.Event, text string) {
		t.Helper()
		reply, err := f.Do(ctx, command)
		if err == nil {
			err = reply.Err
		}
		if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), text) {
			t.Errorf("%T: %v", command, err)
		}
	}
	refused(scheduler.Teardown{By: "ann"}, "one app, 2 instances")
	refused(scheduler.StartOver{By: "ann"}, "orphaned")
	if _, err := f.Do(ctx, scheduler.RemoveApp{App: "/web"}); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 0)
	var first string
	over := func(want string) {
		t.Helper()
		var s state.Session
		var fw *state.Framework
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			f.View(func(st *state.State) { s, fw = st.Session, st.Framework })
			if strings.Contains(s.Stopped, want) && fw.Teardown != nil && fw.Teardown.Done {
				first = fw.ID
				return
			}
		}
		t.Fatalf("session %+v, framework %+v; want an end with %q", s, fw, want)
	}
	if reply, err := f.Do(ctx, scheduler.Teardown{By: "ann"}); err != nil || reply.Err != nil {
		t.Fatal(err, reply.Err)
	}
	over("removed")
	f.stop()
	f = newScheduled(t, dir, e.master.URL()) // it does not register again by itself
	over("torn down by ann")
	if reply, err := f.Do(ctx, scheduler.StartOver{By: "ann"}); err != nil || reply.Err != nil {
		t.Fatal(err, reply.Err)
	}
	if _, err := f.Do(ctx, put); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 2)
	f.View(func(st *state.State) {
		if st.Framework.ID == "" || st.Framework.ID == first || st.Framework.Teardown != nil {
			t.Errorf("after starting over: %+v, before %s", st.Framework, first)
		}
	})
}

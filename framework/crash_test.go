package framework_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mesoslib "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/mastertest"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// quietNodes is a lease authority with nobody in it.
type quietNodes struct{ emit func(scheduler.Event) }

func (n quietNodes) Run(ctx context.Context) error {
	n.emit(scheduler.NodesSeen{})
	n.emit(scheduler.ClaimsSeen{All: true})
	<-ctx.Done()
	return nil
}

func (quietNodes) Do(c scheduler.Call) bool { return true }

// lethal is a back end that kills its own process with SIGKILL at one commit: before it, or between it and the calls.
type lethal struct {
	store.Backend
	at, n int
	after bool
}

func (l *lethal) Commit(ctx context.Context, cluster string, term store.Term, ops []store.Op) error {
	l.n++
	die := l.n == l.at
	if die && !l.after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	err := l.Backend.Commit(ctx, cluster, term, ops)
	if die {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return err
}

// assemble makes a framework with the real scheduler and the real client.
func assemble(t testing.TB, back store.Backend, master string, log *zap.Logger) *framework.Framework {
	st, err := store.Open(context.Background(), back, "", "test")
	if err != nil {
		t.Fatal(err)
	}
	client, err := mesos.New(mesos.Config{Master: master, MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Log: log,
		Info: mesos.Identity{Name: "test", User: "nobody", Roles: []string{"holdfast"}, FailoverTimeout: time.Hour}.FrameworkInfo()})
	if err != nil {
		t.Fatal(err)
	}
	f, err := framework.New(framework.Config{Step: scheduler.Step, Store: st, Master: client, Log: log,
		Nodes: func(emit func(scheduler.Event)) (framework.Nodes, error) { return quietNodes{emit}, nil },
		Scheduler: scheduler.Config{Role: "holdfast", DefaultPolicy: "lease", MinGrade: "reset", DeclineFor: time.Second, HoldFor: time.Second,
			KillRetry: 200 * time.Millisecond, ReconcileMin: 50 * time.Millisecond, ReconcileMax: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func webApp(version string, n int) scheduler.PutApp {
	return scheduler.PutApp{Create: true, Changes: []scheduler.AppPut{{Instances: n, Def: &state.Def{App: "/web", Version: version,
		Spec: state.Spec{Cmd: "sleep 1000", CPUs: .1, MemMB: 16, Backoff: state.Backoff{Base: 10 * time.Millisecond, Factor: 1.1, Max: 50 * time.Millisecond},
			Upgrade: state.Upgrade{MaxOver: 1, MinHealth: 1}}, Source: []byte(`{}`)}}}}
}

// cluster plays agents behind a mastertest.Master: one agent with plenty, tasks that start and run until they are killed, statuses that are
// repeated until they are acknowledged, answers to reconciliation.
type cluster struct {
	*mastertest.Master
	t    testing.TB
	stop chan struct{}
	wg   sync.WaitGroup

	mu     sync.Mutex
	offers int
	seq    int
	tasks  map[string]mesoslib.TaskState
	unack  map[string]pendingStatus // by task
	acked  map[string]mesoslib.TaskState
	twice  []string
}

type pendingStatus struct {
	uuid  string
	state mesoslib.TaskState
}

func newCluster(t testing.TB) *cluster {
	c := &cluster{Master: mastertest.New(), t: t, stop: make(chan struct{}), tasks: map[string]mesoslib.TaskState{}, unack: map[string]pendingStatus{}, acked: map[string]mesoslib.TaskState{}}
	c.Answer(c.call)
	c.wg.Add(1)
	go c.run()
	t.Cleanup(func() {
		close(c.stop)
		c.Close()
		c.wg.Wait()
	})
	return c
}

// run offers, and repeats statuses that nobody acknowledged.
func (c *cluster) run() {
	defer c.wg.Done()
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		c.offers++
		id := fmt.Sprintf("O%d", c.offers)
		again := map[string]pendingStatus{}
		for task, s := range c.unack {
			again[task] = s
		}
		c.mu.Unlock()
		c.Offer(id, "S0", 8, 4096, 31000, 31999)
		for task, s := range again {
			c.Status(task, "S0", s.state, s.uuid)
		}
	}
}

func (c *cluster) update(task string, st mesoslib.TaskState) {
	c.seq++
	c.tasks[task] = st
	c.unack[task] = pendingStatus{fmt.Sprintf("%016d", c.seq), st}
}

func (c *cluster) call(call *msched.Call) (int, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch call.Type {
	case msched.Call_ACCEPT:
		for _, op := range call.Accept.Operations {
			for _, info := range op.Launch.TaskInfos {
				c.launch(info.TaskID.Value)
			}
		}
	case msched.Call_KILL:
		if st, ok := c.tasks[call.Kill.TaskID.Value]; ok && st == mesoslib.TASK_RUNNING {
			c.update(call.Kill.TaskID.Value, mesoslib.TASK_KILLED)
		}
	case msched.Call_ACKNOWLEDGE:
		task := call.Acknowledge.TaskID.Value
		if s, ok := c.unack[task]; ok && s.uuid == string(call.Acknowledge.UUID) {
			delete(c.unack, task)
			c.acked[task] = s.state
		}
	case msched.Call_RECONCILE:
		go c.reconcile(call.Reconcile)
	}
	return 0, ""
}

func (c *cluster) launch(task string) {
	if _, known := c.tasks[task]; known {
		c.twice = append(c.twice, "task id used twice: "+task)
	}
	id, _, _ := state.ParseTaskID(state.TaskID(task))
	for other, st := range c.tasks {
		if oid, _, _ := state.ParseTaskID(state.TaskID(other)); oid == id && st == mesoslib.TASK_RUNNING {
			c.twice = append(c.twice, fmt.Sprintf("%s was launched while %s ran", task, other))
		}
	}
	c.update(task, mesoslib.TASK_RUNNING)
}

func (c *cluster) reconcile(r *msched.Call_Reconcile) {
	c.mu.Lock()
	answer := map[string]mesoslib.TaskState{}
	if len(r.Tasks) == 0 {
		for task, st := range c.tasks {
			if st == mesoslib.TASK_RUNNING {
				answer[task] = st
			}
		}
	}
	for _, t := range r.Tasks {
		st, ok := c.tasks[t.TaskID.Value]
		if !ok {
			st = mesoslib.TASK_GONE
		}
		answer[t.TaskID.Value] = st
	}
	c.mu.Unlock()
	for task, st := range answer {
		c.Status(task, "S0", st, "")
	}
}

func (c *cluster) running() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for task, st := range c.tasks {
		if st == mesoslib.TASK_RUNNING {
			out = append(out, task)
		}
	}
	return out
}

// check holds what must be true after every death: nothing was acknowledged that the store does not know.
func (c *cluster) check(dir string) {
	c.t.Helper()
	back, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer back.Close()
	st, err := store.Open(context.Background(), back, "", "audit")
	if err != nil {
		c.t.Fatal(err)
	}
	writes, bad, err := st.Load(context.Background())
	if err != nil || len(bad) > 0 {
		c.t.Fatal(err, bad)
	}
	runs := map[string]*state.Run{}
	for _, w := range writes {
		if i, ok := w.Value.(*state.Instance); ok && i.Run != nil {
			runs[string(i.Run.Task)] = i.Run
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for task, st := range c.acked {
		if st != mesoslib.TASK_RUNNING || c.tasks[task] != mesoslib.TASK_RUNNING {
			continue
		}
		if r := runs[task]; r == nil || r.MesosState != "TASK_RUNNING" {
			c.t.Errorf("%s of %s was acknowledged, but the store has %+v", st, task, r)
		}
	}
	for _, s := range c.twice {
		c.t.Error(s)
	}
	c.twice = nil
}

const childVariable = "HOLDFAST_CRASH_CHILD"

// TestHeavyKillBetweenCommitAndCalls kills the framework with SIGKILL at one commit after the other, before it and right after it, while an app
// is created, scaled up and down. After every death nothing may have been acknowledged that is not in the store, no task may have been launched
// twice, and the last life must reach what was wanted.
func TestHeavyKillBetweenCommitAndCalls(t *testing.T) {
	if v := os.Getenv(childVariable); v != "" {
		crashChild(t, v)
		return
	}
	heavy.Require(t)
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			dir, c := t.TempDir(), newCluster(t)
			deaths := 0
			for n := range 40 {
				out, err := life(t, dir, c, fmt.Sprint(1+n%7), fmt.Sprint(after), fmt.Sprint([]int{3, 8, 1, 5}[n%4]))
				switch {
				case err == nil: // it reached its goal with fewer commits
				case strings.Contains(err.Error(), "killed"):
					deaths++
				default:
					t.Fatalf("life %d: %v\n%s", n, err, out)
				}
				c.check(dir)
			}
			t.Logf("%d deaths in 40 lives", deaths)
			if out, err := life(t, dir, c, "0", "false", "4"); err != nil {
				t.Fatalf("last life: %v\n%s", err, out)
			}
			c.check(dir)
			if r := c.running(); len(r) != 4 {
				t.Errorf("in the end %q run, want 4", r)
			}
		})
	}
}

// life runs a framework as a child until it is killed by its own back end or the app runs as wanted.
func life(t *testing.T, dir string, c *cluster, args ...string) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHeavyKillBetweenCommitAndCalls$", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), childVariable+"="+strings.Join(append([]string{dir, c.URL()}, args...), " "))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("a life did not end\n%s", out.Bytes())
	}
	return out.Bytes(), err
}

// crashChild wants n instances of /web to run, and ends when they do.
func crashChild(t *testing.T, arg string) {
	f := strings.Fields(arg)
	at, _ := strconv.Atoi(f[2])
	want, _ := strconv.Atoi(f[4])
	db, err := bolt.Open(f[0], bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log, _ := zap.NewDevelopment()
	fw := assemble(t, &lethal{Backend: db, at: at, after: f[3] == "true"}, f[1], log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fw.Run(ctx) }()
	for !fw.Ready() {
		time.Sleep(time.Millisecond)
	}
	_, err = fw.Do(ctx, webApp(time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), want))
	if fault.Is(err, fault.Exists) {
		_, err = fw.Do(ctx, scheduler.ScaleApp{App: "/web", Instances: want, Force: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		running, others := 0, 0
		fw.View(func(s *state.State) {
			for _, i := range s.Instances {
				if i.Phase == state.PhaseRunning && i.Goal == state.GoalRun {
					running++
				} else {
					others++
				}
			}
			if len(s.Deployments) > 0 {
				others++
			}
		})
		if running == want && others == 0 {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	db.Close()
}

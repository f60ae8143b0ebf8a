package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestSplitContainer(t *testing.T) {
	for in, want := range map[state.TaskID]string{
		"prod_db.2.17-3f9c2a.web": "prod_db.2.17-3f9c2a web",
		"a.b.0.1-abcdef.c-abcdef": "a.b.0.1-abcdef c-abcdef",
		"a.0.1-abcdef.1-abcdef":   "a.0.1-abcdef 1-abcdef",
		"prod_db.2.17-3f9c2a":     "",
		"x.0.1-abcd.2.17-3f9c2a":  "", // an app whose id looks like one
		"x.0.1-abcd.2":            "",
		"x.0.1-zzzzzz.web":        "",
		"prod_db.2.17-3f9c2a.":    "",
		"web":                     "",
		"":                        "",
		state.TaskID("a.0.1-abcdef").Container("x"): "a.0.1-abcdef x",
	} {
		got := ""
		if run, name, ok := state.SplitContainer(in); ok {
			got = string(run) + " " + name
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// podWorld is one running pod of two containers, the second with a health check.
type podWorld struct {
	t   *testing.T
	s   *state.State
	now time.Time
}

const podRun0 = "p.0.1-abcdef"

func newPodWorld(t *testing.T) *podWorld {
	p := &podWorld{t: t, s: state.New(), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	spec := state.Spec{CPUs: 1, MemMB: 64, Backoff: state.Backoff{Base: time.Second, Factor: 2, Max: time.Minute}, PodExecutor: &state.PodExecutor{CPUs: .1, MemMB: 32}, Unreachable: state.Unreachable{Inactive: time.Hour, Expunge: time.Hour},
		Containers: []state.PodContainer{{Name: "a", CPUs: .4, MemMB: 16}, {Name: "b", CPUs: .5, MemMB: 16, Health: &state.HealthCheck{Protocol: "COMMAND"}}}}
	run := &state.Run{Task: podRun0, Version: "v1", Agent: "S0", Hostname: "h", Pod: podRun(&spec), StagedAt: p.now}
	p.s.Apply([]state.Write{
		{Kind: state.KindFramework, Value: &state.Framework{ID: "f", Cluster: "c", Rev: 1}},
		{Kind: state.KindSession, Value: &state.Session{Connected: true, Reconciled: true, ReconcileAt: p.now.Add(time.Hour)}},
		{Kind: state.KindApp, ID: "/p", Value: &state.App{ID: "/p", Version: "v1", Instances: 1}},
		{Kind: state.KindDef, ID: state.DefID("/p", "v1"), Value: &state.Def{App: "/p", Version: "v1", Spec: spec}},
		{Kind: state.KindInstance, ID: "p.0", Value: &state.Instance{ID: "p.0", App: "/p", Goal: state.GoalRun, Version: "v1", Phase: state.PhaseLaunching, Since: p.now,
			Incarnation: 1, Run: run, WakeAt: p.now.Add(time.Hour)}},
	})
	return p
}

// status tells of a container, and gives the master's calls that it led to.
func (p *podWorld) status(container, mesos string, more ...func(*Status)) string {
	p.t.Helper()
	e := Status{Task: state.TaskID(podRun0).Container(container), Agent: "S0", State: mesos, UUID: []byte(container + mesos)}
	for _, f := range more {
		f(&e)
	}
	return p.step(e)
}

func (p *podWorld) step(e Event) string {
	p.t.Helper()
	p.now = p.now.Add(100 * time.Millisecond)
	plan := Step(p.s, e, Env{Now: p.now, Config: Config{Role: "r", KillRetry: 5 * time.Second, ReconcileMin: time.Second, ReconcileMax: time.Minute}})
	p.s.Apply(plan.Writes)
	var text []string
	for _, c := range plan.Calls {
		switch c := c.(type) {
		case Acknowledge:
			text = append(text, "ack "+strings.TrimPrefix(string(c.Task), podRun0))
		case Kill:
			text = append(text, "kill "+strings.TrimPrefix(string(c.Task), podRun0))
		case Reconcile:
			for _, t := range c.Tasks {
				text = append(text, "ask "+strings.TrimPrefix(string(t.Task), podRun0))
			}
		}
	}
	slices.Sort(text)
	return strings.Join(text, ", ")
}

func (p *podWorld) is(what, got, calls string, phase state.Phase) {
	p.t.Helper()
	i := p.s.Instances["p.0"]
	if got != calls || i.Phase != phase {
		p.t.Fatalf("%s: calls %q, %s; want %q, %s (run %+v)", what, got, i.Phase, calls, phase, i.Run)
	}
}

func healthy(h bool) func(*Status) { return func(s *Status) { s.Healthy = &h } }

func TestPodFolds(t *testing.T) {
	p := newPodWorld(t)
	p.is("first", p.status("a", "TASK_STARTING"), "ack .a", state.PhaseStaging)
	p.is("one runs", p.status("a", "TASK_RUNNING"), "ack .a", state.PhaseStaging)
	p.is("both run", p.status("b", "TASK_RUNNING"), "ack .b", state.PhaseRunning)
	if h := p.s.Instances["p.0"].Run.Healthy; h != nil {
		t.Fatalf("healthy before any result: %v", *h)
	}
	p.is("healthy", p.status("b", "TASK_RUNNING", healthy(true)), "ack .b", state.PhaseRunning)
	if h := p.s.Instances["p.0"].Run.Healthy; h == nil || !*h {
		t.Fatal("not healthy")
	}
	p.is("one is done", p.status("a", "TASK_FINISHED"), "ack .a", state.PhaseRunning)
	p.is("the master has forgotten it", p.status("a", "TASK_GONE"), "ack .a", state.PhaseRunning)
	p.is("unreachable", p.status("b", "TASK_UNREACHABLE"), "ack .b", state.PhaseLost)
	p.is("it is back", p.status("b", "TASK_RUNNING"), "ack .b", state.PhaseRunning)
	p.is("all is done", p.status("b", "TASK_FINISHED"), "ack .b", state.PhaseWaiting)
	if i := p.s.Instances["p.0"]; i.Failures != 1 {
		t.Errorf("an end that nobody ordered counts: %d", i.Failures)
	}
}

func TestPodFailsTogether(t *testing.T) {
	p := newPodWorld(t)
	p.status("a", "TASK_RUNNING")
	p.status("b", "TASK_RUNNING")
	p.is("a container fails", p.status("a", "TASK_FAILED", func(s *Status) { s.Message = "exit 3" }), "ack .a, kill .b", state.PhaseKilling)
	f := p.s.Apps["/p"].LastTaskFailure
	if f == nil || f.Message != "container a: exit 3" || f.State != "TASK_FAILED" {
		t.Fatalf("last failure %+v", f)
	}
	p.now = p.now.Add(6 * time.Second)
	p.is("the kill is repeated, to what is left", p.step(Tick{}), "kill .b", state.PhaseKilling)
	p.is("all over", p.status("b", "TASK_KILLED"), "ack .b", state.PhaseWaiting)
	if i := p.s.Instances["p.0"]; i.Failures != 1 || i.Run != nil {
		t.Errorf("failures %d, run %+v", i.Failures, i.Run)
	}
}

func TestPodIsAskedForAndKilled(t *testing.T) {
	p := newPodWorld(t)
	p.status("a", "TASK_RUNNING")
	p.status("b", "TASK_RUNNING")
	p.is("its agent is lost", p.step(AgentLost{Agent: "S0"}), "ask .a, ask .b", state.PhaseRunning)
	p.is("scaled away", p.step(ScaleApp{App: "/p", Instances: 0, Force: true}), "kill .a, kill .b", state.PhaseKilling)
	p.is("a stranger", p.status("c", "TASK_RUNNING"), "ack .c, kill .c", state.PhaseKilling)
	p.status("a", "TASK_KILLED")
	p.status("b", "TASK_KILLED")
	if i := p.s.Instances["p.0"]; i != nil {
		t.Errorf("left: %+v", i)
	}
}

// Whatever order the statuses of two containers come in, each is acknowledged once, and the run ends exactly when both have ended.
func TestPodOrders(t *testing.T) {
	a := []string{"TASK_STARTING", "TASK_RUNNING", "TASK_FAILED"}
	b := []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED"}
	for mask := range 1 << 6 {
		p := newPodWorld(t)
		x, y, order := 0, 0, ""
		for bit := range 6 {
			name, list, n := "a", a, &x
			if mask>>bit&1 == 1 {
				name, list, n = "b", b, &y
			}
			if *n == 3 {
				break
			}
			s := list[*n]
			*n++
			order += fmt.Sprint(" ", name, " ", s)
			calls := p.status(name, s)
			if !strings.Contains(calls, "ack ."+name) {
				t.Fatalf("%s: %s", order, calls)
			}
			i := p.s.Instances["p.0"]
			if over := x == 3 && y == 3; over != (i.Run == nil) {
				t.Fatalf("%s: run %+v", order, i.Run)
			}
		}
	}
}

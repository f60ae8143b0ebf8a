package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// benchState has an app of many waiting instances that fit nowhere at once (all offers are too small but for every tenth), on a state of
// 100,000 running ones.
func benchState(b *testing.B, running, waiting int, apps int) (*state.State, Env) {
	b.Helper()
	s := state.New()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	env := Env{Now: now, Config: Config{Role: "holdfast", DefaultPolicy: "lease"}}
	var writes []state.Write
	put := func(k state.Kind, id string, v any) { writes = append(writes, state.Write{Kind: k, ID: id, Value: v}) }
	app := func(id state.AppID, n int, cpus float64) {
		put(state.KindDef, state.DefID(id, "v1"), &state.Def{App: id, Version: "v1", Spec: state.Spec{CPUs: cpus, MemMB: 100, Upgrade: state.Upgrade{MinHealth: 1}}})
		put(state.KindApp, string(id), &state.App{ID: id, Version: "v1", Instances: n})
	}
	for a := range running / 1000 {
		id := state.AppID(fmt.Sprintf("/running%d", a))
		app(id, 1000, 1)
		for n := range 1000 {
			iid := state.NewInstanceID(id, n)
			put(state.KindInstance, string(iid), &state.Instance{ID: iid, App: id, Ordinal: n, Goal: state.GoalRun, Version: "v1", Phase: state.PhaseRunning, Incarnation: 1,
				Run: &state.Run{Task: state.NewTaskID(iid, 1, "abcdef"), Version: "v1", Agent: state.AgentID(fmt.Sprintf("agent%d", n))}})
		}
	}
	for a := range apps {
		id := state.AppID(fmt.Sprintf("/waiting%d", a))
		app(id, waiting/apps, 2)
		for n := range waiting / apps {
			iid := state.NewInstanceID(id, n)
			put(state.KindInstance, string(iid), &state.Instance{ID: iid, App: id, Ordinal: n, Goal: state.GoalRun, Version: "v1", Phase: state.PhaseWaiting, Since: now})
		}
	}
	put(state.KindSession, "", &state.Session{Connected: true, Reconciled: true, AuthoritySeen: true, ClaimsSeen: true, NodesSeen: true, ReconcileAt: now.Add(time.Hour)})
	s.Apply(writes)
	return s, env
}

func benchOffers(cpus float64) Offers {
	var e Offers
	for n := range 1000 {
		name := fmt.Sprintf("agent%d", n)
		e.Offers = append(e.Offers, &state.Offer{ID: fmt.Sprintf("o%d", n), Agent: state.AgentID(name), Hostname: name, Role: "holdfast",
			Resources: []state.Resource{{Name: "cpus", Scalar: cpus}, {Name: "mem", Scalar: 1000}, {Name: "ports", Ranges: []state.Range{{Begin: 31000, End: 32000}}}}})
	}
	return e
}

// BenchmarkOffers is one OFFERS event with 1,000 offers, beside 100,000 running instances.
func BenchmarkOffers(b *testing.B) {
	for _, c := range []struct {
		waiting, apps int
		cpus          float64
		what          string
	}{{0, 0, 4, ""}, {1000, 1, 1, "/too-small"}, {10000, 1, 1, "/too-small"}, {10000, 100, 1, "/too-small"}, {10000, 5000, 1, "/too-small"}, {1000, 1, 4, "/fits"}, {10000, 1, 4, "/fits"}, {10000, 100, 4, "/fits"}} {
		b.Run(fmt.Sprintf("waiting=%d/apps=%d%s", c.waiting, c.apps, c.what), func(b *testing.B) {
			s, env := benchState(b, 100000, c.waiting, max(1, c.apps))
			if c.waiting == 0 {
				s, env = benchState(b, 100000, 0, 0)
			}
			e := benchOffers(c.cpus)
			for _, wr := range Step(s, e, env).Writes { // the agents are known from earlier offers
				if wr.Kind == state.KindAgent {
					s.Apply([]state.Write{wr})
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				Step(s, e, env)
			}
		})
	}
}

// BenchmarkStatus is one TASK_RUNNING of one of 100,000 running instances.
func BenchmarkStatus(b *testing.B) {
	s, env := benchState(b, 100000, 10000, 1)
	e := Status{Task: "running5.500.1-abcdef", Agent: "agent500", State: "TASK_RUNNING", UUID: []byte("u")}
	b.ReportAllocs()
	for b.Loop() {
		Step(s, e, env)
	}
}

// BenchmarkApply is the commit side of it.
func BenchmarkApply(b *testing.B) {
	s, env := benchState(b, 100000, 10000, 1)
	p := Step(s, Status{Task: "running5.500.1-abcdef", Agent: "agent500", State: "TASK_RUNNING", UUID: []byte("u")}, env)
	b.ReportAllocs()
	for b.Loop() {
		s.Apply(p.Writes)
	}
}

package scheduler

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestBatches: a change to many instances is made in Steps of a bounded size that follow each other at once, also over a crash.
func TestBatches(t *testing.T) {
	s := state.New()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	most, n := 0, 0
	step := func(e Event) Plan {
		n++
		p := Step(s, e, Env{Now: now, Entropy: sha256.Sum256([]byte{byte(n), byte(n >> 8)})})
		durable := 0
		for _, w := range p.Writes {
			if w.Kind.Durable() {
				durable++
			}
		}
		most = max(most, durable)
		s.Apply(p.Writes)
		return p
	}
	// run ticks as long as the plan asks for more at once.
	run := func(p Plan, limit int) {
		for range limit {
			if p.Wake.IsZero() || p.Wake.After(now) {
				return
			}
			p = step(Tick{})
		}
	}
	def := &state.Def{App: "/many", Version: "v1", Spec: state.Spec{CPUs: 1, Upgrade: state.Upgrade{MinHealth: 0.5}}}
	step(Loaded{})
	step(Subscribed{FrameworkID: "F1"})
	run(step(PutApp{Changes: []AppPut{{Def: def, Instances: 1000}}}), 3)
	if got := len(s.InstancesOf("/many")); got != 4*changeBatch {
		t.Fatalf("%d instances after four Steps", got)
	}
	s = durable(s)
	run(step(Loaded{}), 100)
	if got := len(s.InstancesOf("/many")); got != 1000 {
		t.Fatalf("%d instances", got)
	}
	// One agent has room for all of them.
	step(Subscribed{FrameworkID: "F1"})
	run(step(Offers{Offers: []*state.Offer{{ID: "o", Agent: "a", Hostname: "a", Resources: []state.Resource{{Name: "cpus", Scalar: 2000}}}}}), 100)
	launched := 0
	for _, i := range s.InstancesOf("/many") {
		if i.Phase == state.PhaseLaunching {
			launched++
			step(Status{Task: i.Run.Task, Agent: "a", State: "TASK_RUNNING"})
		}
	}
	if launched == 0 || len(s.Offers) != 0 {
		t.Fatalf("%d launched, %d offers held", launched, len(s.Offers))
	}
	run(step(ScaleApp{App: "/many", Instances: 3, Force: true}), 100)
	for len(s.InstancesOf("/many")) > 3 {
		i := s.InstancesOf("/many")[3]
		if i.Phase != state.PhaseKilling {
			t.Fatalf("%s is %s", i.ID, i.Phase)
		}
		step(Status{Task: i.Run.Task, Agent: "a", State: "TASK_KILLED"})
	}
	if most > 3*changeBatch+5 {
		t.Errorf("one Step wrote %d records", most)
	}
}

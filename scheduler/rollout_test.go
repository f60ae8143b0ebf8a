package scheduler

import (
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// What the model of the world knows of rollouts: apps that are serial, partitioned, bounded and checked, pauses, and the promises about them.

// vary gives a definition random wishes about how it is changed and checked.
func (w *world) vary(s *state.Spec) {
	if w.r.Intn(3) == 0 {
		s.Rollout.Serial = true
	}
	if w.r.Intn(4) == 0 {
		s.Rollout.Partition = w.r.Intn(4)
	}
	if w.r.Intn(4) == 0 {
		s.Rollout.Min = w.r.Intn(3)
	}
	if w.r.Intn(4) == 0 {
		s.Rollout.Max = 3 + w.r.Intn(2)
	}
	if w.r.Intn(4) == 0 {
		s.HealthChecks = []state.HealthCheck{{Protocol: "HTTP", MaxFailures: 3}}
	}
	if w.r.Intn(5) == 0 {
		s.ReadinessChecks = []state.ReadinessCheck{{Name: "r"}}
	}
}

// probe lets the framework's own checks look at a running task.
func (w *world) probe(t *wTask) {
	i := w.s.InstanceByTask(t.id)
	if i == nil || i.Run.Idle || w.r.Intn(2) == 0 {
		return
	}
	s := w.s.Def(i.App, i.Run.Version)
	if s == nil || len(s.Spec.HealthChecks)+len(s.Spec.ReadinessChecks) == 0 {
		return
	}
	e := Health{Task: t.id, Ready: len(s.Spec.ReadinessChecks) > 0 && (w.calm || w.r.Intn(2) == 0)}
	if len(s.Spec.HealthChecks) > 0 {
		ok := w.calm || w.r.Intn(5) > 0
		e.Healthy = &ok
		if !ok && w.r.Intn(4) == 0 {
			e.Kill = "its health checks failed"
		}
	}
	w.fromProbe = append(w.fromProbe, e)
}

// resumeAll ends what people hold: the world can come to rest only then.
func (w *world) resumeAll() {
	for _, id := range sortedKeys(w.s.Deployments) {
		if w.s.Deployments[id] != nil {
			w.step(PauseDeployment{Deployment: id, Resume: true}, 0)
		}
	}
	for _, id := range sortedKeys(w.s.Instances) {
		if i := w.s.Instances[id]; i != nil && i.Paused {
			w.step(PauseInstance{Instance: id, Resume: true}, 0)
		}
	}
	// An update that minInstances does not let go on would wait for ever: people take the bound away.
	for _, id := range sortedKeys(w.s.Apps) {
		a := w.s.Apps[id]
		d := w.s.Def(id, a.Version)
		if a.Removed || d == nil || d.Spec.Rollout.Min < a.Instances || d.Spec.Rollout.Min == 0 {
			continue
		}
		c := *d
		w.now = w.now.Add(time.Millisecond)
		c.Version, c.Spec.Rollout.Min = w.now.Format(versionFormat), 0
		w.step(PutApp{Changes: []AppPut{{Def: &c, Instances: a.Instances}}, Force: true}, 0)
	}
}

// tally of one app, before and after a Step.
type wTally struct {
	up      map[state.InstanceID]bool
	starts  int
	wanted  int
	serial  bool
	version string
}

func (w *world) census() map[state.AppID]*wTally {
	look := newWork(w.s, Env{Now: w.now})
	out := map[state.AppID]*wTally{}
	for id, a := range w.s.Apps {
		t := &wTally{up: map[state.InstanceID]bool{}, serial: look.serial(id), version: a.Version}
		for _, i := range w.s.InstancesOf(id) {
			if look.up(i) {
				t.up[i.ID] = true
			}
			if starts(i) {
				t.starts++
			}
			if i.Goal == state.GoalRun {
				t.wanted++
			}
		}
		out[id] = t
	}
	return out
}

// compare looks at the promises about rollouts after a Step.
func (w *world) compare(before map[state.AppID]*wTally, e Event) {
	after := w.census()
	var down state.TaskID // what the event itself took down
	if h, ok := e.(Health); ok && h.Healthy != nil && !*h.Healthy {
		down = h.Task
	}
	for _, id := range sortedKeys(after) {
		a, was, is := w.s.Apps[id], before[id], after[id]
		d := w.s.Def(id, a.Version)
		if was == nil || d == nil || a.Removed {
			continue
		}
		if _, news := e.(Status); !news && is.serial && is.starts > 1 && is.starts > was.starts {
			w.broken("%d instances of serial app %s start at a time", is.starts, id)
		}
		if m := d.Spec.Rollout.Max; m > 0 && is.wanted > m && is.wanted > was.wanted {
			w.broken("app %s may have %d instances and is to have %d", id, m, is.wanted)
		}
		rolled := 0
		for _, i := range w.s.InstancesOf(id) {
			if was.up[i.ID] && i.Run != nil && i.Run.Task != down && i.Goal == state.GoalRun && i.Phase == state.PhaseKilling && (strings.HasPrefix(i.KillReason, "its app has a new version") || strings.HasPrefix(i.KillReason, "its app was restarted")) {
				rolled++
			}
		}
		if least := rollout.Least(a.Instances, 0, &d.Spec); rolled > 0 && len(is.up) < least {
			w.broken("the update of app %s took %d instances down, and only %d of at least %d are up", id, rolled, len(is.up), least)
		}
		if dep := w.s.Deployments[a.Deployment]; dep != nil && dep.Paused && rolled > 0 && was.version == a.Version {
			w.broken("the update of app %s goes on while its deployment is paused", id)
		}
	}
}

package scheduler

import (
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// wPrimary is what the world was told of an app's primary.
type wPrimary struct {
	task state.TaskID
	term uint64
}

// runsStill tells whether a task runs somewhere, for all that the framework may know of it.
func (w *world) runsStill(task state.TaskID) bool {
	for _, a := range w.agents {
		if t := a.tasks[task]; t != nil && t.phase != "over" && !a.gone && !a.host.dead {
			return true
		}
	}
	return false
}

// checkPrimaries looks at the promises about primaries after a Step: never two, and terms that only grow.
func (w *world) checkPrimaries() {
	for _, id := range sortedKeys(w.s.Apps) {
		p := w.s.Apps[id].Primary
		if p == nil {
			continue
		}
		last := w.primaries[id]
		if p.Term < last.term {
			w.broken("the term of app %s falls from %d to %d", id, last.term, p.Term)
		}
		if !p.Named || last == (wPrimary{p.Task, p.Term}) {
			continue
		}
		if p.Term == last.term {
			w.broken("app %s names %s and %s in term %d", id, last.task, p.Task, p.Term)
		}
		if last.task != "" && last.task != p.Task && !w.demoted[last.task] && w.runsStill(last.task) {
			w.broken("app %s names %s while %s, which was named before, still runs", id, p.Task, last.task)
		}
		w.logf("  primary of %s: %s in term %d", id, p.Task, p.Term)
		w.primaries[id] = wPrimary{p.Task, p.Term}
	}
}

// yields lets a run that is the primary no more say so.
func (w *world) yields() {
	for _, id := range sortedKeys(w.s.Apps) {
		if p := w.s.Apps[id].Primary; p != nil && p.Task != "" && !p.Named && w.steps%3 == 0 {
			w.demoted[p.Task] = true
			w.step(YieldPrimary{App: id, Task: p.Task, Term: p.Term}, 0)
			w.step(YieldPrimary{App: id, Task: p.Task, Term: p.Term}, 0) // it is not told twice
			return
		}
	}
}

// primaryTrouble says where there is no primary though there could be one.
func (w *world) primaryTrouble(say func(string, ...any)) {
	look := newWork(w.s, Env{Now: w.now})
	for _, id := range sortedKeys(w.s.Apps) {
		a := w.s.Apps[id]
		d := w.s.Def(id, a.Version)
		if d == nil || !d.Spec.Primary || a.Removed {
			continue
		}
		p, could := a.Primary, false
		for _, i := range w.s.InstancesOf(id) {
			could = could || i.Goal == state.GoalRun && look.up(i) && (p == nil || i.Run.Task != p.Yielded)
		}
		switch {
		case !could, p != nil && p.Named:
		case p != nil && p.Task != "" && !p.Claimed && (p.Blind || !w.runsStill(p.Task)): // nobody can tell that it is over
		default:
			say("app %s has no primary: %+v", id, p)
		}
	}
}

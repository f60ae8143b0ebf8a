package scheduler

import (
	"fmt"
	"math/rand"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The part of the world that ends frameworks: TEARDOWN, the failover timeout, another scheduler with the same id, and starting over.

// wEnd is what the master knows of framework ids. Its random numbers are its own, so that histories without an end stay what they were.
type wEnd struct {
	r    *rand.Rand
	n    int    // the number in the newest id
	over string // the newest id that is over for good
}

func newEnd(seed int64) wEnd {
	e := wEnd{r: rand.New(rand.NewSource(seed ^ 0x5eed))}
	if e.r.Intn(3) > 0 {
		e.r = nil // nothing ends in this history
	}
	return e
}

// endOrder is an operator's or a master's doing that ends the framework, or begins it anew.
func (w *world) endOrder() {
	if w.end.r == nil {
		return
	}
	switch n := w.end.r.Intn(10); {
	case n == 0:
		w.step(Teardown{By: "test"}, w.crashing())
	case n == 1:
		w.step(Teardown{By: "test", Force: true}, w.crashing())
	case n == 2 && w.connected:
		w.logf("another scheduler takes the id")
		w.disconnect()
		w.fromMaster = []Event{Stopped{Reason: "Framework failed over"}}
	case n <= 4 && !w.connected && len(w.fromMaster) == 0 && w.s.Framework.ID != "":
		w.logf("the failover timeout passes")
		w.frameworkEnds()
	default:
		w.startOver(w.crashing())
	}
}

// frameworkEnds is the master's removal of the framework: its tasks are to be killed, wherever an agent hears of it.
func (w *world) frameworkEnds() {
	w.end.over = fmt.Sprintf("F%d", w.end.n)
	for _, a := range w.agents {
		for _, t := range a.tasks {
			t.orphan = true
		}
	}
	w.ops = map[string]*wOp{}
	w.disconnect()
	w.toMaster = nil
}

// startOver may be taken only for a framework that the master has ended: another one's tasks would be orphaned.
func (w *world) startOver(crash int) {
	before := w.s.Framework.ID
	w.step(StartOver{By: "test"}, crash)
	if w.s.Framework.ID == "" && before != "" && before != w.end.over {
		w.broken("started over, and the master never said that %s is over", before)
	}
}

// checkEnd panics when something is started after a teardown was ordered.
func (w *world) checkEnd(c Call) {
	a, ok := c.(Accept)
	if ok && w.s.Framework != nil && w.s.Framework.Teardown != nil {
		w.broken("ACCEPT of %d launches and %d operations after the teardown", len(a.Launches), len(a.Operations))
	}
}

// mayRegister tells whether the framework's process goes to the master at all; a word that ended it is said again to one that does not know it.
func (w *world) mayRegister() bool {
	fw := w.s.Framework
	switch {
	case fw.ID == "":
		w.end.n++
		return true
	case fw.ID != w.end.over:
		return w.s.Session.Stopped == ""
	case !w.s.Session.Over:
		w.fromMaster = []Event{Stopped{Reason: "Framework has been removed", Over: true}}
	}
	return false
}

// beginAgain is a person who wants the framework to live: it starts over when it is over, and takes the place of another.
func (w *world) beginAgain() {
	switch fw, ses := w.s.Framework, w.s.Session; {
	case fw.ID == "":
	case ses.Over || fw.Teardown != nil && fw.Teardown.Done:
		w.startOver(0)
	case ses.Stopped != "" && fw.ID != w.end.over:
		w.restart()
	}
}

// endTrouble names what is left of frameworks that are over.
func (w *world) endTrouble(say func(string, ...any)) {
	if fw := w.s.Framework; fw.Teardown != nil || w.s.Session.Stopped != "" {
		say("framework %s: teardown %+v, stopped %q", fw.ID, fw.Teardown, w.s.Session.Stopped)
	}
	for _, id := range sortedKeys(w.agents) {
		a := w.agents[id]
		for _, tid := range sortedKeys(a.tasks) {
			if t := a.tasks[tid]; t.orphan && !a.gone && t.phase != "over" {
				say("task %s of a framework that is over runs", tid)
			}
		}
	}
}

// known tells whether the master knows a task as one of the framework's that is registered now.
func (a *wAgent) known(id state.TaskID) *wTask {
	if t := a.tasks[id]; t != nil && !t.orphan {
		return t
	}
	return nil
}

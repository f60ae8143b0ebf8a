package scheduler

import (
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// framework is the framework's own record as it is now, nil before it was made.
func (w *work) framework() *state.Framework {
	return look(w, state.KindFramework, "", w.s.Framework)
}

func (w *work) putFramework(f state.Framework) {
	f.Rev++
	w.put(state.KindFramework, "", &f)
}

// teardown ends the framework at the master. The order is durable before the call, which is repeated after every connection until the
// master says that the framework is over.
func (w *work) teardown(e Teardown) *Reply {
	fw := w.framework()
	switch {
	case fw == nil || fw.ID == "":
		return refuse(fault.New(fault.Conflict, "tear down: the framework never registered at a master, so there is nothing to end there"))
	case fw.Teardown != nil:
		return &Reply{}
	}
	if left := w.remains(); len(left) > 0 && !e.Force {
		return refuse(fault.New(fault.Conflict, "tear down: there are still %s. Remove and release them first (holdfast uninstall does)", strings.Join(left, ", ")))
	}
	n := *fw
	n.Teardown = &state.Teardown{By: e.By, At: w.now}
	w.putFramework(n)
	w.dropOffers() // launches that wait for their grants are called off, too
	if w.session().Connected {
		w.master(EndFramework{})
	}
	return &Reply{}
}

// remains says what would be lost or left by an end.
func (w *work) remains() (left []string) {
	add := func(n int, one, many string) {
		switch {
		case n == 1:
			left = append(left, "one "+one)
		case n > 1:
			left = append(left, strconv.Itoa(n)+" "+many)
		}
	}
	add(len(w.s.Apps), "app", "apps")
	add(len(w.s.Instances), "instance", "instances")
	add(len(w.s.Reserved), "reservation", "reservations")
	return left
}

// ending tells whether an operator has ended the framework: nothing is launched or reserved any more, whether the master knows it yet or not.
func (w *work) ending() bool {
	fw := w.framework()
	return fw != nil && fw.Teardown != nil
}

// endAgain repeats TEARDOWN after a call that failed.
func (w *work) endAgain() {
	if ses := w.session(); !ses.InterestAt.IsZero() && !ses.InterestAt.After(w.now) {
		w.setSession(func(s *state.Session) { s.InterestAt = time.Time{} })
		w.master(EndFramework{})
	}
}

// tornDown notes the master's confirmation.
func (w *work) tornDown() {
	if fw := w.framework(); fw != nil && fw.Teardown != nil && !fw.Teardown.Done {
		n, t := *fw, *fw.Teardown
		t.Done = true
		n.Teardown = &t
		w.putFramework(n)
	}
}

// startOver forgets the framework id. Only a framework whose end the master has stated may: tasks of one that lives would be orphaned.
func (w *work) startOver(e StartOver) *Reply {
	fw, ses := w.framework(), w.session()
	switch {
	case fw == nil || fw.ID == "":
		return refuse(fault.New(fault.Conflict, "start over: the framework has no id that it could forget"))
	case !ses.Over && (fw.Teardown == nil || !fw.Teardown.Done):
		text := ""
		if ses.Stopped != "" {
			text = " (it said: " + ses.Stopped + ")"
		}
		return refuse(fault.New(fault.Conflict, "start over: the master has not said that framework %s is over%s; its tasks would be orphaned", fw.ID, text))
	}
	n := *fw
	n.ID, n.Teardown = "", nil
	w.putFramework(n)
	w.setSession(func(s *state.Session) { s.Over = false }) // once only: what registers now is another
	for _, id := range sortedKeys(w.s.Apps) {
		if p := w.app(id).Primary; p != nil && p.Task != "" && !p.Blind {
			a, blind := w.editApp(id), *p
			blind.Blind = true
			a.Primary = &blind
			w.putApp(a)
		}
	}
	for _, id := range sortedKeys(w.s.Instances) {
		if i := w.instance(id); i.Run != nil && i.Phase != state.PhaseGranting {
			w.lost(i, "the framework id that it ran under is over", w.now)
		}
	}
	return &Reply{}
}

package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/away"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// maxAway bounds the runs of one instance that are remembered while they are out of reach; the oldest is forgotten first.
const maxAway = 3

// outlive replaces a stateless run that is out of reach: the instance waits for its next launch, the run is remembered until a time.
// Instances with exclusive volumes never come here: their claims decide.
func (w *work) outlive(i *state.Instance, until time.Time) {
	c := w.edit(i)
	r := *c.Run
	r.ForgetAt, r.Unwanted = until, c.KillReason
	w.remember(c, &r)
	c.Run, c.KillReason, c.KillAfter = nil, "", time.Time{}
	w.setPhase(c, state.PhaseWaiting)
	w.putInstance(c)
	w.instances.add(c.ID)
}

// remember adds a run to those that are away. c is a copy to be put.
func (w *work) remember(c *state.Instance, r *state.Run) {
	c.Away = append(slices.Clone(c.Away), r)
	for len(c.Away) > maxAway {
		w.watchOn(c.Away[0], "it was replaced several times since it was last seen")
		c.Away = c.Away[1:]
	}
}

// watchOn makes a task that nobody wants any more one that is killed when it shows up.
func (w *work) watchOn(r *state.Run, reason string) {
	w.killStrange(&state.StrangeTask{Task: r.Task, Agent: r.Agent, State: "TASK_UNREACHABLE", Reason: reason})
}

// forgetAway forgets the runs of an instance whose time has come (expungeAfterSeconds).
func (w *work) forgetAway(id state.InstanceID) {
	i := w.instance(id)
	if i == nil {
		return
	}
	c := w.edit(i)
	c.Away = slices.DeleteFunc(slices.Clone(c.Away), func(r *state.Run) bool {
		due := !r.ForgetAt.After(w.now)
		if due {
			w.watchOn(r, "it was replaced, and forgotten after the time that its app's unreachableStrategy gives")
		}
		return due
	})
	if len(c.Away) < len(i.Away) {
		w.putInstance(c)
	}
}

// awayOf finds the instance that remembers a task as one of its runs that are away, and where in its list.
func (w *work) awayOf(t state.TaskID) (*state.Instance, int) {
	find := func(i *state.Instance) (*state.Instance, int) {
		if i == nil {
			return nil, -1
		}
		return i, slices.IndexFunc(i.Away, func(r *state.Run) bool { return r.Task == t })
	}
	if base := w.s.InstanceByAway(t); base != nil {
		if i, n := find(w.instance(base.ID)); n >= 0 {
			return i, n
		}
	}
	if id, _, ok := state.ParseTaskID(t); ok {
		if i, n := find(w.instance(id)); n >= 0 {
			return i, n
		}
	}
	return nil, -1
}

// awayStatus takes a status of a run that is away; false when it is none.
func (w *work) awayStatus(e Status, m meaning) bool {
	i, n := w.awayOf(e.Task)
	if i == nil {
		return false
	}
	c := w.edit(i)
	r := *c.Away[n]
	w.note(i.App, &r, e)
	without := slices.Delete(slices.Clone(c.Away), n, n+1)
	switch {
	case m == starting || m == running || m == stopping:
		c.Away = without
		w.returned(c, &r, m)
	case m == missing && away.MayReturn(e.State, e.Reason):
		c.Away = slices.Clone(c.Away)
		c.Away[n] = &r
		w.putInstance(c)
	default: // it is over, or as good as
		c.Away = without
		w.putInstance(c)
	}
	return true
}

// returned decides between a run that came back and what took its place. c is a copy to be put, r no longer among its runs that are away.
func (w *work) returned(c *state.Instance, r *state.Run, m meaning) {
	drop := func(gone *state.Run, mesos, reason string) {
		w.strangeRun(gone, mesos, reason)
	}
	stay := func() {
		r.LostAt, r.ForgetAt = time.Time{}, time.Time{}
		c.Run, c.KillReason, c.KillAfter, c.Moving = r, "", time.Time{}, ""
		p := state.PhaseStaging
		if m != starting {
			p = state.PhaseRunning
		}
		w.setPhase(c, p)
		if p == state.PhaseRunning && r.StartedAt.IsZero() {
			r.StartedAt = w.now
		}
		w.noteUp(c)
	}
	why := w.unwanted(c, r, m)
	switch {
	case why != "":
		drop(r, r.MesosState, why)
	case c.Run == nil:
		stay()
	case c.Phase == state.PhaseGranting:
		w.cancelGranting(c, 0)
		c = w.edit(w.instance(c.ID))
		stay()
	case c.Phase == state.PhaseLost && len(c.Run.Claims) == 0:
		lost := *c.Run
		lost.ForgetAt = lost.LostAt.Add(w.spec(c.App, lost.Version).Unreachable.Expunge)
		w.remember(c, &lost)
		stay()
	case away.ReturnedStays(r, c.Run, c.Phase == state.PhaseRunning, w.spec(c.App, c.Version).KillSelection):
		drop(c.Run, c.Run.MesosState, fmt.Sprintf("run %s, which it replaced, came back", r.Task))
		stay()
	default:
		drop(r, r.MesosState, fmt.Sprintf("it came back after %s had taken its place", c.Run.Task))
	}
	w.putInstance(c)
	w.instances.add(c.ID)
}

// unwanted says why a run that came back may not stay, whatever else there is; "" when it may.
func (w *work) unwanted(c *state.Instance, r *state.Run, m meaning) string {
	switch {
	case c.Goal == state.GoalStop:
		return "its instance was stopped while it was out of reach"
	case r.Unwanted != "":
		return r.Unwanted
	case r.Version != c.Version:
		return "its app has a new version"
	case r.Idle != c.Paused:
		return "its instance was paused for repair, or resumed, while it was out of reach"
	case m == stopping:
		return "it was being stopped"
	case c.Run != nil && (c.Phase == state.PhaseKilling || c.Phase == state.PhaseEnded || len(c.Run.Claims) > 0):
		return "its instance goes on without it"
	}
	return ""
}

// disown marks the runs that are away as unwanted, because the instance was restarted without them. c is a copy to be put.
func disown(c *state.Instance, reason string) {
	list := make([]*state.Run, 0, len(c.Away))
	for _, r := range c.Away {
		n := *r
		n.Unwanted = reason
		list = append(list, &n)
	}
	if len(list) > 0 {
		c.Away = list
	}
}

// whyLost says what an instance waits for whose run is out of reach.
func (w *work) whyLost(i *state.Instance) *state.Why {
	first := state.Reason{Code: state.ReasonUnreachable, Text: fmt.Sprintf("agent %s is out of reach (%s); the task may still run there", i.Run.Hostname, lostState(i.Run))}
	if len(i.Run.Claims) > 0 {
		first.Text += "; it waits for the claim, whatever the timer of unreachableStrategy or Mesos says"
		return w.whyClaims(i, first)
	}
	switch v, until := away.After(w.spec(i.App, i.Run.Version).Unreachable, i.Run.LostAt, w.now); {
	case v == away.Wait && until.IsZero():
		first.Text += "; its unreachableStrategy is disabled: it is replaced by hand only (restart or move the instance)"
	case v == away.Wait:
		first.Text, first.Until = first.Text+"; it is replaced after inactiveAfterSeconds", until
	}
	return w.whyClaims(i, first)
}

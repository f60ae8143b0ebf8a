package scheduler

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// steady is how long a run must have lasted for earlier failures to be forgotten, as in Marathon.
const steady = time.Minute

// meaning sorts Mesos's task states.
type meaning int

const (
	unknownState meaning = iota
	starting             // the agent has it
	running              // it runs
	stopping             // TASK_KILLING: it still runs
	over                 // the task ended, or never began; of its container and mounts that says nothing
	missing              // the master cannot tell; the task may run for all we know
)

func meaningOf(mesos string) meaning {
	switch mesos {
	case "TASK_STAGING", "TASK_STARTING":
		return starting
	case "TASK_RUNNING":
		return running
	case "TASK_KILLING":
		return stopping
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED":
		return over
	case "TASK_LOST", "TASK_UNREACHABLE", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN":
		return missing
	}
	return unknownState
}

// status notes what the master tells of a task. Order rule 3: the acknowledgement leaves after the commit of what it meant.
func (w *work) status(e Status) {
	if len(e.UUID) > 0 {
		if ses := w.session(); ses.Connected {
			w.acks = append(w.acks, Acknowledge{Task: e.Task, Agent: e.Agent, UUID: e.UUID})
		}
	}
	e, more := w.fold(e)
	if !more {
		return
	}
	w.answered(e.Task)
	m := meaningOf(e.State)
	switch m {
	case unknownState:
		return
	case starting, running, stopping:
		w.markAgent(e.Agent, time.Time{})
	case missing:
		if e.State == "TASK_UNREACHABLE" {
			w.markAgent(e.Agent, w.now)
		}
	}
	i := w.byTask(e.Task)
	if i == nil {
		if !w.awayStatus(e, m) {
			w.strange(e, m)
		}
		return
	}
	if i.Phase == state.PhaseGranting {
		return // nothing was launched under this id yet
	}
	c := w.edit(i)
	w.note(c.App, c.Run, e)
	switch m {
	case starting, running, stopping:
		w.alive(c, m)
	case over:
		w.ended(c, e)
	case missing:
		w.putInstance(c)
		w.lost(c, e.State, e.UnreachableAt)
	}
}

// note copies what a status says into a run.
func (w *work) note(app state.AppID, r *state.Run, e Status) {
	r.MesosState, r.Reason, r.Message = e.State, e.Reason, e.Message
	if e.Healthy != nil && !r.Idle {
		w.noteHealth(app, r, e.Healthy, nil)
	}
	if e.ContainerIP != "" {
		r.ContainerIP = e.ContainerIP
	}
}

// alive: the task is there. c is a copy to be put.
func (w *work) alive(c *state.Instance, m meaning) {
	w.confirmed(c)
	switch c.Phase {
	case state.PhaseEnded:
		// It was said to be over and is not; its claims are on their way back. It may not go on.
		w.killRun(c.Run, Kill{})
		w.putInstance(c)
		return
	case state.PhaseKilling:
		w.putInstance(c)
		return
	case state.PhaseLost:
		if c.KillReason != "" && !w.frozen() {
			w.killNow(c, c.KillReason)
			return
		}
	}
	c.Run.LostAt = time.Time{}
	switch {
	case m == starting:
		if c.Phase != state.PhaseRunning {
			w.setPhase(c, state.PhaseStaging)
		}
	case c.Phase != state.PhaseRunning:
		w.setPhase(c, state.PhaseRunning)
		if c.Run.StartedAt.IsZero() {
			c.Run.StartedAt = w.now
		}
		c.Moving = ""
	}
	w.noteUp(c)
	w.putInstance(c)
	w.instances.add(c.ID)
}

// ended: the task is terminal. Its claims are not: only the authority's record says when they are free.
func (w *work) ended(c *state.Instance, e Status) {
	w.answeredOps(c, e)
	switch {
	case c.Phase == state.PhaseEnded || c.Phase == state.PhaseKilling:
	case e.Reason == "REASON_AGENT_DRAINING":
		c.Failures, c.Moving = 0, c.Run.Agent // the master empties its agent (DRAIN_AGENT): no fault of the task
	default:
		w.failed(c, e)
	}
	w.setPhase(c, state.PhaseEnded)
	w.putInstance(c)
	w.instances.add(c.ID)
}

// failed counts an end that nobody ordered, and sets the backoff.
func (w *work) failed(c *state.Instance, e Status) {
	if !c.Run.StartedAt.IsZero() && w.now.Sub(c.Run.StartedAt) >= steady {
		c.Failures = 0
	}
	c.Failures++
	c.BackoffUntil = w.now.Add(time.Duration(rollout.Delay(w.spec(c.App, c.Version).Backoff, c.Failures)))
	if e.State == "TASK_FINISHED" {
		return
	}
	if a := w.app(c.App); a != nil {
		a := w.editApp(c.App)
		a.LastTaskFailure = &state.TaskFailure{
			Instance: c.ID, Task: c.Run.Task, State: e.State, Message: e.Message, Host: c.Run.Hostname, Agent: c.Run.Agent, At: w.now, Version: c.Run.Version,
		}
		w.putApp(a)
	}
}

// lost: nobody can say whether the task runs. The revoke (L6) goes out at once; what frees the instance is in advanceLost.
func (w *work) lost(i *state.Instance, why string, at time.Time) {
	if i.Phase == state.PhaseLost || i.Phase == state.PhaseEnded {
		w.instances.add(i.ID)
		return
	}
	c := w.edit(i)
	if at.IsZero() || at.After(w.now) { // the master's clock may be ahead of ours
		at = w.now
	}
	c.Run.LostAt = at
	if c.Run.Message == "" {
		c.Run.Message = why
	}
	// A launch that never arrives must not become a tight loop.
	c.BackoffUntil = w.now.Add(w.spec(c.App, c.Version).Backoff.Base)
	w.setPhase(c, state.PhaseLost)
	c.WakeAt = w.now
	w.putInstance(c)
	w.instances.add(c.ID)
}

// strange: a task of our framework that is no instance's current run.
func (w *work) strange(e Status, m meaning) {
	known := look(w, state.KindStrange, string(e.Task), w.s.Strange[e.Task])
	if m == over || (m == missing && e.State != "TASK_UNREACHABLE") {
		if known != nil {
			w.remove(state.KindStrange, string(e.Task))
		}
		return
	}
	t := &state.StrangeTask{Task: e.Task, Agent: e.Agent, State: e.State, Reason: "no instance has this task as its current run"}
	if id, n, ok := state.ParseTaskID(e.Task); ok {
		if i := w.instance(id); i != nil && i.Run != nil {
			t.Reason = fmt.Sprintf("run %d of instance %s was replaced by %s", n, id, i.Run.Task)
		}
	}
	if known != nil && (known.State == "TASK_UNREACHABLE") == (t.State == "TASK_UNREACHABLE") {
		t.KillAfter = known.KillAfter
	}
	w.killStrange(t)
}

// killStrange kills a strange task once the reconciliation is complete: before, an instance's record may still be catching up. Of one that is
// out of reach the master is asked again from time to time.
func (w *work) killStrange(t *state.StrangeTask) {
	if t == nil {
		return
	}
	c := *t
	switch due := !c.KillAfter.After(w.now); {
	case !w.session().Reconciled || w.frozen():
		c.KillAfter = time.Time{}
	case !due:
	case c.State == "TASK_UNREACHABLE":
		if !c.KillAfter.IsZero() {
			w.master(Reconcile{Tasks: []ReconcileTask{{c.Task, c.Agent}}})
		}
		c.KillAfter = w.now.Add(w.env.Config.ReconcileMax)
	default:
		w.master(Kill{Task: c.Task, Agent: c.Agent})
		c.KillAfter = w.now.Add(w.env.Config.KillRetry)
	}
	w.put(state.KindStrange, string(c.Task), &c)
}

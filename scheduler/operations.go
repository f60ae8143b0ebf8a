package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// operationStatus notes what the master tells of an operation. As with tasks, the acknowledgement leaves after the commit of what it meant.
func (w *work) operationStatus(e OperationStatus) {
	if len(e.UUID) > 0 && w.session().Connected {
		w.acks = append(w.acks, AcknowledgeOperation{ID: e.ID, Agent: e.Agent, Provider: e.Provider, UUID: e.UUID})
	}
	id, _, _ := strings.Cut(e.ID, ".")
	r := w.reserved(state.ReservedID(id))
	if r == nil {
		return
	}
	at := slices.IndexFunc(r.Ops, func(p state.PendingOp) bool { return p.ID == e.ID })
	if at < 0 {
		return
	}
	switch e.State {
	case "OPERATION_FINISHED":
		w.operationDone(r, at)
	case "OPERATION_ERROR", "OPERATION_FAILED", "OPERATION_DROPPED", "OPERATION_GONE_BY_OPERATOR":
		w.operationFailed(r, at, e.State, e.Message)
	case "OPERATION_UNKNOWN":
		// The answer to a question, and the master would know of it had it come there. It may still be on its way for a while.
		if w.now.Sub(r.Ops[at].At) >= launchPatience {
			w.operationForgotten(r, at)
		}
	}
	// PENDING, RECOVERING and UNREACHABLE leave it unknown.
}

// endOp gives a copy of a reservation without one of its pending operations.
func endOp(r *state.Reserved, at int) (*state.Reserved, state.PendingOp) {
	c := r.Clone()
	op := c.Ops[at]
	c.Ops = slices.Delete(c.Ops, at, at+1)
	if len(c.Ops) == 0 {
		c.Ops, c.RetryAt = nil, time.Time{}
	}
	return c, op
}

func (w *work) operationDone(r *state.Reserved, at int) {
	c, op := endOp(r, at)
	switch reserve.Kind(op.Kind) {
	case reserve.Reserve:
		c.Some = true
	case reserve.Destroy:
		c.Volumes = slices.DeleteFunc(c.Volumes, func(v state.LocalVolume) bool { return v.ID == op.Volume })
	case reserve.Create:
		c.Some = true
		for n := range c.Volumes {
			c.Volumes[n].Created = true
		}
	}
	if c.Phase == state.ReservedAsked && len(c.Ops) == 0 {
		w.setReservedPhase(c, state.ReservedHeld)
	}
	if op.Final && len(c.Ops) == 0 && c.Freed && created(c) == 0 {
		w.removeReserved(c)
		return
	}
	if len(c.Ops) == 0 && c.Error == "" {
		c.Attempts = 0
	}
	w.putReserved(c)
	w.lookAgain(c)
}

func (w *work) operationFailed(r *state.Reserved, at int, how, why string) {
	c, op := endOp(r, at)
	if why == "" {
		why = how
	}
	if refusesFeedback(why) && !op.Silent {
		// An agent before Mesos 1.8: the same is asked for again without an id.
		if a := w.agent(c.Agent); a != nil {
			n := *a
			n.Silent = true
			w.put(state.KindAgent, string(a.ID), &n)
		}
	}
	c.Error = op.Kind + ": " + why
	c.Attempts++
	c.RetryAt = w.now.Add(min(operationRetryMin<<min(c.Attempts, 10), operationRetryMax))
	switch reserve.Kind(op.Kind) {
	case reserve.Grow, reserve.Shrink:
		for n := range c.Volumes {
			if v := &c.Volumes[n]; v.ID == op.Volume {
				v.NoResize, v.NoResizeMB = why, v.SizeMB
			}
		}
		c.RetryAt = time.Time{} // it runs with the size that there is
	case reserve.Unreserve:
		c.Trimmed, c.Freed = false, false
	case reserve.Destroy:
		c.Freed = false
		destroyed(c, op.Volume, false)
	}
	if c.Phase == state.ReservedAsked && len(c.Ops) == 0 && !c.Some {
		w.giveUpAsked(c)
		return
	}
	w.putReserved(c)
	w.lookAgain(c)
}

// giveUpAsked ends a reservation that never came to be. The instance looks for another place after a pause.
func (w *work) giveUpAsked(c *state.Reserved) {
	w.removeReserved(c)
	i := w.instance(c.Instance)
	if i == nil || i.Phase != state.PhaseWaiting {
		return
	}
	n := w.edit(i)
	if n.BackoffUntil.Before(c.RetryAt) {
		n.BackoffUntil = c.RetryAt
	}
	w.putInstance(n)
}

// operationForgotten: nobody knows of it. What the agent offers next tells whether it was done; done twice is done once, because volumes
// keep their ids.
func (w *work) operationForgotten(r *state.Reserved, at int) {
	c, _ := endOp(r, at)
	w.putReserved(c)
	w.lookAgain(c)
}

// lookAgain has an instance placed once more, and offers asked for.
func (w *work) lookAgain(r *state.Reserved) {
	if len(r.Ops) > 0 {
		w.touched[r.Instance] = true
		return
	}
	w.instances.add(r.Instance)
	w.placeable = true
	w.freeing = w.freeing || r.WantsOffer()
}

// refusesFeedback tells whether a refusal is about the id of an operation, not about what it asked for.
func refusesFeedback(text string) bool {
	low := strings.ToLower(text)
	return strings.Contains(low, "feedback") && (strings.Contains(low, "support") || strings.Contains(low, "capab") || strings.Contains(low, "resource provider"))
}

// acceptedOpsFailed deals with the operations of an ACCEPT that was refused or lost.
func (w *work) acceptedOpsFailed(a Accept, e CallFailed) {
	for _, op := range a.Operations {
		r := w.reservedByOp(op)
		if r == nil {
			continue
		}
		at := slices.IndexFunc(r.Ops, func(p state.PendingOp) bool { return op.ID != "" && p.ID == op.ID })
		if op.ID == "" {
			at = slices.IndexFunc(r.Ops, func(p state.PendingOp) bool { return p.Silent && p.Kind == string(op.Kind) })
		}
		switch {
		case at < 0:
		case e.Unknown:
			w.askOperations([]*state.Reserved{r})
		default:
			w.operationFailed(r, at, "the call failed", e.Error)
		}
	}
}

func (w *work) reservedByOp(op reserve.Op) *state.Reserved {
	if id, _, ok := strings.Cut(op.ID, "."); ok {
		return w.reserved(state.ReservedID(id))
	}
	for _, id := range w.s.ReservedOf(op.Instance) {
		if r := w.reserved(id); r != nil && len(r.Ops) > 0 {
			return r
		}
	}
	return nil
}

// askOperations asks the master what became of the operations of reservations.
func (w *work) askOperations(list []*state.Reserved) {
	var ask []ReconcileOperation
	for _, r := range list {
		for _, p := range r.Ops {
			if !p.Silent {
				ask = append(ask, ReconcileOperation{ID: p.ID, Agent: r.Agent})
			}
		}
	}
	for part := range slices.Chunk(ask, reconcileBatch) {
		w.master(ReconcileOperations{Operations: part})
	}
}

// askAllOperations is part of what is asked after each subscription.
func (w *work) askAllOperations() {
	if len(w.s.Reserved) == 0 {
		return
	}
	var list []*state.Reserved
	for _, id := range sortedKeys(w.s.Reserved) {
		if r := w.reserved(id); r != nil && len(r.Ops) > 0 {
			list = append(list, r)
		}
	}
	w.askOperations(list)
}

// reservedDue: a pause after a refusal is over, or operations are without an answer.
func (w *work) reservedDue(r *state.Reserved) {
	if r == nil || r.RetryAt.After(w.now) {
		return
	}
	c := r.Clone()
	// Those that nobody tells of have had their time: the next offer shows what they did.
	c.Ops = slices.DeleteFunc(c.Ops, func(p state.PendingOp) bool { return p.Silent && !p.At.Add(launchPatience).After(w.now) })
	c.RetryAt = time.Time{}
	if len(c.Ops) > 0 {
		c.RetryAt = w.now.Add(launchPatience)
		w.askOperations([]*state.Reserved{c})
	} else {
		c.Ops = nil
		w.freeing = w.freeing || c.WantsOffer()
		w.newcomer = true
	}
	w.putReserved(c)
	w.lookAgain(c)
}

// confirmed: a task of the instance is known to its agent, so that everything that its launch asked for before it was done.
func (w *work) confirmed(i *state.Instance) {
	if len(w.s.ReservedOf(i.ID)) == 0 {
		return
	}
	r := w.reservedOf(i.ID)
	if r == nil || r.Agent != i.Run.Agent {
		return
	}
	spec := w.spec(i.App, i.Run.Version)
	c := r.Clone()
	for n := range c.Volumes {
		if slices.ContainsFunc(spec.Volumes, func(m state.Mount) bool {
			return m.Kind == state.MountPersistent && m.ContainerPath == c.Volumes[n].ContainerPath
		}) {
			c.Volumes[n].Created = true
		}
	}
	c.Ops = slices.DeleteFunc(c.Ops, func(p state.PendingOp) bool {
		return p.Silent || p.Kind == string(reserve.Reserve) || p.Kind == string(reserve.Create)
	})
	if len(c.Ops) == 0 {
		c.Ops, c.RetryAt = nil, time.Time{}
	}
	c.Some, c.Doubt, c.Error, c.Attempts, c.MissingSince = true, false, "", 0, time.Time{}
	w.setReservedPhase(c, state.ReservedHeld)
	if !sameReserved(c, r) {
		w.putReserved(c)
	}
}

// answeredOps: the master has dealt with the ACCEPT that a run came with; operations that nobody tells of are over then. Where the agent had the
// task, all of them were done.
func (w *work) answeredOps(i *state.Instance, e Status) {
	if len(w.s.ReservedOf(i.ID)) == 0 {
		return
	}
	if (e.Source == "SOURCE_EXECUTOR" || e.Source == "SOURCE_AGENT") && e.State != "TASK_DROPPED" && e.State != "TASK_ERROR" {
		w.confirmed(i)
		return
	}
	r := w.reservedOf(i.ID)
	if r == nil || !slices.ContainsFunc(r.Ops, func(p state.PendingOp) bool { return p.Silent }) {
		return
	}
	c := r.Clone()
	if c.Ops = slices.DeleteFunc(c.Ops, func(p state.PendingOp) bool { return p.Silent }); len(c.Ops) == 0 {
		c.Ops, c.RetryAt = nil, time.Time{}
	}
	w.putReserved(c)
}

func sameReserved(a, b *state.Reserved) bool {
	return a.Phase == b.Phase && a.Agent == b.Agent && a.Some == b.Some && a.Error == b.Error && a.Attempts == b.Attempts && a.Trimmed == b.Trimmed && a.Freed == b.Freed && a.Doubt == b.Doubt && a.Wipe == b.Wipe &&
		a.MissingSince.Equal(b.MissingSince) && a.RetryAt.Equal(b.RetryAt) && slices.Equal(a.Volumes, b.Volumes) && slices.Equal(a.Ops, b.Ops) && slices.Equal(a.Ports, b.Ports)
}

func (OperationStatus) event() {}

func (AcknowledgeOperation) call() {}
func (ReconcileOperations) call()  {}

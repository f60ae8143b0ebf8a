package embedded

import (
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
)

func (m *Master) sendOperation(f *framework, s mesos.OperationStatus) {
	m.send(f, &scheduler.Event{Type: scheduler.Event_UPDATE_OPERATION_STATUS,
		UpdateOperationStatus: &scheduler.Event_UpdateOperationStatus{Status: s}})
}

// convert changes an agent's total and tells the agent to make it durable. The master counts on it at once, as
// Mesos does; f is nil for an operator. The agent's answer arrives in checkpointed.
func (m *Master) convert(a *agentState, conv validate.Conversion, f *framework, op *mesos.Offer_Operation) {
	a.total = resource.Add(resource.Subtract(a.total, resource.Unallocate(conv.From)...), resource.Unallocate(conv.To)...)
	p := &pendingOp{conv: conv, total: a.total}
	if f != nil && op.ID != nil {
		p.op = &operation{id: op.ID.Value, framework: f.id, agent: a.id, info: *op, uuid: newUUID()}
		p.op.status = mesos.OperationStatus{OperationID: op.ID, State: mesos.OPERATION_PENDING, AgentID: &mesos.AgentID{Value: a.id}}
		f.operations[p.op.id] = p.op
	}
	a.pending = append(a.pending, p)
	created, destroyed := conv.Created, conv.Destroyed
	a.link.send(func(h agent.Handle) {
		m.checkpointed(a, p, h.Checkpoint(p.total, created, destroyed))
	})
}

// checkpointed takes an agent's answer to a change of its resources. When it could not, everything told to it
// since counts on what is not there: it is taken back, and offers of the agent are made anew.
func (m *Master) checkpointed(a *agentState, p *pendingOp, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agents[a.id] != a || len(a.pending) == 0 || a.pending[0] != p {
		return // answered otherwise meanwhile
	}
	if err == nil {
		a.pending = a.pending[1:]
		m.endOperation(p, mesos.OPERATION_FINISHED, "")
		return
	}
	m.log.Error("engine master: agent refused an operation", zap.String("agent", a.id), zap.Error(err))
	before := a.total
	for i := len(a.pending) - 1; i >= 0; i-- {
		c := a.pending[i].conv
		before = resource.Add(resource.Subtract(before, resource.Unallocate(c.To)...), resource.Unallocate(c.From)...)
	}
	for _, q := range a.pending {
		m.endOperation(q, mesos.OPERATION_FAILED, "The agent could not carry out the operation: "+err.Error())
	}
	a.pending = nil
	a.link.attach(nil) // drops what was queued on the strength of it
	a.link.attach(a.handle)
	for _, t := range a.tasks { // before the allocator forgets what they hold
		if t.GetState() == mesos.TASK_STAGING && !resource.Contains(before, resource.Unallocate(t.Resources)) {
			m.taskUnknown(a, t)
		}
	}
	m.agentFromAllocator(a)
	a.total = before
	m.agentToAllocator(a)
	m.wantCycle(m.timing.Recovered)
}

func (m *Master) endOperation(p *pendingOp, state mesos.OperationState, text string) {
	op := p.op
	if op == nil {
		return
	}
	s := mesos.OperationStatus{OperationID: &mesos.OperationID{Value: op.id}, State: state,
		UUID: &mesos.UUID{Value: op.uuid}, AgentID: &mesos.AgentID{Value: op.agent}}
	if text != "" {
		s.Message = &text
	}
	op.status, op.ended = s, true
	if f := m.fws[op.framework]; f != nil {
		m.sendOperation(f, s)
	}
}

// dropPending ends operations whose fate the agent's own account of its resources has decided.
func (m *Master) dropPending(a *agentState, why string) {
	for _, p := range a.pending {
		state, text := mesos.OPERATION_DROPPED, "Operation dropped: "+why
		if resource.Contains(a.total, resource.Unallocate(p.conv.To)) && resource.Equal(a.total, p.total) {
			state, text = mesos.OPERATION_FINISHED, ""
		}
		m.endOperation(p, state, text)
	}
	a.pending = nil
}

// failPending tells frameworks that an agent went before it confirmed their operations.
func (m *Master) failPending(a *agentState, state mesos.OperationState, text string) {
	for _, p := range a.pending {
		if p.op == nil {
			continue
		}
		s := mesos.OperationStatus{OperationID: &mesos.OperationID{Value: p.op.id}, State: state, Message: &text,
			AgentID: &mesos.AgentID{Value: a.id}}
		if f := m.fws[p.op.framework]; f != nil {
			delete(f.operations, p.op.id)
			m.sendOperation(f, s)
		}
	}
	a.pending = nil
}

// acknowledgeOperation ends the repetition of an operation's end.
func (m *Master) acknowledgeOperation(f *framework, c *scheduler.Call_AcknowledgeOperationStatus) {
	if op := f.operations[c.OperationID.Value]; op != nil && op.ended && string(op.uuid) == string(c.UUID) {
		delete(f.operations, op.id)
	}
}

// reconcileOperations answers what the master knows of operations: of all the framework's when none is named.
func (m *Master) reconcileOperations(f *framework, ops []scheduler.Call_ReconcileOperations_Operation) {
	if len(ops) == 0 {
		for _, op := range f.operations {
			s := op.status
			s.UUID = nil
			m.sendOperation(f, s)
		}
		return
	}
	for i := range ops {
		q := &ops[i]
		if op := f.operations[q.OperationID.Value]; op != nil {
			s := op.status
			s.UUID = nil
			m.sendOperation(f, s)
			continue
		}
		state, text := m.operationOn(q.AgentID)
		id := q.OperationID
		m.sendOperation(f, mesos.OperationStatus{OperationID: &id, State: state, Message: &text, AgentID: q.AgentID,
			ResourceProviderID: q.ResourceProviderID})
	}
}

// operationOn is what can be said of an operation that is not known, by the agent it is said to be on.
func (m *Master) operationOn(on *mesos.AgentID) (mesos.OperationState, string) {
	id := on.GetValue()
	_, recovered := m.recovered[id]
	_, lost := m.lost[id]
	_, gone := m.gone[id]
	switch {
	case on == nil:
		return mesos.OPERATION_UNKNOWN, "Reconciliation: Operation is unknown and no 'agent_id' was provided"
	case recovered:
		return mesos.OPERATION_RECOVERING, "Reconciliation: Agent is recovered but has not re-registered"
	case m.agents[id] != nil:
		return mesos.OPERATION_UNKNOWN, "Reconciliation: Operation is unknown"
	case lost:
		return mesos.OPERATION_UNREACHABLE, "Reconciliation: Agent is unreachable"
	case gone:
		return mesos.OPERATION_GONE_BY_OPERATOR, "Reconciliation: Agent marked gone by operator"
	}
	return mesos.OPERATION_UNKNOWN, "Reconciliation: Both operation and agent are unknown"
}

// drainTasks kills everything on an agent that is to be emptied.
func (m *Master) drainTasks(a *agentState) {
	most := a.drain.Config.MaxGracePeriod
	for _, t := range a.tasks {
		if terminal(t.GetState()) {
			continue
		}
		var policy *mesos.KillPolicy
		if own := t.GetKillPolicy().GetGracePeriod(); most != nil && (own == nil || own.Nanoseconds > most.Nanoseconds) {
			policy = &mesos.KillPolicy{GracePeriod: most}
		}
		t.kill = true
		m.sendKill(a, t, policy)
	}
	m.checkDrained(a)
}

// checkDrained notes that an agent that is being drained is empty; marking it gone is left to the interval.
func (m *Master) checkDrained(a *agentState) {
	if a.drain != nil && a.drain.State == mesos.DrainState_DRAINING && len(a.tasks) == 0 {
		d := *a.drain
		d.State = mesos.DrainState_DRAINED
		a.drain = &d
	}
}

// markDrained marks agents gone that were drained with mark_gone.
func (m *Master) markDrained() {
	m.mu.Lock()
	var ids []string
	for _, a := range m.agents {
		if d := a.drain; d != nil && d.State == mesos.DrainState_DRAINED && d.Config.GetMarkGone() {
			ids = append(ids, a.id)
		}
	}
	m.mu.Unlock()
	for _, id := range ids {
		if _, err := m.markGone(id); err != nil {
			m.log.Error("engine master: drained agent not marked gone, trying again", zap.String("agent", id), zap.Error(err))
		}
	}
}

// drainStamp is when a drain began, in whole seconds as Mesos tells it.
func drainStamp(t time.Time) *mesos.TimeInfo {
	if t.IsZero() {
		return nil
	}
	return &mesos.TimeInfo{Nanoseconds: t.Truncate(time.Second).UnixNano()}
}

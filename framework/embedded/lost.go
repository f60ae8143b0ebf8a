package embedded

import (
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/registry"
)

// pong notes a sign of life.
func (m *Master) pong(l *Link, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agents[id]
	if a == nil || a.link != l || !a.connected {
		return agent.ErrUnknownAgent
	}
	a.lastSign = time.Now()
	return nil
}

// agentDisconnected is the end of an agent's connection.
func (m *Master) agentDisconnected(l *Link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agentOf(l)
	if a == nil || !a.connected {
		return
	}
	a.connected = false
	m.alloc.SetAgentActive(a.id, false)
	for _, o := range a.offers {
		m.rescind(o)
	}
	m.log.Info("engine master: agent disconnected", zap.String("agent", a.String()))
}

// expireAgents gives up agents that have shown no sign of life, and those that did not come back after the master's start.
func (m *Master) expireAgents(now time.Time) {
	m.mu.Lock()
	overdue := false
	for _, a := range m.agents {
		overdue = overdue || now.Sub(a.lastSign) >= m.timing.AgentLost
	}
	for _, a := range m.recovered {
		overdue = overdue || !now.Before(a.until)
	}
	m.mu.Unlock()
	if !overdue {
		return
	}
	m.admin.Lock()
	defer m.admin.Unlock()
	var records []registry.Agent
	m.mu.Lock()
	for _, a := range m.agents {
		if now.Sub(a.lastSign) >= m.timing.AgentLost {
			records = append(records, m.record(a, registry.Unreachable, now))
		}
	}
	for _, a := range m.recovered {
		if !now.Before(a.until) {
			rec := a.rec
			rec.State, rec.Since = registry.Unreachable, now
			records = append(records, rec)
		}
	}
	m.mu.Unlock()
	if err := m.reg.PutAgents(records...); err != nil {
		m.log.Error("engine master: lost agents not recorded, trying again", zap.Error(err))
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rec := range records {
		m.agentLost(rec, now)
	}
}

// record is what the registry is to know of an agent.
func (m *Master) record(a *agentState, state registry.AgentState, now time.Time) registry.Agent {
	rec := registry.Agent{ID: a.id, State: state, Since: now, Info: a.info, Deactivated: a.deactivated}
	if a.drain != nil {
		rec.Drain, _ = a.drain.Marshal()
	}
	return rec
}

func (m *Master) agentLost(rec registry.Agent, now time.Time) {
	m.lost[rec.ID] = lostAgent{info: rec.Info, since: now, rec: rec}
	m.log.Warn("engine master: agent is unreachable", zap.String("agent", rec.ID), zap.String("hostname", rec.Info.Hostname))
	if _, ok := m.recovered[rec.ID]; ok {
		delete(m.recovered, rec.ID)
		m.broadcastFailure(rec.ID)
		return
	}
	if a := m.agents[rec.ID]; a != nil {
		m.failPending(a, mesos.OPERATION_UNREACHABLE, "Agent was marked unreachable")
		m.dropAgent(a, "health check timed out", &mesos.TimeInfo{Nanoseconds: now.UnixNano()})
	}
}

// dropAgent takes an agent out and tells frameworks what became of their tasks: unreachable with a time, gone without.
func (m *Master) dropAgent(a *agentState, text string, unreachable *mesos.TimeInfo) {
	m.agentFromAllocatorKeepOffers(a)
	for k, t := range a.tasks {
		f := m.fws[k.framework]
		state, reason := mesos.TASK_UNREACHABLE, mesos.REASON_AGENT_REMOVED
		keep := true
		switch {
		case !f.partitionAware():
			state = mesos.TASK_LOST
			keep = unreachable != nil
		case unreachable == nil:
			state, reason, keep = mesos.TASK_GONE_BY_OPERATOR, mesos.REASON_AGENT_REMOVED_BY_OPERATOR, false
		}
		s := m.newStatus(a.id, k.task, state, mesos.SOURCE_MASTER, text)
		s.Reason, s.ExecutorID, s.UnreachableTime = reason.Enum(), t.ExecutorID, unreachable
		m.setState(t, state)
		addStatus(t, s)
		t.released, t.unacked = true, nil
		delete(a.tasks, k)
		delete(f.tasks, k.task)
		if keep {
			f.unreachable[k.task] = t
		} else {
			f.complete(t)
		}
		m.sendUpdate(f, s)
	}
	m.forgetAgent(a)
	m.broadcastFailure(a.id)
}

// removeAgent takes out an agent whose place was taken by another one.
func (m *Master) removeAgent(a *agentState, cause string) {
	m.failPending(a, mesos.OPERATION_GONE_BY_OPERATOR, "Agent "+a.info.Hostname+" removed: "+cause)
	m.agentFromAllocatorKeepOffers(a)
	for k, t := range a.tasks {
		f := m.fws[k.framework]
		s := m.newStatus(a.id, k.task, mesos.TASK_LOST, mesos.SOURCE_MASTER, "Agent "+a.info.Hostname+" removed: "+cause)
		s.Reason, s.ExecutorID = mesos.REASON_AGENT_REMOVED.Enum(), t.ExecutorID
		m.endTask(f, t, s)
	}
	m.forgetAgent(a)
	m.broadcastFailure(a.id)
}

// agentFromAllocatorKeepOffers is agentFromAllocator for an agent that goes: its offers are rescinded after
// the frameworks have heard of their tasks.
func (m *Master) agentFromAllocatorKeepOffers(a *agentState) {
	m.alloc.SetAgentActive(a.id, false)
	now := time.Now()
	for _, t := range a.tasks {
		if !t.released {
			t.released = true
			m.alloc.Recover(t.FrameworkID.Value, a.id, t.Resources, 0, now)
		}
	}
	for _, f := range m.fws {
		for k, e := range f.executors {
			if k.agent == a.id {
				m.alloc.Recover(f.id, a.id, e.resources, 0, now)
				delete(f.executors, k)
			}
		}
	}
}

func (m *Master) forgetAgent(a *agentState) {
	for _, o := range a.offers {
		m.rescind(o)
	}
	m.alloc.RemoveAgent(a.id)
	delete(m.agents, a.id)
	if a.link.agentID == a.id {
		a.link.agentID = ""
		a.link.attach(nil)
	}
}

// markGone removes an agent for good, at an operator's word. It says false for an agent nobody knows.
func (m *Master) markGone(id string) (bool, error) {
	m.admin.Lock()
	defer m.admin.Unlock()
	now := time.Now()
	m.mu.Lock()
	rec := registry.Agent{ID: id, State: registry.Gone, Since: now}
	_, already := m.gone[id]
	lost, wasLost := m.lost[id]
	recovered, wasRecovered := m.recovered[id]
	a := m.agents[id]
	switch {
	case a != nil:
		rec.Info = a.info
	case wasLost:
		rec.Info = lost.info
	case wasRecovered:
		rec.Info = recovered.info
	}
	m.mu.Unlock()
	if already {
		return true, nil
	}
	if a == nil && !wasLost && !wasRecovered {
		return false, nil
	}
	if err := m.reg.PutAgents(rec); err != nil {
		return true, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone[id] = now
	delete(m.recovered, id)
	delete(m.lost, id)
	const text = "Agent has been marked gone"
	if a != nil {
		// Handed over directly: the link is forgotten with the agent, the order must not be lost with it.
		if h, l := a.handle, a.link; a.connected {
			l.farewell(h)
		}
		m.failPending(a, mesos.OPERATION_GONE_BY_OPERATOR, text)
		m.dropAgent(a, text, nil)
		return true, nil
	}
	m.unreachableGone(id, text)
	return true, nil
}

// unreachableGone tells frameworks that tasks they know as unreachable are gone.
func (m *Master) unreachableGone(id, text string) {
	for _, f := range m.fws {
		for tid, t := range f.unreachable {
			if t.AgentID.Value != id {
				continue
			}
			state, reason := mesos.TASK_GONE_BY_OPERATOR, mesos.REASON_AGENT_REMOVED_BY_OPERATOR
			if !f.partitionAware() {
				state, reason = mesos.TASK_LOST, mesos.REASON_AGENT_REMOVED
			}
			s := m.newStatus(id, tid, state, mesos.SOURCE_MASTER, text)
			s.Reason, s.ExecutorID = reason.Enum(), t.ExecutorID
			m.setState(t, state)
			addStatus(t, s)
			delete(f.unreachable, tid)
			f.complete(t)
			m.sendUpdate(f, s)
		}
	}
}

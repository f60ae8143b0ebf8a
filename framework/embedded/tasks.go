package embedded

import (
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
)

func terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TASK_FINISHED, mesos.TASK_FAILED, mesos.TASK_KILLED, mesos.TASK_ERROR, mesos.TASK_LOST,
		mesos.TASK_DROPPED, mesos.TASK_GONE, mesos.TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()/1000) / 1e6 }

// newStatus makes a status that the master reports itself, with no uuid: it is not to be acknowledged.
func (m *Master) newStatus(agentID, taskID string, state mesos.TaskState, source mesos.TaskStatus_Source, text string) mesos.TaskStatus {
	now := seconds(time.Now())
	s := mesos.TaskStatus{TaskID: mesos.TaskID{Value: taskID}, State: state.Enum(), Source: source.Enum(), Timestamp: &now}
	if agentID != "" {
		s.AgentID = &mesos.AgentID{Value: agentID}
	}
	if text != "" {
		s.Message = &text
	}
	return s
}

// refuseTask answers a task that was not launched.
func (m *Master) refuseTask(f *framework, t *mesos.TaskInfo, state mesos.TaskState, reason mesos.TaskStatus_Reason, text string) {
	s := m.newStatus(t.AgentID.Value, t.TaskID.Value, state, mesos.SOURCE_MASTER, text)
	s.Reason = reason.Enum()
	m.sendUpdate(f, s)
}

// dropped is the state of a task that could not be handed on.
func dropped(f *framework) mesos.TaskState {
	if f.partitionAware() {
		return mesos.TASK_DROPPED
	}
	return mesos.TASK_LOST
}

// send queues an event for a framework. A stream that is full is cut: the framework is disconnected then.
func (m *Master) send(f *framework, e *scheduler.Event) {
	if f.stream != nil {
		f.stream.Send(e) // a stream that broke ends its handler, which disconnects the framework
	}
}

func (m *Master) sendUpdate(f *framework, s mesos.TaskStatus) {
	m.send(f, &scheduler.Event{Type: scheduler.Event_UPDATE, Update: &scheduler.Event_Update{Status: s}})
}

func (m *Master) broadcastFailure(agentID string) {
	e := &scheduler.Event{Type: scheduler.Event_FAILURE, Failure: &scheduler.Event_Failure{AgentID: &mesos.AgentID{Value: agentID}}}
	for _, f := range m.fws {
		m.send(f, e)
	}
}

// lastOf returns what reconciliation repeats of a task's last status.
func lastOf(t *mesos.Task) (*mesos.ContainerStatus, *bool, *mesos.CheckStatusInfo) {
	for i := len(t.Statuses) - 1; i >= 0; i-- {
		if s := &t.Statuses[i]; s.ContainerStatus != nil {
			return s.ContainerStatus, t.Statuses[len(t.Statuses)-1].Healthy, t.Statuses[len(t.Statuses)-1].CheckStatus
		}
	}
	if n := len(t.Statuses); n > 0 {
		return nil, t.Statuses[n-1].Healthy, t.Statuses[n-1].CheckStatus
	}
	return nil, nil, nil
}

// addStatus keeps a status in a task's history, one for each state in a row.
func addStatus(t *task, s mesos.TaskStatus) {
	s.Data = nil
	if n := len(t.Statuses); n > 0 && t.Statuses[n-1].GetState() == s.GetState() {
		t.Statuses = append(t.Statuses[:n-1:n-1], s)
		return
	}
	t.Statuses = append(t.Statuses[:len(t.Statuses):len(t.Statuses)], s)
}

// setState moves a task on; the end of it gives its resources back. A state that is final stays.
func (m *Master) setState(t *task, state mesos.TaskState) {
	if terminal(t.GetState()) {
		return
	}
	t.State = state.Enum()
	if !terminal(state) || t.released {
		return
	}
	t.released = true
	f := m.fws[t.FrameworkID.Value]
	m.alloc.Recover(t.FrameworkID.Value, t.AgentID.Value, t.Resources, 0, time.Now())
	if f != nil && t.ExecutorID != nil {
		m.executorTaskEnded(f, executorKey{t.AgentID.Value, t.ExecutorID.Value})
	}
	m.wantCycle(m.timing.Recovered)
}

// executorTaskEnded gives an executor's resources back after its last task.
func (m *Master) executorTaskEnded(f *framework, k executorKey) {
	e := f.executors[k]
	if e == nil {
		return
	}
	if e.live--; e.live > 0 {
		return
	}
	delete(f.executors, k)
	m.alloc.Recover(f.id, k.agent, e.resources, 0, time.Now())
}

// endTask ends a task by the master's own word and tells its framework.
func (m *Master) endTask(f *framework, t *task, s mesos.TaskStatus) {
	m.setState(t, s.GetState())
	addStatus(t, s)
	m.removeTask(f, t)
	m.sendUpdate(f, s)
}

// removeTask moves a task that is over to the completed ones.
func (m *Master) removeTask(f *framework, t *task) {
	if a := m.agents[t.AgentID.Value]; a != nil {
		delete(a.tasks, t.key())
		defer m.checkDrained(a)
	}
	delete(f.tasks, t.TaskID.Value)
	t.unacked = nil
	f.complete(t)
}

func (f *framework) complete(t *task) {
	f.done = append(f.done, t)
	if over := len(f.done) - maxCompletedTasks; over > 0 {
		f.done = append([]*task(nil), f.done[over:]...)
	}
}

// statusUpdate takes an agent's report of a task: it is passed on, and repeated to a framework that
// comes back, until it is acknowledged.
func (m *Master) statusUpdate(l *Link, fw string, s mesos.TaskStatus, latest mesos.TaskState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agentOf(l)
	if a == nil || !a.connected || (s.AgentID != nil && s.AgentID.Value != a.id) {
		return agent.ErrUnknownAgent
	}
	if len(s.UUID) != 16 || s.State == nil {
		m.counts.invalidUpdates++
		return nil
	}
	m.counts.updates++
	a.lastSign = time.Now()
	f := m.fws[fw]
	if f == nil {
		m.answerForCompleted(a, fw, s)
		return nil
	}
	t := a.tasks[taskKey{fw, s.TaskID.Value}]
	if a.drain != nil && s.GetState() == mesos.TASK_KILLED && s.Reason == nil {
		s.Reason = mesos.REASON_AGENT_DRAINING.Enum()
	}
	if f.connected() {
		if t != nil {
			t.StatusUpdateState, t.StatusUpdateUUID = s.State, s.UUID
		}
		m.sendUpdate(f, s)
	}
	if t == nil {
		return nil
	}
	t.unacked = &s
	m.setState(t, latest)
	addStatus(t, s)
	if terminal(s.GetState()) {
		m.setState(t, s.GetState())
	}
	return nil
}

// answerForCompleted acknowledges in the name of a framework that is over.
func (m *Master) answerForCompleted(a *agentState, fw string, s mesos.TaskStatus) {
	if m.completed[fw] == nil {
		return // not back yet after the master's start: the agent repeats it
	}
	id, uuid := mesos.FrameworkID{Value: fw}, s.UUID
	a.link.send(func(h agent.Handle) { h.Acknowledge(id, s.TaskID, uuid) })
	if !terminal(s.GetState()) {
		a.link.send(func(h agent.Handle) { h.ShutdownFramework(id) })
	}
}

// acknowledge passes a framework's acknowledgement on, and ends a task whose last status it was.
func (m *Master) acknowledge(f *framework, c *scheduler.Call_Acknowledge) {
	a := m.agents[c.AgentID.Value]
	if a == nil || !a.connected {
		return
	}
	if t := a.tasks[taskKey{f.id, c.TaskID.Value}]; t != nil {
		if t.StatusUpdateState == nil {
			return // not sent by this master
		}
		if t.unacked != nil && string(t.unacked.UUID) == string(c.UUID) {
			t.unacked = nil
		}
		if terminal(*t.StatusUpdateState) && string(t.StatusUpdateUUID) == string(c.UUID) {
			m.removeTask(f, t)
		}
	}
	id, taskID, uuid := mesos.FrameworkID{Value: f.id}, c.TaskID, c.UUID
	a.link.send(func(h agent.Handle) { h.Acknowledge(id, taskID, uuid) })
}

// kill passes a kill on; a task nobody knows is answered as in reconciliation.
func (m *Master) kill(f *framework, c *scheduler.Call_Kill) {
	t := f.tasks[c.TaskID.Value]
	if t == nil {
		m.reconcileTask(f, c.TaskID.Value, c.AgentID)
		return
	}
	if c.AgentID != nil && c.AgentID.Value != t.AgentID.Value {
		return
	}
	a := m.agents[t.AgentID.Value]
	t.kill = true
	if a != nil && a.connected {
		m.sendKill(a, t, c.KillPolicy)
	}
}

func (m *Master) sendKill(a *agentState, t *task, policy *mesos.KillPolicy) {
	fw, id := t.FrameworkID, t.TaskID
	a.link.send(func(h agent.Handle) { h.Kill(fw, id, policy) })
}

// reconcile answers what the master knows of tasks: of all the framework's when none is named.
func (m *Master) reconcile(f *framework, tasks []scheduler.Call_Reconcile_Task) {
	if len(tasks) == 0 {
		for _, t := range f.tasks {
			m.sendUpdate(f, m.reconciled(t))
		}
		return
	}
	for i := range tasks {
		m.reconcileTask(f, tasks[i].TaskID.Value, tasks[i].AgentID)
	}
}

func (m *Master) reconciled(t *task) mesos.TaskStatus {
	state := t.GetState()
	if t.StatusUpdateState != nil {
		state = *t.StatusUpdateState
	}
	s := m.newStatus(t.AgentID.Value, t.TaskID.Value, state, mesos.SOURCE_MASTER, "Reconciliation: Latest task state")
	s.Reason = mesos.REASON_RECONCILIATION.Enum()
	s.ExecutorID = t.ExecutorID
	s.ContainerStatus, s.Healthy, s.CheckStatus = lastOf(&t.Task)
	return s
}

func (m *Master) reconcileTask(f *framework, id string, on *mesos.AgentID) {
	if t := f.tasks[id]; t != nil {
		m.sendUpdate(f, m.reconciled(t))
		return
	}
	agentID := on.GetValue()
	state, text := mesos.TASK_UNKNOWN, "Reconciliation: Task is unknown"
	var since *mesos.TimeInfo
	if _, waiting := m.recovered[agentID]; waiting || (on == nil && len(m.recovered) > 0) {
		return // nobody can know before the agent is back
	}
	if m.agents[agentID] != nil {
		state, text = mesos.TASK_GONE, "Reconciliation: Task is unknown to the agent"
	} else if l, ok := m.lost[agentID]; ok {
		state, text = mesos.TASK_UNREACHABLE, "Reconciliation: Task is unreachable"
		since = &mesos.TimeInfo{Nanoseconds: l.since.UnixNano()}
	} else if _, ok := m.gone[agentID]; ok {
		state, text = mesos.TASK_GONE_BY_OPERATOR, "Reconciliation: Task is gone"
	}
	if !f.partitionAware() {
		state = mesos.TASK_LOST
	}
	s := m.newStatus(agentID, id, state, mesos.SOURCE_MASTER, text)
	s.Reason, s.UnreachableTime = mesos.REASON_RECONCILIATION.Enum(), since
	m.sendUpdate(f, s)
}

package embedded

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/registry"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
)

func hostOf(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Host
	}
	return ""
}

// checkAgent refuses descriptions that the master cannot work with.
func checkAgent(r *agent.Registration) error {
	if r.Handle == nil {
		return fmt.Errorf("register agent: no handle")
	}
	if r.Info.Hostname == "" {
		return fmt.Errorf("register agent: no hostname")
	}
	r.Info.Resources = resource.Upgrade(resource.Unallocate(r.Info.Resources))
	if err := validate.Resources(r.Info.Resources); err != nil {
		return fmt.Errorf("register agent %s: %w", r.Info.Hostname, err)
	}
	return nil
}

// register admits a new agent. Asked again over the same connection, because the answer was lost, it gives the same id.
func (m *Master) register(l *Link, r agent.Registration) (mesos.AgentID, error) {
	if err := checkAgent(&r); err != nil {
		return mesos.AgentID{}, err
	}
	m.admin.Lock()
	defer m.admin.Unlock()
	m.mu.Lock()
	old := m.agentOf(l)
	if old != nil && old.connected && old.handle == r.Handle {
		old.lastSign = time.Now()
		m.mu.Unlock()
		return mesos.AgentID{Value: old.id}, nil
	}
	m.mu.Unlock()
	n, err := m.reg.Reserve("agent", 1)
	if err != nil {
		return mesos.AgentID{}, err
	}
	id := fmt.Sprintf("%s-S%d", m.id, n)
	r.Info.ID = &mesos.AgentID{Value: id}
	now := time.Now()
	if err := m.reg.PutAgents(registry.Agent{ID: id, State: registry.Admitted, Since: now, Info: r.Info}); err != nil {
		return mesos.AgentID{}, err
	}
	if old != nil {
		if err := m.reg.DeleteAgents(old.id); err != nil {
			return mesos.AgentID{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old != nil {
		m.removeAgent(old, "a new agent registered at the same address")
	}
	a := m.installAgent(l, id, r, now)
	m.log.Info("engine master: agent registered", zap.String("agent", a.String()))
	return mesos.AgentID{Value: id}, nil
}

// agentOf finds the registered agent behind a link; the caller holds mu.
func (m *Master) agentOf(l *Link) *agentState {
	if l.agentID == "" {
		return nil
	}
	return m.agents[l.agentID]
}

// installAgent makes an agent usable, with what frameworks have on it in a.tasks; the caller holds mu.
func (m *Master) installAgent(l *Link, id string, r agent.Registration, now time.Time) *agentState {
	a := m.agents[id]
	if a == nil {
		a = &agentState{id: id, registered: now, tasks: map[taskKey]*task{}, offers: map[string]*offer{}}
		m.agents[id] = a
	}
	a.info, a.total, a.version, a.url = r.Info, r.Info.Resources, r.Version, r.URL
	a.info.ID = &mesos.AgentID{Value: id}
	a.info.Resources = resource.Add(nil, plain(a.total)...)
	a.link, a.handle, a.connected, a.lastSign = l, r.Handle, true, now
	l.agentID = id
	l.attach(r.Handle)
	m.agentToAllocator(a)
	m.wantCycle(0)
	return a
}

// plain takes dynamic reservations and volumes off resources.
func plain(l resource.List) resource.List {
	out := resource.StripVolume(l)
	for i := range out {
		for resource.IsDynamic(&out[i]) {
			out[i] = resource.PopReservation(out[i : i+1])[0]
		}
	}
	return out
}

// agentToAllocator tells the allocator an agent's total and use afresh.
func (m *Master) agentToAllocator(a *agentState) {
	used := map[string]resource.List{}
	for _, t := range a.tasks {
		if !t.released {
			used[t.FrameworkID.Value] = resource.Add(used[t.FrameworkID.Value], t.Resources...)
		}
	}
	for _, f := range m.fws {
		for k, e := range f.executors {
			if k.agent == a.id {
				used[f.id] = resource.Add(used[f.id], e.resources...)
			}
		}
	}
	m.alloc.AddAgent(a.id, a.total, used)
	m.alloc.SetAgentActive(a.id, !a.deactivated)
}

// agentFromAllocator takes an agent with all its offers out of the allocator.
func (m *Master) agentFromAllocator(a *agentState) {
	for _, o := range a.offers {
		m.rescind(o)
	}
	now := time.Now()
	for _, t := range a.tasks {
		if !t.released {
			m.alloc.Recover(t.FrameworkID.Value, a.id, t.Resources, 0, now)
		}
	}
	for _, f := range m.fws {
		for k, e := range f.executors {
			if k.agent == a.id {
				m.alloc.Recover(f.id, a.id, e.resources, 0, now)
			}
		}
	}
	m.alloc.RemoveAgent(a.id)
}

// reregister takes an agent back with what it runs.
func (m *Master) reregister(l *Link, r agent.Reregistration) error {
	if err := checkAgent(&r.Registration); err != nil {
		return err
	}
	id := r.ID.Value
	m.admin.Lock()
	defer m.admin.Unlock()
	m.mu.Lock()
	_, gone := m.gone[id]
	known := m.agents[id]
	rec := registry.Agent{ID: id, State: registry.Admitted, Since: time.Now(), Info: r.Info}
	if a, ok := m.recovered[id]; ok {
		rec.Deactivated, rec.Drain = a.rec.Deactivated, a.rec.Drain
	}
	lost, wasLost := m.lost[id]
	if wasLost {
		rec.Deactivated, rec.Drain = lost.rec.Deactivated, lost.rec.Drain
	}
	m.mu.Unlock()
	if gone {
		return agent.ErrRemoved
	}
	if known == nil {
		rec.Info.ID = &r.ID
		if err := m.reg.PutAgents(rec); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.agentOf(l); old != nil && old.id != id {
		m.removeAgent(old, "another agent registered at the same address")
	}
	if known != nil {
		m.reregisterKnown(l, known, r)
	} else {
		m.reregisterLost(l, r, rec, wasLost)
	}
	return nil
}

// reregisterKnown is the return of an agent that was not given up.
func (m *Master) reregisterKnown(l *Link, a *agentState, r agent.Reregistration) {
	// What was sent over a connection that still stands is under way; what was sent over an earlier one was lost.
	session := uint64(0)
	if a.handle == r.Handle {
		session = l.currentSession()
	}
	m.dropPending(a, "agent reregistered before the operation was confirmed")
	has := map[taskKey]*mesos.Task{}
	for i := range r.Tasks {
		t := &r.Tasks[i]
		has[taskKey{t.FrameworkID.Value, t.TaskID.Value}] = t
	}
	for k, t := range a.tasks {
		theirs := has[k]
		if theirs == nil && !terminal(t.GetState()) && (session == 0 || t.session != session) {
			m.taskUnknown(a, t)
		}
	}
	m.agentFromAllocator(a)
	a.rereg = time.Now()
	m.installAgent(l, a.id, r.Registration, a.rereg)
	m.adoptTasks(a, r, false, "")
	for k, t := range a.tasks {
		if t.kill && has[k] != nil && !terminal(t.GetState()) {
			m.sendKill(a, t, nil)
		}
	}
	m.shutdownCompleted(a, r)
	m.log.Info("engine master: agent reregistered", zap.String("agent", a.String()))
}

// reregisterLost is the return of an agent that was given up, or that this master has not seen before.
func (m *Master) reregisterLost(l *Link, r agent.Reregistration, rec registry.Agent, wasLost bool) {
	id := r.ID.Value
	_, wasRecovered := m.recovered[id]
	delete(m.recovered, id)
	delete(m.lost, id)
	for _, f := range m.fws {
		for tid, t := range f.unreachable {
			if t.AgentID.Value == id {
				delete(f.unreachable, tid)
			}
		}
	}
	now := time.Now()
	a := &agentState{id: id, registered: now, rereg: now, tasks: map[taskKey]*task{}, offers: map[string]*offer{},
		deactivated: rec.Deactivated, url: r.URL, info: r.Info}
	if len(rec.Drain) > 0 {
		a.drain = &mesos.DrainInfo{}
		if err := a.drain.Unmarshal(rec.Drain); err != nil {
			m.log.Error("engine master: drain record is damaged", zap.String("agent", id), zap.Error(err))
			a.drain = nil
		}
	}
	m.agents[id] = a
	text := ""
	switch {
	case wasLost:
		text = "Unreachable agent re-reregistered"
	case !wasRecovered:
		text = "Unknown agent reregistered"
	}
	m.adoptTasks(a, r, true, text)
	m.installAgent(l, id, r.Registration, now)
	m.shutdownCompleted(a, r)
	if a.drain != nil {
		m.drainTasks(a)
	}
	m.log.Info("engine master: agent came back", zap.String("agent", a.String()), zap.Bool("lost", wasLost))
}

// adoptTasks takes over what an agent runs. With text, frameworks are told of every task.
func (m *Master) adoptTasks(a *agentState, r agent.Reregistration, fresh bool, text string) {
	infos := map[string]*mesos.FrameworkInfo{}
	for i := range r.Frameworks {
		infos[r.Frameworks[i].GetID().GetValue()] = &r.Frameworks[i]
	}
	for i := range r.Tasks {
		theirs := r.Tasks[i]
		k := taskKey{theirs.FrameworkID.Value, theirs.TaskID.Value}
		if m.completed[k.framework] != nil {
			continue
		}
		if mine := a.tasks[k]; mine != nil || !fresh {
			if mine != nil && !terminal(mine.GetState()) && theirs.State != nil {
				m.setState(mine, theirs.GetState())
			}
			continue
		}
		f := m.frameworkForTask(k.framework, infos[k.framework])
		if f == nil {
			continue
		}
		theirs.AgentID = mesos.AgentID{Value: a.id}
		role := "*"
		if len(f.roles) > 0 {
			role = f.roles[0]
		}
		theirs.Resources = resource.AllocateMissing(resource.Upgrade(theirs.Resources), role)
		t := &task{Task: theirs, released: terminal(theirs.GetState())}
		a.tasks[k], f.tasks[k.task] = t, t
		m.adoptExecutor(a, f, t, r.Executors, role)
		if text != "" {
			s := m.newStatus(a.id, k.task, theirs.GetState(), mesos.SOURCE_MASTER, text)
			s.Reason = mesos.REASON_AGENT_REREGISTERED.Enum()
			s.ExecutorID = theirs.ExecutorID
			s.ContainerStatus, s.Healthy, s.CheckStatus = lastOf(&theirs)
			m.sendUpdate(f, s)
		}
	}
}

// adoptExecutor counts a pod's executor, with the first of its tasks that is not over.
func (m *Master) adoptExecutor(a *agentState, f *framework, t *task, list []mesos.ExecutorInfo, role string) {
	if t.ExecutorID == nil || t.released {
		return
	}
	k := executorKey{a.id, t.ExecutorID.Value}
	if f.executors[k] == nil {
		at := slices.IndexFunc(list, func(e mesos.ExecutorInfo) bool {
			return e.ExecutorID.Value == k.executor && e.FrameworkID.GetValue() == f.id
		})
		if at < 0 {
			return
		}
		f.executors[k] = &executor{info: list[at], resources: resource.AllocateMissing(resource.Upgrade(list[at].Resources), role)}
	}
	f.executors[k].live++
}

// frameworkForTask finds a task's framework; one that is not known is taken from the agent, as a Mesos master after a failover does.
func (m *Master) frameworkForTask(id string, info *mesos.FrameworkInfo) *framework {
	if f := m.fws[id]; f != nil {
		return f
	}
	if info == nil {
		m.log.Warn("engine master: task of a framework nobody knows", zap.String("framework", id))
		return nil
	}
	now := time.Now()
	f := newFramework(id, *info, now)
	f.recovered, f.removeAt = true, now.Add(max(failover(info), m.timing.AgentReregister))
	m.fws[id] = f
	m.alloc.SetFramework(id, m.allocInfo(f, nil), false)
	return f
}

// shutdownCompleted tells an agent to end what frameworks that are over left on it.
func (m *Master) shutdownCompleted(a *agentState, r agent.Reregistration) {
	told := map[string]bool{}
	for i := range r.Tasks {
		id := r.Tasks[i].FrameworkID
		if m.completed[id.Value] != nil && !told[id.Value] {
			told[id.Value] = true
			a.link.send(func(h agent.Handle) { h.ShutdownFramework(id) })
		}
	}
}

// taskUnknown ends a task that the agent does not have.
func (m *Master) taskUnknown(a *agentState, t *task) {
	f := m.fws[t.FrameworkID.Value]
	state := mesos.TASK_LOST
	if f.partitionAware() {
		state = mesos.TASK_DROPPED
	}
	s := m.newStatus(a.id, t.TaskID.Value, state, mesos.SOURCE_AGENT, "Reconciliation: task unknown to the agent")
	s.Reason = mesos.REASON_RECONCILIATION.Enum()
	s.ExecutorID = t.ExecutorID
	m.endTask(f, t, s)
}

package embedded

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
)

// acceptance is an ACCEPT call on its way through its operations.
type acceptance struct {
	f         *framework
	a         *agentState
	role      string
	offered   resource.List
	remaining resource.List // what later operations may use
	resized   resource.List // results that may only be used from the next offer on
}

// accept carries out the operations of an ACCEPT call in order; each that cannot be is answered for itself.
func (m *Master) accept(f *framework, c *scheduler.Call_Accept) {
	offers, err := m.acceptedOffers(f, c.OfferIDs)
	if err != nil {
		for _, id := range c.OfferIDs {
			if o := m.offers[id.Value]; o != nil && o.framework == f.id {
				m.discard(o, 0)
			}
		}
		m.refuseOperations(f, c.Operations, "invalid offers: "+err.Error(), mesos.REASON_INVALID_OFFERS)
		m.wantCycle(m.timing.Recovered)
		return
	}
	x := &acceptance{f: f, a: m.agents[offers[0].agent], role: offers[0].role}
	if !x.a.connected {
		m.dropOperations(f, c.Operations)
		for _, o := range offers {
			m.discard(o, 0)
		}
		return
	}
	for _, o := range offers {
		x.offered = resource.Add(x.offered, o.resources...)
		m.forgetOffer(o)
	}
	x.remaining = x.offered
	for i := range c.Operations {
		m.operate(x, &c.Operations[i])
	}
	// What operations made of the offers is offered again at once; what was left of them is filtered.
	made := resource.Subtract(resource.Add(x.remaining, x.resized...), x.offered...)
	left := resource.Subtract(x.remaining, made...)
	now := m.clock()
	m.alloc.Recover(f.id, x.a.id, made, 0, now)
	m.alloc.Recover(f.id, x.a.id, left, refusal(c.Filters), now)
	m.wantCycle(m.timing.Recovered)
}

// refuseOperations answers operations that came with offers that do not hold.
func (m *Master) refuseOperations(f *framework, ops []mesos.Offer_Operation, why string, reason mesos.TaskStatus_Reason) {
	for i := range ops {
		tasks := tasksOf(&ops[i])
		if tasks == nil {
			m.refuseOperation(f, &ops[i], "Operation attempted with "+why)
		}
		for j := range tasks {
			m.refuseTask(f, &tasks[j], dropped(f), reason, "Task launched with "+why)
		}
	}
}

// dropOperations answers tasks for an agent whose connection is broken.
func (m *Master) dropOperations(f *framework, ops []mesos.Offer_Operation) {
	for i := range ops {
		for _, t := range tasksOf(&ops[i]) {
			m.refuseTask(f, &t, dropped(f), mesos.REASON_AGENT_DISCONNECTED, "Agent disconnected")
		}
	}
}

func tasksOf(op *mesos.Offer_Operation) []mesos.TaskInfo {
	switch op.Type {
	case mesos.Offer_Operation_LAUNCH:
		return append([]mesos.TaskInfo{}, op.GetLaunch().GetTaskInfos()...)
	case mesos.Offer_Operation_LAUNCH_GROUP:
		if g := op.LaunchGroup; g != nil {
			return append([]mesos.TaskInfo{}, g.TaskGroup.Tasks...)
		}
		return []mesos.TaskInfo{}
	}
	return nil
}

// refuseOperation answers an operation that was not carried out, when its framework gave it an id.
func (m *Master) refuseOperation(f *framework, op *mesos.Offer_Operation, text string) {
	if op.ID == nil {
		m.log.Sugar().Warnf("engine master: %s of framework %s refused: %s", op.Type, f.id, text)
		return
	}
	m.sendOperation(f, mesos.OperationStatus{OperationID: op.ID, State: mesos.OPERATION_ERROR, Message: &text})
}

// normalise brings the resources of an operation into the engine's own form.
func normalise(op *mesos.Offer_Operation, role string) {
	for _, l := range validate.Lists(op) {
		*l = resource.AllocateMissing(resource.Upgrade(*l), role)
	}
	if g := op.GrowVolume; g != nil {
		g.Volume, g.Addition = one(g.Volume, role), one(g.Addition, role)
	}
	if s := op.ShrinkVolume; s != nil {
		s.Volume = one(s.Volume, role)
	}
}

func one(r mesos.Resource, role string) mesos.Resource {
	return resource.AllocateMissing(resource.Upgrade(resource.List{r}), role)[0]
}

func (m *Master) operate(x *acceptance, op *mesos.Offer_Operation) {
	normalise(op, x.role)
	switch op.Type {
	case mesos.Offer_Operation_LAUNCH:
		tasks := op.GetLaunch().GetTaskInfos()
		for i := range tasks {
			m.launch(x, &tasks[i])
		}
	case mesos.Offer_Operation_LAUNCH_GROUP:
		m.launchGroup(x, op.LaunchGroup)
	default:
		conv, err := validate.Operation(op, validate.OperationContext{Framework: &x.f.info, Principal: x.f.info.Principal,
			Total: x.a.total, InUse: x.a.uses})
		if err != nil {
			m.refuseOperation(x.f, op, err.Error()+"; on agent "+x.a.String())
			return
		}
		if !resource.Contains(x.remaining, conv.From) {
			text := resource.Format(x.remaining) + " does not contain " + resource.Format(conv.From)
			if conv.Later {
				text = "Invalid " + op.Type.String() + " operation: " + text
			}
			m.refuseOperation(x.f, op, text)
			return
		}
		x.remaining = resource.Subtract(x.remaining, conv.From...)
		if conv.Later {
			x.resized = resource.Add(x.resized, conv.To...)
		} else {
			x.remaining = resource.Add(x.remaining, conv.To...)
		}
		m.alloc.Convert(x.a.id, x.f.id, conv.From, conv.To, true)
		m.convert(x.a, conv, x.f, op)
	}
}

// uses says whether a task on the agent has the volume.
func (a *agentState) uses(v *mesos.Resource) bool {
	for _, t := range a.tasks {
		if !t.released && resource.Contains(resource.Unallocate(t.Resources), resource.List{*v}) {
			return true
		}
	}
	return false
}

// context is what validation has to know of the place.
func (x *acceptance) context(m *Master) validate.TaskContext {
	return validate.TaskContext{
		AgentID:     x.a.id,
		Used:        func(id string) bool { return x.f.tasks[id] != nil },
		Unreachable: func(id string) bool { return x.f.unreachable[id] != nil },
		Executor: func(id string) *mesos.ExecutorInfo {
			if e := x.f.executors[executorKey{x.a.id, id}]; e != nil {
				return &e.info
			}
			return nil
		},
		Offered: x.remaining,
	}
}

func (m *Master) launch(x *acceptance, info *mesos.TaskInfo) {
	if e := info.Executor; e != nil && e.FrameworkID == nil {
		e.FrameworkID = &mesos.FrameworkID{Value: x.f.id}
	}
	if err := validate.Task(info, x.context(m)); err != nil {
		m.refuseTask(x.f, info, mesos.TASK_ERROR, mesos.REASON_TASK_INVALID, err.Error())
		return
	}
	if info.Executor != nil {
		m.addExecutor(x, info.Executor)
	}
	t := m.addTask(x, info, nil)
	fw, task := x.f.info, *info
	t.session = x.a.link.send(func(h agent.Handle) { h.Run(fw, task) })
}

func (m *Master) launchGroup(x *acceptance, g *mesos.Offer_Operation_LaunchGroup) {
	if g == nil {
		return
	}
	e := &g.Executor
	if e.FrameworkID == nil {
		e.FrameworkID = &mesos.FrameworkID{Value: x.f.id}
	}
	tasks := g.TaskGroup.Tasks
	for i := range tasks {
		if tasks[i].Executor == nil {
			tasks[i].Executor = e
		}
	}
	if err := validate.Group(tasks, e, x.context(m)); err != nil {
		for i := range tasks {
			m.refuseTask(x.f, &tasks[i], mesos.TASK_ERROR, mesos.REASON_TASK_GROUP_INVALID, err.Error())
		}
		return
	}
	m.addExecutor(x, e)
	fw, ex := x.f.info, *e
	session := x.a.link.send(func(h agent.Handle) { h.RunGroup(fw, ex, tasks) })
	for i := range tasks {
		m.addTask(x, &tasks[i], &e.ExecutorID).session = session
	}
}

// addExecutor counts an executor's resources as used, unless it runs already.
func (m *Master) addExecutor(x *acceptance, e *mesos.ExecutorInfo) {
	k := executorKey{x.a.id, e.ExecutorID.Value}
	if x.f.executors[k] != nil {
		return
	}
	x.f.executors[k] = &executor{info: *e, resources: e.Resources}
	x.remaining = resource.Subtract(x.remaining, e.Resources...)
}

func (m *Master) addTask(x *acceptance, info *mesos.TaskInfo, ex *mesos.ExecutorID) *task {
	if ex == nil && info.Executor != nil {
		ex = &info.Executor.ExecutorID
	}
	t := &task{Task: mesos.Task{
		Name: info.Name, TaskID: info.TaskID, FrameworkID: mesos.FrameworkID{Value: x.f.id}, ExecutorID: ex, AgentID: info.AgentID,
		State: mesos.TASK_STAGING.Enum(), Resources: info.Resources, Labels: info.Labels, Discovery: info.Discovery,
		Container: info.Container, HealthCheck: info.HealthCheck, KillPolicy: info.KillPolicy, User: userOf(info),
	}}
	if ex != nil {
		if e := x.f.executors[executorKey{x.a.id, ex.Value}]; e != nil {
			e.live++
		}
	}
	x.f.tasks[info.TaskID.Value], x.a.tasks[t.key()] = t, t
	x.remaining = resource.Subtract(x.remaining, info.Resources...)
	m.counts.tasksLaunched++
	return t
}

func userOf(info *mesos.TaskInfo) *string {
	if info.Command != nil && info.Command.User != nil {
		return info.Command.User
	}
	if e := info.Executor; e != nil && e.Command != nil {
		return e.Command.User
	}
	return nil
}

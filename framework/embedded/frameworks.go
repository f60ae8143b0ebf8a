package embedded

import (
	"fmt"
	"math"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/allocator"
	"github.com/holdfast-io/holdfast/framework/embedded/registry"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// failover is how long a framework may stay away.
func failover(info *mesos.FrameworkInfo) time.Duration {
	s := math.Min(info.GetFailoverTimeout(), (100 * 365 * 24 * time.Hour).Seconds())
	if !(s > 0) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

func (m *Master) allocInfo(f *framework, suppressed []string) allocator.Framework {
	return allocator.Framework{Roles: f.roles, Suppressed: suppressed,
		Refinement: validate.HasCapability(&f.info, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT),
		GPU:        validate.HasCapability(&f.info, mesos.FrameworkInfo_Capability_GPU_RESOURCES)}
}

// subscribe connects a framework to a stream. What speaks against it is an ERROR event on the stream, which then ends.
func (m *Master) subscribe(stream *wire.Stream, c *scheduler.Call_Subscribe) {
	refuse := func(text string) {
		stream.Send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: text}})
		stream.End()
	}
	info := *c.FrameworkInfo
	if err := validate.Framework(&info, c.SuppressedRoles); err != nil {
		refuse(err.Error())
		return
	}
	m.admin.Lock()
	defer m.admin.Unlock()
	f, created, err := m.subscriber(&info)
	if err != nil {
		refuse(err.Error())
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connect(f, stream, info, c.SuppressedRoles)
	if created {
		m.fws[f.id], f.registered = f, f.reregistered
	}
}

// subscriber finds or makes the framework that wants to subscribe and records it; the caller holds admin.
func (m *Master) subscriber(info *mesos.FrameworkInfo) (f *framework, created bool, err error) {
	id := info.GetID().GetValue()
	m.mu.Lock()
	f = m.fws[id]
	removed := m.completed[id] != nil
	if f != nil {
		validate.KeepImmutable(&f.info, info)
		err = validate.FrameworkUpdate(&f.info, info)
	}
	m.mu.Unlock()
	switch {
	case id != "" && removed:
		return nil, false, resource.Invalid("Framework has been removed")
	case err != nil:
		return nil, false, err
	case f == nil && id == "":
		n, err := m.reg.Reserve("framework", 1)
		if err != nil {
			return nil, false, err
		}
		id = fmt.Sprintf("%s-%04d", m.id, n)
	}
	info.ID = &mesos.FrameworkID{Value: id}
	rec := registry.Framework{ID: id, Info: *info, Registered: time.Now()}
	if f != nil {
		rec.Registered = f.registered
	}
	if err := m.reg.PutFrameworks(rec); err != nil {
		return nil, false, err
	}
	if f == nil {
		return newFramework(id, *info, rec.Registered), true, nil
	}
	return f, false, nil
}

// connect makes stream the framework's own; a former one is told that it was taken over.
func (m *Master) connect(f *framework, stream *wire.Stream, info mesos.FrameworkInfo, suppressed []string) {
	now := time.Now()
	if old := f.stream; old != nil {
		old.Send(&scheduler.Event{Type: scheduler.Event_ERROR, Error: &scheduler.Event_Error{Message: "Framework failed over"}})
		old.End()
		m.log.Info("engine master: framework failed over", zap.String("framework", f.id))
	}
	for _, o := range f.offers { // the new scheduler does not know them
		m.discard(o, 0)
	}
	f.info, f.roles, f.stream = info, validate.Roles(&info), stream
	f.recovered, f.removeAt, f.nextBeat = false, time.Time{}, now.Add(m.timing.Heartbeat)
	f.reregistered = now
	m.alloc.SetFramework(f.id, m.allocInfo(f, suppressed), true)
	beat := m.timing.Heartbeat.Seconds()
	master := m.info
	m.send(f, &scheduler.Event{Type: scheduler.Event_SUBSCRIBED, Subscribed: &scheduler.Event_Subscribed{
		FrameworkID: &mesos.FrameworkID{Value: f.id}, HeartbeatIntervalSeconds: &beat, MasterInfo: &master}})
	m.send(f, &scheduler.Event{Type: scheduler.Event_HEARTBEAT})
	m.repeat(f)
	m.wantCycle(0)
	m.log.Info("engine master: framework subscribed", zap.String("framework", f.id), zap.String("name", info.Name))
}

// repeat sends again what the framework has not acknowledged.
func (m *Master) repeat(f *framework) {
	for _, t := range f.tasks {
		if t.unacked != nil {
			t.StatusUpdateState, t.StatusUpdateUUID = t.unacked.State, t.unacked.UUID
			m.sendUpdate(f, *t.unacked)
		}
	}
	for _, op := range f.operations {
		if op.ended {
			m.sendOperation(f, op.status)
		}
	}
}

// streamClosed is the end of a subscription's connection.
func (m *Master) streamClosed(id string, stream *wire.Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fws[id]
	if f == nil || f.stream != stream {
		return
	}
	f.stream = nil
	now := time.Now()
	f.removeAt = now.Add(failover(&f.info))
	for _, o := range f.offers {
		m.discard(o, 0)
	}
	m.alloc.SetFrameworkActive(f.id, false)
	m.wantCycle(m.timing.Recovered)
	m.log.Info("engine master: framework disconnected", zap.String("framework", f.id), zap.Time("removed", f.removeAt))
}

// expireFrameworks removes frameworks whose failover timeout is over.
func (m *Master) expireFrameworks(now time.Time) {
	m.mu.Lock()
	var over []string
	for _, f := range m.fws {
		if !f.connected() && !f.removeAt.IsZero() && !now.Before(f.removeAt) {
			over = append(over, f.id)
		}
	}
	m.mu.Unlock()
	for _, id := range over {
		if err := m.teardown(id, false); err != nil {
			m.log.Error("engine master: framework not removed, trying again", zap.String("framework", id), zap.Error(err))
		}
	}
}

// teardown removes a framework with all its tasks, for good. Without force only when it is disconnected.
func (m *Master) teardown(id string, force bool) error {
	m.admin.Lock()
	defer m.admin.Unlock()
	m.mu.Lock()
	f := m.fws[id]
	skip := f == nil || (f.connected() && !force)
	rec := registry.Framework{ID: id, Removed: time.Now()}
	if f != nil {
		rec.Info, rec.Registered = f.info, f.registered
	}
	m.mu.Unlock()
	if skip {
		return nil
	}
	if err := m.reg.PutFrameworks(rec); err != nil {
		return err
	}
	m.mu.Lock()
	forget := m.removeFramework(f, rec.Removed)
	m.mu.Unlock()
	if forget != "" {
		return m.reg.DeleteFrameworks(forget)
	}
	return nil
}

// removeFramework ends everything of a framework; it returns the id of one that is to be forgotten in its place.
func (m *Master) removeFramework(f *framework, now time.Time) (forget string) {
	id := mesos.FrameworkID{Value: f.id}
	for _, o := range f.offers {
		m.discard(o, 0)
	}
	for _, a := range m.agents {
		if a.connected {
			a.link.send(func(h agent.Handle) { h.ShutdownFramework(id) })
		}
	}
	stream := f.stream
	f.stream = nil // it hears nothing of all this
	for _, tasks := range []map[string]*task{f.tasks, f.unreachable} {
		for tid, t := range tasks {
			s := m.newStatus(t.AgentID.Value, tid, mesos.TASK_KILLED, mesos.SOURCE_MASTER, "Framework "+f.id+" removed")
			s.Reason, s.ExecutorID = mesos.REASON_FRAMEWORK_REMOVED.Enum(), t.ExecutorID
			delete(tasks, tid)
			m.endTask(f, t, s)
		}
	}
	for k, e := range f.executors {
		m.alloc.Recover(f.id, k.agent, e.resources, 0, now)
		delete(f.executors, k)
	}
	f.operations = map[string]*operation{}
	m.alloc.RemoveFramework(f.id)
	f.unregistered = now
	delete(m.fws, f.id)
	m.completed[f.id] = f
	m.finished = append(m.finished, f.id)
	if n := len(m.finished) - maxCompletedWithTasks; n > 0 {
		m.completed[m.finished[n-1]].done = nil
	}
	if len(m.finished) > maxCompleted {
		forget, m.finished = m.finished[0], m.finished[1:]
		delete(m.completed, forget)
	}
	if stream != nil {
		stream.End()
	}
	m.wantCycle(m.timing.Recovered)
	m.log.Info("engine master: framework removed", zap.String("framework", f.id))
	return forget
}

// updateFramework changes what a connected framework said of itself.
func (m *Master) updateFramework(f *framework, c *scheduler.Call_UpdateFramework) error {
	info := c.FrameworkInfo
	if err := validate.Framework(&info, c.SuppressedRoles); err != nil {
		return wire.BadRequest("'UpdateFramework.framework_info' is not valid: %v", err)
	}
	m.admin.Lock()
	defer m.admin.Unlock()
	m.mu.Lock()
	err := validate.FrameworkUpdate(&f.info, &info)
	rec := registry.Framework{ID: f.id, Info: info, Registered: f.registered}
	m.mu.Unlock()
	if err != nil {
		return wire.BadRequest("'UpdateFramework.framework_info' is not valid: %v", err)
	}
	if err := m.reg.PutFrameworks(rec); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f.info, f.roles = info, validate.Roles(&info)
	for _, o := range f.offers {
		if !slices.Contains(f.roles, o.role) {
			m.rescind(o)
		}
	}
	m.alloc.SetFramework(f.id, m.allocInfo(f, c.SuppressedRoles), f.connected())
	m.wantCycle(0)
	return nil
}

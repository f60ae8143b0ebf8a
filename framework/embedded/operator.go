package embedded

import (
	"net/http"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/master"

	"github.com/holdfast-io/holdfast/framework/embedded/registry"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
	"github.com/holdfast-io/holdfast/framework/embedded/view"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// serveOperator is POST /api/v1.
func (m *Master) serveOperator(w http.ResponseWriter, r *http.Request) {
	principal, ok := m.authenticate(w, r, "mesos-master-readwrite")
	if !ok {
		return
	}
	if refusal := wire.OnlyMethod(r, http.MethodPost); refusal != nil {
		refusal.Write(w)
		return
	}
	var c master.Call
	if refusal := wire.ReadCall(w, r, &c); refusal != nil {
		refusal.Write(w)
		return
	}
	if err := validate.OperatorCall(&c); err != nil {
		wire.BadRequest("Failed to validate master::Call: %v", err).Write(w)
		return
	}
	media, refusal := wire.Accepted(r)
	if refusal != nil {
		refusal.Write(w)
		return
	}
	resp := m.look(&c)
	if resp == nil {
		status, err := m.act(&c, principal)
		m.answer(w, status, err)
		return
	}
	b, err := wire.Encode(media, resp)
	if err == nil && media == codecs.MediaTypeJSON {
		b, err = view.Complete(b)
	}
	if err != nil {
		wire.Refuse(http.StatusInternalServerError, "%v", err).Write(w)
		return
	}
	w.Header().Set("Content-Type", string(media))
	_, _ = w.Write(b)
}

// look answers calls that change nothing; nil for the others.
func (m *Master) look(c *master.Call) *master.Response {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch c.Type {
	case master.Call_GET_HEALTH:
		return &master.Response{Type: master.Response_GET_HEALTH, GetHealth: &master.Response_GetHealth{Healthy: true}}
	case master.Call_GET_VERSION:
		return &master.Response{Type: master.Response_GET_VERSION, GetVersion: &master.Response_GetVersion{
			VersionInfo: mesos.VersionInfo{Version: Version}}}
	case master.Call_GET_FLAGS:
		resp := &master.Response_GetFlags{}
		for _, f := range m.flags() {
			v := f[1]
			resp.Flags = append(resp.Flags, mesos.Flag{Name: f[0], Value: &v})
		}
		return &master.Response{Type: master.Response_GET_FLAGS, GetFlags: resp}
	case master.Call_GET_MASTER:
		info, start := m.info, seconds(m.started)
		return &master.Response{Type: master.Response_GET_MASTER, GetMaster: &master.Response_GetMaster{
			MasterInfo: &info, StartTime: &start, ElectedTime: &start}}
	case master.Call_GET_AGENTS:
		return &master.Response{Type: master.Response_GET_AGENTS, GetAgents: m.viewAgents()}
	case master.Call_GET_TASKS:
		return &master.Response{Type: master.Response_GET_TASKS, GetTasks: m.viewTasks()}
	case master.Call_GET_FRAMEWORKS:
		return &master.Response{Type: master.Response_GET_FRAMEWORKS, GetFrameworks: m.viewFrameworks()}
	case master.Call_GET_EXECUTORS:
		return &master.Response{Type: master.Response_GET_EXECUTORS, GetExecutors: m.viewExecutors()}
	case master.Call_GET_STATE:
		return &master.Response{Type: master.Response_GET_STATE, GetState: &master.Response_GetState{GetTasks: m.viewTasks(),
			GetExecutors: m.viewExecutors(), GetFrameworks: m.viewFrameworks(), GetAgents: m.viewAgents()}}
	case master.Call_GET_ROLES:
		return &master.Response{Type: master.Response_GET_ROLES, GetRoles: m.viewRoles()}
	case master.Call_GET_OPERATIONS:
		return &master.Response{Type: master.Response_GET_OPERATIONS, GetOperations: m.viewOperations()}
	case master.Call_GET_MAINTENANCE_STATUS:
		return &master.Response{Type: master.Response_GET_MAINTENANCE_STATUS,
			GetMaintenanceStatus: &master.Response_GetMaintenanceStatus{Status: m.viewMaintenance()}}
	case master.Call_GET_MAINTENANCE_SCHEDULE:
		return &master.Response{Type: master.Response_GET_MAINTENANCE_SCHEDULE,
			GetMaintenanceSchedule: &master.Response_GetMaintenanceSchedule{Schedule: m.upkeep.Schedule()}}
	case master.Call_GET_METRICS:
		resp := &master.Response_GetMetrics{}
		for _, x := range view.Sorted(m.metrics()) {
			v := x.Value
			resp.Metrics = append(resp.Metrics, mesos.Metric{Name: x.Name, Value: &v})
		}
		return &master.Response{Type: master.Response_GET_METRICS, GetMetrics: resp}
	}
	return nil
}

// act carries out calls that change something.
func (m *Master) act(c *master.Call, principal *string) (int, error) {
	switch c.Type {
	case master.Call_MARK_AGENT_GONE:
		known, err := m.markGone(c.MarkAgentGone.AgentID.Value)
		if err == nil && !known {
			err = wire.Refuse(http.StatusNotFound, "Agent '%s' is not known", c.MarkAgentGone.AgentID.Value)
		}
		return http.StatusOK, err
	case master.Call_TEARDOWN:
		id := c.Teardown.FrameworkID.Value
		m.mu.Lock()
		known := m.fws[id] != nil
		m.mu.Unlock()
		if !known {
			return 0, wire.BadRequest("No framework found with specified ID")
		}
		return http.StatusOK, m.teardown(id, true)
	case master.Call_UPDATE_MAINTENANCE_SCHEDULE:
		return http.StatusOK, m.setSchedule(c.UpdateMaintenanceSchedule.Schedule)
	case master.Call_DRAIN_AGENT:
		return http.StatusOK, m.drainCall(c.DrainAgent)
	case master.Call_DEACTIVATE_AGENT:
		return http.StatusOK, m.setActive(c.DeactivateAgent.AgentID.Value, false, nil)
	case master.Call_REACTIVATE_AGENT:
		return http.StatusOK, m.setActive(c.ReactivateAgent.AgentID.Value, true, nil)
	}
	op, agentID := operatorOperation(c)
	if op == nil {
		return 0, wire.Refuse(http.StatusNotImplemented, "%s is not implemented by the embedded engine", c.Type)
	}
	return http.StatusAccepted, m.operatorOperation(agentID, op, principal)
}

// operatorOperation writes an operator's call as the operation it is.
func operatorOperation(c *master.Call) (*mesos.Offer_Operation, string) {
	switch c.Type {
	case master.Call_RESERVE_RESOURCES:
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE, Reserve: &mesos.Offer_Operation_Reserve{
			Resources: c.ReserveResources.Resources, Source: c.ReserveResources.Source}}, c.ReserveResources.AgentID.Value
	case master.Call_UNRESERVE_RESOURCES:
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE, Unreserve: &mesos.Offer_Operation_Unreserve{
			Resources: c.UnreserveResources.Resources}}, c.UnreserveResources.AgentID.Value
	case master.Call_CREATE_VOLUMES:
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE, Create: &mesos.Offer_Operation_Create{
			Volumes: c.CreateVolumes.Volumes}}, c.CreateVolumes.AgentID.Value
	case master.Call_DESTROY_VOLUMES:
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY, Destroy: &mesos.Offer_Operation_Destroy{
			Volumes: c.DestroyVolumes.Volumes}}, c.DestroyVolumes.AgentID.Value
	case master.Call_GROW_VOLUME:
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME, GrowVolume: &mesos.Offer_Operation_GrowVolume{
			Volume: c.GrowVolume.Volume, Addition: c.GrowVolume.Addition}}, c.GrowVolume.AgentID.GetValue()
	case master.Call_SHRINK_VOLUME:
		return &mesos.Offer_Operation{Type: mesos.Offer_Operation_SHRINK_VOLUME, ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{
			Volume: c.ShrinkVolume.Volume, Subtract: c.ShrinkVolume.Subtract}}, c.ShrinkVolume.AgentID.GetValue()
	}
	return nil, ""
}

// operatorOperation carries out an operation on what of an agent is free; offers are rescinded until it is.
func (m *Master) operatorOperation(agentID string, op *mesos.Offer_Operation, principal *string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agents[agentID]
	if a == nil {
		return wire.BadRequest("No agent found with specified ID")
	}
	if !a.connected {
		return wire.Refuse(http.StatusConflict, "Agent %s is disconnected", a)
	}
	for _, l := range validate.Lists(op) {
		*l = resource.Upgrade(*l)
	}
	conv, err := validate.Operation(op, validate.OperationContext{Principal: principal, Total: a.total, InUse: a.uses})
	if err != nil {
		return wire.BadRequest("Invalid %s operation on agent %s: %v", op.Type, a, err)
	}
	for _, o := range a.offers {
		if resource.Contains(m.alloc.Free(a.id), conv.From) {
			break
		}
		if touches(o.resources, conv.From) {
			m.rescind(o)
		}
	}
	if free := m.alloc.Free(a.id); !resource.Contains(free, conv.From) {
		return wire.Refuse(http.StatusConflict, "Invalid %s operation on agent %s: %s does not contain %s", op.Type, a,
			resource.Format(free), resource.Format(conv.From))
	}
	m.alloc.Convert(a.id, "", conv.From, conv.To, false)
	m.convert(a, conv, nil, op)
	m.wantCycle(m.timing.Recovered)
	return nil
}

// touches says whether a list has any resource of a name that another wants.
func touches(l, wanted resource.List) bool {
	for i := range wanted {
		if resource.Has(l, wanted[i].Name) {
			return true
		}
	}
	return false
}

// drainCall is DRAIN_AGENT: the agent is not offered any more and its tasks are killed.
func (m *Master) drainCall(c *master.Call_DrainAgent) error {
	d := &mesos.DrainInfo{State: mesos.DrainState_DRAINING, Config: mesos.DrainConfig{MarkGone: c.MarkGone}}
	if g := c.MaxGracePeriod; g != nil {
		if g.Seconds < 0 || g.Nanos < 0 || g.Seconds > 1e9 {
			return wire.BadRequest("Invalid DRAIN_AGENT: 'max_grace_period' is not a valid duration")
		}
		d.Config.MaxGracePeriod = &mesos.DurationInfo{Nanoseconds: g.Seconds*int64(time.Second) + int64(g.Nanos)}
	}
	if d.Config.MarkGone == nil {
		no := false
		d.Config.MarkGone = &no
	}
	return m.setActive(c.AgentID.Value, false, d)
}

// setActive starts or stops offers of an agent, durably, and begins a drain when there is one.
func (m *Master) setActive(id string, active bool, drain *mesos.DrainInfo) error {
	m.admin.Lock()
	defer m.admin.Unlock()
	now := time.Now()
	m.mu.Lock()
	a := m.agents[id]
	var rec registry.Agent
	if a != nil {
		rec = m.record(a, registry.Admitted, now)
		rec.Deactivated, rec.Drain = !active, nil
		if drain != nil {
			rec.Drain, _ = drain.Marshal()
		}
	}
	m.mu.Unlock()
	if a == nil {
		return wire.Refuse(http.StatusNotFound, "Agent '%s' is not registered", id)
	}
	if err := m.reg.PutAgents(rec); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agents[id] != a {
		return wire.Refuse(http.StatusNotFound, "Agent '%s' is not registered", id)
	}
	a.deactivated, a.drain = !active, drain
	m.alloc.SetAgentActive(id, active && a.connected)
	if active {
		a.drainStart = time.Time{}
		m.wantCycle(0)
		return nil
	}
	for _, o := range a.offers {
		m.rescind(o)
	}
	if drain != nil {
		a.drainStart = now
		m.drainTasks(a)
	}
	return nil
}

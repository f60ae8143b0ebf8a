package embedded

import (
	"errors"
	"net/http"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/validate"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

const streamHeader = "Mesos-Stream-Id"

// serveScheduler is POST /api/v1/scheduler.
func (m *Master) serveScheduler(w http.ResponseWriter, r *http.Request) {
	principal, ok := m.authenticate(w, r, "mesos-master-scheduler")
	if !ok {
		return
	}
	if refusal := wire.OnlyMethod(r, http.MethodPost); refusal != nil {
		refusal.Write(w)
		return
	}
	var c scheduler.Call
	if refusal := wire.ReadCall(w, r, &c); refusal != nil {
		refusal.Write(w)
		return
	}
	if err := validate.Call(&c, principal); err != nil {
		m.countMessage(false)
		wire.BadRequest("Failed to validate scheduler::Call: %v", err).Write(w)
		return
	}
	m.countMessage(true)
	if c.Type == scheduler.Call_SUBSCRIBE {
		m.serveSubscribe(w, r, c.Subscribe, principal)
		return
	}
	status, err := m.schedulerCall(&c, r, principal)
	m.answer(w, status, err)
}

// answer writes a status without a body, or what went wrong.
func (m *Master) answer(w http.ResponseWriter, status int, err error) {
	var refusal *wire.Refusal
	switch {
	case err == nil:
		w.WriteHeader(status)
	case errors.As(err, &refusal):
		refusal.Write(w)
	default:
		m.log.Error("engine master: call failed", zap.Error(err))
		wire.Refuse(http.StatusServiceUnavailable, "%v", err).Write(w)
	}
}

func (m *Master) countMessage(valid bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if valid {
		m.counts.messages++
	} else {
		m.counts.invalidMessages++
	}
}

func (m *Master) serveSubscribe(w http.ResponseWriter, r *http.Request, c *scheduler.Call_Subscribe, principal *string) {
	media, refusal := wire.Accepted(r)
	if refusal == nil && r.Header.Get(streamHeader) != "" {
		refusal = wire.BadRequest("Subscribe calls should not include the 'Mesos-Stream-Id' header")
	}
	if refusal != nil {
		refusal.Write(w)
		return
	}
	if principal != nil && c.FrameworkInfo.Principal == nil {
		c.FrameworkInfo.Principal = principal
	}
	stream := wire.NewStream(uuid.NewString(), media, streamQueue)
	m.subscribe(stream, c)
	id := m.streamOwner(stream)
	if err := stream.Serve(r.Context(), w, m.timing.StreamWrite); err != nil {
		m.log.Debug("engine master: stream ended", zap.String("framework", id), zap.Error(err))
	}
}

// streamOwner finds whose stream it is and sees to it that its end is noticed.
func (m *Master) streamOwner(s *wire.Stream) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, f := range m.fws {
		if f.stream == s {
			go func() {
				<-s.Done()
				m.streamClosed(id, s)
			}()
			return id
		}
	}
	return ""
}

// schedulerCall carries out a call other than SUBSCRIBE.
func (m *Master) schedulerCall(c *scheduler.Call, r *http.Request, principal *string) (int, error) {
	id := c.FrameworkID.Value
	m.mu.Lock()
	f, err := m.caller(id, r, principal)
	if err == nil && c.Type != scheduler.Call_TEARDOWN && c.Type != scheduler.Call_UPDATE_FRAMEWORK {
		err = m.lockedCall(f, c)
		m.mu.Unlock()
		return http.StatusAccepted, err
	}
	m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if c.Type == scheduler.Call_TEARDOWN {
		return http.StatusAccepted, m.teardown(id, true)
	}
	return http.StatusOK, m.updateFramework(f, c.UpdateFramework)
}

// caller finds the framework that may make a call, by Mesos's rules and in their order.
func (m *Master) caller(id string, r *http.Request, principal *string) (*framework, error) {
	f := m.fws[id]
	switch {
	case f == nil:
		return nil, wire.BadRequest("Framework cannot be found")
	case principal != nil && *principal != f.info.GetPrincipal():
		return nil, wire.BadRequest("Authenticated principal '%s' does not match principal '%s' set in `FrameworkInfo`", *principal, f.info.GetPrincipal())
	case !f.connected():
		return nil, wire.Refuse(http.StatusForbidden, "Framework is not subscribed")
	}
	given := r.Header.Values(streamHeader)
	if len(given) == 0 {
		return nil, wire.BadRequest("All non-subscribe calls should include the 'Mesos-Stream-Id' header")
	}
	if given[0] != f.stream.ID {
		return nil, wire.BadRequest("The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID %s", given[0], id)
	}
	return f, nil
}

// lockedCall carries out what needs nothing durable; the caller holds mu.
func (m *Master) lockedCall(f *framework, c *scheduler.Call) error {
	switch c.Type {
	case scheduler.Call_ACCEPT:
		m.accept(f, c.Accept)
	case scheduler.Call_DECLINE:
		m.decline(f, c.Decline)
	case scheduler.Call_REVIVE:
		return m.reviveSuppress(f, "Revive", c.GetRevive().GetRoles(), m.alloc.Revive)
	case scheduler.Call_SUPPRESS:
		return m.reviveSuppress(f, "Suppress", c.GetSuppress().GetRoles(), m.alloc.Suppress)
	case scheduler.Call_KILL:
		m.kill(f, c.Kill)
	case scheduler.Call_SHUTDOWN:
		m.shutdownExecutor(f, c.Shutdown)
	case scheduler.Call_ACKNOWLEDGE:
		m.acknowledge(f, c.Acknowledge)
	case scheduler.Call_ACKNOWLEDGE_OPERATION_STATUS:
		m.acknowledgeOperation(f, c.AcknowledgeOperationStatus)
	case scheduler.Call_RECONCILE:
		m.reconcile(f, c.Reconcile.Tasks)
	case scheduler.Call_RECONCILE_OPERATIONS:
		m.reconcileOperations(f, c.ReconcileOperations.Operations)
	case scheduler.Call_ACCEPT_INVERSE_OFFERS:
		m.answerInverse(f, c.AcceptInverseOffers.InverseOfferIDs, true, c.AcceptInverseOffers.Filters)
	case scheduler.Call_DECLINE_INVERSE_OFFERS:
		m.answerInverse(f, c.DeclineInverseOffers.InverseOfferIDs, false, c.DeclineInverseOffers.Filters)
	case scheduler.Call_MESSAGE:
		m.log.Debug("engine master: message to an executor dropped: the engine's executors take none", zap.String("framework", f.id))
	case scheduler.Call_REQUEST:
		// Mesos's own allocator ignores requests too.
	default:
		return wire.Refuse(http.StatusNotImplemented, "")
	}
	return nil
}

// reviveSuppress does either for roles that the framework has; others are left out, as Mesos drops such a call.
func (m *Master) reviveSuppress(f *framework, what string, roles []string, do func(string, []string)) error {
	for _, role := range roles {
		found := false
		for _, own := range f.roles {
			found = found || own == role
		}
		if !found {
			m.log.Warn("engine master: call names a role that the framework does not have", zap.String("call", what),
				zap.String("framework", f.id), zap.String("role", role))
			return nil
		}
	}
	do(f.id, roles)
	m.wantCycle(0)
	return nil
}

// shutdownExecutor ends all tasks of an executor.
func (m *Master) shutdownExecutor(f *framework, c *scheduler.Call_Shutdown) {
	a := m.agents[c.AgentID.Value]
	if a == nil || !a.connected {
		return
	}
	for _, t := range a.tasks {
		own := t.ExecutorID.GetValue() == c.ExecutorID.Value || (t.ExecutorID == nil && t.TaskID.Value == c.ExecutorID.Value)
		if t.FrameworkID.Value == f.id && own {
			m.sendKill(a, t, &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{}})
		}
	}
}

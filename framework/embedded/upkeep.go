package embedded

import (
	"net"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	api "github.com/mesos/mesos-go/api/v1/lib/maintenance"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/maintenance"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

const scheduleDocument = "maintenance-schedule"

// loadSchedule reads the maintenance schedule at start.
func (m *Master) loadSchedule() error {
	data, err := m.reg.Document(scheduleDocument)
	if err != nil {
		return err
	}
	var s api.Schedule
	if err := s.Unmarshal(data); err != nil {
		return err
	}
	m.upkeep = maintenance.New(s)
	return nil
}

// setSchedule is UPDATE_MAINTENANCE_SCHEDULE: agents in it are offered with the time they have left, and
// frameworks on them are asked to leave.
func (m *Master) setSchedule(s api.Schedule) error {
	if err := maintenance.Validate(&s); err != nil {
		return wire.BadRequest("Invalid maintenance schedule: %v", err)
	}
	data, err := s.Marshal()
	if err != nil {
		return err
	}
	m.admin.Lock()
	defer m.admin.Unlock()
	if err := m.reg.PutDocument(scheduleDocument, data); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.upkeep
	m.upkeep = maintenance.New(s)
	for _, i := range was.Update(api.Schedule{}) {
		m.rescindInverse(i)
	}
	for _, a := range m.agents {
		host, ip := machineOf(a)
		if !equalTime(was.For(host, ip), m.upkeep.For(host, ip)) {
			for _, o := range a.offers { // they say something else of the time left
				m.rescind(o)
			}
		}
	}
	m.askToLeave(m.clock())
	m.wantCycle(m.timing.Recovered)
	return nil
}

func equalTime(a, b *mesos.Unavailability) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b)
}

// machineOf names the machine of an agent, as maintenance schedules do.
func machineOf(a *agentState) (hostname, ip string) {
	ip, _, err := net.SplitHostPort(hostOf(a.url))
	if err != nil {
		ip = hostOf(a.url)
	}
	return a.info.Hostname, ip
}

// askToLeave sends inverse offers to frameworks with tasks on agents that are in the schedule; the caller holds mu.
func (m *Master) askToLeave(now time.Time) {
	if len(m.upkeep.Schedule().Windows) == 0 {
		return
	}
	// One that is out stands, as in Mesos, also when the last task has ended: the framework may still say yes.
	for _, i := range m.upkeep.Withdraw(func(p maintenance.Pair) bool { return m.agents[p.Agent] == nil || m.fws[p.Framework] == nil }) {
		m.rescindInverse(i)
	}
	batches := map[*framework][]mesos.InverseOffer{}
	for _, a := range sorted(m.agents) {
		host, ip := machineOf(a)
		when := m.upkeep.For(host, ip)
		if when == nil {
			continue
		}
		for _, f := range sorted(m.fws) {
			pair := maintenance.Pair{Framework: f.id, Agent: a.id}
			if !f.connected() || !m.occupies(pair) || !m.upkeep.Wants(pair, now) {
				continue
			}
			id, err := m.offerID()
			if err != nil {
				m.log.Error("engine master: inverse offer not made", zap.Error(err))
				return
			}
			m.upkeep.Sent(maintenance.Inverse{ID: id, Pair: pair, Unavailability: *when})
			batches[f] = append(batches[f], mesos.InverseOffer{OfferID: mesos.OfferID{Value: id}, URL: agentURL(a),
				FrameworkID: mesos.FrameworkID{Value: f.id}, AgentID: &mesos.AgentID{Value: a.id}, Unavailability: *when})
		}
	}
	for f, list := range batches {
		m.send(f, &scheduler.Event{Type: scheduler.Event_INVERSE_OFFERS, InverseOffers: &scheduler.Event_InverseOffers{InverseOffers: list}})
	}
}

// occupies says whether a framework has a task on an agent that has not ended.
func (m *Master) occupies(p maintenance.Pair) bool {
	a := m.agents[p.Agent]
	if a == nil || m.fws[p.Framework] == nil {
		return false
	}
	for k, t := range a.tasks {
		if k.framework == p.Framework && !t.released {
			return true
		}
	}
	return false
}

func (m *Master) rescindInverse(i maintenance.Inverse) {
	if f := m.fws[i.Framework]; f != nil {
		m.send(f, &scheduler.Event{Type: scheduler.Event_RESCIND_INVERSE_OFFER,
			RescindInverseOffer: &scheduler.Event_RescindInverseOffer{InverseOfferID: mesos.OfferID{Value: i.ID}}})
	}
}

// answerInverse takes a framework's answer to inverse offers.
func (m *Master) answerInverse(f *framework, ids []mesos.OfferID, accept bool, filters *mesos.Filters) {
	for _, id := range ids {
		m.upkeep.Answer(f.id, id.Value, accept, refusal(filters), m.clock())
	}
}

// viewMaintenance is what GET_MAINTENANCE_STATUS tells.
func (m *Master) viewMaintenance() api.ClusterStatus {
	return m.upkeep.Status(func(id string) (string, string) {
		if a := m.agents[id]; a != nil {
			return machineOf(a)
		}
		return "", ""
	})
}

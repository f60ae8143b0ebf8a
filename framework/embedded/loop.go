package embedded

import (
	"context"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/allocator"
)

// loop does what time brings, until ctx is done.
func (m *Master) loop(ctx context.Context) {
	next := time.Now().Add(m.timing.Allocation)
	for {
		m.mu.Lock()
		at := next
		if !m.cycleAt.IsZero() && m.cycleAt.Before(at) {
			at = m.cycleAt
		}
		m.mu.Unlock()
		timer := time.NewTimer(time.Until(at))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-m.wake:
			timer.Stop()
			continue // somebody moved cycleAt
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(next) {
			m.tick(now)
			next = now.Add(m.timing.Allocation)
		} else {
			m.mu.Lock()
			m.allocate(now)
			m.mu.Unlock()
		}
	}
}

// wantCycle asks for an allocation after a delay; the caller holds mu. A negative delay leaves it to the interval.
func (m *Master) wantCycle(delay time.Duration) {
	if delay < 0 {
		return
	}
	at := time.Now().Add(delay)
	if m.cycleAt.IsZero() || at.Before(m.cycleAt) {
		m.cycleAt = at
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

// tick is one interval's work.
func (m *Master) tick(now time.Time) {
	m.excuseOwnSleep(now)
	m.expireAgents(now)
	m.markDrained()
	m.expireFrameworks(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heartbeats(now)
	m.expireOffers(now)
	m.askToLeave(m.clock())
	m.allocate(now)
}

// excuseOwnSleep gives agents their time anew after the master itself stood still (stopped, suspended, starved):
// silence it could not have heard proves nothing.
func (m *Master) excuseOwnSleep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slept := !m.lastTick.IsZero() && now.Sub(m.lastTick) > m.timing.Allocation+m.timing.AgentLost/2
	m.lastTick = now
	if !slept {
		return
	}
	m.log.Warn("engine master: stood still for a while; agents get their time anew")
	for _, a := range m.agents {
		a.lastSign = now
	}
}

func (m *Master) heartbeats(now time.Time) {
	for _, f := range m.fws {
		if f.connected() && !now.Before(f.nextBeat) {
			f.nextBeat = now.Add(m.timing.Heartbeat)
			m.send(f, &scheduler.Event{Type: scheduler.Event_HEARTBEAT})
		}
	}
}

func (m *Master) expireOffers(now time.Time) {
	if m.timing.Offer <= 0 {
		return
	}
	for _, o := range m.offers {
		if now.Sub(o.made) >= m.timing.Offer {
			m.rescind(o)
		}
	}
}

// bytesPerEvent bounds one OFFERS event: mesos-go's reader refuses events over 4 MB.
const bytesPerEvent = 2 << 20

// allocate makes one allocation cycle and sends the offers; the caller holds mu.
func (m *Master) allocate(now time.Time) {
	m.cycleAt = time.Time{}
	m.counts.cycles++
	defer func() { m.counts.lastCycle = time.Since(now) }()
	batches := map[*framework][]mesos.Offer{}
	var order []*framework
	for _, a := range m.alloc.Cycle(m.clock()) {
		f := m.fws[a.Framework]
		o, err := m.makeOffer(f, a, now)
		if err != nil {
			m.log.Error("engine master: offer not made", zap.Error(err))
			m.alloc.Recover(a.Framework, a.Agent, a.Resources, 0, m.clock())
			continue
		}
		if batches[f] == nil {
			order = append(order, f)
		}
		batches[f] = append(batches[f], o)
	}
	for _, f := range order {
		for list := batches[f]; len(list) > 0; {
			n := fitting(list)
			m.send(f, &scheduler.Event{Type: scheduler.Event_OFFERS, Offers: &scheduler.Event_Offers{Offers: list[:n:n]}})
			list = list[n:]
		}
	}
}

// fitting says how many offers go into one event, one at least.
func fitting(list []mesos.Offer) int {
	size := 0
	for i := range list {
		if size += list[i].Size(); size > bytesPerEvent && i > 0 {
			return i
		}
	}
	return len(list)
}

func (m *Master) makeOffer(f *framework, a allocator.Allocation, now time.Time) (mesos.Offer, error) {
	id, err := m.offerID()
	if err != nil {
		return mesos.Offer{}, err
	}
	o := &offer{id: id, framework: f.id, agent: a.Agent, role: a.Role, resources: a.Resources, made: now}
	ag := m.agents[a.Agent]
	m.offers[o.id], f.offers[o.id], ag.offers[o.id] = o, o, o
	m.counts.offers++
	return m.offerMessage(f, ag, o), nil
}

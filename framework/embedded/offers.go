package embedded

import (
	"math"
	"net"
	"net/url"
	"strconv"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
)

// offerMessage writes an offer in the form its framework understands.
func (m *Master) offerMessage(f *framework, a *agentState, o *offer) mesos.Offer {
	msg := mesos.Offer{
		ID: mesos.OfferID{Value: o.id}, FrameworkID: mesos.FrameworkID{Value: f.id}, AgentID: mesos.AgentID{Value: a.id},
		Hostname: a.info.Hostname, URL: agentURL(a), Domain: a.info.Domain, Attributes: a.info.Attributes, Resources: o.resources,
	}
	host, ip := machineOf(a)
	msg.Unavailability = m.upkeep.For(host, ip)
	for k, e := range f.executors {
		if k.agent == a.id {
			msg.ExecutorIDs = append(msg.ExecutorIDs, e.info.ExecutorID)
		}
	}
	if !validate.HasCapability(&f.info, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT) {
		msg.Resources, _ = resource.Downgrade(msg.Resources) // refined ones were not allocated to it
	}
	if validate.HasCapability(&f.info, mesos.FrameworkInfo_Capability_MULTI_ROLE) {
		role := o.role
		msg.AllocationInfo = &mesos.Resource_AllocationInfo{Role: &role}
	} else {
		msg.Resources = append(resource.List(nil), msg.Resources...)
		for i := range msg.Resources {
			msg.Resources[i].AllocationInfo = nil
		}
	}
	return msg
}

// agentURL is where an agent is reached, as offers tell it.
func agentURL(a *agentState) *mesos.URL {
	u, err := url.Parse(a.url)
	if err != nil || u.Host == "" {
		return nil
	}
	host, p, err := net.SplitHostPort(u.Host)
	if err != nil {
		host = u.Host
	}
	port, _ := strconv.ParseInt(p, 10, 32)
	name, path := a.info.Hostname, "/slave(1)"
	return &mesos.URL{Scheme: u.Scheme, Address: mesos.Address{Hostname: &name, IP: &host, Port: int32(port)}, Path: &path}
}

// forgetOffer takes an offer out of all books; what it held is the caller's.
func (m *Master) forgetOffer(o *offer) {
	delete(m.offers, o.id)
	if f := m.fws[o.framework]; f != nil {
		delete(f.offers, o.id)
	}
	if a := m.agents[o.agent]; a != nil {
		delete(a.offers, o.id)
	}
}

// discard takes an offer back without a word to the framework, which asked for it or is not there. It is not
// offered again to it for as long as refuse says.
func (m *Master) discard(o *offer, refuse time.Duration) {
	m.forgetOffer(o)
	m.alloc.Recover(o.framework, o.agent, o.resources, refuse, m.clock())
}

// rescind takes an offer back and tells the framework.
func (m *Master) rescind(o *offer) {
	m.discard(o, 0)
	if f := m.fws[o.framework]; f != nil {
		m.send(f, &scheduler.Event{Type: scheduler.Event_RESCIND, Rescind: &scheduler.Event_Rescind{OfferID: mesos.OfferID{Value: o.id}}})
	}
	m.wantCycle(m.timing.Recovered)
}

// refusal is how long a filter lasts: 5 s unless said otherwise, a year at most; what is no number counts as not said.
func refusal(f *mesos.Filters) time.Duration {
	const most = 365 * 24 * time.Hour
	s := f.GetRefuseSeconds()
	switch {
	case math.IsNaN(s) || s < 0:
		s = mesos.Default_Filters_RefuseSeconds
	case s > most.Seconds():
		return most
	}
	return time.Duration(s * float64(time.Second))
}

// decline takes offers back at the framework's wish.
func (m *Master) decline(f *framework, c *scheduler.Call_Decline) {
	for _, id := range c.OfferIDs {
		if o := m.offers[id.Value]; o != nil && o.framework == f.id {
			m.discard(o, refusal(c.Filters))
		}
	}
	m.wantCycle(m.timing.Recovered)
}

// acceptedOffers checks the offers of an ACCEPT: all there, once each, the framework's own, of one agent and one role.
func (m *Master) acceptedOffers(f *framework, ids []mesos.OfferID) ([]*offer, error) {
	if len(ids) == 0 {
		return nil, resource.Invalidf("No offers specified")
	}
	var out []*offer
	seen := map[string]bool{}
	for _, id := range ids {
		o := m.offers[id.Value]
		switch {
		case seen[id.Value]:
			return nil, resource.Invalidf("Duplicate offer %s in offer list", id.Value)
		case o == nil:
			return nil, resource.Invalidf("Offer %s is no longer valid", id.Value)
		case o.framework != f.id:
			return nil, resource.Invalidf("Offer %s has invalid framework %s while framework %s is expected", id.Value, o.framework, f.id)
		}
		seen[id.Value] = true
		out = append(out, o)
	}
	first := out[0]
	for _, o := range out {
		switch {
		case o.role != first.role:
			return nil, resource.Invalidf("Aggregated offers must be allocated to the same role. Offer %s uses role '%s but another is using role '%s", o.id, o.role, first.role)
		case o.agent != first.agent:
			return nil, resource.Invalidf("Aggregated offers must belong to one single agent. Offer %s uses agent %s and agent %s", o.id, o.agent, first.agent)
		}
	}
	return out, nil
}

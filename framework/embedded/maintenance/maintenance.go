// Package maintenance keeps an operator's maintenance schedule: when which machine will not be
// available, which frameworks have been asked to leave it (inverse offers) and what they answered.
// It is pure bookkeeping: the master asks it what to send, and saves the schedule.
package maintenance

import (
	"cmp"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	alloc "github.com/mesos/mesos-go/api/v1/lib/allocator"
	api "github.com/mesos/mesos-go/api/v1/lib/maintenance"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// Pair is a framework with something on an agent.
type Pair struct{ Framework, Agent string }

// Inverse is an inverse offer that is out.
type Inverse struct {
	ID string
	Pair
	Unavailability mesos.Unavailability
}

// Planner is not safe for concurrent use.
type Planner struct {
	schedule api.Schedule
	out      map[string]Inverse // by id
	asked    map[Pair]string    // id of the one that is out
	quiet    map[Pair]time.Time // asked again only then
	answers  map[Pair]alloc.InverseOfferStatus
}

// New makes a planner with a schedule that was saved before.
func New(s api.Schedule) *Planner {
	p := &Planner{}
	p.reset(s)
	return p
}

func (p *Planner) reset(s api.Schedule) {
	p.schedule = s
	p.out, p.asked = map[string]Inverse{}, map[Pair]string{}
	p.quiet, p.answers = map[Pair]time.Time{}, map[Pair]alloc.InverseOfferStatus{}
}

// Schedule is what was set last.
func (p *Planner) Schedule() api.Schedule { return p.schedule }

// Validate checks a schedule: every machine has a name or an address and is in one window only.
func Validate(s *api.Schedule) error {
	type id struct{ host, ip string }
	seen := map[id]bool{}
	for _, w := range s.Windows {
		if len(w.MachineIDs) == 0 {
			return resource.Invalidf("List of machines in the maintenance window is empty")
		}
		if w.Unavailability.GetDuration().GetNanoseconds() < 0 {
			return resource.Invalidf("Unavailability 'duration' is negative")
		}
		for i := range w.MachineIDs {
			k := id{w.MachineIDs[i].GetHostname(), w.MachineIDs[i].GetIP()}
			switch {
			case k == id{}:
				return resource.Invalidf("Both 'hostname' and 'ip' for a machine are empty")
			case seen[k]:
				return resource.Invalidf("Machine '%s' appears more than once in the schedule", cmp.Or(k.host, k.ip))
			}
			seen[k] = true
		}
	}
	return nil
}

// Update sets a schedule and forgets what was asked and answered on the strength of the one before; it returns
// the inverse offers that were out, to be rescinded.
func (p *Planner) Update(s api.Schedule) []Inverse {
	var old []Inverse
	for _, i := range p.out {
		old = append(old, i)
	}
	p.reset(s)
	return old
}

// For returns when an agent will not be available, nil when nothing is planned for its machine.
func (p *Planner) For(hostname, ip string) *mesos.Unavailability {
	for _, w := range p.schedule.Windows {
		for i := range w.MachineIDs {
			m := &w.MachineIDs[i]
			if (m.Hostname == nil || *m.Hostname == hostname) && (m.IP == nil || *m.IP == ip) {
				u := w.Unavailability
				return &u
			}
		}
	}
	return nil
}

// Wants says whether a framework is to be asked to leave an agent now.
func (p *Planner) Wants(pair Pair, now time.Time) bool {
	return p.asked[pair] == "" && !now.Before(p.quiet[pair])
}

// Sent notes an inverse offer.
func (p *Planner) Sent(i Inverse) { p.out[i.ID], p.asked[i.Pair] = i, i.ID }

// Answer notes a framework's answer; it is not asked again for as long as quiet says. Offers that are not its own are ignored.
func (p *Planner) Answer(framework, id string, accept bool, quiet time.Duration, now time.Time) {
	i, ok := p.out[id]
	if !ok || i.Framework != framework {
		return
	}
	p.drop(i)
	p.quiet[i.Pair] = now.Add(quiet)
	status := alloc.InverseOfferStatus_DECLINE
	if accept {
		status = alloc.InverseOfferStatus_ACCEPT
	}
	p.answers[i.Pair] = alloc.InverseOfferStatus{Status: status.Enum(), FrameworkID: mesos.FrameworkID{Value: framework},
		Timestamp: mesos.TimeInfo{Nanoseconds: now.UnixNano()}}
}

func (p *Planner) drop(i Inverse) {
	delete(p.out, i.ID)
	delete(p.asked, i.Pair)
}

// Withdraw takes back inverse offers for which gone is true: the framework has left, or the agent.
func (p *Planner) Withdraw(gone func(Pair) bool) []Inverse {
	var out []Inverse
	for _, i := range p.out {
		if gone(i.Pair) {
			p.drop(i)
			out = append(out, i)
		}
	}
	return out
}

// Status is what GET_MAINTENANCE_STATUS tells; machineOf names the machine of an agent.
func (p *Planner) Status(machineOf func(agent string) (hostname, ip string)) api.ClusterStatus {
	var out api.ClusterStatus
	for _, w := range p.schedule.Windows {
		for _, m := range w.MachineIDs {
			d := api.ClusterStatus_DrainingMachine{ID: m}
			for pair, s := range p.answers {
				host, ip := machineOf(pair.Agent)
				if (m.Hostname == nil || *m.Hostname == host) && (m.IP == nil || *m.IP == ip) {
					d.Statuses = append(d.Statuses, s)
				}
			}
			slices.SortFunc(d.Statuses, func(a, b alloc.InverseOfferStatus) int { return cmp.Compare(a.FrameworkID.Value, b.FrameworkID.Value) })
			out.DrainingMachines = append(out.DrainingMachines, d)
		}
	}
	return out
}

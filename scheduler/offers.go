package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// gotOffers notes new offers and what they tell of their agents.
func (w *work) gotOffers(e Offers) {
	if ses := w.session(); !ses.Connected || ses.Stopped != "" || w.ending() {
		return
	}
	byAgent := map[state.AgentID][]*state.Offer{}
	for _, o := range e.Offers {
		c := *o
		c.At, c.HeldFor, c.Bundle, c.Until = w.now, "", "", w.now.Add(w.env.Config.HoldFor)
		w.put(state.KindOffer, c.ID, &c)
		byAgent[c.Agent] = append(byAgent[c.Agent], &c)
		w.newOffers[c.Agent] = append(w.newOffers[c.Agent], c.ID)
	}
	w.supersede(byAgent)
	for _, id := range sortedKeys(byAgent) {
		w.noteAgent(id, byAgent[id])
	}
	w.placeable = true
}

// supersede marks agents as lost whose place others have taken: a new id at the same host and port. The master says so only to those who are
// connected at that moment.
func (w *work) supersede(byAgent map[state.AgentID][]*state.Offer) {
	type place struct{ host, url string }
	var taken map[place]bool
	for id, offers := range byAgent {
		if w.agent(id) == nil {
			if taken == nil {
				taken = map[place]bool{}
			}
			taken[place{offers[0].Hostname, offers[0].AgentURL}] = true
		}
	}
	if taken == nil {
		return
	}
	for _, id := range sortedKeys(w.s.Agents) {
		a := w.agent(id)
		if a == nil || !a.LostAt.IsZero() || byAgent[id] != nil || !taken[place{a.Hostname, a.URL}] {
			continue
		}
		w.markAgent(id, w.now)
		if len(w.s.ReservedOn(id)) > 0 {
			w.missing(id)
		}
	}
}

func (w *work) noteAgent(id state.AgentID, offers []*state.Offer) {
	o := offers[len(offers)-1]
	a := &state.Agent{ID: id, Hostname: o.Hostname, URL: o.AgentURL, Attributes: o.Attributes, Region: o.Region, Zone: o.Zone, Unavailable: o.Unavailable, LastOffer: w.now}
	t := place.NewPool(offers).Totals()
	if old := w.agent(id); old != nil {
		w.vanishing = w.vanishing || !old.LostAt.IsZero()
		t = state.Totals{CPUs: max(t.CPUs, old.Total.CPUs), MemMB: max(t.MemMB, old.Total.MemMB), DiskMB: max(t.DiskMB, old.Total.DiskMB),
			GPUs: max(t.GPUs, old.Total.GPUs), Ports: max(t.Ports, old.Total.Ports)}
	} else {
		w.forgetLost(o.Hostname, time.Time{})
		// After a restart: what our own tasks use is the agent's too.
		for _, iid := range w.s.InstancesOn(id) {
			if i := w.instance(iid); i != nil && i.HasTask() {
				s := w.spec(i.App, i.Run.Version)
				t.CPUs, t.MemMB, t.DiskMB, t.GPUs, t.Ports = t.CPUs+s.CPUs, t.MemMB+s.MemMB, t.DiskMB+s.DiskMB, t.GPUs+float64(s.GPUs), t.Ports+len(i.Run.Ports)
			}
		}
	}
	a.Total = t
	w.put(state.KindAgent, string(id), a)
}

// forgetLost takes away the records of agents that are lost, run nothing of ours, and are of a host (that came back as another agent), or
// with host "" were lost before a time.
func (w *work) forgetLost(host string, before time.Time) {
	if w.s.LostAgents() == 0 {
		return
	}
	for _, id := range sortedKeys(w.s.Agents) {
		a := w.agent(id)
		if a == nil || a.LostAt.IsZero() || w.s.CountOn(id) > 0 {
			continue
		}
		if a.Hostname == host || (host == "" && a.LostAt.Before(before)) {
			w.remove(state.KindAgent, string(id))
		}
	}
}

// giveBack declines what nothing wants. An offer on which an instance's volumes are being created is kept a little.
func (w *work) giveBack() {
	if w.more {
		return
	}
	var ids []string
	for _, o := range w.offers() {
		if o.Bundle != "" {
			continue
		}
		if o.Agent == "" && o.Until.After(w.now) {
			continue // giving it back has just failed
		}
		if o.HeldFor != "" && w.preparing() > 0 && o.Until.After(w.now) {
			continue
		}
		ids = append(ids, o.ID)
		w.remove(state.KindOffer, o.ID)
	}
	if len(ids) > 0 {
		w.master(Decline{Offers: ids, Refuse: w.env.Config.DeclineFor})
	}
}

// interest tells the master whether offers are wanted.
func (w *work) interest() {
	ses := w.session()
	if !ses.Connected || ses.Stopped != "" {
		return
	}
	if w.ending() {
		w.endAgain()
		return
	}
	if len(w.env.Config.Roles) > 0 {
		w.interestByRole(ses)
		return
	}
	waits := w.waitingCount() > 0 || w.preparing() > 0 || w.wantsOffers()
	// The return of a lost agent shows in its offers only.
	lost := w.lostAgents() > 0
	if !ses.InterestAt.IsZero() && !ses.InterestAt.After(w.now) {
		w.setSession(func(s *state.Session) { s.InterestAt, s.Suppressed = time.Time{}, !waits && !lost })
		if waits || lost {
			w.master(Revive{})
		} else {
			w.master(Suppress{})
		}
		return
	}
	switch {
	case !waits && !lost && !ses.Suppressed:
		w.setSession(func(s *state.Session) { s.Suppressed = true })
		w.master(Suppress{})
	case (w.newcomer || w.room) && w.unplaced(), w.freeing && w.wantsOffers(), lost && ses.Suppressed:
		w.setSession(func(s *state.Session) { s.Suppressed = false })
		w.master(Revive{})
	}
}

// lostAgents counts the agents that are lost as of now.
func (w *work) lostAgents() int {
	n := w.s.LostAgents()
	for _, k := range w.order {
		if k.kind != state.KindAgent {
			continue
		}
		if old := w.s.Agents[state.AgentID(k.id)]; old != nil && !old.LostAt.IsZero() {
			n--
		}
		if a, ok := w.over[k].(*state.Agent); ok && !a.LostAt.IsZero() {
			n++
		}
	}
	return n
}

// unplaced tells whether an instance that this Step touched still waits and could go at once.
func (w *work) unplaced() bool {
	if w.waitingCount() == 0 {
		return false
	}
	for _, g := range w.groups() {
		spec := w.spec(g.App, g.Version)
		if slices.ContainsFunc(g.list, func(i *state.Instance) bool { return w.ready(i, spec) }) {
			return true
		}
	}
	return false
}

package scheduler

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The part of the world that empties nodes: operators' orders, maintenance windows, holds.

// checkHeld panics when a call leaves that no hold allows.
func (w *world) checkHeld(c Call) {
	if w.s.Hold.Why().Code == "" {
		return
	}
	switch c.(type) {
	case Accept, Kill, Grant, Revoke:
		w.broken("%T leaves although %s", c, w.s.Hold.Why().Text)
	}
}

// awayOrder is an order about nodes, or an operator's doing at the master.
func (w *world) awayOrder() {
	h := w.hosts[w.r.Intn(len(w.hosts))]
	name := string(h.node.UID)
	switch w.r.Intn(11) {
	case 10:
		w.step(ForgetNode{Node: name}, w.crashing())
	case 0:
		w.step(Freeze{Reason: "test", For: time.Duration(w.r.Intn(3)) * time.Second}, w.crashing())
	case 1, 2:
		w.step(Thaw{}, w.crashing())
	case 3:
		w.step(OrderNode{Node: name, Want: state.WantCordon}, w.crashing())
	case 4:
		w.step(OrderNode{Node: string(h.agent.id), Want: state.WantDrain, Reason: "test"}, w.crashing())
	case 5:
		w.step(OrderNode{Node: name, Want: state.WantDecommission}, w.crashing())
	case 6, 7:
		w.step(OrderNode{Node: name}, w.crashing())
	case 8:
		h.agent.window = &state.Window{Start: w.now.Add(time.Duration(w.r.Intn(4)) * time.Second), Duration: 20 * time.Second}
		if w.r.Intn(4) == 0 {
			h.agent.window = nil
		}
		w.rescindInverse(h)
		w.logf("window of %s: %v", h.agent.id, h.agent.window)
		for id, o := range w.offered {
			if o.Agent == h.agent.id {
				delete(w.offered, id)
				w.tell(Rescinded{Offer: id})
			}
		}
	case 9: // DRAIN_AGENT
		for _, id := range sortedKeys(h.agent.tasks) {
			if t := h.agent.tasks[id]; !t.orphan && t.phase == "running" && !h.dead && !h.agent.parted {
				w.finish(t, "TASK_KILLED")
				t.updates[len(t.updates)-1].Reason = "REASON_AGENT_DRAINING"
			}
		}
	}
}

// askToLeave sends inverse offers to a framework that has tasks on agents with a window.
func (w *world) askToLeave() {
	for _, h := range w.hosts {
		a := h.agent
		if !w.connected || a.window == nil || !a.reachable || a.asked != "" || a.quiet.After(w.now) || len(a.tasks) == 0 {
			continue
		}
		w.nOffer++
		a.asked = fmt.Sprintf("i%d", w.nOffer)
		w.tell(InverseOffers{Offers: []*state.InverseOffer{{ID: a.asked, Agent: a.id, Window: *a.window}}})
	}
}

// rescindInverse is what follows a change of the schedule.
func (w *world) rescindInverse(h *wHost) {
	if id := h.agent.asked; id != "" {
		h.agent.asked = ""
		w.tell(InverseRescinded{ID: id})
	}
}

// answeredInverse takes an answer to inverse offers.
func (w *world) answeredInverse(ids []string, yes bool, quiet time.Duration) {
	for _, id := range ids {
		for _, h := range w.hosts {
			if h.agent.asked == id {
				h.agent.asked, h.agent.quiet = "", w.now.Add(quiet)
				w.logf("leave %s: %v", h.agent.id, yes)
			}
		}
	}
}

// openAgain ends everything that keeps nodes closed.
func (w *world) openAgain() {
	w.step(Thaw{}, 0)
	for _, id := range sortedKeys(w.s.Orders) {
		w.step(OrderNode{Node: id}, 0)
	}
	for _, h := range w.hosts {
		h.agent.window = nil
		w.rescindInverse(h)
	}
}

// awayTrouble names what is left of emptying nodes when all is quiet.
func (w *world) awayTrouble() (all []string) {
	if len(w.s.Orders) > 0 || len(w.s.Leaving) > 0 || len(w.s.Inverse) > 0 || w.s.Hold.Why().Code != "" {
		all = append(all, fmt.Sprintf("orders %v, leaving %v, inverse %v, hold %v are left", sortedKeys(w.s.Orders), sortedKeys(w.s.Leaving), sortedKeys(w.s.Inverse), w.s.Hold.Why()))
	}
	return all
}

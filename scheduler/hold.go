package scheduler

import (
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/away"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// A hold is a freeze (a person's word) or the brake (too many nodes vanished at once). While there is one nothing is started, moved or killed:
//
//   - no instance is placed, no volume begun for one, no grant asked for; grants under way are called off (L5), offers given back
//   - no KILL leaves, not even again; no revoke (L6); the taker does not declare nodes dead nor free what they held (L4)
//   - no deployment goes on; a stateless run that is out of reach is waited for
//
// What happens by itself is noted as ever: tasks that end or come back, claims that nodes give back. Nodes that cannot renew fence themselves.

func (w *work) hold() *state.Hold {
	return look(w, state.KindHold, "", w.s.Hold)
}

// frozen tells whether there is a hold.
func (w *work) frozen() bool { return w.hold().Why().Code != "" }

// setHold changes the hold, and does what its beginning or end asks for.
func (w *work) setHold(f func(*state.Hold)) {
	h := state.Hold{}
	if old := w.hold(); old != nil {
		h = *old
	}
	before := w.frozen()
	f(&h)
	if base := w.s.Hold; base != nil {
		h.Rev = base.Rev + 1
	} else {
		h.Rev = 1
	}
	w.put(state.KindHold, "", &h)
	switch now := w.frozen(); {
	case now && !before:
		w.stopAll()
	case before && !now:
		w.goOnAll()
	}
	w.authority(HoldTaker{Reason: h.Why().Text})
}

// stopAll calls off what had not begun.
func (w *work) stopAll() {
	for _, id := range sortedKeys(w.s.Instances) {
		if i := w.instance(id); i != nil && i.Phase == state.PhaseGranting {
			w.cancelGranting(i, 0)
		}
	}
}

// goOnAll looks at everything again, as after a start.
func (w *work) goOnAll() {
	for _, id := range sortedKeys(w.s.Instances) {
		w.instances.add(id)
	}
	for _, id := range sortedKeys(w.s.Apps) {
		w.apps.add(id)
	}
	for _, t := range sortedKeys(w.s.Strange) {
		w.killStrange(w.s.Strange[t])
	}
	w.placeable, w.newcomer = true, true
}

// defaults of the brake.
const (
	brakeShare  = 0.5
	brakeMin    = 3
	brakeWindow = 5 * time.Minute
	brakeFor    = 15 * time.Minute
)

// checkHold ends a hold whose time is up, and engages or releases the brake. It comes before what the event leads to, so that the event
// that is one too many has no effect.
func (w *work) checkHold() {
	h := w.hold()
	if h != nil && h.Freeze != nil && !h.Freeze.Until.IsZero() && !h.Freeze.Until.After(w.now) {
		w.setHold(func(h *state.Hold) { h.Freeze = nil })
	}
	var released, engaged time.Time
	if h = w.hold(); h != nil {
		released = h.Released
		if h.Brake != nil {
			engaged = h.Brake.Since
			if !h.Brake.Until.IsZero() && !h.Brake.Until.After(w.now) {
				w.setHold(func(h *state.Hold) { h.Brake, h.Released = nil, w.now })
				return
			}
		}
	}
	if !w.vanishing || w.env.Config.BrakeShare >= 1 {
		return
	}
	if engaged.IsZero() && !w.brakeMay() {
		return
	}
	c := w.brakeRule().Look(away.Nodes(w.allNodes(), w.allAgents()), released, engaged, w.now)
	switch {
	case c.Engage && engaged.IsZero():
		b := &state.Brake{Since: w.now, Vanished: c.Vanished, Total: c.Total, Nodes: c.Names}
		if w.env.Config.BrakeFor > 0 {
			b.Until = w.now.Add(w.env.Config.BrakeFor)
		}
		w.setHold(func(h *state.Hold) { h.Brake = b })
	case c.Engage:
		if b := w.hold().Brake; c.Vanished > b.Vanished {
			n := *b
			n.Vanished, n.Total, n.Nodes = c.Vanished, c.Total, c.Names
			w.setHold(func(h *state.Hold) { h.Brake = &n })
		}
	case !engaged.IsZero():
		w.setHold(func(h *state.Hold) { h.Brake = nil }) // enough of them are back
	}
}

// brakeMay says without looking at each node whether so many may be away that the brake engages: all that are away, of all that there are.
func (w *work) brakeMay() bool {
	away := w.lostAgents() + w.s.AwayNodes()
	for _, k := range w.order {
		if n, ok := w.over[k].(*state.Node); ok && n.Away() {
			away++
		}
	}
	return away >= w.env.Config.BrakeMin && float64(away) > w.env.Config.BrakeShare*float64(max(len(w.s.Agents), len(w.s.Nodes)))
}

func (w *work) brakeRule() away.BrakeRule {
	c := &w.env.Config
	return away.BrakeRule{Share: c.BrakeShare, Min: c.BrakeMin, Window: c.BrakeWindow}
}

func (w *work) allNodes() []*state.Node {
	var list []*state.Node
	for _, uid := range sortedKeys(w.s.Nodes) {
		if n := w.node(uid); n != nil {
			list = append(list, n)
		}
	}
	for _, k := range w.order {
		if n, ok := w.over[k].(*state.Node); ok && w.s.Nodes[n.UID] == nil {
			list = append(list, n)
		}
	}
	return list
}

func (w *work) allAgents() map[state.AgentID]*state.Agent {
	m := make(map[state.AgentID]*state.Agent, len(w.s.Agents))
	for id := range w.s.Agents {
		if a := w.agent(id); a != nil {
			m[id] = a
		}
	}
	for _, k := range w.order {
		if a, ok := w.over[k].(*state.Agent); ok {
			m[a.ID] = a
		}
	}
	return m
}

// freeze is an operator's order.
func (w *work) freeze(e Freeze) *Reply {
	if strings.TrimSpace(e.Reason) == "" {
		return refuse(fault.WithDetails(fault.Invalid, "a freeze needs a reason", fault.Detail{Path: "/reason", Errors: []string{"must not be empty: people will ask why nothing moves"}}))
	}
	if e.For < 0 {
		return refuse(fault.WithDetails(fault.Invalid, "a freeze cannot end before it begins", fault.Detail{Path: "/for", Errors: []string{"must not be negative"}}))
	}
	f := &state.Freeze{Reason: limited(e.Reason), By: limited(e.By), Since: w.now}
	if old := w.hold(); old != nil && old.Freeze != nil {
		f.Since = old.Freeze.Since
	}
	if e.For > 0 {
		f.Until = w.now.Add(e.For)
	}
	w.setHold(func(h *state.Hold) { h.Freeze = f })
	return &Reply{}
}

// thaw ends a freeze and releases the brake.
func (w *work) thaw() *Reply {
	if !w.frozen() {
		return &Reply{}
	}
	w.setHold(func(h *state.Hold) {
		h.Freeze = nil
		if h.Brake != nil {
			h.Brake, h.Released = nil, w.now
		}
	})
	return &Reply{}
}

// limited bounds a text that people gave and that is shown and stored.
func limited(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "")
	}
	return s
}

// holds refuses a command while there is a hold. One with force is recorded, and carried out when the hold ends; a restart or a removal of single
// things cannot wait, so it is refused in any case.
func (w *work) holds(e Event) error {
	r := w.hold().Why()
	if r.Code == "" {
		return nil
	}
	force, deploys := forced(e)
	switch e := e.(type) {
	case CancelDeployment:
		force = e.Force
	case RestartInstance, MoveInstance, ReplaceInstance, PauseInstance, RemoveVolume, ReleaseReservation, Teardown, StartOver:
	default:
		if !deploys {
			return nil
		}
	}
	if force {
		return nil
	}
	return fault.New(fault.Conflict, "refused: %s; an order with force is recorded now and carried out then", r.Text)
}

package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

const (
	// leaveAhead is the default of Config.LeaveAhead.
	leaveAhead = 10 * time.Minute
	// inverseAgain is after how long the master asks again to leave an agent, when something stays there for now.
	inverseAgain = 5 * time.Second
	// inverseKept is for how long what was declined counts as planned.
	inverseKept = time.Minute
	// movePatience is for how long a move may stand at one phase and still count as going on.
	movePatience = time.Minute
)

// orderFor gives the order for an agent or the node beside it, nil when there is none.
func (w *work) orderFor(agent state.AgentID) *state.NodeOrder {
	if n := w.nodeOf(agent); n != nil {
		if o := w.nodeOrder(string(n.UID)); o != nil {
			return o
		}
	}
	return w.nodeOrder(string(agent))
}

func (w *work) nodeOrder(id string) *state.NodeOrder {
	return look(w, state.KindOrder, id, w.s.Orders[id])
}

// orders gives all orders, sorted by id.
func (w *work) orders() []*state.NodeOrder {
	ids := sortedKeys(w.s.Orders)
	for _, k := range w.order {
		if k.kind == state.KindOrder && w.s.Orders[k.id] == nil {
			ids = append(ids, k.id)
		}
	}
	slices.Sort(ids)
	var list []*state.NodeOrder
	for _, id := range ids {
		if o := w.nodeOrder(id); o != nil {
			list = append(list, o)
		}
	}
	return list
}

// closed says why nothing new is placed on an agent; "" when it may be.
func (w *work) closed(a *state.Agent) state.Reason {
	if o := w.orderFor(a.ID); o != nil {
		r := state.Reason{Code: state.ReasonCordoned, Text: "the node is " + o.State()}
		if o.Leaves() {
			r.Code = state.ReasonDraining
		}
		if o.Reason != "" {
			r.Text += ": " + o.Reason
		}
		return r
	}
	if u := a.Unavailable; u != nil && !u.Over(w.now) && !u.Start.Add(-w.env.Config.LeaveAhead).After(w.now) {
		return state.Reason{Code: state.ReasonMaintenance, Text: windowText(u, w.now)}
	}
	return state.Reason{}
}

func windowText(u *state.Window, now time.Time) string {
	text := "its maintenance begins at " + u.Start.UTC().Format(time.RFC3339)
	if !u.Start.After(now) {
		text = "its maintenance began at " + u.Start.UTC().Format(time.RFC3339)
	}
	if u.Duration > 0 {
		text += fmt.Sprintf(", for %s", u.Duration)
	}
	return text
}

// threatened tells whether an agent has a maintenance window to come: others are better, above all for instances with volumes of their own.
func (w *work) threatened(a *state.Agent) bool {
	return a.Unavailable != nil && !a.Unavailable.Over(w.now)
}

// leaving says why an agent is being emptied; "" when it is not.
func (w *work) leaving(agent state.AgentID) string {
	if o := w.orderFor(agent); o != nil && o.Leaves() {
		text := "its node is to be drained"
		if o.Want == state.WantDecommission {
			text = "its node is to be decommissioned"
		}
		if o.Reason != "" {
			text += ": " + o.Reason
		}
		return text
	}
	o := w.asked(agent)
	if o == nil || o.Over(w.now) {
		return ""
	}
	if at := o.Start.Add(-w.env.Config.LeaveAhead); at.After(w.now) {
		if w.nextLeaving.IsZero() || at.Before(w.nextLeaving) {
			w.nextLeaving = at
		}
		return ""
	}
	return windowText(&o.Window, w.now)
}

// asked gives the master's request to leave an agent; nil when there is none, or it was not repeated after our answer. What offers say of windows
// decides on placement only: it may be old.
func (w *work) asked(agent state.AgentID) *state.InverseOffer {
	for _, id := range w.inverseIDs() {
		o := look(w, state.KindInverse, id, w.s.Inverse[id])
		if o.Agent == agent && (o.Declined.IsZero() || o.Declined.Add(inverseKept).After(w.now)) {
			return o
		}
	}
	return nil
}

// toLeave gives the agents that may have to be emptied, sorted.
func (w *work) toLeave() []state.AgentID {
	var ids []state.AgentID
	for _, o := range w.orders() {
		if !o.Leaves() {
			continue
		}
		agent := o.Agent
		if n := w.node(o.Node); n != nil && n.Agent != "" {
			agent = n.Agent // it may have a new id
		}
		if agent != "" {
			ids = append(ids, agent)
		}
	}
	for _, id := range w.inverseIDs() {
		ids = append(ids, look(w, state.KindInverse, id, w.s.Inverse[id]).Agent)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// evacuate takes the next steps of emptying agents: planned moves, one after the other for each app, never more than its minimum health lets
// be down. What waits is noted for people.
func (w *work) evacuate() {
	seen := map[state.AgentID]bool{}
	for _, agent := range w.toLeave() {
		why := w.leaving(agent)
		if why == "" {
			continue
		}
		seen[agent] = true
		l := &state.Leaving{Agent: agent, Since: w.now, Why: why}
		for _, id := range w.onAgent(agent) {
			if text := w.moveOff(id, why); text != "" {
				l.Waits = append(l.Waits, state.LeavingInstance{Instance: id, Text: text})
			}
		}
		w.noteLeaving(l)
		w.emptied(agent, l)
	}
	for _, o := range w.orders() {
		if o.Want == state.WantDecommission && !o.EmptyAt.IsZero() && o.Node != "" && w.session().NodesSeen && w.node(o.Node) == nil {
			w.remove(state.KindOrder, o.ID) // its record was retired: there is nothing left to order
		}
	}
	for _, agent := range sortedKeys(w.s.Leaving) {
		if !seen[agent] {
			w.remove(state.KindLeaving, string(agent))
		}
	}
}

// onAgent gives the instances that have, or may have, a task on an agent as it is now, sorted.
func (w *work) onAgent(agent state.AgentID) []state.InstanceID {
	ids := w.s.InstancesOn(agent)
	for id := range w.touched {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return slices.DeleteFunc(slices.Compact(ids), func(id state.InstanceID) bool {
		i := w.instance(id)
		return i == nil || i.Run == nil || i.Run.Agent != agent || !(i.Live() || i.Phase == state.PhaseEnded)
	})
}

// moveOff moves an instance off its agent when its turn has come, and says what it waits for.
func (w *work) moveOff(id state.InstanceID, why string) string {
	i := w.instance(id)
	switch i.Phase {
	case state.PhaseKilling:
		return "being stopped there"
	case state.PhaseEnded, state.PhaseLost:
		return "its task is over or out of reach; its volumes are not given back yet"
	case state.PhaseGranting:
		w.cancelGranting(i, 0)
		return ""
	}
	if i.Goal == state.GoalStop {
		return "to be stopped"
	}
	if text := w.immovable(i); text != "" {
		return text
	}
	if r := w.hold().Why(); r.Code != "" {
		return r.Text
	}
	if text := w.mayMove(i); text != "" {
		return text
	}
	c := w.edit(i)
	c.Moving, c.Failures, c.BackoffUntil = i.Run.Agent, 0, time.Time{}
	w.kill(c, why)
	return "being stopped there"
}

// immovable says why an instance cannot run anywhere else; "" when it can.
func (w *work) immovable(i *state.Instance) string {
	if i.Paused {
		return "it is paused for repair and stays where it is until it is resumed"
	}
	if r := w.bound(i); r != nil && r.HasVolume() {
		return "it cannot move: its local volume is on this agent only"
	}
	for _, v := range w.volumesFor(i) {
		if v != nil && v.Scope == "node" && v.Node != "" {
			return fmt.Sprintf("it cannot move: its volume %s is on this node only", v.Ref)
		}
	}
	return ""
}

// mayMove says why an instance may not be moved now; "" when it may.
func (w *work) mayMove(i *state.Instance) string {
	a := w.app(i.App)
	if a == nil {
		return "its app is not known"
	}
	for _, other := range w.instancesOf(i.App) {
		if other.Moving != "" && other.Goal == state.GoalRun && other.ID != i.ID {
			return fmt.Sprintf("one at a time: %s, which was moved before, does not run yet", other.ID)
		}
	}
	if !w.up(i) {
		return ""
	}
	if up := w.upAll(i.App, w.statsOf(i.App)); rollout.Spare(a.Instances, up, w.spec(i.App, i.Version)) == 0 {
		return fmt.Sprintf("minimum health: %d of %d instances of %s are up, no more may be down", up, a.Instances, i.App)
	}
	return ""
}

// noteLeaving keeps for people how far an agent is.
func (w *work) noteLeaving(l *state.Leaving) {
	old := look(w, state.KindLeaving, string(l.Agent), w.s.Leaving[l.Agent])
	if old != nil && old.Why == l.Why && slices.Equal(old.Waits, l.Waits) {
		return
	}
	if old != nil {
		l.Since = old.Since
	}
	w.put(state.KindLeaving, string(l.Agent), l)
}

// emptied notes in the order that nothing of ours is left on the node, or that something is there again.
func (w *work) emptied(agent state.AgentID, l *state.Leaving) {
	o := w.orderFor(agent)
	if o == nil || !o.Leaves() {
		return
	}
	empty := len(l.Waits) == 0 && len(w.onAgent(agent)) == 0 && (o.Node == "" || len(w.heldAt(o.Node)) == 0)
	if n := w.node(o.Node); empty && n != nil && o.Want == state.WantDecommission && !n.Alive && (w.vanishing || o.EmptyAt.IsZero()) {
		w.authority(RetireNode{Node: n.UID, Generation: n.Generation, By: o.By})
	}
	if empty != o.EmptyAt.IsZero() {
		return
	}
	c := *o
	c.EmptyAt = time.Time{}
	if empty {
		c.EmptyAt = w.now
	}
	c.Rev++
	w.put(state.KindOrder, c.ID, &c)
}

// heldAt gives the volumes whose claims are granted to or held by a node, as they are now.
func (w *work) heldAt(node state.NodeUID) (list []state.VolumeUID) {
	for _, uid := range w.s.ClaimsAt(node) {
		if c := w.claim(uid); c != nil && c.Node == node && c.State != state.ClaimFree {
			list = append(list, uid)
		}
	}
	return list
}

// gotInverse notes the master's requests to leave agents. They say when, too.
func (w *work) gotInverse(e InverseOffers) {
	if ses := w.session(); !ses.Connected || ses.Stopped != "" {
		return
	}
	for _, o := range e.Offers {
		for _, id := range w.inverseIDs() {
			if look(w, state.KindInverse, id, w.s.Inverse[id]).Agent == o.Agent {
				w.remove(state.KindInverse, id) // asked again
			}
		}
		c := *o
		c.At, c.Declined = w.now, time.Time{}
		w.put(state.KindInverse, c.ID, &c)
	}
}

// answerInverse answers the master's requests to leave agents: yes once nothing of ours is left there, no when something stays for a reason
// that a move does not end by itself; the master asks again then. While moves are under way it is left open.
func (w *work) answerInverse() {
	var yes, no []string
	for _, id := range w.inverseIDs() {
		o := look(w, state.KindInverse, id, w.s.Inverse[id])
		left := w.onAgent(o.Agent)
		switch {
		case len(left) == 0 && o.Declined.IsZero():
			yes = append(yes, id)
			w.remove(state.KindInverse, id)
		case !o.Declined.IsZero() && !o.Declined.Add(inverseKept).After(w.now):
			w.remove(state.KindInverse, id) // the window is not planned any more
		case o.Declined.IsZero() && (o.Over(w.now) || w.blocked(o, left)):
			no = append(no, id)
			c := *o
			c.Declined = w.now
			w.put(state.KindInverse, id, &c)
		}
	}
	if len(yes) > 0 {
		w.master(AcceptInverse{IDs: yes})
	}
	if len(no) > 0 {
		w.master(DeclineInverse{IDs: no, Refuse: inverseAgain})
	}
}

func (w *work) inverseIDs() []string {
	ids := sortedKeys(w.s.Inverse)
	for _, k := range w.order {
		if k.kind == state.KindInverse && w.s.Inverse[k.id] == nil {
			ids = append(ids, k.id)
		}
	}
	slices.Sort(ids)
	return slices.DeleteFunc(ids, func(id string) bool { return look(w, state.KindInverse, id, w.s.Inverse[id]) == nil })
}

// blocked tells whether something stays on an agent for now: a hold, a volume that is there only, a minimum health that does not allow a move.
// Before its time has come to be emptied nothing is blocked yet.
func (w *work) blocked(o *state.InverseOffer, left []state.InstanceID) bool {
	if w.leaving(o.Agent) == "" {
		return false
	}
	for _, id := range left {
		i := w.instance(id)
		switch i.Phase {
		case state.PhaseKilling, state.PhaseEnded, state.PhaseGranting:
			return false // one is on its way
		}
		for _, other := range w.instancesOf(i.App) {
			if other.Moving != "" && w.now.Sub(other.Since) < movePatience {
				return false // one has just left, and comes up elsewhere
			}
		}
	}
	return true
}

// orderNode is an operator's word on a node.
func (w *work) orderNode(e OrderNode) *Reply {
	node, agent, host, err := w.findNode(e.Node)
	if err != nil {
		return refuse(err)
	}
	id := string(node)
	if id == "" {
		id = string(agent)
	}
	var old *state.NodeOrder
	for _, known := range []string{string(node), string(agent), e.Node} {
		if old == nil {
			old = w.nodeOrder(known)
		}
	}
	switch e.Want {
	case "":
		if old == nil {
			return refuse(fault.New(fault.Conflict, "node %s is not cordoned, drained or decommissioned", host))
		}
		w.remove(state.KindOrder, old.ID)
		w.placeable, w.newcomer = true, true
		return &Reply{}
	case state.WantCordon, state.WantDrain, state.WantDecommission:
	default:
		return refuse(fault.New(fault.Invalid, "want %q is none of %s, %s and %s", e.Want, state.WantCordon, state.WantDrain, state.WantDecommission))
	}
	o := &state.NodeOrder{ID: id, Node: node, Agent: agent, Hostname: host, Want: e.Want, Reason: limited(e.Reason), By: limited(e.By), Since: w.now, Rev: 1}
	if old != nil {
		if old.ID != id {
			w.remove(state.KindOrder, old.ID)
		} else {
			o.Rev = old.Rev + 1
		}
		if old.Want == e.Want {
			o.Since, o.EmptyAt = old.Since, old.EmptyAt
		}
	}
	w.put(state.KindOrder, id, o)
	w.placeable = true
	return &Reply{}
}

// findNode finds what a person means by a node: the uid of a node, the id of an agent, or a host name if only one has it.
func (w *work) findNode(name string) (node state.NodeUID, agent state.AgentID, host string, err error) {
	if name == "" {
		return "", "", "", fault.New(fault.Invalid, "no node is named")
	}
	if n := w.node(state.NodeUID(name)); n != nil {
		return n.UID, n.Agent, hostOf(n), nil
	}
	agents := w.allAgents()
	if a := agents[state.AgentID(name)]; a != nil {
		if n := w.nodeOf(a.ID); n != nil {
			return n.UID, a.ID, a.Hostname, nil
		}
		return "", a.ID, a.Hostname, nil
	}
	var found []string
	for _, n := range w.allNodes() {
		if hostOf(n) == name || n.Hostname == name {
			node, agent, host = n.UID, n.Agent, hostOf(n)
			found = append(found, string(n.UID))
		}
	}
	if len(found) == 0 {
		for _, id := range sortedKeys(agents) {
			if a := agents[id]; a.Hostname == name {
				agent, host = id, name
				found = append(found, string(id))
			}
		}
	}
	if len(found) == 0 {
		for _, o := range w.orders() {
			if o.ID == name || o.Hostname == name {
				node, agent, host = o.Node, o.Agent, o.Hostname
				found = append(found, o.ID)
			}
		}
	}
	switch len(found) {
	case 0:
		return "", "", "", fault.New(fault.NotFound, "node %s does not exist", name)
	case 1:
		return node, agent, host, nil
	}
	return "", "", "", fault.New(fault.Conflict, "%d nodes are called %s: name one by its id (%s)", len(found), name, strings.Join(found, ", "))
}

func hostOf(n *state.Node) string {
	if n.AgentHostname != "" {
		return n.AgentHostname
	}
	return n.Hostname
}

// leftAt says what of ours is left on a node and its agent; "" for nothing.
func (w *work) leftAt(node state.NodeUID, agent state.AgentID) string {
	if node != "" {
		if list := w.heldAt(node); len(list) > 0 {
			name := string(list[0])
			if v := w.volume(list[0]); v != nil {
				name = v.Ref.String()
			}
			return fmt.Sprintf("it holds %d volumes, %s among them", len(list), name)
		}
	}
	if list := w.onAgent(agent); agent != "" && len(list) > 0 {
		return fmt.Sprintf("%s and %d others have, or may have, a task there", list[0], len(list)-1)
	}
	return ""
}

// forgetNode is an operator's word that a node will not be heard of again.
func (w *work) forgetNode(e ForgetNode) *Reply {
	uid, agent, host, err := w.findNode(e.Node)
	if err != nil {
		return refuse(err)
	}
	n, a := w.node(uid), w.agent(agent)
	switch left := w.leftAt(uid, agent); {
	case n != nil && n.Alive:
		return refuse(fault.New(fault.Conflict, "node %s lives: its isolator renews its lease, or its lease has not run out yet; drain it and stop its isolator first", host))
	case n == nil && a != nil && a.LostAt.IsZero():
		return refuse(fault.New(fault.Conflict, "agent %s of %s is there: it is the master's, and cannot be forgotten here", agent, host))
	case left != "":
		return refuse(fault.New(fault.Conflict, "node %s cannot be forgotten: %s", host, left))
	}
	for _, id := range []string{string(uid), string(agent), e.Node} {
		if w.nodeOrder(id) != nil {
			w.remove(state.KindOrder, id)
		}
	}
	if a != nil && !a.LostAt.IsZero() {
		w.remove(state.KindAgent, string(agent))
	}
	if n != nil {
		w.authority(RetireNode{Node: n.UID, Generation: n.Generation, By: limited(e.By)})
	}
	return &Reply{}
}

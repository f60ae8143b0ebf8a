package show

import (
	"cmp"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// leaving adds what is wanted of a node, and how far that is.
func leaving(st *state.State, out *client.Node) {
	o := st.Orders[out.UID]
	if o == nil || out.UID == "" {
		o = st.Orders[out.Agent]
	}
	if o != nil {
		out.Order = &client.NodeOrder{Want: o.Want, State: o.State(), Reason: o.Reason, By: o.By, Since: o.Since, EmptyAt: o.EmptyAt}
	}
	if a := st.Agents[state.AgentID(out.Agent)]; a != nil && a.Unavailable != nil {
		out.Maintenance = &client.Maintenance{Start: a.Unavailable.Start, DurationSeconds: a.Unavailable.Duration.Seconds()}
	}
	if l := st.Leaving[state.AgentID(out.Agent)]; l != nil && out.Agent != "" && (len(l.Waits) > 0 || o == nil || o.EmptyAt.IsZero()) {
		out.Leaving = l.Why
		for _, w := range l.Waits {
			out.Waits = append(out.Waits, client.LeavingWait{Instance: string(w.Instance), Text: w.Text})
		}
	}
}

// Node finds a node by uid, agent id, or a host name that only one has.
func Node(st *state.State, id string) (client.Node, error) {
	var found []client.Node
	for _, n := range Nodes(st) {
		if id != "" && (n.UID == id || n.Agent == id) {
			return n, nil
		}
		if n.Hostname == id {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return client.Node{}, fault.New(fault.NotFound, "node %s does not exist", id)
	case 1:
		return found[0], nil
	}
	return client.Node{}, fault.New(fault.Conflict, "%d nodes are called %s: name one by its id (%s, %s …)", len(found), id,
		cmp.Or(found[0].UID, found[0].Agent), cmp.Or(found[1].UID, found[1].Agent))
}

// Hold says whether anything may be started, moved or killed.
func Hold(st *state.State) client.Hold {
	r := st.Hold.Why()
	out := client.Hold{Held: r.Code != "", Kind: r.Code, Reason: r.Text, Until: r.Until}
	switch {
	case !out.Held:
	case st.Hold.Freeze != nil:
		out.By, out.Since = st.Hold.Freeze.By, st.Hold.Freeze.Since
	default:
		b := st.Hold.Brake
		out.Since, out.Vanished, out.Total, out.Nodes = b.Since, b.Vanished, b.Total, b.Nodes
	}
	return out
}

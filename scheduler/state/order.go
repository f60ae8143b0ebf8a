package state

import (
	"fmt"
	"time"
)

// What an operator wants of a node.
const (
	WantCordon       = "cordon"       // nothing new is placed there
	WantDrain        = "drain"        // and what runs there is moved off
	WantDecommission = "decommission" // and it will not come back
)

// NodeOrder is the record nodes/<id>: what an operator wants of a node.
type NodeOrder struct {
	// ID is the node's uid, or the agent's id where no isolator is known beside it. Host names are for display: another machine may get them.
	ID       string    `json:"id"`
	Node     NodeUID   `json:"node,omitempty"`
	Agent    AgentID   `json:"agent,omitempty"`
	Hostname string    `json:"hostname,omitempty"`
	Want     string    `json:"want"`
	Reason   string    `json:"reason,omitempty"`
	By       string    `json:"by,omitempty"`
	Since    time.Time `json:"since"`
	// EmptyAt is when nothing of ours was left there for the first time since the order to drain or decommission; zero before.
	EmptyAt time.Time `json:"emptyAt,omitzero"`
	Rev     uint64    `json:"rev"`
}

// Leaves tells whether what runs on the node is to be moved off.
func (o *NodeOrder) Leaves() bool { return o.Want == WantDrain || o.Want == WantDecommission }

// State is one word for people: cordoned, draining, drained, decommissioning, decommissioned.
func (o *NodeOrder) State() string {
	switch {
	case o.Want == WantDrain && o.EmptyAt.IsZero():
		return "draining"
	case o.Want == WantDrain:
		return "drained"
	case o.Want == WantDecommission && o.EmptyAt.IsZero():
		return "decommissioning"
	case o.Want == WantDecommission:
		return "decommissioned"
	}
	return "cordoned"
}

// Hold is the record meta/hold: whether anything may be started, moved or killed at all.
type Hold struct {
	Freeze *Freeze `json:"freeze,omitempty"` // a person's
	Brake  *Brake  `json:"brake,omitempty"`  // the framework's own
	// Released is when a person or time last released the brake: what had vanished before does not engage it again.
	Released time.Time `json:"released,omitzero"`
	Rev      uint64    `json:"rev"`
}

// Freeze is an operator's word that nothing may be started, moved or killed.
type Freeze struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until a thaw
}

// Brake is engaged when too many nodes vanished at once.
type Brake struct {
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"` // when time releases it; zero: only a person does
	Vanished int       `json:"vanished"`
	Total    int       `json:"total"`
	Nodes    []string  `json:"nodes,omitempty"` // some of those that vanished, by host name
}

// Why says in words why nothing may be started, moved or killed; an empty reason when everything may. The hold may be nil.
func (h *Hold) Why() Reason {
	switch {
	case h == nil:
		return Reason{}
	case h.Freeze != nil:
		text := "the cluster is frozen: " + h.Freeze.Reason
		if h.Freeze.By != "" {
			text += fmt.Sprintf(" (%s)", h.Freeze.By)
		}
		return Reason{Code: ReasonFrozen, Text: text + "; nothing is started, moved or killed until `holdfast thaw`", Until: h.Freeze.Until}
	case h.Brake != nil:
		return Reason{Code: ReasonBrake, Until: h.Brake.Until,
			Text: fmt.Sprintf("%d of %d nodes vanished at once: nothing is moved until they are back, a person says so (`holdfast thaw`) or time is up", h.Brake.Vanished, h.Brake.Total)}
	}
	return Reason{}
}

// Window is when an agent is planned not to be available (maintenance). No duration means without end.
type Window struct {
	Start    time.Time
	Duration time.Duration
}

// Over tells whether the window has ended.
func (w *Window) Over(now time.Time) bool {
	return w.Duration > 0 && !w.Start.Add(w.Duration).After(now)
}

// InverseOffer is the master's request to leave an agent for a maintenance window. It is accepted once nothing of ours is left there. One that
// was declined is kept for a while: the master asks again for as long as the window is planned.
type InverseOffer struct {
	ID    string
	Agent AgentID
	Window
	At       time.Time
	Declined time.Time // zero while it is open
}

// Leaving is how far a node is that is being emptied.
type Leaving struct {
	Agent AgentID
	Since time.Time
	Why   string // the order, or the maintenance window
	// Waits says for each instance that is still there what its move waits for, sorted by instance.
	Waits []LeavingInstance
}

// LeavingInstance is an instance that is still on an agent that is being emptied.
type LeavingInstance struct {
	Instance InstanceID
	Text     string
}

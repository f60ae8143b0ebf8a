package away

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// BrakeRule says when so many nodes have vanished that nothing may be moved.
type BrakeRule struct {
	Share  float64       // more than this share of the nodes; 1 and more: never
	Min    int           // and at least so many
	Window time.Duration // within so long
}

// Seen is a node, or an agent without one, and since when it is not there; zero while it is.
type Seen struct {
	Name  string
	Since time.Time
}

// Count is what a look at all nodes gave.
type Count struct {
	Vanished, Total int
	Names           []string // of some that vanished, sorted
	// Engage says that so many vanished within the window and are still away.
	Engage bool
}

// maxNames is how many names a person reads.
const maxNames = 20

// Look counts. What vanished before released is no news; what vanished before the window (before engaged: the time at which the brake was
// engaged, zero when it is not) is not part of the cluster any more.
func (r BrakeRule) Look(nodes []Seen, released, engaged, now time.Time) (c Count) {
	from := now.Add(-r.Window)
	if at := engaged.Add(-r.Window); !engaged.IsZero() && at.Before(from) {
		from = at
	}
	for _, n := range nodes {
		switch {
		case n.Since.IsZero():
			c.Total++
		case n.Since.After(released) && !n.Since.Before(from):
			c.Total++
			c.Vanished++
			c.Names = append(c.Names, n.Name)
		}
	}
	slices.Sort(c.Names)
	c.Names = c.Names[:min(len(c.Names), maxNames)]
	c.Engage = c.Vanished >= max(r.Min, 1) && float64(c.Vanished) > r.Share*float64(c.Total)
	return c
}

// Nodes lists every node and agent of a state once: a node by its lease and its agent, an agent without a node by the master's word.
func Nodes(nodes []*state.Node, agents map[state.AgentID]*state.Agent) []Seen {
	out := make([]Seen, 0, len(nodes)+len(agents))
	beside := make(map[state.AgentID]bool, len(nodes))
	for _, n := range nodes {
		s := Seen{Name: n.AgentHostname}
		if s.Name == "" {
			s.Name = n.Hostname
		}
		since := func(t time.Time) {
			if !t.IsZero() && (s.Since.IsZero() || t.Before(s.Since)) {
				s.Since = t
			}
		}
		since(n.SuspectSince)
		if !n.Alive {
			since(n.DeadAt)
			if s.Since.IsZero() {
				beside[n.Agent] = true
				continue // dead since nobody knows when
			}
		}
		if a := agents[n.Agent]; a != nil {
			since(a.LostAt)
		}
		beside[n.Agent] = true
		out = append(out, s)
	}
	for id, a := range agents {
		if !beside[id] {
			out = append(out, Seen{Name: a.Hostname, Since: a.LostAt})
		}
	}
	return out
}

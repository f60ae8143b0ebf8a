package lease

import (
	"sort"
	"time"
)

// sight is the first sight of a version of a node's record, on the observer's own clock.
type sight struct {
	version uint64
	seq     uint64
	first   time.Duration
}

// observer is the taker's side of the lease as a pure state machine: from what was read and when the reading was
// received to which nodes are to be declared dead. It does no I/O and reads no clock.
type observer struct {
	timings Timings
	seen    map[string]sight
	last    time.Duration // when the last reading was received
	any     bool
}

func newObserver(t Timings) *observer { return &observer{timings: t, seen: map[string]sight{}} }

// NodeWait says where a node's lease stands in the eyes of a Taker, for explanations.
type NodeWait struct {
	UID        string
	Generation uint64
	Seq        uint64
	Since      time.Duration // first sight of Seq, on the taker's clock
	Due        time.Duration // L4 not before
	// Blocked says why this node will not be declared dead by this taker, "" when nothing stands against it.
	Blocked string
}

// hole forgets everything: after a hole in the observation every wait begins afresh.
func (o *observer) hole() { clear(o.seen); o.any = false }

// observe takes in a reading of all nodes that was received at now, and gives the nodes whose lease has run out: the
// same version is seen for W. They are declared dead at exactly that version, so that a renewal since the reading prevents
// it. A node whose published constants W does not cover is never declared dead.
func (o *observer) observe(now time.Duration, nodes []NodeVersion) (dead []NodeVersion, waits []NodeWait) {
	if o.any && now-o.last > max(o.timings.W/2, 4*o.timings.P) {
		o.hole()
	}
	o.last, o.any = now, true
	present := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		if !n.Alive {
			continue
		}
		present[n.UID] = true
		s, known := o.seen[n.UID]
		if !known || s.version != n.Version {
			s = sight{version: n.Version, seq: n.Seq, first: now}
			o.seen[n.UID] = s
		}
		w := NodeWait{UID: n.UID, Generation: n.Generation, Seq: n.Seq, Since: s.first, Due: s.first + o.timings.W}
		if err := o.timings.CheckAgainst(n.Timing); err != nil {
			w.Blocked = err.Error()
		} else if now >= w.Due {
			dead = append(dead, n)
		}
		waits = append(waits, w)
	}
	for uid := range o.seen {
		if !present[uid] {
			delete(o.seen, uid)
		}
	}
	sort.Slice(waits, func(i, j int) bool { return waits[i].UID < waits[j].UID })
	return dead, waits
}

// freeable gives the claims that the death of their nodes frees.
func freeable(nodes []NodeVersion, claims []ClaimVersion) (free []ClaimVersion) {
	dead := make(map[string]uint64)
	for _, n := range nodes {
		if !n.Alive {
			dead[n.UID] = n.Generation
		}
	}
	for _, c := range claims {
		if g, ok := dead[c.Node]; ok && c.State == Held && g == c.NodeGeneration && c.keepsAfterDeath() == "" {
			free = append(free, c)
		}
	}
	return free
}

package lease

import "time"

// What the tests of the pure parts look at.

// Holder is the holder's state machine.
type Holder = holder

// NewHolder makes one.
var NewHolder = newHolder

// The phases that Start gives.
const (
	Standing   = standing
	Unverified = unverified
	Leased     = leased
)

// Start, Send, Acknowledged, Collided, Lose, Expired and MayMount are its decisions.
func (h *holder) Start(now time.Duration, r *NodeVersion) phase { return h.start(now, r) }
func (h *holder) Send(seq uint64, now time.Duration)            { h.send(seq, now) }
func (h *holder) Acknowledged(now time.Duration, g, seq, version uint64) (time.Duration, bool) {
	return h.acknowledged(now, g, seq, version)
}
func (h *holder) Collided(r *NodeVersion) string     { return h.collided(r) }
func (h *holder) Lose() bool                         { return h.lose() }
func (h *holder) Expired(now time.Duration) bool     { return h.expired(now) }
func (h *holder) MayMount(now, m time.Duration) bool { return h.mayMount(now, m) }

// Observer is the taker's state machine.
type Observer = observer

// NewObserver makes one.
var NewObserver = newObserver

// Observe is its decision.
func (o *observer) Observe(now time.Duration, n []NodeVersion) ([]NodeVersion, []NodeWait) {
	return o.observe(now, n)
}

// Hole forgets.
func (o *observer) Hole() { o.hole() }

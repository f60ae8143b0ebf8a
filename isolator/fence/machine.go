package fence

import "time"

// Situation is what the watchdog knows at one moment.
type Situation struct {
	Now      time.Duration
	Deadline time.Duration // D; 0 when there was never a lease on this boot
	Managed  int           // managed mounts; -1 when the list cannot be read
	// IsolatorAlive: the process is there and neither dead nor a zombie. It may be stuck.
	IsolatorAlive bool
	Drained       bool
	// FencedFor is the deadline for which a fence was verified, Fenced whether there was one.
	FencedFor time.Duration
	Fenced    bool
	Limit     time.Duration // S
}

// Action is what to do.
type Action string

// The actions.
const (
	ActWait  Action = "wait"
	ActFence Action = "fence"
	ActExit  Action = "exit"
)

// Decide is the watchdog's deadline machine: a function of the situation alone. until is when to look again at the
// latest, for ActWait.
//
// A living isolator fences at D by itself and gets a quarter of S for it; then the watchdog takes it for stuck. A dead one gets
// nothing. Mounts without any deadline are fenced: nothing may be managed before there is a lease.
func Decide(s Situation) (act Action, until time.Duration) {
	grace := s.Limit / 4
	due := s.Deadline
	if s.IsolatorAlive {
		due += grace
	}
	switch {
	case s.Managed == 0 && (s.Drained || !s.IsolatorAlive):
		return ActExit, 0
	case s.Managed == 0:
		return ActWait, s.Now + round
	case s.Now < due:
		return ActWait, min(due, s.Now+round)
	case s.Fenced && s.FencedFor == s.Deadline && s.IsolatorAlive:
		return ActWait, s.Now + round // the isolator takes it from here; a new deadline makes a new situation
	case s.Fenced && s.FencedFor == s.Deadline:
		return ActExit, 0
	}
	return ActFence, 0
}

const (
	// round is how often the watchdog looks at least.
	round = 200 * time.Millisecond
	// beatLimit is how old its last round may be before it counts as dead or stuck.
	beatLimit = 2 * time.Second
)

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
	// FencedFor is the deadline for which a fence was verified last, FencedAt when that was; both 0 when there was none.
	FencedFor time.Duration
	FencedAt  time.Duration
	Limit     time.Duration // S
	// Orphaned: the state file was removed, so that no isolator will ever come back to it.
	Orphaned bool
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
//
// Once is not enough: an isolator that was stopped between its last look at the deadline and its answer may still hand out a path after it
// goes on, and a task that was on its way may still start. So what stays managed past its deadline is fenced again and again, less often as
// time goes by, until an isolator takes the mounts off the list or has a lease again.
func Decide(s Situation) (act Action, until time.Duration) {
	due := s.Deadline
	if s.IsolatorAlive {
		due += s.Limit / 4
	}
	fenced := s.FencedAt != 0 && s.FencedFor == s.Deadline
	switch {
	case s.Managed == 0 && (s.Drained || !s.IsolatorAlive):
		return ActExit, 0
	case s.Managed == 0:
		return ActWait, s.Now + round
	case s.Now < due:
		return ActWait, min(due, s.Now+round)
	case fenced && s.Orphaned && !s.IsolatorAlive:
		return ActExit, 0
	case fenced && s.Now < s.FencedAt+pace(s.Now-s.Deadline):
		return ActWait, min(s.FencedAt+pace(s.Now-s.Deadline), s.Now+round)
	}
	return ActFence, 0
}

// pace is the time from one fence to the next, so long after the deadline.
func pace(late time.Duration) time.Duration { return min(max(round, late/20), 2*time.Second) }

const (
	// round is how often the watchdog looks at least.
	round = 200 * time.Millisecond
	// beatLimit is how old its last round may be before it counts as dead or stuck.
	beatLimit = 2 * time.Second
)

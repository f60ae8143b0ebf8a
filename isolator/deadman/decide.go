// Package deadman arms and feeds the device that resets the machine when nobody feeds it any more: a hardware watchdog, or Linux's softdog. It
// is what makes a node's fence sure also when all of its programs are dead or stuck (grade reset of docs/safety.md).
package deadman

import "time"

// Granularity is how exactly such devices keep their time: they count whole seconds.
const Granularity = time.Second

// Situation is what decides whether the device may be fed.
type Situation struct {
	Now      time.Duration // on the clock of the deadlines
	Deadline time.Duration // D; 0 when there was never a lease
	Limit    time.Duration // S
	Timeout  time.Duration // the device's
	Managed  int           // managed mounts, those on their way among them; -1 when that is not known
	Verified bool          // the last fence, and it was for this deadline, was verified
}

// MayFeed tells whether the device may be fed, and so armed, now: while nothing is held, before the deadline, and after a fence that was verified.
//
// Who is stopped between this answer and the feeding feeds late, but not later than the device would have reset the machine: Timeout after the feeding before
// it. A device that is quicker than S may therefore be fed past D for the difference, so that a fence has its whole S; for a slower one H must be
// longer by it (lease.Timings.CheckDeadMan). In both cases the machine is reset no later than D+S+H.
func (s Situation) MayFeed() bool {
	switch {
	case s.Managed == 0, s.Verified:
		return true
	case s.Deadline == 0:
		return false
	}
	return s.Now < s.Deadline+max(s.Limit-s.Timeout, 0)
}

// Pace is the time between two feedings.
func Pace(timeout time.Duration) time.Duration {
	return min(max(timeout/8, 20*time.Millisecond), 500*time.Millisecond)
}

// Reset gives the least H for a device: how long after D+S it may reset the machine at the latest.
func Reset(timeout, limit time.Duration) time.Duration {
	return timeout + max(timeout-limit, 0) + Granularity
}

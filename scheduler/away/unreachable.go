// Package away has the rules for what is out of reach: what a lost task's state means, when a stateless instance is replaced, which of
// two runs stays when the lost one comes back, and when so many nodes have vanished at once that nothing may be moved. It is pure.
package away

import (
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// MayReturn tells whether a task in this Mesos state may show up again, so that the app's unreachableStrategy governs it. The other states
// that are no end of a task (TASK_GONE, TASK_GONE_BY_OPERATOR, TASK_UNKNOWN) are replaced at once, as Marathon does. TASK_LOST is what
// masters and agents without partition awareness say; there the reason decides, as in Marathon.
func MayReturn(mesos, reason string) bool {
	switch mesos {
	case "TASK_UNREACHABLE":
		return true
	case "TASK_LOST":
		switch reason {
		case "REASON_RECONCILIATION", "REASON_AGENT_DISCONNECTED", "REASON_AGENT_REMOVED", "REASON_SLAVE_DISCONNECTED", "REASON_SLAVE_REMOVED":
			return true
		}
	}
	return false
}

// Verdict is what becomes of an unreachable run of a stateless instance.
type Verdict int

// The verdicts.
const (
	Wait    Verdict = iota // for it to come back
	Replace                // start another; should this one come back, killSelection decides which of the two stays
	Forget                 // start another and forget this one; should it come back, it is killed
)

// After gives the verdict on a run that is out of reach since lost, and when it changes by itself; zero for never.
func After(u state.Unreachable, lost, now time.Time) (v Verdict, until time.Time) {
	if u.Disabled {
		return Wait, time.Time{}
	}
	if at := lost.Add(u.Inactive); at.After(now) {
		return Wait, at
	}
	if at := lost.Add(u.Expunge); at.After(now) {
		return Replace, at
	}
	return Forget, time.Time{}
}

// ReturnedStays tells which of two runs of an instance stays: the one that came back, or its replacement. One that has not begun to
// run goes first; of two that run killSelection takes the younger (YOUNGEST_FIRST, the default) or the older.
func ReturnedStays(returned, replacement *state.Run, running bool, killSelection string) bool {
	if !running {
		return true
	}
	older := begun(returned).Before(begun(replacement)) || begun(returned).Equal(begun(replacement))
	return older == (killSelection != "OLDEST_FIRST")
}

func begun(r *state.Run) time.Time {
	if r.StartedAt.IsZero() {
		return r.StagedAt
	}
	return r.StartedAt
}

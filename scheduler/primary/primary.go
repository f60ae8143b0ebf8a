// Package primary decides which instance of an app is its primary: pure rules over a record and what is known of the runs.
//
// There are never two. A record names one run; another is named only once that run is over, or has said itself that it is the primary no
// more. Being unhealthy, out of reach or told to stop only takes the name off the run meanwhile. No clock takes part: a run that was told long
// ago that it is the primary, or reads an old answer, is still the only one.
package primary

import "github.com/holdfast-io/holdfast/scheduler/state"

// Member is an instance of the app with its current run.
type Member struct {
	Instance state.InstanceID
	Ordinal  int
	Task     state.TaskID // "" without a run
	// Up: it runs, is as healthy and ready as its app wants, and is to go on.
	Up bool
	// Claimed: its run has claims, so that it is over when they are free.
	Claimed bool
	// Stays: it will run again if its run ends.
	Stays bool
}

// Facts are what is known beside the members.
type Facts struct {
	// Over: the run in the record is known to have ended, or lost its claims.
	Over bool
	// Keeps: the data is the instance's own, so the next run of the same instance takes over and no other.
	Keeps bool
	// First is the least term that may be given.
	First uint64
}

// Next is what becomes of the record. Members are sorted by ordinal.
func Next(now state.Primary, members []Member, f Facts) state.Primary {
	if now.Task != "" && f.Over {
		now.Task, now.Named, now.Claimed = "", false, false
	}
	if now.Task != "" {
		up := false
		for _, m := range members {
			up = up || m.Task == now.Task && m.Up
		}
		switch {
		case now.Named && !up:
			now.Named = false
		case !now.Named && up:
			// It may have been told that it is not: what it was told has an end of its own.
			now.Named, now.Term = true, after(now.Term, f.First)
		}
		return now
	}
	if m := choose(now, members, f); m != nil {
		now = state.Primary{Instance: m.Instance, Ordinal: m.Ordinal, Task: m.Task, Claimed: m.Claimed, Named: true, Term: after(now.Term, f.First)}
	}
	return now
}

func after(term, first uint64) uint64 { return max(term+1, first) }

// choose picks the next primary; nil while there is none.
func choose(now state.Primary, members []Member, f Facts) *Member {
	if f.Keeps && now.Instance != "" {
		for n := range members {
			if m := &members[n]; m.Instance == now.Instance && (m.Up || m.Stays) {
				if m.Up {
					return m
				}
				return nil // it comes back with its data
			}
		}
	}
	for n := range members {
		if m := &members[n]; m.Up && m.Task != now.Yielded {
			return m
		}
	}
	return nil
}

// Yield is the record after its run has said that it is the primary no more. It stays out of the choice until its next run.
func Yield(now state.Primary) state.Primary {
	now.Instance, now.Yielded, now.Task, now.Named, now.Claimed = "", now.Task, "", false, false
	return now
}

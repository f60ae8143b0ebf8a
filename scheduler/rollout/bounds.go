package rollout

import (
	"math"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Keep is how many of n instances must stay up during a rolling restart: minimumHealthCapacity, rounded up as Marathon does.
func Keep(n int, u state.Upgrade) int { return int(math.Ceil(float64(n)*u.MinHealth - 1e-9)) }

// Extra is how many instances beyond n may run meanwhile, so that Keep can be kept: maximumOverCapacity, rounded down as Marathon does.
// Where the strategy lets none be down and none be over, Marathon allows one over, and so does this. Instances have numbers and are
// restarted in place, so the extra ones only help while others are down: none where some may be down anyway, a quarter of n at most.
// exclusive instances never have any: one stops before it starts, with its number and volumes. most bounds n+extra, 0 for no bound.
func Extra(n, outdated int, u state.Upgrade, exclusive bool, most int) int {
	if exclusive || n-Keep(n, u) > 0 {
		return 0
	}
	x := int(float64(n)*(1+u.MaxOver)+1e-9) - n
	if x == 0 && n > 0 {
		x = 1
	}
	if most > 0 {
		x = min(x, max(0, most-n))
	}
	return min(x, outdated, (n+3)/4)
}

// Least is how many of n wanted instances must be up at any time, as far as it is for us to decide. Without extra ones it is less than n,
// because a restart in place is the only way on then; but never less than minInstances, which nothing breaks.
func Least(n, extra int, s *state.Spec) int {
	least := Keep(n, s.Upgrade)
	if extra <= 0 {
		least = min(least, n-1)
	}
	return max(least, min(s.Rollout.Min, n), 0)
}

// Spare is how many of the instances that are up may be taken down now, by an update, a drain or anything else that may wait: up counts
// only those that are up (running, healthy, ready), so that lost and failing ones are counted as down.
func Spare(n, up int, s *state.Spec) int { return max(0, up-Least(n, 0, s)) }

// Ordinals gives the numbers of n wanted instances in order: the lowest ones that are not in skip.
func Ordinals(n int, skip []int) []int {
	out := make([]int, 0, n)
	for o := 0; len(out) < n; o++ {
		if !slices.Contains(skip, o) {
			out = append(out, o)
		}
	}
	return out
}

// Wants tells whether an ordinal is one of Ordinals(n, skip).
func Wants(ordinal, n int, skip []int) bool {
	if len(skip) == 0 {
		return ordinal < n
	}
	return ordinal >= 0 && !slices.Contains(skip, ordinal) && ordinal-below(ordinal, skip) < n
}

func below(ordinal int, skip []int) (n int) {
	for _, o := range skip {
		if o < ordinal {
			n++
		}
	}
	return n
}

// Reskip gives the skipped numbers after a change of the number of instances: growing takes them back, the lowest first; shrinking takes the
// highest wanted ones, so that numbers above are forgotten.
func Reskip(skip []int, from, to int) []int {
	if len(skip) == 0 {
		return nil
	}
	skip = slices.Sorted(slices.Values(skip))
	skip = slices.Compact(skip)
	if to > from {
		skip = skip[min(len(skip), to-from):]
	}
	top := -1
	if list := Ordinals(to, skip); len(list) > 0 {
		top = list[len(list)-1]
	}
	skip = slices.DeleteFunc(slices.Clone(skip), func(o int) bool { return o > top })
	if len(skip) == 0 {
		return nil
	}
	return skip
}

// Target is the version that an instance of this number is to have: below the partition the one before.
func Target(ordinal int, a *state.App, r state.Rollout) string {
	if a.Base != "" && ordinal < r.Partition {
		return a.Base
	}
	return a.Version
}

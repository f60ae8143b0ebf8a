package scheduler

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// current counts the wanted instances that have the version they are to have, and how many of them are up.
func (w *work) current(a *state.App, st *state.Stats) (total, up int) {
	if a.Base != "" {
		for _, i := range w.instancesOf(a.ID) {
			if i.Goal == state.GoalStop || i.Paused || !w.asWanted(a, i) {
				continue
			}
			total++
			if w.up(i) {
				up++
			}
		}
		return total, up
	}
	total, up = st.Versions[a.Version].Total, w.upCount(a.ID, a.Version, st)
	for _, v := range a.Alike {
		total += st.Versions[v].Total
		up += w.upCount(a.ID, v, st)
	}
	return total, up
}

// asWanted tells whether an instance has the version that it is to have, or one that runs just as that.
func (w *work) asWanted(a *state.App, i *state.Instance) bool {
	target := w.targetOf(a, i.Ordinal)
	if i.Version == target {
		return true
	}
	if len(a.Alike) == 0 || !slices.Contains(a.Alike, i.Version) {
		return false
	}
	return a.Base == "" || runsAlike(w.spec(a.ID, i.Version), w.spec(a.ID, target))
}

// targetOf is the version that the instance of a number is to have.
func (w *work) targetOf(a *state.App, ordinal int) string {
	return rollout.Target(ordinal, a, w.spec(a.ID, a.Version).Rollout)
}

// runsAlike tells whether instances of two definitions run in the same way: what differs only says how the app is changed.
func runsAlike(a, b *state.Spec) bool {
	x, y := *a, *b
	x.Rollout, y.Rollout = state.Rollout{}, state.Rollout{}
	x.Primary, y.Primary = false, false
	// As text, because an empty list and none are the same once they were stored.
	one, err1 := json.Marshal(x)
	two, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(one, two)
}

// rebase sets which version the instances below the partition keep, for a new definition of an app. old is the app before, nil for a new one.
func (w *work) rebase(a, old *state.App) {
	spec := w.spec(a.ID, a.Version)
	a.Base = ""
	if old == nil || old.Removed || spec.Rollout.Partition == 0 {
		return
	}
	base := old.Base
	if base == "" {
		base = old.Version
	}
	if w.def(a.ID, base) != nil && !runsAlike(w.spec(a.ID, base), spec) {
		a.Base = base
	}
}

// alike gives the older versions that instances have and that run as the wanted ones do.
func (w *work) alike(a *state.App) []string {
	seen := map[string]bool{a.Version: true, a.Base: true}
	var list []string
	for _, i := range w.instancesOf(a.ID) {
		if seen[i.Version] {
			continue
		}
		seen[i.Version] = true
		if w.def(a.ID, i.Version) == nil {
			continue
		}
		s := w.spec(a.ID, i.Version)
		if runsAlike(s, w.spec(a.ID, a.Version)) || a.Base != "" && runsAlike(s, w.spec(a.ID, a.Base)) {
			list = append(list, i.Version)
		}
	}
	slices.Sort(list)
	return list
}

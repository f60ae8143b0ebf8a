package picture

import (
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Versions lists the versions of the tree's group that can be shown, newest first: the times at which an app in it, or the group itself,
// was changed, as far as definitions are kept. The caller holds the read lock.
func (t *Tree) Versions(st *state.State) []string {
	all := map[string]bool{t.Version(t.Root): true}
	for _, apps := range t.Apps {
		for _, p := range apps {
			for v := range st.Defs[p.App.ID] {
				all[v] = true
			}
		}
	}
	for _, g := range t.Own {
		all[g.Version] = true
	}
	list := slices.Sorted(maps.Keys(all))
	slices.Reverse(list)
	return list
}

// At gives the tree as it was at a version, out of the definitions that are kept: each app in the newest definition that is not younger,
// with the number of instances that it was written with; without the apps that came later. Apps that were deleted since are
// not in it, and a group's own dependencies are today's. false when there is no such version. The caller holds the read lock.
func (t *Tree) At(st *state.State, version string) (*Tree, bool) {
	if version == t.Version(t.Root) {
		return t, true
	}
	if !slices.Contains(t.Versions(st), version) {
		return nil, false
	}
	out := &Tree{Root: t.Root, Apps: map[state.AppID][]*App{}, Groups: t.Groups, Own: map[state.AppID]*state.AppGroup{}, There: true}
	for id, g := range t.Own {
		c := *g
		c.Version = min(c.Version, version)
		out.Own[id] = &c
	}
	for group, apps := range t.Apps {
		for _, p := range apps {
			d := defAt(st.Defs[p.App.ID], version)
			switch {
			case d == nil && p.App.First > version:
				continue // it came later
			case d == nil:
				return nil, false // its definition of then is not kept
			}
			a := &state.App{ID: p.App.ID, Version: d.Version, Instances: StoredInstances(d)}
			out.Apps[group] = append(out.Apps[group], &App{App: a, Def: d})
		}
	}
	out.prune(t.Root)
	return out, true
}

// defAt gives the newest definition that is not younger than a version, nil when none is kept.
func defAt(defs map[string]*state.Def, version string) (newest *state.Def) {
	for v, d := range defs {
		if v <= version && (newest == nil || v > newest.Version) {
			newest = d
		}
	}
	return newest
}

// prune takes groups out that had nothing in them; false when group itself has nothing.
func (t *Tree) prune(group state.AppID) bool {
	var left []state.AppID
	for _, sub := range t.Groups[group] {
		if t.prune(sub) {
			left = append(left, sub)
		}
	}
	if len(left) < len(t.Groups[group]) {
		t.Groups = maps.Clone(t.Groups)
		t.Groups[group] = left
	}
	return len(left) > 0 || len(t.Apps[group]) > 0 || t.Own[group] != nil
}

// StoredInstances is the number of instances that a definition was written with.
func StoredInstances(d *state.Def) int {
	if a, err := marathon.Stored(d.Source); err == nil && a.Instances != nil {
		return *a.Instances
	}
	return 0
}

package scheduler

import (
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// putGroup changes apps and groups in one deployment.
func (w *work) putGroup(e PutGroup) *Reply {
	if err := w.checkPuts(e.Changes, false, e.Force || e.Dry); err != nil {
		return refuse(err)
	}
	if err := w.locked(e.Remove, e.Force || e.Dry); err != nil {
		return refuse(err)
	}
	w.putGroups(e)
	var changes []state.AppChange
	var edited []*state.App
	for _, p := range e.Changes {
		a, c := w.change(p)
		if old := w.app(a.ID); old != nil && !old.Removed && c.FromVersion == c.ToVersion && c.FromInstances == c.ToInstances {
			continue
		}
		changes, edited = append(changes, c), append(edited, a)
	}
	for _, id := range e.Remove {
		a, err := w.existing(id)
		if err != nil {
			continue // gone in the meantime, as was wanted
		}
		n := w.editApp(id)
		n.Removed, n.Dispose, n.Wipe = true, true, n.Wipe || e.Wipe
		changes, edited = append(changes, from(a)), append(edited, n)
	}
	if err := w.groupNames(edited, e.Groups); err != nil {
		return refuse(err)
	}
	r := w.deploy(changes, edited, w.now.UTC().Format(versionFormat))
	if e.Dry && r.Err == nil {
		r.Dry, r.Deployment = true, "" // there is no such deployment
	}
	return r
}

func (w *work) putGroups(e PutGroup) {
	for _, id := range e.RemoveGroups {
		if w.s.Groups[id] != nil {
			w.remove(state.KindGroup, string(id))
		}
	}
	for _, g := range e.Groups {
		c := *g
		c.Rev = 1
		if old := w.s.Groups[g.ID]; old != nil {
			c.Rev = old.Rev + 1
		}
		w.put(state.KindGroup, string(g.ID), &c)
	}
}

// wanted gives every app that is to be, with changes that are not put yet over what there is.
func (w *work) wanted(edited []*state.App) map[state.AppID]*state.App {
	all := map[state.AppID]*state.App{}
	add := func(a *state.App) {
		if a.Removed {
			delete(all, a.ID)
		} else {
			all[a.ID] = a
		}
	}
	for id := range w.s.Apps {
		if a := w.app(id); a != nil {
			add(a)
		}
	}
	for _, a := range edited {
		add(a)
	}
	return all
}

// groupNames refuses a new app that has the id of a group, and a group that has the id of an app.
func (w *work) groupNames(edited []*state.App, groups []*state.AppGroup) error {
	isNew := func(a *state.App) bool { return !a.Removed && w.s.Apps[a.ID] == nil }
	if len(groups) == 0 && !slices.ContainsFunc(edited, isNew) {
		return nil
	}
	same := fault.WithDetails(fault.Invalid, "Object is not valid", fault.Detail{Path: "/", Errors: []string{"Groups and Applications may not have the same identifier."}})
	all := w.wanted(edited)
	var groupsOf map[state.AppID]bool // every group that an app is in
	for _, g := range groups {
		if all[g.ID] != nil {
			return same
		}
	}
	for _, a := range edited {
		if !isNew(a) {
			continue
		}
		if look(w, state.KindGroup, string(a.ID), w.s.Groups[a.ID]) != nil {
			return same
		}
		for id := parent(a.ID); id != "/"; id = parent(id) {
			if all[id] != nil {
				return same
			}
		}
		if groupsOf == nil {
			groupsOf = map[state.AppID]bool{}
			for id := range all {
				for g := parent(id); g != "/" && !groupsOf[g]; g = parent(g) {
					groupsOf[g] = true
				}
			}
		}
		if groupsOf[a.ID] {
			return same
		}
	}
	return nil
}

// parent gives the group that an app or group is in.
func parent(id state.AppID) state.AppID {
	if i := strings.LastIndexByte(string(id), '/'); i > 0 {
		return id[:i]
	}
	return "/"
}

// needs gives, for each app that is wanted, the apps whose turn comes first: its own dependencies, and those of the groups that it
// is in. A dependency on a group is one on every app below it; one on nothing that exists is none.
func (w *work) needs(edited []*state.App) map[state.AppID][]state.AppID {
	groups := w.groupDependencies()
	if len(edited) == 1 && len(groups) == 0 && len(w.spec(edited[0].ID, edited[0].Version).Dependencies) == 0 {
		return nil // one app alone has no order, and makes no circle
	}
	all := w.wanted(edited)
	var needs map[state.AppID][]state.AppID
	ids := sortedKeys(all)
	for _, id := range ids {
		var on []state.AppID
		on = append(on, w.spec(id, all[id].Version).Dependencies...)
		for g := parent(id); len(groups) > 0; g = parent(g) {
			on = append(on, groups[g]...)
			if g == "/" {
				break
			}
		}
		for _, d := range on {
			if needs == nil {
				needs = map[state.AppID][]state.AppID{}
			}
			if all[d] != nil {
				needs[id] = append(needs[id], d)
				continue
			}
			needs[id] = append(needs[id], below(ids, d)...)
		}
	}
	return needs
}

// below gives the ids under a group; ids are sorted.
func below(ids []state.AppID, group state.AppID) []state.AppID {
	prefix := state.AppID(strings.TrimSuffix(string(group), "/") + "/")
	from, _ := slices.BinarySearch(ids, prefix)
	to := from
	for to < len(ids) && strings.HasPrefix(string(ids[to]), string(prefix)) {
		to++
	}
	return ids[from:to]
}

func (w *work) groupDependencies() map[state.AppID][]state.AppID {
	out := map[state.AppID][]state.AppID{}
	for id := range w.s.Groups {
		if g := look(w, state.KindGroup, string(id), w.s.Groups[id]); g != nil && len(g.Dependencies) > 0 {
			out[id] = g.Dependencies
		}
	}
	for _, k := range w.order {
		if g, ok := w.over[k].(*state.AppGroup); ok && len(g.Dependencies) > 0 {
			out[g.ID] = g.Dependencies
		}
	}
	return out
}

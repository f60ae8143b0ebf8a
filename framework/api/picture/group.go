package picture

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// GroupEmbed says what of a group an answer holds.
type GroupEmbed struct {
	Groups, Apps, Pods bool
	App                Embed
}

// GroupEmbedOf reads ?embed= of a request for groups; without one, groups, apps and pods are meant.
func GroupEmbedOf(r *http.Request, checks Checks) GroupEmbed {
	e := GroupEmbed{App: EmbedOf(r, Embed{Checks: checks})}
	values := r.URL.Query()["embed"]
	if len(values) == 0 {
		e.Groups, e.Apps, e.Pods = true, true, true
	}
	for _, v := range values {
		switch v {
		case "group.groups":
			e.Groups = true
		case "group.apps":
			e.Apps = true
		case "group.pods":
			e.Pods = true
		}
	}
	return e
}

// Tree is the groups and apps at one moment, as far as they are below one group.
type Tree struct {
	Root   state.AppID
	Apps   map[state.AppID][]*App // by group, sorted
	Groups map[state.AppID][]state.AppID
	Own    map[state.AppID]*state.AppGroup
	There  bool // the root of it exists
	// Pods are apart from the apps, by group.
	Pods map[state.AppID][]*App
}

// Parent gives the group that an app or group is in.
func Parent(id state.AppID) state.AppID {
	if i := strings.LastIndexByte(string(id), '/'); i > 0 {
		return id[:i]
	}
	return "/"
}

// Below tells whether an id is below a group; "" and "/" are the root.
func Below(id, group state.AppID) bool {
	return strings.HasPrefix(string(id), strings.TrimSuffix(string(group), "/")+"/")
}

// TreeOf takes a picture of a group and all that is in it. The caller holds the read lock.
func TreeOf(st *state.State, root state.AppID) *Tree {
	t := &Tree{Root: root, Apps: map[state.AppID][]*App{}, Pods: map[state.AppID][]*App{}, Groups: map[state.AppID][]state.AppID{}, Own: map[state.AppID]*state.AppGroup{}, There: root == "/"}
	seen := map[state.AppID]bool{root: true}
	add := func(group state.AppID) {
		t.There = true
		for g := group; !seen[g] && g != "/"; g = Parent(g) {
			seen[g] = true
			t.Groups[Parent(g)] = append(t.Groups[Parent(g)], g)
		}
	}
	for _, a := range st.Apps {
		if a.Removed || !Below(a.ID, root) {
			continue
		}
		if p := Of(st, a); p != nil {
			add(Parent(a.ID))
			if p.Def.Spec.Pod() {
				t.Pods[Parent(a.ID)] = append(t.Pods[Parent(a.ID)], p)
				continue
			}
			t.Apps[Parent(a.ID)] = append(t.Apps[Parent(a.ID)], p)
		}
	}
	for id, g := range st.Groups {
		if id == root || Below(id, root) {
			t.Own[id] = g
			add(id)
		}
	}
	for _, list := range t.Apps {
		Sort(list)
	}
	for _, list := range t.Pods {
		Sort(list)
	}
	for _, list := range t.Groups {
		slices.Sort(list)
	}
	return t
}

// Version of a group is that of the newest change in it.
func (t *Tree) Version(group state.AppID) string {
	newest := t.newest(group, nil)
	if newest == "" {
		newest = desk.Stamp(time.Unix(0, 0))
	}
	return newest
}

// newest also notes the versions of the groups below in known.
func (t *Tree) newest(group state.AppID, known map[state.AppID]string) string {
	if v, ok := known[group]; ok {
		return v
	}
	newest := ""
	if g := t.Own[group]; g != nil {
		newest = g.Version
	}
	for _, p := range t.Apps[group] {
		newest = max(newest, p.App.Version)
	}
	for _, p := range t.Pods[group] {
		newest = max(newest, p.App.Version)
	}
	for _, sub := range t.Groups[group] {
		newest = max(newest, t.newest(sub, known))
	}
	if known != nil {
		known[group] = newest
	}
	return newest
}

// All lists the apps, by id.
func (t *Tree) All() (list []*App) {
	for _, apps := range t.Apps {
		list = append(list, apps...)
	}
	Sort(list)
	return list
}

// Print prints the tree as Marathon's GroupInfo.
func (t *Tree) Print(w io.Writer, e GroupEmbed, now time.Time) {
	known := map[state.AppID]string{}
	t.newest(t.Root, known)
	t.print(w, t.Root, e, now, known)
}

func (t *Tree) print(w io.Writer, group state.AppID, e GroupEmbed, now time.Time, versions map[state.AppID]string) {
	text := func(s string) { _, _ = io.WriteString(w, s) }
	value := func(v any) { _, _ = w.Write(document.Marshal(v)) }
	text(`{"id":`)
	value(group)
	if e.Apps {
		text(`,"apps":`)
		PrintApps(w, t.Apps[group], e.App, now)
	}
	if e.Pods {
		text(`,"pods":`)
		PrintPods(w, t.Pods[group])
	}
	if e.Groups {
		text(`,"groups":[`)
		for i, sub := range t.Groups[group] {
			if i > 0 {
				text(",")
			}
			t.print(w, sub, e, now, versions)
		}
		text("]")
	}
	deps := []state.AppID{}
	own := t.Own[group]
	if own != nil {
		deps = append(deps, own.Dependencies...)
	}
	text(`,"dependencies":`)
	value(deps)
	version := versions[group]
	if version == "" {
		version = desk.Stamp(time.Unix(0, 0))
	}
	text(`,"version":`)
	value(version)
	if own != nil && own.EnforceRole != nil {
		text(`,"enforceRole":`)
		value(*own.EnforceRole)
	}
	text("}")
}

// Undo puts an app as it was before a change.
func (t *Tree) Undo(st *state.State, c state.AppChange) {
	group := Parent(c.App)
	at := slices.IndexFunc(t.Apps[group], func(p *App) bool { return p.App.ID == c.App })
	old := st.Def(c.App, c.FromVersion)
	switch {
	case at < 0:
	case c.FromVersion == "":
		t.Apps[group] = slices.Delete(t.Apps[group], at, at+1)
	case old != nil:
		app := *t.Apps[group][at].App
		app.Version, app.Instances = c.FromVersion, c.FromInstances
		t.Apps[group][at] = &App{App: &app, Def: old, Instances: t.Apps[group][at].Instances}
	}
}

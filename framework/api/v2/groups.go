package v2

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// groupEmbed says what of a group an answer holds.
type groupEmbed struct {
	groups, apps, pods bool
	app                embed
}

func groupEmbedOf(r *http.Request) groupEmbed {
	e := groupEmbed{app: embedOf(r, embed{})}
	values := r.URL.Query()["embed"]
	if len(values) == 0 {
		e.groups, e.apps, e.pods = true, true, true
	}
	for _, v := range values {
		switch v {
		case "group.groups":
			e.groups = true
		case "group.apps":
			e.apps = true
		case "group.pods":
			e.pods = true
		}
	}
	return e
}

// tree is the groups and apps at one moment, as far as they are below one group.
type tree struct {
	root   state.AppID
	apps   map[state.AppID][]*picture // by group
	groups map[state.AppID][]state.AppID
	own    map[state.AppID]*state.AppGroup
	there  bool // the root of it exists
}

// inside tells whether an id is a group or anything below it.
func inside(id, group state.AppID) bool { return id == group || below(id, groupPrefix(group)) }

// groupPrefix is what below wants: "" for the root.
func groupPrefix(group state.AppID) string { return strings.TrimSuffix(string(group), "/") }

// treeOf takes a picture of a group and all that is in it.
func treeOf(st *state.State, root state.AppID) *tree {
	t := &tree{root: root, apps: map[state.AppID][]*picture{}, groups: map[state.AppID][]state.AppID{}, own: map[state.AppID]*state.AppGroup{}, there: root == "/"}
	seen := map[state.AppID]bool{root: true}
	add := func(group state.AppID) {
		t.there = true
		for g := group; !seen[g] && g != "/"; g = parentOf(g) {
			seen[g] = true
			t.groups[parentOf(g)] = append(t.groups[parentOf(g)], g)
		}
	}
	for _, a := range st.Apps {
		if a.Removed || !below(a.ID, groupPrefix(root)) {
			continue
		}
		if p := pictureOf(st, a); p != nil {
			add(parentOf(a.ID))
			t.apps[parentOf(a.ID)] = append(t.apps[parentOf(a.ID)], p)
		}
	}
	for id, g := range st.Groups {
		if inside(id, root) {
			t.own[id] = g
			add(id)
		}
	}
	for _, list := range t.apps {
		slices.SortFunc(list, func(x, y *picture) int { return strings.Compare(string(x.app.ID), string(y.app.ID)) })
	}
	for _, list := range t.groups {
		slices.Sort(list)
	}
	return t
}

// version of a group is that of the newest change in it.
func (t *tree) version(group state.AppID) string {
	newest := ""
	if g := t.own[group]; g != nil {
		newest = g.Version
	}
	for _, p := range t.apps[group] {
		newest = max(newest, p.app.Version)
	}
	for _, sub := range t.groups[group] {
		newest = max(newest, t.version(sub))
	}
	if newest == "" {
		newest = desk.Stamp(time.Unix(0, 0))
	}
	return newest
}

// all lists the apps below a group, by id.
func (t *tree) all() (list []*picture) {
	for _, apps := range t.apps {
		list = append(list, apps...)
	}
	slices.SortFunc(list, func(x, y *picture) int { return strings.Compare(string(x.app.ID), string(y.app.ID)) })
	return list
}

// printGroup prints a group as Marathon's GroupInfo.
func (s *api) printGroup(b *bytes.Buffer, t *tree, group state.AppID, e groupEmbed) {
	b.WriteString(`{"id":`)
	b.Write(document.Quote(string(group)))
	if e.apps {
		b.WriteString(`,"apps":`)
		s.printApps(b, t.apps[group], e.app)
	}
	if e.pods {
		b.WriteString(`,"pods":[]`)
	}
	if e.groups {
		b.WriteString(`,"groups":[`)
		for i, sub := range t.groups[group] {
			if i > 0 {
				b.WriteByte(',')
			}
			s.printGroup(b, t, sub, e)
		}
		b.WriteByte(']')
	}
	deps := []state.AppID{}
	own := t.own[group]
	if own != nil {
		deps = append(deps, own.Dependencies...)
	}
	b.WriteString(`,"dependencies":`)
	b.Write(document.Marshal(deps))
	b.WriteString(`,"version":`)
	b.Write(document.Quote(t.version(group)))
	if own != nil && own.EnforceRole != nil {
		b.WriteString(`,"enforceRole":`)
		b.Write(document.Marshal(*own.EnforceRole))
	}
	b.WriteByte('}')
}

// printApps prints apps as an array.
func (s *api) printApps(b *bytes.Buffer, apps []*picture, e embed) {
	b.WriteByte('[')
	for i, p := range apps {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(s.printApp(p, e))
	}
	b.WriteByte(']')
}

// around prints the root group as a deployment found it and as it leaves it. What was removed altogether cannot be shown any more.
func (s *api) around(d *state.Deployment) (original, target json.RawMessage) {
	var before, after *tree
	s.Core.View(func(st *state.State) {
		after = treeOf(st, "/")
		before = treeOf(st, "/")
		for _, c := range d.Changes {
			before.undo(st, c)
		}
	})
	e := groupEmbed{groups: true, apps: true, pods: true}
	var a, b bytes.Buffer
	s.printGroup(&a, before, "/", e)
	s.printGroup(&b, after, "/", e)
	return a.Bytes(), b.Bytes()
}

// undo puts an app as it was before a change.
func (t *tree) undo(st *state.State, c state.AppChange) {
	group := parentOf(c.App)
	at := slices.IndexFunc(t.apps[group], func(p *picture) bool { return p.app.ID == c.App })
	old := st.Def(c.App, c.FromVersion)
	switch {
	case at < 0:
	case c.FromVersion == "":
		t.apps[group] = slices.Delete(t.apps[group], at, at+1)
	case old != nil:
		app := *t.apps[group][at].app
		app.Version, app.Instances = c.FromVersion, c.FromInstances
		t.apps[group][at] = &picture{app: &app, def: old, instances: t.apps[group][at].instances}
	}
}

// groupID gives the group that a path names: the root when it names none.
func groupID(r *http.Request) state.AppID {
	return state.AppID(marathon.AbsoluteID(mux.Vars(r)["id"]))
}

func noGroup(id state.AppID) error {
	return fault.New(fault.NotFound, "Group '%s' does not exist", id)
}

// lookGroup gives the group that a request is about; false when the request is answered with 404.
func (s *api) lookGroup(w http.ResponseWriter, r *http.Request) (t *tree, ok bool) {
	id := groupID(r)
	s.Core.View(func(st *state.State) { t = treeOf(st, id) })
	if !t.there {
		s.Fail(w, r, noGroup(id))
	}
	return t, t.there
}

func (s *api) showGroup(w http.ResponseWriter, r *http.Request) {
	if t, ok := s.lookGroup(w, r); ok {
		var b bytes.Buffer
		s.printGroup(&b, t, t.root, groupEmbedOf(r))
		s.Raw(w, r, http.StatusOK, b.Bytes())
	}
}

func (s *api) groupApps(w http.ResponseWriter, r *http.Request) {
	if t, ok := s.lookGroup(w, r); ok {
		var b bytes.Buffer
		s.printApps(&b, t.all(), embedOf(r, embed{counts: true, deployments: true}))
		s.Raw(w, r, http.StatusOK, b.Bytes())
	}
}

// groupVersions lists the one version of a group that is kept: the one that is.
func (s *api) groupVersions(w http.ResponseWriter, r *http.Request) {
	if t, ok := s.lookGroup(w, r); ok {
		s.JSON(w, r, http.StatusOK, []string{t.version(t.root)})
	}
}

func (s *api) groupVersion(w http.ResponseWriter, r *http.Request) {
	version, err := desk.ParseVersion(mux.Vars(r)["version"])
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	t, ok := s.lookGroup(w, r)
	switch {
	case !ok:
	case version != t.version(t.root):
		s.Fail(w, r, fault.New(fault.NotFound, "Group '%s' does not exist in version %s", t.root, version))
	default:
		var b bytes.Buffer
		s.printGroup(&b, t, t.root, groupEmbed{groups: true, apps: true, pods: true})
		s.Raw(w, r, http.StatusOK, b.Bytes())
	}
}

package v2

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/selector"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// appOf gives an app that Marathon would still show: one that is being deleted is gone for it.
func appOf(st *state.State, id state.AppID) *state.App {
	if a := st.Apps[id]; a != nil && !a.Removed && !isPod(st, a) {
		return a
	}
	return nil
}

func noApp(id state.AppID) error { return fault.New(fault.NotFound, "App '%s' does not exist", id) }

func pathID(r *http.Request) state.AppID {
	return state.AppID(marathon.AbsoluteID(mux.Vars(r)["id"]))
}

func (s *api) listApps(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	match, err := selector.Parse(q.Get("label"))
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	cmd, id := strings.ToLower(q.Get("cmd")), strings.ToLower(q.Get("id"))
	e := picture.EmbedOf(r, picture.Embed{Counts: true, Deployments: true, Checks: s.Checks})
	s.answerApps(w, r, "apps", e, func(a *state.App, d *state.Def) bool {
		return strings.Contains(strings.ToLower(string(a.ID)), id) && (cmd == "" || strings.Contains(strings.ToLower(d.Spec.Cmd), cmd)) && match(d.Spec.Labels)
	})
}

// answerApps prints the apps that a filter lets through, sorted by id, as {name: [...]}.
func (s *api) answerApps(w http.ResponseWriter, r *http.Request, name string, e picture.Embed, want func(*state.App, *state.Def) bool) {
	var apps []*picture.App
	s.Core.View(func(st *state.State) { apps = picture.Apps(st, want) })
	picture.Sort(apps)
	out := s.Begin(w, r)
	defer out.Close()
	out.Text(`{` + string(document.Quote(name)) + `:`)
	picture.PrintApps(out, apps, e, s.Now())
	out.Text("}")
}

func (s *api) showApp(w http.ResponseWriter, r *http.Request) {
	if group, ok := groupOf(r); ok {
		e := picture.EmbedOf(r, picture.Embed{Counts: true, Deployments: true, Checks: s.Checks})
		s.answerApps(w, r, "*", e, func(a *state.App, _ *state.Def) bool { return picture.Below(a.ID, group) })
		return
	}
	id := pathID(r)
	e := picture.EmbedOf(r, picture.Embed{Tasks: true, Counts: true, Deployments: true, Failure: true, Checks: s.Checks})
	var p *picture.App
	s.Core.View(func(st *state.State) {
		if a := appOf(st, id); a != nil {
			p = picture.Of(st, a)
		}
	})
	if p == nil {
		s.Fail(w, r, noApp(id))
		return
	}
	s.Raw(w, r, http.StatusOK, slices.Concat([]byte(`{"app":`), p.Print(e, s.Now()), []byte(`}`)))
}

// groupOf reads "{group}/*" in the place of an app id.
func groupOf(r *http.Request) (group state.AppID, ok bool) {
	id := mux.Vars(r)["id"]
	if id != "*" && !strings.HasSuffix(id, "/*") {
		return "", false
	}
	return state.AppID(marathon.AbsoluteID(strings.TrimSuffix(id, "*"))), true
}

func (s *api) appVersions(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	versions := []string{}
	found := false
	s.Core.View(func(st *state.State) {
		if appOf(st, id) == nil {
			return
		}
		found = true
		for v := range st.Defs[id] {
			versions = append(versions, v)
		}
	})
	if !found {
		s.Fail(w, r, noApp(id))
		return
	}
	slices.Sort(versions)
	slices.Reverse(versions)
	s.JSON(w, r, http.StatusOK, map[string]any{"versions": versions})
}

func (s *api) appVersion(w http.ResponseWriter, r *http.Request) {
	id, text := pathID(r), mux.Vars(r)["version"]
	version, err := desk.ParseVersion(text)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	var out []byte
	s.Core.View(func(st *state.State) {
		a, d := appOf(st, id), st.Def(id, version)
		switch {
		case a == nil || d == nil:
		case version == a.Version:
			out = picture.Of(st, a).Print(picture.Embed{}, s.Now())
		default:
			out = definition.Print(d.Source, definition.Live{Instances: picture.StoredInstances(d), Version: version})
		}
	})
	if out == nil {
		s.Fail(w, r, fault.New(fault.NotFound, "App '%s' does not exist in version %s", id, version))
		return
	}
	s.Raw(w, r, http.StatusOK, out)
}

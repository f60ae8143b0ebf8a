package v2

import (
	"bytes"
	"encoding/json"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// around prints the root group as a deployment found it and as it leaves it. What was removed altogether cannot be shown any more.
func (s *api) around(d *state.Deployment) (original, target json.RawMessage) {
	var before, after *picture.Tree
	s.Core.View(func(st *state.State) {
		after = picture.TreeOf(st, "/")
		before = picture.TreeOf(st, "/")
		for _, c := range d.Changes {
			before.Undo(st, c)
		}
	})
	e := picture.GroupEmbed{Groups: true, Apps: true, Pods: true}
	var a, b bytes.Buffer
	before.Print(&a, e, s.Now())
	after.Print(&b, e, s.Now())
	return a.Bytes(), b.Bytes()
}

// groupID gives the group that a path names: the root when it names none.
func groupID(r *http.Request) state.AppID {
	return state.AppID(marathon.AbsoluteID(mux.Vars(r)["id"]))
}

func noGroup(id state.AppID) error {
	return fault.New(fault.NotFound, "Group '%s' does not exist", id)
}

// lookGroup gives the group that a request is about; false when the request is answered with 404.
func (s *api) lookGroup(w http.ResponseWriter, r *http.Request) (t *picture.Tree, ok bool) {
	id := groupID(r)
	s.Core.View(func(st *state.State) { t = picture.TreeOf(st, id) })
	if !t.There {
		s.Fail(w, r, noGroup(id))
	}
	return t, t.There
}

func (s *api) showGroup(w http.ResponseWriter, r *http.Request) {
	if t, ok := s.lookGroup(w, r); ok {
		out := s.Begin(w, r)
		defer out.Close()
		t.Print(out, picture.GroupEmbedOf(r, s.Checks), s.Now())
	}
}

func (s *api) groupApps(w http.ResponseWriter, r *http.Request) {
	if t, ok := s.lookGroup(w, r); ok {
		out := s.Begin(w, r)
		defer out.Close()
		picture.PrintApps(out, t.All(), picture.EmbedOf(r, picture.Embed{Counts: true, Deployments: true, Checks: s.Checks}), s.Now())
	}
}

// groupVersions lists the versions of a group that its apps' definitions still tell of.
func (s *api) groupVersions(w http.ResponseWriter, r *http.Request) {
	t, ok := s.lookGroup(w, r)
	if !ok {
		return
	}
	var versions []string
	s.Core.View(func(st *state.State) { versions = t.Versions(st) })
	s.JSON(w, r, http.StatusOK, versions)
}

func (s *api) groupVersion(w http.ResponseWriter, r *http.Request) {
	version, err := desk.ParseVersion(mux.Vars(r)["version"])
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	t, ok := s.lookGroup(w, r)
	if !ok {
		return
	}
	then := (*picture.Tree)(nil)
	s.Core.View(func(st *state.State) { then, ok = t.At(st, version) })
	if !ok {
		s.Fail(w, r, fault.New(fault.NotFound, "Group '%s' does not exist in version %s", t.Root, version))
		return
	}
	out := s.Begin(w, r)
	defer out.Close()
	then.Print(out, picture.GroupEmbed{Groups: true, Apps: true, Pods: true}, s.Now())
}

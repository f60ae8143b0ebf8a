package api

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// list answers {name: what f gives}, read under the lock and printed outside of it.
func list[T any](s *server, w http.ResponseWriter, r *http.Request, name string, f func(*state.State) []T) {
	var out []T
	s.core.View(func(st *state.State) { out = f(st) })
	s.answer(w, r, http.StatusOK, map[string]any{name: out})
}

// one answers what f gives, or its error.
func one[T any](s *server, w http.ResponseWriter, r *http.Request, f func(*state.State) (T, error)) {
	var out T
	var err error
	s.core.View(func(st *state.State) { out, err = f(st) })
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.answer(w, r, http.StatusOK, out)
}

func (s *server) ourApps(w http.ResponseWriter, r *http.Request) { list(s, w, r, "apps", show.Apps) }

func (s *server) ourApp(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	one(s, w, r, func(st *state.State) (client.App, error) {
		if a := st.Apps[id]; a != nil {
			return show.App(st, a), nil
		}
		return client.App{}, noApp(id)
	})
}

// appParam is the app that a list is limited to, "" for all.
func appParam(r *http.Request) state.AppID {
	if v := r.URL.Query().Get("app"); strings.Trim(v, "/") != "" {
		return state.AppID(marathon.AbsoluteID(v))
	}
	return ""
}

func (s *server) instances(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "instances", func(st *state.State) []client.Instance { return show.Instances(st, appParam(r)) })
}

func instanceID(r *http.Request) state.InstanceID { return state.InstanceID(mux.Vars(r)["id"]) }

func findInstance(st *state.State, id state.InstanceID) (*state.Instance, error) {
	if i := st.Instances[id]; i != nil {
		return i, nil
	}
	return nil, fault.New(fault.NotFound, "instance %s does not exist", id)
}

func (s *server) instance(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Instance, error) {
		i, err := findInstance(st, instanceID(r))
		if err != nil {
			return client.Instance{}, err
		}
		return show.Instance(st, i), nil
	})
}

func (s *server) restartInstance(w http.ResponseWriter, r *http.Request) {
	s.ourCommand(w, r, scheduler.RestartInstance{Instance: instanceID(r)})
}

func (s *server) moveInstance(w http.ResponseWriter, r *http.Request) {
	s.ourCommand(w, r, scheduler.MoveInstance{Instance: instanceID(r)})
}

// ourCommand answers a command of /v1.
func (s *server) ourCommand(w http.ResponseWriter, r *http.Request, e scheduler.Event) {
	ctx, cancel := limited(r)
	defer cancel()
	reply, err := s.do(ctx, e)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	out := client.Result{Deployment: string(reply.Deployment), Version: reply.Version}
	for _, v := range reply.Volumes {
		out.Volumes = append(out.Volumes, string(v))
	}
	s.answer(w, r, http.StatusOK, out)
}

func (s *server) volumes(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "volumes", func(st *state.State) []client.Volume { return show.Volumes(st, appParam(r)) })
}

func (s *server) volume(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Volume, error) {
		v, err := show.FindVolume(st, mux.Vars(r)["id"])
		if err != nil {
			return client.Volume{}, err
		}
		return show.Volume(st, v), nil
	})
}

func (s *server) removeVolume(w http.ResponseWriter, r *http.Request) {
	var v *state.Volume
	var err error
	s.core.View(func(st *state.State) { v, err = show.FindVolume(st, mux.Vars(r)["id"]) })
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.ourCommand(w, r, scheduler.RemoveVolume{Volume: v.UID})
}

func (s *server) claims(w http.ResponseWriter, r *http.Request) { list(s, w, r, "claims", show.Claims) }
func (s *server) nodes(w http.ResponseWriter, r *http.Request)  { list(s, w, r, "nodes", show.Nodes) }

func (s *server) ourDeployments(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "deployments", show.Deployments)
}

func (s *server) explain(w http.ResponseWriter, r *http.Request) {
	id := mux.Vars(r)["id"]
	one(s, w, r, func(st *state.State) (*client.Explanation, error) { return show.Explain(st, id, s.now()) })
}

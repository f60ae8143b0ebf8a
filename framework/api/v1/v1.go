package v1

import (
	"net/http"
	"strings"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// list answers {name: what f gives}, read under the lock and printed outside of it.
func list[T any](s *api, w http.ResponseWriter, r *http.Request, name string, f func(*state.State) []T) {
	var out []T
	s.Core.View(func(st *state.State) { out = f(st) })
	s.JSON(w, r, http.StatusOK, map[string]any{name: out})
}

// one answers what f gives, or its error.
func one[T any](s *api, w http.ResponseWriter, r *http.Request, f func(*state.State) (T, error)) {
	var out T
	var err error
	s.Core.View(func(st *state.State) { out, err = f(st) })
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, out)
}

func (s *api) apps(w http.ResponseWriter, r *http.Request) { list(s, w, r, "apps", show.Apps) }

func (s *api) app(w http.ResponseWriter, r *http.Request) {
	id := state.AppID(marathon.AbsoluteID(mux.Vars(r)["id"]))
	one(s, w, r, func(st *state.State) (client.App, error) {
		if a := st.Apps[id]; a != nil {
			return show.App(st, a), nil
		}
		return client.App{}, fault.New(fault.NotFound, "App '%s' does not exist", id)
	})
}

// appParam is the app that a list is limited to, "" for all.
func appParam(r *http.Request) state.AppID {
	if v := r.URL.Query().Get("app"); strings.Trim(v, "/") != "" {
		return state.AppID(marathon.AbsoluteID(v))
	}
	return ""
}

func (s *api) instances(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "instances", func(st *state.State) []client.Instance { return show.Instances(st, appParam(r)) })
}

func instanceID(r *http.Request) state.InstanceID { return state.InstanceID(mux.Vars(r)["id"]) }

func findInstance(st *state.State, id state.InstanceID) (*state.Instance, error) {
	if i := st.Instances[id]; i != nil {
		return i, nil
	}
	return nil, fault.New(fault.NotFound, "instance %s does not exist", id)
}

func (s *api) instance(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Instance, error) {
		i, err := findInstance(st, instanceID(r))
		if err != nil {
			return client.Instance{}, err
		}
		return show.Instance(st, i), nil
	})
}

func (s *api) restartInstance(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.RestartInstance{Instance: instanceID(r)})
}

func (s *api) moveInstance(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.MoveInstance{Instance: instanceID(r)})
}

// command answers a command of /v1.
func (s *api) command(w http.ResponseWriter, r *http.Request, e scheduler.Event) {
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, e)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	out := client.Result{Deployment: string(reply.Deployment), Version: reply.Version}
	for _, v := range reply.Volumes {
		out.Volumes = append(out.Volumes, string(v))
	}
	s.JSON(w, r, http.StatusOK, out)
}

func (s *api) volumes(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "volumes", func(st *state.State) []client.Volume { return show.Volumes(st, appParam(r)) })
}

func (s *api) volume(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Volume, error) {
		v, err := show.FindVolume(st, mux.Vars(r)["id"])
		if err != nil {
			return client.Volume{}, err
		}
		return show.Volume(st, v), nil
	})
}

func (s *api) removeVolume(w http.ResponseWriter, r *http.Request) {
	var v *state.Volume
	var err error
	s.Core.View(func(st *state.State) { v, err = show.FindVolume(st, mux.Vars(r)["id"]) })
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.command(w, r, scheduler.RemoveVolume{Volume: v.UID, Now: desk.Yes(r, "now", false)})
}

func (s *api) claims(w http.ResponseWriter, r *http.Request) { list(s, w, r, "claims", show.Claims) }
func (s *api) nodes(w http.ResponseWriter, r *http.Request)  { list(s, w, r, "nodes", show.Nodes) }

func (s *api) deployments(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "deployments", show.Deployments)
}

func (s *api) explain(w http.ResponseWriter, r *http.Request) {
	id := mux.Vars(r)["id"]
	var x *client.Explanation
	var err error
	s.Core.View(func(st *state.State) { x, err = show.Explain(st, id, s.Now()) })
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.explainChecks(x)
	s.JSON(w, r, http.StatusOK, x)
}

func (s *api) info(w http.ResponseWriter, r *http.Request) {
	in := s.Core.Info()
	out := client.Info{Name: in.Name, Version: in.Version, Cluster: in.Cluster, FrameworkID: in.FrameworkID, Master: in.Master, Leader: in.Leader, Elected: in.Elected,
		Role: in.Role, Hostname: in.Hostname, HTTPAddress: in.HTTPAddress, Store: in.Store, Authority: in.Authority}
	if s.EventReaders != nil {
		out.EventReaders = s.EventReaders()
	}
	s.Core.View(func(st *state.State) {
		out.Connected, out.Reconciled, out.AuthoritySeen, out.Stopped = st.Session.Connected, st.Session.Reconciled, st.Session.AuthoritySeen, st.Session.Stopped
		out.Apps, out.Instances, out.Volumes, out.Nodes, out.Deployments = len(st.Apps), len(st.Instances), len(st.Volumes), len(st.Nodes), len(st.Deployments)
		out.Hold = st.Hold.Why().Text
		for _, i := range st.Instances {
			if i.Phase == state.PhaseRunning {
				out.Running++
			}
		}
	})
	s.JSON(w, r, http.StatusOK, out)
}

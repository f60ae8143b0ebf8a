package v2

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/event"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Options of Marathon's part of the API.
type Options struct {
	// DefaultNetwork is the container network that apps mean when they name none.
	DefaultNetwork string
}

type api struct {
	*desk.Desk
	opt Options
	// writing is held from reading an app to the commit of its change, so that two writers do not work on one old state. It is a channel so
	// that waiting ends with the request.
	writing chan struct{}
	hub     *event.Hub
}

func (s *api) rules() marathon.Options {
	return marathon.Options{Role: s.Core.Info().Role, DefaultNetwork: s.opt.DefaultNetwork}
}

// Routes adds Marathon's routes. The longer patterns come first: {id:.+} takes everything.
func Routes(r *mux.Router, d *desk.Desk, o Options) {
	s := &api{Desk: d, opt: o, writing: make(chan struct{}, 1)}
	s.hub = event.NewHub(d.Core, &event.Translator{Now: d.Now, View: func(f func(*state.State)) { d.Core.View(f) }, Groups: s.around})
	d.EventReaders = s.hub.Count
	get, post, put, patch, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete
	handle := func(path string, f http.HandlerFunc, methods ...string) {
		if methods[0] == get {
			methods = append(methods, http.MethodHead)
		}
		r.HandleFunc(path, f).Methods(methods...)
	}
	handle("/v2/apps", s.listApps, get)
	handle("/v2/apps", s.createApp, post)
	handle("/v2/apps", s.putApps, put, patch)
	handle("/v2/apps/{id:.+}/restart", s.restartApp, post)
	handle("/v2/apps/{id:.+}/versions/{version}", s.appVersion, get)
	handle("/v2/apps/{id:.+}/versions", s.appVersions, get)
	handle("/v2/apps/{id:.+}/tasks/{task}", s.killTask, del)
	handle("/v2/apps/{id:.+}/tasks", s.appTasks, get)
	handle("/v2/apps/{id:.+}/tasks", s.killAppTasks, del)
	handle("/v2/apps/{id:.+}", s.showApp, get)
	handle("/v2/apps/{id:.+}", s.putApp, put, patch)
	handle("/v2/apps/{id:.+}", s.deleteApp, del)
	for _, root := range []string{"/v2/groups", "/v2/groups/{id:.+}"} {
		handle(root+"/apps", s.groupApps, get)
		handle(root+"/versions/{version}", s.groupVersion, get)
		handle(root+"/versions", s.groupVersions, get)
	}
	for _, group := range []string{"/v2/groups", "/v2/groups/{id:.+}"} {
		handle(group, s.showGroup, get)
		handle(group, s.createGroup, post)
		handle(group, s.putGroup, put)
		handle(group, s.patchGroup, patch)
		handle(group, s.deleteGroup, del)
	}
	handle("/v2/tasks", s.listTasks, get)
	handle("/v2/tasks/delete", s.killTasks, post)
	handle("/v2/deployments", s.listDeployments, get)
	handle("/v2/deployments/{id}", s.cancelDeployment, del)
	handle("/v2/queue", s.queue, get)
	handle("/v2/queue/{id:.+}/delay", s.resetDelay, del)
	r.HandleFunc("/v2/events", s.events).Methods(get) // HEAD would never end
	handle("/v2/info", s.info, get)
	handle("/v2/leader", s.leader, get)
	handle("/v2/plugins", func(w http.ResponseWriter, r *http.Request) {
		s.JSON(w, r, http.StatusOK, map[string]any{"plugins": []string{}})
	}, get)
}

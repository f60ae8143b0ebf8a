package v2

import (
	"net/http"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/event"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Options of Marathon's part of the API.
type Options struct {
	// DefaultNetwork is the container network that apps mean when they name none.
	DefaultNetwork string
	// Origins are those whose pages may read answers, for /v2/info.
	Origins []string
	// Abdicate gives the leadership up, soon; nil when that cannot be asked for.
	Abdicate func()
}

type api struct {
	*desk.Desk
	opt Options
	// writing is held from reading an app to the commit of its change, so that two writers do not work on one old state. It is a channel so
	// that waiting ends with the request.
	writing chan struct{}
	hub     *event.Hub
	book    portBook // guarded by writing
}

func (s *api) rules() marathon.Options {
	return marathon.Options{Role: s.Core.Info().Role, Roles: s.Core.Info().Roles, DefaultNetwork: s.opt.DefaultNetwork, Class: s.class}
}

// class looks a class of volumes up.
func (s *api) class(name string) (out *definition.Class) {
	s.Core.View(func(st *state.State) {
		if c := st.Classes[name]; c != nil {
			out = &definition.Class{Name: c.Name, Driver: c.Driver, Policy: c.Policy, Options: c.Options, Size: int64(c.Size), Zones: c.Zones,
				Delete: c.Reclaim == "delete", Encrypt: c.Encrypt}
		}
	})
	return out
}

// Routes adds Marathon's routes. The longer patterns come first: {id:.+} takes everything.
func Routes(t *desk.Table, d *desk.Desk, o Options) {
	s := &api{Desk: d, opt: o, writing: make(chan struct{}, 1)}
	s.hub = event.NewHub(d.Core, &event.Translator{Now: d.Now, View: func(f func(*state.State)) { d.Core.View(f) }, Groups: s.around})
	d.EventReaders = s.hub.Count
	get, post, put, patch, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete
	t.Handle(get, "/v2/apps", "lists apps", s.listApps, "cmd", "id", "label", "embed")
	t.Handle(post, "/v2/apps", "creates an app", s.createApp, "force", "dryRun")
	t.Handle(put, "/v2/apps", "changes several apps in one deployment", s.putApps, "force", "partialUpdate", "dryRun")
	t.Handle(patch, "/v2/apps", "changes several apps that exist", s.putApps, "force", "dryRun")
	t.Handle(post, "/v2/apps/{id:.+}/restart", "restarts an app", s.restartApp, "force")
	t.Handle(get, "/v2/apps/{id:.+}/versions/{version}", "gives one version of an app", s.appVersion)
	t.Handle(get, "/v2/apps/{id:.+}/versions", "lists an app's versions", s.appVersions)
	t.Handle(del, "/v2/apps/{id:.+}/tasks/{task}", "kills a task", s.killTask, "scale", "force", "wipe")
	t.Handle(get, "/v2/apps/{id:.+}/tasks", "lists an app's tasks", s.appTasks)
	t.Handle(del, "/v2/apps/{id:.+}/tasks", "kills an app's tasks", s.killAppTasks, "host", "scale", "force", "wipe")
	t.Handle(get, "/v2/apps/{id:.+}", "gives an app, or with {group}/* those of a group", s.showApp, "embed")
	t.Handle(put, "/v2/apps/{id:.+}", "creates or updates an app", s.putApp, "force", "partialUpdate", "dryRun")
	t.Handle(patch, "/v2/apps/{id:.+}", "updates an app", s.putApp, "force", "dryRun")
	t.Handle(del, "/v2/apps/{id:.+}", "deletes an app", s.deleteApp, "force", "wipe")
	for _, root := range []string{"/v2/groups", "/v2/groups/{id:.+}"} {
		t.Handle(get, root+"/apps", "lists the apps of a group", s.groupApps, "embed")
		t.Handle(get, root+"/versions/{version}", "gives one version of a group", s.groupVersion)
		t.Handle(get, root+"/versions", "lists a group's versions", s.groupVersions)
	}
	for _, group := range []string{"/v2/groups", "/v2/groups/{id:.+}"} {
		t.Handle(get, group, "gives a group", s.showGroup, "embed")
		t.Handle(post, group, "creates a group", s.createGroup, "force")
		t.Handle(put, group, "creates or updates a group", s.putGroup, "force", "dryRun")
		t.Handle(patch, group, "changes a group's enforceRole", s.patchGroup)
		t.Handle(del, group, "deletes a group and all in it", s.deleteGroup, "force", "wipe")
	}
	s.podRoutes(t)
	t.Handle(get, "/v2/tasks", "lists tasks", s.listTasks, "status")
	t.Handle(post, "/v2/tasks/delete", "kills tasks", s.killTasks, "scale", "force", "wipe")
	t.Handle(get, "/v2/deployments", "lists deployments", s.listDeployments)
	t.Handle(del, "/v2/deployments/{id}", "rolls a deployment back, or stops it", s.cancelDeployment, "force")
	t.Handle(get, "/v2/queue", "lists what waits to be launched", s.queue, "embed")
	t.Handle(del, "/v2/queue/{id:.+}/delay", "ends an app's delay", s.resetDelay)
	t.Handle(get, "/v2/events", "sends what happens, as text/event-stream", s.events, "event_type", "plan-format")
	t.Handle(get, "/v2/info", "describes this framework", s.info)
	t.Handle(get, "/v2/leader", "names the leader", s.leader)
	t.Handle(del, "/v2/leader", "makes the leader give up its leadership", s.abdicate)
	t.Handle(get, "/v2/plugins", "lists plugins: none", func(w http.ResponseWriter, r *http.Request) {
		s.JSON(w, r, http.StatusOK, map[string]any{"plugins": []string{}})
	})
}

package api

import (
	"net/http"

	"github.com/gorilla/mux"
)

// routesV2 are Marathon's. The longer patterns come first: {id:.+} takes everything.
func (s *server) routesV2(r *mux.Router) {
	get, post, put, patch, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete
	handle := func(path string, f http.HandlerFunc, methods ...string) { r.HandleFunc(path, f).Methods(methods...) }
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
	handle("/v2/tasks", s.listTasks, get)
	handle("/v2/tasks/delete", s.killTasks, post)
	handle("/v2/deployments", s.listDeployments, get)
	handle("/v2/deployments/{id}", s.cancelDeployment, del)
	handle("/v2/queue", s.queue, get)
	handle("/v2/queue/{id:.+}/delay", s.resetDelay, del)
	handle("/v2/info", s.info, get)
	handle("/v2/leader", s.leader, get)
	handle("/v2/plugins", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, http.StatusOK, map[string]any{"plugins": []string{}})
	}, get)
}

// routesV1 are ours.
func (s *server) routesV1(r *mux.Router) {
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	handle := func(path string, f http.HandlerFunc, method string) { r.HandleFunc(path, f).Methods(method) }
	handle("/v1/info", s.ourInfo, get)
	handle("/v1/apps", s.ourApps, get)
	handle("/v1/apps/{id:.+}", s.ourApp, get)
	handle("/v1/instances", s.instances, get)
	handle("/v1/instances/{id}", s.instance, get)
	handle("/v1/instances/{id}/restart", s.restartInstance, post)
	handle("/v1/instances/{id}/move", s.moveInstance, post)
	handle("/v1/instances/{id}/logs", s.logs, get)
	handle("/v1/volumes", s.volumes, get)
	handle("/v1/volumes/{id:.+}", s.volume, get)
	handle("/v1/volumes/{id:.+}", s.removeVolume, del)
	handle("/v1/claims", s.claims, get)
	handle("/v1/nodes", s.nodes, get)
	handle("/v1/deployments", s.ourDeployments, get)
	handle("/v1/explain/{id:.+}", s.explain, get)
	handle("/v1/events", s.events, get)
}

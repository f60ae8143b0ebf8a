package v1

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
)

type api struct{ *desk.Desk }

// Routes adds our routes.
func Routes(r *mux.Router, d *desk.Desk) {
	s := &api{d}
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	handle := func(path string, f http.HandlerFunc, method string) { r.HandleFunc(path, f).Methods(method) }
	handle("/v1/info", s.info, get)
	handle("/v1/apps", s.apps, get)
	handle("/v1/apps/{id:.+}", s.app, get)
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
	handle("/v1/deployments", s.deployments, get)
	handle("/v1/explain/{id:.+}", s.explain, get)
	handle("/v1/events", s.events, get)
}

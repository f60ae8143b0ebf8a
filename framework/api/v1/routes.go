package v1

import (
	"net/http"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/peers"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

type api struct {
	*desk.Desk
	board *peers.Board
}

// Routes adds our routes.
func Routes(t *desk.Table, d *desk.Desk) {
	s := &api{d, peers.New(d.Core)}
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	t.Handle(get, "/v1/info", "describes the framework and what it has", s.info)
	t.Handle(get, "/v1/apps", "lists apps with their instances counted", s.apps)
	t.Handle(get, "/v1/apps/{id:.+}/peers", "gives the instances of an app as they find each other; with an index it waits for a change", s.peersOf, "index", "wait")
	t.Handle(post, "/v1/apps/{id:.+}/primary/yield", "takes the word that a run is the primary no more", s.yieldPrimary, "task", "term")
	t.Handle(get, "/v1/apps/{id:.+}", "gives an app with instances and volumes", s.app)
	t.Handle(get, "/v1/instances", "lists instances", s.instances, "app")
	t.Handle(get, "/v1/instances/{id}", "gives an instance", s.instance)
	t.Handle(post, "/v1/instances/{id}/restart", "restarts an instance", s.restartInstance)
	t.Handle(post, "/v1/instances/{id}/move", "moves an instance to another agent", s.moveInstance)
	t.Handle(post, "/v1/instances/{id}/pause", "stops an instance and keeps its volumes mounted by an idle command, for repair", s.pauseInstance)
	t.Handle(post, "/v1/instances/{id}/resume", "ends a pause", s.resumeInstance)
	t.Handle(post, "/v1/instances/{id}/replace", "gives an instance a new run elsewhere; local volumes are lost with ?discard=true", s.replaceInstance, "discard")
	t.Handle(get, "/v1/instances/{id}/logs", "sends a file of an instance's sandbox", s.logs, "file", "offset", "follow")
	t.Handle(get, "/v1/volumes", "lists volumes", s.volumes, "app")
	operationRoutes(t, s)
	t.Handle(get, "/v1/volumes/{id:.+}", "gives a volume", s.volume)
	t.Handle(del, "/v1/volumes/{id:.+}", "deletes a volume and its data", s.removeVolume, "now")
	reservationRoutes(t, s)
	t.Handle(get, "/v1/claims", "lists claims", s.claims)
	t.Handle(get, "/v1/claims/{volume:.+}/release", "shows what an operator's word on a volume would be bound to, and what it risks", s.showRelease)
	t.Handle(post, "/v1/claims/{volume:.+}/release", "frees a claim on an operator's word", s.release)
	t.Handle(get, "/v1/claims/{volume:.+}", "gives a claim, its holder, and what is waited for", s.claim)
	t.Handle(get, "/v1/nodes/{node}/fence", "shows what an operator's word on a node would be bound to, and what it risks", s.showFence)
	t.Handle(post, "/v1/nodes/{node}/fence", "ends a node's lease and frees its claims on an operator's word", s.fence)
	t.Handle(get, "/v1/nodes", "lists nodes", s.nodes)
	t.Handle(get, "/v1/nodes/{id}", "gives a node", s.node)
	t.Handle(post, "/v1/nodes/{id}/cordon", "places nothing new on a node", s.orderNode(state.WantCordon))
	t.Handle(post, "/v1/nodes/{id}/uncordon", "takes back cordon, drain and decommission", s.orderNode(""))
	t.Handle(post, "/v1/nodes/{id}/drain", "moves what runs on a node to others, within minimum health", s.orderNode(state.WantDrain))
	t.Handle(post, "/v1/nodes/{id}/decommission", "drains a node that will not come back", s.orderNode(state.WantDecommission))
	t.Handle(post, "/v1/nodes/{id}/forget", "forgets a dead node on which nothing is left", s.forgetNode)
	t.Handle(get, "/v1/hold", "tells whether anything may be started, moved or killed", s.hold)
	t.Handle(post, "/v1/freeze", "stops everything from being started, moved or killed", s.freeze)
	t.Handle(post, "/v1/thaw", "ends a freeze and releases the brake", s.thaw)
	t.Handle(post, "/v1/teardown", "ends the framework at the master, for good", s.teardown, "force")
	t.Handle(post, "/v1/start-over", "registers a framework that is over as a new one", s.startOver)
	t.Handle(get, "/v1/failovers", "lists how lost instances came back, step by step", s.failovers, "app")
	t.Handle(get, "/v1/deployments", "lists deployments", s.deployments)
	t.Handle(post, "/v1/deployments/{id}/pause", "keeps a deployment from going on", s.pauseDeployment)
	t.Handle(post, "/v1/deployments/{id}/resume", "lets a paused deployment go on", s.resumeDeployment)
	t.Handle(get, "/v1/explain/{id:.+}", "tells what an app or instance waits for", s.explain)
	t.Handle(get, "/v1/events", "sends changes as they happen", s.events)
}

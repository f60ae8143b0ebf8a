package v1

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func (s *api) pauseInstance(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.PauseInstance{Instance: instanceID(r)})
}

func (s *api) resumeInstance(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.PauseInstance{Instance: instanceID(r), Resume: true})
}

func (s *api) replaceInstance(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.ReplaceInstance{Instance: instanceID(r), Discard: desk.Yes(r, "discard", false)})
}

func (s *api) pauseDeployment(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.PauseDeployment{Deployment: state.DeploymentID(mux.Vars(r)["id"])})
}

func (s *api) resumeDeployment(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, scheduler.PauseDeployment{Deployment: state.DeploymentID(mux.Vars(r)["id"]), Resume: true})
}

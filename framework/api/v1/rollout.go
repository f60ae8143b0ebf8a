package v1

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
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

// explainChecks adds to an explanation what the framework's own checks of its instances last heard, where they do not pass.
func (s *api) explainChecks(x *client.Explanation) {
	for _, i := range x.Instances {
		if i.Task == "" || i.Phase != string(state.PhaseRunning) {
			continue
		}
		health, ready := s.Checks(state.TaskID(i.Task))
		for _, h := range health {
			switch {
			case !h.Known():
				x.Lines = append(x.Lines, fmt.Sprintf("  %s: health check %d has had no answer that counts yet", i.ID, h.Index))
			case !h.Alive:
				x.Lines = append(x.Lines, fmt.Sprintf("  %s: health check %d failed %d times in a row, the last time %s ago: %s", i.ID, h.Index, h.Failures,
					s.Now().Sub(h.LastFailure).Round(time.Second), h.LastFailureCause))
			}
		}
		for _, c := range ready {
			if c.Ready {
				continue
			}
			text := fmt.Sprintf("  %s: readiness check %q has not passed", i.ID, c.Name)
			if c.Last != nil {
				text += fmt.Sprintf(", it was last answered with %d", c.Last.Status)
			} else if c.Cause != "" {
				text += ": " + c.Cause
			}
			x.Lines = append(x.Lines, text)
		}
	}
}

package v2

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

type action struct {
	Action string      `json:"action"`
	App    state.AppID `json:"app,omitempty"`
	Pod    state.AppID `json:"pod,omitempty"`
}

type currentAction struct {
	Action           string                    `json:"action"`
	App              state.AppID               `json:"app,omitempty"`
	Pod              state.AppID               `json:"pod,omitempty"`
	ReadinessResults []picture.ReadinessResult `json:"readinessCheckResults"`
}

type step struct {
	Actions []action `json:"actions"`
}

type deployment struct {
	ID             state.DeploymentID `json:"id"`
	Version        string             `json:"version"`
	AffectedApps   []state.AppID      `json:"affectedApps"`
	AffectedPods   []state.AppID      `json:"affectedPods"`
	Steps          []step             `json:"steps"`
	CurrentActions []currentAction    `json:"currentActions"`
	CurrentStep    int                `json:"currentStep"`
	TotalSteps     int                `json:"totalSteps"`
}

func (s *api) listDeployments(w http.ResponseWriter, r *http.Request) {
	var all []*state.Deployment
	instances, pods := map[state.AppID][]*state.Instance{}, map[state.AppID]bool{}
	s.Core.View(func(st *state.State) {
		for _, d := range st.Deployments {
			all = append(all, d)
			podsOf(st, d, pods)
			for _, app := range acting(d) {
				instances[app] = slices.Clone(st.InstancesOf(app))
			}
		}
	})
	slices.SortFunc(all, func(a, b *state.Deployment) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	out := []deployment{}
	for _, d := range all {
		one := deploymentOf(d, func(app state.AppID) []picture.ReadinessResult {
			return picture.ReadinessResults(instances[app], s.Checks)
		})
		one.tellPods(pods)
		out = append(out, one)
	}
	s.JSON(w, r, http.StatusOK, out)
}

// acting gives the apps of a deployment's current step.
func acting(d *state.Deployment) (apps []state.AppID) {
	if d.Step < len(d.Steps) {
		for _, a := range d.Steps[d.Step].Actions {
			apps = append(apps, a.App)
		}
	}
	return apps
}

func deploymentOf(d *state.Deployment, ready func(state.AppID) []picture.ReadinessResult) deployment {
	out := deployment{ID: d.ID, Version: d.Version, AffectedApps: append([]state.AppID{}, d.Apps...), AffectedPods: []state.AppID{},
		Steps: []step{}, CurrentActions: []currentAction{}, CurrentStep: min(d.Step+1, len(d.Steps)), TotalSteps: len(d.Steps)}
	out.Steps = stepsOf(d.Steps)
	if d.Step < len(d.Steps) {
		for _, a := range d.Steps[d.Step].Actions {
			out.CurrentActions = append(out.CurrentActions, currentAction{Action: a.Action, App: a.App, ReadinessResults: ready(a.App)})
		}
	}
	return out
}

func stepsOf(steps []state.DeploymentStep) []step {
	out := []step{}
	for _, in := range steps {
		one := step{Actions: []action{}}
		for _, a := range in.Actions {
			one.Actions = append(one.Actions, action{Action: a.Action, App: a.App})
		}
		out = append(out, one)
	}
	return out
}

// cancelDeployment rolls back; with force it only stops, which Marathon answers with 202 and nothing.
func (s *api) cancelDeployment(w http.ResponseWriter, r *http.Request) {
	force := desk.Yes(r, "force", false)
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, scheduler.CancelDeployment{Deployment: state.DeploymentID(mux.Vars(r)["id"]), Force: force})
	switch {
	case err != nil:
		s.Fail(w, r, err)
	case force:
		w.WriteHeader(http.StatusAccepted)
	default:
		s.JSON(w, r, http.StatusOK, s.result(w, reply))
	}
}

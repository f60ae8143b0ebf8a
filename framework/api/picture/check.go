package picture

import (
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Checks gives what the framework's own checks of a task found so far; nil where there are none.
type Checks func(state.TaskID) ([]probe.Health, []probe.Readiness)

type healthResult struct {
	Alive               bool             `json:"alive"`
	ConsecutiveFailures int              `json:"consecutiveFailures"`
	FirstSuccess        string           `json:"firstSuccess,omitempty"`
	InstanceID          state.InstanceID `json:"instanceId"`
	LastSuccess         string           `json:"lastSuccess,omitempty"`
	LastFailure         string           `json:"lastFailure,omitempty"`
	LastFailureCause    string           `json:"lastFailureCause,omitempty"`
}

// healthResults gives one result for each health check that has one. What Mesos checks has no times.
func healthResults(i *state.Instance, checks Checks) []healthResult {
	out, r := []healthResult{}, i.Run
	if checks != nil {
		health, _ := checks(r.Task)
		for n := range health {
			if h := &health[n]; h.Known() {
				out = append(out, healthResult{Alive: h.Alive, ConsecutiveFailures: h.Failures, FirstSuccess: desk.Stamp(h.FirstSuccess), InstanceID: i.ID,
					LastSuccess: desk.Stamp(h.LastSuccess), LastFailure: desk.Stamp(h.LastFailure), LastFailureCause: h.LastFailureCause})
			}
		}
	}
	switch {
	case r.Native != nil:
		out = append(out, healthResult{Alive: *r.Native, InstanceID: i.ID})
	case len(out) == 0 && r.Healthy != nil:
		out = append(out, healthResult{Alive: *r.Healthy, InstanceID: i.ID})
	}
	return out
}

// ReadinessResult is Marathon's result of a readiness check.
type ReadinessResult struct {
	Name   string        `json:"name"`
	TaskID state.TaskID  `json:"taskId"`
	Ready  bool          `json:"ready"`
	Last   *lastResponse `json:"lastResponse,omitempty"`
}

type lastResponse struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        string `json:"body"`
}

// ReadinessResults gives the results of the readiness checks of instances.
func ReadinessResults(instances []*state.Instance, checks Checks) []ReadinessResult {
	out := []ReadinessResult{}
	if checks == nil {
		return out
	}
	for _, i := range instances {
		if !HasTask(i) {
			continue
		}
		_, ready := checks(i.Run.Task)
		for _, c := range ready {
			one := ReadinessResult{Name: c.Name, TaskID: c.Task, Ready: c.Ready}
			if l := c.Last; l != nil {
				one.Last = &lastResponse{l.Status, l.ContentType, l.Body}
			}
			out = append(out, one)
		}
	}
	return out
}

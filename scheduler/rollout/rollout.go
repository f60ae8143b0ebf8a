// Package rollout knows the order of things: what steps a deployment has, and how many instances a rolling
// restart may take down at once. It is pure.
package rollout

import (
	"math"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Marathon's names of deployment actions.
const (
	Start   = "StartApplication"
	Scale   = "ScaleApplication"
	Restart = "RestartApplication"
	Stop    = "StopApplication"
)

// Steps plans a deployment of changes that do not depend on each other: new apps are started (with no instance) first, then all
// go on side by side. Changes that change nothing have no step.
func Steps(changes []state.AppChange) []state.DeploymentStep {
	var start, rest state.DeploymentStep
	for _, c := range changes {
		act := func(s *state.DeploymentStep, name string) {
			s.Actions = append(s.Actions, state.DeploymentAction{Action: name, App: c.App})
		}
		switch {
		case c.ToVersion == "":
			act(&rest, Stop)
		case c.FromVersion == "":
			act(&start, Start)
			act(&rest, Scale)
		case c.FromVersion != c.ToVersion || c.ToRestart != 0:
			act(&rest, Restart)
		case c.FromInstances != c.ToInstances:
			act(&rest, Scale)
		}
	}
	var steps []state.DeploymentStep
	for _, s := range []state.DeploymentStep{start, rest} {
		if len(s.Actions) > 0 {
			steps = append(steps, s)
		}
	}
	return steps
}

// MayBeDown is how many of n instances a rolling restart may have down at once: what minimumHealthCapacity leaves, and never less
// than one, because an instance keeps its number and volumes and so has to stop before it starts anew.
func MayBeDown(n int, u state.Upgrade) int {
	keep := int(math.Ceil(float64(n)*u.MinHealth - 1e-9))
	return max(1, n-keep)
}

// Delay is Marathon's launch delay after a number of failures in a row.
func Delay(b state.Backoff, failures int) (delay float64) {
	if failures <= 0 {
		return 0
	}
	return math.Min(float64(b.Base)*math.Pow(max(b.Factor, 1), float64(failures-1)), float64(b.Max))
}

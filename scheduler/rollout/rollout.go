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

// Keep is how many of n instances must stay up during a rolling restart: minimumHealthCapacity.
func Keep(n int, u state.Upgrade) int { return int(math.Ceil(float64(n)*u.MinHealth - 1e-9)) }

// Extra is how many instances beyond n may run meanwhile, so that Keep can be kept: maximumOverCapacity, where instances may be down
// anyway none, and a quarter of n at most. exclusive instances never have any: one stops before it starts, with its number and volumes.
func Extra(n, outdated int, u state.Upgrade, exclusive bool) int {
	if exclusive || n-Keep(n, u) > 0 {
		return 0
	}
	return min(int(float64(n)*u.MaxOver+1e-9), outdated, (n+3)/4)
}

// MayBeDown is how many of n wanted instances may be down at once, when extra ones of the new version are there to help. It is
// never less than one without extra ones, because a restart in place is the only way on then.
func MayBeDown(n, extra int, u state.Upgrade) int {
	may := n - Keep(n, u)
	if extra > 0 {
		return may
	}
	return max(1, may)
}

// Delay is Marathon's launch delay after a number of failures in a row.
func Delay(b state.Backoff, failures int) (delay float64) {
	if failures <= 0 {
		return 0
	}
	return math.Min(float64(b.Base)*math.Pow(max(b.Factor, 1), float64(failures-1)), float64(b.Max))
}

// Package rollout knows the order of things: what steps a deployment has, and how many instances a rolling
// restart may take down at once. It is pure.
package rollout

import (
	"maps"
	"math"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Marathon's names of deployment actions.
const (
	Start   = "StartApplication"
	Scale   = "ScaleApplication"
	Restart = "RestartApplication"
	Stop    = "StopApplication"
)

// Steps plans a deployment of changes that do not depend on each other.
func Steps(changes []state.AppChange) []state.DeploymentStep { return Ordered(changes, nil) }

// Ordered plans a deployment: what goes is stopped first, new apps are started (with no instance) next, then all others go on side
// by side, level by level (those of no level first). Changes that change nothing have no step.
func Ordered(changes []state.AppChange, levels map[state.AppID]int) []state.DeploymentStep {
	var stop, start state.DeploymentStep
	rest := map[int]*state.DeploymentStep{}
	act := func(s *state.DeploymentStep, name string, app state.AppID) {
		s.Actions = append(s.Actions, state.DeploymentAction{Action: name, App: app})
	}
	for _, c := range changes {
		name := Scale
		switch {
		case c.ToVersion == "":
			act(&stop, Stop, c.App)
			continue
		case c.FromVersion == "":
			act(&start, Start, c.App)
		case c.FromVersion != c.ToVersion && !c.Light || c.ToRestart != 0 || c.Repartition:
			name = Restart
		case c.FromInstances == c.ToInstances:
			continue
		}
		level := levels[c.App]
		if rest[level] == nil {
			rest[level] = &state.DeploymentStep{}
		}
		act(rest[level], name, c.App)
	}
	var steps []state.DeploymentStep
	for _, s := range []state.DeploymentStep{stop, start} {
		if len(s.Actions) > 0 {
			steps = append(steps, s)
		}
	}
	for _, level := range slices.Sorted(maps.Keys(rest)) {
		steps = append(steps, *rest[level])
	}
	return steps
}

// Levels gives each app that needs others a level above all of theirs; apps that need none are left out (level 0). ok is false when
// some need each other in a circle.
func Levels(needs map[state.AppID][]state.AppID) (levels map[state.AppID]int, ok bool) {
	levels = map[state.AppID]int{}
	const under = -1 // being looked at
	// An explicit stack, since a chain may be as long as there are apps.
	var stack []state.AppID
	for first := range needs {
		stack = append(stack, first)
		for len(stack) > 0 {
			app := stack[len(stack)-1]
			if levels[app] > 0 {
				stack = stack[:len(stack)-1]
				continue
			}
			before := levels[app] == under
			levels[app] = under
			top, open := 0, false
			for _, n := range needs[app] {
				switch {
				case len(needs[n]) == 0:
				case levels[n] == under:
					return nil, false
				case levels[n] == 0:
					if before {
						return nil, false
					}
					stack, open = append(stack, n), true
				default:
					top = max(top, levels[n])
				}
			}
			if !open {
				levels[app] = top + 1
			}
		}
	}
	return levels, true
}

// Delay is Marathon's launch delay after a number of failures in a row.
func Delay(b state.Backoff, failures int) (delay float64) {
	if failures <= 0 {
		return 0
	}
	return math.Min(float64(b.Base)*math.Pow(max(b.Factor, 1), float64(failures-1)), float64(b.Max))
}

package scheduler

import (
	"fmt"

	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Progress says in words how far the update of an app is and what it waits for; "" when every instance has the version it is to have. It only
// reads the state.
func Progress(s *state.State, id state.AppID) string {
	w := newWork(s, Env{})
	a := w.app(id)
	if a == nil || a.Removed {
		return ""
	}
	st, spec := w.statsOf(id), w.spec(id, a.Version)
	left := w.outdated(a, st)
	if left <= 0 {
		return ""
	}
	up, least := w.upAll(id, st), rollout.Least(a.Instances, 0, spec)
	text := fmt.Sprintf("%d of %d instances are still to be updated", left, a.Instances)
	switch d := w.deployment(a.Deployment); {
	case d != nil && d.Paused:
		return text + "; the deployment is paused"
	case !w.turn(a):
		return text + "; the deployment has not come to this app yet"
	case spec.Rollout.Serial && !w.quiet(a, w.instancesOf(id)):
		return text + "; one after the other (order serial), and the one before is not up yet"
	case up <= least:
		return fmt.Sprintf("%s; %d are up and %d have to stay up (minInstances %d, minimumHealthCapacity %g), so that none may be taken down now",
			text, up, least, spec.Rollout.Min, spec.Upgrade.MinHealth)
	}
	return text
}

package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// changeBatch bounds how many instances one Step creates, stops or restarts.
const changeBatch = 50

// up tells whether an instance runs as wanted: running, and healthy where health is checked.
func (w *work) up(i *state.Instance) bool {
	if i.Phase != state.PhaseRunning {
		return false
	}
	return len(w.spec(i.App, i.Run.Version).HealthChecks) == 0 || (i.Run.Healthy != nil && *i.Run.Healthy)
}

// upCount counts the wanted instances of one version that are up.
func (w *work) upCount(app state.AppID, version string, st *state.Stats) int {
	c := st.Versions[version]
	if len(w.spec(app, version).HealthChecks) > 0 {
		return c.Healthy
	}
	return c.Running
}

// converge brings an app nearer to what is wanted: how many instances, of which version. It costs little when there is nothing to do.
func (w *work) converge(id state.AppID) {
	a := w.app(id)
	if a == nil {
		return
	}
	if w.turn(a) {
		w.convergeNow(a)
	}
	w.goOn(a.Deployment)
}

func (w *work) convergeNow(a *state.App) {
	st := w.statsOf(a.ID)
	n := a.Instances
	if a.Removed {
		n = 0
	}
	if a.Removed && st.Total == 0 {
		w.forgetApp(a)
		return
	}
	extra := w.extra(a, n, st)
	if wanted := st.Total - st.Stopping; wanted < n+extra {
		w.grow(a, n+extra)
	} else if wanted > n+extra {
		w.shrink(a, n+extra)
	}
	if !a.Removed && w.outdated(a, st) > 0 {
		w.roll(a, n, extra)
	}
}

// outdated counts the wanted instances that a rolling restart has not come to yet.
func (w *work) outdated(a *state.App, st *state.Stats) int {
	wanted := st.Total - st.Stopping
	return wanted - min(st.Versions[a.Version].Total, st.Restarts[a.Restart])
}

// extra is how many instances beyond the wanted ones an app may have now: numbers that help through a rolling restart, and go away
// again when all the others are up.
func (w *work) extra(a *state.App, n int, st *state.Stats) int {
	have, old := st.Total-st.Stopping-n, w.outdated(a, st)
	if a.Removed || have < 0 || !w.restarting(a) {
		return 0
	}
	spec := w.spec(a.ID, a.Version)
	x := rollout.Extra(n, n, spec.Upgrade, spec.Exclusive())
	switch {
	case have == 0:
		return min(x, old)
	case old > 0 || w.upCount(a.ID, a.Version, st) < n+have:
		return min(x, have) // those that help go on helping
	}
	return 0
}

// restarting tells whether the app's deployment is at its restart.
func (w *work) restarting(a *state.App) bool {
	d := w.deployment(a.Deployment)
	if d == nil || d.Step >= len(d.Steps) {
		return false
	}
	return slices.Contains(d.Steps[d.Step].Actions, state.DeploymentAction{Action: rollout.Restart, App: a.ID})
}

// grow creates the numbers that are missing, lowest first. One that was being stopped is wanted again.
func (w *work) grow(a *state.App, n int) {
	at := map[int]*state.Instance{}
	for _, i := range w.instancesOf(a.ID) {
		at[i.Ordinal] = i
	}
	for ordinal := range n {
		i := at[ordinal]
		if i != nil && i.Goal == state.GoalRun {
			continue
		}
		if !w.spend(a.ID) {
			return
		}
		var c *state.Instance
		if i != nil {
			c = w.edit(i)
			c.Goal = state.GoalRun
		} else {
			c = &state.Instance{ID: state.NewInstanceID(a.ID, ordinal), App: a.ID, Ordinal: ordinal, Goal: state.GoalRun,
				Phase: state.PhaseWaiting, Since: w.now, CreatedAt: w.now}
			// One that was scaled away before goes on counting where its volumes say it was: an app may take a
			// lower incarnation for an old run of itself.
			for _, v := range w.s.VolumesOfInstance(c.ID) {
				c.Incarnation = max(c.Incarnation, uint64(v.Epoch))
			}
		}
		c.Version, c.RestartSeen = a.Version, a.Restart
		w.putInstance(c)
		w.instances.add(c.ID)
	}
}

// shrink stops the highest numbers.
func (w *work) shrink(a *state.App, n int) {
	list := w.instancesOf(a.ID)
	for at := len(list) - 1; at >= 0 && list[at].Ordinal >= n; at-- {
		if list[at].Goal == state.GoalStop {
			continue
		}
		if !w.spend(a.ID) {
			return
		}
		c := w.edit(list[at])
		c.Goal = state.GoalStop
		w.putInstance(c)
		w.instances.add(c.ID)
	}
}

// spend takes one change out of what a Step may do. When nothing is left, the app goes on in the next Step, at once.
func (w *work) spend(app state.AppID) bool {
	if w.changes < changeBatch {
		w.changes++
		return true
	}
	w.put(state.KindTodo, string(app), &state.Todo{})
	w.more = true
	return false
}

// roll takes instances to the wanted version, or through a restart order: those that are not up at once, the others as many at a
// time as the upgrade strategy lets be down, the highest numbers first.
func (w *work) roll(a *state.App, n, extra int) {
	st := w.statsOf(a.ID)
	up := 0
	for _, v := range sortedKeys(st.Versions) {
		up += w.upCount(a.ID, v, st)
	}
	may := rollout.MayBeDown(n, extra, w.spec(a.ID, a.Version).Upgrade) - (n - up)
	if extra == 0 {
		may = min(may, rollout.MayBeDown(n, 0, w.spec(a.ID, a.Version).Upgrade))
	}
	list := w.instancesOf(a.ID)
	for at := len(list) - 1; at >= 0; at-- {
		i := list[at]
		if i.Goal == state.GoalStop || (i.Version == a.Version && i.RestartSeen >= a.Restart) {
			continue
		}
		if w.up(i) {
			if may <= 0 {
				continue
			}
			may--
		}
		if !w.spend(a.ID) {
			return
		}
		w.renew(a, i)
	}
}

// renew takes one instance to the app's version and restart order.
func (w *work) renew(a *state.App, i *state.Instance) {
	reason := "its app was restarted"
	if i.Version != a.Version {
		reason = "its app has a new version"
	}
	if i.Phase == state.PhaseGranting {
		w.cancelGranting(i, 0)
		i = w.instance(i.ID)
	}
	c := w.edit(i)
	c.Version, c.RestartSeen = a.Version, a.Restart
	c.Failures, c.BackoffUntil = 0, time.Time{}
	disown(c, reason)
	switch c.Phase {
	case state.PhasePreparing:
		w.setPhase(c, state.PhaseWaiting)
	case state.PhaseLaunching, state.PhaseStaging, state.PhaseRunning:
		w.kill(c, reason)
		return
	case state.PhaseLost:
		c.KillReason = reason // should it come back
	}
	w.putInstance(c)
	w.instances.add(c.ID)
}

// forgetApp takes a removed app's records away. Volumes stay, unless a person asked to wipe them.
func (w *work) forgetApp(a *state.App) {
	w.remove(state.KindApp, string(a.ID))
	versions := map[string]bool{}
	for v := range w.s.Defs[a.ID] {
		versions[v] = true
	}
	for _, v := range sortedKeys(versions) {
		w.remove(state.KindDef, state.DefID(a.ID, v))
	}
	if !a.Wipe {
		return
	}
	for _, v := range w.s.VolumesOf(a.ID) {
		v := w.volume(v.UID)
		if v == nil || v.Phase == state.VolumeRemoving {
			continue
		}
		if others := w.sharers(v); v.Shared && len(others) > 0 {
			c := *v
			c.App = others[0] // it is theirs as well
			w.putVolume(&c)
			continue
		}
		w.beginRemove(v)
	}
}

// turn tells whether an app may change now: no deployment holds it, or its deployment has come to it.
func (w *work) turn(a *state.App) bool {
	d := w.deployment(a.Deployment)
	if d == nil {
		return true
	}
	if d.Step >= len(d.Steps) {
		return true
	}
	for _, act := range d.Steps[d.Step].Actions {
		if act.App == a.ID && act.Action != rollout.Start {
			return true
		}
	}
	return false
}

// goOn takes a deployment to its next steps while the current one is done.
func (w *work) goOn(id state.DeploymentID) {
	d := w.deployment(id)
	if d == nil || d.Paused {
		return
	}
	step := d.Step
	for step < len(d.Steps) && w.stepDone(d, step) {
		step++
	}
	if step == d.Step {
		return
	}
	if step < len(d.Steps) {
		c := *d
		c.Step = step
		c.Rev++
		w.put(state.KindDeployment, string(d.ID), &c)
		for _, act := range d.Steps[step].Actions {
			w.apps.add(act.App)
		}
		return
	}
	w.endDeployment(d)
}

// endDeployment removes a deployment's record and lets its apps go.
func (w *work) endDeployment(d *state.Deployment) {
	w.remove(state.KindDeployment, string(d.ID))
	for _, id := range d.Apps {
		if a := w.app(id); a != nil && a.Deployment == d.ID {
			c := w.editApp(id)
			c.Deployment = ""
			w.putApp(c)
			w.apps.add(id)
		}
	}
}

func (w *work) stepDone(d *state.Deployment, step int) bool {
	for _, act := range d.Steps[step].Actions {
		a := w.app(act.App)
		switch act.Action {
		case rollout.Start:
		case rollout.Stop:
			if a != nil {
				return false
			}
		default:
			if a != nil && !w.settled(a) {
				return false
			}
		}
	}
	return true
}

// settled tells whether an app is as wanted: as many instances, all up, of the wanted version, and none stopping.
func (w *work) settled(a *state.App) bool {
	st := w.statsOf(a.ID)
	n := a.Instances
	return st.Total == n && st.Stopping == 0 && st.Versions[a.Version].Total == n && w.upCount(a.ID, a.Version, st) == n && (n == 0 || st.Restarts[a.Restart] == n)
}

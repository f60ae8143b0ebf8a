package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/rollout"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// changeBatch bounds how many instances one Step creates, stops or restarts.
const changeBatch = 50

// up tells whether an instance runs as wanted: running, and healthy and ready where that is checked.
func (w *work) up(i *state.Instance) bool {
	return i.Phase == state.PhaseRunning && !i.Leaving() && i.Up(w.spec(i.App, i.Run.Version))
}

// upCount counts the wanted instances of one version that are up.
func (w *work) upCount(app state.AppID, version string, st *state.Stats) int {
	return st.Versions[version].Up(w.spec(app, version))
}

// upAll counts the wanted instances that are up, of whatever version.
func (w *work) upAll(app state.AppID, st *state.Stats) (up int) {
	for v := range st.Versions {
		up += w.upCount(app, v, st)
	}
	return up
}

// converge brings an app nearer to what is wanted: how many instances, of which version. It costs little when there is nothing to do.
func (w *work) converge(id state.AppID) {
	a := w.app(id)
	if a == nil || w.frozen() {
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
	} else if wanted > n+extra || w.misplaced(a, n+extra) {
		w.shrink(a, n+extra)
	}
	if !a.Removed && w.outdated(a, st) > 0 {
		w.roll(a, n, extra)
	}
}

// misplaced tells whether an instance runs under a number that is not wanted, though there are as many as are wanted: what was left out was
// put back, or the other way round.
func (w *work) misplaced(a *state.App, n int) bool {
	list := w.s.InstancesOf(a.ID)
	for at := len(list) - 1; at >= 0; at-- {
		i := w.instance(list[at].ID)
		if i == nil || i.Goal == state.GoalStop {
			continue
		}
		if !rollout.Wants(i.Ordinal, n, a.Skip) {
			return true
		}
		if len(a.Skip) == 0 {
			return false // the highest one is wanted, so all are
		}
	}
	return false
}

// outdated counts the wanted instances that a rolling restart has not come to yet. Paused ones are left alone until they are resumed.
func (w *work) outdated(a *state.App, st *state.Stats) int {
	total, _ := w.current(a, st)
	return st.Total - st.Stopping - st.Paused - min(total, st.Restarts[a.Restart])
}

// extra is how many instances beyond the wanted ones an app may have now: numbers that help through a rolling restart, and go away
// again when all the others are up.
func (w *work) extra(a *state.App, n int, st *state.Stats) int {
	have, old := st.Total-st.Stopping-n, w.outdated(a, st)
	if a.Removed || have < 0 || !w.restarting(a) {
		return 0
	}
	spec := w.spec(a.ID, a.Version)
	x := rollout.Extra(n, n, spec.Upgrade, spec.Exclusive() || spec.Rollout.Serial, spec.Rollout.Max)
	_, up := w.current(a, st)
	switch {
	case have == 0:
		return min(x, old)
	case old > 0 || up < n+have-st.Paused:
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

// grow creates the numbers that are missing, lowest first; for a serial app each waits for those before it to be up. One that was being
// stopped is wanted again.
func (w *work) grow(a *state.App, n int) {
	at := map[int]*state.Instance{}
	for _, i := range w.instancesOf(a.ID) {
		at[i.Ordinal] = i
	}
	r := w.spec(a.ID, a.Version).Rollout
	for _, ordinal := range rollout.Ordinals(n, a.Skip) {
		i := at[ordinal]
		if i != nil && i.Goal == state.GoalRun {
			if r.Serial && !i.Paused && !w.up(i) {
				return
			}
			continue
		}
		if !w.spend(a.ID) {
			return
		}
		w.makeInstance(a, i, ordinal, w.targetOf(a, ordinal))
		if r.Serial {
			return
		}
	}
}

// makeInstance makes the instance of a number, or wants the one that was being stopped again.
func (w *work) makeInstance(a *state.App, i *state.Instance, ordinal int, version string) {
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
		for _, id := range w.s.ReservedOf(c.ID) {
			c.Incarnation = max(c.Incarnation, w.s.Reserved[id].Incarnation)
		}
	}
	c.Version, c.RestartSeen = version, a.Restart
	w.putInstance(c)
	w.instances.add(c.ID)
}

// shrink stops the numbers that are not wanted, the highest first; for a serial app one after the other.
func (w *work) shrink(a *state.App, n int) {
	serial := w.spec(a.ID, a.Version).Rollout.Serial
	if serial && w.statsOf(a.ID).Stopping > 0 {
		return
	}
	list := w.instancesOf(a.ID)
	for at := len(list) - 1; at >= 0; at-- {
		if list[at].Goal == state.GoalStop || rollout.Wants(list[at].Ordinal, n, a.Skip) {
			continue
		}
		if !w.spend(a.ID) {
			return
		}
		c := w.edit(list[at])
		c.Goal, c.Paused, c.Pin = state.GoalStop, false, ""
		w.putInstance(c)
		w.instances.add(c.ID)
		if serial {
			return
		}
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
// time as the upgrade strategy lets be down, the highest numbers first; for a serial app one at a time, each up before the next.
func (w *work) roll(a *state.App, n, extra int) {
	st, spec := w.statsOf(a.ID), w.spec(a.ID, a.Version)
	up := w.upAll(a.ID, st)
	spare := up - rollout.Least(n, extra, spec)
	if extra == 0 {
		spare = min(spare, n-rollout.Least(n, 0, spec))
	}
	list := w.instancesOf(a.ID)
	if spec.Rollout.Serial && !w.quiet(a, list) {
		return
	}
	for at := len(list) - 1; at >= 0; at-- {
		i := list[at]
		if i.Goal == state.GoalStop || i.Paused || w.asWanted(a, i) && i.RestartSeen >= a.Restart {
			continue
		}
		if w.up(i) {
			if spare <= 0 {
				continue
			}
			spare--
		}
		if !w.spend(a.ID) {
			return
		}
		w.renew(a, i)
		if spec.Rollout.Serial {
			return
		}
	}
}

// quiet tells whether a serial rollout may go on to its next instance: none is being stopped, and all that it has come to are up.
func (w *work) quiet(a *state.App, list []*state.Instance) bool {
	for _, i := range list {
		if i.Goal == state.GoalStop || !i.Paused && w.asWanted(a, i) && i.RestartSeen >= a.Restart && !w.up(i) {
			return false
		}
	}
	return true
}

// renew takes one instance to the app's version and restart order.
func (w *work) renew(a *state.App, i *state.Instance) {
	reason := "its app was restarted"
	if !w.asWanted(a, i) {
		reason = "its app has a new version"
	}
	if i.Phase == state.PhaseGranting {
		w.cancelGranting(i, 0)
		i = w.instance(i.ID)
	}
	c := w.edit(i)
	c.Version, c.RestartSeen = w.targetOf(a, i.Ordinal), a.Restart
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
	if a.Dispose && !a.Wipe {
		for _, v := range w.disposable(a) {
			if v := w.volume(v.UID); v != nil && v.Phase != state.VolumeRemoving && (!v.Shared || len(w.sharers(v)) == 0) {
				w.beginRemove(v)
			}
		}
	}
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
	w.wipeReserved(a.ID)
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
	if d.Paused {
		return false
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

// settled tells whether an app is as wanted: as many instances, all up, of the wanted version, and none stopping. One that is paused for
// repair keeps nobody waiting.
func (w *work) settled(a *state.App) bool {
	st := w.statsOf(a.ID)
	n := a.Instances - st.Paused
	total, up := w.current(a, st)
	return st.Total == a.Instances && st.Stopping == 0 && total == n && up == n && (n == 0 || st.Restarts[a.Restart] == n)
}

package scheduler

import (
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// health notes what the framework's own checks say of a run. A run that they give up is ended and counts as failed.
func (w *work) health(e Health) {
	i := w.byTask(e.Task)
	if i == nil || i.Phase != state.PhaseRunning || i.Run.Idle {
		return // ended, or nobody can say, since the check was asked
	}
	c := w.edit(i)
	if e.Healthy != nil {
		w.noteHealth(c.App, c.Run, nil, e.Healthy)
	}
	c.Run.Ready = c.Run.Ready || e.Ready
	w.noteUp(c)
	if e.Kill != "" && !w.frozen() {
		w.failed(c, Status{State: "TASK_KILLED", Message: e.Kill})
		w.killNow(c, e.Kill)
		return
	}
	w.putInstance(c)
	w.instances.add(c.ID)
}

// noteHealth puts together what Mesos's check (native) and the framework's (probed) say; one that is nil says what it said before.
func (w *work) noteHealth(app state.AppID, r *state.Run, native, probed *bool) {
	theirs, ours := w.spec(app, r.Version).Checks()
	if !theirs || !ours {
		for _, h := range []*bool{native, probed} {
			if h != nil {
				healthy := *h
				r.Healthy = &healthy
			}
		}
		return
	}
	if native != nil {
		healthy := *native
		r.Native = &healthy
	}
	if probed != nil {
		healthy := *probed
		r.Probed = &healthy
	}
	switch bad := r.Native != nil && !*r.Native || r.Probed != nil && !*r.Probed; {
	case bad:
		r.Healthy = new(bool)
	case r.Native != nil && r.Probed != nil:
		healthy := true
		r.Healthy = &healthy
	default:
		r.Healthy = nil
	}
}

// noteUp marks a run that is up for the first time: a serial app starts its next instance then.
func (w *work) noteUp(c *state.Instance) {
	if !c.Run.WasUp && w.up(c) {
		c.Run.WasUp = true
	}
}

// starts tells whether an instance is between its launch and the first time it is up.
func starts(i *state.Instance) bool {
	switch i.Phase {
	case state.PhaseGranting, state.PhaseLaunching, state.PhaseStaging:
		return true
	case state.PhaseRunning:
		return !i.Run.WasUp && !i.Run.Idle
	}
	return false
}

// serial tells whether an app starts its instances one after the other.
func (w *work) serial(app state.AppID) bool {
	a := w.app(app)
	return a != nil && w.spec(a.ID, a.Version).Rollout.Serial
}

// before names another instance of a serial app that is starting: i waits for it. "" for none.
func (w *work) before(i *state.Instance) state.InstanceID {
	for _, other := range w.instancesOf(i.App) {
		if other.ID != i.ID && starts(other) {
			return other.ID
		}
	}
	return ""
}

// next lets the waiting instances of a serial app look again, now that the one before them is up or gone.
func (w *work) next(app state.AppID) {
	for _, i := range w.instancesOf(app) {
		if i.Waits() {
			w.instances.add(i.ID)
		}
	}
}

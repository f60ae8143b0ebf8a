package scheduler

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/away"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The pauses between repetitions that no setting governs.
const (
	launchPatience = 30 * time.Second       // then the master is asked what became of a launch
	claimRetry     = 5 * time.Second        // a cancel or revoke that has not shown any effect is repeated
	refusedPause   = 500 * time.Millisecond // after a grant was refused
)

// setPhase moves an instance; its timer belongs to the phase and is cleared.
func (w *work) setPhase(c *state.Instance, p state.Phase) {
	if c.Phase != p {
		c.Phase, c.Since = p, w.now
	}
	c.WakeAt = time.Time{}
}

// advance takes an instance the next step from where it is to what is wanted. The table of goal and phase:
//
//	phase       goal run                                   goal stop
//	waiting     volumes recorded, then placed              record removed
//	preparing   waits for its volumes, then waiting        record removed (the volumes stay)
//	granting    waits for the grants, then launching       grants cancelled (L5), record removed
//	launching,
//	staging,
//	running     stays; killed when its version is old,     killed
//	            or when a claim of it was freed
//	killing     killed again until terminal                the same
//	lost        revoke; all claims free: waiting           the same, then the record is removed
//	ended       cancel what was never mounted; all         the same, then the record is removed
//	            claims free: waiting
func (w *work) advance(i *state.Instance) {
	w.touched[i.ID] = true
	switch i.Phase {
	case state.PhaseWaiting:
		w.advanceWaiting(i)
	case state.PhasePreparing:
		w.advancePreparing(i)
	case state.PhaseGranting:
		w.advanceGranting(i)
	case state.PhaseLaunching, state.PhaseStaging, state.PhaseRunning:
		w.advanceTask(i)
	case state.PhaseKilling:
		w.advanceKilling(i)
	case state.PhaseLost:
		w.advanceLost(i)
	case state.PhaseEnded:
		w.advanceEnded(i)
	case state.PhaseStopped:
		w.removeInstance(i)
	}
}

func (w *work) advanceWaiting(i *state.Instance) {
	if i.Goal == state.GoalStop {
		w.removeInstance(i)
		return
	}
	w.recordVolumes(i)
	until := w.advanceReserved(i)
	i = w.instance(i.ID)
	c := w.edit(i)
	c.WakeAt = time.Time{}
	if c.BackoffUntil.After(w.now) {
		c.WakeAt = c.BackoffUntil
	} else {
		w.placeable, w.newcomer = true, true
	}
	if w.cancelLeftovers(c) && c.WakeAt.IsZero() {
		c.WakeAt = w.now.Add(claimRetry)
	}
	if !until.IsZero() && (c.WakeAt.IsZero() || until.Before(c.WakeAt)) {
		c.WakeAt = until
	}
	if !c.WakeAt.Equal(i.WakeAt) {
		w.putInstance(c)
	}
}

func (w *work) advancePreparing(i *state.Instance) {
	if i.Goal == state.GoalStop {
		w.removeInstance(i)
		return
	}
	for _, v := range w.volumesFor(i) {
		if v == nil || v.Phase == state.VolumeCreating {
			return
		}
	}
	c := w.edit(i)
	w.setPhase(c, state.PhaseWaiting)
	w.putInstance(c)
	w.instances.add(c.ID)
}

func (w *work) advanceGranting(i *state.Instance) {
	switch o := w.offer(i.Run.Offer); {
	case i.Goal == state.GoalStop, o == nil, i.Version != i.Run.Version:
		w.cancelGranting(i, 0)
	case !i.WakeAt.IsZero() && !i.WakeAt.After(w.now):
		w.cancelGranting(i, 0) // the offer was held long enough
	}
}

func (w *work) advanceTask(i *state.Instance) {
	if w.frozen() {
		w.askAgain(i)
		return
	}
	if v, freed := w.freedClaim(i.Run); freed {
		w.killNow(i, fmt.Sprintf("the claim of its volume %s was freed", v))
		return
	}
	switch {
	case i.Goal == state.GoalStop:
		reason := "the app was scaled down"
		if a := w.app(i.App); a == nil || a.Removed {
			reason = "its app was removed"
		}
		w.kill(i, reason)
	case i.Version != i.Run.Version:
		w.kill(i, "its app has a new version")
	case i.Run.Idle && !i.Paused:
		w.kill(i, "its pause is over") // it was out of reach when it was resumed
	case i.KillReason != "":
		w.killNow(i, i.KillReason) // it came back during a hold
	default:
		w.askAgain(i)
	}
}

// askAgain asks the master what became of a launch that nobody has reported on.
func (w *work) askAgain(i *state.Instance) {
	if i.Phase != state.PhaseLaunching || i.WakeAt.After(w.now) {
		return
	}
	w.master(Reconcile{Tasks: asks(i.Run, i.Run.Agent)})
	c := w.edit(i)
	c.WakeAt = w.now.Add(launchPatience)
	w.putInstance(c)
}

// kill orders the end of a run, as a person or a deployment asks for it. One that is in use is taken out of service discovery first, and the signal waits
// for as long as its app drains, so that nobody is sent to an instance that was told to end. It is repeated until the task is known to be over.
//
// During a hold nothing is ordered: whoever wants it looks again when the hold ends.
func (w *work) kill(i *state.Instance, reason string) {
	drain := time.Duration(0)
	if i.Phase == state.PhaseRunning && i.Run.WasUp && !i.Run.Idle {
		drain = w.drain(i)
	}
	w.killAfter(i, reason, drain)
}

// killNow stops an instance that may not go on, or that serves nobody.
func (w *work) killNow(i *state.Instance, reason string) { w.killAfter(i, reason, 0) }

// drain is how long an instance is out of service discovery before it is killed.
func (w *work) drain(i *state.Instance) time.Duration {
	if d := w.spec(i.App, i.Run.Version).Drain; d != nil {
		return *d
	}
	return w.env.Config.Drain
}

func (w *work) killAfter(i *state.Instance, reason string, drain time.Duration) {
	if w.frozen() {
		return
	}
	c := w.edit(i)
	w.setPhase(c, state.PhaseKilling)
	c.KillReason = reason
	if drain > 0 {
		c.DrainUntil = w.now.Add(drain)
		c.KillAfter = c.DrainUntil
	} else {
		c.DrainUntil = time.Time{}
		c.KillAfter = w.now.Add(w.env.Config.KillRetry)
	}
	c.WakeAt = c.KillAfter
	w.putInstance(c)
	w.sendKill(c)
	w.instances.add(c.ID)
}

func (w *work) sendKill(i *state.Instance) {
	if i.DrainUntil.After(w.now) {
		return
	}
	w.killRun(i.Run, Kill{Grace: w.spec(i.App, i.Run.Version).KillGrace})
}

func (w *work) advanceKilling(i *state.Instance) {
	// Fenced, and nobody is there to tell of the task's end: the claims say enough.
	if len(i.Run.Claims) > 0 && allFreed(i.Run) && w.beyondReach(i.Run) {
		w.endRun(i)
		return
	}
	if w.frozen() {
		w.setWake(i, time.Time{})
		return
	}
	_, gone := w.freedClaim(i.Run)
	if i.KillAfter.After(w.now) && (!gone || i.DrainUntil.IsZero()) { // without its claim it may not even drain
		w.setWake(i, i.KillAfter)
	} else {
		c := w.edit(i)
		c.DrainUntil = time.Time{}
		c.KillAfter = w.now.Add(w.env.Config.KillRetry)
		c.WakeAt = c.KillAfter
		w.putInstance(c)
		w.sendKill(c)
	}
}

// beyondReach tells whether a run's agent is lost, or its node died or began anew.
func (w *work) beyondReach(r *state.Run) bool {
	if a := w.agent(r.Agent); a != nil && !a.LostAt.IsZero() {
		return true
	}
	n := w.node(r.Node)
	return w.session().NodesSeen && (n == nil || !n.Alive)
}

func (w *work) advanceLost(i *state.Instance) {
	if len(i.Run.Claims) > 0 {
		w.awaitClaims(i, !w.frozen())
		return
	}
	if w.frozen() {
		w.setWake(i, time.Time{})
		return
	}
	if w.lostWithVolume(i) {
		return
	}
	if !away.MayReturn(i.Run.MesosState, i.Run.Reason) || i.Goal == state.GoalStop {
		w.endRun(i)
		return
	}
	switch v, until := away.After(w.spec(i.App, i.Run.Version).Unreachable, i.Run.LostAt, w.now); v {
	case away.Wait:
		w.setWake(i, until)
	case away.Replace:
		w.outlive(i, until)
	default:
		w.endRun(i)
	}
}

func (w *work) setWake(i *state.Instance, at time.Time) {
	if !i.WakeAt.Equal(at) {
		c := w.edit(i)
		c.WakeAt = at
		w.putInstance(c)
	}
}

func (w *work) advanceEnded(i *state.Instance) { w.awaitClaims(i, false) }

// awaitClaims ends the run once every claim of it was seen free. Until then a grant that was never used is cancelled (L5), and where
// revoke says so a held claim is asked back (L6). No state of a task or agent takes the place of that.
func (w *work) awaitClaims(i *state.Instance, revoke bool) {
	if allFreed(i.Run) {
		w.endRun(i)
		return
	}
	again := false
	for _, g := range i.Run.Claims {
		if g.Freed {
			continue
		}
		c := w.claim(g.Volume)
		switch {
		case c == nil || c.Epoch != g.Epoch:
			// Not seen yet. A grant that is still on its way is undone here.
			w.authority(CancelGrant{Volume: g.Volume, Epoch: g.Epoch, Nonce: g.Nonce})
			again = true
		case c.State == state.ClaimGranted:
			w.authority(CancelGrant{Volume: g.Volume, Epoch: g.Epoch, Nonce: g.Nonce})
			again = true
		case c.State == state.ClaimHeld && revoke && !c.Revoke:
			w.authority(Revoke{Volume: g.Volume, Epoch: g.Epoch})
			i = w.noteRevoked(i)
			again = true
		}
	}
	switch {
	case again:
		w.setWake(i, w.now.Add(claimRetry))
	default:
		w.setWake(i, time.Time{})
	}
}

// endRun forgets the run: it has no claim any more. Where the master has not said that the task is over, it is watched on as a strange
// one, and killed should it show up.
func (w *work) endRun(i *state.Instance) {
	w.doubt(i)
	if m := i.Run.MesosState; i.Phase != state.PhaseEnded && (away.MayReturn(m, i.Run.Reason) || (m != "" && meaningOf(m) != over && meaningOf(m) != missing)) {
		if i.Phase == state.PhaseLost {
			m = "TASK_UNREACHABLE"
		}
		w.strangeRun(i.Run, m, "it was replaced while nobody could tell of its end")
	}
	if i.Goal == state.GoalStop {
		w.removeInstance(i)
		return
	}
	c := w.edit(i)
	c.Run, c.KillReason, c.KillAfter, c.DrainUntil = nil, "", time.Time{}, time.Time{}
	w.setPhase(c, state.PhaseWaiting)
	w.putInstance(c)
	w.instances.add(c.ID)
}

func allFreed(r *state.Run) bool {
	for _, g := range r.Claims {
		if !g.Freed {
			return false
		}
	}
	return true
}

// freedClaim names a volume of the run whose claim is not the run's any more.
func (w *work) freedClaim(r *state.Run) (string, bool) {
	for _, g := range r.Claims {
		if g.Freed {
			if v := w.volume(g.Volume); v != nil {
				return v.Ref.String(), true
			}
			return string(g.Volume), true
		}
	}
	return "", false
}

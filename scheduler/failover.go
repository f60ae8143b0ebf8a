package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// keptFailovers is how many failovers an instance's record keeps.
const keptFailovers = 3

// followFailover writes down how an instance gets from a lost run to one that is up again. It decides nothing: it compares what is about to be put with
// what was there (nil for a new instance), so that no step of the way has to think of it.
func (w *work) followFailover(old, now *state.Instance) {
	if old == nil {
		return
	}
	f := openFailover(now)
	if f == nil && !w.lostNow(old, now) {
		return
	}
	n := state.Failover{}
	if f != nil {
		n = *f
	}
	switch {
	case f == nil:
		n = w.beginFailover(now)
	case f.NextTask != "" && w.lostNow(old, now):
		w.endFailover(&n, state.FailoverLostAgain)
		putFailover(now, f, &n)
		f, n = nil, w.beginFailover(now)
	}
	w.stepFailover(&n, old, now)
	putFailover(now, f, &n)
}

// openFailover gives the one that goes on, nil when there is none.
func openFailover(i *state.Instance) *state.Failover {
	if n := len(i.Failovers); n > 0 && i.Failovers[n-1].End == "" {
		return i.Failovers[n-1]
	}
	return nil
}

// putFailover puts n in the place of f, or adds it. The records before are shared with other copies of the instance and are left alone.
func putFailover(i *state.Instance, f, n *state.Failover) {
	if f != nil && *f == *n {
		return
	}
	list := slices.Clone(i.Failovers)
	if f != nil {
		list[len(list)-1] = n
	} else {
		list = append(list, n)
	}
	i.Failovers = list[max(0, len(list)-keptFailovers):]
}

// lostNow tells whether an instance has just lost its run: the master cannot tell, or somebody else than the run's end freed a claim of it.
func (w *work) lostNow(old, now *state.Instance) bool {
	if now.Run == nil || old.Run == nil || old.Run.Task != now.Run.Task {
		return false
	}
	if now.Phase == state.PhaseLost && old.Phase != state.PhaseLost {
		return true
	}
	return runs(old.Phase) && freed(now.Run) > freed(old.Run)
}

func runs(p state.Phase) bool {
	return p == state.PhaseLaunching || p == state.PhaseStaging || p == state.PhaseRunning
}

func freed(r *state.Run) (n int) {
	for _, g := range r.Claims {
		if g.Freed {
			n++
		}
	}
	return n
}

func (w *work) beginFailover(i *state.Instance) state.Failover {
	r := i.Run
	f := state.Failover{Task: r.Task, Agent: r.Agent, Node: r.Node, Hostname: r.Hostname, Why: r.MesosState, LostAt: r.LostAt}
	if f.LostAt.IsZero() {
		f.LostAt = w.now
		f.Why = "its claim was taken away"
	}
	// Its node's lease may have stood still before the master noticed anything.
	if n := w.node(r.Node); n != nil && !n.SuspectSince.IsZero() && n.SuspectSince.Before(f.LostAt) {
		f.LostAt = n.SuspectSince
	}
	return f
}

func (w *work) endFailover(f *state.Failover, how string) { f.End, f.EndAt = how, w.now }

// stepFailover notes what a change of the instance means for its failover.
func (w *work) stepFailover(f *state.Failover, old, now *state.Instance) {
	switch {
	case now.Goal == state.GoalStop:
		w.endFailover(f, state.FailoverStopped)
	case now.Run == nil:
		w.betweenRuns(f, old)
	case now.Run.Task == f.Task:
		w.stepLostRun(f, old, now)
	default:
		w.stepNextRun(f, now)
	}
}

// betweenRuns: the lost run is over, or an attempt at the next one is.
func (w *work) betweenRuns(f *state.Failover, old *state.Instance) {
	if old.Run == nil || old.Run.Task != f.NextTask {
		return
	}
	if old.Phase != state.PhaseGranting {
		w.endFailover(f, state.FailoverFailed)
		return
	}
	f.NextTask, f.NextHostname, f.OfferedAt = "", "", time.Time{}
}

func (w *work) stepLostRun(f *state.Failover, old, now *state.Instance) {
	if old.Phase == state.PhaseLost && runs(now.Phase) {
		w.endFailover(f, state.FailoverReturned)
		return
	}
	if len(now.Run.Claims) == 0 || !allFreed(now.Run) || !f.FreeAt.IsZero() {
		return
	}
	f.FreeAt = w.now
	for _, g := range now.Run.Claims {
		if c := w.claim(g.Volume); c != nil && c.Epoch == g.Epoch && c.FreedBy > f.FreedBy {
			f.FreedBy = c.FreedBy
		}
	}
	if n := w.node(f.Node); n != nil && !n.Alive {
		f.DeadAt = n.DeadAt
	}
}

func (w *work) stepNextRun(f *state.Failover, now *state.Instance) {
	r := now.Run
	if f.NextTask != r.Task {
		f.NextTask, f.NextHostname, f.OfferedAt = r.Task, r.Hostname, w.now
		f.Attempts++
	}
	switch now.Phase {
	case state.PhaseLaunching:
		if f.LaunchedAt.IsZero() {
			f.LaunchedAt = w.now
		}
	case state.PhaseRunning:
		if f.RunningAt.IsZero() {
			f.RunningAt = w.now
			for _, g := range r.Claims {
				if c := w.claim(g.Volume); c != nil && c.Epoch == g.Epoch && c.State == state.ClaimHeld && c.Since.After(f.HeldAt) {
					f.HeldAt = c.Since
				}
			}
		}
		if w.up(now) || now.Run.Idle {
			f.UpAt = w.now
			w.endFailover(f, state.FailoverMoved)
		}
	case state.PhaseEnded, state.PhaseKilling:
		w.endFailover(f, state.FailoverFailed)
	}
}

// noteRevoked writes down when the claims of a lost run were asked back.
func (w *work) noteRevoked(i *state.Instance) *state.Instance {
	f := openFailover(i)
	if f == nil || !f.RevokedAt.IsZero() || f.NextTask != "" {
		return i
	}
	n := *f
	n.RevokedAt = w.now
	c := w.edit(i)
	putFailover(c, f, &n)
	w.putInstance(c)
	return c
}

package framework

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// noticeRoom is how far a reader of Events may fall behind.
const noticeRoom = 1024

type subscriber struct{ c chan Notice }

// Events implements Core.
func (f *Framework) Events(ctx context.Context) <-chan Notice {
	s := &subscriber{c: make(chan Notice, noticeRoom)}
	f.mu.Lock()
	f.subs[s] = struct{}{}
	f.mu.Unlock()
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.drop(s)
	})
	return s.c
}

// drop ends a subscription; f.mu is held.
func (f *Framework) drop(s *subscriber) {
	if _, ok := f.subs[s]; ok {
		delete(f.subs, s)
		close(s.c)
	}
}

func (f *Framework) closeSubscribers() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		f.drop(s)
	}
}

// publish shows committed plans to readers: the view moves on, notices go out.
func (f *Framework) publish(done []planned) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range done {
		notices := Notices(f.view, p.event, p.plan)
		f.view.Apply(p.plan.Writes)
		for _, n := range notices {
			f.keepRun(n)
			f.report(n)
			f.reportFailover(n)
			for s := range f.subs {
				select {
				case s.c <- n:
				default:
					f.drop(s) // too slow: a closed channel says so
				}
			}
		}
	}
}

// keepRun remembers an instance's last run, whose logs can still be read.
func (f *Framework) keepRun(n Notice) {
	switch {
	case n.Type != string(state.KindInstance):
	case n.Gone:
		delete(f.runs, state.InstanceID(n.ID))
	case n.Instance != nil && n.Instance.Run != nil:
		f.runs[state.InstanceID(n.ID)] = n.Instance.Run
	}
}

// Notices tells what a plan means to people. It is called before the plan's writes are applied to view; cause is the event that
// the plan is for.
func Notices(view *state.State, cause scheduler.Event, plan scheduler.Plan) []Notice {
	var out []Notice
	deployed := false
	for _, w := range plan.Writes {
		n, tell := notice(view, w)
		if !tell {
			continue
		}
		switch {
		case n.Instance != nil:
			n.Status = statusOf(cause, n)
			if h, ok := cause.(scheduler.Health); ok && n.Before != nil && n.Before.Run != nil && n.Before.Run.Task == h.Task && n.Instance.Phase == state.PhaseKilling {
				n.Unhealthy = h.Kill
			}
		case n.Deployment != nil:
			n.Cancelled = n.Gone && replaces(cause)
			deployed = deployed || plan.Reply != nil && n.ID == string(plan.Reply.Deployment)
		}
		out = append(out, n)
	}
	if r := plan.Reply; r != nil && r.Err == nil && r.Deployment != "" && !deployed && view.Deployments[r.Deployment] == nil {
		// Done before it was written down, because there was nothing to do.
		out = append(out, Notice{Type: string(state.KindDeployment), ID: string(r.Deployment), Gone: true, Deployment: &state.Deployment{ID: r.Deployment, Version: r.Version}})
	}
	return out
}

// replaces tells whether an event may end a deployment before its time. Others end one only by doing its last step.
func replaces(cause scheduler.Event) bool {
	switch cause.(type) {
	case scheduler.PutApp, scheduler.ScaleApp, scheduler.RestartApp, scheduler.RemoveApp, scheduler.PutGroup, scheduler.CancelDeployment:
		return true
	}
	return false
}

// statusOf gives the master's word on a task when it is what changed its instance.
func statusOf(cause scheduler.Event, n Notice) *scheduler.Status {
	s, ok := cause.(scheduler.Status)
	if !ok || n.Before == nil || !runs(n.Before, s.Task) && !runs(n.Instance, s.Task) { // the latter: a run that was away is back
		return nil
	}
	return &s
}

func runs(i *state.Instance, t state.TaskID) bool { return i != nil && i.Run != nil && i.Run.Task == t }

// notice tells what a write means to a person; it is called before the write is applied to the view.
func notice(view *state.State, w state.Write) (Notice, bool) {
	n := Notice{Type: string(w.Kind), ID: w.ID, Gone: w.Value == nil}
	switch w.Kind {
	case state.KindInstance:
		n.Before = view.Instances[state.InstanceID(w.ID)]
		n.Instance = orBefore(w, n.Before)
		return n, true
	case state.KindDeployment:
		n.DeploymentBefore = view.Deployments[state.DeploymentID(w.ID)]
		n.Deployment = orBefore(w, n.DeploymentBefore)
		return n, true
	case state.KindApp:
		n.AppBefore = view.Apps[state.AppID(w.ID)]
		if n.App = orBefore(w, n.AppBefore); n.Gone && n.App != nil {
			n.Def = view.Def(n.App.ID, n.App.Version)
		}
		return n, true
	case state.KindReserved:
		old := view.Reserved[state.ReservedID(w.ID)]
		n.Type, n.Reserved = "reservation", orBefore(w, old)
		return n, n.Gone || old == nil || old.Phase != n.Reserved.Phase
	case state.KindVolume:
		return n, true
	case state.KindSession:
		now, _ := w.Value.(*state.Session)
		n.Session = now
		n.First = view.Session.FrameworkID == ""
		return n, now != nil && now.Connected != view.Session.Connected
	case state.KindStrange:
		old := view.Strange[state.TaskID(w.ID)]
		n.Strange = old
		return n, old != nil && n.Gone
	case state.KindNode:
		old, now := view.Nodes[state.NodeUID(w.ID)], nodeOf(w)
		return n, (old == nil) != (now == nil) || old != nil && (old.Alive != now.Alive || old.Generation != now.Generation || old.SuspectSince.IsZero() != now.SuspectSince.IsZero())
	case state.KindOrder, state.KindOperation:
		return n, true
	case state.KindHold:
		now, _ := w.Value.(*state.Hold)
		return n, now.Why().Code != view.Hold.Why().Code
	case state.KindClaim:
		old := view.Claims[state.VolumeUID(w.ID)]
		now, _ := w.Value.(*state.Claim)
		return n, (old == nil) != (now == nil) || old != nil && (old.State != now.State || old.Epoch != now.Epoch || old.Node != now.Node || old.Revoke != now.Revoke)
	}
	return n, false
}

// orBefore gives a write's value, or for one that removes what was there.
func orBefore[T any](w state.Write, before *T) *T {
	if v, ok := w.Value.(*T); ok && v != nil {
		return v
	}
	return before
}

func nodeOf(w state.Write) *state.Node {
	n, _ := w.Value.(*state.Node)
	return n
}

// reportFailover tells how a lost instance came back.
func (f *Framework) reportFailover(n Notice) {
	if n.Instance == nil || len(n.Instance.Failovers) == 0 {
		return
	}
	now := n.Instance.Failovers[len(n.Instance.Failovers)-1]
	if now.End == "" || n.Before == nil {
		return
	}
	if k := len(n.Before.Failovers); k > 0 && n.Before.Failovers[k-1].End != "" && n.Before.Failovers[k-1].LostAt.Equal(now.LostAt) {
		return // told already
	}
	after := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return t.Sub(now.LostAt)
	}
	f.log.Info("failover", zap.String("instance", n.ID), zap.String("end", now.End), zap.String("lost run", string(now.Task)), zap.String("from", now.Hostname), zap.String("to", now.NextHostname),
		zap.Time("lost", now.LostAt), zap.String("freed by", now.FreedBy), zap.Duration("revoked", after(now.RevokedAt)), zap.Duration("node dead", after(now.DeadAt)), zap.Duration("free", after(now.FreeAt)),
		zap.Duration("offered", after(now.OfferedAt)), zap.Duration("launched", after(now.LaunchedAt)), zap.Duration("mounted", after(now.HeldAt)), zap.Duration("running", after(now.RunningAt)), zap.Duration("up", after(now.UpAt)))
}

// report puts the notices that an operator reads a log for into it.
func (f *Framework) report(n Notice) {
	switch {
	case n.Type == string(state.KindInstance) && n.Instance != nil && (n.Before == nil || n.Gone || n.Before.Phase != n.Instance.Phase):
		fields := []zap.Field{zap.String("instance", n.ID), zap.String("phase", string(n.Instance.Phase))}
		if n.Gone {
			fields[1] = zap.String("phase", "gone")
		}
		if r := n.Instance.Run; r != nil {
			fields = append(fields, zap.String("task", string(r.Task)), zap.String("host", r.Hostname))
			if r.Message != "" {
				fields = append(fields, zap.String("message", r.Message))
			}
		}
		if n.Gone || remarkable[n.Instance.Phase] {
			f.log.Info("instance", fields...)
		} else {
			f.log.Debug("instance", fields...)
		}
	case n.Reserved != nil:
		f.logReservation(n)
	case n.Type == string(state.KindHold):
		if r := f.view.Hold.Why(); r.Code != "" {
			f.log.Warn("nothing is started, moved or killed from now on", zap.String("because", r.Text), zap.Time("until", r.Until))
		} else {
			f.log.Warn("the hold is over: things are started, moved and killed again")
		}
	case n.Type == string(state.KindOrder):
		if o := f.view.Orders[n.ID]; o != nil {
			f.log.Info("node order", zap.String("node", o.ID), zap.String("host", o.Hostname), zap.String("state", o.State()), zap.String("reason", o.Reason), zap.String("by", o.By))
		} else {
			f.log.Info("node order taken back", zap.String("node", n.ID))
		}
	case n.Type == string(state.KindOperation) && !n.Gone:
		if o := f.view.Operations[n.ID]; o != nil && o.Progress == nil {
			f.log.Info("operation", zap.String("operation", o.ID), zap.String("kind", o.Kind), zap.Stringer("volume", o.Ref), zap.String("phase", string(o.Phase)),
				zap.String("node", string(o.Node)), zap.String("because", o.Because), zap.String("error", o.Error))
		}
	case n.Type == string(state.KindDeployment) && n.Gone:
		f.log.Info("deployment ended", zap.String("deployment", n.ID))
	}
}

// remarkable are the phases that an operator wants to read about; the others are steps on the way.
var remarkable = map[state.Phase]bool{state.PhaseLaunching: true, state.PhaseRunning: true, state.PhaseKilling: true, state.PhaseLost: true, state.PhaseEnded: true}

// eventName is the type of an event, for logs and metrics.
func eventName(e scheduler.Event) string {
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "scheduler.")
}

// logReservation tells of a reservation that changed its phase, loudly when data was left behind.
func (f *Framework) logReservation(n Notice) {
	r := n.Reserved
	fields := []zap.Field{zap.String("reservation", n.ID), zap.String("instance", string(r.Instance)), zap.String("host", r.Hostname)}
	switch {
	case n.Gone:
		f.log.Info("reservation is over", fields...)
	case r.Phase == state.ReservedLeft:
		f.log.Warn("an agent was lost for too long: its instance starts over elsewhere, and its local volume is left behind", fields...)
	default:
		f.log.Info("reservation", append(fields, zap.String("phase", string(r.Phase)))...)
	}
}

package framework

import (
	"context"
	"fmt"
	"strings"

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
		for _, w := range p.plan.Writes {
			n, tell := f.notice(w)
			f.view.Apply([]state.Write{w})
			if !tell {
				continue
			}
			f.report(n)
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

// notice tells what a write means to a person; it is called before the write is applied to the view.
func (f *Framework) notice(w state.Write) (Notice, bool) {
	n := Notice{Type: string(w.Kind), ID: w.ID, Gone: w.Value == nil}
	switch w.Kind {
	case state.KindInstance:
		id := state.InstanceID(w.ID)
		n.Before = f.view.Instances[id]
		if i, ok := w.Value.(*state.Instance); ok && i != nil {
			n.Instance = i
			if i.Run != nil {
				f.runs[id] = i.Run
			}
		} else {
			delete(f.runs, id)
			n.Instance = n.Before
		}
		return n, true
	case state.KindDeployment:
		n.Deployment = f.view.Deployments[state.DeploymentID(w.ID)]
		if d, ok := w.Value.(*state.Deployment); ok && d != nil {
			n.Deployment = d
		}
		return n, true
	case state.KindApp, state.KindVolume:
		return n, true
	case state.KindNode:
		old, now := f.view.Nodes[state.NodeUID(w.ID)], nodeOf(w)
		return n, (old == nil) != (now == nil) || old != nil && (old.Alive != now.Alive || old.Generation != now.Generation || old.SuspectSince.IsZero() != now.SuspectSince.IsZero())
	case state.KindClaim:
		old := f.view.Claims[state.VolumeUID(w.ID)]
		now, _ := w.Value.(*state.Claim)
		return n, (old == nil) != (now == nil) || old != nil && (old.State != now.State || old.Epoch != now.Epoch || old.Node != now.Node || old.Revoke != now.Revoke)
	}
	return n, false
}

func nodeOf(w state.Write) *state.Node {
	n, _ := w.Value.(*state.Node)
	return n
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

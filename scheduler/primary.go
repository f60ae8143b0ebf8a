package scheduler

import (
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/primary"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// YieldPrimary says that a run has stopped being its app's primary, as the run itself or a person who knows tells. Term is that of the record.
type YieldPrimary struct {
	App  state.AppID
	Task state.TaskID
	Term uint64
}

func (YieldPrimary) event() {}

// elect brings the primary of every app that this Step has touched up to date. It comes last, and costs nothing for apps without one.
func (w *work) elect(e Event) {
	ended := endedTask(e)
	byOperator := false // the whole agent is gone, whatever framework its tasks were of
	if s, ok := e.(Status); ok {
		byOperator = s.State == "TASK_GONE_BY_OPERATOR"
	}
	var apps []state.AppID
	add := func(id state.AppID) {
		if a := w.app(id); a != nil && (a.Primary != nil || w.spec(a.ID, a.Version).Primary) {
			apps = append(apps, id)
		}
	}
	for _, k := range w.order {
		switch k.kind {
		case state.KindApp:
			add(state.AppID(k.id))
		case state.KindInstance:
			if i := w.instance(state.InstanceID(k.id)); i != nil {
				add(i.App)
			} else if i := w.s.Instances[state.InstanceID(k.id)]; i != nil {
				add(i.App)
			}
		}
	}
	if ended != "" {
		for _, id := range w.appsOfTask(ended) {
			add(id)
		}
	}
	slices.Sort(apps)
	for _, id := range slices.Compact(apps) {
		if a := w.app(id); a != nil && a.Primary != nil && a.Primary.Blind && !byOperator {
			w.electOf(id, "")
			continue
		}
		w.electOf(id, ended)
	}
}

// endedTask is the task that an event says is over for good.
func endedTask(e Event) state.TaskID {
	s, ok := e.(Status)
	if ok && (meaningOf(s.State) == over || s.State == "TASK_GONE" || s.State == "TASK_GONE_BY_OPERATOR") {
		return s.Task
	}
	return ""
}

// appsOfTask gives the app of a task, or those that may be it when its instance is no more.
func (w *work) appsOfTask(t state.TaskID) []state.AppID {
	id, _, ok := state.ParseTaskID(t)
	if !ok {
		return nil
	}
	if i := w.s.Instances[id]; i != nil {
		return []state.AppID{i.App}
	}
	safe, _, _ := id.Split()
	var list []state.AppID
	for app, a := range w.s.Apps {
		if a.Primary != nil && a.Primary.Task == t && strings.EqualFold(app.Safe(), safe) {
			list = append(list, app)
		}
	}
	return list
}

func (w *work) electOf(id state.AppID, ended state.TaskID) {
	a := w.app(id)
	spec := w.spec(a.ID, a.Version)
	var now state.Primary
	if a.Primary != nil {
		now = *a.Primary
	}
	wanted := spec.Primary && !a.Removed
	var members []primary.Member
	current := false // the record's run is its instance's
	isOver := ended != "" && ended == now.Task
	for _, i := range w.instancesOf(id) {
		m := primary.Member{Instance: i.ID, Ordinal: i.Ordinal, Stays: wanted && i.Goal == state.GoalRun && !i.Paused}
		if i.Run != nil {
			_, freed := w.freedClaim(i.Run)
			m.Task, m.Claimed = i.Run.Task, len(i.Run.Claims) > 0
			m.Up = wanted && i.Goal == state.GoalRun && !freed && w.up(i)
			if i.Run.Task == now.Task && now.Task != "" {
				current = true
				isOver = isOver || i.Phase == state.PhaseEnded && !now.Blind || m.Claimed && allFreed(i.Run)
			}
		}
		members = append(members, m)
	}
	// A run with claims leaves its instance when they are free. Without any nothing tells but its own end.
	isOver = isOver || !current && now.Claimed
	next := primary.Next(now, members, primary.Facts{Over: isOver, Keeps: spec.Exclusive(), First: uint64(max(w.now.Unix(), 1))})
	if next == now {
		return
	}
	if next.Task != now.Task {
		next.Blind = false
	}
	if next.Task != now.Task || next.Named != now.Named {
		next.Since = w.now
	}
	c := w.editApp(id)
	c.Primary = &next
	w.putApp(c)
}

func (w *work) yieldPrimary(e YieldPrimary) *Reply {
	a, err := w.existing(e.App)
	if err != nil {
		return refuse(err)
	}
	p := a.Primary
	switch {
	case p == nil || p.Task == "":
		return refuse(fault.New(fault.Conflict, "app %s has no primary that could give it up", e.App))
	case p.Task != e.Task || p.Term != e.Term:
		return refuse(fault.New(fault.Conflict, "the primary of app %s is task %s in term %d, not %s in term %d", e.App, p.Task, p.Term, e.Task, e.Term))
	}
	c, next := w.editApp(a.ID), primary.Yield(*p)
	next.Since = w.now
	c.Primary = &next
	w.putApp(c)
	return &Reply{Version: a.Version}
}

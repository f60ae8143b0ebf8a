package scheduler

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// A pod's run is several Mesos tasks, `<run>.<container>`, in one task group. Everything else in this package knows runs only: what is told
// of the tasks is folded here into what it means for the run, and what is asked of a run goes to each of its tasks.

// podRun gives the containers of a new run; nil for an app.
func podRun(spec *state.Spec) []state.ContainerRun {
	var list []state.ContainerRun
	for i := range spec.Containers {
		list = append(list, state.ContainerRun{Name: spec.Containers[i].Name})
	}
	return list
}

// tasksOf gives the Mesos tasks of a run that may still be there.
func tasksOf(r *state.Run) []state.TaskID {
	if len(r.Pod) == 0 {
		return []state.TaskID{r.Task}
	}
	var list []state.TaskID
	for i := range r.Pod {
		if meaningOf(r.Pod[i].MesosState) != over {
			list = append(list, r.Task.Container(r.Pod[i].Name))
		}
	}
	return list
}

// asks gives the questions that tell what became of a run.
func asks(r *state.Run, agent state.AgentID) []ReconcileTask {
	var list []ReconcileTask
	for _, t := range tasksOf(r) {
		list = append(list, ReconcileTask{t, agent})
	}
	return list
}

// runOf finds the run, current or away, that a task id names.
func (w *work) runOf(t state.TaskID) *state.Run {
	if i := w.byTask(t); i != nil {
		return i.Run
	}
	if i, n := w.awayOf(t); i != nil {
		return i.Away[n]
	}
	return nil
}

// killRun orders the end of a run's tasks.
func (w *work) killRun(r *state.Run, k Kill) {
	for _, t := range tasksOf(r) {
		k.Task, k.Agent = t, r.Agent
		w.master(k)
	}
}

// strangeRun watches on, as strange ones, the tasks of a run that is no instance's any more.
func (w *work) strangeRun(r *state.Run, mesos, reason string) {
	for _, t := range tasksOf(r) {
		w.killStrange(&state.StrangeTask{Task: t, Agent: r.Agent, State: mesos, Reason: reason})
	}
}

// fold notes the status of a pod's container, and makes of it the status of its run. Others pass as they are. ok is false when there is nothing
// more to do about it.
func (w *work) fold(e Status) (out Status, ok bool) {
	run, name, ok := state.SplitContainer(e.Task)
	if !ok {
		return e, true
	}
	i, away := w.byTask(run), -1
	if i == nil {
		if i, away = w.awayOf(run); i == nil {
			return e, true
		}
	}
	r := i.Run
	if away >= 0 {
		r = i.Away[away]
	}
	at := slices.IndexFunc(r.Pod, func(c state.ContainerRun) bool { return c.Name == name })
	if at < 0 {
		return e, true // no container of its definition: strange
	}
	out = e
	out.Task = run
	m := meaningOf(e.State)
	if m == unknownState || away < 0 && i.Phase == state.PhaseGranting {
		return out, true
	}
	if meaningOf(r.Pod[at].MesosState) == over && m == missing {
		w.answered(run) // it has ended, and the master has forgotten it
		return out, false
	}
	c := w.edit(i)
	n := *r
	n.Pod = slices.Clone(r.Pod)
	w.noteContainer(&n.Pod[at], e)
	if away >= 0 {
		c.Away = slices.Clone(c.Away)
		c.Away[away] = &n
	} else {
		n.Claims = c.Run.Claims
		c.Run = &n
	}
	w.putInstance(c)
	if away < 0 && w.groupEnds(c, name, e) {
		w.answered(run)
		return out, false
	}
	w.whole(&out, &n, w.spec(c.App, n.Version))
	return out, true
}

func (w *work) noteContainer(c *state.ContainerRun, e Status) {
	if c.MesosState != e.State {
		c.Since = w.now
	}
	c.MesosState, c.Reason, c.Message = e.State, e.Reason, e.Message
	if e.Healthy != nil {
		healthy := *e.Healthy
		c.Healthy = &healthy
	}
	if e.ContainerIP != "" {
		c.ContainerIP = e.ContainerIP
	}
}

// groupEnds: a container that failed ends its pod. Mesos's executor ends the others by itself; that is not left to it alone. c is as it was put.
func (w *work) groupEnds(c *state.Instance, name string, e Status) bool {
	if meaningOf(e.State) != over || e.State == "TASK_FINISHED" || w.frozen() {
		return false
	}
	switch c.Phase {
	case state.PhaseLaunching, state.PhaseStaging, state.PhaseRunning:
	default:
		return false
	}
	if !slices.ContainsFunc(c.Run.Pod, func(o state.ContainerRun) bool { return meaningOf(o.MesosState) != over }) {
		return false
	}
	e.Message = inContainer(name, e.Message)
	n := w.edit(c)
	if e.Reason == "REASON_AGENT_DRAINING" {
		n.Failures, n.Moving = 0, n.Run.Agent
	} else {
		w.failed(n, e)
	}
	w.putInstance(n)
	w.killNow(n, fmt.Sprintf("its container %s ended with %s", name, e.State))
	return true
}

func inContainer(name, message string) string {
	if message == "" {
		return "container " + name
	}
	return "container " + name + ": " + message
}

// whole says what the states of a pod's containers come to. The newest status is in out already.
func (w *work) whole(out *Status, r *state.Run, spec *state.Spec) {
	out.Healthy = podHealth(r, spec)
	if meaningOf(out.State) == missing {
		return // they are on one agent
	}
	var alive, begin, stop int
	var gone, ended *state.ContainerRun
	for i := range r.Pod {
		c := &r.Pod[i]
		switch meaningOf(c.MesosState) {
		case over:
			if ended == nil || worse(c, ended) {
				ended = c
			}
		case missing:
			gone = c
		case stopping:
			alive++
			stop++
		case running:
			alive++
		default:
			alive++
			begin++
		}
	}
	switch {
	case stop > 0:
		out.State = "TASK_KILLING"
	case begin > 0:
		out.State = "TASK_STARTING"
	case alive > 0:
		out.State = "TASK_RUNNING"
	case gone != nil:
		out.State, out.Reason, out.Message = gone.MesosState, gone.Reason, gone.Message
	case ended != nil:
		out.State, out.Reason, out.Message = ended.MesosState, ended.Reason, inContainer(ended.Name, ended.Message)
	}
}

// worse ranks the ends of containers: the first failure says why a pod ended, then a kill.
func worse(a, b *state.ContainerRun) bool {
	rank := func(c *state.ContainerRun) int {
		switch c.MesosState {
		case "TASK_FINISHED":
			return 0
		case "TASK_KILLED":
			return 1
		}
		return 2
	}
	if x, y := rank(a), rank(b); x != y {
		return x > y
	}
	return a.Since.Before(b.Since)
}

// podHealth is nil until every container that is checked and has not finished has a result, and false once one is unhealthy.
func podHealth(r *state.Run, spec *state.Spec) *bool {
	good, open, checked := true, false, false
	for i := range r.Pod {
		c := &r.Pod[i]
		if i >= len(spec.Containers) || spec.Containers[i].Health == nil || c.MesosState == "TASK_FINISHED" {
			continue
		}
		checked = true
		switch {
		case c.Healthy == nil:
			open = true
		case !*c.Healthy:
			good = false
		}
	}
	if !checked || good && open {
		return nil
	}
	return &good
}

// idlePod has every container wait, while its volumes are there.
func idlePod(list []state.PodContainer) []state.PodContainer {
	list = slices.Clone(list)
	for i := range list {
		list[i].Cmd, list[i].Args, list[i].Health = idleCommand, nil, nil
	}
	return list
}

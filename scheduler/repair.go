package scheduler

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// idleCommand does nothing until it is told to end, which it then does at once.
const idleCommand = `trap 'exit 0' TERM INT; echo 'paused for repair'; while :; do sleep 3600 & wait $!; done`

// idle is a definition whose command does nothing: everything else, volumes above all, is as it was. It is not checked.
func idle(d *state.Def) *state.Def {
	c := *d
	c.Spec.Cmd, c.Spec.Args = idleCommand, nil
	c.Spec.HealthChecks, c.Spec.ReadinessChecks = nil, nil
	if c.Spec.Pod() {
		c.Spec.Cmd, c.Spec.Containers = "", idlePod(c.Spec.Containers)
	}
	return &c
}

// pauseInstance stops an instance and starts the idle command in its place, or the other way round.
func (w *work) pauseInstance(e PauseInstance) *Reply {
	i := w.instance(e.Instance)
	switch {
	case i == nil:
		return refuse(fault.New(fault.NotFound, "instance %s does not exist", e.Instance))
	case i.Goal == state.GoalStop:
		return refuse(fault.New(fault.Conflict, "instance %s is being stopped", e.Instance))
	case i.Paused != e.Resume:
		return &Reply{Version: i.Version} // it is as wanted already
	}
	if i.Phase == state.PhaseGranting {
		w.cancelGranting(i, 0)
		i = w.instance(e.Instance)
	}
	c := w.edit(i)
	c.Paused, c.Pin, c.Avoid = !e.Resume, "", nil
	c.Failures, c.BackoffUntil = 0, time.Time{}
	if c.Paused && c.Run != nil {
		c.Pin = c.Run.Agent
	}
	disown(c, "its instance was paused for repair, or resumed, while it was out of reach")
	if a := w.app(c.App); e.Resume && a != nil {
		w.catchUp(a, c)
	}
	switch c.Phase {
	case state.PhaseLaunching, state.PhaseStaging, state.PhaseRunning:
		reason := "it is paused for repair"
		if e.Resume {
			reason = "its pause is over"
		}
		w.kill(c, reason)
	default:
		w.putInstance(c)
		w.instances.add(c.ID)
	}
	return &Reply{Version: c.Version}
}

// catchUp gives an instance whose pause is over what its app became meanwhile.
func (w *work) catchUp(a *state.App, c *state.Instance) {
	if !a.Removed && w.turn(a) && !w.asWanted(a, c) {
		c.Version, c.RestartSeen = w.targetOf(a, c.Ordinal), a.Restart
	}
}

// held says why a paused instance may not go to an agent, "" when it may. Where its agent is known to be lost, any other will do.
func (w *work) held(i *state.Instance, agent state.AgentID) string {
	if i.Pin == "" || i.Pin == agent {
		return ""
	}
	a := w.agent(i.Pin)
	switch {
	case a == nil:
		return fmt.Sprintf("it is paused for repair and stays on agent %s, which has not been seen since this framework started", i.Pin)
	case a.LostAt.IsZero():
		return fmt.Sprintf("it is paused for repair and stays on %s", a.Hostname)
	}
	return ""
}

// replaceInstance gives an instance a new run elsewhere. Local volumes cannot follow it: they are given up with their data, where that is allowed.
func (w *work) replaceInstance(e ReplaceInstance) *Reply {
	i := w.instance(e.Instance)
	if i == nil {
		return refuse(fault.New(fault.NotFound, "instance %s does not exist", e.Instance))
	}
	for _, m := range w.spec(i.App, i.Version).Volumes {
		if m.Kind != state.MountPersistent {
			continue
		}
		if !e.Discard {
			return refuse(fault.New(fault.Conflict, "instance %s has local persistent volumes, which cannot follow it: replacing it destroys them, which discard has to allow", e.Instance))
		}
		return w.wipeInstance(e.Instance, true)
	}
	return w.restartInstance(e.Instance, true)
}

// pauseDeployment holds a deployment, or lets it go on.
func (w *work) pauseDeployment(e PauseDeployment) *Reply {
	d := w.deployment(e.Deployment)
	if d == nil {
		return refuse(fault.New(fault.NotFound, "DeploymentPlan %s does not exist", e.Deployment))
	}
	if d.Paused == e.Resume {
		c := *d
		c.Paused = !e.Resume
		c.Rev++
		w.put(state.KindDeployment, string(d.ID), &c)
		for _, app := range d.Apps {
			w.apps.add(app)
		}
	}
	return &Reply{Deployment: d.ID, Version: d.Version}
}

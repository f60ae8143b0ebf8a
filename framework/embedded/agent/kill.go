package agent

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// killContainer ends a task in whatever phase it is. Call it from within act.
func (a *Agent) killContainer(c *container, policy *mesos.KillPolicy) {
	c.mu.Lock()
	switch {
	case c.exec != nil:
		e := c.exec
		c.mu.Unlock()
		go e.kill(grace(policy, c.task.KillPolicy, a.cfg.Timing.KillGrace))
		return
	case c.starting:
		c.waiting = &killOrder{policy}
		c.mu.Unlock()
		return
	case c.killed || terminal(c.state):
		c.mu.Unlock()
		return
	}
	// It has no process yet: the launch goes on to the point where it would start one (a mount in flight is waited for, as
	// Mesos does), and then gives back what it has.
	c.killed = true
	c.mu.Unlock()
	s := c.status(mesos.TASK_KILLED, mesos.SOURCE_AGENT, "Killed before delivery to the executor")
	reason := mesos.REASON_TASK_KILLED_DURING_LAUNCH
	s.Reason = &reason
	a.record(c, s)
}

// abandon kills a task of which nobody wants to hear any more. Call it from within act.
func (a *Agent) abandon(c *container) {
	c.mu.Lock()
	c.silent = true
	c.pending = nil
	idle := c.clean
	c.mu.Unlock()
	if idle {
		a.retire(c)
		return
	}
	a.killContainer(c, nil)
}

package agent

import (
	"context"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Kill asks a task to end. It satisfies Handle.
func (a *Agent) Kill(framework mesos.FrameworkID, task mesos.TaskID, policy *mesos.KillPolicy) {
	a.act(func() {
		a.mu.Lock()
		c := a.tasks[taskKey{framework.Value, task.Value}]
		info, known := a.frameworks[framework.Value]
		a.mu.Unlock()
		if c != nil {
			a.killContainer(c, policy)
			return
		}
		state := mesos.TASK_LOST
		if known && capable(info, mesos.FrameworkInfo_Capability_PARTITION_AWARE) {
			state = mesos.TASK_GONE
		}
		s := newStatus(a.ID(), task, state, mesos.SOURCE_AGENT, "Cannot find executor")
		reason := mesos.REASON_EXECUTOR_TERMINATED
		s.Reason = &reason
		a.answer(framework.Value, mesos.TaskInfo{TaskID: task, Name: task.Value}, s)
	})
}

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

// ShutdownFramework kills all tasks of a framework; nothing more is said of them. It satisfies Handle.
func (a *Agent) ShutdownFramework(id mesos.FrameworkID) {
	a.act(func() {
		for _, c := range a.allTasks() {
			if c.framework == id.Value {
				a.abandon(c)
			}
		}
		a.mu.Lock()
		delete(a.frameworks, id.Value)
		a.mu.Unlock()
		a.spawn(func(context.Context) {
			if err := a.saveIdentity(); err != nil {
				a.log.Error("framework is not forgotten on disk")
			}
		})
	})
}

package agent

import (
	"context"
	"errors"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// peer is the master's Handle on one life of the agent process: a message to a life that is over is lost, as one to a dead process is.
type peer struct{ a *Agent }

var _ Handle = (*peer)(nil)

func (p *peer) act(fn func(a *Agent)) {
	p.a.act(func() {
		if p.a.peer == p {
			fn(p.a)
		}
	})
}

// Run launches a command task.
func (p *peer) Run(framework mesos.FrameworkInfo, task mesos.TaskInfo) {
	p.act(func(a *Agent) {
		if framework.ID == nil {
			a.log.Error("task of a framework without an id", zap.String("task", task.TaskID.Value))
			return
		}
		c := &container{id: uuid.NewString(), agent: a.ID(), framework: framework.ID.Value, task: task, state: mesos.TASK_STAGING}
		if a.processes() {
			c.sandbox = sandbox.Dir(a.cfg.Dir, a.place(c))
		}
		a.mu.Lock()
		taken := a.tasks[c.key()] != nil
		if !taken && !a.shut {
			a.tasks[c.key()] = c
		}
		shut := a.shut
		a.mu.Unlock()
		if taken || shut {
			a.drop(framework, task.TaskID)
			return
		}
		a.spawn(func(ctx context.Context) { a.launch(ctx, c, framework) })
	})
}

// drop answers a launch that cannot begin: an earlier task of that id has not been cleaned up yet, or the agent is shut down.
func (a *Agent) drop(framework mesos.FrameworkInfo, task mesos.TaskID) {
	state := mesos.TASK_LOST
	if capable(framework, mesos.FrameworkInfo_Capability_PARTITION_AWARE) {
		state = mesos.TASK_DROPPED
	}
	s := newStatus(a.ID(), task, state, mesos.SOURCE_AGENT, "Executor terminating")
	reason := mesos.REASON_EXECUTOR_TERMINATED
	s.Reason = &reason
	a.answer(framework.ID.Value, task, s)
}

// Kill asks a task to end. For a task that is not here the answer is Mesos's.
func (p *peer) Kill(framework mesos.FrameworkID, task mesos.TaskID, policy *mesos.KillPolicy) {
	p.act(func(a *Agent) {
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
		a.answer(framework.Value, task, s)
	})
}

// Acknowledge ends the repetition of an update.
func (p *peer) Acknowledge(framework mesos.FrameworkID, task mesos.TaskID, id []byte) {
	p.act(func(a *Agent) {
		a.mu.Lock()
		c := a.tasks[taskKey{framework.Value, task.Value}]
		delete(a.answers, string(id))
		a.mu.Unlock()
		if c != nil && c.ack(id) {
			a.retire(c)
			a.poke()
		}
	})
}

// Checkpoint makes reservations and persistent volumes durable.
func (p *peer) Checkpoint(total []mesos.Resource, created, destroyed []mesos.Resource) error {
	err := errors.New("agent: is not running")
	p.act(func(a *Agent) { err = a.reserve(total, created, destroyed) })
	return err
}

// ShutdownFramework kills all tasks of a framework; nothing more is said of them.
func (p *peer) ShutdownFramework(id mesos.FrameworkID) {
	p.act(func(a *Agent) {
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
				a.log.Error("framework is not forgotten on disk", zap.Error(err))
			}
		})
	})
}

// Shutdown ends everything: the operator has marked this agent gone.
func (p *peer) Shutdown() { p.act((*Agent).shutdown) }

package agent

import (
	"context"
	"errors"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Master is the wire from an agent to its master. The engine's master implements it and
// hands it to New; a partition makes every method return ErrCut until it heals, which is
// how a cable that was pulled looks from here. Methods may be called from any goroutine.
// No method may call back into the agent before it returns.
type Master interface {
	// Register announces an agent that has no id yet and returns the id it gets
	// (`<master id>-S<n>`), as RegisterSlaveMessage does.
	Register(ctx context.Context, r Registration) (mesos.AgentID, error)
	// Reregister announces an agent that has an id, with everything it runs. ErrRemoved
	// says that the master has marked the agent gone: it must kill its tasks, forget its id
	// and Register anew.
	Reregister(ctx context.Context, r Reregistration) error
	// StatusUpdate forwards one task status. The agent repeats the oldest unacknowledged
	// status of each task (10 s, doubling up to 10 min, as Mesos does) until Agent.Acknowledge is called.
	// The status has uuid, agent_id, executor_id, source, timestamp and container_status filled in.
	// latest is the newest state of the task, which may be ahead of status.
	StatusUpdate(ctx context.Context, framework mesos.FrameworkID, status mesos.TaskStatus, latest mesos.TaskState) error
	// Pong answers nothing: the agent calls it every ping interval as its sign of life and
	// learns from it whether it is still registered (ErrUnknownAgent: reregister).
	Pong(ctx context.Context, id mesos.AgentID) error
}

var (
	// ErrCut says that the network between agent and master is cut. The outcome of the call is unknown.
	ErrCut = errors.New("agent: link to the master is cut")
	// ErrRemoved says that the master has removed this agent id for good (marked gone).
	ErrRemoved = errors.New("agent: removed by the master")
	// ErrUnknownAgent says that the master does not count the agent as registered now.
	ErrUnknownAgent = errors.New("agent: not registered")
)

// Registration is what an agent says of itself.
type Registration struct {
	// Info has hostname, port, attributes and total resources (checkpointed reservations and volumes included).
	Info mesos.AgentInfo
	// Version is the Mesos version the agent claims, "1.11.0".
	Version string
	// Handle is how the master reaches the agent.
	Handle Handle
	// URL is the agent's own HTTP endpoint, e.g. http://127.0.0.1:5051.
	URL string
}

// Reregistration is Registration of an agent that has an id, with what it runs.
type Reregistration struct {
	Registration
	ID mesos.AgentID
	// Tasks lists every task that is not yet terminal and acknowledged, with its newest state and its framework.
	Tasks []mesos.Task
	// Completed lists tasks that are terminal and acknowledged, newest last, at most 100.
	Completed []mesos.Task
	// Frameworks are the frameworks of those tasks.
	Frameworks []mesos.FrameworkInfo
	// Executors are those of the pods among Tasks.
	Executors []mesos.ExecutorInfo
}

// Handle is the wire from the master to an agent; a running agent hands one over when it registers, another one after every
// restart, and one that belongs to an earlier life does nothing. The master must stop using it while the link is cut. Methods return at once: work goes on inside the agent.
type Handle interface {
	// Run launches a command task. Every failure is reported as a status update, never as an error here.
	Run(framework mesos.FrameworkInfo, task mesos.TaskInfo)
	// RunGroup launches the tasks of a pod under one executor (LAUNCH_GROUP). An agent that cannot says so by TASK_ERROR updates.
	RunGroup(framework mesos.FrameworkInfo, executor mesos.ExecutorInfo, tasks []mesos.TaskInfo)
	// Kill asks a task to end: SIGTERM, grace period (task's kill policy, overridden by policy when not nil), SIGKILL.
	// A task that the agent does not know is answered by TASK_LOST/TASK_GONE through the master, so that the call is never silent.
	Kill(framework mesos.FrameworkID, task mesos.TaskID, policy *mesos.KillPolicy)
	// Acknowledge ends the repetition of a status update.
	Acknowledge(framework mesos.FrameworkID, task mesos.TaskID, uuid []byte)
	// Checkpoint makes the agent's reserved and volume resources durable (total is the new total resources of the agent);
	// created and destroyed list persistent volumes whose directories must appear or go. An error refuses the operation.
	Checkpoint(total []mesos.Resource, created, destroyed []mesos.Resource) error
	// ShutdownFramework kills all tasks of a framework (TEARDOWN, failover timeout over).
	ShutdownFramework(id mesos.FrameworkID)
	// Shutdown kills every task and ends the registration (marked gone).
	Shutdown()
}

// Timing are the intervals that tests shorten. Zero values mean the defaults given.
type Timing struct {
	Ping        time.Duration // sign of life to the master; default 1 s
	UpdateRetry time.Duration // first repetition of an unacknowledged update; default 10 s
	MountLimit  time.Duration // dvdcli mount; default 120 s
	UnmountMax  time.Duration // dvdcli unmount; default 10 min
	KillGrace   time.Duration // when the task has no kill policy; default 3 s (Mesos's command executor)
}

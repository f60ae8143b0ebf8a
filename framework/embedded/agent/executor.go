package agent

import (
	"fmt"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/check"
	"github.com/holdfast-io/holdfast/framework/embedded/process"
	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// executor runs one task, as Mesos's command executor does in a process of its own: it outlives the agent process, keeps what it has to
// say while there is none, checks the task's health, and kills it.
type executor struct {
	agent      *Agent
	agentID    string
	container  string
	framework  string
	task       mesos.TaskInfo
	sandbox    string
	group      *group // of a pod's container
	killing    bool   // the framework understands TASK_KILLING
	checkpoint bool   // the framework wants its tasks to survive an agent restart
	proc       *process.Process
	outputs    []*sandbox.Output
	over       chan struct{} // no process is left and everything has been said
	ending     sync.Once
	saying     sync.Mutex // keeps the order of what is said

	mu        sync.Mutex
	backlog   []mesos.TaskStatus // said while there was no agent process
	silent    bool               // the machine is lost: nothing more is said
	ended     bool               // too late to kill it
	killedAt  time.Time          // when SIGTERM was sent, zero for never
	escalate  *time.Timer
	unhealthy bool // killed because of its health
	overtime  bool // killed because of max_completion_time
	healthy   *bool
	checked   *mesos.CheckStatusInfo
	timers    []func() // stop health checks and time limits
	unchecked bool     // they have been stopped
}

// pid is the first process, 0 for none.
func (e *executor) pid() int {
	if e.proc == nil {
		return 0
	}
	return e.proc.ID.Pid
}

// say builds a status in the executor's name; it carries on the last results of the checks.
func (e *executor) say(state mesos.TaskState, message string) mesos.TaskStatus {
	s := newStatus(e.agentID, e.task.TaskID, state, mesos.SOURCE_EXECUTOR, message)
	s.ContainerStatus = containerStatus(e.container, e.pid())
	s.ExecutorID.Value = executorOf(&e.task)
	if e.group != nil {
		s.ContainerStatus.ContainerID.Parent = &mesos.ContainerID{Value: e.group.id}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.CheckStatus = e.checked
	if !terminal(state) {
		s.Healthy = e.healthy
	}
	return s
}

// emit gives statuses to the agent process, or keeps them until there is one. Do not call it from within Agent.act.
func (e *executor) emit(statuses ...mesos.TaskStatus) { e.agent.deliver(e, statuses...) }

func (e *executor) silence() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.silent = true
}

// destroy kills every process of the task, without a grace period.
func (e *executor) destroy() {
	if e.proc != nil {
		e.proc.Kill()
		return
	}
	e.end(process.Exit{Signal: 9})
}

// run says that the task runs and watches it to its end.
func (e *executor) run() {
	running := []mesos.TaskStatus{e.say(mesos.TASK_STARTING, ""), e.say(mesos.TASK_RUNNING, "")}
	if e.task.Check != nil && e.task.Check.Type != check.UnknownGeneral {
		for i := range running {
			running[i].CheckStatus = check.Empty(*e.task.Check)
		}
	}
	e.emit(running...)
	if e.proc == nil {
		return
	}
	e.startChecks()
	if d := e.task.MaxCompletionTime; d != nil {
		t := time.AfterFunc(time.Duration(d.Nanoseconds), func() {
			e.mu.Lock()
			e.overtime = true
			e.mu.Unlock()
			e.kill(0)
		})
		e.onEnd(func() { t.Stop() })
	}
	<-e.proc.Exited()
	e.end(e.proc.Exit())
}

// end says how the task ended, and calls for the clean-up when nothing of it is left.
func (e *executor) end(exit process.Exit) { e.ending.Do(func() { e.finish(exit) }) }

func (e *executor) finish(exit process.Exit) {
	e.mu.Lock()
	e.ended = true
	e.stopTimers()
	if e.escalate != nil {
		e.escalate.Stop()
	}
	e.mu.Unlock()
	for _, o := range e.outputs {
		o.Finish()
	}
	last := e.lastWord(exit)
	e.emit(last)
	e.endGroup(last)
	if e.proc != nil {
		<-e.proc.Gone()
	}
	close(e.over)
	e.agent.cleanUpAfter(e)
}

// endGroup has the other containers of a pod killed when this one did not end well. They are killed by this program even while there is no agent
// process, as an executor of Mesos would.
func (e *executor) endGroup(last mesos.TaskStatus) {
	if e.group == nil || last.GetState() == mesos.TASK_FINISHED {
		return
	}
	a := e.agent
	a.mu.Lock()
	var peers []*executor
	for _, o := range a.execs {
		if o != e && o.group != nil && o.group.id == e.group.id {
			peers = append(peers, o)
		}
	}
	a.mu.Unlock()
	for _, o := range peers {
		go o.kill(grace(nil, o.task.KillPolicy, a.cfg.Timing.KillGrace))
	}
	a.act(func() {
		if c := a.container(e); c != nil {
			a.groupEnds(c, last) // those that are still being launched
		}
	})
}

// stopTimers ends checks and time limits. Call it with the lock.
func (e *executor) stopTimers() {
	for _, stop := range e.timers {
		stop()
	}
	e.timers = nil
	e.unchecked = true
}

// onEnd remembers how to stop something; at once when the task is being killed already.
func (e *executor) onEnd(stop func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unchecked {
		stop()
		return
	}
	e.timers = append(e.timers, stop)
}

// lastWord is the terminal status, worded and ranked as Mesos's command executor does.
func (e *executor) lastWord(exit process.Exit) mesos.TaskStatus {
	e.mu.Lock()
	killed, unhealthy, overtime := !e.killedAt.IsZero(), e.unhealthy, e.overtime
	e.mu.Unlock()
	state := mesos.TASK_FAILED
	switch {
	case overtime:
	case killed:
		state = mesos.TASK_KILLED
	case exit.OK():
		state = mesos.TASK_FINISHED
	}
	s := e.say(state, "Command "+exit.Describe())
	if overtime {
		r := mesos.REASON_MAX_COMPLETION_TIME_REACHED
		s.Reason = &r
	}
	if killed && unhealthy {
		no := false
		s.Healthy = &no
	}
	return s
}

// kill sends SIGTERM, and SIGKILL to everything when the grace period is over. A second call can only shorten the
// grace period. Do not call it from within Agent.act: it speaks.
func (e *executor) kill(grace time.Duration) {
	e.mu.Lock()
	if e.ended {
		e.mu.Unlock()
		return
	}
	if !e.killedAt.IsZero() {
		left := max(0, grace-time.Since(e.killedAt))
		if e.escalate != nil && e.escalate.Stop() {
			e.escalate.Reset(left)
		}
		e.mu.Unlock()
		return
	}
	e.killedAt = time.Now()
	e.stopTimers()
	if e.proc != nil {
		e.escalate = time.AfterFunc(grace, e.proc.Kill)
	}
	say := e.killing
	e.mu.Unlock()
	if say {
		e.emit(e.say(mesos.TASK_KILLING, ""))
	}
	if e.proc == nil {
		e.end(process.Exit{Signal: 15})
		return
	}
	e.proc.Terminate()
}

// grace is the time between SIGTERM and SIGKILL: of the call, else of the task, else Mesos's default.
func grace(call, task *mesos.KillPolicy, def time.Duration) time.Duration {
	for _, p := range []*mesos.KillPolicy{call, task} {
		if p != nil && p.GracePeriod != nil {
			return min(max(0, time.Duration(p.GracePeriod.Nanoseconds)), 24*time.Hour)
		}
	}
	return def
}

// startChecks begins the health check and the general check of the task, if it has them.
func (e *executor) startChecks() {
	env := check.Target{Proc: e.proc, Env: e.environment}
	if hc := e.task.HealthCheck; hc != nil {
		stop := check.Health(*hc, env, func(r check.HealthResult) {
			e.mu.Lock()
			late := e.unchecked
			if !late {
				e.healthy = &r.Healthy
			}
			e.mu.Unlock()
			if late { // it is being killed: nobody asks for its health any more
				return
			}
			s := e.say(mesos.TASK_RUNNING, "")
			reason := mesos.REASON_TASK_HEALTH_CHECK_STATUS_UPDATED
			s.Reason = &reason
			if !r.Healthy { // Mesos gives no message here either
				e.agent.log.Debug("task is unhealthy", zap.String("task", e.task.TaskID.Value), zap.String("why", r.Message))
			}
			e.emit(s)
			if r.Kill {
				e.mu.Lock()
				e.unhealthy = e.killedAt.IsZero()
				e.mu.Unlock()
				e.kill(grace(nil, e.task.KillPolicy, e.agent.cfg.Timing.KillGrace))
			}
		})
		e.onEnd(stop)
	}
	if ck := e.task.Check; ck != nil {
		stop := check.General(*ck, env, func(r mesos.CheckStatusInfo) {
			e.mu.Lock()
			late := e.unchecked
			if !late {
				e.checked = &r
			}
			e.mu.Unlock()
			if late {
				return
			}
			s := e.say(mesos.TASK_RUNNING, "")
			reason := mesos.REASON_TASK_CHECK_STATUS_UPDATED
			s.Reason = &reason
			e.emit(s)
		})
		e.onEnd(stop)
	}
}

// environment turns a check's command into what is run beside the task: its user, directory and environment.
func (e *executor) environment(cmd mesos.CommandInfo) (process.Spec, error) {
	spec, err := e.agent.command(&cmd, e.framework, e.agentID, e.container, e.task, e.sandbox)
	if err != nil {
		return process.Spec{}, fmt.Errorf("check: %w", err)
	}
	spec.Marker = ""
	return spec, nil
}

// deliver takes what an executor says: into the task's stream, or into the executor's own backlog while there is no agent process.
func (a *Agent) deliver(e *executor, statuses ...mesos.TaskStatus) {
	e.saying.Lock()
	defer e.saying.Unlock()
	a.gate.RLock()
	defer a.gate.RUnlock()
	e.mu.Lock()
	silent := e.silent
	if !silent && !a.up {
		e.backlog = append(e.backlog, statuses...)
	}
	e.mu.Unlock()
	if silent || !a.up {
		return
	}
	if c := a.container(e); c != nil {
		a.record(c, statuses...)
	}
}

// container is the agent process's record of an executor's task, nil when it has been given up.
func (a *Agent) container(e *executor) *container {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.tasks[taskKey{e.framework, e.task.TaskID.Value}]
	if c == nil || c.id != e.container {
		return nil
	}
	return c
}

package agent

import (
	"context"
	"fmt"
	"os"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/journal"
	"github.com/holdfast-io/holdfast/framework/embedded/process"
	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// answer sends a status of a task that has no container here, until it is acknowledged or the agent process ends.
func (a *Agent) answer(framework string, task mesos.TaskID, s mesos.TaskStatus) {
	c := &container{agent: a.ID(), framework: framework, task: mesos.TaskInfo{TaskID: task}, state: mesos.TASK_STAGING, clean: true}
	a.mu.Lock()
	a.answers[string(s.UUID)] = c
	a.mu.Unlock()
	a.record(c, s)
}

// record takes statuses into a task's stream and wakes the link.
func (a *Agent) record(c *container, statuses ...mesos.TaskStatus) {
	if err := c.update(statuses...); err != nil {
		a.log.Error("status is not on disk", zap.String("task", c.task.TaskID.Value), zap.Error(err))
	}
	a.poke()
}

// launch takes a task from its arrival to its running process. Every step is preceded by its intent on disk; when the agent process ends
// in between, the next one finds a launch without a process and gives it up.
func (a *Agent) launch(ctx context.Context, c *container, framework mesos.FrameworkInfo) {
	if err := a.admit(c, framework); err != nil {
		a.launchFailed(ctx, c, err)
		return
	}
	if c.wasKilled() {
		a.cleanUp(ctx, c)
		return
	}
	spec, outputs, err := a.prepare(ctx, c, framework)
	if ctx.Err() != nil {
		discard(outputs)
		return // kill -9 of the agent process
	}
	if err != nil {
		discard(outputs)
		a.launchFailed(ctx, c, err)
		return
	}
	a.start(ctx, c, framework, spec, outputs)
}

// admit makes the launch durable.
func (a *Agent) admit(c *container, framework mesos.FrameworkInfo) error {
	if err := a.knowFramework(c.framework, framework); err != nil {
		return err
	}
	if a.processes() {
		if err := a.supported(c); err != nil {
			return err
		}
	}
	j, err := a.store.Create(c.id, c.record())
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal = j
	// Killed before this, and perhaps acknowledged already: the journal has to know.
	if said := c.said(); len(said) > 0 {
		return j.Append(said...)
	}
	return nil
}

// supported refuses what this engine cannot do, rather than doing something else.
func (a *Agent) supported(c *container) error {
	t := c.task
	switch {
	case t.Executor != nil && (c.group == nil || t.Executor.Type != mesos.ExecutorInfo_DEFAULT):
		return fmt.Errorf("custom executors are not run by this version of the embedded engine")
	case t.Command == nil:
		return fmt.Errorf("task has no command")
	}
	for _, id := range []string{t.TaskID.Value, c.executorID()} {
		if err := sandbox.CheckID(id); err != nil {
			return err
		}
	}
	if e := t.Executor; e != nil && e.Container != nil && len(e.Container.NetworkInfos) > 0 && e.Container.NetworkInfos[0].Name != nil {
		return fmt.Errorf("container networks are not part of the embedded engine")
	}
	if c := t.Container; c != nil {
		switch {
		case c.Type != nil && *c.Type == mesos.ContainerInfo_DOCKER:
			return fmt.Errorf("the Docker containerizer is not part of the embedded engine")
		case c.Mesos != nil && c.Mesos.Image != nil:
			return fmt.Errorf("container images are not run by the embedded engine")
		case c.TTYInfo != nil:
			return fmt.Errorf("terminals (tty) are not part of the embedded engine")
		case c.LinuxInfo != nil && c.LinuxInfo.Seccomp != nil:
			return fmt.Errorf("seccomp settings are not part of the embedded engine")
		case len(c.NetworkInfos) > 0 && c.NetworkInfos[0].Name != nil:
			return fmt.Errorf("container networks are not part of the embedded engine")
		}
	}
	return nil
}

// prepare makes the sandbox, mounts the volumes and fetches the URIs, in Mesos's order.
func (a *Agent) prepare(ctx context.Context, c *container, framework mesos.FrameworkInfo) (process.Spec, []*sandbox.Output, error) {
	if !a.processes() {
		return process.Spec{}, nil, nil
	}
	user, err := a.user(c.task.Command, framework)
	if err != nil {
		return process.Spec{}, nil, err
	}
	if err := a.makeSandbox(c, user); err != nil {
		return process.Spec{}, nil, err
	}
	mounts, err := a.mountVolumes(ctx, c, user)
	if err != nil {
		return process.Spec{}, nil, err
	}
	if err := sandbox.Fetch(ctx, c.sandbox, c.task.Command.URIs, user); err != nil {
		//lint:ignore ST1005 Mesos's own text
		return process.Spec{}, nil, fmt.Errorf("Failed to fetch all URIs for container '%s': %w", c.id, err)
	}
	spec, err := a.command(c.task.Command, c.framework, c.agent, c.id, c.task, c.sandbox)
	if err != nil {
		return process.Spec{}, nil, err
	}
	spec.User, spec.Mounts = user, mounts
	var outputs []*sandbox.Output
	for _, name := range []string{"stdout", "stderr"} {
		o, err := sandbox.NewOutput(c.sandbox, name, user)
		if err != nil {
			return spec, outputs, err
		}
		outputs = append(outputs, o)
	}
	spec.Stdout, spec.Stderr = outputs[0].Write, outputs[1].Write
	return spec, outputs, nil
}

func discard(outputs []*sandbox.Output) {
	for _, o := range outputs {
		o.Discard()
	}
}

// start begins the task's process, unless it was killed meanwhile.
func (a *Agent) start(ctx context.Context, c *container, framework mesos.FrameworkInfo, spec process.Spec, outputs []*sandbox.Output) {
	c.mu.Lock()
	if c.killed {
		c.mu.Unlock()
		discard(outputs)
		a.cleanUp(ctx, c)
		return
	}
	c.starting = true
	c.mu.Unlock()

	e := &executor{agent: a, agentID: c.agent, container: c.id, group: c.group, framework: c.framework, task: c.task, sandbox: c.sandbox,
		killing:    capable(framework, mesos.FrameworkInfo_Capability_TASK_KILLING_STATE),
		checkpoint: framework.Checkpoint != nil && *framework.Checkpoint,
		outputs:    outputs, over: make(chan struct{})}
	if a.processes() {
		if err := a.startProcess(e, spec); err != nil {
			c.mu.Lock()
			c.starting = false
			c.mu.Unlock()
			discard(outputs)
			a.launchFailed(ctx, c, err)
			return
		}
	}
	a.mu.Lock()
	a.execs[c.id] = e
	a.mu.Unlock()
	c.mu.Lock()
	c.exec, c.starting = e, false
	order := c.waiting
	if e.proc != nil {
		c.start = &journal.Start{Pid: e.proc.ID.Pid, Ticks: e.proc.ID.Start}
		if err := c.journal.Append(journal.Record{Start: c.start}); err != nil {
			a.log.Error("process id is not on disk", zap.String("task", c.task.TaskID.Value), zap.Error(err))
		}
	}
	c.mu.Unlock()
	go func() { // the executor outlives this agent process
		if order != nil {
			go e.kill(grace(order.policy, e.task.KillPolicy, a.cfg.Timing.KillGrace))
		}
		e.run()
	}()
}

func (a *Agent) startProcess(e *executor, spec process.Spec) error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	spec.Stdin = null
	if e.proc, err = a.table.Start(spec); err != nil {
		//lint:ignore ST1005 Mesos's own text
		return fmt.Errorf("Failed to execute '%s': %s", spec.Path, process.ErrText(err))
	}
	for _, o := range e.outputs {
		o.Begin()
	}
	return nil
}

// launchFailed reports a launch that came to nothing, and gives back what it had.
func (a *Agent) launchFailed(ctx context.Context, c *container, err error) {
	s := c.status(mesos.TASK_FAILED, mesos.SOURCE_AGENT, "Failed to launch container: "+err.Error())
	reason := mesos.REASON_CONTAINER_LAUNCH_FAILED
	s.Reason = &reason
	a.record(c, s)
	a.groupEnds(c, s)
	a.cleanUp(ctx, c)
}

// cleanUp gives the volumes of a container back, when no process of it is left, and retires it.
func (a *Agent) cleanUp(ctx context.Context, c *container) {
	a.mu.Lock()
	volumes := a.volumes
	a.mu.Unlock()
	if volumes != nil {
		if err := volumes.Cleanup(ctx, c.id); err != nil {
			if ctx.Err() != nil {
				return // the agent process ended: the next one unmounts
			}
			a.log.Warn("volume is not unmounted; tried again when this agent starts next", zap.String("task", c.task.TaskID.Value), zap.Error(err))
		}
	}
	c.markClean()
	a.retire(c)
	a.poke()
}

// cleanUpAfter is called by an executor that is over.
func (a *Agent) cleanUpAfter(e *executor) {
	a.gate.RLock()
	defer a.gate.RUnlock()
	e.mu.Lock()
	silent := e.silent
	e.mu.Unlock()
	if !a.up || silent {
		return // the next agent process finds it over; a machine without power does nothing
	}
	c := a.container(e)
	if c == nil {
		return
	}
	a.mu.Lock()
	delete(a.execs, e.container)
	a.mu.Unlock()
	a.spawn(func(ctx context.Context) { a.cleanUp(ctx, c) })
}

// retire moves a task that nobody needs to hear of any more to the completed ones, of which the newest stay.
func (a *Agent) retire(c *container) {
	if !c.finished() {
		return
	}
	a.mu.Lock()
	var old []*container
	if a.tasks[c.key()] == c {
		delete(a.tasks, c.key())
		if c.journal != nil && !c.silent {
			a.completed = append(a.completed, c)
		} else {
			old = append(old, c)
		}
	}
	if n := len(a.completed) - maxCompleted; n > 0 {
		old = append(old, a.completed[:n]...)
		a.completed = append([]*container(nil), a.completed[n:]...)
	}
	a.mu.Unlock()
	for _, o := range old {
		a.discardContainer(o)
	}
}

// discardContainer deletes the journal and the sandbox of a task that is over.
func (a *Agent) discardContainer(c *container) {
	c.close()
	if c.journal == nil {
		return
	}
	if c.sandbox != "" {
		if err := sandbox.Remove(a.cfg.Dir, c.sandbox); err != nil {
			a.log.Warn("old sandbox is not deleted", zap.String("sandbox", c.sandbox), zap.Error(err))
		}
		a.discardGroup(c)
	}
	a.store.Remove(c.id)
}

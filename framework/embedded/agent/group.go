package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/dockervolume"
	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// group is the executor of a pod: what its containers, each a task, have in common. It has no process of its own; its sandbox holds those of the
// containers and the directories that they share.
type group struct {
	id     string // the executor's container
	dir    string
	making sync.Mutex
	made   bool
}

// RunGroup launches the tasks of a pod: all of them, or none.
func (p *peer) RunGroup(framework mesos.FrameworkInfo, e mesos.ExecutorInfo, tasks []mesos.TaskInfo) {
	p.act(func(a *Agent) {
		if framework.ID == nil {
			a.log.Error("pod of a framework without an id", zap.String("executor", e.ExecutorID.Value))
			return
		}
		g := &group{id: uuid.NewString()}
		var list []*container
		for _, t := range tasks {
			t.Executor = &e
			c := &container{id: uuid.NewString(), agent: a.ID(), framework: framework.ID.Value, task: t, state: mesos.TASK_STAGING, group: g}
			if a.processes() {
				g.dir = sandbox.Dir(a.cfg.Dir, a.place(c))
				c.sandbox = filepath.Join(g.dir, "containers", c.id)
			}
			list = append(list, c)
		}
		a.mu.Lock()
		taken := a.shut
		for _, c := range list {
			taken = taken || a.tasks[c.key()] != nil
		}
		for _, c := range a.tasks { // Mesos could add to a running executor; nothing here asks for that
			taken = taken || c.framework == framework.ID.Value && c.group != nil && c.executorID() == e.ExecutorID.Value
		}
		if !taken {
			for _, c := range list {
				a.tasks[c.key()] = c
			}
		}
		a.mu.Unlock()
		for _, c := range list {
			if taken {
				a.drop(framework, c.task.TaskID)
				continue
			}
			a.spawn(func(ctx context.Context) { a.launch(ctx, c, framework) })
		}
	})
}

// executorID is the pod's executor, or, for a command task, the task's own.
func (c *container) executorID() string { return executorOf(&c.task) }

func executorOf(t *mesos.TaskInfo) string {
	if t.Executor != nil {
		return t.Executor.ExecutorID.Value
	}
	return t.TaskID.Value
}

// makeSandbox makes the sandbox of a container, and before it, for the first of a pod, that of the executor.
func (a *Agent) makeSandbox(c *container, user *syscall.Credential) error {
	if c.group == nil {
		_, err := sandbox.Create(a.cfg.Dir, a.place(c), user)
		return err
	}
	if err := c.group.make(a.cfg.Dir, a.place(c), user); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.sandbox), 0o755); err != nil {
		return fmt.Errorf("make the sandbox: %w", err)
	}
	if err := os.Mkdir(c.sandbox, 0o750); err != nil {
		return fmt.Errorf("make the sandbox: %w", err)
	}
	if user != nil {
		if err := os.Lchown(c.sandbox, int(user.Uid), int(user.Gid)); err != nil {
			return fmt.Errorf("give the sandbox to uid %d: %w", user.Uid, err)
		}
	}
	return nil
}

func (g *group) make(agentDir string, p sandbox.Place, user *syscall.Credential) error {
	g.making.Lock()
	defer g.making.Unlock()
	if g.made {
		return nil
	}
	if _, err := sandbox.Create(agentDir, p, user); err != nil {
		return err
	}
	// Containers of several users live in it.
	if err := os.Chmod(g.dir, 0o755); err != nil {
		return fmt.Errorf("make the sandbox: %w", err)
	}
	g.made = true
	return nil
}

// peers are the other containers of a pod.
func (a *Agent) peers(c *container) (list []*container) {
	if c.group == nil {
		return nil
	}
	for _, o := range a.allTasks() {
		if o != c && o.framework == c.framework && o.group != nil && o.group.id == c.group.id {
			list = append(list, o)
		}
	}
	return list
}

// groupEnds kills the other containers of a pod of which one has failed or was killed, as Mesos's default executor does.
func (a *Agent) groupEnds(c *container, s mesos.TaskStatus) {
	if c.group == nil || s.GetState() == mesos.TASK_FINISHED {
		return
	}
	for _, o := range a.peers(c) {
		a.killContainer(o, nil)
	}
}

// parent finds what a path in the executor's sandbox is: one of the executor's volumes, which is then mounted for the container itself, or a
// directory that the containers share.
func (a *Agent) parent(c *container, path string, user *syscall.Credential) (p attachment, d *dockervolume.Volume, err error) {
	if c.group == nil {
		return p, nil, fmt.Errorf("'PARENT' type SANDBOX_PATH volumes are for the tasks of pods only")
	}
	clean, absolute, err := sandbox.ContainerPath(path)
	if err != nil {
		return p, nil, err
	}
	if absolute {
		return p, nil, fmt.Errorf("path '%s' is not relative to the sandbox", path)
	}
	e := c.task.Executor
	if e.Container != nil {
		for _, v := range e.Container.Volumes {
			if at, _, err := sandbox.ContainerPath(v.ContainerPath); err != nil || at != clean {
				continue
			}
			if v.Source != nil && v.Source.Type == mesos.Volume_Source_SANDBOX_PATH && v.Source.SandboxPath.GetType() == mesos.Volume_Source_SandboxPath_PARENT {
				return p, nil, fmt.Errorf("volume '%s' of an executor has no parent", v.ContainerPath)
			}
			return a.attachment(c, v, user)
		}
	}
	for _, r := range e.Resources {
		if r.Disk == nil || r.Disk.Persistence == nil || r.Disk.Volume == nil {
			continue
		}
		if at, _, err := sandbox.ContainerPath(r.Disk.Volume.ContainerPath); err == nil && at == clean {
			p, err := a.persistent(r, user)
			return p, nil, err
		}
	}
	c.group.making.Lock() // two containers may make it at once
	defer c.group.making.Unlock()
	p.source, err = sandbox.Subdirectory(c.group.dir, clean, user)
	return p, nil, err
}

// discardGroup deletes an executor's sandbox with what its containers shared, after the last of them.
func (a *Agent) discardGroup(c *container) {
	if c.group == nil {
		return
	}
	a.mu.Lock()
	others := append([]*container(nil), a.completed...)
	a.mu.Unlock()
	for _, o := range append(others, a.allTasks()...) {
		if o != c && o.group != nil && o.group.id == c.group.id {
			return
		}
	}
	if err := sandbox.Remove(a.cfg.Dir, c.group.dir); err != nil {
		a.log.Warn("old sandbox is not deleted", zap.String("sandbox", c.group.dir), zap.Error(err))
	}
}

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/dockervolume"
	"github.com/holdfast-io/holdfast/framework/embedded/journal"
	"github.com/holdfast-io/holdfast/framework/embedded/process"
)

// recovery is what a starting agent process finds.
type recovery struct {
	identity  journal.Identity
	tasks     map[taskKey]*container
	completed []*container
	volumes   *dockervolume.Isolator
	dead      []*container // neither clean nor run by an executor: leftovers are killed, volumes given back
	dropped   []*container // of frameworks that do not checkpoint: nothing is said of them
	unread    []string     // containers whose journal cannot be read: nothing of theirs is touched
}

// leftoverPatience bounds how long a start waits for the processes that a killed supervisor has left.
const leftoverPatience = 2 * time.Second

// recover reads what is on disk and sorts out what of it lives.
func (a *Agent) recover() (*recovery, error) {
	boot, err := a.store.BootID()
	if err != nil {
		return nil, err
	}
	known, err := a.store.LoadIdentity()
	if err != nil {
		return nil, err
	}
	all, bad, err := a.store.LoadAll()
	if err != nil {
		return nil, err
	}
	for name, err := range bad {
		a.log.Error("journal of a container cannot be read and is left alone", zap.String("container", name), zap.Error(err))
	}
	rebooted := known != nil && known.BootID != boot
	rec := &recovery{tasks: map[taskKey]*container{}, volumes: a.newIsolator()}
	if rebooted {
		if err := rec.volumes.Forget(); err != nil {
			return nil, err
		}
	}
	for name := range bad {
		rec.unread = append(rec.unread, name)
	}
	containers := make([]*container, 0, len(all))
	idle := len(bad) == 0
	for _, r := range all {
		c := replay(r)
		containers = append(containers, c)
		idle = idle && (c.clean || rebooted)
	}
	rec.identity, err = a.identify(known, boot, idle)
	if err != nil {
		for _, c := range containers {
			c.close()
		}
		return nil, err
	}
	used := map[string]mesos.FrameworkInfo{}
	for _, c := range containers {
		if f, ok := rec.identity.Framework[c.framework]; ok {
			used[c.framework] = f
		}
		a.sort(rec, c)
	}
	rec.identity.Framework = used // a framework of which nothing is left is forgotten
	if rec.identity.ID != "" {
		rec.identity.Hostname, rec.identity.Base, rec.identity.Attrs = a.cfg.Hostname, a.cfg.Resources.mesos(), attributes(a.cfg.Attributes)
		if err := a.store.SaveIdentity(rec.identity); err != nil {
			return nil, err
		}
	}
	a.endLeftovers(rec)
	return rec, nil
}

func (a *Agent) newIsolator() *dockervolume.Isolator {
	return dockervolume.New(dockervolume.Config{
		Dir: a.volumeCheckpoints(), Dvdcli: a.cfg.Dvdcli, Env: a.dvdcliEnv(), MountLimit: a.cfg.Timing.MountLimit,
		UnmountMax: a.cfg.Timing.UnmountMax, Table: a.table, Logger: a.log,
	})
}

// identify decides who this agent is: the one it was. When the configuration has changed since, it stays that one too if nothing of its tasks is
// left on the machine (idle) and nothing is reserved on it; Mesos does so by its reconfiguration policy. Otherwise the change is an
// error: a reservation that silently went with an old id would be a volume that silently went.
func (a *Agent) identify(known *journal.Identity, boot string, idle bool) (journal.Identity, error) {
	fresh := journal.Identity{BootID: boot, Total: a.cfg.Resources.mesos(), Framework: map[string]mesos.FrameworkInfo{}}
	if known == nil || known.ID == "" {
		return fresh, nil
	}
	if known.Framework == nil {
		known.Framework = map[string]mesos.FrameworkInfo{}
	}
	known.BootID = boot
	change := a.changed(*known)
	switch {
	case change == "":
		return *known, nil
	case idle && sameResources(known.Total, known.Base):
		a.log.Info("the configuration has changed", zap.String("agent", known.ID), zap.String("change", change))
		known.Total = fresh.Total
		return *known, nil
	}
	return fresh, fmt.Errorf("agent: incompatible agent info detected: %s changed since agent %s registered, and it has tasks, reservations or volumes; "+
		"restore the configuration, or delete %s/meta to begin as another agent", change, known.ID, a.cfg.Dir)
}

func (a *Agent) changed(known journal.Identity) string {
	now := attributes(a.cfg.Attributes)
	switch {
	case known.Hostname != a.cfg.Hostname:
		return "hostname"
	case !sameResources(known.Base, a.cfg.Resources.mesos()):
		return "resources"
	case !slices.EqualFunc(known.Attrs, now, func(x, y mesos.Attribute) bool { return x.Equal(y) }):
		return "attributes"
	}
	return ""
}

func sameResources(x, y []mesos.Resource) bool {
	return slices.EqualFunc(x, y, func(p, q mesos.Resource) bool { return p.Equal(q) })
}

// sort puts one container where it belongs.
func (a *Agent) sort(rec *recovery, c *container) {
	a.mu.Lock()
	e := a.execs[c.id]
	a.mu.Unlock()
	f, known := rec.identity.Framework[c.framework]
	foreign := c.agent != rec.identity.ID // launched under an id that this agent has lost
	switch {
	case c.finished():
		rec.completed = append(rec.completed, c)
		return
	case e != nil && !foreign:
		c.exec = e
	case c.clean:
	case foreign || !known || f.Checkpoint == nil || !*f.Checkpoint:
		rec.dropped = append(rec.dropped, c)
		return
	default:
		rec.dead = append(rec.dead, c)
	}
	rec.tasks[c.key()] = c
}

// endLeftovers kills what an earlier run of this program has left of tasks whose exit codes nobody can know any more.
func (a *Agent) endLeftovers(rec *recovery) {
	if !a.processes() {
		return
	}
	if n, err := a.table.KillStrays(leftoverPatience); n > 0 || err != nil {
		a.log.Info("commands of an earlier life killed", zap.Int("processes", n), zap.Error(err))
	}
	var wg sync.WaitGroup
	for _, c := range append(append([]*container(nil), rec.dead...), rec.dropped...) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if n, err := a.killLeftovers(c); n > 0 || err != nil {
				a.log.Info("processes of a lost task killed", zap.String("task", c.task.TaskID.Value), zap.Int("processes", n), zap.Error(err))
			}
		}()
	}
	wg.Wait()
}

func (a *Agent) killLeftovers(c *container) (int, error) {
	id := process.Identity{Marker: c.sandbox}
	if c.start != nil {
		id.Pid, id.Start = c.start.Pid, c.start.Ticks
	}
	return a.table.KillLeftovers(id, leftoverPatience)
}

// resume lets the recovered tasks go on. It is called with the gate closed.
func (a *Agent) resume(rec *recovery) {
	for _, c := range rec.tasks {
		e := c.exec
		if e == nil {
			continue
		}
		e.mu.Lock()
		said := e.backlog
		e.backlog = nil
		e.mu.Unlock()
		a.record(c, said...)
		select {
		case <-e.over:
			a.mu.Lock()
			delete(a.execs, c.id)
			a.mu.Unlock()
			rec.dead = append(rec.dead, c)
		default:
		}
	}
	for _, c := range rec.dead {
		if !terminal(c.state) {
			s := c.status(mesos.TASK_FAILED, mesos.SOURCE_AGENT, "Executor terminated")
			reason := mesos.REASON_EXECUTOR_TERMINATED
			s.Reason = &reason
			a.record(c, s)
		}
	}
	alive := map[string]bool{}
	for _, c := range rec.tasks {
		alive[c.id] = !c.isClean()
	}
	for _, c := range rec.dead {
		alive[c.id] = false
	}
	for _, id := range rec.unread {
		alive[id] = true
	}
	release := rec.volumes.Recover(func(id string) bool { return alive[id] })
	a.spawn(func(ctx context.Context) { a.giveBack(ctx, rec, release) })
	for _, c := range rec.tasks { // acknowledged and clean, but the crash came before they were retired
		a.retire(c)
	}
}

// giveBack unmounts what the containers had that are not there any more.
func (a *Agent) giveBack(ctx context.Context, rec *recovery, release func(context.Context)) {
	for _, c := range append(append([]*container(nil), rec.dead...), rec.dropped...) {
		for a.processes() { // a volume is not given back under a living process
			if _, err := a.killLeftovers(c); err == nil {
				break
			} else if ctx.Err() != nil {
				return
			}
		}
	}
	release(ctx)
	if ctx.Err() != nil {
		return
	}
	for _, c := range rec.dead {
		c.markClean()
		a.retire(c)
	}
	for _, c := range rec.dropped {
		a.discardContainer(c)
	}
	a.poke()
}

func (a *Agent) dvdcliEnv() []string {
	return withoutMarker(a.cfg.Env)
}

// isMarker says that an environment entry would make a process look like a task's.
func isMarker(entry string) bool { return strings.HasPrefix(entry, process.MarkerName+"=") }

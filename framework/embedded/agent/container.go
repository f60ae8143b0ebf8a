package agent

import (
	"bytes"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/journal"
)

// container is what the agent process knows of one task: its newest state, the updates that are not acknowledged, and whether
// anything of it is left on this machine. The journal says the same on disk, and is written first.
type container struct {
	id        string
	agent     string
	framework string
	task      mesos.TaskInfo
	sandbox   string
	group     *group // of a pod's container

	mu       sync.Mutex
	journal  *journal.Journal // nil before the launch is on disk, and for an answer about a task that has no container here
	exec     *executor
	starting bool       // too late to stop the launch: the kill waits for the process
	killed   bool       // killed before it had a process
	waiting  *killOrder // a kill that came while starting
	start    *journal.Start

	state    mesos.TaskState
	statuses []mesos.TaskStatus // the newest of each state, oldest first
	pending  []mesos.TaskStatus // not acknowledged, oldest first
	due      time.Time          // when pending[0] is to be sent (again)
	backoff  time.Duration
	clean    bool
	silent   bool // its framework is gone: updates go nowhere
}

type killOrder struct{ policy *mesos.KillPolicy }

func (c *container) key() taskKey { return taskKey{c.framework, c.task.TaskID.Value} }

// replay builds a container from its journal.
func replay(r journal.Recorded) *container {
	l := r.Records[0].Launch
	c := &container{id: l.Container, agent: l.Agent, framework: l.Framework, task: l.Task, sandbox: l.Sandbox, journal: r.Journal,
		state: mesos.TASK_STAGING}
	if l.Parent != "" {
		c.group = &group{id: l.Parent, dir: filepath.Dir(filepath.Dir(l.Sandbox)), made: true}
	}
	for _, rec := range r.Records[1:] {
		switch {
		case rec.Start != nil:
			c.start = rec.Start
		case rec.Update != nil:
			c.keep(*rec.Update)
			c.pending = append(c.pending, *rec.Update)
		case rec.Ack != nil:
			if len(c.pending) > 0 && bytes.Equal(c.pending[0].UUID, rec.Ack) {
				c.pending = c.pending[1:]
			}
		case rec.Clean:
			c.clean = true
		}
	}
	return c
}

// keep remembers a status as the newest. Call it with the lock.
func (c *container) keep(s mesos.TaskStatus) {
	c.state = s.GetState()
	for i := range c.statuses {
		if c.statuses[i].GetState() == s.GetState() {
			c.statuses = append(c.statuses[:i], c.statuses[i+1:]...)
			break
		}
	}
	c.statuses = append(c.statuses, s)
}

// update takes new statuses into the stream: on disk first. Nothing follows a terminal status.
func (c *container) update(statuses ...mesos.TaskStatus) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var records []journal.Record
	for i := range statuses {
		if terminal(c.state) || c.silent {
			break
		}
		if c.journal != nil {
			records = append(records, journal.Record{Update: &statuses[i]})
		}
		c.keep(statuses[i])
		if len(c.pending) == 0 {
			c.due, c.backoff = time.Time{}, 0
		}
		c.pending = append(c.pending, statuses[i])
	}
	if len(records) == 0 {
		return nil
	}
	// When the disk refuses it the status is sent all the same: the master must learn of it, and a crash now repeats or loses it.
	if err := c.journal.Append(records...); err != nil {
		return err
	}
	if c.journal.Long() {
		return c.journal.Rewrite(c.summary())
	}
	return nil
}

// summary is the shortest journal that says what this one says. Call it with the lock.
func (c *container) summary() []journal.Record {
	launch := c.record()
	launch.Version = journal.Version
	records := []journal.Record{{Launch: &launch}}
	if c.start != nil {
		records = append(records, journal.Record{Start: c.start})
	}
	records = append(records, c.said()...)
	if c.clean {
		records = append(records, journal.Record{Clean: true})
	}
	return records
}

// record is the first of the container's journal.
func (c *container) record() journal.Launch {
	l := journal.Launch{Framework: c.framework, Container: c.id, Agent: c.agent, Sandbox: c.sandbox, Task: c.task}
	if c.group != nil {
		l.Parent = c.group.id
	}
	return l
}

// said is the newest status of every state and every one that is not acknowledged, as records. Call it with the lock.
func (c *container) said() (records []journal.Record) {
	open := map[string]bool{}
	for _, s := range c.pending {
		open[string(s.UUID)] = true
	}
	for i := range c.statuses {
		if s := &c.statuses[i]; !open[string(s.UUID)] {
			records = append(records, journal.Record{Update: s}, journal.Record{Ack: s.UUID})
		}
	}
	for i := range c.pending {
		records = append(records, journal.Record{Update: &c.pending[i]})
	}
	return records
}

// head returns the status to send now, or when the next one is due (zero: none).
func (c *container) head(now time.Time, retry time.Duration) (s *mesos.TaskStatus, latest mesos.TaskState, next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 {
		return nil, c.state, time.Time{}
	}
	if c.due.After(now) {
		return nil, c.state, c.due
	}
	if c.backoff == 0 {
		c.backoff = retry
	} else {
		c.backoff = min(2*c.backoff, maxUpdateRetry)
	}
	c.due = now.Add(c.backoff)
	first := c.pending[0]
	return &first, c.state, c.due
}

// maxUpdateRetry is Mesos's upper limit for the repetition of an update.
const maxUpdateRetry = 10 * time.Minute

// resend makes the oldest update due at once: the agent has been (re)registered.
func (c *container) resend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due, c.backoff = time.Time{}, 0
}

// ack ends the repetition of the oldest update if it is that one.
func (c *container) ack(id []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == 0 || !bytes.Equal(c.pending[0].UUID, id) {
		return false
	}
	if c.journal != nil {
		_ = c.journal.Append(journal.Record{Ack: id}) // lost: sent once more
	}
	c.pending = c.pending[1:]
	c.due, c.backoff = time.Time{}, 0
	return true
}

// markClean records that nothing of the task is left on this machine.
func (c *container) markClean() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clean = true
	if c.journal != nil {
		_ = c.journal.Append(journal.Record{Clean: true}) // lost: looked for again
	}
}

// finished says that nobody needs to hear of the task any more.
func (c *container) finished() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clean && len(c.pending) == 0 && (terminal(c.state) || c.silent)
}

func (c *container) isSilent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent
}

func (c *container) wasKilled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed
}

func (c *container) isClean() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clean
}

func (c *container) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.journal != nil {
		c.journal.Close()
	}
}

// mesosTask is the task as registration messages carry it. last says that its newest status is terminal and acknowledged.
func (c *container) mesosTask() (t mesos.Task, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.state
	t = mesos.Task{
		Name: c.task.Name, TaskID: c.task.TaskID, FrameworkID: mesos.FrameworkID{Value: c.framework},
		AgentID: mesos.AgentID{Value: c.agent}, State: &state, Resources: c.task.Resources,
		Statuses: append([]mesos.TaskStatus(nil), c.statuses...), Labels: c.task.Labels, Discovery: c.task.Discovery,
		Container: c.task.Container, HealthCheck: c.task.HealthCheck, KillPolicy: c.task.KillPolicy,
	}
	if c.task.Executor != nil {
		t.ExecutorID = &c.task.Executor.ExecutorID
	}
	if c.task.Command != nil {
		t.User = c.task.Command.User
	}
	told := state
	if len(c.pending) > 0 {
		told = c.pending[0].GetState()
		t.StatusUpdateUUID = c.pending[0].UUID
	} else if n := len(c.statuses); n > 0 {
		t.StatusUpdateUUID = c.statuses[n-1].UUID
	}
	t.StatusUpdateState = &told
	return t, terminal(state) && len(c.pending) == 0
}

func (c *container) view() Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := Task{Framework: c.framework, ID: c.task.TaskID.Value, State: c.state.String(), Container: c.id, Sandbox: c.sandbox}
	if c.exec != nil {
		t.Pid = c.exec.pid()
	}
	if n := len(c.statuses); n > 0 {
		t.Healthy = c.statuses[n-1].Healthy
	}
	return t
}

// status builds an update. Executors and the agent fill in what they know beyond.
func (c *container) status(state mesos.TaskState, source mesos.TaskStatus_Source, message string) mesos.TaskStatus {
	s := newStatus(c.agent, c.task.TaskID, state, source, message)
	s.ExecutorID.Value = c.executorID()
	return s
}

func newStatus(agent string, task mesos.TaskID, state mesos.TaskState, source mesos.TaskStatus_Source, message string) mesos.TaskStatus {
	id := uuid.New()
	now := float64(time.Now().UnixMicro()) / 1e6
	s := mesos.TaskStatus{
		TaskID: task, State: &state, Source: &source, UUID: id[:], Timestamp: &now,
		AgentID: &mesos.AgentID{Value: agent}, ExecutorID: &mesos.ExecutorID{Value: task.Value},
	}
	if message != "" {
		s.Message = &message
	}
	return s
}

// containerStatus is what Mesos says of a container that runs in the host's network.
func containerStatus(id string, pid int) *mesos.ContainerStatus {
	ip, ipv4 := "127.0.0.1", mesos.IPv4
	s := &mesos.ContainerStatus{
		ContainerID: &mesos.ContainerID{Value: id},
		NetworkInfos: []mesos.NetworkInfo{{
			IPAddresses: []mesos.NetworkInfo_IPAddress{{IPAddress: &ip, Protocol: &ipv4}},
		}},
	}
	if pid > 0 {
		p := uint32(pid)
		s.ExecutorPID = &p
	}
	return s
}

// terminal says that a task in this state never runs again.
func terminal(s mesos.TaskState) bool {
	switch s {
	case mesos.TASK_FINISHED, mesos.TASK_FAILED, mesos.TASK_KILLED, mesos.TASK_ERROR, mesos.TASK_LOST,
		mesos.TASK_DROPPED, mesos.TASK_GONE, mesos.TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}

func capable(f mesos.FrameworkInfo, want mesos.FrameworkInfo_Capability_Type) bool {
	for _, c := range f.Capabilities {
		if c.Type == want {
			return true
		}
	}
	return false
}

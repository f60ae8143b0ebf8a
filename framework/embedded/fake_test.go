package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// fakeAgent is an agent.Handle that models the agent of the recordings: what a task does follows from its command.
type fakeAgent struct {
	t    *testing.T
	link *Link
	reg  agent.Registration
	stop chan struct{}
	once sync.Once

	mu         *sync.Mutex // shared by the lives of one agent, as tasks and frameworks are
	id         mesos.AgentID
	frameworks map[string]mesos.FrameworkInfo
	tasks      map[taskKey]*fakeTask
	refuse     error // answer of Checkpoint
	calls      []string
}

type fakeTask struct {
	task    mesos.Task
	pending []mesos.TaskStatus // oldest is on its way
	script  []func()           // what comes after every acknowledgement
	box     mesos.ContainerStatus
}

func scalarOf(name string, v float64) mesos.Resource {
	return mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: v}}
}

func portsOf(lo, hi uint64) mesos.Resource {
	return mesos.Resource{Name: "ports", Type: mesos.RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: []mesos.Value_Range{{Begin: lo, End: hi}}}}
}

func textAttribute(name, v string) mesos.Attribute {
	return mesos.Attribute{Name: name, Type: mesos.TEXT, Text: &mesos.Value_Text{Value: v}}
}

// newFakeAgent describes agent n of the recordings.
func newFakeAgent(t *testing.T, m *Master, n int) *fakeAgent {
	a := &fakeAgent{t: t, link: m.Link(fmt.Sprintf("agent%d", n)), stop: make(chan struct{}), mu: &sync.Mutex{},
		frameworks: map[string]mesos.FrameworkInfo{}, tasks: map[taskKey]*fakeTask{}}
	port := int32(5060 + n)
	a.reg = agent.Registration{Version: Version, Handle: a, URL: fmt.Sprintf("http://127.0.0.1:%d", port), Info: mesos.AgentInfo{
		Hostname: fmt.Sprintf("agent%d.local", n), Port: &port,
		Attributes: []mesos.Attribute{textAttribute("rack", fmt.Sprintf("r%d", n)), textAttribute("zone", fmt.Sprintf("z%d", n))},
		Resources:  []mesos.Resource{scalarOf("cpus", 2), scalarOf("mem", 1024), scalarOf("disk", 4096), portsOf(31000, 31199+100*uint64(n))},
	}}
	t.Cleanup(a.kill)
	return a
}

// start registers the agent and lets it live.
func (a *fakeAgent) start(ping time.Duration) *fakeAgent {
	id, err := a.link.Register(context.Background(), a.reg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	a.id = id
	a.mu.Unlock()
	go a.live(ping)
	return a
}

// live sends signs of life, and reregisters when the master says it should.
func (a *fakeAgent) live(ping time.Duration) {
	tick := time.NewTicker(ping)
	defer tick.Stop()
	for {
		select {
		case <-a.stop:
			return
		case <-tick.C:
		}
		select { // both were ready
		case <-a.stop:
			return
		default:
		}
		if err := a.link.Pong(context.Background(), a.id); errors.Is(err, agent.ErrUnknownAgent) {
			if err := a.reregister(); err != nil && !errors.Is(err, agent.ErrCut) && !errors.Is(err, agent.ErrRemoved) {
				return // the master is closing
			}
		}
	}
}

// kill ends the agent's process; its tasks live on for a successor.
func (a *fakeAgent) kill() { a.once.Do(func() { close(a.stop) }) }

// settle waits until every status has been acknowledged.
func (a *fakeAgent) settle() {
	for range 1000 {
		n := 0
		a.mu.Lock()
		for _, t := range a.tasks {
			n += len(t.pending)
		}
		a.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// restart makes the successor of a killed agent.
func (a *fakeAgent) restart(ping time.Duration) *fakeAgent {
	n := a.successor(a.link)
	if err := n.reregister(); err != nil {
		a.t.Fatal(err)
	}
	go n.live(ping)
	return n
}

// successor is the next life of an agent, which takes over what it runs.
func (a *fakeAgent) successor(l *Link) *fakeAgent {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := &fakeAgent{t: a.t, link: l, reg: a.reg, stop: make(chan struct{}), mu: a.mu, id: a.id, frameworks: a.frameworks, tasks: a.tasks}
	n.reg.Handle = n
	a.t.Cleanup(n.kill)
	return n
}

func (a *fakeAgent) reregister() error {
	a.mu.Lock()
	r := agent.Reregistration{Registration: a.reg, ID: a.id}
	for _, t := range a.tasks {
		r.Tasks = append(r.Tasks, t.task)
	}
	for _, f := range a.frameworks {
		r.Frameworks = append(r.Frameworks, f)
	}
	a.mu.Unlock()
	if err := a.link.Reregister(context.Background(), r); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, t := range a.tasks {
		if len(t.pending) > 0 {
			a.transmit(k, t)
		}
	}
	return nil
}

func (a *fakeAgent) note(format string, args ...any) {
	a.calls = append(a.calls, fmt.Sprintf(format, args...))
}

func (a *fakeAgent) seen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.calls...)
}

// status makes a status and puts it behind those not acknowledged yet; the caller holds mu.
func (a *fakeAgent) status(k taskKey, t *fakeTask, state mesos.TaskState, source mesos.TaskStatus_Source, edit func(*mesos.TaskStatus)) {
	now := seconds(time.Now())
	id := uuid.New()
	s := mesos.TaskStatus{TaskID: t.task.TaskID, State: state.Enum(), Source: source.Enum(), AgentID: &a.id, Timestamp: &now, UUID: id[:],
		ExecutorID: &mesos.ExecutorID{Value: k.task}}
	if t.task.ExecutorID != nil {
		s.ExecutorID = t.task.ExecutorID
	}
	if source == mesos.SOURCE_EXECUTOR {
		box := t.box
		s.ContainerStatus = &box
	}
	if edit != nil {
		edit(&s)
	}
	t.task.State = state.Enum()
	t.task.Statuses = append(t.task.Statuses, s)
	t.pending = append(t.pending, s)
	if len(t.pending) == 1 {
		a.transmit(k, t)
	}
}

// transmit sends the oldest status; the caller holds mu.
func (a *fakeAgent) transmit(k taskKey, t *fakeTask) {
	s, latest := t.pending[0], t.task.GetState()
	go func() {
		select {
		case <-a.stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		_ = a.link.StatusUpdate(context.Background(), mesos.FrameworkID{Value: k.framework}, s, latest)
	}()
}

func saying(text string) func(*mesos.TaskStatus) {
	return func(s *mesos.TaskStatus) { s.Message = &text }
}

func (a *fakeAgent) Run(f mesos.FrameworkInfo, info mesos.TaskInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("run %s", info.TaskID.Value)
	k, t := a.add(f, info)
	if text := volumeError(&info, t); text != "" {
		a.status(k, t, mesos.TASK_FAILED, mesos.SOURCE_AGENT, func(s *mesos.TaskStatus) {
			s.Message, s.Reason = &text, mesos.REASON_CONTAINER_LAUNCH_FAILED.Enum()
		})
		return
	}
	a.status(k, t, mesos.TASK_STARTING, mesos.SOURCE_EXECUTOR, nil)
	a.status(k, t, mesos.TASK_RUNNING, mesos.SOURCE_EXECUTOR, nil)
	if info.HealthCheck != nil {
		a.healthScript(k, t, info.HealthCheck)
	}
	switch cmd := info.GetCommand().GetValue(); {
	case cmd == "true":
		a.status(k, t, mesos.TASK_FINISHED, mesos.SOURCE_EXECUTOR, saying("Command exited with status 0"))
	case strings.HasPrefix(cmd, "exit "):
		a.status(k, t, mesos.TASK_FAILED, mesos.SOURCE_EXECUTOR, saying("Command exited with status "+cmd[5:]))
	}
}

func (a *fakeAgent) add(f mesos.FrameworkInfo, info mesos.TaskInfo) (taskKey, *fakeTask) {
	fw := f.GetID().GetValue()
	a.frameworks[fw] = f
	k := taskKey{fw, info.TaskID.Value}
	pid := uint32(4711)
	ip, v4 := "127.0.0.1", mesos.NetworkInfo_Protocol(1)
	t := &fakeTask{task: mesos.Task{Name: info.Name, TaskID: info.TaskID, FrameworkID: *f.ID, AgentID: info.AgentID,
		State: mesos.TASK_STAGING.Enum(), Resources: info.Resources, Container: info.Container},
		box: mesos.ContainerStatus{ContainerID: &mesos.ContainerID{Value: uuid.NewString()}, ExecutorPID: &pid,
			NetworkInfos: []mesos.NetworkInfo{{IPAddresses: []mesos.NetworkInfo_IPAddress{{IPAddress: &ip, Protocol: &v4}}}}}}
	a.tasks[k] = t
	return k, t
}

// volumeError is what the recorded agent says of docker volumes it cannot mount.
func volumeError(info *mesos.TaskInfo, t *fakeTask) string {
	seen := map[string]bool{}
	for _, v := range info.GetContainer().GetVolumes() {
		d := v.GetSource().GetDockerVolume()
		if d == nil {
			continue
		}
		switch {
		case d.Driver == nil:
			return fmt.Sprintf("Failed to launch container: The volume driver is not specified for volume '%s' with container %s", d.Name, t.box.ContainerID.Value)
		case seen[*d.Driver+d.Name]:
			return fmt.Sprintf("Failed to launch container: Found duplicate docker volume with driver '%s' and name '%s'", *d.Driver, d.Name)
		case d.Name == "fail-me":
			return "Failed to launch container: Unexpected termination of the subprocess: no such volume: fail-me\n"
		}
		seen[*d.Driver+d.Name] = true
	}
	return ""
}

func (a *fakeAgent) RunGroup(f mesos.FrameworkInfo, e mesos.ExecutorInfo, tasks []mesos.TaskInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	box := uuid.NewString()
	for i, info := range tasks {
		a.note("run %s in %s", info.TaskID.Value, e.ExecutorID.Value)
		k, t := a.add(f, info)
		id := e.ExecutorID
		t.task.ExecutorID = &id
		t.box.ContainerID.Parent = &mesos.ContainerID{Value: box}
		a.status(k, t, mesos.TASK_STARTING, mesos.SOURCE_EXECUTOR, func(s *mesos.TaskStatus) {
			if i == 0 { // recorded so: the first one's container was not there yet
				s.ContainerStatus.ExecutorPID, s.ContainerStatus.NetworkInfos = nil, nil
			}
		})
		a.status(k, t, mesos.TASK_RUNNING, mesos.SOURCE_EXECUTOR, nil)
	}
}

func (a *fakeAgent) Kill(fw mesos.FrameworkID, id mesos.TaskID, _ *mesos.KillPolicy) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("kill %s", id.Value)
	k := taskKey{fw.Value, id.Value}
	if t := a.tasks[k]; t != nil && !terminal(t.task.GetState()) {
		a.status(k, t, mesos.TASK_KILLED, mesos.SOURCE_EXECUTOR, saying("Command terminated with signal Terminated"))
	}
}

func (a *fakeAgent) Acknowledge(fw mesos.FrameworkID, id mesos.TaskID, uid []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := taskKey{fw.Value, id.Value}
	t := a.tasks[k]
	if t == nil || len(t.pending) == 0 || string(t.pending[0].UUID) != string(uid) {
		return
	}
	over := terminal(t.pending[0].GetState())
	t.pending = t.pending[1:]
	switch {
	case over:
		delete(a.tasks, k)
	case len(t.pending) > 0:
		a.transmit(k, t)
	case len(t.script) > 0:
		next := t.script[0]
		t.script = t.script[1:]
		next()
	}
}

// healthScript is what the recorded health checks came to.
func (a *fakeAgent) healthScript(k taskKey, t *fakeTask, h *mesos.HealthCheck) {
	check := func(ok bool) func() {
		return func() {
			a.status(k, t, mesos.TASK_RUNNING, mesos.SOURCE_EXECUTOR, func(s *mesos.TaskStatus) {
				s.Healthy, s.Reason = &ok, mesos.REASON_TASK_HEALTH_CHECK_STATUS_UPDATED.Enum()
			})
		}
	}
	t.script = append(t.script, check(true))
	if h.Type == mesos.HealthCheck_COMMAND {
		t.script = append(t.script, check(false), check(false), check(false), func() {
			a.status(k, t, mesos.TASK_KILLED, mesos.SOURCE_EXECUTOR, func(s *mesos.TaskStatus) {
				no := false
				saying("Command terminated with signal Terminated")(s)
				s.Healthy = &no
			})
		})
	}
}

// fail ends a task from outside, as a person with kill -9 does.
func (a *fakeAgent) fail(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, t := range a.tasks {
		if k.task == id {
			a.status(k, t, mesos.TASK_FAILED, mesos.SOURCE_EXECUTOR, saying("Command terminated with signal Killed"))
		}
	}
}

func (a *fakeAgent) Checkpoint(total []mesos.Resource, created, destroyed []mesos.Resource) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("checkpoint +%d -%d", len(created), len(destroyed))
	if a.refuse == nil {
		a.reg.Info.Resources = resource.Add(nil, total...)
	}
	return a.refuse
}

func (a *fakeAgent) ShutdownFramework(id mesos.FrameworkID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("shutdown framework")
	for k := range a.tasks {
		if k.framework == id.Value {
			delete(a.tasks, k)
		}
	}
	delete(a.frameworks, id.Value)
}

func (a *fakeAgent) Shutdown() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.note("shutdown")
	a.tasks = map[taskKey]*fakeTask{}
	a.kill()
}

// startMaster runs a master until the test ends.
func startMaster(t *testing.T, cfg Config) *Master {
	t.Helper()
	m, _ := runMaster(t, cfg)
	return m
}

// runMaster runs a master until stop is called or the test ends.
func runMaster(t *testing.T, cfg Config) (m *Master, stop func()) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if testing.Verbose() {
		cfg.Logger, _ = zap.NewDevelopment() // not the test's own: goroutines may outlive it
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Serve(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("master does not stop")
			}
		})
	}
	t.Cleanup(stop)
	return m, stop
}

// quick are the recordings' intervals, ten times faster.
func quick() Timing {
	return Timing{Allocation: 20 * time.Millisecond, Recovered: -1, Heartbeat: 1500 * time.Millisecond, AgentLost: 400 * time.Millisecond}
}

package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// fakeMaster models the engine's master as far as an agent can tell: it gives ids, knows who is registered, refuses removed agents, keeps the
// updates in the order of their arrival and acknowledges them when told to.
type fakeMaster struct {
	t testing.TB

	mu       sync.Mutex
	next     int
	handles  map[string]Handle
	removed  map[string]bool
	cut      bool
	autoAck  bool
	updates  []mesos.TaskStatus
	latest   []mesos.TaskState
	rereg    []Reregistration
	reg      []Registration
	watchers []chan struct{}
}

func newMaster(t testing.TB) *fakeMaster {
	return &fakeMaster{t: t, handles: map[string]Handle{}, removed: map[string]bool{}, autoAck: true}
}

func (m *fakeMaster) Register(_ context.Context, r Registration) (mesos.AgentID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return mesos.AgentID{}, ErrCut
	}
	id := fmt.Sprintf("m-S%d", m.next)
	m.next++
	m.handles[id] = r.Handle
	m.reg = append(m.reg, r)
	m.changed()
	return mesos.AgentID{Value: id}, nil
}

func (m *fakeMaster) Reregister(_ context.Context, r Reregistration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return ErrCut
	}
	if m.removed[r.ID.Value] {
		return ErrRemoved
	}
	m.handles[r.ID.Value] = r.Handle
	m.rereg = append(m.rereg, r)
	m.changed()
	return nil
}

func (m *fakeMaster) StatusUpdate(_ context.Context, f mesos.FrameworkID, s mesos.TaskStatus, latest mesos.TaskState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut {
		return ErrCut
	}
	h := m.handles[s.AgentID.Value]
	if h == nil {
		return ErrUnknownAgent
	}
	m.updates = append(m.updates, s)
	m.latest = append(m.latest, latest)
	m.changed()
	if m.autoAck {
		go h.Acknowledge(f, s.TaskID, s.UUID)
	}
	return nil
}

func (m *fakeMaster) Pong(_ context.Context, id mesos.AgentID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.cut:
		return ErrCut
	case m.removed[id.Value]:
		return ErrRemoved
	case m.handles[id.Value] == nil:
		return ErrUnknownAgent
	}
	return nil
}

func (m *fakeMaster) changed() {
	for _, w := range m.watchers {
		close(w)
	}
	m.watchers = nil
}

// await waits until what the master has seen satisfies ok.
func (m *fakeMaster) await(what string, ok func() bool) {
	m.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		m.mu.Lock()
		if ok() {
			m.mu.Unlock()
			return
		}
		w := make(chan struct{})
		m.watchers = append(m.watchers, w)
		m.mu.Unlock()
		select {
		case <-w:
		case <-deadline:
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Fatalf("never seen: %s; updates: %s", what, m.history(""))
		}
	}
}

// history words the updates of a task (all for ""), one a state, the same update once. Call it with the lock.
func (m *fakeMaster) history(task string) string {
	var out []string
	seen := map[string]bool{}
	for _, s := range m.updates {
		if task != "" && s.TaskID.Value != task || seen[string(s.UUID)] {
			continue
		}
		seen[string(s.UUID)] = true
		word := strings.TrimPrefix(s.GetState().String(), "TASK_")
		if s.Healthy != nil && s.GetState() == mesos.TASK_RUNNING {
			word += fmt.Sprintf("(%v)", *s.Healthy)
		}
		if task == "" {
			word = s.TaskID.Value + " " + word
		}
		if s.GetMessage() != "" {
			word += ": " + s.GetMessage()
		}
		out = append(out, word)
	}
	return strings.Join(out, "; ")
}

func (m *fakeMaster) seen(task string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.history(task)
}

// awaitState waits for a state of a task and returns the status.
func (m *fakeMaster) awaitState(task string, state mesos.TaskState) mesos.TaskStatus {
	m.t.Helper()
	var found mesos.TaskStatus
	m.await(task+" "+state.String(), func() bool {
		for _, s := range m.updates {
			if s.TaskID.Value == task && s.GetState() == state {
				found = s
				return true
			}
		}
		return false
	})
	return found
}

const fwID = "m-0000"

// newAgent starts an agent and closes it at the end of the test.
func newAgent(t testing.TB, m *fakeMaster, change func(*Config)) *Agent {
	t.Helper()
	cfg := Config{
		Dir: t.TempDir(), Hostname: "agent0", Listen: "127.0.0.1:0", Master: m, Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
		Attributes: map[string]string{"zone": "z0"}, Resources: Resources{CPUs: 2, Mem: 1024, Disk: 4096, PortsBegin: 31000, PortsEnd: 31099},
		Timing: Timing{Ping: 20 * time.Millisecond, UpdateRetry: 50 * time.Millisecond, KillGrace: 2 * time.Second,
			MountLimit: 10 * time.Second, UnmountMax: 10 * time.Second},
	}
	if change != nil {
		change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := a.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return a
}

func framework(caps ...mesos.FrameworkInfo_Capability_Type) mesos.FrameworkInfo {
	yes := true
	f := mesos.FrameworkInfo{ID: &mesos.FrameworkID{Value: fwID}, Name: "test", Checkpoint: &yes}
	for _, c := range append(caps, mesos.FrameworkInfo_Capability_PARTITION_AWARE) {
		f.Capabilities = append(f.Capabilities, mesos.FrameworkInfo_Capability{Type: c})
	}
	return f
}

func shell(id, script string) mesos.TaskInfo {
	return mesos.TaskInfo{Name: id, TaskID: mesos.TaskID{Value: id}, Command: &mesos.CommandInfo{Value: &script}}
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (a *Agent) latest(task string) string {
	return filepath.Join(a.Dir(), "slaves", a.ID(), "frameworks", fwID, "executors", task, "runs", "latest")
}

func kill(a *Agent, task string, grace time.Duration) {
	var p *mesos.KillPolicy
	if grace >= 0 {
		p = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: int64(grace)}}
	}
	a.peer.Kill(mesos.FrameworkID{Value: fwID}, mesos.TaskID{Value: task}, p)
}

func TestTaskFinishes(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.Run(framework(), shell("t1", "echo hello; echo oops >&2; test \"$MESOS_SANDBOX\" = \"$PWD\""))
	s := m.awaitState("t1", mesos.TASK_FINISHED)
	if got, want := m.seen("t1"), "STARTING; RUNNING; FINISHED: Command exited with status 0"; got != want {
		t.Errorf("updates %q, want %q", got, want)
	}
	if s.GetSource() != mesos.SOURCE_EXECUTOR || s.Reason != nil || s.ContainerStatus.GetContainerID() == nil || s.ExecutorID.Value != "t1" {
		t.Errorf("terminal status is %v", s)
	}
	if got := read(t, a.latest("t1")+"/stdout") + read(t, a.latest("t1")+"/stderr"); got != "hello\noops\n" {
		t.Errorf("output %q", got)
	}
}

func TestTaskFails(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.Run(framework(), shell("t2", "exit 3"))
	m.awaitState("t2", mesos.TASK_FAILED)
	no, missing := false, "/no/such/program"
	a.peer.Run(framework(), mesos.TaskInfo{TaskID: mesos.TaskID{Value: "t3"}, Command: &mesos.CommandInfo{Shell: &no, Value: &missing}})
	m.awaitState("t3", mesos.TASK_FAILED)
	if got, want := m.seen(""), "t2 STARTING; t2 RUNNING; t2 FAILED: Command exited with status 3; "+
		"t3 FAILED: Failed to launch container: Failed to execute '/no/such/program': no such file or directory"; got != want {
		t.Errorf("updates %q, want %q", got, want)
	}
}

func TestKill(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.Run(framework(mesos.FrameworkInfo_Capability_TASK_KILLING_STATE), shell("polite", "sleep 1000"))
	a.peer.Run(framework(), shell("stubborn", "trap '' TERM; while :; do sleep 0.05; done"))
	m.awaitState("polite", mesos.TASK_RUNNING)
	m.awaitState("stubborn", mesos.TASK_RUNNING)
	time.Sleep(50 * time.Millisecond) // the trap
	kill(a, "polite", -1)
	begun := time.Now()
	kill(a, "stubborn", 300*time.Millisecond)
	kill(a, "never-was", -1)
	m.awaitState("polite", mesos.TASK_KILLED)
	m.awaitState("stubborn", mesos.TASK_KILLED)
	if took := time.Since(begun); took < 250*time.Millisecond {
		t.Errorf("SIGKILL came after %v", took)
	}
	m.awaitState("never-was", mesos.TASK_GONE)
	for task, want := range map[string]string{
		"polite":    "STARTING; RUNNING; KILLING; KILLED: Command terminated with signal Terminated",
		"stubborn":  "STARTING; RUNNING; KILLED: Command terminated with signal Killed",
		"never-was": "GONE: Cannot find executor",
	} {
		if got := m.seen(task); got != want {
			t.Errorf("%s: %q, want %q", task, got, want)
		}
	}
}

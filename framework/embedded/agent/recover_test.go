package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func restart(t testing.TB, a *Agent) {
	t.Helper()
	a.Stop()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (m *fakeMaster) lastReregistration() Reregistration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rereg) == 0 {
		m.t.Fatal("the agent has not reregistered")
	}
	return m.rereg[len(m.rereg)-1]
}

func TestRestartKeepsTasks(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.Run(framework(), withVolume(shell("on", "sleep 1000"), "data", "vol-1"))
	m.awaitState("on", mesos.TASK_RUNNING)
	a.peer.Run(framework(), withVolume(shell("ends", "while test ! -e "+s.dir+"/go; do sleep 0.01; done; exit 7"), "data", "vol-2"))
	m.awaitState("ends", mesos.TASK_RUNNING)
	id := a.ID()
	url := a.URL()
	a.Stop()
	os.WriteFile(s.dir+"/go", nil, 0o644)
	for _, task := range a.Tasks() {
		if task.State != "agent down" {
			t.Errorf("task of a stopped agent: %+v", task)
		}
	}
	time.Sleep(100 * time.Millisecond) // it ends while there is no agent
	s.await(t, "mount vol-1", "mount vol-2")
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.ID() != id || a.URL() != url {
		t.Errorf("came back as %s at %s, was %s at %s", a.ID(), a.URL(), id, url)
	}
	m.awaitState("ends", mesos.TASK_FAILED)
	if got, want := m.seen("ends"), "STARTING; RUNNING; FAILED: Command exited with status 7"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.await(t, "mount vol-1", "mount vol-2", "unmount vol-2")
	if r := m.lastReregistration(); r.ID.Value != id || len(r.Frameworks) != 1 || len(r.Tasks) < 1 {
		t.Errorf("reregistration %+v", r)
	}
	kill(a, "on", -1)
	m.awaitState("on", mesos.TASK_KILLED)
	s.await(t, "mount vol-1", "mount vol-2", "unmount vol-2", "unmount vol-1")
}

func TestUpdatesAreRepeated(t *testing.T) {
	m := newMaster(t)
	m.autoAck = false
	a := newAgent(t, m, nil)
	a.peer.Run(framework(), shell("t1", "true"))
	count := func(state mesos.TaskState) func() bool {
		return func() bool {
			n := 0
			for _, s := range m.updates {
				if s.GetState() == state {
					n++
				}
			}
			return n >= 2
		}
	}
	m.await("STARTING twice", count(mesos.TASK_STARTING))
	if got := m.seen("t1"); got != "STARTING" {
		t.Errorf("nothing may follow before the acknowledgement: %q", got)
	}
	restart(t, a)
	m.mu.Lock()
	before := len(m.updates)
	m.mu.Unlock()
	m.await("STARTING after the restart", func() bool { return len(m.updates) > before })
	m.mu.Lock()
	first, latest := m.updates[0].UUID, m.latest[len(m.latest)-1]
	m.mu.Unlock()
	if latest != mesos.TASK_FINISHED {
		t.Errorf("latest state is %v", latest)
	}
	a.peer.Acknowledge(mesos.FrameworkID{Value: fwID}, mesos.TaskID{Value: "t1"}, []byte("0123456789abcdef")) // not it
	a.peer.Acknowledge(mesos.FrameworkID{Value: fwID}, mesos.TaskID{Value: "t1"}, first)
	running := m.awaitState("t1", mesos.TASK_RUNNING)
	m.mu.Lock()
	m.cut = true
	m.mu.Unlock()
	a.peer.Acknowledge(mesos.FrameworkID{Value: fwID}, mesos.TaskID{Value: "t1"}, running.UUID)
	time.Sleep(50 * time.Millisecond)
	if got := m.seen("t1"); got != "STARTING; RUNNING" {
		t.Errorf("seen through a cut link: %q", got)
	}
	m.mu.Lock()
	m.cut, m.autoAck = false, true
	m.mu.Unlock()
	m.awaitState("t1", mesos.TASK_FINISHED)
	for deadline := time.Now().Add(5 * time.Second); len(a.Tasks()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the task is not retired: %+v", a.Tasks())
		}
	}
	restart(t, a)
	if r := m.lastReregistration(); len(r.Tasks) != 0 || len(r.Completed) != 1 {
		t.Errorf("reregistered with %d tasks and %d completed", len(r.Tasks), len(r.Completed))
	}
}

func TestPowerLoss(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.Run(framework(), withVolume(shell("t1", "trap '' TERM; (setsid sleep 1000 &) ; while :; do sleep 0.1; done"), "data", "vol-1"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	time.Sleep(50 * time.Millisecond)
	id, box := a.ID(), a.Tasks()[0].Sandbox
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if left := processesOf(box); len(left) > 0 {
		t.Errorf("processes live on: %v", left)
	}
	time.Sleep(50 * time.Millisecond)
	s.await(t, "mount vol-1")
	if got := m.seen("t1"); got != "STARTING; RUNNING" {
		t.Errorf("a dead machine said %q", got)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a.ID() != id {
		t.Errorf("came back as %s, was %s", a.ID(), id)
	}
	st := m.awaitState("t1", mesos.TASK_FAILED)
	if st.GetMessage() != "Executor terminated" || st.GetReason() != mesos.REASON_EXECUTOR_TERMINATED || st.GetSource() != mesos.SOURCE_AGENT {
		t.Errorf("status %v", st)
	}
	time.Sleep(50 * time.Millisecond)
	s.await(t, "mount vol-1") // a reboot has forgotten it
}

// processesOf lists the processes that were started with a sandbox's marker.
func processesOf(sandbox string) []int { return processesWith("MESOS_SANDBOX=" + sandbox + "\x00") }

func processesWith(mark string) []int {
	var out []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile("/proc/" + e.Name() + "/environ")
		if strings.Contains(string(env), mark) {
			out = append(out, pid)
		}
	}
	return out
}

func TestDaemonsDieWithTheirTask(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.Run(framework(), shell("t1", "(setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 0.1; done' &); sleep 0.05; exit 0"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	box := a.Tasks()[0].Sandbox
	m.awaitState("t1", mesos.TASK_FINISHED)
	if left := processesOf(box); len(left) > 0 {
		t.Errorf("processes live on: %v", left)
	}
}

func TestNoCheckpointing(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	f := framework()
	f.Checkpoint = nil
	a.peer.Run(f, withVolume(shell("t1", "sleep 1000"), "data", "vol-1"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	box := a.Tasks()[0].Sandbox
	restart(t, a)
	s.await(t, "mount vol-1", "unmount vol-1")
	if left := processesOf(box); len(left) > 0 {
		t.Errorf("processes live on: %v", left)
	}
	if r := m.lastReregistration(); len(r.Tasks) != 0 {
		t.Errorf("reregistered with %v", r.Tasks)
	}
}

func TestRemovedByTheMaster(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.Run(framework(), withVolume(shell("t1", "sleep 1000"), "data", "vol-1"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	old := a.ID()
	m.mu.Lock()
	m.removed[old] = true
	m.mu.Unlock()
	m.await("a second registration", func() bool { return len(m.reg) == 2 })
	s.await(t, "mount vol-1", "unmount vol-1")
	restart(t, a)
	if a.ID() == old {
		t.Error("the agent kept an id that was removed")
	}
	if got := m.seen("t1"); got != "STARTING; RUNNING" {
		t.Errorf("%q", got)
	}
}

func TestConfigurationChange(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.Run(framework(), shell("t1", "sleep 1000"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	a.Stop()
	a.cfg.Resources.CPUs = 4
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "resources changed") {
		t.Fatalf("start with other resources: %v", err)
	}
	a.cfg.Resources.CPUs = 2
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := a.ID()
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	a.cfg.Resources.CPUs, a.cfg.Attributes = 4, map[string]string{"zone": "z1"}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := m.lastReregistration(); a.ID() != id || got.Info.Resources[0].Scalar.Value != 4 || got.Info.Attributes[0].Text.Value != "z1" {
		t.Errorf("came back as %s, %v", a.ID(), got.Info)
	}
	m.awaitState("t1", mesos.TASK_FAILED)
	disk := persistentDisk("r", "pv", "x")
	if err := a.peer.Checkpoint(append(a.cfg.Resources.mesos(), disk), []mesos.Resource{disk}, nil); err != nil {
		t.Fatal(err)
	}
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	a.cfg.Resources.CPUs = 8
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "resources changed") {
		t.Fatalf("start with other resources under a reservation: %v", err)
	}
}

// crashMain is the supervisor that TestSupervisorCrash kills: an agent with one task, in a process of its own.
func crashMain(dir, dvdcli string) {
	m := newMaster(fatal{})
	a, err := New(Config{Dir: dir, Hostname: "agent0", Master: m, Dvdcli: dvdcli, Timing: Timing{Ping: 20 * time.Millisecond}})
	if err != nil {
		panic(err)
	}
	if err := a.Start(context.Background()); err != nil {
		panic(err)
	}
	a.peer.Run(framework(), withVolume(shell("t1", "(setsid sleep 1000 &); sleep 1000"), "data", "vol-1"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	box := a.Tasks()[0].Sandbox
	a.peer.Run(framework(), withVolume(shell("t2", "true"), "data", "slow-1"))
	(&standIn{dir: filepath.Dir(dvdcli)}).await(m.t, "mount vol-1", "mount slow-1")
	time.Sleep(50 * time.Millisecond)
	os.WriteFile(dir+"/ready", []byte(box), 0o644)
	select {}
}

type fatal struct{ testing.TB }

func (fatal) Helper()                        {}
func (fatal) Fatalf(format string, _ ...any) { panic(format) }

func TestMain(m *testing.M) {
	if dir := os.Getenv("AGENT_CRASH_DIR"); dir != "" {
		crashMain(dir, os.Getenv("AGENT_CRASH_DVDCLI"))
	}
	os.Exit(m.Run())
}

func TestSupervisorCrash(t *testing.T) {
	s, dir := newStandIn(t), t.TempDir()
	proc, err := os.StartProcess("/proc/self/exe", []string{"agent-crash"}, &os.ProcAttr{
		Env: append(os.Environ(), "AGENT_CRASH_DIR="+dir, "AGENT_CRASH_DVDCLI="+s.path), Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	var box string
	for deadline := time.Now().Add(10 * time.Second); box == ""; time.Sleep(5 * time.Millisecond) {
		data, _ := os.ReadFile(dir + "/ready")
		box = string(data)
		if time.Now().After(deadline) {
			t.Fatal("the supervisor did not come up")
		}
	}
	proc.Signal(syscall.SIGKILL)
	proc.Wait()
	if left := append(processesOf(box), processesWith("HOLDFAST_ENGINE_CALL="+dir+"#")...); len(left) < 4 {
		t.Errorf("task and dvdcli did not survive: %v", left)
	}
	m := newMaster(t)
	m.next = 1
	m.handles["m-S0"] = nil
	a := newAgent(t, m, func(c *Config) { c.Dir, c.Dvdcli, c.Attributes, c.Resources = dir, s.path, nil, Resources{} })
	if a.ID() != "m-S0" {
		t.Errorf("recovered as %s", a.ID())
	}
	m.awaitState("t1", mesos.TASK_FAILED)
	m.awaitState("t2", mesos.TASK_FAILED)
	for deadline := time.Now().Add(5 * time.Second); len(s.calls()) < 4 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	got := s.calls()
	slices.Sort(got[2:])
	if want := []string{"mount vol-1", "mount slow-1", "unmount slow-1", "unmount vol-1"}; !slices.Equal(got, want) {
		t.Errorf("dvdcli was called %v, want %v", got, want)
	}
	if left := append(processesWith("MESOS_SANDBOX="+box+"\x00"), processesWith("HOLDFAST_ENGINE_CALL="+dir+"#")...); len(left) > 0 {
		t.Errorf("processes live on: %v", left)
	}
}

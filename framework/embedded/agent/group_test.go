package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func podExecutor(id string) mesos.ExecutorInfo {
	return mesos.ExecutorInfo{Type: mesos.ExecutorInfo_DEFAULT, ExecutorID: mesos.ExecutorID{Value: id}}
}

// withShared mounts a directory of the executor's sandbox.
func withShared(t mesos.TaskInfo, at, path string) mesos.TaskInfo {
	rw := mesos.RW
	if t.Container == nil {
		t.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum()}
	}
	t.Container.Volumes = append(t.Container.Volumes, mesos.Volume{ContainerPath: at, Mode: &rw, Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SANDBOX_PATH,
		SandboxPath: &mesos.Volume_Source_SandboxPath{Type: mesos.Volume_Source_SandboxPath_PARENT, Path: path}}})
	return t
}

func (a *Agent) sandboxOf(task string) string {
	for _, v := range a.Tasks() {
		if v.ID == task {
			return v.Sandbox
		}
	}
	return ""
}

// Two containers share an external volume and a directory of the executor; the volume is mounted for each and given back once, after the last.
func TestPodShares(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	one := withShared(withVolume(shell("p.a", "echo hello > data/f; echo $MESOS_EXECUTOR_ID > out/id; until test -e out/stop; do sleep 0.01; done"), "data", "vol-0"), "out", "volumes/out")
	two := withShared(withVolume(shell("p.b", "until test -s data/f && test -s in/id; do sleep 0.01; done; cat data/f in/id > in/both"), "data", "vol-0"), "in", "volumes/out")
	a.peer.RunGroup(framework(), podExecutor("p"), []mesos.TaskInfo{one, two})
	last := m.awaitState("p.b", mesos.TASK_FINISHED)
	if last.ExecutorID.Value != "p" || last.ContainerStatus.ContainerID.Parent == nil {
		t.Errorf("status of a container: %+v", last)
	}
	if got := m.seen("p.a"); strings.Contains(got, "KILL") {
		t.Errorf("the other container after one has finished well: %s", got)
	}
	dir := filepath.Dir(filepath.Dir(a.sandboxOf("p.a"))) // p.b may be retired already
	if got := read(t, filepath.Join(dir, "volumes", "out", "both")); got != "hello\np\n" {
		t.Errorf("shared directory: %q", got)
	}
	if calls := s.calls(); len(calls) != 2 || !strings.HasPrefix(calls[1], "mount") {
		t.Errorf("the volume is in use, and dvdcli was called %q", calls)
	}
	if err := os.WriteFile(filepath.Join(dir, "volumes", "out", "stop"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m.awaitState("p.a", mesos.TASK_FINISHED)
	s.await(t, "mount vol-0", "mount vol-0", "unmount vol-0")
}

// What is mounted at the executor, as in the recorded exchange, is seen through a path in its sandbox.
func TestPodVolumeOfTheExecutor(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	e := podExecutor("p")
	holder := withVolume(mesos.TaskInfo{}, "shared", "pod-vol")
	e.Container = holder.Container
	a.peer.RunGroup(framework(), e, []mesos.TaskInfo{withShared(shell("p.a", "echo x > d/f"), "d", "shared"), shell("p.b", "exit 0")})
	m.awaitState("p.a", mesos.TASK_FINISHED)
	m.awaitState("p.b", mesos.TASK_FINISHED)
	s.await(t, "mount pod-vol", "unmount pod-vol")
	if got := read(t, filepath.Join(s.dir, "volumes", "pod-vol", "f")); got != "x\n" {
		t.Errorf("the volume holds %q", got)
	}
}

// One container that fails, is killed, or cannot be launched ends its pod.
func TestPodEndsTogether(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.RunGroup(framework(), podExecutor("p1"), []mesos.TaskInfo{shell("p1.a", "sleep 300"), shell("p1.b", "sleep 0.1; exit 3")})
	m.awaitState("p1.b", mesos.TASK_FAILED)
	m.awaitState("p1.a", mesos.TASK_KILLED)

	a.peer.RunGroup(framework(), podExecutor("p2"), []mesos.TaskInfo{shell("p2.a", "sleep 300"), shell("p2.b", "sleep 300")})
	m.awaitState("p2.a", mesos.TASK_RUNNING)
	m.awaitState("p2.b", mesos.TASK_RUNNING)
	kill(a, "p2.a", time.Second)
	m.awaitState("p2.a", mesos.TASK_KILLED)
	m.awaitState("p2.b", mesos.TASK_KILLED)

	a.peer.RunGroup(framework(), podExecutor("p3"), []mesos.TaskInfo{shell("p3.a", "sleep 300"), withVolume(shell("p3.b", "sleep 300"), "d", "fail-0")})
	if s := m.awaitState("p3.b", mesos.TASK_FAILED); !strings.Contains(s.GetMessage(), "no such volume") {
		t.Errorf("message %q", s.GetMessage())
	}
	m.awaitState("p3.a", mesos.TASK_KILLED)
}

// The containers of a pod outlive the agent process, and are one pod for the next one.
func TestPodOutlivesTheAgent(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.RunGroup(framework(), podExecutor("p"), []mesos.TaskInfo{shell("p.a", "sleep 300"), shell("p.b", "sleep 300")})
	m.awaitState("p.a", mesos.TASK_RUNNING)
	m.awaitState("p.b", mesos.TASK_RUNNING)
	a.Stop()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.await("the agent registered again", func() bool { return len(m.rereg) > 0 })
	r := m.rereg[len(m.rereg)-1]
	if len(r.Tasks) != 2 || len(r.Executors) != 1 || r.Executors[0].ExecutorID.Value != "p" || r.Tasks[0].ExecutorID.GetValue() != "p" {
		t.Errorf("registered again with %+v and executors %+v", r.Tasks, r.Executors)
	}
	kill(a, "p.b", time.Second)
	m.awaitState("p.b", mesos.TASK_KILLED)
	m.awaitState("p.a", mesos.TASK_KILLED)
}

package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

// openTemp makes a directory that every user can reach, which t.TempDir does not.
func openTemp(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestHeavyAsNobody runs the other tests of this package again as an ordinary user.
func TestHeavyAsNobody(t *testing.T) {
	heavy.Require(t, heavy.Root)
	runAgain(t, 65534)
}

// TestHeavyWithoutMounting runs them again as a root that may not mount, as in an ordinary container.
func TestHeavyWithoutMounting(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("setpriv"))
	runAgain(t, 0, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
}

func runAgain(t *testing.T, uid uint32, prefix ...string) {
	dir := openTemp(t)
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/agent.test", data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/tmp", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir+"/tmp", int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	argv := append(prefix, dir+"/agent.test", "-test.v", "-test.timeout=60s", "-test.skip=Heavy")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir + "/tmp"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir + "/tmp", "HOME=" + dir + "/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	if n := strings.Count(string(out), "--- PASS"); n < 20 {
		t.Errorf("only %d tests were run:\n%s", n, out)
	}
}

func TestOtherUser(t *testing.T) {
	m := newMaster(t)
	dir := openTemp(t)
	a := newAgent(t, m, func(c *Config) { c.Dir = dir + "/agent" })
	as := func(id, user string) mesos.TaskInfo {
		task := shell(id, "id -un; id -u > mine; pwd; echo via-dev > /dev/stdout")
		task.Command.User = &user
		return task
	}
	if os.Geteuid() == 0 {
		a.peer.Run(framework(), as("u1", "nobody"))
		m.awaitState("u1", mesos.TASK_FINISHED)
		if got := read(t, a.latest("u1")+"/stdout"); !strings.HasPrefix(got, "nobody\n") || !strings.HasSuffix(got, "via-dev\n") {
			t.Errorf("output %q, %q", got, readMaybe(a.latest("u1")+"/stderr"))
		}
		if got := read(t, a.latest("u1")+"/mine"); got != "65534\n" {
			t.Errorf("uid %q", got)
		}
	} else {
		a.peer.Run(framework(), as("u2", "root"))
		m.awaitState("u2", mesos.TASK_FAILED)
		if got := m.seen("u2"); !strings.Contains(got, "cannot run as user 'root': the agent is not root") {
			t.Error(got)
		}
	}
	a.peer.Run(framework(), as("u3", "no-such-user"))
	m.awaitState("u3", mesos.TASK_FAILED)
	if got := m.seen("u3"); !strings.Contains(got, "user 'no-such-user' does not exist") {
		t.Error(got)
	}
}

func TestCommands(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	for i, c := range []struct {
		cmd  mesos.CommandInfo
		want string
	}{
		{mesos.CommandInfo{Shell: ptr(false), Value: ptr("echo"), Arguments: []string{"echo", "a b", "$HOME;`id`"}}, "a b $HOME;`id`\n"},
		{mesos.CommandInfo{Value: ptr("echo $A-$B"), Environment: &mesos.Environment{Variables: []mesos.Environment_Variable{
			{Name: "A", Value: ptr("x y")}, {Name: "B", Value: ptr("z=1")}}}}, "x y-z=1\n"},
		{mesos.CommandInfo{Value: ptr("echo $MESOS_SANDBOX | grep -c " + a.Dir()), Environment: &mesos.Environment{Variables: []mesos.Environment_Variable{
			{Name: "MESOS_SANDBOX", Value: ptr("/elsewhere")}}}}, "1\n"},
		{mesos.CommandInfo{Value: ptr("echo $MESOS_TASK_ID $MESOS_FRAMEWORK_ID $MESOS_EXECUTOR_ID; test -n \"$PATH$HOME\" && test -d \"$MESOS_DIRECTORY\"")}, "c3 m-0000 c3\n"},
		{mesos.CommandInfo{Value: ptr("readlink /proc/self/fd/0; ps -o sid= -p $$ | tr -d ' ' | grep -qx $$ && echo leader")}, "/dev/null\nleader\n"},
	} {
		id := fmt.Sprintf("c%d", i)
		cmd := c.cmd
		a.peer.Run(framework(), mesos.TaskInfo{TaskID: mesos.TaskID{Value: id}, Command: &cmd})
		m.awaitState(id, mesos.TASK_FINISHED)
		if got := read(t, a.latest(id)+"/stdout"); got != c.want {
			t.Errorf("%s: %q, want %q", id, got, c.want)
		}
	}
	for i, c := range []struct {
		task mesos.TaskInfo
		want string
	}{
		{mesos.TaskInfo{}, "task has no command"},
		{mesos.TaskInfo{Command: &mesos.CommandInfo{}}, "no command value"},
		{mesos.TaskInfo{Command: &mesos.CommandInfo{Value: ptr("a\x00b")}}, "NUL"},
		{mesos.TaskInfo{Command: &mesos.CommandInfo{Value: ptr("true"), Environment: &mesos.Environment{Variables: []mesos.Environment_Variable{{Name: "A=B", Value: ptr("")}}}}}, "cannot be set"},
		{mesos.TaskInfo{Command: &mesos.CommandInfo{Value: ptr("true")}, Container: &mesos.ContainerInfo{Type: ptr(mesos.ContainerInfo_DOCKER)}}, "Docker containerizer"},
		{mesos.TaskInfo{Command: &mesos.CommandInfo{Value: ptr("true")}, Executor: &mesos.ExecutorInfo{}}, "custom executors"},
		{mesos.TaskInfo{Command: &mesos.CommandInfo{Value: ptr("true"), URIs: []mesos.CommandInfo_URI{{Value: "/no/such/file"}}}}, "Failed to fetch all URIs"},
	} {
		id := fmt.Sprintf("r%d", i)
		c.task.TaskID.Value = id
		a.peer.Run(framework(), c.task)
		m.awaitState(id, mesos.TASK_FAILED)
		if got := m.seen(id); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", id, got, c.want)
		}
	}
	a.peer.RunGroup(framework(), mesos.ExecutorInfo{ExecutorID: mesos.ExecutorID{Value: "e"}, Type: mesos.ExecutorInfo_CUSTOM}, []mesos.TaskInfo{shell("pod.a", "true")})
	m.awaitState("pod.a", mesos.TASK_FAILED)
	if got := m.seen("pod.a"); !strings.Contains(got, "custom executors are not run") {
		t.Errorf("a pod with an executor of its own: %q", got)
	}
}

func TestHostAndSandboxVolumes(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	host := t.TempDir()
	os.WriteFile(host+"/f", []byte("host\n"), 0o644)
	task := shell("v1", "cat h/f; echo sub > s/g; cat part/g")
	task.Container = &mesos.ContainerInfo{Type: ptr(mesos.ContainerInfo_MESOS), Volumes: []mesos.Volume{
		{ContainerPath: "h", Mode: ptr(mesos.RW), HostPath: &host},
		{ContainerPath: "s", Mode: ptr(mesos.RW), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SANDBOX_PATH,
			SandboxPath: &mesos.Volume_Source_SandboxPath{Type: mesos.Volume_Source_SandboxPath_SELF, Path: "part"}}},
	}}
	a.peer.Run(framework(), task)
	m.awaitState("v1", mesos.TASK_FINISHED)
	if got := read(t, a.latest("v1")+"/stdout"); got != "host\nsub\n" {
		t.Errorf("output %q %q", got, readMaybe(a.latest("v1")+"/stderr"))
	}
}

func persistentDisk(role, id, path string) mesos.Resource {
	return mesos.Resource{Name: "disk", Type: ptr(mesos.SCALAR), Scalar: &mesos.Value_Scalar{Value: 64},
		Reservations: []mesos.Resource_ReservationInfo{{Type: ptr(mesos.Resource_ReservationInfo_DYNAMIC), Role: &role}},
		Disk: &mesos.Resource_DiskInfo{Persistence: &mesos.Resource_DiskInfo_Persistence{ID: id},
			Volume: &mesos.Volume{ContainerPath: path, Mode: ptr(mesos.RW)}}}
}

func TestPersistentVolume(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	disk := persistentDisk("eng/db", "pv-1", "keep")
	total := append(a.cfg.Resources.mesos(), disk)
	if err := a.peer.Checkpoint(total, []mesos.Resource{disk}, nil); err != nil {
		t.Fatal(err)
	}
	for i, script := range []string{"echo first > keep/f", "cat keep/f; sleep 1000"} {
		task := shell(fmt.Sprintf("p%d", i), script)
		task.Resources = []mesos.Resource{disk}
		a.peer.Run(framework(), task)
		m.awaitState(task.TaskID.Value, mesos.TASK_RUNNING)
	}
	for deadline := time.Now().Add(5 * time.Second); string(readMaybe(a.latest("p1")+"/stdout")) != "first\n"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the second task sees %q %q", readMaybe(a.latest("p1")+"/stdout"), readMaybe(a.latest("p1")+"/stderr"))
		}
	}
	for deadline := time.Now().Add(5 * time.Second); len(a.Tasks()) != 1 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	restart(t, a)
	if r := m.lastReregistration(); len(r.Info.Resources) != len(total) {
		t.Errorf("reregistered with %v", r.Info.Resources)
	}
	if err := a.peer.Checkpoint(a.cfg.Resources.mesos(), nil, []mesos.Resource{disk}); err == nil || !strings.Contains(err.Error(), "in use by task 'p1'") {
		t.Errorf("destroy under a task: %v", err)
	}
	kill(a, "p1", -1)
	m.awaitState("p1", mesos.TASK_KILLED)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := a.peer.Checkpoint(a.cfg.Resources.mesos(), nil, []mesos.Resource{disk}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(a.Dir(), "volumes/roles/eng db/pv-1")
	if _, err := os.Stat(dir); err == nil {
		t.Error("the destroyed volume is there")
	}
	// What a crash left of it is neither shown to the next owner of the name nor deleted.
	os.MkdirAll(dir, 0o755)
	os.WriteFile(dir+"/old", nil, 0o644)
	if err := a.peer.Checkpoint(total, []mesos.Resource{disk}, nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("the new volume holds %v", left)
	}
	if aside, _ := filepath.Glob(a.Dir() + "/volumes/aside/*/old"); len(aside) != 1 {
		t.Error("old data is gone")
	}
	bad := persistentDisk("eng", "../../x", "keep")
	if err := a.peer.Checkpoint(total, []mesos.Resource{bad}, nil); err == nil {
		t.Error("a persistence id that climbs is accepted")
	}
}

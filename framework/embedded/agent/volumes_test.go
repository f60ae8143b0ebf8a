package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// standIn writes a dvdcli that logs its calls and behaves by the volume's name: fail-* fails to mount, slow-* takes its time, stuck-* cannot be unmounted
// while a file `stuck` is there, liar-* prints nonsense. Everything else is a directory.
type standIn struct{ dir, path string }

func newStandIn(t testing.TB) *standIn {
	s := &standIn{dir: t.TempDir()}
	s.path = filepath.Join(s.dir, "dvdcli")
	script := `#!/bin/sh
D='` + s.dir + `'
verb=$1; name=
line="$1"
shift
for a in "$@"; do
	line="$line [$a]"
	case $a in --volumename=*) name=${a#--volumename=};; esac
done
echo "$line" >> "$D/calls"
case $verb:$name in
mount:fail-*) echo "no such volume: $name" >&2; exit 1;;
mount:slow-*) sleep 300 & wait;;
mount:liar-*) echo "relative/path"; exit 0;;
unmount:stuck-*) if test -e "$D/stuck"; then echo "device is busy" >&2; exit 1; fi;;
esac
if test $verb = mount; then mkdir -p "$D/volumes/$name"; echo "$D/volumes/$name"; fi
`
	if err := os.WriteFile(s.path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

// calls are what dvdcli was called with, without the constant driver, options sorted.
func (s *standIn) calls() []string {
	data, _ := os.ReadFile(filepath.Join(s.dir, "calls"))
	var out []string
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if line == "" {
			continue
		}
		words := strings.Fields(strings.ReplaceAll(line, "[--volumedriver=fake] ", ""))
		sort.Strings(words[2:])
		out = append(out, strings.NewReplacer("[--volumename=", "", "]", "", "[--volumeopts=", "").Replace(strings.Join(words, " ")))
	}
	return out
}

func (s *standIn) await(t testing.TB, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		got := s.calls()
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("dvdcli was called\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}

func withVolume(t mesos.TaskInfo, path, name string, options ...string) mesos.TaskInfo {
	driver, rw, kind := "fake", mesos.RW, mesos.ContainerInfo_MESOS
	v := mesos.Volume{ContainerPath: path, Mode: &rw, Source: &mesos.Volume_Source{Type: mesos.Volume_Source_DOCKER_VOLUME,
		DockerVolume: &mesos.Volume_Source_DockerVolume{Driver: &driver, Name: name}}}
	if len(options) > 0 {
		v.Source.DockerVolume.DriverOptions = &mesos.Parameters{}
		for _, o := range options {
			k, val, _ := strings.Cut(o, "=")
			v.Source.DockerVolume.DriverOptions.Parameter = append(v.Source.DockerVolume.DriverOptions.Parameter, mesos.Parameter{Key: k, Value: val})
		}
	}
	if t.Container == nil {
		t.Container = &mesos.ContainerInfo{Type: &kind}
	}
	t.Container.Volumes = append(t.Container.Volumes, v)
	return t
}

func withDvdcli(s *standIn) func(*Config) {
	return func(c *Config) { c.Dvdcli = s.path }
}

func TestVolume(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.Run(framework(), withVolume(shell("t1", "echo hello > data/f"), "data", "vol-0", "size=5", "note=a=b,c"))
	m.awaitState("t1", mesos.TASK_FINISHED)
	s.await(t, "mount vol-0 note=a=b,c size=5", "unmount vol-0")
	if got := read(t, s.dir+"/volumes/vol-0/f"); got != "hello\n" {
		t.Errorf("the task wrote %q", got)
	}
}

func TestVolumeMountFails(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.Run(framework(), withVolume(shell("t4", "true"), "data", "fail-me"))
	st := m.awaitState("t4", mesos.TASK_FAILED)
	if got, want := m.seen("t4"), "FAILED: Failed to launch container: Unexpected termination of the subprocess: no such volume: fail-me\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if st.GetReason() != mesos.REASON_CONTAINER_LAUNCH_FAILED || st.GetSource() != mesos.SOURCE_AGENT || st.ContainerStatus != nil {
		t.Errorf("status %v", st)
	}
	s.await(t, "mount fail-me", "unmount fail-me")
	a.peer.Run(framework(), withVolume(shell("t5", "true"), "data", "liar-1"))
	m.awaitState("t5", mesos.TASK_FAILED)
	if got := m.seen("t5"); !strings.Contains(got, "not one absolute path") {
		t.Error(got)
	}
}

func TestVolumeRefused(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	for i, c := range []struct{ path, want string }{
		{"../data", "must not contain '..'"},
		{"a/../../data", "must not contain '..'"},
		{"/", "hide the whole file system"},
		{".", "is the sandbox itself"},
		{"/no/such/dir", "Absolute container path '/no/such/dir' does not exist"},
		{a.Dir() + "/slaves", "would hide"},
		{"", "empty"},
	} {
		id := fmt.Sprintf("bad%d", i)
		a.peer.Run(framework(), withVolume(shell(id, "true"), c.path, "vol"))
		m.awaitState(id, mesos.TASK_FAILED)
		if got := m.seen(id); !strings.Contains(got, c.want) {
			t.Errorf("container path %q: %q, want %q", c.path, got, c.want)
		}
	}
	twice := withVolume(withVolume(shell("e6", "true"), "a", "v"), "b", "v")
	a.peer.Run(framework(), twice)
	m.awaitState("e6", mesos.TASK_FAILED)
	if got := m.seen("e6"); got != "FAILED: Failed to launch container: Found duplicate docker volume with driver 'fake' and name 'v'" {
		t.Error(got)
	}
	s.await(t) // never called
}

func TestVolumeOfTwoTasks(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	for _, id := range []string{"t5", "t6"} {
		a.peer.Run(framework(), withVolume(shell(id, "sleep 1000"), "data", "vol-a"))
		m.awaitState(id, mesos.TASK_RUNNING)
	}
	s.await(t, "mount vol-a", "mount vol-a")
	kill(a, "t5", -1)
	m.awaitState("t5", mesos.TASK_KILLED)
	time.Sleep(50 * time.Millisecond)
	s.await(t, "mount vol-a", "mount vol-a")
	kill(a, "t6", -1)
	s.await(t, "mount vol-a", "mount vol-a", "unmount vol-a")
}

func TestVolumeMountLimit(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, func(c *Config) { c.Dvdcli = s.path; c.Timing.MountLimit = 100 * time.Millisecond })
	a.peer.Run(framework(), withVolume(shell("t1", "true"), "data", "slow-1"))
	m.awaitState("t1", mesos.TASK_FAILED)
	if got := m.seen("t1"); !strings.Contains(got, "was killed after 100ms") {
		t.Error(got)
	}
	s.await(t, "mount slow-1", "unmount slow-1")
}

func TestVolumeUnmountFails(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	os.WriteFile(s.dir+"/stuck", nil, 0o644)
	a.peer.Run(framework(), withVolume(shell("t1", "true"), "data", "stuck-1"))
	m.awaitState("t1", mesos.TASK_FINISHED)
	s.await(t, "mount stuck-1", "unmount stuck-1")
	time.Sleep(50 * time.Millisecond)
	a.Stop()
	os.Remove(s.dir + "/stuck")
	for range 2 { // once at the next start, then never again
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.await(t, "mount stuck-1", "unmount stuck-1", "unmount stuck-1")
		// An agent that is stopped before it has noted the end of dvdcli calls it again, rightly.
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if left, err := os.ReadDir(a.volumeCheckpoints()); err != nil || len(left) == 0 {
				break
			}
		}
		a.Stop()
	}
	s.await(t, "mount stuck-1", "unmount stuck-1", "unmount stuck-1")
}

func TestVolumeAgentStopsDuringMount(t *testing.T) {
	m, s := newMaster(t), newStandIn(t)
	a := newAgent(t, m, withDvdcli(s))
	a.peer.Run(framework(), withVolume(shell("t1", "true"), "data", "slow-1"))
	s.await(t, "mount slow-1")
	a.Stop()
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.await(t, "mount slow-1", "unmount slow-1")
	m.awaitState("t1", mesos.TASK_FAILED)
	if got := m.seen("t1"); got != "FAILED: Executor terminated" {
		t.Error(got)
	}
}

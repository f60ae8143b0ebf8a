package fence

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/deadman/deadmantest"
)

// playMachine is the first process of a pid namespace: an isolator with one managed volume, a user of that, and a watchdog with a dead-man.
func playMachine(state, path, device string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	s, err := OpenState(state, unix.CLOCK_MONOTONIC)
	if err != nil {
		return err
	}
	s.SetLimit(time.Second)
	if err := s.SetDeadMan(device, time.Second, 2*time.Second); err != nil {
		return err
	}
	user := exec.Command("sleep", "1000")
	user.Dir = path
	if err := user.Start(); err != nil {
		return err
	}
	go func() { _ = user.Wait() }()
	return playIsolator(state, path)
}

// machine is a node that the stand-in of a dead-man can reset, by killing its pid namespace.
type machine struct {
	*process
	t      *testing.T
	state  *State
	device *deadmantest.Device
}

func newMachine(t *testing.T) *machine {
	heavy.Require(t, heavy.Root)
	volume, _ := tree(t)
	path := filepath.Join(t.TempDir(), "state")
	m := &machine{t: t}
	m.device = deadmantest.New(t, func() { _ = m.Process.Kill() })
	m.process = start(t, "machine "+path+" "+volume+" "+m.device.Path, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	})
	var err error
	if m.state, err = joinState(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.state.Close() })
	return m
}

// members gives the processes of the machine, by our ids, whose command line has a word in it.
func (m *machine) members(word string) (pids []int) {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", m.Process.Pid))
	if err != nil {
		return nil
	}
	all, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	for _, p := range all {
		if its, err := os.Readlink(p); err != nil || its != ns {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if st, err := readStat("/proc", pid); err == nil && st.state != 'Z' && strings.Contains(string(raw), word) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (m *machine) await(what string, limit time.Duration, good func() bool) {
	m.t.Helper()
	for end := time.Now().Add(limit); !good(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(m.state.path + ".log")
			m.t.Fatalf("not within %v: %s\n%s", limit, what, log)
		}
	}
}

func (m *machine) armed() bool { d, _ := m.state.DeadMan(); return d > 0 }

// Case 9 of safety.md: isolator and watchdog are stopped together, and nobody fences. The dead-man brings the machine down by D+S+H.
func TestHeavyDeadManResetsWhenAllAreStopped(t *testing.T) {
	m := newMachine(t)
	if !m.armed() || !m.device.Running() {
		t.Fatal("the dead-man is not armed")
	}
	if n := len(m.members("sleep")); n != 1 {
		t.Fatalf("%d users", n)
	}
	dogs := m.members("watchdog")
	if len(dogs) != 1 {
		t.Fatalf("watchdogs: %v", dogs)
	}
	_, d := m.state.Deadline()
	for _, pid := range []int{m.Process.Pid, dogs[0]} {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	users := m.members("sleep")
	m.await("the machine is reset", 20*time.Second, func() bool { return m.device.Resets() > 0 })
	late := m.state.now() - d
	m.await("its processes are gone", 5*time.Second, func() bool {
		_, err := readStat("/proc", users[0])
		return err != nil
	})
	t.Logf("reset %v after D; S+H is 3s", late)
	if late > 3*time.Second+500*time.Millisecond {
		t.Errorf("reset %v after D", late)
	}
}

// A fence that is verified is no reason to reset anything, nor is a machine that holds nothing; a clean stop disarms, and a
// watchdog that is asked to end while something is held does neither.
func TestHeavyDeadManIsFedAndDisarmed(t *testing.T) {
	m := newMachine(t)
	dogs := m.members("watchdog")
	if err := unix.Kill(dogs[0], unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.await("the user is stopped", 10*time.Second, func() bool { return len(m.members("sleep")) == 0 })
	_, d := m.state.Deadline()
	m.await("time goes by", 10*time.Second, func() bool { return m.state.now() > d+2500*time.Millisecond })
	if m.device.Resets() > 0 || !m.device.Running() || !m.armed() || len(m.members("watchdog")) != 1 {
		t.Fatalf("resets %d, running %v, armed %v", m.device.Resets(), m.device.Running(), m.armed())
	}
	if err := m.state.SetMounts(nil); err != nil {
		t.Fatal(err)
	}
	feeds := m.device.Feeds()
	m.await("fed with nothing held", 5*time.Second, func() bool { return m.device.Feeds() > feeds+3 })
	m.state.Drain()
	m.await("disarmed by a clean stop", 5*time.Second, func() bool { return !m.device.Running() })
	if m.device.Resets() > 0 {
		t.Errorf("%d resets", m.device.Resets())
	}
}

// A fence that cannot be verified starves the dead-man: here the list of what is managed cannot be read.
func TestHeavyDeadManStarvesUnverified(t *testing.T) {
	m := newMachine(t)
	for i := range m.state.mem[stateHeader:] {
		m.state.mem[stateHeader+i] = 0xff
	}
	m.state.set(wordActive, m.state.get(wordActive)+1)
	m.await("the machine is reset", 20*time.Second, func() bool { return m.device.Resets() > 0 })
}

// A dead-man that cannot be armed, or is slower than H allows, counts for nothing, and it is said why.
func TestHeavyDeadManNotArmed(t *testing.T) {
	heavy.Require(t, heavy.Root)
	s, err := OpenState(filepath.Join(t.TempDir(), "state"), unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetLimit(time.Second)
	device := deadmantest.New(t, nil)
	device.RoundUp = 4 * time.Second
	for _, c := range []struct{ path, says string }{{"/nowhere/watchdog", "no such file"}, {device.Path, "I4 does not hold"}} {
		if err := s.SetDeadMan(c.path, time.Second, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		d := &deadMan{state: s, log: zap.NewNop()}
		d.verified.Store(-1)
		d.turn()
		if armed, why := s.DeadMan(); armed != 0 || !strings.Contains(why, c.says) {
			t.Errorf("%s: armed %v, %q", c.path, armed, why)
		}
	}
	if device.Resets() > 0 {
		t.Error("reset")
	}
	for end := time.Now().Add(5 * time.Second); device.Running(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was left armed")
		}
	}
}

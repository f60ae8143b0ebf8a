package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
)

func sleeper(t *testing.T, name, script string, env ...string) *Child {
	return &Child{Name: name, LogFile: filepath.Join(t.TempDir(), "log"), Grace: 200 * time.Millisecond, Log: zap.NewNop(),
		Command: func() *exec.Cmd {
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.Env = append(os.Environ(), env...)
			return cmd
		}}
}

func TestChildIsRestartedUntilStopped(t *testing.T) {
	s := NewSpawner()
	defer s.Close()
	c := sleeper(t, "x", "exec sleep 60")
	c.Spawn = s
	if _, err := Start(c); err != nil {
		t.Fatal(err)
	}
	first := c.Status().PID
	if err := c.Crash(true); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); c.Status().PID == 0 || c.Status().PID == first; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not restarted")
		}
	}
	pid := c.Status().PID
	c.Stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("process %d is left", pid)
	}
	if st := c.Status(); st.PID != 0 || st.Starts != 2 {
		t.Errorf("status after stop: %+v", st)
	}
	c.Stop() // again: harmless
}

func TestChildThatIgnoresSIGTERMIsKilled(t *testing.T) {
	s := NewSpawner()
	defer s.Close()
	c := sleeper(t, "x", "trap '' TERM; while :; do sleep 0.05; done")
	c.Spawn = s
	if _, err := Start(c); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.Stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stop took %v", took)
	}
}

func TestLeftoversAreFoundByTheirMark(t *testing.T) {
	s := NewSpawner()
	defer s.Close()
	c := sleeper(t, "x", "sleep 60 & sleep 60 & wait", "HOLDFAST_DEV=test-mark/agent1")
	c.Spawn = s
	if _, err := Start(c); err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	for deadline := time.Now().Add(5 * time.Second); len(Marked("HOLDFAST_DEV=test-mark")) < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("found %v", Marked("HOLDFAST_DEV=test-mark"))
		}
	}
	if n := len(Marked("HOLDFAST_DEV=test-mar")); n != 0 {
		t.Errorf("a mark that is only a prefix finds %d processes", n)
	}
	c.mu.Lock()
	c.stopping = true // or it would be restarted
	c.mu.Unlock()
	if killed, err := KillMarked("HOLDFAST_DEV=test-mark", 5*time.Second); err != nil || len(killed) < 3 {
		t.Errorf("killed %v, %v", killed, err)
	}
}

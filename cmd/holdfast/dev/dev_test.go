package dev

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
)

func TestLayoutKeepsSocketPathsShort(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("a-long-directory-name/", 9))
	l, err := NewLayout(deep)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{l.controlSocket(), l.nodeAuthority("agent50"), l.nodeSocket("agent50")} {
		if len(path) > 107 {
			t.Errorf("socket path %s has %d bytes", path, len(path))
		}
	}
	other, err := NewLayout(deep + "x")
	if err != nil || other.Sockets == l.Sockets {
		t.Errorf("two directories share %s: %v", l.Sockets, err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(deep, link); err != nil {
		t.Fatal(err)
	}
	if same, err := NewLayout(link); err != nil || same != l {
		t.Errorf("a link to the directory is another cluster: %+v, %v", same, err)
	}
}

func TestSocketDirectoryOfSomebodyElseIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(dir); err == nil {
		t.Error("a directory open to all was taken")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(link); err == nil {
		t.Error("a symbolic link was taken")
	}
}

func TestOneSupervisorPerDirectory(t *testing.T) {
	l, err := NewLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.lock(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("second lock: %v", err)
	}
	first.Close()
	again, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestNothingIsStartedOnAnUnusableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: filepath.Join(file, "dir"), Port: 1}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Port: 0}); !fault.Is(err, fault.Invalid) {
		t.Errorf("port 0: %v", err)
	}
	if _, err := Start(t.Context(), Config{Dir: t.TempDir(), Port: 1, Agents: -1}); !fault.Is(err, fault.Invalid) {
		t.Errorf("-1 agents: %v", err)
	}
}

func TestPortBlocksAreDisjoint(t *testing.T) {
	seen := map[int]bool{}
	for range 5 {
		b, err := takePorts("the same asker")
		if err != nil {
			t.Fatal(err)
		}
		defer b.lock.Close()
		if seen[b.first] || b.first < portsFirst || b.first+portsBlock > 32000 {
			t.Errorf("block %d after %v", b.first, seen)
		}
		seen[b.first] = true
	}
}

func TestMachineStaysAsItWasMade(t *testing.T) {
	dir := t.TempDir()
	made, block, err := openMachine(dir, machine{CPUs: 4, MemMB: 100, Disk: 10, Zone: "z", Rack: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openMachine(dir, machine{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("its ports were given out twice: %v", err)
	}
	block.lock.Close()
	again, block, err := openMachine(dir, machine{CPUs: 8})
	if err != nil || again != made {
		t.Errorf("it is now %+v, not %+v: %v", again, made, err)
	}
	block.lock.Close()
	if err := os.WriteFile(filepath.Join(dir, "machine.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openMachine(dir, machine{}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a damaged file: %v", err)
	}
}

func sleeper(t *testing.T, name, script string, env ...string) *child {
	return &child{name: name, logFile: filepath.Join(t.TempDir(), "log"), grace: 200 * time.Millisecond, log: zap.NewNop(),
		command: func() *exec.Cmd {
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.Env = append(os.Environ(), env...)
			return cmd
		}}
}

func TestChildIsRestartedUntilStopped(t *testing.T) {
	s := newSpawner()
	defer s.close()
	c := sleeper(t, "x", "exec sleep 60")
	c.spawn = s
	if _, err := startChild(c); err != nil {
		t.Fatal(err)
	}
	first := c.status().PID
	if err := c.crash(true); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); c.status().PID == 0 || c.status().PID == first; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not restarted")
		}
	}
	pid := c.status().PID
	c.stop()
	if err := syscall.Kill(pid, 0); err == nil {
		t.Errorf("process %d is left", pid)
	}
	if st := c.status(); st.PID != 0 || st.Starts != 2 {
		t.Errorf("status after stop: %+v", st)
	}
	c.stop() // again: harmless
}

func TestChildThatIgnoresSIGTERMIsKilled(t *testing.T) {
	s := newSpawner()
	defer s.close()
	c := sleeper(t, "x", "trap '' TERM; while :; do sleep 0.05; done")
	c.spawn = s
	if _, err := startChild(c); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stop took %v", took)
	}
}

func TestLeftoversAreFoundByTheirMark(t *testing.T) {
	s := newSpawner()
	defer s.close()
	c := sleeper(t, "x", "sleep 60 & sleep 60 & wait", "HOLDFAST_DEV=test-mark/agent1")
	c.spawn = s
	if _, err := startChild(c); err != nil {
		t.Fatal(err)
	}
	defer c.kill()
	for deadline := time.Now().Add(5 * time.Second); len(marked("HOLDFAST_DEV=test-mark")) < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("found %v", marked("HOLDFAST_DEV=test-mark"))
		}
	}
	if n := len(marked("HOLDFAST_DEV=test-mar")); n != 0 {
		t.Errorf("a mark that is only a prefix finds %d processes", n)
	}
	c.mu.Lock()
	c.stopping = true // or it would be restarted
	c.mu.Unlock()
	if killed, err := killMarked("HOLDFAST_DEV=test-mark", 5*time.Second); err != nil || len(killed) < 3 {
		t.Errorf("killed %v, %v", killed, err)
	}
}

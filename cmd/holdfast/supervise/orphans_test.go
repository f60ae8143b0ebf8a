package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOrphansAreBuried kills a task's shell and then what it had started, and waits for a child of its own meanwhile.
func TestOrphansAreBuried(t *testing.T) {
	end, err := AdoptOrphans()
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	note := filepath.Join(t.TempDir(), "pid")
	task := exec.Command("/bin/sh", "-c", "sleep 60 & echo $! >"+note+"; exec sleep 60")
	task.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := task.Start(); err != nil {
		t.Fatal(err)
	}
	until := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	orphan := 0
	until("no orphan", func() bool {
		raw, _ := os.ReadFile(note)
		orphan, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
		return orphan > 0
	})
	if err := task.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * reapAfter) // a dead child of ours that we have not waited for yet is ours to bury
	if err := task.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the end of our own child was lost: %v", err)
	}
	until("not adopted", func() bool { _, parent, _, ok := readStat(orphan); return ok && parent == os.Getpid() })
	if err := syscall.Kill(orphan, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until("the orphan stays a zombie", func() bool { return syscall.Kill(orphan, 0) == syscall.ESRCH })
}

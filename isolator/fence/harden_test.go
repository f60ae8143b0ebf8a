package fence

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

// The watchdog that a unit of its own runs waits for an isolator, is out of reach of memory and time pressure, and goes on when there is nothing left to watch.
func TestHeavyWatchdogStays(t *testing.T) {
	heavy.Require(t, heavy.Root)
	path := filepath.Join(t.TempDir(), "watchdog")
	w := startWatchdogUnit(t, path)
	time.Sleep(2 * round)
	s, err := OpenState(path, unix.CLOCK_MONOTONIC)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	await := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				log, _ := os.ReadFile(path + ".log")
				t.Fatalf("not so: %s\n%s", what, log)
			}
		}
	}
	await("it watches", s.WatchdogAlive)
	proc := filepath.Join("/proc", strconv.Itoa(w.Process.Pid))
	field := func(file, key string) string {
		raw, _ := os.ReadFile(filepath.Join(proc, file))
		for line := range strings.Lines(string(raw)) {
			if v, ok := strings.CutPrefix(line, key); ok {
				return strings.TrimSpace(strings.TrimLeft(v, " \t:"))
			}
		}
		return ""
	}
	// What this machine does not permit it must say.
	log, _ := os.ReadFile(path + ".log")
	raw, _ := os.ReadFile(filepath.Join(proc, "oom_score_adj"))
	for what, ok := range map[string]bool{
		"be spared when memory runs out": strings.TrimSpace(string(raw)) == "-1000",
		"stay in memory":                 field("status", "VmLck") != "0 kB",
		"be scheduled before others":     policyOf(w.Process.Pid) == schedRR,
	} {
		if said := strings.Contains(string(log), "cannot "+what); ok == said {
			t.Errorf("%s: %t, and its log: %s", what, ok, log)
		}
	}
	var kB int
	if _, _ = fmt.Sscan(field("status", "VmRSS"), &kB); kB > 64<<10 {
		t.Errorf("it takes %d kB", kB)
	}
	t.Logf("locked %s, resident %s", field("status", "VmLck"), field("status", "VmRSS"))
	s.Drain() // nothing is managed: the isolator's own watchdog would end now
	time.Sleep(3 * round)
	if !s.WatchdogAlive() {
		t.Error("it ended when there was nothing to watch")
	}
	_ = w.Process.Signal(unix.SIGTERM)
	select {
	case <-w.ended:
	case <-time.After(10 * time.Second):
		t.Error("it does not end when asked to, with nothing managed")
	}
}

func policyOf(pid int) int {
	policy, _, _ := unix.Syscall(unix.SYS_SCHED_GETSCHEDULER, uintptr(pid), 0, 0)
	return int(policy)
}

func startWatchdogUnit(t *testing.T, state string) *process {
	t.Helper()
	return start(t, "watchdog-unit "+state, nil)
}

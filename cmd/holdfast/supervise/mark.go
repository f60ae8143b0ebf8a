package supervise

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Marked finds the processes whose environment holds the entry, or one below it (entry/…): children of this cluster, or their
// children. Those of other users cannot be read and are not ours.
func Marked(entry string) []int {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", p.Name(), "environ"))
		if err != nil {
			continue
		}
		for _, e := range bytes.Split(env, []byte{0}) {
			if rest, ok := strings.CutPrefix(string(e), entry); ok && (rest == "" || rest[0] == '/') {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// KillMarked kills every process that carries the entry and waits until none is left; a process that forks meanwhile is met in
// the next round. A zombie has no environment any more and counts as gone.
func KillMarked(entry string, limit time.Duration) (killed []int, err error) {
	for deadline := time.Now().Add(limit); ; {
		pids := Marked(entry)
		if len(pids) == 0 {
			return killed, nil
		}
		if time.Now().After(deadline) {
			return killed, fault.New(fault.Unavailable, "processes %v do not end", pids)
		}
		for _, pid := range pids {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed = append(killed, pid)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

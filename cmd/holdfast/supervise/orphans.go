package supervise

import (
	"bytes"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// reapAfter lets a burst of ends be dealt with at once.
const reapAfter = 50 * time.Millisecond

// AdoptOrphans makes this process the parent of those whose own parent dies (a node helper's watchdog, what a task started in the
// background) and buries them until end is called. Where pid 1 reaps nothing, as in many containers, they would stay zombies, and
// a zombie still counts as a process: PostgreSQL, for one, does not start while the process in its lock file is there.
func AdoptOrphans() (end func(), err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "become the parent of orphans")
	}
	children, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(children, syscall.SIGCHLD)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-children:
				time.Sleep(reapAfter)
				reapAdopted()
			}
		}
	}()
	return func() {
		signal.Stop(children)
		close(done)
	}, nil
}

// reapAdopted buries dead children that this process has not started itself. Those that it starts lead a process group of their own
// or are in its group; so who is in a third one was adopted. (An adopted leader of a group is left for ReapAll: somebody may
// wait for it.)
func reapAdopted() {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	self, group := os.Getpid(), syscall.Getpgrp()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		state, parent, pgrp, ok := readStat(pid)
		if ok && state == 'Z' && parent == self && pgrp != pid && pgrp != group {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// readStat gives a process's state, parent and group.
func readStat(pid int) (state byte, parent, group int, ok bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	end := bytes.LastIndexByte(raw, ')') // the name before it may hold anything
	if err != nil || end < 0 {
		return 0, 0, 0, false
	}
	f := bytes.Fields(raw[end+1:])
	if len(f) < 3 {
		return 0, 0, 0, false
	}
	parent, err1 := strconv.Atoi(string(f[1]))
	group, err2 := strconv.Atoi(string(f[2]))
	return f[0][0], parent, group, err1 == nil && err2 == nil
}

// Reap buries the given processes if they are dead children of this one. Nobody else may be waiting for them.
func Reap(pids []int) {
	for _, pid := range pids {
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// ReapAll buries every dead child. Call it when nothing that this process has started runs any more.
func ReapAll() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

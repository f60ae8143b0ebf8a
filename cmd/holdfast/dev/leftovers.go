package dev

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// marked finds the processes whose environment holds the entry, or one below it (entry/…): children of this cluster, or their
// children. Those of other users cannot be read and are not ours.
func marked(entry string) []int {
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

// killMarked kills every process that carries the entry and waits until none is left; a process that forks meanwhile is met in
// the next round. A zombie has no environment any more and counts as gone.
func killMarked(entry string, limit time.Duration) (killed []int, err error) {
	for deadline := time.Now().Add(limit); ; {
		pids := marked(entry)
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

// adoptOrphans makes this process the parent of those whose own parent dies: a node helper's watchdog, what a task has left in
// the background. Where pid 1 reaps nothing, as in many containers, they would stay zombies.
func adoptOrphans() error {
	return fault.Wrap(fault.Internal, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "become the parent of orphans")
}

// reap buries the given processes if they are dead children of ours that nobody waits for; none given means all there are, which
// only is right when nothing of ours runs any more. Those of others are left alone.
func reap(pids ...int) {
	if len(pids) == 0 {
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				return
			}
		}
	}
	for _, pid := range pids {
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// unmountBelow takes away every mount at or below dir in this mount namespace, the deepest first. It is only called when nobody
// that this cluster started uses them any more; whoever else holds one open makes it a lazy unmount.
func unmountBelow(dir string) error {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "list the mounts below %s", dir)
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].ID > infos[j].ID })
	var failed []error
	for _, m := range infos {
		// The prefix filter takes path-name boundaries into account, but a mount of the root is never ours.
		if m.Mountpoint != dir && !strings.HasPrefix(m.Mountpoint, dir+string(filepath.Separator)) {
			continue
		}
		if err := unix.Unmount(m.Mountpoint, 0); err == nil || errors.Is(err, unix.EINVAL) {
			continue
		}
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			failed = append(failed, fmt.Errorf("unmount %s: %w", m.Mountpoint, err))
		}
	}
	return errors.Join(failed...)
}

// mountsBelow lists the mount points at or below dir.
func mountsBelow(dir string) []string {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range infos {
		out = append(out, m.Mountpoint)
	}
	return out
}

// Leftovers lists what a cluster that was stopped has left on this machine: processes, mounts, sockets. It is meant to be empty.
func Leftovers(dir string) ([]string, error) {
	l, err := existingLayout(dir)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, pid := range append(marked(l.mark()), marked(l.taskMark())...) {
		left = append(left, fmt.Sprintf("process %d", pid))
	}
	for _, m := range mountsBelow(l.Dir) {
		left = append(left, "mount "+m)
	}
	entries, err := os.ReadDir(l.Sockets)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap(fault.Internal, err, "look for sockets")
	}
	for _, e := range entries {
		left = append(left, "socket "+filepath.Join(l.Sockets, e.Name()))
	}
	return left, nil
}

// PoolOf is the directory that plays shared storage in a cluster's directory.
func PoolOf(dir string) string { return Layout{Dir: dir}.Pool() }

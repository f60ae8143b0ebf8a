package dev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/cmd/holdfast/supervise"
	"github.com/holdfast-io/holdfast/internal/fault"
)

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
	for _, pid := range append(supervise.Marked(l.mark()), supervise.Marked(l.taskMark())...) {
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

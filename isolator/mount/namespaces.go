package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// UnmountHere removes all mounts of a block device ("7:3") from this process's mount namespace, the latest first. Conflict when one is busy.
func UnmountHere(ctx context.Context, device string) error {
	return Within(ctx, "unmount device "+device, func() error {
		points, err := pointsOf("self", device)
		if err != nil {
			return fault.Wrap(fault.Unknown, err, "read mountinfo")
		}
		var errs []error
		for i := len(points) - 1; i >= 0; i-- {
			if err := patiently(ctx, points[i]); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fault.Wrap(class(err), err, "unmount %s", points[i]))
			}
		}
		return errors.Join(errs...)
	})
}

// UnmountElsewhere removes the mounts of a block device from the mount namespaces of other processes: a service that was started while a volume was mounted
// has a copy of that mount for as long as it lives, and with it the file system. Only mounts at points that wanted admits are
// touched; those in use stay, which is no error here.
func UnmountElsewhere(ctx context.Context, device string, wanted func(point string) bool) error {
	return Within(ctx, "unmount device "+device+" in other namespaces", func() error {
		holders, err := namespaces()
		if err != nil {
			return fault.Wrap(fault.Unknown, err, "list mount namespaces")
		}
		for _, pid := range holders {
			if ctx.Err() != nil {
				return fault.Wrap(fault.Unknown, ctx.Err(), "unmount device %s in other namespaces", device)
			}
			all, err := pointsOf(strconv.Itoa(pid), device)
			if err != nil {
				continue // it ended
			}
			var points []string
			for _, p := range all {
				if wanted(p) {
					points = append(points, p)
				}
			}
			if len(points) > 0 {
				_ = unmountIn(pid, points)
			}
		}
		return nil
	})
}

// namespaces gives one process of every mount namespace but our own.
func namespaces() ([]int, error) {
	self, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{self: true}
	var out []int
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(filepath.Join("/proc", n, "ns/mnt")); err == nil && !seen[ns] {
			seen[ns] = true
			out = append(out, pid)
		}
	}
	return out, nil
}

func pointsOf(process, device string) ([]string, error) {
	f, err := os.Open(filepath.Join("/proc", process, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	infos, err := mountinfo.GetMountsFromReader(f, func(i *mountinfo.Info) (skip, stop bool) {
		return fmt.Sprintf("%d:%d", i.Major, i.Minor) != device, false
	})
	if err != nil {
		return nil, err
	}
	out := make([]string, len(infos))
	for i, m := range infos {
		out[i] = m.Mountpoint
	}
	return out, nil
}

// unmountIn unmounts in the namespace of a process, as that process sees the paths. A thread of ours goes there and ends there.
func unmountIn(pid int, points []string) error {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	ns, err := os.Open(proc + "/ns/mnt")
	if err != nil {
		return err
	}
	defer ns.Close()
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return onLostThread(func() error { return visit(int(ns.Fd()), root, points) })
}

// onLostThread runs f on a thread that ends with it. That must not be the process's first one, whose namespace /proc/self shows.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			done <- f()
			return
		}
		err := onLostThread(f) // elsewhere, since this goroutine occupies the first thread
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

func visit(ns, root int, points []string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		if strings.HasPrefix(points[i], "/") {
			errs = append(errs, unix.Unmount(points[i], unix.UMOUNT_NOFOLLOW))
		}
	}
	return errors.Join(errs...)
}

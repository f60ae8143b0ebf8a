// Package mount looks at and changes the mounts of this process's namespace. Storage may hang, and then so
// does any system call that touches it, beyond the reach of signals: everything here that may touch a volume is bounded
// in time, and what did not come back in time is fault.Unknown, never a failure.
package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

var stuck atomic.Int64

// Stuck is how many calls have been given up on and have not come back yet.
func Stuck() int64 { return stuck.Load() }

// Within runs f, which may hang in the kernel, and gives up waiting when ctx ends: the error is then Unknown, and f goes on
// by itself. What f wrote must not be read after an error.
func Within(ctx context.Context, what string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "%s: not begun", what)
	}
	if ctx.Done() == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		stuck.Add(1)
		go func() { <-done; stuck.Add(-1) }()
		return fault.Wrap(fault.Unknown, ctx.Err(), "%s: no answer from the kernel", what)
	}
}

// Mount is one line of mountinfo, as far as the isolator cares.
type Mount struct {
	Point  string // where
	Root   string // which directory of the file system
	Major  int    // device of the superblock
	Minor  int
	Type   string
	Source string
}

// At gives the mounts whose mount point is path, the topmost last. It does not touch what is mounted.
func At(path string) ([]Mount, error) {
	return list(func(i *mountinfo.Info) (skip, stop bool) { return i.Mountpoint != path, false })
}

// Is tells whether something is mounted at path, in a time that does not grow with the number of mounts. It asks the kernel for what
// it has of the place, without asking the storage; what that does not settle (a dead FUSE mount, an old kernel) is looked up in mountinfo.
func Is(path string) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, 0, &st)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return false, nil
	case err == nil && st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	at, err := At(path)
	return len(at) > 0, err
}

// Dead tells whether the process that served the mount at path is gone for good, as when a FUSE server was killed: nothing can be read
// or written there any more. A server that is only slow or stopped is not dead, nor is one that did not answer before ctx ended.
func Dead(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := Within(ctx, "look at "+path, func() error {
		var st unix.Statfs_t
		return unix.Statfs(path, &st)
	})
	return errors.Is(err, unix.ENOTCONN)
}

// Under gives all mounts at dir or below it, in the order they were mounted.
func Under(dir string) ([]Mount, error) {
	return list(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Mountpoint != dir && !strings.HasPrefix(i.Mountpoint, strings.TrimSuffix(dir, "/")+"/"), false
	})
}

func list(f mountinfo.FilterFunc) ([]Mount, error) {
	infos, err := mountinfo.GetMounts(f)
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "read mountinfo")
	}
	out := make([]Mount, 0, len(infos))
	for _, i := range infos {
		out = append(out, Mount{Point: i.Mountpoint, Root: i.Root, Major: i.Major, Minor: i.Minor, Type: i.FSType, Source: i.Source})
	}
	return out, nil
}

// Bind makes the directory source appear at target, which must be an existing directory. Devices and set-uid programs in a volume
// do not count: tasks bring data, not privileges.
func Bind(ctx context.Context, source, target string) error {
	return Within(ctx, "bind "+target, func() error {
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fault.Wrap(class(err), err, "bind %s to %s", source, target)
		}
		err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NODEV|unix.MS_NOSUID, "")
		return fault.Wrap(fault.Unknown, err, "set nodev and nosuid on %s", target)
	})
}

// Unmount removes the topmost mount at path. Conflict when it is busy; nothing mounted there is success.
func Unmount(ctx context.Context, path string) error {
	return Within(ctx, "unmount "+path, func() error {
		err := patiently(ctx, path)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fault.Wrap(class(err), err, "unmount %s", path)
	})
}

// patiently is umount2 that tries again for about a quarter of a second while the mount is busy: a process that was just forked, by us or by anybody, has
// its parent's files open until its exec, and that is no user.
func patiently(ctx context.Context, path string) error {
	const first, last = 2 * time.Millisecond, 128 * time.Millisecond
	for pause := first; ; pause *= 2 {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) || pause > last {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// Sync writes everything of the file system at path to its storage. It may hang: callers bound it by Within.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fault.Wrap(class(err), err, "sync %s", path)
	}
	defer f.Close()
	return fault.Wrap(fault.Unknown, unix.Syncfs(int(f.Fd())), "sync the file system of %s", path)
}

// SameDir tells whether two paths are one directory, as a bind mount and its source are. It may hang: callers bound it by Within.
func SameDir(a, b string) (bool, error) {
	fa, err := os.Stat(a)
	if err != nil {
		return false, fault.Wrap(class(err), err, "look at %s", a)
	}
	fb, err := os.Stat(b)
	if err != nil {
		return false, fault.Wrap(class(err), err, "look at %s", b)
	}
	return os.SameFile(fa, fb), nil
}

// CheckPath says whether a mount path that a driver gave may be used: absolute, clean, one line, an existing
// directory, and, when root is not empty, below root also after links are resolved. It gives the path without links. The error
// is fault.Conflict.
func CheckPath(ctx context.Context, path, root string) (string, error) {
	if err := checkShape(path); err != nil {
		return "", err
	}
	var real string
	err := Within(ctx, "look at "+path, func() (err error) {
		real, err = checkPlace(path, root)
		return err
	})
	if err != nil {
		return "", err
	}
	return real, nil
}

func checkShape(path string) error {
	switch {
	case path == "":
		return fault.New(fault.Conflict, "the driver gave no mount point")
	case len(path) > 4096 || strings.ContainsAny(path, "\n\r\x00"):
		return fault.New(fault.Conflict, "the driver gave a mount point that is not one line: %.80q", path)
	case !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/":
		return fault.New(fault.Conflict, "the driver gave mount point %q, which is not a clean absolute path", path)
	}
	return nil
}

// checkPlace may hang.
func checkPlace(path, root string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fault.Wrap(class(err), err, "look at mount point %s", path)
	}
	if root != "" {
		realRoot, err := filepath.EvalSymlinks(root)
		if err != nil {
			return "", fault.Wrap(class(err), err, "look at %s", root)
		}
		if !strings.HasPrefix(real, strings.TrimSuffix(realRoot, "/")+"/") {
			return "", fault.New(fault.Conflict, "mount point %s lies outside the driver's directory %s", real, root)
		}
	}
	for _, d := range systemDirs {
		if real == d || strings.HasPrefix(real, d+"/") {
			return "", fault.New(fault.Conflict, "mount point %s is a part of the system", real)
		}
	}
	fi, err := os.Stat(real)
	if err != nil {
		return "", fault.Wrap(class(err), err, "look at mount point %s", path)
	}
	if !fi.IsDir() {
		return "", fault.New(fault.Conflict, "mount point %s is not a directory", path)
	}
	return real, nil
}

// No driver mounts volumes in these; one that says so is mistaken or hostile.
var systemDirs = []string{"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr"}

func class(err error) fault.Class {
	switch {
	case errors.Is(err, syscall.EBUSY):
		return fault.Conflict
	case errors.Is(err, fs.ErrPermission):
		return fault.Denied
	case errors.Is(err, fs.ErrNotExist):
		return fault.NotFound
	}
	return fault.Unknown
}

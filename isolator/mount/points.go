package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Show makes the directory data appear at target, which is made, unless that is so already. Conflict when something else is mounted there.
func Show(ctx context.Context, data, target string) error {
	if err := Point(target); err != nil {
		return err
	}
	at, err := Is(target)
	if err != nil {
		return err
	}
	if !at {
		return Bind(ctx, data, target)
	}
	same, err := SameDir(data, target)
	if err == nil && !same {
		err = fault.New(fault.Conflict, "something else is mounted at %s", target)
	}
	return err
}

// Point makes a mount point, which may be there.
func Point(target string) error {
	err := os.Mkdir(target, 0o755)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	c := class(err)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS) {
		c = fault.Unavailable
	}
	return fault.Wrap(c, err, "make mount point")
}

// ReadOnly makes the mount at target, not the file system below it, read-only.
func ReadOnly(ctx context.Context, target string) error {
	return Within(ctx, "make "+target+" read-only", func() error {
		err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
		return fault.Wrap(class(err), err, "make %s read-only", target)
	})
}

// Hide removes all that is mounted at a mount point, and the point.
func Hide(ctx context.Context, target string) error {
	for range 16 { // mounts may lie on top of each other when a crash came at a bad time
		at, err := Is(target)
		if err != nil {
			return err
		}
		if !at {
			_ = os.Remove(target)
			return nil
		}
		if err := Unmount(ctx, target); err != nil {
			return err
		}
	}
	return fault.New(fault.Unknown, "%s is still a mount point", target)
}

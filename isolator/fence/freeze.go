package fence

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

const ioFreeze = 0xc0045877 // FIFREEZE

// Freeze stops all writing to the file system at path until Thaw, once what was written has reached its storage. It may hang: callers bound it.
// Conflict when it is frozen already, Invalid when it cannot be.
func Freeze(path string) error {
	err := atFileSystem(path, func(fd int) error { return ioctl(fd, ioFreeze, 0) })
	switch {
	case errors.Is(err, unix.EBUSY):
		return fault.Wrap(fault.Conflict, err, "the file system at %s is frozen already, by somebody else", path)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fault.Wrap(fault.Invalid, err, "the file system at %s cannot be frozen", path)
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Denied, err, "freeze %s", path)
	}
	return fault.Wrap(fault.Unknown, err, "freeze %s", path)
}

// Thaw ends a Freeze. NotFound when the file system at path is not frozen.
func Thaw(path string) error {
	err := atFileSystem(path, func(fd int) error { return ioctl(fd, ioThaw, 0) })
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(fault.NotFound, err, "the file system at %s is not frozen", path)
	}
	return fault.Wrap(fault.Unknown, err, "thaw %s", path)
}

func atFileSystem(path string, do func(fd int) error) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(int(dir.Fd()))
}

// thawOverdue thaws what was frozen for longer than it was to be, or by an isolator that is dead.
func (w *watchdog) thawOverdue(targets []Target, s Situation) {
	for _, t := range targets {
		if t.FrozenUntil == 0 || s.IsolatorAlive && s.Now < t.FrozenUntil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := mount.Within(ctx, "thaw "+t.Path, func() error { return Thaw(t.Path) })
		cancel()
		if err == nil {
			w.log.Warn("thawed by the watchdog", zap.Stringer("volume", t.Ref), zap.String("path", t.Path), zap.Bool("isolator alive", s.IsolatorAlive))
		} else if !fault.Is(err, fault.NotFound) {
			w.log.Error("a frozen file system cannot be thawed", zap.Stringer("volume", t.Ref), zap.String("path", t.Path), zap.Error(err))
		}
	}
}

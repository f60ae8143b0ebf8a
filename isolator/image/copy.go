package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Reflinks tells whether files in a directory can share their blocks (FICLONE), by trying it.
func Reflinks(dir string) bool {
	a, err := os.CreateTemp(dir, ".reflink-")
	if err != nil {
		return false
	}
	defer os.Remove(a.Name())
	defer a.Close()
	if _, err := a.Write(make([]byte, 4096)); err != nil {
		return false
	}
	b, err := os.CreateTemp(dir, ".reflink-")
	if err != nil {
		return false
	}
	defer os.Remove(b.Name())
	defer b.Close()
	return unix.IoctlFileClone(int(b.Fd()), int(a.Fd())) == nil
}

// Copy makes the file at path a copy of an image as it is at one instant, and syncs it. It shares the blocks where the file system can (in milliseconds, and also
// while a device writes to the image); a full copy is made only where full is set, and then the caller sees to it that nobody
// writes. On failure nothing is left. Holes stay holes.
func Copy(ctx context.Context, from, path string, full bool) error {
	source, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "open its image")
	}
	defer source.Close()
	if fi, err := source.Stat(); err != nil || !fi.Mode().IsRegular() {
		return fault.New(fault.Conflict, "image %s is not a regular file (%v)", from, err)
	}
	target, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fault.Wrap(writeClass(err), err, "make an image")
	}
	defer target.Close()
	if err = copyInto(ctx, source, target, full); err == nil {
		serr := target.Sync()
		err = fault.Wrap(writeClass(serr), serr, "sync the copy of its image")
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

func copyInto(ctx context.Context, source, target *os.File, full bool) error {
	// Pages of the image that were written through the file and not the device (mkfs) must be on the disk to be shared.
	if err := source.Sync(); err != nil {
		return fault.Wrap(fault.Unknown, err, "flush its image")
	}
	err := unix.IoctlFileClone(int(target.Fd()), int(source.Fd()))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return fault.Wrap(fault.Unavailable, err, "the pool is full: copy its image")
	case !full:
		return fault.Wrap(fault.Invalid, err, "the file system of %s cannot share blocks between files (reflink)", filepath.Dir(target.Name()))
	}
	return copyFull(ctx, source, target)
}

// copyFull copies what is not a hole, in steps between which ctx may end it.
func copyFull(ctx context.Context, source, target *os.File) error {
	size, err := source.Seek(0, io.SeekEnd)
	if err == nil {
		err = target.Truncate(size)
	}
	if err != nil {
		return fault.Wrap(writeClass(err), err, "copy its image")
	}
	const step = 8 << 20
	for at := int64(0); at < size; {
		if at, err = source.Seek(at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		end := int64(0)
		if err == nil {
			end, err = source.Seek(at, unix.SEEK_HOLE)
		}
		for ; err == nil && at < end; at += min(step, end-at) {
			if ctx.Err() != nil {
				return fault.Wrap(fault.Unavailable, ctx.Err(), "copy its image: after %d of %d bytes", at, size)
			}
			_, err = io.Copy(io.NewOffsetWriter(target, at), io.NewSectionReader(source, at, min(step, end-at)))
		}
		if err != nil {
			return fault.Wrap(writeClass(err), err, "copy its image")
		}
	}
	return nil
}

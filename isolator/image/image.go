// Package image serves a file system that lies in a file: an image. The file system's root holds a label, of which this package knows nothing, and data/,
// which is what is shown at the image's target; so the root of a volume is as empty as that of a directory, and what lies beside data/ is
// out of reach of who uses it.
//
// A mount goes by way of a staging point ".<name>" beside the target: the whole file system there, data/ bound to the target, the
// staging mount removed. A process that was killed in between leaves a device, and perhaps the staging mount, which Settle takes down by
// name and image.
package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// patience is how long the end of a file system is waited for after its last unmount, the calls of a stuck process not counted.
const patience = time.Second

// Image is a file with a file system in it, and the place where it is shown on this node.
type Image struct {
	Path   string // of the file
	Target string // mount point
	FS     FS
}

// stage is where the whole file system is mounted for a moment.
func (i Image) stage() string {
	return filepath.Join(filepath.Dir(i.Target), "."+filepath.Base(i.Target))
}

// Attached makes a device of the locked image, mounts it at the staging point and calls f with that; then the staging point is unmounted. It undoes
// nothing else, and gives the device, nil when there is none. verb names the crash steps. options are for mount(2), beside those of
// the file system.
func (i Image) Attached(ctx context.Context, verb string, image *os.File, options string, f func(stage string) error) (*loop.Device, error) {
	device, open, err := loop.Attach(image)
	if err != nil {
		return nil, err
	}
	defer open.Close() // until then no other image can be behind the device's name
	CrashAt(verb + ".attached")
	stage := i.stage()
	if err := os.Mkdir(stage, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return &device, fault.Wrap(writeClass(err), err, "make mount point")
	}
	err = mount.Within(ctx, "mount "+stage, func() error {
		err := unix.Mount(device.Path(), stage, i.FS.Name, unix.MS_NOSUID|unix.MS_NODEV, options)
		switch {
		case errors.Is(err, unix.EUCLEAN), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADMSG):
			return fault.Wrap(fault.Conflict, err, "its %s is damaged; %s", i.FS.Name, i.Remedy())
		case errors.Is(err, unix.EIO):
			return fault.Wrap(fault.Unavailable, err, "its %s is damaged, or the storage below it fails; %s", i.FS.Name, i.Remedy())
		}
		return fault.Wrap(fault.Unknown, err, "mount its %s", i.FS.Name)
	})
	CrashAt(verb + ".staged")
	if err == nil {
		err = f(stage)
	}
	CrashAt(verb + ".filled")
	if err == nil {
		err = mount.Hide(ctx, stage)
	}
	return &device, err
}

// Remedy says in words what an operator does about a damaged file system.
func (i Image) Remedy() string {
	return "unmount it everywhere, look with `" + i.FS.look + " " + i.Path + "`, and mend it with `" + i.FS.mend + " " + i.Path + "`, or by a check with repair"
}

// Device gives the device that is shown at the target, nil when none is.
func (i Image) Device() (*loop.Device, error) {
	at, err := mount.Is(i.Target)
	if err != nil || !at {
		return nil, err
	}
	return deviceAt(i.Target)
}

// Shown tells whether something is mounted at the target. Conflict when it is something else than this image.
func (i Image) Shown(image *os.File) (bool, error) {
	device, err := i.Device()
	if err != nil {
		return false, err
	}
	if device == nil {
		at, err := mount.Is(i.Target)
		if err == nil && at {
			err = fault.New(fault.Conflict, "something else is mounted at %s", i.Target)
		}
		return at, err
	}
	devices, err := loop.Devices(image.Name())
	if err != nil {
		return false, err
	}
	for _, d := range devices {
		if d == *device {
			return true, nil
		}
	}
	return false, fault.New(fault.Conflict, "something else is mounted at %s", i.Target)
}

// deviceAt gives the loop device that is mounted at a place, nil when it is none. A file system that is shut down does not say its device: mountinfo does.
func deviceAt(point string) (*loop.Device, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, point, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	number := unix.Mkdev(st.Dev_major, st.Dev_minor)
	if err != nil {
		at, merr := mount.At(point)
		if merr != nil || len(at) == 0 {
			return nil, fault.Wrap(fault.Unknown, err, "look at %s", point)
		}
		last := at[len(at)-1]
		number = unix.Mkdev(uint32(last.Major), uint32(last.Minor))
	}
	d, ok := loop.Of(number)
	if !ok {
		return nil, nil
	}
	return &d, nil
}

// Take locks the image, so that it can be neither mounted nor changed by others. What dead processes left attached is detached, if its file system is gone;
// Conflict otherwise.
func (i Image) Take(ctx context.Context, image *os.File) error {
	err := loop.Lock(image)
	if !fault.Is(err, fault.Conflict) {
		return err
	}
	if is, merr := mount.Is(i.Target); merr != nil || is {
		return firstError(merr, err)
	}
	if err := mount.Hide(ctx, i.stage()); err != nil {
		return err
	}
	return i.releaseAll(ctx, image)
}

// Open opens the image and takes it. NotFound when there is none.
func (i Image) Open(ctx context.Context) (*os.File, error) {
	image, err := loop.OpenImage(i.Path)
	if err != nil {
		return nil, err
	}
	if err := i.Take(ctx, image); err != nil {
		_ = image.Close()
		return nil, err
	}
	return image, nil
}

// releaseAll detaches every device of an image and ends with the image's lock, which proves that none is left.
func (i Image) releaseAll(ctx context.Context, image *os.File) error {
	devices, err := loop.Devices(image.Name())
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := i.release(ctx, d, image); err != nil {
			return err
		}
	}
	return lockSoon(ctx, image)
}

// release detaches a device whose file system is gone. Copies of our own mount in the namespaces of processes that were started
// meanwhile are removed; whatever else keeps the file system alive is a user, and the volume is not unmounted.
func (i Image) release(ctx context.Context, d loop.Device, image *os.File) error {
	err := d.Release(ctx, image, 50*time.Millisecond)
	if !fault.Is(err, fault.Conflict) {
		return err
	}
	stage := i.stage()
	if err := mount.UnmountElsewhere(ctx, d.Number(), func(p string) bool { return p == i.Target || p == stage }); err != nil {
		return err
	}
	return d.Release(ctx, image, patience)
}

// lockSoon waits a moment for those who only look at a device: it stays attached as long as they do.
func lockSoon(ctx context.Context, image *os.File) error {
	for end := time.Now().Add(patience); ; {
		err := loop.Lock(image)
		if !fault.Is(err, fault.Conflict) || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Settle takes down everything of an image: the mounts at target and at the staging point, then its device, which is only let go when no
// file system is mounted from it in any namespace and the image is flushed. hint is the device, if known.
func (i Image) Settle(ctx context.Context, verb string, hint *loop.Device) error {
	for _, point := range []string{i.stage(), i.Target} {
		if err := mount.Hide(ctx, point); err != nil {
			return err
		}
	}
	CrashAt(verb + ".unbound")
	image, err := loop.OpenImage(i.Path)
	if fault.Is(err, fault.NotFound) {
		return i.orphaned()
	}
	if err != nil {
		return err
	}
	defer image.Close()
	if hint != nil {
		if err := i.release(ctx, *hint, image); err != nil {
			return err
		}
	}
	CrashAt(verb + ".detached")
	err = loop.Lock(image)
	if fault.Is(err, fault.Conflict) {
		err = i.releaseAll(ctx, image)
	}
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Unknown, image.Sync(), "flush its image")
}

// orphaned refuses to call unmounted what is still attached although its image was taken away.
func (i Image) orphaned() error {
	devices, err := loop.Devices(i.Path)
	if err != nil || len(devices) == 0 {
		return err
	}
	return fault.New(fault.Conflict, "its image %s is gone while %s shows it: it cannot be flushed", i.Path, devices[0].Path())
}

// Identify makes sure, before anything is mounted, that the image holds the file system with a UUID.
func (i Image) Identify(image *os.File, id string) error {
	head := make([]byte, headSize)
	if _, err := image.ReadAt(head, 0); err != nil {
		return fault.Wrap(fault.Unknown, err, "read its image")
	}
	found, ok := i.FS.identify(head)
	if !ok {
		return fault.New(fault.Conflict, "its image holds no %s", i.FS.Name)
	}
	if found != id {
		return fault.New(fault.Conflict, "its image holds file system %s, its label says %s", found, id)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// writeClass tells a refusal of the file system (nothing was made) from an error of unknown effect.
func writeClass(err error) fault.Class {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EROFS):
		return fault.Unavailable
	case errors.Is(err, fs.ErrPermission):
		return fault.Denied
	}
	return fault.Unknown
}

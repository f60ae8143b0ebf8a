// Package loop makes block devices of files and proves that nobody uses them any more. A volume that has a file
// system of its own lies in an image file; the kernel shows that file as a loop device, on which the file system is mounted.
//
// Devices are attached with direct I/O, so that no page of the image is dirty in this node's memory once the file
// system above it is gone, and without autoclear: a device that detached itself at the last unmount could be
// somebody else's a moment later, and then open(device, O_EXCL), which is the proof that the file system is gone, would prove
// nothing. Whoever attaches therefore also detaches, and what a killed process left attached is found by its image (Devices).
//
// Attach takes a lock (flock) on the image that lives as long as the device, since the device keeps the open file: one image never
// has two devices, and whether it has one is told without a look at all of them.
package loop

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Block is the sector size of the devices: direct I/O needs no less than the disk below has, and no disk has more. Images are multiples
// of it.
const Block = 4096

// major is the device number of all loop devices.
const major = 7

// Device is an attached loop device.
type Device struct {
	Minor int
}

// Path is the device's file.
func (d Device) Path() string { return "/dev/loop" + strconv.Itoa(d.Minor) }

// Number is how mountinfo writes the device.
func (d Device) Number() string { return strconv.Itoa(major) + ":" + strconv.Itoa(d.Minor) }

// Dev is what stat gives as the device of files on it.
func (d Device) Dev() uint64 { return unix.Mkdev(major, uint32(d.Minor)) }

// Of gives the loop device with a device number; false when it is another kind of device.
func Of(dev uint64) (Device, bool) {
	return Device{int(unix.Minor(dev))}, unix.Major(dev) == major
}

// OpenImage opens an image for Attach and Lock: a regular file and no link. NotFound when it is not there.
func OpenImage(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "image %s does not exist", path)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "open image %s", path)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		_ = f.Close()
		return nil, fault.New(fault.Conflict, "image %s is not a regular file (%v)", path, err)
	}
	return f, nil
}

// Lock takes the image's lock. Conflict when a device or another process has it.
func Lock(image *os.File) error {
	err := unix.Flock(int(image.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fault.New(fault.Conflict, "image %s is in use", image.Name())
	}
	return fault.Wrap(fault.Unknown, err, "lock image %s", image.Name())
}

// Attach makes a device of an image whose lock the caller has, and gives it opened: as long as that file is open, the device cannot
// become another image's. Closing it leaves the device attached. Unavailable when there are no loop devices, or the
// image's file system cannot do direct I/O.
func Attach(image *os.File) (Device, *os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Device{}, nil, fault.Wrap(fault.Unavailable, err, "use loop devices")
	}
	defer control.Close()
	for range 256 { // others take devices, too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return Device{}, nil, fault.Wrap(fault.Unavailable, err, "get a free loop device")
		}
		d := Device{n}
		f, err := openDevice(d)
		if err != nil {
			return Device{}, nil, err
		}
		if err = configure(f, image); err == nil {
			return d, f, nil
		}
		_ = f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return Device{}, nil, fault.Wrap(fault.Unavailable, err, "attach image %s", image.Name())
		}
	}
	return Device{}, nil, fault.New(fault.Unavailable, "attach image %s: others took every loop device that was free", image.Name())
}

// openDevice makes the device file where nobody does that by itself (a container without devtmpfs).
func openDevice(d Device) (*os.File, error) {
	f, err := os.OpenFile(d.Path(), os.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if merr := unix.Mknod(d.Path(), unix.S_IFBLK|0o600, int(d.Dev())); merr == nil || errors.Is(merr, fs.ErrExist) {
			f, err = os.OpenFile(d.Path(), os.O_RDWR|unix.O_CLOEXEC, 0)
		}
	}
	return f, fault.Wrap(fault.Unavailable, err, "open loop device %s", d.Path())
}

func configure(device, image *os.File) error {
	c := unix.LoopConfig{Fd: uint32(image.Fd()), Size: Block}
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	copy(c.Info.File_name[:len(c.Info.File_name)-1], filepath.Base(image.Name())) // for people who list devices
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &c); err != nil {
		return err
	}
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if err == nil && info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		err = errors.New("its file system cannot do direct I/O") // some kernels attach without it in silence
	}
	if err != nil {
		return errors.Join(err, clear(device))
	}
	return nil
}

func clear(device *os.File) error {
	err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil // not attached
	}
	return err
}

// Devices finds the devices of an image, wherever it was moved, and also when it was deleted since (then by the path it had). It looks at all
// loop devices of the machine.
func Devices(image string) ([]Device, error) {
	all, err := Attached()
	if err != nil {
		return nil, err
	}
	return all.Of(image)
}

// MountedAt gives the device that is mounted at a path, if it shows the image: the usual case, told without a look at all devices. Since whoever attaches
// holds the image's lock, there is no second one but by hand.
func MountedAt(path, image string) (Device, bool) {
	var at, st unix.Stat_t
	if unix.Lstat(path, &at) != nil || unix.Lstat(image, &st) != nil {
		return Device{}, false
	}
	d, ok := Of(at.Dev)
	return d, ok && d.has(st)
}

// Table is what Attached saw.
type Table map[Device]string

// Attached lists all attached devices with the paths of their images, as the kernel shows them.
func Attached() (Table, error) {
	dir, err := os.Open("/sys/block")
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "list loop devices")
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "list loop devices")
	}
	out := Table{}
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "loop"))
		if err != nil || !strings.HasPrefix(name, "loop") {
			continue
		}
		raw, err := os.ReadFile("/sys/block/" + name + "/loop/backing_file")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			continue // not attached, or not any more
		}
		if err != nil {
			return nil, fault.Wrap(fault.Unknown, err, "list loop devices")
		}
		out[Device{n}] = strings.TrimSuffix(string(raw), "\n")
	}
	return out, nil
}

// Of picks the devices of an image: by its path, and, since a path may look different from another mount namespace, by the file itself.
func (t Table) Of(image string) ([]Device, error) {
	var st unix.Stat_t
	err := unix.Lstat(image, &st)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fault.Wrap(fault.Unknown, err, "look at image %s", image)
	}
	var out []Device
	for d, path := range t {
		if path == image || path == image+" (deleted)" || (err == nil && tail(path) == tail(image) && d.has(st)) {
			out = append(out, d)
		}
	}
	return out, nil
}

// tail is a path's last two elements, by which most devices are told apart without opening them.
func tail(path string) string {
	dir, file := filepath.Split(path)
	return filepath.Base(dir) + "/" + file
}

// has tells whether a device shows a file.
func (d Device) has(st unix.Stat_t) bool {
	f, err := os.OpenFile(d.Path(), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return shows(f, st)
}

func shows(device *os.File, st unix.Stat_t) bool {
	info, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	return err == nil && info.Inode == st.Ino && info.Device == st.Dev
}

// Gone waits until no file system is mounted from the device in any namespace, nor anybody else uses it exclusively: the kernel then
// gives it exclusively. A file system lives on after its last unmount as long as a file is open, and its end takes a moment. Conflict when
// it is still alive at the end of the patience, and Unknown when that cannot be told.
func (d Device) Gone(ctx context.Context, patience time.Duration) error {
	f, err := d.exclusively(ctx, patience)
	if err != nil || f == nil {
		return err
	}
	return f.Close()
}

// exclusively gives nil when there is no such device any more.
func (d Device) exclusively(ctx context.Context, patience time.Duration) (*os.File, error) {
	end := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		f, err := os.OpenFile(d.Path(), os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO):
			return nil, nil
		case !errors.Is(err, syscall.EBUSY):
			return nil, fault.Wrap(fault.Unknown, err, "look whether %s is in use", d.Path())
		case time.Now().After(end) || ctx.Err() != nil:
			return nil, fault.New(fault.Conflict, "the file system on %s is still alive: a process or a mount in another namespace keeps it", d.Path())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Release detaches the device from an image once its file system is gone and the image is flushed, and not before. A device that
// shows another file by now is left alone.
func (d Device) Release(ctx context.Context, image *os.File, patience time.Duration) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(image.Fd()), &st); err != nil {
		return fault.Wrap(fault.Unknown, err, "look at image %s", image.Name())
	}
	f, err := d.exclusively(ctx, patience)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	if !shows(f, st) {
		return nil
	}
	if err := image.Sync(); err != nil {
		return fault.Wrap(fault.Unknown, err, "flush image %s", image.Name())
	}
	return fault.Wrap(fault.Unknown, clear(f), "detach %s", d.Path())
}

// Resize makes the device as large as its image is now. A file system on it may be mounted; it is not changed.
func (d Device) Resize() error {
	f, err := os.OpenFile(d.Path(), os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "open loop device %s", d.Path())
	}
	defer f.Close()
	return fault.Wrap(fault.Unknown, unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0), "resize %s", d.Path())
}

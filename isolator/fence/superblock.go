package fence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// A target with VerifySuperblock has a file system of its own, in the image file that Backing names. All that is done to it goes by the loop devices
// of that image, never by what happens to be mounted at the target's path: once the volume is unmounted, that is the node's own file system.

// ownStep makes a step of what concerns file systems that are the volume's own. The devices of all targets are looked up at once, and
// targets are worked on side by side, since each waits for storage.
func ownStep(one func(ctx context.Context, f *Fence, t Target, devices []loop.Device) (string, error), otherwise string) func(context.Context, *Fence, []*job) []result {
	return func(ctx context.Context, f *Fence, jobs []*job) []result {
		devices, err := devicesOf(jobs)
		if err != nil {
			return all(make([]result, len(jobs)), err)
		}
		return sideBySide(jobs, func(i int, t Target) (string, error) {
			if t.Verify != VerifySuperblock {
				return otherwise, nil
			}
			return one(ctx, f, t, devices[i])
		})
	}
}

// sideBySide does something for several targets at a time.
func sideBySide(jobs []*job, one func(i int, t Target) (string, error)) []result {
	out := make([]result, len(jobs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(len(jobs), 16) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				out[i].done, out[i].err = one(i, jobs[i].target)
			}
		}()
	}
	for i := range jobs {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

// devicesOf gives the devices of each target's image; none when the volume has no file system of its own, or it is attached nowhere.
func devicesOf(jobs []*job) ([][]loop.Device, error) {
	out := make([][]loop.Device, len(jobs))
	var attached loop.Table
	for i, j := range jobs {
		if j.target.Verify != VerifySuperblock {
			continue
		}
		if err := cleanAbs(j.target.Backing); err != nil {
			return nil, err
		}
		var err error
		if attached == nil {
			if attached, err = loop.Attached(); err != nil {
				return nil, err
			}
		}
		if out[i], err = attached.Of(j.target.Backing); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// The ioctls, of linux/fs.h and of the file systems.
const (
	ioShutdown       = 0x8004587d // FS_IOC_SHUTDOWN of ext4, xfs, f2fs
	ioThaw           = 0xc0045878 // FITHAW
	shutdownFlushLog = 1          // what the journal holds is written first: like a power cut, and what was fsynced is there
)

// shutdown tells the target's file systems to refuse all further writing, so that it ends at once and not when the last writer
// is dead. It is a brake, not a proof.
func shutdown(ctx context.Context, f *Fence, t Target, devices []loop.Device) (string, error) {
	return onFileSystem(ctx, f, t, devices, "shut down", func(fd int) error {
		how := uint32(shutdownFlushLog)
		return ioctl(fd, ioShutdown, uintptr(unsafe.Pointer(&how)))
	})
}

// thaw wakes writers of a frozen file system, who would not even die otherwise.
func thaw(ctx context.Context, f *Fence, t Target, devices []loop.Device) (string, error) {
	return onFileSystem(ctx, f, t, devices, "thaw", func(fd int) error {
		err := ioctl(fd, ioThaw, 0)
		if errors.Is(err, unix.EINVAL) {
			return errNothing // it is not frozen
		}
		return err
	})
}

// thawAll thaws the file systems that are the targets' own, and those that were frozen for a snapshot.
func thawAll(ctx context.Context, f *Fence, jobs []*job) []result {
	out := ownStep(thaw, notItsOwn)(ctx, f, jobs)
	for i, j := range jobs {
		if j.target.Verify == VerifySuperblock || j.target.FrozenUntil == 0 {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, stepLimit)
		out[i].done = done
		if err := mount.Within(limit, "thaw "+j.target.Path, func() error { return Thaw(j.target.Path) }); err != nil {
			out[i].done = fmt.Sprintf("not done: %v", err)
		}
		cancel()
	}
	return out
}

var (
	errNothing   = errors.New(nothingToDo)
	errElsewhere = errors.New("another file system is mounted there")
)

// stepLimit bounds a step that is only help: a file system that hangs must not take the time that the killing needs.
const stepLimit = 300 * time.Millisecond

// onFileSystem does something to each file system of a target that is mounted here. Neither step is needed for the proof at the end, so
// what does not work is told and does not fail the fence.
func onFileSystem(ctx context.Context, f *Fence, t Target, devices []loop.Device, verb string, do func(fd int) error) (string, error) {
	said := nothingToDo
	for _, d := range devices {
		limit, cancel := context.WithTimeout(ctx, stepLimit)
		err := mount.Within(limit, verb+" "+t.Path, func() error {
			err := onDevice(t.Path, d, do)
			if !errors.Is(err, errElsewhere) {
				return err
			}
			point, err := f.pointOf(d)
			if err != nil || point == "" {
				return errors.Join(err, errNothing)
			}
			return onDevice(point, d, do)
		})
		cancel()
		switch {
		case err == nil:
			said = done
		case !errors.Is(err, errNothing) && !errors.Is(err, errElsewhere):
			said = fmt.Sprintf("not done: %v", err)
		}
	}
	return said, nil
}

// onDevice opens a mount point and acts on the file system behind it only if that is the device's: the open file holds
// that fast.
func onDevice(point string, d loop.Device, do func(fd int) error) error {
	dir, err := os.OpenFile(point, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errElsewhere
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	if st.Dev != d.Dev() {
		return errElsewhere
	}
	return do(int(dir.Fd()))
}

// pointOf gives a place where a device is mounted in our own namespace, "" when there is none.
func (f *Fence) pointOf(d loop.Device) (string, error) {
	lines, err := readMounts(unix.AT_FDCWD, f.o.Proc+"/self/mountinfo")
	if err != nil {
		return "", err
	}
	for _, l := range lines {
		if l.device == d.Number() {
			return l.point, nil
		}
	}
	return "", nil
}

func ioctl(fd int, call uint, arg uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(call), arg); errno != 0 {
		return errno
	}
	return nil
}

// takeDown unmounts a target's file systems, here and where copies of the mount are: their users are dead, and who merely has a copy of
// our mounts lives on without this one. What stays busy is what the verification will tell.
func takeDown(ctx context.Context, _ *Fence, t Target, devices []loop.Device) (string, error) {
	said := nothingToDo
	for _, d := range devices {
		said = done
		var st unix.Stat_t
		err := mount.Within(ctx, "look at "+t.Path, func() error { return unix.Lstat(t.Path, &st) })
		if err == nil && st.Dev == d.Dev() { // the usual case, without a look at all mounts
			if err := mount.Unmount(ctx, t.Path); err == nil && d.Gone(ctx, 5*time.Millisecond) == nil {
				continue
			}
		}
		if err := mount.UnmountElsewhere(ctx, d.Number(), func(string) bool { return true }); err != nil {
			return "", err
		}
		if err := mount.UnmountHere(ctx, d.Number()); err != nil {
			return "", err
		}
	}
	return said, nil
}

// superblockGone is the proof: the kernel gives the devices of the image exclusively only when no file system lives on them, in
// whatever namespace or behind whatever open file. An image that no device shows has none.
func superblockGone(ctx context.Context, t Target, devices []loop.Device) (string, error) {
	for _, d := range devices {
		if err := d.Gone(ctx, patience); err != nil {
			return "", err
		}
	}
	return "its file system is gone", nil
}

// patience is how long the end of a file system is waited for after its last unmount.
const patience = 300 * time.Millisecond

// flushBacking is fsync of the image. The devices use direct I/O, so this is little work; but what the image's own file system still
// holds back must be out before anybody else may read it.
func flushBacking(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nothingToDo, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !(fi.Mode().IsRegular() || fi.Mode()&os.ModeDevice != 0) {
		return "", fault.New(fault.Conflict, "%s is neither file nor device (%v)", path, err)
	}
	return done, f.Sync()
}

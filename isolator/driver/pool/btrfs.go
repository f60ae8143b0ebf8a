package pool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// btrfsBack keeps volumes in subvolumes of a btrfs. It is dirBack in all that subvolumes share with directories.
type btrfsBack struct{ dirBack }

func newBtrfs(p *Pool) (backend, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(p.o.Dir, &st); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "look at %s", p.o.Dir)
	}
	if int64(uint32(st.Type)) != unix.BTRFS_SUPER_MAGIC {
		return nil, fault.New(fault.Unavailable, "%s does not lie on a btrfs", p.o.Dir)
	}
	if !p.binds {
		return nil, fault.New(fault.Unavailable, "back end btrfs deletes subvolumes and mounts, which needs root")
	}
	return btrfsBack{dirBack{p}}, nil
}

// facts: a subvolume has no superblock of its own, so that scanning is all the proof there is, as with directories.
func (btrfsBack) facts(f *driver.Facts) { f.MultiAttach = false }

func (btrfsBack) size(s volume.Bytes) (volume.Bytes, error) {
	if s < 0 || (s > 0 && s < 1<<20) {
		return 0, fault.New(fault.Invalid, "size %d is less than a mebibyte", s)
	}
	return s, nil
}

func (b btrfsBack) fill(_ context.Context, dir string, l *label, own ownership) error {
	if err := onDir(dir, func(fd int) error { return unixIoctl(fd, subvolCreate, named(dataDir)) }); err != nil {
		return fault.Wrap(writeClass(err), err, "make its subvolume")
	}
	data := filepath.Join(dir, dataDir)
	if l.Size > 0 {
		if err := limit(data, l.Size); err != nil {
			return fault.Wrap(writeClass(err), err, "limit its size to %d bytes", l.Size)
		}
	}
	return finishData(data, own)
}

// limit sets the size of a subvolume, switching quotas on when they are not yet.
func limit(data string, size volume.Bytes) error {
	return onDir(data, func(fd int) error {
		args := qgroupLimit{flags: limitReferenced, maxReferenced: uint64(size)} // qgroup 0 is that of the subvolume
		err := unixIoctl(fd, qgroupLimitCall, unsafe.Pointer(&args))
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		on := quotaControl{cmd: quotaEnable}
		if err := unixIoctl(fd, quotaCall, unsafe.Pointer(&on)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		args = qgroupLimit{flags: limitReferenced, maxReferenced: uint64(size)}
		return unixIoctl(fd, qgroupLimitCall, unsafe.Pointer(&args))
	})
}

func (b btrfsBack) mount(ctx context.Context, dir string, l label, target string) error {
	var st unix.Stat_t
	data := filepath.Join(dir, dataDir)
	if err := unix.Lstat(data, &st); err != nil || st.Ino != subvolInode {
		return fault.New(fault.Conflict, "its subvolume %s is not there", data)
	}
	return b.dirBack.mount(ctx, dir, l, target)
}

// unused: a subvolume can be deleted under a mount.
func (b btrfsBack) unused(_ context.Context, dir string) (func(), error) {
	at, err := mount.Is(b.p.target(filepath.Base(dir)))
	if err == nil && at {
		err = fault.New(fault.Conflict, "it is mounted on this node")
	}
	return func() {}, err
}

// destroy deletes the subvolume at once instead of file by file, which the kernel does behind us; subvolumes that its user made inside
// are deleted as directories.
func (btrfsBack) destroy(dir string) error {
	_ = onDir(dir, func(fd int) error { return unixIoctl(fd, subvolDestroy, named(dataDir)) })
	return os.RemoveAll(dir)
}

// What linux/btrfs.h says and golang.org/x/sys does not have.
const (
	subvolCreate    = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	subvolDestroy   = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	quotaCall       = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	qgroupLimitCall = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	quotaEnable     = 1          // BTRFS_QUOTA_CTL_ENABLE
	limitReferenced = 1          // BTRFS_QGROUP_LIMIT_MAX_RFER
	subvolInode     = 256        // of every subvolume's root
)

type subvolArgs struct {
	_    int64
	name [4088]byte
}

type quotaControl struct {
	cmd uint64
	_   uint64
}

type qgroupLimit struct {
	id            uint64
	flags         uint64
	maxReferenced uint64
	_             [3]uint64
}

func named(name string) unsafe.Pointer {
	a := new(subvolArgs)
	copy(a.name[:len(a.name)-1], name)
	return unsafe.Pointer(a)
}

func unixIoctl(fd int, call uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(call), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func onDir(dir string, f func(fd int) error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()))
}

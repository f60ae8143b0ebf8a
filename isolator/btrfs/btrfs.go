// Package btrfs makes, copies, limits and measures subvolumes by the kernel's own calls; no program is run. All calls need root.
package btrfs

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// Is tells whether a directory lies on a btrfs.
func Is(dir string) (bool, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return err == nil && int64(uint32(st.Type)) == unix.BTRFS_SUPER_MAGIC, err
}

// IsSubvolume tells whether a path is the root of a subvolume; links are not followed.
func IsSubvolume(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Ino == rootInode
}

// Create makes an empty subvolume in a directory.
func Create(dir, name string) error {
	return on(dir, func(fd int) error { return ioctl(fd, subvolCreate, named(name)) })
}

// Snapshot makes a subvolume in dir that begins as what the subvolume at source holds now, what was written and not yet synced included.
func Snapshot(source, dir, name string, readOnly bool) error {
	return on(source, func(from int) error {
		return on(dir, func(fd int) error {
			a := &snapshotArgs{fd: int64(from)}
			if readOnly {
				a.flags = snapshotReadOnly
			}
			copy(a.name[:len(a.name)-1], name)
			return ioctl(fd, snapshotCreate, unsafe.Pointer(a))
		})
	})
}

// Destroy deletes a subvolume at once instead of file by file, which the kernel does behind us. It fails while subvolumes lie in it.
func Destroy(dir, name string) error {
	return on(dir, func(fd int) error { return ioctl(fd, subvolDestroy, named(name)) })
}

// Limit sets how much a subvolume may refer to, 0 for no limit, switching the file system's quotas on when they are not yet.
func Limit(subvolume string, size volume.Bytes) error {
	return on(subvolume, func(fd int) error {
		set := func() error {
			args := qgroupLimit{flags: limitReferenced, maxReferenced: uint64(size)} // qgroup 0 is that of the subvolume
			if size == 0 {
				args.maxReferenced = ^uint64(0) // the kernel's word for none
			}
			return ioctl(fd, qgroupLimitCall, unsafe.Pointer(&args))
		}
		err := set()
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		if size == 0 {
			return nil // no quotas, no limit
		}
		on := quotaControl{cmd: quotaEnable}
		if err := ioctl(fd, quotaCall, unsafe.Pointer(&on)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return set()
	})
}

// Referenced is how much a subvolume refers to, as of the file system's last commit (at most some 30 seconds ago); false where quotas are off.
func Referenced(subvolume string) (size volume.Bytes, counted bool, err error) {
	err = on(subvolume, func(fd int) error {
		id := inoLookup{object: rootInode}
		if err := ioctl(fd, inoLookupCall, unsafe.Pointer(&id)); err != nil {
			return err
		}
		s := search{tree: quotaTree, minType: qgroupInfo, maxType: qgroupInfo, minOffset: id.tree, maxOffset: id.tree, maxTransaction: ^uint64(0), items: 1}
		err := ioctl(fd, treeSearch, unsafe.Pointer(&s))
		if errors.Is(err, unix.ENOENT) {
			return nil // there is no such tree: quotas were never on
		}
		if err != nil || s.items == 0 {
			return err
		}
		// A header of 32 bytes, then the item: generation, referenced, …
		if n := binary.NativeEndian.Uint32(s.found[28:]); n < 16 {
			return unix.EBADMSG
		}
		size, counted = volume.Bytes(binary.LittleEndian.Uint64(s.found[32+8:])), true
		return nil
	})
	return size, counted, err
}

// What linux/btrfs.h and linux/btrfs_tree.h say and golang.org/x/sys does not have.
const (
	subvolCreate    = 0x5000940e // BTRFS_IOC_SUBVOL_CREATE
	subvolDestroy   = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	snapshotCreate  = 0x50009417 // BTRFS_IOC_SNAP_CREATE_V2
	quotaCall       = 0xc0109428 // BTRFS_IOC_QUOTA_CTL
	qgroupLimitCall = 0x8030942b // BTRFS_IOC_QGROUP_LIMIT
	treeSearch      = 0xd0009411 // BTRFS_IOC_TREE_SEARCH
	inoLookupCall   = 0xd0009412 // BTRFS_IOC_INO_LOOKUP

	quotaEnable      = 1   // BTRFS_QUOTA_CTL_ENABLE
	limitReferenced  = 1   // BTRFS_QGROUP_LIMIT_MAX_RFER
	snapshotReadOnly = 2   // BTRFS_SUBVOL_RDONLY
	rootInode        = 256 // BTRFS_FIRST_FREE_OBJECTID, of every subvolume's root
	quotaTree        = 8   // BTRFS_QUOTA_TREE_OBJECTID
	qgroupInfo       = 242 // BTRFS_QGROUP_INFO_KEY
)

type subvolArgs struct {
	_    int64
	name [4088]byte
}

type snapshotArgs struct {
	fd    int64
	_     uint64
	flags uint64
	_     [4]uint64
	name  [4040]byte
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

type inoLookup struct {
	tree   uint64
	object uint64
	_      [4080]byte
}

// search is btrfs_ioctl_search_args: the key's range, then what was found.
type search struct {
	tree                           uint64
	minObject, maxObject           uint64
	minOffset, maxOffset           uint64
	minTransaction, maxTransaction uint64
	minType, maxType               uint32
	items                          uint32
	_                              uint32
	_                              [4]uint64
	found                          [4096 - 104]byte
}

func named(name string) unsafe.Pointer {
	a := new(subvolArgs)
	copy(a.name[:len(a.name)-1], name)
	return unsafe.Pointer(a)
}

func ioctl(fd int, call uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(call), uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return errno
	}
	return nil
}

func on(dir string, f func(fd int) error) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()))
}

package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// FS is how one kind of file system is made, known, grown, mended and given another UUID.
type FS struct {
	Name     string
	Least    volume.Bytes // the smallest that mkfs makes
	Metadata uint64       // space that a new one takes at once, about

	debian     string // package of its programs
	mkfs       string
	mkfsArgs   func(id string, size volume.Bytes, encrypt bool) []string
	uuidArgs   func(id string) []string // of the program that sets the UUID
	copyMount  string                   // mount options for a copy, whose twin may be mounted
	look, mend string                   // the commands for an operator
	magic      []byte
	magicAt    int
	uuidAt     int
	counts     func(head []byte) Counts
	grow       func(point *os.File, size int64) error
}

// Counts is what a superblock says of a file system that is not mounted, in bytes and inodes.
type Counts struct {
	Size, Free         volume.Bytes
	Inodes, InodesFree uint64
}

const headSize = 4096

var kinds = map[string]FS{
	"ext4": {Name: "ext4", Least: 8 << 20, Metadata: 4 << 20, debian: "e2fsprogs", mkfs: "mkfs.ext4",
		mkfsArgs: func(id string, size volume.Bytes, encrypt bool) []string {
			extended := "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
			if size < volume.GiB { // those above have room for group descriptors for a thousand times their size without asking
				extended += ",resize=268435456" // blocks: 1 TiB
			}
			features := "metadata_csum_seed" // a clone's new UUID is then written without a pass over the whole file system
			if encrypt {
				features += ",encrypt"
			}
			return []string{"-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro", "-U", id, "-O", features, "-E", extended}
		},
		uuidArgs: func(id string) []string { return []string{"tune2fs", "-U", id} },
		look:     "e2fsck -f -n", mend: "e2fsck -f -y",
		magic: []byte{0x53, 0xef}, magicAt: 1024 + 0x38, uuidAt: 1024 + 0x68, counts: ext4Counts, grow: growExt4},
	"xfs": {Name: "xfs", Least: 300 << 20, Metadata: 16 << 20, debian: "xfsprogs", mkfs: "mkfs.xfs",
		mkfsArgs: func(id string, _ volume.Bytes, _ bool) []string {
			return []string{"-q", "-K", "-s", "size=4096", "-m", "uuid=" + id}
		},
		uuidArgs:  func(id string) []string { return []string{"xfs_admin", "-U", id} },
		copyMount: "nouuid",
		look:      "xfs_repair -n", mend: "xfs_repair",
		magic: []byte("XFSB"), magicAt: 0, uuidAt: 32, counts: xfsCounts, grow: growXFS},
}

// Lookup gives a kind of file system; fault.Invalid when it is unknown.
func Lookup(name string) (FS, error) {
	f, ok := kinds[name]
	if !ok {
		return f, fault.New(fault.Invalid, "file system %q is neither ext4 nor xfs", name)
	}
	return f, nil
}

// TwinOptions are the mount options for an image whose file system has the UUID of another that may be mounted.
func (f FS) TwinOptions() string { return f.copyMount }

// MayGrowShown tells whether this process may have the kernel grow a mounted ext4 (CAP_SYS_RESOURCE).
func MayGrowShown() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// Make makes the file system in an image of a size. encrypt lets directories in it be encrypted (ext4). All arguments are ours.
func (f FS) Make(ctx context.Context, path, id string, size volume.Bytes, encrypt bool) error {
	said, _, err := f.run(ctx, path, nil, append([]string{f.mkfs}, f.mkfsArgs(id, size, encrypt)...)...)
	if err == nil {
		return nil
	}
	if bytes.Contains(said, []byte("No space left")) {
		return fault.New(fault.Unavailable, "the pool is full: %s: %.300s", f.mkfs, said)
	}
	return fault.Wrap(fault.Unavailable, err, "%s: %.300s", f.mkfs, said)
}

// SetUUID gives a clean file system, which is not mounted, another UUID.
func (f FS) SetUUID(ctx context.Context, path, id string) error {
	args := f.uuidArgs(id)
	said, _, err := f.run(ctx, path, nil, args...)
	if err != nil && f.Name == "ext4" { // of before metadata_csum_seed: it must have been checked
		if _, status, _ := f.run(ctx, path, nil, "e2fsck", "-f", "-p"); status == 0 || status == 1 {
			said, _, err = f.run(ctx, path, nil, args...)
		}
	}
	return fault.Wrap(fault.Unavailable, err, "%s: %.300s", args[0], said)
}

// run calls a program of the file system's package on an image. lock, when there is one, is given to it, so that the image stays locked for as long as the program
// lives, even if we do not. The program is killed at the end of ctx only where there is none.
func (f FS) run(ctx context.Context, path string, lock *os.File, argv ...string) (said []byte, status int, err error) {
	program, err := findProgram(argv[0])
	if err != nil {
		return nil, -1, fault.Wrap(fault.Unavailable, err, "Debian package %s", f.debian)
	}
	until := ctx
	if lock != nil {
		until = context.WithoutCancel(ctx)
	}
	cmd := exec.CommandContext(until, program, append(argv[1:], filepath.Base(path))...)
	cmd.Dir = filepath.Dir(path)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	if lock != nil {
		cmd.ExtraFiles = []*os.File{lock}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if lock == nil {
		err = cmd.Run()
	} else if err = mount.Within(ctx, argv[0]+" "+path, cmd.Run); fault.Is(err, fault.Unknown) || fault.Is(err, fault.Unavailable) {
		return nil, -1, err // given up on: what it says is still being written
	}
	status = -1
	if cmd.ProcessState != nil {
		status = cmd.ProcessState.ExitCode()
	}
	return bytes.TrimSpace(out.Bytes()), status, err
}

// findProgram looks where system programs are, too: a service's PATH may not have them.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if fi, serr := os.Stat(filepath.Join(dir, name)); serr == nil && fi.Mode()&0o111 != 0 {
			return filepath.Join(dir, name), nil
		}
	}
	return "", err
}

// identify finds the file system's UUID in the head of an image.
func (f FS) identify(head []byte) (string, bool) {
	if !bytes.Equal(head[f.magicAt:f.magicAt+len(f.magic)], f.magic) {
		return "", false
	}
	id, err := uuid.FromBytes(head[f.uuidAt : f.uuidAt+16])
	return id.String(), err == nil
}

// Counts reads the superblock in the image. The numbers are those of the last clean unmount.
func (i Image) Counts() (Counts, error) {
	image, err := os.OpenFile(i.Path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Counts{}, fault.Wrap(fault.Unknown, err, "open its image")
	}
	defer image.Close()
	head := make([]byte, headSize)
	if _, err := image.ReadAt(head, 0); err != nil {
		return Counts{}, fault.Wrap(fault.Unknown, err, "read its image")
	}
	if _, ok := i.FS.identify(head); !ok {
		return Counts{}, fault.New(fault.Conflict, "its image holds no %s", i.FS.Name)
	}
	return i.FS.counts(head), nil
}

func ext4Counts(head []byte) Counts {
	sb := head[1024:]
	le := binary.LittleEndian
	block := volume.Bytes(1024) << min(le.Uint32(sb[0x18:]), 6)
	wide := func(low, high int) volume.Bytes {
		return (volume.Bytes(le.Uint32(sb[high:])&0x3fff)<<32 | volume.Bytes(le.Uint32(sb[low:]))) * block // 2^62 at most: it may be no superblock
	}
	return Counts{Size: wide(0x04, 0x150), Free: wide(0x0c, 0x158), Inodes: uint64(le.Uint32(sb)), InodesFree: uint64(le.Uint32(sb[0x10:]))}
}

func xfsCounts(sb []byte) Counts {
	be := binary.BigEndian
	block := volume.Bytes(min(be.Uint32(sb[4:]), 1<<16))
	bytes := func(at int) volume.Bytes { return volume.Bytes(be.Uint64(sb[at:])&(1<<46-1)) * block }
	free := bytes(144)
	// Inodes are made of free blocks as they are needed.
	used := be.Uint64(sb[128:]) - be.Uint64(sb[136:])
	size := uint64(max(1, min(be.Uint16(sb[104:]), 4096)))
	data := max(0, bytes(8)-volume.Bytes(be.Uint32(sb[96:]))*block) // without the log
	return Counts{Size: data, Free: free, Inodes: be.Uint64(sb[128:]) + uint64(free)/size, InodesFree: be.Uint64(sb[128:]) + uint64(free)/size - used}
}

var errNeedsRight = errors.New("the kernel grows a mounted ext4 only for processes with CAP_SYS_RESOURCE, which this one does not have")

// GrowShown enlarges the device and the file system that is mounted from it at the target, to the size that the file has by now. because, when not empty, says why it is not
// possible while it is mounted.
func (i Image) GrowShown(device loop.Device, size volume.Bytes) (because string, err error) {
	if err := device.Resize(); err != nil {
		return "", err
	}
	CrashAt("grow.device")
	err = i.growAt(i.Target, int64(size))
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, errNeedsRight):
		return err.Error(), nil
	}
	return fmt.Sprintf("the kernel does not grow the mounted %s (%v)", i.FS.Name, err), nil
}

func (i Image) growAt(point string, size int64) error {
	f, err := os.OpenFile(point, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return i.FS.grow(f, size)
}

// GrowTaken grows the file system in a locked image that is not mounted to the size of the image: by the kernel at a staging point where it does, by resize2fs
// otherwise. resize2fs keeps no journal: begin makes a note before it, and where that note is found (cut) because somebody was killed meanwhile, what
// it left is mended whatever there is to mend; before it nothing was damaged.
func (i Image) GrowTaken(ctx context.Context, image *os.File, size volume.Bytes, cut bool, begin func() error) error {
	if !cut {
		refused, err := i.growStaged(ctx, image, size)
		if err != nil || refused == nil {
			return err
		}
		if i.FS.Name != "ext4" {
			return fault.Wrap(fault.Unknown, refused, "grow its %s", i.FS.Name)
		}
	}
	how := map[bool]string{false: Preen, true: Repair}[cut]
	if clean, said, err := i.FS.Check(ctx, image, how); err != nil || !clean {
		return firstError(err, fault.New(fault.Conflict, "before it can grow its ext4 must be mended: %.300s; %s", said, i.Remedy()))
	}
	if err := begin(); err != nil {
		return err
	}
	CrashAt("regrow.begun")
	said, _, err := i.FS.run(ctx, i.Path, image, "resize2fs")
	CrashAt("regrow.resized")
	if err != nil {
		return fault.Op(fault.Wrap(fault.Unknown, err, "resize2fs: %.300s", said), "grow its ext4")
	}
	return fault.Wrap(fault.Unknown, image.Sync(), "flush its image")
}

// growStaged has the kernel grow it at the staging point; refused says why it does not.
func (i Image) growStaged(ctx context.Context, image *os.File, size volume.Bytes) (refused, err error) {
	device, err := i.Attached(ctx, "regrow", image, i.FS.copyMount, func(stage string) error {
		refused = i.growAt(stage, int64(size))
		return nil
	})
	if serr := i.letGo(ctx, device, image); err == nil {
		err = serr
	}
	return refused, err
}

// MostGrown is the size to which the file system in an image can grow; 0 where there is no limit. An ext4 has room for the descriptors of so many groups and no more: beyond it
// they would have to be moved, which resize2fs is not trusted with.
func (i Image) MostGrown(image *os.File) (volume.Bytes, error) {
	if i.FS.Name != "ext4" {
		return 0, nil
	}
	head := make([]byte, headSize)
	if _, err := image.ReadAt(head, 0); err != nil {
		return 0, fault.Wrap(fault.Unknown, err, "read its image")
	}
	return ext4Most(head), nil
}

func ext4Most(head []byte) volume.Bytes {
	sb, le := head[1024:], binary.LittleEndian
	block := volume.Bytes(1024) << min(le.Uint32(sb[0x18:]), 6)
	group := volume.Bytes(max(1, min(le.Uint32(sb[0x20:]), 1<<19))) * block
	size := ext4Counts(head).Size
	descriptor := volume.Bytes(32)
	if le.Uint32(sb[0x60:])&0x80 != 0 { // 64bit
		descriptor = volume.Bytes(max(32, min(le.Uint16(sb[0xfe:]), 1024)))
	}
	perBlock := block / descriptor
	have := ((size+group-1)/group + perBlock - 1) / perBlock // blocks of descriptors
	return (have + volume.Bytes(le.Uint16(sb[0xce:]))) * perBlock * group
}

// letGo takes down what Attached left of an image whose lock we have by the same file: the staging mount and the device, not the lock.
func (i Image) letGo(ctx context.Context, device *loop.Device, image *os.File) error {
	if device == nil {
		return nil
	}
	if err := mount.Hide(ctx, i.stage()); err != nil {
		return err
	}
	return i.release(ctx, *device, image)
}

// The kernel's calls to grow a mounted file system, from linux/ext4.h and xfs_fs.h.
const (
	ext4Resize  = 0x40086610 // EXT4_IOC_RESIZE_FS
	xfsGeometry = 0x80705864 // XFS_IOC_FSGEOMETRY_V1
	xfsGrow     = 0x4010586e // XFS_IOC_FSGROWFSDATA
)

func growExt4(point *os.File, size int64) error {
	blocks := uint64(size) / 4096
	err := ioctl(point, ext4Resize, &blocks)
	if errors.Is(err, unix.EPERM) {
		return errNeedsRight
	}
	return err
}

func growXFS(point *os.File, size int64) error {
	var geometry struct {
		block, _, _, _, _, _, _, imaxpct uint32
		blocks                           uint64
		_                                [72]byte
	}
	if err := ioctl(point, xfsGeometry, &geometry); err != nil {
		return err
	}
	grow := struct {
		blocks  uint64
		imaxpct uint32
		_       uint32
	}{blocks: uint64(size) / uint64(max(1, geometry.block)), imaxpct: geometry.imaxpct}
	if grow.blocks <= geometry.blocks {
		return nil
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := ioctl(point, xfsGrow, &grow)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) { // somebody else grows it just now
			return err
		}
	}
}

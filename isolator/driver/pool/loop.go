package pool

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

const imageFile = "image"

// patience is how long the end of a file system is waited for after its last unmount, the calls of a stuck process not counted.
const patience = time.Second

// loopBack keeps each volume in a file system of its own in a sparse file. The file system's root holds a second label and data/, which is
// what tasks get; so the root of a volume is as empty as that of a directory, and an image that was exchanged is noticed.
//
// A mount goes by way of a staging point ".<name>" beside the target: the whole file system there, data/ bound to the target, the
// staging mount removed. A process that was killed in between leaves a device, and perhaps the staging mount, which unmount takes down by
// name and image.
type loopBack struct {
	p  *Pool
	fs fileSystem
}

func newLoop(p *Pool, name string) (backend, error) {
	f, ok := fileSystems[name]
	if !ok {
		return nil, fault.New(fault.Invalid, "file system %q is neither ext4 nor xfs", name)
	}
	if !p.binds {
		return nil, fault.New(fault.Unavailable, "back end loop mounts file systems, which needs root")
	}
	return &loopBack{p: p, fs: f}, nil
}

func (b *loopBack) facts(f *driver.Facts) {
	f.Verify, f.FlushOnUnmount, f.SelfAttach = driver.VerifySuperblock, true, true
	f.MultiAttach = false // two kernels in one ext4 destroy it
}

func (b *loopBack) size(s volume.Bytes) (volume.Bytes, error) {
	if s <= 0 {
		return 0, fault.New(fault.Invalid, "a volume of this pool needs a size (option size=…): its file system is made in that size")
	}
	if s < b.fs.least {
		return 0, fault.New(fault.Invalid, "size %d is less than the %d bytes that %s needs", s, b.fs.least, b.fs.name)
	}
	if s > 1<<50 {
		return 0, fault.New(fault.Invalid, "size %d is more than a pebibyte", s)
	}
	return (s + loop.Block - 1) / loop.Block * loop.Block, nil
}

// fill makes the image, and once mounts it to make what is in it.
func (b *loopBack) fill(ctx context.Context, dir string, l *label, own ownership) error {
	if err := b.room(); err != nil {
		return err
	}
	l.FS, l.FSUUID = b.fs.name, uuid.NewString()
	path := filepath.Join(dir, imageFile)
	image, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fault.Wrap(writeClass(err), err, "make its image")
	}
	defer image.Close()
	if err := image.Truncate(int64(l.Size)); err != nil {
		return fault.Wrap(writeClass(err), err, "make its image of %d bytes", l.Size)
	}
	crashAt("create.image")
	if err := b.fs.make(ctx, dir, l.FSUUID); err != nil {
		return err
	}
	crashAt("create.made")
	if err := loop.Lock(image); err != nil {
		return err
	}
	target := filepath.Join(b.p.o.Mounts, filepath.Base(dir))
	device, err := b.attached(ctx, "create", image, target, l.FS, func(stage string) error {
		data := filepath.Join(stage, dataDir)
		if err := os.Mkdir(data, 0o755); err != nil {
			return fault.Wrap(writeClass(err), err, "make its data directory")
		}
		if err := finishData(data, own); err != nil {
			return err
		}
		return writeLabel(stage, label{V: 1, UID: l.UID, Name: l.Name, Cluster: l.Cluster, Created: l.Created, FSUUID: l.FSUUID})
	})
	// Also when it went well: nothing of it is mounted until somebody mounts it.
	_ = image.Close() // the lock is the device's alone now
	if serr := b.settle(ctx, "create", path, target, device); err == nil {
		err = serr
	}
	return err
}

// room refuses to begin what a full pool would leave half done. A sparse image takes its space later, and a pool can be given away
// more than once: this says nothing of that.
func (b *loopBack) room() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.p.o.Dir, &st); err != nil {
		return fault.Wrap(fault.Unavailable, err, "look at the pool's free space")
	}
	if free := st.Bavail * uint64(st.Bsize); free < b.fs.metadata {
		return fault.New(fault.Unavailable, "the pool is full: %d bytes are free in %s", free, b.p.o.Dir)
	}
	return nil
}

// attached makes a device of a locked image, mounts it at the staging point and calls f. It undoes nothing, and gives the device, nil when there
// is none.
func (b *loopBack) attached(ctx context.Context, verb string, image *os.File, target, fsType string, f func(stage string) error) (*loop.Device, error) {
	device, open, err := loop.Attach(image)
	if err != nil {
		return nil, err
	}
	defer open.Close() // until then no other image can be behind the device's name
	crashAt(verb + ".attached")
	stage := stageOf(target)
	if err := os.Mkdir(stage, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return &device, fault.Wrap(writeClass(err), err, "make mount point")
	}
	err = mount.Within(ctx, "mount "+stage, func() error {
		err := unix.Mount(device.Path(), stage, fsType, unix.MS_NOSUID|unix.MS_NODEV, b.fs.options)
		if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EINVAL) {
			return fault.Wrap(fault.Conflict, err, "its %s is damaged and must be repaired by hand (fsck on %s)", fsType, image.Name())
		}
		return fault.Wrap(fault.Unknown, err, "mount its %s", fsType)
	})
	crashAt(verb + ".staged")
	if err == nil {
		err = f(stage)
	}
	crashAt(verb + ".filled")
	if err == nil {
		err = unbind(ctx, stage)
	}
	return &device, err
}

func stageOf(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target))
}

func (b *loopBack) mount(ctx context.Context, dir string, l label, target string) error {
	image, err := loop.OpenImage(filepath.Join(dir, imageFile))
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "open its image")
	}
	defer image.Close()
	at, err := mount.Is(target)
	if err != nil {
		return err
	}
	if at {
		return sameImage(image, target)
	}
	if err := b.lock(ctx, image, target); err != nil {
		return err
	}
	if err := b.checkImage(image, l); err != nil {
		return err
	}
	device, err := b.attached(ctx, "mount", image, target, l.FS, func(stage string) error {
		if err := checkInside(stage, l); err != nil {
			return err
		}
		return bind(ctx, filepath.Join(stage, dataDir), target)
	})
	if err == nil {
		return nil
	}
	_ = image.Close() // the lock is the device's alone now
	if uerr := b.settle(ctx, "undo", image.Name(), target, device); uerr != nil {
		return fault.Op(err, "%v (and it could not be undone: %v)", err, uerr)
	}
	return err
}

// sameImage tells whether it is this image that is mounted.
func sameImage(image *os.File, target string) error {
	device, err := deviceAt(target)
	if err != nil {
		return err
	}
	devices, err := loop.Devices(image.Name())
	if err != nil {
		return err
	}
	for _, d := range devices {
		if device != nil && d == *device {
			return nil
		}
	}
	return fault.New(fault.Conflict, "something else is mounted at %s", target)
}

// deviceAt gives the loop device that is mounted at a place, nil when it is none.
func deviceAt(point string) (*loop.Device, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, point, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "look at %s", point)
	}
	d, ok := loop.Of(unix.Mkdev(st.Dev_major, st.Dev_minor))
	if !ok {
		return nil, nil
	}
	return &d, nil
}

// lock takes the image for a new device. What dead processes left attached is detached, if its file system is gone.
func (b *loopBack) lock(ctx context.Context, image *os.File, target string) error {
	err := loop.Lock(image)
	if !fault.Is(err, fault.Conflict) {
		return err
	}
	if is, merr := mount.Is(target); merr != nil || is {
		return firstError(merr, err)
	}
	return b.releaseAll(ctx, image, target)
}

// releaseAll detaches every device of an image and ends with the image's lock, which proves that none is left.
func (b *loopBack) releaseAll(ctx context.Context, image *os.File, target string) error {
	devices, err := loop.Devices(image.Name())
	if err != nil {
		return err
	}
	for _, d := range devices {
		if err := b.release(ctx, d, image, target); err != nil {
			return err
		}
	}
	return lockSoon(ctx, image)
}

// release detaches a device whose file system is gone. Copies of our own mount in the namespaces of processes that were started
// meanwhile are removed; whatever else keeps the file system alive is a user, and the volume is not unmounted.
func (b *loopBack) release(ctx context.Context, d loop.Device, image *os.File, target string) error {
	err := d.Release(ctx, image, 50*time.Millisecond)
	if !fault.Is(err, fault.Conflict) {
		return err
	}
	stage := stageOf(target)
	if err := mount.UnmountElsewhere(ctx, d.Number(), func(p string) bool { return p == target || p == stage }); err != nil {
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

// checkImage makes sure, before anything is mounted, that the image is the one that was made for this volume.
func (b *loopBack) checkImage(image *os.File, l label) error {
	fi, err := image.Stat()
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "look at its image")
	}
	if l.FS != b.fs.name || fi.Size() != int64(l.Size) {
		return fault.New(fault.Conflict, "its image has %d bytes, its label says %d bytes of %s", fi.Size(), l.Size, l.FS)
	}
	head := make([]byte, 4096)
	if _, err := image.ReadAt(head, 0); err != nil {
		return fault.Wrap(fault.Unknown, err, "read its image")
	}
	found, ok := b.fs.identify(head)
	if !ok {
		return fault.New(fault.Conflict, "its image holds no %s", l.FS)
	}
	if found != l.FSUUID {
		return fault.New(fault.Conflict, "its image holds file system %s, its label says %s", found, l.FSUUID)
	}
	return nil
}

// checkInside compares the label in the file system with the one beside the image. An adopted volume has a new uid outside, and
// remembers the one that it was made with.
func checkInside(stage string, l label) error {
	in, err := readLabel(stage)
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "the label inside its image")
	}
	known := in.UID == l.UID
	for _, former := range l.Former {
		known = known || in.UID == former
	}
	if !known || in.FSUUID != l.FSUUID {
		return fault.New(fault.Conflict, "the label inside its image is of volume %s with uid %s, the one beside it of uid %s", in.Name, in.UID, l.UID)
	}
	if fi, err := os.Lstat(filepath.Join(stage, dataDir)); err != nil || !fi.IsDir() {
		return fault.New(fault.Conflict, "there is no data directory in its image")
	}
	return nil
}

func (b *loopBack) unmount(ctx context.Context, dir, target string) error {
	var device *loop.Device
	if at, err := mount.Is(target); err != nil {
		return err
	} else if at {
		if device, err = deviceAt(target); err != nil {
			return err
		}
	}
	return b.settle(ctx, "unmount", filepath.Join(dir, imageFile), target, device)
}

// settle takes down everything of an image: the mounts at target and at the staging point, then its device, which is only let go when no
// file system is mounted from it in any namespace and the image is flushed. hint is the device, if known.
func (b *loopBack) settle(ctx context.Context, verb, path, target string, hint *loop.Device) error {
	for _, point := range []string{stageOf(target), target} {
		if err := unbind(ctx, point); err != nil {
			return err
		}
	}
	crashAt(verb + ".unbound")
	image, err := loop.OpenImage(path)
	if fault.Is(err, fault.NotFound) {
		return b.orphaned(path)
	}
	if err != nil {
		return err
	}
	defer image.Close()
	if hint != nil {
		if err := b.release(ctx, *hint, image, target); err != nil {
			return err
		}
	}
	crashAt(verb + ".detached")
	err = loop.Lock(image)
	if fault.Is(err, fault.Conflict) {
		err = b.releaseAll(ctx, image, target)
	}
	if err != nil {
		return err
	}
	return fault.Wrap(fault.Unknown, image.Sync(), "flush its image")
}

// orphaned refuses to call unmounted what is still attached although its image was taken away.
func (b *loopBack) orphaned(path string) error {
	devices, err := loop.Devices(path)
	if err != nil || len(devices) == 0 {
		return err
	}
	return fault.New(fault.Conflict, "its image %s is gone while %s shows it: it cannot be flushed", path, devices[0].Path())
}

func (b *loopBack) unused(ctx context.Context, dir string) (func(), error) {
	image, err := loop.OpenImage(filepath.Join(dir, imageFile))
	if fault.Is(err, fault.NotFound) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := b.lock(ctx, image, filepath.Join(b.p.o.Mounts, filepath.Base(dir))); err != nil {
		_ = image.Close()
		return nil, err
	}
	return func() { _ = image.Close() }, nil
}

// destroy deletes an image, after what a killed maker left of it was taken down.
func (b *loopBack) destroy(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	path := filepath.Join(dir, imageFile)
	if err := b.settle(ctx, "destroy", path, filepath.Join(b.p.o.Mounts, filepath.Base(dir)), nil); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// fileSystem is how one kind of file system is made, known and mounted.
type fileSystem struct {
	name     string
	least    volume.Bytes // the smallest that mkfs makes
	metadata uint64       // space that a new one takes at once, about
	command  string
	debian   string // package
	args     func(uuid string) []string
	options  string
	magic    []byte
	magicAt  int
	uuidAt   int
}

var fileSystems = map[string]fileSystem{
	"ext4": {name: "ext4", least: 8 << 20, metadata: 4 << 20, command: "mkfs.ext4", debian: "e2fsprogs",
		args: func(id string) []string {
			return []string{"-q", "-F", "-b", "4096", "-m", "0", "-e", "remount-ro", "-U", id, "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", imageFile}
		},
		magic: []byte{0x53, 0xef}, magicAt: 1024 + 0x38, uuidAt: 1024 + 0x68},
	"xfs": {name: "xfs", least: 300 << 20, metadata: 16 << 20, command: "mkfs.xfs", debian: "xfsprogs",
		args: func(id string) []string {
			return []string{"-q", "-K", "-s", "size=4096", "-m", "uuid=" + id, imageFile}
		},
		magic: []byte("XFSB"), magicAt: 0, uuidAt: 32},
}

// identify finds the file system's UUID in the first 4 KiB of an image.
func (f fileSystem) identify(head []byte) (string, bool) {
	if !bytes.Equal(head[f.magicAt:f.magicAt+len(f.magic)], f.magic) {
		return "", false
	}
	id, err := uuid.FromBytes(head[f.uuidAt : f.uuidAt+16])
	return id.String(), err == nil
}

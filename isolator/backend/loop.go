package backend

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/image"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

const imageFile = "image"

// loopBack keeps each volume in a file system of its own in a sparse file (isolator/image). The file system's root holds a second label beside data/, so that an
// image that was exchanged is noticed.
type loopBack struct {
	p        Pool
	fs       image.FS
	reflinks bool // files of the pool can share blocks
}

// NewLoop keeps volumes in images with a file system of a kind.
func NewLoop(p Pool, name string) (Content, error) {
	f, err := image.Lookup(name)
	if err != nil {
		return nil, err
	}
	if !p.Binds {
		return nil, fault.New(fault.Unavailable, "back end loop mounts file systems, which needs root")
	}
	return &loopBack{p: p, fs: f, reflinks: image.Reflinks(p.Work)}, nil
}

func (b *loopBack) image(dir, target string) image.Image {
	return image.Image{Path: filepath.Join(dir, imageFile), Target: target, FS: b.fs}
}

// hidden is the image of a directory of .new, .bin and the like, which is never shown.
func (b *loopBack) hidden(dir string) image.Image {
	return b.image(dir, filepath.Join(b.p.Mounts, filepath.Base(dir)))
}

func (b *loopBack) Facts(f *driver.Facts) {
	f.Verify, f.FlushOnUnmount, f.SelfAttach = driver.VerifySuperblock, true, true
	f.MultiAttach = false // two kernels in one ext4 destroy it
	f.LimitsSize, f.Freeze = true, true
	f.Encrypts = b.fs.Name == "ext4" && b.p.Key.Given()
	f.Snapshots, f.Clones = b.copies(), b.copies()
	f.Grows = driver.GrowsOnline
	if b.fs.Name == "ext4" && !image.MayGrowShown() {
		f.Grows = driver.GrowsOffline
	}
}

// copies tells whether images may be copied at all.
func (b *loopBack) copies() bool { return b.reflinks || b.p.FullCopies }

func (b *loopBack) Size(s volume.Bytes) (volume.Bytes, error) {
	if s <= 0 {
		return 0, fault.New(fault.Invalid, "a volume of this pool needs a size (option size=…): its file system is made in that size")
	}
	if s < b.fs.Least {
		return 0, fault.New(fault.Invalid, "size %d is less than the %d bytes that %s needs", s, b.fs.Least, b.fs.Name)
	}
	if s > 1<<50 {
		return 0, fault.New(fault.Invalid, "size %d is more than a pebibyte", s)
	}
	return (s + loop.Block - 1) / loop.Block * loop.Block, nil
}

// fill makes the image, and once mounts it to make what is in it.
func (b *loopBack) Fill(ctx context.Context, dir string, l *Label, own Ownership) error {
	if err := b.room(b.fs.Metadata); err != nil {
		return err
	}
	l.FS, l.FSUUID = b.fs.Name, uuid.NewString()
	i := b.hidden(dir)
	file, err := os.OpenFile(i.Path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fault.Wrap(WriteClass(err), err, "make its image")
	}
	defer file.Close()
	if err := file.Truncate(int64(l.Size)); err != nil {
		return fault.Wrap(WriteClass(err), err, "make its image of %d bytes", l.Size)
	}
	image.CrashAt("create.image")
	if err := b.fs.Make(ctx, i.Path, l.FSUUID, l.Size, l.Encrypt != nil); err != nil {
		return err
	}
	image.CrashAt("create.made")
	if err := loop.Lock(file); err != nil {
		return err
	}
	return b.once(ctx, "create", i, file, "", func(stage string) error {
		data := filepath.Join(stage, DataDir)
		if err := os.Mkdir(data, 0o755); err != nil {
			return fault.Wrap(WriteClass(err), err, "make its data directory")
		}
		if err := b.protect(ctx, data, l); err != nil {
			return err
		}
		if err := finishData(data, own); err != nil {
			return err
		}
		return WriteLabel(stage, inner(*l))
	})
}

// inner is the label in the image.
func inner(l Label) Label {
	return Label{V: 1, UID: l.UID, Name: l.Name, Cluster: l.Cluster, Created: l.Created, FSUUID: l.FSUUID}
}

// once mounts a locked image for the time of f only, and lets go of the lock.
func (b *loopBack) once(ctx context.Context, verb string, i image.Image, file *os.File, options string, f func(stage string) error) error {
	device, err := i.Attached(ctx, verb, file, options, f)
	_ = file.Close() // the lock is the device's alone now
	if serr := i.Settle(ctx, verb, device); err == nil {
		err = serr
	}
	return err
}

// room refuses to begin what a full pool would leave half done. A sparse image takes its space later, and a pool can be given away
// more than once: this says nothing of that.
func (b *loopBack) room(need uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.p.Dir, &st); err != nil {
		return fault.Wrap(fault.Unavailable, err, "look at the pool's free space")
	}
	if free := st.Bavail * uint64(st.Bsize); free < need {
		return fault.New(fault.Unavailable, "the pool is full: %d bytes are free in %s, and %d are needed", free, b.p.Dir, need)
	}
	return nil
}

func (b *loopBack) Mount(ctx context.Context, dir string, l Label, target string) error {
	i := b.image(dir, target)
	file, err := loop.OpenImage(i.Path)
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "open its image")
	}
	defer file.Close()
	if at, err := i.Shown(file); err != nil || at {
		return err
	}
	if err := i.Take(ctx, file); err != nil {
		return err
	}
	if err := b.checkImage(i, file, l); err != nil {
		return err
	}
	if !l.Resizing { // what that left is mended before it is gone on with
		if err := b.preen(ctx, i, file, dir, &l); err != nil {
			return err
		}
	}
	if l.Grow > 0 {
		if err := b.finishGrow(ctx, i, file, dir, &l); err != nil {
			return err
		}
	}
	return b.show(ctx, "mount", i, file, "", l)
}

// show mounts a locked image at its target, or leaves nothing.
func (b *loopBack) show(ctx context.Context, verb string, i image.Image, file *os.File, options string, l Label) error {
	key, err := b.key(ctx, l)
	if err != nil {
		return err
	}
	if key != nil {
		defer key.Forget()
	}
	device, err := i.Attached(ctx, verb, file, options, func(stage string) error {
		if err := checkInside(stage, l); err != nil {
			return err
		}
		data := filepath.Join(stage, DataDir)
		if err := unlock(data, key); err != nil {
			return err
		}
		return mount.Show(ctx, data, i.Target)
	})
	if err == nil {
		return nil
	}
	_ = file.Close() // the lock is the device's alone now
	if uerr := i.Settle(ctx, "undo", device); uerr != nil {
		return fault.Op(err, "%v (and it could not be undone: %v)", err, uerr)
	}
	return err
}

// checkImage makes sure, before anything is mounted, that the image is the one that was made for this volume.
func (b *loopBack) checkImage(i image.Image, file *os.File, l Label) error {
	fi, err := file.Stat()
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "look at its image")
	}
	if l.FS != b.fs.Name || (fi.Size() != int64(l.Size) && (l.Grow == 0 || fi.Size() != int64(l.Grow))) {
		return fault.New(fault.Conflict, "its image has %d bytes, its label says %d bytes of %s", fi.Size(), l.Size, l.FS)
	}
	return i.Identify(file, l.FSUUID)
}

// checkInside compares the label in the file system with the one beside the image. An adopted volume has a new uid outside, and
// remembers the one that it was made with.
func checkInside(stage string, l Label) error {
	in, err := ReadLabel(stage)
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
	if fi, err := os.Lstat(filepath.Join(stage, DataDir)); err != nil || !fi.IsDir() {
		return fault.New(fault.Conflict, "there is no data directory in its image")
	}
	return nil
}

func (b *loopBack) Unmount(ctx context.Context, dir, target string) error {
	i := b.image(dir, target)
	device, err := i.Device()
	if err != nil {
		return err
	}
	l, lerr := ReadLabel(dir)
	if lerr == nil && l.Encrypt != nil && device != nil {
		if err := lockAway(ctx, target, l.Encrypt.Key); err != nil {
			return err
		}
	}
	if err := i.Settle(ctx, "unmount", device); err != nil {
		return err
	}
	if lerr == nil && l.Open {
		l.Open = false
		if err := WriteLabel(dir, l); err != nil && !IsFull(err) { // it is unmounted all the same; the next mount asks in vain
			return err
		}
	}
	return nil
}

func (b *loopBack) Unused(ctx context.Context, dir string) (func(), error) {
	file, err := b.hidden(dir).Open(ctx)
	if fault.Is(err, fault.NotFound) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

// destroy deletes an image, after what a killed maker left of it was taken down.
func (b *loopBack) Destroy(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.hidden(dir).Settle(ctx, "destroy", nil); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// grow enlarges the image and then the file system, now where that is possible and at the next mount otherwise. The label knows the
// wish before anything is done.
func (b *loopBack) Grow(ctx context.Context, dir, target string, l *Label, size volume.Bytes) (string, error) {
	i := b.image(dir, target)
	file, err := loop.OpenImage(i.Path)
	if err != nil {
		return "", fault.Wrap(fault.Conflict, err, "open its image")
	}
	defer file.Close()
	shown, err := i.Shown(file)
	if err != nil {
		return "", err
	}
	if !shown {
		if err := i.Take(ctx, file); err != nil {
			return "", err
		}
	}
	if err := b.checkImage(i, file, *l); err != nil {
		return "", err
	}
	if err := FirstError(b.mayGrow(i, file, size), b.room(uint64(size-l.Size))); err != nil {
		return "", err
	}
	if l.Grow != size {
		l.Grow = size
		if err := WriteLabel(dir, *l); err != nil {
			return "", err
		}
	}
	image.CrashAt("grow.recorded")
	if !shown {
		return "", b.finishGrow(ctx, i, file, dir, l)
	}
	device, err := i.Device()
	if err != nil || device == nil {
		return "", FirstError(err, fault.New(fault.Unavailable, "it was unmounted just now"))
	}
	if err := enlarge(file, size); err != nil {
		return "", err
	}
	because, err := i.GrowShown(*device, size)
	if err != nil || because != "" {
		return because, err
	}
	return "", b.grown(dir, l)
}

// mayGrow refuses what the file system was not made for.
func (b *loopBack) mayGrow(i image.Image, file *os.File, size volume.Bytes) error {
	most, err := i.MostGrown(file)
	if err == nil && most > 0 && size > most {
		err = fault.New(fault.Invalid, "its ext4 was made with room to grow to %s; copy its content (backup and restore) into a new volume of that size", most)
	}
	return err
}

// finishGrow carries out the label's wish on a locked image that is not mounted.
func (b *loopBack) finishGrow(ctx context.Context, i image.Image, file *os.File, dir string, l *Label) error {
	if err := enlarge(file, l.Grow); err != nil {
		return err
	}
	err := i.GrowTaken(ctx, file, l.Grow, l.Resizing, func() error {
		l.Resizing = true
		return WriteLabel(dir, *l)
	})
	if err != nil {
		return err
	}
	return b.grown(dir, l)
}

// enlarge makes the file larger, and its size durable: the file system must never be larger than its file.
func enlarge(file *os.File, size volume.Bytes) error {
	fi, err := file.Stat()
	if err == nil && fi.Size() < int64(size) {
		if err = file.Truncate(int64(size)); err == nil {
			err = file.Sync()
		}
	}
	image.CrashAt("grow.larger")
	return fault.Wrap(WriteClass(err), err, "enlarge its image to %d bytes", size)
}

func (b *loopBack) grown(dir string, l *Label) error {
	image.CrashAt("grow.done")
	l.Size, l.Grow, l.Resizing = l.Grow, 0, false
	return WriteLabel(dir, *l)
}

// copyTo copies the image as it is now. Where it is mounted, that is what reached the storage: all, when the file system is synced or
// frozen. A full copy needs the image for itself.
func (b *loopBack) CopyTo(ctx context.Context, dir, target, to string, l Label, _ bool) error {
	if !b.copies() {
		return fault.New(fault.Invalid, "the file system of pool %s cannot share blocks between files (reflink: xfs, btrfs); full copies are made only with --pool …,copies=full", b.p.Name)
	}
	if l.Resizing {
		return fault.New(fault.Conflict, "its growth to %d bytes was cut short: mount it, or ask for the growth again, before it is copied", l.Grow)
	}
	i := b.image(dir, target)
	file, err := loop.OpenImage(i.Path)
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "open its image")
	}
	defer file.Close()
	shown, err := i.Shown(file)
	if err != nil {
		return err
	}
	if shown && !b.reflinks {
		return fault.New(fault.Conflict, "it is mounted, and the file system of pool %s cannot share blocks: the full copy is made only while it is not mounted", b.p.Name)
	}
	switch {
	case shown:
		err = mount.Sync(i.Target)
	case l.Snapshot == "": // nobody writes to a snapshot, and many may copy it
		err = i.Take(ctx, file)
	}
	if err != nil {
		return err
	}
	if err := b.checkImage(i, file, l); err != nil {
		return err
	}
	if err := b.room(b.fs.Metadata); err != nil {
		return err
	}
	return image.Copy(ctx, i.Path, filepath.Join(to, imageFile), b.p.FullCopies)
}

// clone makes of the copied image in dir a volume of its own: its journal replayed, the label inside it and its UUID new, its size as wished.
func (b *loopBack) Clone(ctx context.Context, dir string, source Label, l *Label, own Ownership) error {
	image.CrashAt("clone.copied")
	i := b.hidden(dir)
	file, err := i.Open(ctx)
	if err != nil {
		return err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "look at its image")
	}
	wish := l.Size
	l.FS, l.FSUUID, l.Size = b.fs.Name, uuid.NewString(), source.Size
	if volume.Bytes(fi.Size()) > l.Size { // its growth was under way
		wish = max(wish, volume.Bytes(fi.Size()))
	}
	err = b.once(ctx, "clone", i, file, b.fs.TwinOptions(), func(stage string) error {
		if err := checkInside(stage, source); err != nil {
			return err
		}
		if err := finishData(filepath.Join(stage, DataDir), own); err != nil {
			return err
		}
		return WriteLabel(stage, inner(*l))
	})
	if err != nil {
		return err
	}
	image.CrashAt("clone.named")
	if err := b.fs.SetUUID(ctx, i.Path, l.FSUUID); err != nil {
		return err
	}
	if file, err = i.Open(ctx); err != nil {
		return err
	}
	defer file.Close()
	if wish > l.Size {
		if err := b.mayGrow(i, file, wish); err != nil {
			return err
		}
		if err := enlarge(file, wish); err != nil {
			return err
		}
		if err := i.GrowTaken(ctx, file, wish, false, func() error { return nil }); err != nil {
			return err
		}
		l.Size = wish
	}
	return FirstError(i.Identify(file, l.FSUUID), fault.Wrap(fault.Unknown, file.Sync(), "flush its image"))
}

// peek shows a snapshot by way of a copy, in which the journal is replayed.
func (b *loopBack) Peek(ctx context.Context, dir, copyDir, target string, l Label) error {
	i := b.image(copyDir, target)
	if err := os.Mkdir(copyDir, 0o700); err != nil && !os.IsExist(err) {
		return fault.Wrap(WriteClass(err), err, "make a copy of the snapshot")
	}
	file, err := loop.OpenImage(i.Path)
	if err == nil {
		defer file.Close()
		if at, err := i.Shown(file); err != nil || at {
			if err == nil { // perhaps it was cut off just before that
				err = mount.ReadOnly(ctx, target)
			}
			return err
		}
		if err := i.Take(ctx, file); err != nil {
			return err
		}
		if err := os.Remove(i.Path); err != nil { // perhaps cut off by a crash
			return fault.Wrap(fault.Unknown, err, "make a copy of the snapshot")
		}
	}
	if err := image.Copy(ctx, filepath.Join(dir, imageFile), i.Path, b.p.FullCopies); err != nil {
		return err
	}
	if file, err = i.Open(ctx); err != nil {
		return err
	}
	defer file.Close()
	if err := i.Identify(file, l.FSUUID); err != nil {
		return err
	}
	if err := b.show(ctx, "peek", i, file, b.fs.TwinOptions(), l); err != nil {
		return err
	}
	return mount.ReadOnly(ctx, target)
}

func (b *loopBack) Unpeek(ctx context.Context, copyDir, target string) error {
	i := b.image(copyDir, target)
	device, err := i.Device()
	if err != nil {
		return err
	}
	if err := i.Settle(ctx, "unpeek", device); err != nil {
		return err
	}
	return fault.Wrap(fault.Unknown, os.RemoveAll(copyDir), "remove the copy of the snapshot")
}

// usage asks the file system where it is mounted here, and its superblock otherwise.
func (b *loopBack) Usage(_ context.Context, dir, target string, l Label) (driver.Usage, error) {
	i := b.image(dir, target)
	at, err := mount.Is(target)
	if err != nil {
		return driver.Usage{}, err
	}
	if !at {
		c, err := i.Counts()
		return driver.Usage{Size: l.Size, Used: max(0, c.Size-c.Free), Available: c.Free, Inodes: c.Inodes, InodesUsed: c.Inodes - c.InodesFree}, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return driver.Usage{}, fault.Wrap(fault.Unknown, err, "look at its file system")
	}
	block := volume.Bytes(st.Frsize)
	return driver.Usage{Size: l.Size, Used: volume.Bytes(st.Blocks-st.Bfree) * block, Available: volume.Bytes(st.Bavail) * block,
		Inodes: st.Files, InodesUsed: st.Files - st.Ffree}, nil
}

func (b *loopBack) Judge(w Wish, l *Label, clone bool) error {
	l.Fsck = w.Fsck
	return b.judgeEncryption(w.Encrypt, l, clone)
}

func (*loopBack) Backing(dir string) string { return filepath.Join(dir, imageFile) }

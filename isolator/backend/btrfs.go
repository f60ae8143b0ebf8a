package backend

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/btrfs"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/image"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// btrfsBack keeps volumes in subvolumes of a btrfs. It is dirBack in all that subvolumes share with directories.
type btrfsBack struct{ *dirBack }

// NewBtrfs keeps volumes in subvolumes. Unavailable where the pool does not lie on a btrfs, or nothing may be mounted.
func NewBtrfs(p Pool) (Content, error) {
	is, err := btrfs.Is(p.Dir)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "look at %s", p.Dir)
	}
	if !is {
		return nil, fault.New(fault.Unavailable, "%s does not lie on a btrfs", p.Dir)
	}
	if !p.Binds {
		return nil, fault.New(fault.Unavailable, "back end btrfs deletes subvolumes and mounts, which needs root")
	}
	return btrfsBack{newDirBack(p)}, nil
}

// facts: a subvolume has no superblock of its own, so that scanning is all the proof there is, as with directories. Nothing is frozen: it would
// be the whole pool, and the snapshot would wait for the thaw.
func (btrfsBack) Facts(f *driver.Facts) {
	f.MultiAttach = false
	f.LimitsSize, f.Snapshots, f.Clones, f.Grows = true, true, true, driver.GrowsOnline
}

func (btrfsBack) Size(s volume.Bytes) (volume.Bytes, error) {
	if s < 0 || (s > 0 && s < 1<<20) {
		return 0, fault.New(fault.Invalid, "size %d is less than a mebibyte", s)
	}
	return s, nil
}

func (b btrfsBack) Fill(_ context.Context, dir string, l *Label, own Ownership) error {
	if err := btrfs.Create(dir, DataDir); err != nil {
		return fault.Wrap(WriteClass(err), err, "make its subvolume")
	}
	return b.finish(dir, l.Size, own)
}

func (b btrfsBack) finish(dir string, size volume.Bytes, own Ownership) error {
	data := filepath.Join(dir, DataDir)
	if size > 0 {
		if err := btrfs.Limit(data, size); err != nil {
			return fault.Wrap(WriteClass(err), err, "limit its size to %d bytes", size)
		}
	}
	return finishData(data, own)
}

func (b btrfsBack) subvolume(dir string) (string, error) {
	data := filepath.Join(dir, DataDir)
	if !btrfs.IsSubvolume(data) {
		return "", fault.New(fault.Conflict, "its subvolume %s is not there", data)
	}
	return data, nil
}

// mount also carries out a growth that a crash left undone.
func (b btrfsBack) Mount(ctx context.Context, dir string, l Label, target string) error {
	if _, err := b.subvolume(dir); err != nil {
		return err
	}
	if l.Grow > 0 {
		if _, err := b.Grow(ctx, dir, target, &l, l.Grow); err != nil {
			return err
		}
	}
	return b.dirBack.Mount(ctx, dir, l, target)
}

// unused: a subvolume can be deleted under a mount.
func (b btrfsBack) Unused(_ context.Context, dir string) (func(), error) {
	at, err := mount.Is(b.p.Target(filepath.Base(dir)))
	if err == nil && at {
		err = fault.New(fault.Conflict, "it is mounted on this node")
	}
	return func() {}, err
}

// destroy deletes the subvolume at once; where its user made subvolumes inside, they go as directories do.
func (btrfsBack) Destroy(dir string) error {
	_ = btrfs.Destroy(dir, DataDir)
	return os.RemoveAll(dir)
}

func (b btrfsBack) Grow(_ context.Context, dir, _ string, l *Label, size volume.Bytes) (string, error) {
	data, err := b.subvolume(dir)
	if err != nil {
		return "", err
	}
	if l.Grow != size {
		l.Grow = size
		if err := WriteLabel(dir, *l); err != nil {
			return "", err
		}
	}
	image.CrashAt("grow.recorded")
	if err := btrfs.Limit(data, size); err != nil {
		return "", fault.Wrap(fault.Unknown, err, "limit its size to %d bytes", size)
	}
	image.CrashAt("grow.done")
	l.Size, l.Grow = size, 0
	return "", WriteLabel(dir, *l)
}

func (b btrfsBack) CopyTo(_ context.Context, dir, _, to string, _ Label, forGood bool) error {
	data, err := b.subvolume(dir)
	if err != nil {
		return err
	}
	err = btrfs.Snapshot(data, to, DataDir, forGood)
	return fault.Wrap(WriteClass(err), err, "copy its subvolume")
}

func (b btrfsBack) Clone(_ context.Context, dir string, _ Label, l *Label, own Ownership) error {
	image.CrashAt("clone.copied")
	return b.finish(dir, l.Size, own)
}

// peek shows the read-only subvolume itself.
func (b btrfsBack) Peek(ctx context.Context, dir, _, target string, _ Label) error {
	data, err := b.subvolume(dir)
	if err != nil {
		return err
	}
	if err := mount.Show(ctx, data, target); err != nil {
		return err
	}
	return mount.ReadOnly(ctx, target)
}

func (b btrfsBack) Unpeek(ctx context.Context, _, target string) error {
	return mount.Hide(ctx, target)
}

// usage is what the quota group counts, and a count of the files where quotas are off.
func (b btrfsBack) Usage(ctx context.Context, dir, target string, l Label) (driver.Usage, error) {
	data, err := b.subvolume(dir)
	if err != nil {
		return driver.Usage{}, err
	}
	used, counted, err := btrfs.Referenced(data)
	if err != nil {
		return driver.Usage{}, fault.Wrap(fault.Unknown, err, "read its quota group")
	}
	if !counted {
		return b.dirBack.Usage(ctx, dir, target, l)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(data, &st); err != nil {
		return driver.Usage{}, fault.Wrap(fault.Unknown, err, "look at the pool's free space")
	}
	u := driver.Usage{Size: l.Size, Used: used, Available: volume.Bytes(st.Bavail) * volume.Bytes(st.Bsize)}
	if l.Size > 0 {
		u.Available = min(u.Available, max(0, l.Size-used))
	}
	return u, nil
}

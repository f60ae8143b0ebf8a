package backend

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
	"github.com/holdfast-io/holdfast/isolator/tally"
)

// dirBack keeps volumes in plain directories. It cannot hold them to a size, nor copy one as of an instant.
type dirBack struct {
	p      Pool
	counts tally.Counter
}

// NewDir keeps volumes in plain directories.
func NewDir(p Pool) Content { return newDirBack(p) }

func newDirBack(p Pool) *dirBack { return &dirBack{p: p, counts: tally.Counter{Now: p.Now}} }

func (*dirBack) Facts(f *driver.Facts) { f.Grows = driver.GrowsOnline }

func (*dirBack) Size(s volume.Bytes) (volume.Bytes, error) {
	if s < 0 {
		return 0, fault.New(fault.Invalid, "size %d is negative", s)
	}
	return s, nil
}

func (*dirBack) Fill(_ context.Context, dir string, _ *Label, own Ownership) error {
	data := filepath.Join(dir, DataDir)
	if err := os.Mkdir(data, 0o755); err != nil {
		return fault.Wrap(WriteClass(err), err, "make its data directory")
	}
	return finishData(data, own)
}

func finishData(data string, own Ownership) error {
	if err := own.apply(data); err != nil {
		return err
	}
	return fault.Wrap(fault.Unknown, SyncDir(data), "sync its data directory")
}

func (b *dirBack) Mount(ctx context.Context, dir string, _ Label, target string) error {
	data := filepath.Join(dir, DataDir)
	if fi, err := os.Lstat(data); err != nil || !fi.IsDir() {
		return fault.New(fault.Conflict, "its data directory %s is not there", data)
	}
	if !b.p.Binds {
		return nil
	}
	return mount.Show(ctx, data, target)
}

func (b *dirBack) Unmount(ctx context.Context, dir, target string) error {
	// By way of the directory above the data: whoever looks for users of those must not find us.
	if _, err := os.Lstat(dir); err == nil {
		if err := mount.Sync(dir); err != nil {
			return err
		}
	}
	if !b.p.Binds {
		return nil
	}
	return mount.Hide(ctx, target)
}

func (*dirBack) Unused(context.Context, string) (func(), error) { return func() {}, nil }

func (*dirBack) Destroy(dir string) error { return os.RemoveAll(dir) }

// grow changes the note in the label, which is all that there is of a size.
func (*dirBack) Grow(_ context.Context, dir, _ string, l *Label, size volume.Bytes) (string, error) {
	l.Size, l.Grow = size, 0
	return "", WriteLabel(dir, *l)
}

var errNoCopies = fault.New(fault.Invalid, "a pool of back end dir has neither snapshots nor clones, since it cannot copy a directory as of one instant: use back end btrfs, or loop")

func (*dirBack) CopyTo(context.Context, string, string, string, Label, bool) error {
	return errNoCopies
}

func (*dirBack) Clone(context.Context, string, Label, *Label, Ownership) error { return errNoCopies }

func (*dirBack) Peek(context.Context, string, string, string, Label) error { return errNoCopies }

func (*dirBack) Unpeek(context.Context, string, string) error { return nil }

// usage counts the files of the volume, which nothing else knows: the file system's own figures are those of the whole pool.
func (b *dirBack) Usage(ctx context.Context, dir, _ string, _ Label) (driver.Usage, error) {
	free, err := freeBytes(b.p.Dir)
	if err != nil {
		return driver.Usage{}, err
	}
	c, err := b.counts.Of(ctx, filepath.Join(dir, DataDir))
	return driver.Usage{Used: c.Size, Available: free, InodesUsed: c.Files}, err
}

// Check has nothing to look over.
func (*dirBack) Check(context.Context, string, string, Label, bool) (bool, string, error) {
	return false, "", fault.New(fault.Invalid, "a volume of this pool has no file system of its own: check the one that the pool lies on")
}

func (*dirBack) Judge(w Wish, _ *Label, _ bool) error {
	if w.Fsck != "" {
		return fault.New(fault.Invalid, "fsck=%s goes with back end loop only: other volumes have no file system of their own", w.Fsck)
	}
	if w.Encrypt != nil && *w.Encrypt {
		return errNoEncryption
	}
	return nil
}

func (*dirBack) Backing(string) string { return "" }

// freeBytes is what the file system below a directory has left for us.
func freeBytes(dir string) (volume.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fault.Wrap(fault.Unknown, err, "look at the pool's free space")
	}
	return volume.Bytes(st.Bavail) * volume.Bytes(st.Bsize), nil
}

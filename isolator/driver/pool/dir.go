package pool

import (
	"context"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// dirBack keeps volumes in plain directories. It cannot hold them to a size, nor copy one as of an instant.
type dirBack struct {
	p      *Pool
	counts counter
}

func newDirBack(p *Pool) *dirBack { return &dirBack{p: p, counts: counter{now: p.o.Now}} }

func (*dirBack) facts(f *driver.Facts) { f.Grows = driver.GrowsOnline }

func (*dirBack) size(s volume.Bytes) (volume.Bytes, error) {
	if s < 0 {
		return 0, fault.New(fault.Invalid, "size %d is negative", s)
	}
	return s, nil
}

func (*dirBack) fill(_ context.Context, dir string, _ *label, own ownership) error {
	data := filepath.Join(dir, dataDir)
	if err := os.Mkdir(data, 0o755); err != nil {
		return fault.Wrap(writeClass(err), err, "make its data directory")
	}
	return finishData(data, own)
}

func finishData(data string, own ownership) error {
	if err := own.apply(data); err != nil {
		return err
	}
	return fault.Wrap(fault.Unknown, syncDir(data), "sync its data directory")
}

func (b *dirBack) mount(ctx context.Context, dir string, _ label, target string) error {
	data := filepath.Join(dir, dataDir)
	if fi, err := os.Lstat(data); err != nil || !fi.IsDir() {
		return fault.New(fault.Conflict, "its data directory %s is not there", data)
	}
	if !b.p.binds {
		return nil
	}
	return mount.Show(ctx, data, target)
}

func (b *dirBack) unmount(ctx context.Context, dir, target string) error {
	// By way of the directory above the data: whoever looks for users of those must not find us.
	if _, err := os.Lstat(dir); err == nil {
		if err := mount.Sync(dir); err != nil {
			return err
		}
	}
	if !b.p.binds {
		return nil
	}
	return mount.Hide(ctx, target)
}

func (*dirBack) unused(context.Context, string) (func(), error) { return func() {}, nil }

func (*dirBack) destroy(dir string) error { return os.RemoveAll(dir) }

// grow changes the note in the label, which is all that there is of a size.
func (*dirBack) grow(_ context.Context, dir, _ string, l *label, size volume.Bytes) (string, error) {
	l.Size, l.Grow = size, 0
	return "", writeLabel(dir, *l)
}

var errNoCopies = fault.New(fault.Invalid, "a pool of back end dir has neither snapshots nor clones, since it cannot copy a directory as of one instant: use back end btrfs, or loop")

func (*dirBack) copyTo(context.Context, string, string, string, label, bool) error {
	return errNoCopies
}

func (*dirBack) clone(context.Context, string, label, *label, ownership) error { return errNoCopies }

func (*dirBack) peek(context.Context, string, string, string, label) error { return errNoCopies }

func (*dirBack) unpeek(context.Context, string, string) error { return nil }

// usage counts the files of the volume, which nothing else knows: the file system's own figures are those of the whole pool.
func (b *dirBack) usage(ctx context.Context, dir, _ string, _ label) (driver.Usage, error) {
	free, err := freeBytes(b.p.o.Dir)
	if err != nil {
		return driver.Usage{}, err
	}
	c, err := b.counts.of(ctx, filepath.Join(dir, dataDir))
	return driver.Usage{Used: c.size, Available: free, InodesUsed: c.files}, err
}

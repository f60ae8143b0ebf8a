package pool

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// The back ends.
const (
	Dir   = "dir"
	Btrfs = "btrfs"
	Loop  = "loop"
)

// backend keeps the content of a pool's volumes. Names, labels, the appearing and disappearing of volumes are the Pool's.
// dir is always the volume's directory in the pool, target its mount point on this node.
type backend interface {
	// facts corrects what is not so with this back end.
	facts(*driver.Facts)
	// size judges the wished size (0: none) and gives the one that the volume will have.
	size(volume.Bytes) (volume.Bytes, error)
	// fill makes the content in a directory that nobody sees yet, and completes the label, which is written afterwards.
	fill(ctx context.Context, dir string, l *label, own ownership) error
	// mount makes the content appear at target; where the pool does not mount, target is the content itself. Again is success.
	mount(ctx context.Context, dir string, l label, target string) error
	// unmount undoes mount and flushes. The volume's directory need not exist.
	unmount(ctx context.Context, dir, target string) error
	// unused is Conflict when the content is in use on this node, and otherwise keeps it from use until release is called.
	unused(ctx context.Context, dir string) (release func(), err error)
	// destroy deletes a directory of .new or .bin with all that is in it.
	destroy(dir string) error
	// usage says how full the content is.
	usage(ctx context.Context, dir, target string, l label) (driver.Usage, error)
	// grow makes the content larger and completes the label on the disk, which has the wish (Grow) before anything else is done. because says why
	// it is left to the next mount, which calls for it by a label with Grow.
	grow(ctx context.Context, dir, target string, l *label, size volume.Bytes) (because string, err error)
	// copyTo copies the content, as it is at one instant, into another directory: a snapshot's, for good, or that of a clone.
	copyTo(ctx context.Context, dir, target, to string, l label, forGood bool) error
	// clone makes of a copied content of the source one that stands for itself, and completes the label.
	clone(ctx context.Context, dir string, source label, l *label, own ownership) error
	// peek makes a snapshot's content appear read-only at target, where it must through a copy of it that is kept in copyDir. Again is success.
	peek(ctx context.Context, dir, copyDir, target string, l label) error
	unpeek(ctx context.Context, copyDir, target string) error
}

// poolRecord is the file .pool.json: what was settled when the pool was made. A pool without one was made before there were other back ends
// than dir.
type poolRecord struct {
	V       int       `json:"v"`
	Backend string    `json:"backend"`
	FS      string    `json:"fs,omitempty"`
	Created time.Time `json:"created"`
}

const poolFile = ".pool.json"

// chooseBackend opens the pool's back end, and records it in a new pool.
func (p *Pool) chooseBackend() (backend, error) {
	path := filepath.Join(p.o.Dir, poolFile)
	r, err := readPool(path)
	if errors.Is(err, fs.ErrNotExist) {
		if r, err = p.newRecord(); err == nil {
			r, err = recordPool(path, r)
		}
	}
	if err != nil {
		return nil, err
	}
	if p.o.Backend != "" && p.o.Backend != r.Backend {
		return nil, fault.New(fault.Conflict, "%s was made with back end %s, which stays; it cannot be opened with %s", p.o.Dir, r.Backend, p.o.Backend)
	}
	if p.o.FS != "" && p.o.FS != r.FS {
		return nil, fault.New(fault.Conflict, "the volumes of %s have file system %q, not %s", p.o.Dir, r.FS, p.o.FS)
	}
	switch r.Backend {
	case Dir:
		return newDirBack(p), nil
	case Btrfs:
		return newBtrfs(p)
	case Loop:
		return newLoop(p, r.FS)
	}
	return nil, fault.New(fault.Invalid, "this program does not know back end %q", r.Backend)
}

// newRecord is what a pool without a record gets. It judges the wish before anything is written.
func (p *Pool) newRecord() (poolRecord, error) {
	r := poolRecord{V: 1, Backend: p.o.Backend, FS: p.o.FS, Created: p.o.Now().UTC()}
	if r.Backend == "" || p.hasVolumes() {
		r.Backend = Dir
	}
	var err error
	switch r.Backend {
	case Dir:
		r.FS = ""
	case Btrfs:
		_, err = newBtrfs(p)
	case Loop:
		if r.FS == "" {
			r.FS = "ext4"
		}
		_, err = newLoop(p, r.FS)
	default:
		err = fault.New(fault.Invalid, "back end %q is none of dir, btrfs, loop", r.Backend)
	}
	if err == nil && r.Backend != Loop && p.o.FS != "" {
		err = fault.New(fault.Invalid, "fs=%s goes with back end loop only", p.o.FS)
	}
	return r, err
}

func (p *Pool) hasVolumes() bool {
	entries, err := os.ReadDir(p.o.Dir)
	if err != nil {
		return true
	}
	for _, e := range entries {
		if volume.CheckName(e.Name()) == nil {
			if _, err := os.Lstat(filepath.Join(p.o.Dir, e.Name(), labelFile)); err == nil {
				return true
			}
		}
	}
	return false
}

func readPool(path string) (poolRecord, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return poolRecord{}, err
		}
		return poolRecord{}, fault.Wrap(fault.Unavailable, err, "read the pool's record")
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, labelMax))
	if err != nil {
		return poolRecord{}, fault.Wrap(fault.Unavailable, err, "read the pool's record")
	}
	var r poolRecord
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fault.Wrap(fault.Conflict, err, "the pool's record %s", path)
	}
	if r.V != 1 {
		return r, fault.New(fault.Conflict, "the pool's record %s has version %d, this program knows 1", path, r.V)
	}
	return r, nil
}

// recordPool writes the record unless somebody else has just now, and gives the one that counts.
func recordPool(path string, r poolRecord) (poolRecord, error) {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return r, fault.Wrap(fault.Internal, err, "encode the pool's record")
	}
	f, err := os.CreateTemp(filepath.Join(filepath.Dir(path), newDir), "pool-")
	if err != nil {
		return r, fault.Wrap(fault.Unavailable, err, "record the back end")
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return r, fault.Wrap(fault.Unavailable, err, "record the back end")
	}
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return readPool(path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return r, fault.Wrap(fault.Unavailable, err, "record the back end")
}

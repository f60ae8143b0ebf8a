package pool

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/backend"
)

// The back ends.
const (
	Dir   = "dir"
	Btrfs = "btrfs"
	Loop  = "loop"
)

// poolRecord is the file .pool.json: what was settled when the pool was made. A pool without one was made before there were other back ends
// than dir.
type poolRecord struct {
	V       int       `json:"v"`
	Backend string    `json:"backend"`
	FS      string    `json:"fs,omitempty"`
	Created time.Time `json:"created"`
}

const (
	poolFile  = ".pool.json"
	recordMax = 64 << 10
)

// store is what the back end is told of the pool.
func (p *Pool) store() backend.Pool {
	return backend.Pool{Name: p.o.Name, Dir: p.o.Dir, Mounts: p.o.Mounts, Binds: p.binds, Work: filepath.Join(p.o.Dir, newDir),
		FullCopies: p.o.FullCopies, Fsck: p.o.Fsck, Key: p.o.Key, Now: p.o.Now}
}

// chooseBackend opens the pool's back end, and records it in a new pool.
func (p *Pool) chooseBackend() (backend.Content, error) {
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
		return backend.NewDir(p.store()), nil
	case Btrfs:
		return backend.NewBtrfs(p.store())
	case Loop:
		return backend.NewLoop(p.store(), r.FS)
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
		_, err = backend.NewBtrfs(p.store())
	case Loop:
		if r.FS == "" {
			r.FS = "ext4"
		}
		_, err = backend.NewLoop(p.store(), r.FS)
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
			if _, err := os.Lstat(filepath.Join(p.o.Dir, e.Name(), backend.LabelFile)); err == nil {
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
	raw, err := io.ReadAll(io.LimitReader(f, recordMax))
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
		err = backend.SyncDir(filepath.Dir(path))
	}
	return r, fault.Wrap(fault.Unavailable, err, "record the back end")
}

package csi

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// maxFile bounds what is read of one record.
const maxFile = 256 << 10

// store is a directory with one JSON file per volume. A file is there whole or not at all, and what was written is on the disk
// when a call returns.
type store[T any] struct {
	dir  string
	what string
}

func (s store[T]) path(name string) string { return filepath.Join(s.dir, name+".json") }

// get reads a file; ok is false when there is none.
func (s store[T]) get(name string) (v T, ok bool, err error) {
	f, err := os.Open(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, fault.Wrap(fault.Unknown, err, "read %s", s.what)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fault.New(fault.Unknown, "larger than %d bytes", maxFile)
	}
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	if err != nil {
		return v, false, fault.Wrap(fault.Unknown, err, "read %s %s", s.what, f.Name())
	}
	return v, true, nil
}

// put replaces a file.
func (s store[T]) put(name string, v T) error {
	return s.write(name, v, os.Rename)
}

// add makes a file that must not be there yet: Exists otherwise. Of several nodes that try it one succeeds.
func (s store[T]) add(name string, v T) error {
	return s.write(name, v, os.Link)
}

func (s store[T]) write(name string, v T, place func(from, to string) error) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode %s", s.what)
	}
	f, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "write %s", s.what)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "write %s", s.what)
	}
	if err := place(f.Name(), s.path(name)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fault.Wrap(fault.Exists, err, "write %s", s.what)
		}
		return fault.Wrap(fault.Unknown, err, "write %s", s.what)
	}
	return s.sync()
}

// remove deletes a file; none is fine.
func (s store[T]) remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Unknown, err, "remove %s", s.what)
	}
	return s.sync()
}

func (s store[T]) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "sync %s", s.dir)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some network file systems know no fsync of directories
		return fault.Wrap(fault.Unknown, err, "sync %s", s.dir)
	}
	return nil
}

// all names what there is, sorted.
func (s store[T]) all() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "list %s", s.dir)
	}
	var out []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && volume.CheckName(name) == nil {
			out = append(out, name)
		}
	}
	return out, nil
}

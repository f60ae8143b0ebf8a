// Package csibook keeps what CSI's caller has to remember: which id a plugin gave to a volume's or a snapshot's name, and what was asked for.
package csibook

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

// Store is a directory with one JSON file per key, a name of volume.CheckName or two with an @ between. A file is there whole or not at all, and what was written is on the disk
// when a call returns.
type Store[T any] struct {
	Dir  string // must exist
	What string // what a file is called in errors
}

// Path names the file of a key.
func (s Store[T]) Path(name string) string { return filepath.Join(s.Dir, name+".json") }

// Get reads a file; ok is false when there is none.
func (s Store[T]) Get(name string) (v T, ok bool, err error) {
	f, err := os.Open(s.Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, fault.Wrap(fault.Unknown, err, "read %s", s.What)
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
		return v, false, fault.Wrap(fault.Unknown, err, "read %s %s", s.What, f.Name())
	}
	return v, true, nil
}

// Put replaces a file.
func (s Store[T]) Put(name string, v T) error {
	return s.write(name, v, os.Rename)
}

// Add makes a file that must not be there yet: Exists otherwise. Of several nodes that try it one succeeds.
func (s Store[T]) Add(name string, v T) error {
	return s.write(name, v, os.Link)
}

func (s Store[T]) write(name string, v T, place func(from, to string) error) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode %s", s.What)
	}
	f, err := os.CreateTemp(s.Dir, ".new-")
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "write %s", s.What)
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
		return fault.Wrap(fault.Unavailable, err, "write %s", s.What)
	}
	if err := place(f.Name(), s.Path(name)); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fault.Wrap(fault.Exists, err, "write %s", s.What)
		}
		return fault.Wrap(fault.Unknown, err, "write %s", s.What)
	}
	return s.sync()
}

// Remove deletes a file; none is fine.
func (s Store[T]) Remove(name string) error {
	if err := os.Remove(s.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Unknown, err, "remove %s", s.What)
	}
	return s.sync()
}

func (s Store[T]) sync() error {
	d, err := os.Open(s.Dir)
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "sync %s", s.Dir)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // some network file systems know no fsync of directories
		return fault.Wrap(fault.Unknown, err, "sync %s", s.Dir)
	}
	return nil
}

// All names what there is, sorted.
func (s Store[T]) All() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "list %s", s.Dir)
	}
	var out []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && isKey(name) {
			out = append(out, name)
		}
	}
	return out, nil
}

func isKey(s string) bool {
	first, second, two := strings.Cut(s, "@")
	return volume.CheckName(first) == nil && (!two || volume.CheckName(second) == nil)
}

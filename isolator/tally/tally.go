// Package tally counts what directories hold, seldom.
package tally

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// maxFiles is how many files are counted before a count is given up.
const maxFiles = 2_000_000

// Count is what a directory holds.
type Count struct {
	Size  volume.Bytes // blocks, in bytes; a file with several names once
	Files uint64       // and directories, without itself
	at    time.Time
	took  time.Duration
}

// Counter counts directories one at a time and remembers what it found: for a minute, or for twenty times as long as the count took, so that at most a
// twentieth of the time is spent on it.
type Counter struct {
	Now   func() time.Time
	walk  sync.Mutex // held while a directory is counted
	mu    sync.Mutex
	known map[string]Count
}

// Of counts a directory, or remembers.
func (c *Counter) Of(ctx context.Context, dir string) (Count, error) {
	if known, fresh := c.recall(dir); fresh {
		return known, nil
	}
	c.walk.Lock()
	defer c.walk.Unlock()
	if known, fresh := c.recall(dir); fresh { // somebody else has counted it meanwhile
		return known, nil
	}
	begun := time.Now()
	n, err := countFiles(ctx, dir)
	if err != nil {
		return Count{}, err
	}
	n.at, n.took = c.Now(), time.Since(begun)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) > 10_000 {
		c.known = map[string]Count{}
	}
	c.known[dir] = n
	return n, nil
}

func (c *Counter) recall(dir string) (Count, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.known[dir]
	return n, ok && c.Now().Before(n.at.Add(max(time.Minute, 20*n.took)))
}

// countFiles does not leave the file system and follows no links. What vanishes meanwhile does not count.
func countFiles(ctx context.Context, dir string) (Count, error) {
	var n Count
	var device uint64
	linked := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil
			}
			return err
		}
		if n.Files++; n.Files > maxFiles {
			return fault.New(fault.Unavailable, "it has more than %d files, and is not counted", maxFiles)
		}
		if ctx.Err() != nil {
			return fault.Wrap(fault.Unavailable, ctx.Err(), "count its files")
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		if path == dir {
			device = st.Dev
			n.Files-- // the root directory is the pool's
			return nil
		}
		if st.Dev != device && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return fs.SkipDir
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if linked[st.Ino] {
				return nil
			}
			linked[st.Ino] = true
		}
		n.Size += volume.Bytes(st.Blocks) * 512
		return nil
	})
	return n, fault.Wrap(fault.ClassOf(classed(err)), err, "measure it")
}

// classed gives an error that has no class one: it was only looked at.
func classed(err error) error {
	if fault.ClassOf(err) == fault.Internal {
		return fault.Wrap(fault.Unknown, err, "look")
	}
	return err
}

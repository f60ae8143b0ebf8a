package pool

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
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Usage says how full a volume is. loop: its file system's figures, as of its last unmount while it is mounted nowhere here. btrfs: its quota group's, as of
// the last commit. dir: the blocks of its files, counted at most once a minute.
func (p *Pool) Usage(ctx context.Context, name string) (driver.Usage, error) {
	var u driver.Usage
	err := p.do(ctx, "measure", name, func(dir string) error {
		l, err := readLabel(dir)
		if err == nil {
			u, err = p.back.usage(ctx, dir, p.target(name), l)
		}
		return err
	})
	if err != nil {
		return driver.Usage{}, err
	}
	return u, nil
}

// freeBytes is what the file system below a directory has left for us.
func freeBytes(dir string) (volume.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fault.Wrap(fault.Unknown, err, "look at the pool's free space")
	}
	return volume.Bytes(st.Bavail) * volume.Bytes(st.Bsize), nil
}

// maxFiles is how many files are counted before a count is given up.
const maxFiles = 2_000_000

// count is what a directory holds.
type count struct {
	size  volume.Bytes // blocks, in bytes; a file with several names once
	files uint64
	at    time.Time
	took  time.Duration
}

// counter counts directories one at a time and remembers what it found: for a minute, or for twenty times as long as the count took, so that at most a
// twentieth of the time is spent on it.
type counter struct {
	now   func() time.Time
	walk  sync.Mutex // held while a directory is counted
	mu    sync.Mutex
	known map[string]count
}

func (c *counter) of(ctx context.Context, dir string) (count, error) {
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
		return count{}, err
	}
	n.at, n.took = c.now(), time.Since(begun)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) > 10_000 {
		c.known = map[string]count{}
	}
	c.known[dir] = n
	return n, nil
}

func (c *counter) recall(dir string) (count, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.known[dir]
	return n, ok && c.now().Before(n.at.Add(max(time.Minute, 20*n.took)))
}

// countFiles does not leave the file system and follows no links. What vanishes meanwhile does not count.
func countFiles(ctx context.Context, dir string) (count, error) {
	var n count
	var device uint64
	linked := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil
			}
			return err
		}
		if n.files++; n.files > maxFiles {
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
			n.files-- // the root directory is the pool's
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
		n.size += volume.Bytes(st.Blocks) * 512
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

package pool

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// abandoned is how old a volume in the making must be before another node's sweep takes its maker for dead.
const abandoned = 24 * time.Hour

// Sweep deletes volumes that were removed before a time, and what dead makers left in .new: this node's own,
// and others' when they are old. Of what was begun to grow the next mount takes care.
func (p *Pool) Sweep(ctx context.Context, removedBefore time.Time) error {
	return errors.Join(p.sweepNew(ctx), p.sweepPeeks(ctx), p.sweepBin(ctx, removedBefore))
}

// sweepPeeks deletes the copies of snapshots that this node does not show any more.
func (p *Pool) sweepPeeks(ctx context.Context) error {
	dir := filepath.Join(p.o.Dir, peekDir)
	return eachEntry(ctx, dir, func(e os.DirEntry) error {
		base, mine := strings.CutSuffix(e.Name(), "."+p.o.Node)
		fi, err := e.Info()
		if err != nil || !mine || !p.binds || p.o.Now().Sub(fi.ModTime()) < time.Minute {
			return nil
		}
		if at, err := p.mountedAt(base); err != nil || at {
			return err
		}
		return p.back.Unpeek(ctx, filepath.Join(dir, e.Name()), p.target(base))
	})
}

func (p *Pool) sweepNew(ctx context.Context) error {
	dir := filepath.Join(p.o.Dir, newDir)
	return eachEntry(ctx, dir, func(e os.DirEntry) error {
		fi, err := e.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		age := p.o.Now().Sub(fi.ModTime())
		mine := p.o.Node != "" && strings.Contains(e.Name(), "."+p.o.Node+".")
		// A minute spares what a process that was this one before is still letting go of.
		if _, busy := p.making.Load(e.Name()); busy {
			return nil
		}
		if !e.IsDir() { // of a pool that was being opened
			if age > time.Hour {
				_ = os.Remove(filepath.Join(dir, e.Name()))
			}
			return nil
		}
		if age > abandoned || (mine && age > time.Minute) {
			return p.back.Destroy(filepath.Join(dir, e.Name()))
		}
		return nil
	})
}

func eachEntry(ctx context.Context, dir string, f func(os.DirEntry) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "sweep %s", dir)
	}
	var first error
	for _, e := range entries {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := f(e); err != nil && first == nil {
			first = fault.Wrap(fault.Unknown, err, "sweep %s", filepath.Join(dir, e.Name()))
		}
	}
	return first
}

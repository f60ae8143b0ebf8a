package pool

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/backend"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// The bin's entries are named <volume>.<uid>.<time>: a volume and its label as they were.
const binTime = "20060102T150405"

// Remove moves the volume to the bin. Sweep deletes it there for good.
func (p *Pool) Remove(ctx context.Context, name, uid string) error {
	return p.do(ctx, "remove", name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err != nil {
			return err
		}
		if uid != "" && l.UID != uid {
			return fault.New(fault.Conflict, "it has uid %s, not %s", l.UID, uid)
		}
		if p.binds {
			if at, err := p.mountedAt(name); err != nil || at {
				return backend.FirstError(err, fault.New(fault.Conflict, "it is mounted on this node"))
			}
		}
		release, err := p.back.Unused(ctx, dir)
		if err != nil {
			return err
		}
		defer release()
		now := p.o.Now().UTC()
		l.Removed = &now
		if err := backend.WriteLabel(dir, l); err != nil && !backend.IsFull(err) {
			return err // on a full pool removal must still work: the bin then goes by the entry's name
		}
		crashAt("remove.labelled")
		to := filepath.Join(p.o.Dir, binDir, name+"."+l.UID+"."+now.Format(binTime))
		if err := os.Rename(dir, to); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return fault.New(fault.NotFound, "volume %s does not exist", name)
			}
			return fault.Wrap(fault.Unknown, err, "move it to the bin")
		}
		crashAt("remove.moved")
		return p.syncBin()
	})
}

func (p *Pool) syncBin() error {
	return fault.Wrap(fault.Unknown, backend.FirstError(backend.SyncDir(p.o.Dir), backend.SyncDir(filepath.Join(p.o.Dir, binDir))), "sync the pool")
}

// removed is an entry of the bin.
type removed struct {
	dir string
	l   backend.Label
	at  time.Time
}

// binned reads the bin, oldest first. What has no good label is left out: only Sweep touches it, by its name.
func (p *Pool) binned() ([]removed, error) {
	bin := filepath.Join(p.o.Dir, binDir)
	entries, err := os.ReadDir(bin)
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "look into the bin of pool %s", p.o.Name)
	}
	var out []removed
	for _, e := range entries {
		dir := filepath.Join(bin, e.Name())
		l, err := backend.ReadLabel(dir)
		if at, ok := removedAt(dir); ok && err == nil && e.IsDir() && volume.CheckName(l.Name) == nil {
			out = append(out, removed{dir: dir, l: l, at: at})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].at.Before(out[j].at) })
	return out, nil
}

// Bin lists what was removed and is still there, oldest first.
func (p *Pool) Bin(ctx context.Context) ([]driver.Removed, error) {
	out := []driver.Removed{}
	err := mount.Within(ctx, "look into the bin of pool "+p.o.Name, func() error {
		all, err := p.binned()
		for _, r := range all {
			out = append(out, driver.Removed{Name: r.l.Name, UID: r.l.UID, At: r.at, Until: r.at.Add(p.o.Grace), Size: r.l.Size})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Undelete moves a volume from the bin back to its place. Without a uid it is the one that was removed last.
func (p *Pool) Undelete(ctx context.Context, name, uid string) (driver.Info, error) {
	var info driver.Info
	err := p.do(ctx, "undelete", name, func(dir string) error {
		if l, err := backend.ReadLabel(dir); err == nil && uid != "" && l.UID == uid {
			info = p.info(name, l) // done before
			return nil
		} else if !fault.Is(err, fault.NotFound) {
			return backend.FirstError(err, fault.New(fault.Exists, "there is a volume of that name again, with uid %s", l.UID))
		}
		all, err := p.binned()
		if err != nil {
			return err
		}
		var last *removed
		for i, r := range all {
			if r.l.Name == name && (uid == "" || r.l.UID == uid) {
				last = &all[i]
			}
		}
		if last == nil {
			return fault.New(fault.NotFound, "the bin has no volume %s with uid %q; it may have been emptied", name, uid)
		}
		last.l.Removed = nil
		if err := backend.WriteLabel(last.dir, last.l); err != nil && !backend.IsFull(err) {
			return err
		}
		crashAt("undelete.labelled")
		if err := renameNew(last.dir, dir); err != nil {
			return err
		}
		crashAt("undelete.moved")
		info = p.info(name, last.l)
		return p.syncBin()
	})
	if err != nil {
		return driver.Info{}, err
	}
	return info, nil
}

// Purge deletes a volume in the bin for good.
func (p *Pool) Purge(ctx context.Context, name, uid string) error {
	return p.do(ctx, "purge", name, func(string) error {
		all, err := p.binned()
		if err != nil {
			return err
		}
		found := false
		for _, r := range all {
			if r.l.Name == name && (uid == "" || r.l.UID == uid) {
				found = true
				if err := p.discard(r.dir); err != nil {
					return err
				}
			}
		}
		if !found {
			return fault.New(fault.NotFound, "the bin has no volume %s with uid %q", name, uid)
		}
		return nil
	})
}

// discard deletes a directory and all that is in it, after it was taken out of sight by one rename: nobody ever finds half of it.
func (p *Pool) discard(dir string) error {
	tmp, err := p.temp(filepath.Base(dir))
	if err != nil {
		return err
	}
	defer p.making.Delete(filepath.Base(tmp))
	if err := unix.Rename(dir, tmp); err != nil { // os.Rename never replaces a directory
		_ = os.Remove(tmp)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else does it
		}
		return fault.Wrap(fault.Unknown, err, "take %s away", dir)
	}
	crashAt("discard.moved")
	return p.back.Destroy(tmp)
}

// temp makes a directory in .new. The node's uid in its name tells Sweep whose it is, and making whether it is still in work.
func (p *Pool) temp(name string) (string, error) {
	tmp, err := os.MkdirTemp(filepath.Join(p.o.Dir, newDir), name+"."+p.o.Node+".")
	if err != nil {
		return "", fault.Wrap(backend.WriteClass(err), err, "make a directory in %s", newDir)
	}
	p.making.Store(filepath.Base(tmp), true)
	return tmp, nil
}

func (p *Pool) sweepBin(ctx context.Context, removedBefore time.Time) error {
	dir := filepath.Join(p.o.Dir, binDir)
	return eachEntry(ctx, dir, func(e os.DirEntry) error {
		when, ok := removedAt(filepath.Join(dir, e.Name()))
		if !ok || !e.IsDir() || !when.Before(removedBefore) {
			return nil
		}
		return p.discard(filepath.Join(dir, e.Name()))
	})
}

// removedAt tells when a volume came to the bin: by its label, or by its name where the pool was too full to
// write the label.
func removedAt(dir string) (time.Time, bool) {
	if l, err := backend.ReadLabel(dir); err == nil && l.Removed != nil {
		return *l.Removed, true
	}
	name := filepath.Base(dir)
	t, err := time.Parse(binTime, name[strings.LastIndexByte(name, '.')+1:])
	return t, err == nil
}

package pool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/backend"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Snapshots lie in <pool>/.snap/<volume>/<snapshot>/, as volumes do in theirs: a label and the content. They are named by the volume's name and not its uid, so
// that two of one name never are. A copy of a snapshot that is being looked at lies in <pool>/.peek/.
const (
	snapDir = ".snap"
	peekDir = ".peek"
)

func (p *Pool) snapshotDir(vol, snapshot string) string {
	return filepath.Join(p.o.Dir, snapDir, vol, snapshot)
}

// Snapshot keeps the volume's content of now. It appears whole, by one rename.
func (p *Pool) Snapshot(ctx context.Context, vol, uid, snapshot string) (driver.SnapshotInfo, error) {
	var info driver.SnapshotInfo
	err := p.doSnapshot(ctx, "take", vol, snapshot, func(at string) error {
		if s, err := backend.ReadLabel(at); err == nil {
			if uid != "" && s.UID != uid {
				return fault.New(fault.Exists, "there is one of that name, of the volume with uid %s", s.UID)
			}
			info = snapshotInfo(s)
			return nil
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
		l, err := p.source(vol, uid)
		if err != nil {
			return err
		}
		now := p.o.Now().UTC()
		s := l
		s.Snapshot, s.Taken, s.Instance, s.Open = snapshot, &now, p.o.Node, false
		info = snapshotInfo(s)
		return p.takeSnapshot(ctx, at, l, s)
	})
	if err != nil {
		return driver.SnapshotInfo{}, err
	}
	return info, nil
}

// source reads the label of a volume that is to be copied.
func (p *Pool) source(vol, uid string) (backend.Label, error) {
	l, err := backend.ReadLabel(filepath.Join(p.o.Dir, vol))
	if err == nil && (l.Name != vol || (uid != "" && l.UID != uid)) {
		err = fault.New(fault.Conflict, "the label there is of volume %s with uid %s, not of %s with uid %s", l.Name, l.UID, vol, uid)
	}
	return l, err
}

func (p *Pool) takeSnapshot(ctx context.Context, at string, l, s backend.Label) error {
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return fault.Wrap(backend.WriteClass(err), err, "make the directory of its snapshots")
	}
	return p.appear(l.Name, at, func(tmp string) error {
		if err := p.back.CopyTo(ctx, filepath.Join(p.o.Dir, l.Name), p.target(l.Name), tmp, l, true); err != nil {
			return err
		}
		crashAt("snapshot.copied")
		err := backend.WriteLabel(tmp, s)
		crashAt("snapshot.labelled")
		return err
	})
}

// adoptSnapshots gives the snapshots of a volume its new uid.
func (p *Pool) adoptSnapshots(vol, old, uid string) error {
	all, err := names(filepath.Join(p.o.Dir, snapDir, vol))
	if err != nil {
		return err
	}
	for _, name := range all {
		s, err := p.readSnapshot(vol, name)
		if err != nil || s.UID != old {
			continue // not this volume's
		}
		s.Former, s.UID = append(s.Former, old), uid
		if err := backend.WriteLabel(p.snapshotDir(vol, name), s); err != nil {
			return fault.Op(err, "adopt its snapshot %s", name)
		}
	}
	return nil
}

func snapshotInfo(s backend.Label) driver.SnapshotInfo {
	i := driver.SnapshotInfo{Volume: s.Name, UID: s.UID, Name: s.Snapshot, Size: s.Size, Ready: true}
	if s.Taken != nil {
		i.Created = *s.Taken
	}
	return i
}

// RemoveSnapshot deletes a snapshot at once; there is no bin for them.
func (p *Pool) RemoveSnapshot(ctx context.Context, vol, snapshot string) error {
	return p.doSnapshot(ctx, "remove", vol, snapshot, func(at string) error {
		if _, err := p.readSnapshot(vol, snapshot); err != nil {
			return err
		}
		if used, err := p.peeked(vol, snapshot); err != nil || used {
			return backend.FirstError(err, fault.New(fault.Conflict, "it is mounted on this node"))
		}
		err := p.discard(at)
		serr := backend.SyncDir(filepath.Dir(at))
		_ = os.Remove(filepath.Dir(at)) // when it was the last
		return backend.FirstError(err, fault.Wrap(fault.Unknown, serr, "sync the pool"))
	})
}

// Snapshots reads the labels of the snapshots of a volume, or of all.
func (p *Pool) Snapshots(ctx context.Context, vol string) ([]driver.SnapshotInfo, error) {
	if vol != "" {
		if err := volume.CheckName(vol); err != nil {
			return nil, err
		}
	}
	var out []driver.SnapshotInfo
	err := mount.Within(ctx, "list snapshots of pool "+p.o.Dir, func() error {
		vols := []string{vol}
		if vol == "" {
			var err error
			if vols, err = names(filepath.Join(p.o.Dir, snapDir)); err != nil {
				return err
			}
		}
		for _, v := range vols {
			all, err := names(filepath.Join(p.o.Dir, snapDir, v))
			if err != nil {
				return err
			}
			for _, s := range all {
				if l, err := p.readSnapshot(v, s); err == nil {
					out = append(out, snapshotInfo(l))
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// names gives the entries of a directory that may be volumes or snapshots, sorted; a directory that is not there has none.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Unknown, err, "list %s", dir)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && volume.CheckName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	sort.Strings(out)
	return out, nil
}

func (p *Pool) readSnapshot(vol, snapshot string) (backend.Label, error) {
	s, err := backend.ReadLabel(p.snapshotDir(vol, snapshot))
	if fault.Is(err, fault.NotFound) {
		return s, fault.New(fault.NotFound, "snapshot %s of volume %s does not exist", snapshot, vol)
	}
	if err == nil && (s.Name != vol || s.Snapshot != snapshot) {
		err = fault.New(fault.Conflict, "the label there is of snapshot %q of volume %q", s.Snapshot, s.Name)
	}
	return s, err
}

// MountSnapshot shows a snapshot's content read-only.
func (p *Pool) MountSnapshot(ctx context.Context, vol, snapshot, id string) (string, error) {
	target := p.peekAt(vol, snapshot, id)
	err := p.doSnapshot(ctx, "mount", vol, snapshot, func(at string) error {
		s, err := p.readSnapshot(vol, snapshot)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(p.o.Dir, peekDir), 0o700); err != nil {
			return fault.Wrap(backend.WriteClass(err), err, "make a copy of the snapshot")
		}
		return p.back.Peek(ctx, at, p.peekCopy(target), target, s)
	})
	if err != nil {
		return "", err
	}
	return target, nil
}

// UnmountSnapshot ends it; again is success.
func (p *Pool) UnmountSnapshot(ctx context.Context, vol, snapshot, id string) error {
	target := p.peekAt(vol, snapshot, id)
	return p.doSnapshot(ctx, "unmount", vol, snapshot, func(string) error { return p.back.Unpeek(ctx, p.peekCopy(target), target) })
}

// peekPrefix begins the mount points of a snapshot; names have no "~".
func peekPrefix(vol, snapshot string) string { return ".snap~" + vol + "~" + snapshot + "~" }

func (p *Pool) peekAt(vol, snapshot, id string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(p.o.Mounts, peekPrefix(vol, snapshot)+hex.EncodeToString(sum[:6]))
}

// peekCopy is where the copy for a mount point lies, with the node's uid in its name for Sweep.
func (p *Pool) peekCopy(target string) string {
	return filepath.Join(p.o.Dir, peekDir, filepath.Base(target)+"."+p.o.Node)
}

// peeked tells whether a snapshot is mounted on this node.
func (p *Pool) peeked(vol, snapshot string) (bool, error) {
	if !p.binds {
		return false, nil
	}
	points, err := filepath.Glob(filepath.Join(p.o.Mounts, peekPrefix(vol, snapshot)+"*"))
	if err != nil {
		return false, fault.Wrap(fault.Internal, err, "look for mounts of it")
	}
	for _, at := range points {
		if is, err := mount.Is(at); err != nil || is {
			return is, err
		}
	}
	return false, nil
}

// doSnapshot checks both names and runs f with the snapshot's directory, bounded by ctx.
func (p *Pool) doSnapshot(ctx context.Context, verb, vol, snapshot string, f func(at string) error) error {
	if err := backend.FirstError(volume.CheckName(vol), volume.CheckName(snapshot)); err != nil {
		return err
	}
	what := verb + " snapshot " + snapshot + " of volume " + p.o.Name + "/" + vol
	err := mount.Within(ctx, what, func() error { return f(p.snapshotDir(vol, snapshot)) })
	return fault.Op(err, "%s", what)
}

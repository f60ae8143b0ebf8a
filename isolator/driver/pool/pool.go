// Package pool is the built-in volume driver: volumes are slices of one directory, on a disk of the node or on
// storage that all nodes mount.
//
//	<pool>/.pool.json           which back end the pool has
//	<pool>/<name>/volume.json   the label: which volume this is
//	<pool>/<name>/…             its content, as the back end keeps it
//	<pool>/.new/                volumes being made; a finished one is renamed into place
//	<pool>/.bin/                volumes that were removed, until the bin is emptied
//	<pool>/.snap/<name>/<snap>/ snapshots, kept as volumes are
//
// Several isolators may work on one pool. A volume appears and disappears by one rename of its whole directory, which
// the file system orders: of two creations one wins, and nobody ever sees half a volume.
//
// The back ends, chosen when the pool is made and for good:
//
//	dir    <name>/data is a plain directory, kept apart from the label since initdb refuses a directory that is not empty.
//	       Needs no root. Size is recorded and not enforced.
//	btrfs  <name>/data is a subvolume; size is a limit on its quota group. Needs root.
//	loop   <name>/image is a sparse file with a file system of its own (ext4 or xfs) in it, which holds a second label and data/.
//	       Its size is a hard limit, and the kernel can show that nobody writes to it any more. Needs root.
//
// As root, Mount makes data/ appear at <mounts>/<driver>/<name>; as an ordinary user, who may not mount,
// the path is the data directory itself.
package pool

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/backend"
	"github.com/holdfast-io/holdfast/isolator/crypt"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Options configures a Pool.
type Options struct {
	Name   string // the driver's name, "pool" by default
	Dir    string // the pool's directory, absolute; made if it is not there
	Mounts string // where bind mounts go, absolute; "" never binds, also as root
	Scope  string // driver.ScopeCluster or ScopeNode; "" asks the file system: network file systems are cluster
	Node   string // uid of this node, kept in labels
	// Backend is Dir, Btrfs or Loop, and FS the file system of a Loop pool's volumes, "ext4" or "xfs". They are settled when the pool is
	// made; "" takes what the pool has, and Dir and ext4 for a new one. Another than the pool has is fault.Conflict.
	Backend string
	FS      string
	// Size is what a volume gets whose creator says nothing of its size; 0: nothing, which Loop refuses.
	Size volume.Bytes
	// FullCopies lets snapshots and clones of a Loop pool be full copies where its file system cannot share blocks between files. They take
	// as long and as much room as the volume has content, and are made only while it is not mounted.
	FullCopies bool
	// Grace is how long the caller of Sweep leaves removed volumes in the bin, which is what Bin tells; 24 hours by default.
	Grace time.Duration
	Fsck  string       // policy for the volumes that do not say, backend.FsckAuto by default
	Key   crypt.Master // where the master key of encrypted volumes comes from
	// Binds says whether volumes are bind-mounted; nil means as root only.
	Binds *bool
	Now   func() time.Time // nil: time.Now
}

// Pool is a driver.Driver over one directory.
type Pool struct {
	o     Options
	binds bool
	back  backend.Content
	// making holds the names of .new that this process works on.
	making sync.Map
}

var (
	_ driver.Driver  = (*Pool)(nil)
	_ driver.Adopter = (*Pool)(nil)
	_ driver.Sweeper = (*Pool)(nil)
	_ driver.Placer  = (*Pool)(nil)
	_ driver.Backer  = (*Pool)(nil)

	_ driver.Measurer       = (*Pool)(nil)
	_ driver.Grower         = (*Pool)(nil)
	_ driver.Snapshotter    = (*Pool)(nil)
	_ driver.SnapshotReader = (*Pool)(nil)
	_ driver.Binner         = (*Pool)(nil)
	_ driver.Checker        = (*Pool)(nil)
)

const (
	newDir = ".new"
	binDir = ".bin"
)

// Open prepares the directory of a pool. The errors are fault.Invalid for bad options and Unavailable when the directory
// cannot be used.
func Open(o Options) (*Pool, error) {
	if o.Name == "" {
		o.Name = "pool"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Grace == 0 {
		o.Grace = 24 * time.Hour
	}
	if err := volume.CheckDriver(o.Name); err != nil {
		return nil, err
	}
	if err := backend.CheckFsck(o.Fsck); o.Fsck != "" && err != nil {
		return nil, fault.Op(err, "pool %s", o.Name)
	}
	if o.Key.File != "" && (len(o.Key.Command) > 0 || !filepath.IsAbs(o.Key.File)) {
		return nil, fault.New(fault.Invalid, "pool %s: the key comes from a file with an absolute path or from a command, not from %q and %q", o.Name, o.Key.File, o.Key.Command)
	}
	if !filepath.IsAbs(o.Dir) || strings.ContainsAny(o.Dir, "\n\x00") {
		return nil, fault.New(fault.Invalid, "pool %s: directory %q is not an absolute path", o.Name, o.Dir)
	}
	p := &Pool{o: o, binds: os.Geteuid() == 0 && o.Mounts != ""}
	if o.Binds != nil {
		p.binds = *o.Binds && o.Mounts != ""
	}
	for _, d := range []string{o.Dir, filepath.Join(o.Dir, newDir), filepath.Join(o.Dir, binDir)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "pool %s", o.Name)
		}
	}
	// Paths are compared with what the kernel shows, so links in the way are resolved once, here.
	real, err := filepath.EvalSymlinks(o.Dir)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "pool %s", o.Name)
	}
	p.o.Dir = real
	if p.o.Scope == "" {
		p.o.Scope = scopeOf(real)
	}
	if p.o.Scope != driver.ScopeCluster && p.o.Scope != driver.ScopeNode {
		return nil, fault.New(fault.Invalid, "pool %s: scope %q is neither cluster nor node", o.Name, p.o.Scope)
	}
	if p.binds {
		p.o.Mounts = filepath.Join(o.Mounts, o.Name)
		if err := os.MkdirAll(p.o.Mounts, 0o755); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "pool %s", o.Name)
		}
		if p.o.Mounts, err = filepath.EvalSymlinks(p.o.Mounts); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "pool %s", o.Name)
		}
	}
	if p.back, err = p.chooseBackend(); err != nil {
		return nil, fault.Op(err, "open pool %s", o.Name)
	}
	return p, nil
}

// Name gives the name the pool was opened with.
func (p *Pool) Name() string { return p.o.Name }

// Facts are fixed when the pool is opened; an error says that its directory is gone.
func (p *Pool) Facts(ctx context.Context) (driver.Facts, error) {
	f := driver.Facts{
		Scope:          p.o.Scope,
		FlushOnUnmount: true,
		MultiAttach:    p.o.Scope == driver.ScopeCluster,
		Verify:         driver.VerifyScan,
		Root:           p.o.Dir,
		BindsMounts:    p.binds,
	}
	if p.binds {
		f.Root = p.o.Mounts
	}
	p.back.Facts(&f)
	err := mount.Within(ctx, "look at pool "+p.o.Dir, func() error {
		fi, err := os.Stat(p.o.Dir)
		if err == nil && !fi.IsDir() {
			err = syscall.ENOTDIR
		}
		return fault.Wrap(fault.Unavailable, err, "pool %s", p.o.Name)
	})
	return f, err
}

// Get reads the volume's backend.Label.
func (p *Pool) Get(ctx context.Context, name string) (driver.Info, error) {
	var info driver.Info
	err := p.do(ctx, "get", name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err != nil {
			return err
		}
		info = p.info(name, l)
		return nil
	})
	if err != nil { // a call that was given up on may still write info
		return driver.Info{}, err
	}
	return info, nil
}

// Create makes the volume in .new and renames it into place, which fails when the name is taken. A
// volume that is there already with the same uid is the same wish repeated and succeeds.
func (p *Pool) Create(ctx context.Context, s driver.Spec) (driver.Info, error) {
	own, err := backend.ParseOwnership(s.Owner, s.Mode)
	if err != nil {
		return driver.Info{}, fault.Op(err, "create volume %s/%s", p.o.Name, s.Name)
	}
	if s.UID == "" {
		s.UID = uuid.Must(uuid.NewV7()).String()
	}
	l := backend.Label{V: 1, UID: s.UID, Name: s.Name, Cluster: s.Cluster, Size: s.Size, Owner: s.Owner, Mode: s.Mode, Created: p.o.Now().UTC(), Instance: p.o.Node}
	if err := backend.FirstError(backend.CheckUID(s.UID), p.settleOptions(s.Options, &l, s.Source != nil)); err != nil {
		return driver.Info{}, fault.Op(err, "create volume %s/%s", p.o.Name, s.Name)
	}
	var info driver.Info
	err = p.do(ctx, "create", s.Name, func(dir string) error {
		if l, err := backend.ReadLabel(dir); err == nil && l.UID == s.UID {
			info = p.info(s.Name, l)
			return nil
		} else if err == nil {
			return fault.New(fault.Exists, "it exists with uid %s", l.UID)
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
		if err := p.build(ctx, dir, &l, own, s.Source); err != nil {
			return err
		}
		info = p.info(s.Name, l)
		return nil
	})
	if err != nil {
		return driver.Info{}, err
	}
	return info, nil
}

// build makes the whole volume beside the others and moves it into place.
func (p *Pool) build(ctx context.Context, dir string, l *backend.Label, own backend.Ownership, from *driver.Source) error {
	return p.appear(l.Name, dir, func(tmp string) (err error) {
		if from == nil {
			err = p.back.Fill(ctx, tmp, l, own)
		} else {
			err = p.fillFrom(ctx, tmp, l, own, *from)
		}
		if err != nil {
			return err
		}
		return backend.WriteLabel(tmp, *l)
	})
}

// fillFrom makes the content by copying that of a volume or a snapshot.
func (p *Pool) fillFrom(ctx context.Context, tmp string, l *backend.Label, own backend.Ownership, from driver.Source) error {
	source, dir, target, err := p.copied(from)
	if err != nil {
		return err
	}
	if l.Size == 0 {
		l.Size = source.Size
	}
	if l.Size < source.Size {
		return fault.New(fault.Invalid, "its source has %d bytes, which do not go into %d", source.Size, l.Size)
	}
	l.Encrypt = source.Encrypt
	if l.Fsck == "" {
		l.Fsck = source.Fsck
	}
	if err := p.back.CopyTo(ctx, dir, target, tmp, source, false); err != nil {
		return err
	}
	return p.back.Clone(ctx, tmp, source, l, own)
}

// copied finds what a clone begins as.
func (p *Pool) copied(from driver.Source) (l backend.Label, dir, target string, err error) {
	if err := volume.CheckName(from.Volume); err != nil {
		return l, "", "", fault.Op(err, "source")
	}
	if from.Snapshot == "" {
		l, err = p.source(from.Volume, from.UID)
		return l, filepath.Join(p.o.Dir, from.Volume), p.target(from.Volume), fault.Op(err, "source")
	}
	if err := volume.CheckName(from.Snapshot); err != nil {
		return l, "", "", fault.Op(err, "source")
	}
	l, err = p.readSnapshot(from.Volume, from.Snapshot)
	if err == nil && from.UID != "" && l.UID != from.UID {
		err = fault.New(fault.Conflict, "snapshot %s is of volume %s with uid %s, not %s", from.Snapshot, from.Volume, l.UID, from.UID)
	}
	dir = p.snapshotDir(from.Volume, from.Snapshot)
	return l, dir, filepath.Join(p.o.Mounts, peekPrefix(from.Volume, from.Snapshot)), fault.Op(err, "source")
}

// appear has f make a directory that nobody sees, and moves it to its place, or leaves nothing.
func (p *Pool) appear(name, dir string, f func(tmp string) error) (err error) {
	tmp, err := p.temp(name)
	if err != nil {
		return err
	}
	defer p.making.Delete(filepath.Base(tmp))
	placed := false
	defer func() {
		if !placed && p.back.Destroy(tmp) == nil && fault.Is(err, fault.Unknown) {
			err = fault.Wrap(fault.Unavailable, err, "nothing was made")
		}
	}()
	if err := f(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fault.Wrap(backend.WriteClass(err), err, "make its directory")
	}
	if err := renameNew(tmp, dir); err != nil {
		// On a network file system the rename may have happened and only its answer been lost.
		_, gone := os.Lstat(tmp)
		placed = errors.Is(gone, fs.ErrNotExist)
		return err
	}
	placed = true
	crashAt("placed")
	return fault.Wrap(fault.Unknown, backend.SyncDir(filepath.Dir(dir)), "sync the pool")
}

// renameNew renames and never replaces. Where the file system cannot promise that (NFS), a plain rename does: it replaces only an
// empty directory, and a volume is never one.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = os.Rename(from, to)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.ENOTDIR):
		return fault.New(fault.Exists, "somebody else created it just now")
	}
	return fault.Wrap(fault.Unknown, err, "move it into place")
}

// Mount checks the label's uid against the one asked for and gives the path of the content.
func (p *Pool) Mount(ctx context.Context, m driver.MountSpec) (string, error) {
	var path string
	err := p.do(ctx, "mount", m.Name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err != nil {
			return err
		}
		if l.Name != m.Name || (m.UID != "" && l.UID != m.UID) {
			return fault.New(fault.Conflict, "the label there is of volume %s with uid %s, not of %s with uid %s", l.Name, l.UID, m.Name, m.UID)
		}
		path = p.WillMountAt(m.Name)
		return p.back.Mount(ctx, dir, l, path)
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

// Unmount writes out what was written and removes the mount. Success means that nobody on this node writes through it any more.
func (p *Pool) Unmount(ctx context.Context, name, _ string) error {
	return p.do(ctx, "unmount", name, func(dir string) error { return p.back.Unmount(ctx, dir, p.target(name)) })
}

// Path gives the mount point while it is mounted; without bind mounts that is always.
func (p *Pool) Path(ctx context.Context, name string) (string, error) {
	var path string
	err := p.do(ctx, "path of", name, func(dir string) error {
		if _, err := backend.ReadLabel(dir); err != nil {
			return err
		}
		if !p.binds {
			path = filepath.Join(dir, backend.DataDir)
			return nil
		}
		at, err := p.mountedAt(name)
		if at {
			path = p.target(name)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

// List reads the labels of all volumes. Directories that are not volumes are left out.
func (p *Pool) List(ctx context.Context) ([]driver.Info, error) {
	var out []driver.Info
	err := mount.Within(ctx, "list pool "+p.o.Dir, func() error {
		entries, err := os.ReadDir(p.o.Dir)
		if err != nil {
			return fault.Wrap(fault.Unknown, err, "list volumes of %s", p.o.Name)
		}
		for _, e := range entries {
			if volume.CheckName(e.Name()) != nil {
				continue
			}
			if l, err := backend.ReadLabel(filepath.Join(p.o.Dir, e.Name())); err == nil {
				out = append(out, p.info(e.Name(), l))
			}
		}
		sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Adopt writes a new uid into the label and keeps the former one beside it. The volume's snapshots come with it, first: what a crash leaves undone, the next adoption does.
func (p *Pool) Adopt(ctx context.Context, name, uid, cluster string) (driver.Info, error) {
	var info driver.Info
	if err := backend.CheckUID(uid); err != nil {
		return info, fault.Op(err, "adopt volume %s/%s", p.o.Name, name)
	}
	err := p.do(ctx, "adopt", name, func(dir string) error {
		l, err := backend.ReadLabel(dir)
		if err != nil {
			return err
		}
		if l.Name != name {
			return fault.New(fault.Conflict, "the label there is of volume %s", l.Name)
		}
		if l.UID != uid {
			if err := p.adoptSnapshots(name, l.UID, uid); err != nil {
				return err
			}
			l.Former = append(l.Former, l.UID)
			l.UID, l.Cluster = uid, cluster
			if err := backend.WriteLabel(dir, l); err != nil {
				return err
			}
		}
		info = p.info(name, l)
		return nil
	})
	if err != nil {
		return driver.Info{}, err
	}
	return info, nil
}

func (p *Pool) info(name string, l backend.Label) driver.Info {
	i := driver.Info{Name: name, UID: l.UID, Cluster: l.Cluster, Size: l.Size, Created: l.Created, Encrypted: l.Encrypted()}
	if !p.binds {
		i.Path = filepath.Join(p.o.Dir, name, backend.DataDir)
	} else if at, err := p.mountedAt(name); err == nil && at {
		i.Path = p.target(name)
	}
	return i
}

// WillMountAt gives the path that Mount answers.
func (p *Pool) WillMountAt(name string) string {
	if p.binds {
		return p.target(name)
	}
	return filepath.Join(p.o.Dir, name, backend.DataDir)
}

// Backing gives the image file of a volume that has a file system of its own, "" with the other back ends.
func (p *Pool) Backing(name string) string {
	return p.back.Backing(filepath.Join(p.o.Dir, name))
}

func (p *Pool) target(name string) string { return filepath.Join(p.o.Mounts, name) }

func (p *Pool) mountedAt(name string) (bool, error) {
	return mount.Is(p.target(name))
}

// do checks the name and runs f with the volume's directory, bounded by ctx: storage that all nodes mount may hang.
func (p *Pool) do(ctx context.Context, verb, name string, f func(dir string) error) error {
	if err := volume.CheckName(name); err != nil {
		return err
	}
	what := verb + " volume " + p.o.Name + "/" + name
	err := mount.Within(ctx, what, func() error { return f(filepath.Join(p.o.Dir, name)) })
	return fault.Op(err, "%s", what)
}

// Package backend keeps the content of a pool's volumes: in plain directories, btrfs subvolumes, or file systems of their own in files. Names, and the appearing and disappearing of
// volumes, are the pool's (isolator/driver/pool); labels are read and written here, since a file system of its own holds one, too.
package backend

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/crypt"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Pool is what a back end knows of its pool.
type Pool struct {
	Name   string
	Dir    string // without links
	Mounts string // where its volumes are mounted on this node
	Binds  bool   // whether they are
	// Work is the directory of the pool for what nobody sees yet.
	Work       string
	FullCopies bool         // images may be copied in full
	Fsck       string       // policy for the volumes that have none
	Key        crypt.Master // for encrypted volumes
	Now        func() time.Time
}

// Target is the mount point of a volume.
func (p Pool) Target(name string) string { return filepath.Join(p.Mounts, name) }

// MountedAt tells whether something is mounted there.
func (p Pool) MountedAt(name string) (bool, error) { return mount.Is(p.Target(name)) }

// Content keeps the content of a pool's volumes. Names, Labels, the appearing and disappearing of volumes are the Pool's.
// dir is always the volume's directory in the pool, target its mount point on this node.
type Content interface {
	// Facts corrects what is not so with this back end.
	Facts(*driver.Facts)
	// Size judges the wished size (0: none) and gives the one that the volume will have.
	Size(volume.Bytes) (volume.Bytes, error)
	// Fill makes the content in a directory that nobody sees yet, and completes the label, which is written afterwards.
	Fill(ctx context.Context, dir string, l *Label, own Ownership) error
	// Mount makes the content appear at target; where the pool does not mount, target is the content itself. Again is success.
	Mount(ctx context.Context, dir string, l Label, target string) error
	// Unmount undoes Mount and flushes. The volume's directory need not exist.
	Unmount(ctx context.Context, dir, target string) error
	// Unused is Conflict when the content is in use on this node, and otherwise keeps it from use until release is called.
	Unused(ctx context.Context, dir string) (release func(), err error)
	// Destroy deletes a directory of .new or .bin with all that is in it.
	Destroy(dir string) error
	// Usage says how full the content is.
	Usage(ctx context.Context, dir, target string, l Label) (driver.Usage, error)
	// Grow makes the content larger and completes the label on the disk, which has the wish (Grow) before anything else is done. because says why
	// it is left to the next mount, which calls for it by a label with Grow.
	Grow(ctx context.Context, dir, target string, l *Label, size volume.Bytes) (because string, err error)
	// CopyTo copies the content, as it is at one instant, into another directory: a snapshot's, for good, or that of a clone.
	CopyTo(ctx context.Context, dir, target, to string, l Label, forGood bool) error
	// Clone makes of a copied content of the source one that stands for itself, and completes the label.
	Clone(ctx context.Context, dir string, source Label, l *Label, own Ownership) error
	// Peek makes a snapshot's content appear read-only at target, where it must through a copy of it that is kept in copyDir. Again is success.
	Peek(ctx context.Context, dir, copyDir, target string, l Label) error
	Unpeek(ctx context.Context, copyDir, target string) error
	// Check looks the content's own file system over, or mends it; Invalid where it has none.
	Check(ctx context.Context, dir, target string, l Label, repair bool) (clean bool, report string, err error)
	// Judge completes the label of a volume that is to be made by what its creator wishes, or says why it cannot be.
	Judge(w Wish, l *Label, clone bool) error
	// Backing is the image or device below the content's own file system, "" where it has none.
	Backing(dir string) string
}

// DataDir is the part of a volume that its users see.
const DataDir = "data"

// FirstError gives the first that is one.
func FirstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteClass tells a refusal of the file system (nothing was made) from an error of unknown effect.
func WriteClass(err error) fault.Class {
	switch {
	case err == nil:
		return ""
	case IsFull(err), errors.Is(err, unix.EROFS):
		return fault.Unavailable
	case errors.Is(err, fs.ErrPermission):
		return fault.Denied
	}
	return fault.Unknown
}

// IsFull tells whether there was no room.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Package operation does what is done to volumes beside mounting: snapshots, clones, growth, checks, the bin, backups and restores.
//
// An operation is a record on the node's disk before anything of it is done, and until a day after its end. It outlives its caller, and the process:
// whatever was under way when the isolator was killed is begun again at its next start, for everything that an operation does may be done
// twice. What cannot be finished is undone (a half restored volume is removed) and its failure recorded.
//
// Who may do what when is safety.md's: an operation that touches a volume runs where the volume is held, or takes the claim for as long
// as it needs it. Node, which the isolator is, sees to that; this package knows drivers and repositories only.
package operation

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Node is what operations need of the isolator.
type Node interface {
	// Driver gives a driver by name and its facts; NotFound when this node has none of that name.
	Driver(ctx context.Context, name string) (driver.Driver, driver.Facts, error)
	// WithVolume runs f in the volume's turn while this node has the volume to itself: as its holder where it is mounted here, else under its
	// claim, which is taken for f and given back. Conflict, naming the holder, where it is held elsewhere. f's context ends when the node may
	// not have the volume any more.
	WithVolume(ctx context.Context, w Wanted, f func(ctx context.Context, h Held) error) error
	// Freeze runs f while the file system of a mounted volume is frozen; frozen is false where it has none of its own to freeze. An error says that
	// what f did is not of one instant.
	Freeze(ctx context.Context, h Held, f func(ctx context.Context) error) (frozen bool, err error)
	// Make makes a volume with the uid that n.UID says, unless it is there already by this very word. record is called with another uid before that
	// is used, where the one in n cannot be used any more.
	Make(ctx context.Context, n New, record func(uid string) error) (driver.Info, error)
	// Mount mounts a volume for an operation, under a claim of this node; Unmount ends that. Both may be repeated.
	Mount(ctx context.Context, ref volume.Ref, owner string) (path string, err error)
	Unmount(ctx context.Context, ref volume.Ref, owner string) error
	// Remove deletes a volume, as a person would.
	Remove(ctx context.Context, ref volume.Ref) error
	// Drivers names the drivers that are configured.
	Drivers() []string
	// Cluster is the uuid of the cluster.
	Cluster(ctx context.Context) (string, error)
}

// Wanted says which volume is wanted, and what for.
type Wanted struct {
	Ref  volume.Ref
	UID  string // "" asks for no check
	Verb string
	Op   string
	// Turn asks for the volume's turn only: what is done needs no claim.
	Turn bool
}

// Held is a volume that this node has to itself.
type Held struct {
	Ref     volume.Ref
	UID     string
	Path    string // where it is mounted
	Mounted bool
	Shared  bool // nobody has it to himself
}

// New is a volume to make.
type New struct {
	Ref     volume.Ref
	UID     string
	Claimed bool // the claim is there already, by the framework's hand
	Size    volume.Bytes
	Options map[string]string
	Owner   string
	Mode    string
	Source  *driver.Source
	// Undelete is the uid of the volume in the bin that this is to be; "" makes a new one.
	Undelete string
}

// BackupSpec says what is backed up.
type BackupSpec struct {
	Op       string
	Path     string // of the content
	Driver   string
	Volume   string
	UID      string
	Snapshot string
	Cluster  string
	Size     volume.Bytes
	Verify   bool
}

// Progress is told how far a long operation is; total 0 when that is not known.
type Progress func(doing string, done, total int64)

// Repositories are where backups are kept. The errors of all methods are NotFound when there is no repository, or no backup, of that name.
type Repositories interface {
	Names() []string
	// Backup makes one, or gives the one that an earlier attempt of the same Op has made.
	Backup(ctx context.Context, repository string, b BackupSpec, p Progress) (client.Backup, error)
	// Find gives one backup; "latest" is the newest of a volume.
	Find(ctx context.Context, repository, id string, ref volume.Ref) (client.Backup, error)
	// List gives those of a volume, or all with an empty ref, newest first.
	List(ctx context.Context, repository string, ref volume.Ref) ([]client.Backup, error)
	// Restore writes a backup's content into the directory path.
	Restore(ctx context.Context, repository, id, path string, verify bool, p Progress) error
	Remove(ctx context.Context, repository, id string) error
}

// Options of an Operator. Dir and Node are needed.
type Options struct {
	Dir          string
	Node         Node
	Repositories Repositories // nil: there are none
	NewID        func() string
	NewUID       func() string
	Now          func() time.Time
	// RetryMin and RetryMax are the pauses between two attempts of what is unknown.
	RetryMin, RetryMax time.Duration
	Log                func(msg string, o client.Operation, err error)
	// Crash is called at every step that a test may want to be killed at.
	Crash func(step string)
}

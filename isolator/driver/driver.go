// Package driver says what the isolator needs of a volume driver. A driver serves volumes by name: the Docker plugin
// client (driver/docker), the built-in pool (driver/pool), later CSI. It knows nothing of claims, epochs, journals
// or reference counts: the isolator decides that a volume may be mounted here, and how often it really is; the driver does it.
//
// Life of a volume: Create, then any number of (Mount … Unmount), then Remove. Mount finds what Create
// made and never creates: a driver whose plugin would is not asked before Get has said that the volume exists.
// The suite in drivertest holds every driver to this text.
package driver

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// Driver serves volumes. All methods may be called concurrently, also for one volume (the isolator
// does not, but several isolators may share one store).
//
// Every method ends when ctx does. Errors have a class of internal/fault: NotFound when the driver has said
// that there is no such volume, and only then; Invalid, Exists, Conflict, Denied; Unavailable when nothing was asked of the
// driver; and Unknown for everything that leaves open what happened: a time limit, a lost or unreadable reply, a
// server error. A caller takes Unknown for neither success nor failure.
type Driver interface {
	// Name is what volumes call the driver: the Driver of volume.Ref.
	Name() string
	// Facts says what may be assumed. It may ask the plugin; an error means not ready now.
	Facts(ctx context.Context) (Facts, error)
	// Get looks a volume up. NotFound and Unknown are different answers: only the first may lead to a creation.
	Get(ctx context.Context, name string) (Info, error)
	// Create makes a new, empty volume. It is idempotent where the driver keeps Spec.UID; otherwise an existing volume of
	// the name is Exists. A volume that appears is whole: no half-made one is ever shown by Get.
	Create(ctx context.Context, s Spec) (Info, error)
	// Remove deletes a volume that is not mounted; NotFound when there is none. uid, when not empty and kept by the driver, must be
	// the volume's own, Conflict otherwise.
	Remove(ctx context.Context, name, uid string) error
	// Mount makes the volume's content appear at an absolute path on this node and returns it. Mounting again with the same
	// id gives the same path. It never creates.
	Mount(ctx context.Context, m MountSpec) (path string, err error)
	// Unmount is the end of a Mount with that id. Unmounting what is not mounted succeeds. After success nothing of the volume
	// is mounted here by the driver for that id, and, with Facts.FlushOnUnmount, what was written has reached the storage.
	Unmount(ctx context.Context, name, id string) error
	// Path says where the volume is mounted on this node now, "" when it is not. Drivers that cannot tell answer with the path
	// that Mount would give; the isolator believes mountinfo more.
	Path(ctx context.Context, name string) (string, error)
	// List names the driver's volumes, sorted by name.
	List(ctx context.Context) ([]Info, error)
}

// Facts is what a driver promises of itself; docs/safety.md says what each word permits.
type Facts struct {
	Scope          string // ScopeCluster, ScopeZone or ScopeNode: from where a volume can be reached
	FlushOnUnmount bool   // after Unmount all that was written is at the storage
	SelfAttach     bool   // Mount attaches the storage to this node by itself
	Exclusive      bool   // the storage refuses a second node
	MultiAttach    bool   // attaching ahead on a second node is harmless
	AttachLimit    int    // 0: none known
	Verify         string // VerifySuperblock or VerifyScan: how "nobody writes any more" is shown
	Root           string // directory below which mount paths must lie; "" when none is known
	BindsMounts    bool   // a mount shows in mountinfo (false: the path is a plain directory)
	Snapshots      bool   // Snapshotter works for its volumes
	Clones         bool   // Create with Spec.Source works
	Grows          string // GrowsOnline, GrowsOffline, or "" for never
	Encrypts       bool   // the option encrypt=true is honoured or refused, never ignored
	LimitsSize     bool   // a write beyond Info.Size fails; false: the size is a note that nothing enforces
	// Freeze says that a snapshot is taken below the volume's own file system, which the isolator therefore freezes around Snapshot, and around
	// Create with a Source, where it is mounted. Where it is false nothing must be frozen: the volume shares a superblock with
	// what takes the snapshot (btrfs), and the call would wait for the thaw for ever.
	Freeze bool
}

// The ways of Facts.Grows.
const (
	GrowsOnline  = "online"  // also while the volume is mounted
	GrowsOffline = "offline" // while it is mounted, Grow records the wish and the next Mount carries it out
)

// The scopes of Facts.
const (
	ScopeCluster = "cluster"
	ScopeZone    = "zone"
	ScopeNode    = "node"
)

// The ways of Facts.Verify.
const (
	VerifySuperblock = "superblock"
	VerifyScan       = "scan"
)

// Info is what a driver knows of a volume. Only Name is always there.
type Info struct {
	Name    string
	UID     string // the uid that the volume was labelled with; "" when the driver keeps none
	Cluster string // the cluster that it was labelled for; "" when none or not kept
	Path    string // where it is mounted here, as far as the driver knows
	Size    volume.Bytes
	Created time.Time
	// Topology says where it can be reached, in the storage's own terms, one set per place; nil where that is of no matter.
	Topology []map[string]string
	// Complaint is what the storage itself says of a volume that it calls ill; "" when it says nothing. It is for people, and stops nothing.
	Complaint string
	Encrypted bool // its content is encrypted at rest, as far as the driver knows
}

// Spec is the wish for a new volume.
type Spec struct {
	Name    string
	UID     string // uid of the volume (UUIDv7); "" when nobody has given it one yet
	Cluster string // uuid of the cluster, kept in labels
	Size    volume.Bytes
	Options map[string]string // the user's, ours taken out
	Owner   string            // user[:group], by name or number, of the root directory; "" leaves it
	Mode    string            // its octal mode; "" leaves it
	Source  *Source           // what the volume begins as a copy of; nil for an empty one. Only where Facts.Clones
	Shared  bool              // several nodes will write to it at once
}

// Source is what a volume is cloned from: a volume, or one of its snapshots. The clone has the uid of its Spec and, where it
// has a file system of its own, a new file-system UUID before its first mount (../shared/safety.md, "Other operations").
type Source struct {
	Volume   string
	UID      string // the uid that the source must be labelled with; "" asks for no check
	Snapshot string // "" for the volume as it is now; the isolator sees to it that nobody writes meanwhile
}

// MountSpec says which volume to mount.
type MountSpec struct {
	Name string
	// UID is the uid that the volume must be labelled with. A driver that keeps labels refuses another with
	// Conflict, so that a wrong or empty volume is never taken for the right one. "" asks for no check.
	UID string
	// ID tells this mount from others of the volume; the isolator uses one id for each claim epoch.
	ID      string
	Options map[string]string
	Shared  bool // as in Spec, for volumes that somebody else has made
}

// Adopter is the power to give an existing volume a new uid (it was made by hand, or for an app that was
// deleted long ago). The isolator calls it only after the authority has shown that no live uid owns the name.
type Adopter interface {
	Adopt(ctx context.Context, name, uid, cluster string) (Info, error)
}

// Placer is the power to say before a mount where it will be, so that the fence knows the place even when the answer is lost.
type Placer interface {
	WillMountAt(name string) string
}

// Backer is the power to name the image file or device below a volume's own file system, which the fence needs where
// Facts.Verify is VerifySuperblock: what is flushed, and whose file system must be gone.
type Backer interface {
	Backing(name string) string
}

// Sweeper is the power to finish what a dead process left half done, and to empty the bin of what was removed before a time.
// It is called at start and now and then.
type Sweeper interface {
	Sweep(ctx context.Context, removedBefore time.Time) error
}

// Usage is how full a volume is. A zero Size means that nothing limits it but the storage below.
type Usage struct {
	Size, Used, Available volume.Bytes
	// Inodes that are used and that there can be; both 0 where the storage has no such limit.
	InodesUsed, Inodes uint64
	Complaint          string // as in Info
}

// Measurer is the power to say how full a volume is. NotFound when there is no such volume.
type Measurer interface {
	Usage(ctx context.Context, name string) (Usage, error)
}

// Growth is what became of Grow.
type Growth struct {
	Size volume.Bytes // what the volume offers now
	// Pending is the size that the next Mount will bring, with Because saying why it was not possible now; 0 when all is done.
	Pending volume.Bytes
	Because string
}

// Grower is the power to make a volume larger. Idempotent: growing to the size that is there succeeds. Smaller than the present
// size is Invalid; a pool with too little room is Unavailable and changes nothing. Only where Facts.Grows is not empty.
type Grower interface {
	Grow(ctx context.Context, name, uid string, size volume.Bytes) (Growth, error)
}

// SnapshotInfo is what a driver knows of a snapshot.
type SnapshotInfo struct {
	Volume  string // the volume's name
	UID     string // the volume's uid, as labelled
	Name    string // of the snapshot, unique for the volume
	Created time.Time
	Size    volume.Bytes // the size of a volume made from it; 0 when not known
	Ready   bool         // false: the storage still works on it
}

// Snapshotter is the power to keep a volume's content of one instant. Snapshots are crash consistent: the isolator freezes the file system
// around the call where it is mounted. A snapshot outlives the removal of its volume unless the driver says otherwise by
// refusing Remove with Conflict. Only where Facts.Snapshots.
type Snapshotter interface {
	// Snapshot is idempotent: a snapshot of that name and volume uid that is there is returned as it is.
	Snapshot(ctx context.Context, volume, uid, snapshot string) (SnapshotInfo, error)
	// RemoveSnapshot deletes it; NotFound when there is none; Conflict while it is mounted.
	RemoveSnapshot(ctx context.Context, volume, snapshot string) error
	// Snapshots lists those of one volume, or all with "", sorted by volume and name.
	Snapshots(ctx context.Context, volume string) ([]SnapshotInfo, error)
}

// SnapshotReader is the power to show a snapshot's content read-only at a path on this node, for backups. Mounting never changes the
// snapshot: where a journal would have to be replayed it is replayed in a copy. A driver without it is read through a clone.
type SnapshotReader interface {
	MountSnapshot(ctx context.Context, volume, snapshot, id string) (path string, err error)
	UnmountSnapshot(ctx context.Context, volume, snapshot, id string) error
}

// Removed is a volume in the bin.
type Removed struct {
	Name, UID string
	At        time.Time
	Until     time.Time // when Sweep may empty it
	Size      volume.Bytes
}

// Binner is the power to give removed volumes back for a while. Remove puts them in the bin.
type Binner interface {
	Bin(ctx context.Context) ([]Removed, error)
	// Undelete brings one back under its name and uid. NotFound when the bin has none; Exists when the name is taken again.
	Undelete(ctx context.Context, name, uid string) (Info, error)
	// Purge deletes it for good, now.
	Purge(ctx context.Context, name, uid string) error
}

// Checker is the power to look a file system over after a crash. Repair false only looks. Clean says that nothing is, or is any longer, wrong;
// the report is for people. Conflict while the volume is mounted anywhere.
type Checker interface {
	Check(ctx context.Context, name, uid string, repair bool) (clean bool, report string, err error)
}

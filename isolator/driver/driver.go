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
}

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

// Package reserve says which resources to reserve, create, use and free for one instance, given what an agent offers and what the
// instance wants: the operations of an ACCEPT before its LAUNCH. It knows whose a reservation is by its labels, never touches one that is
// not ours, and destroys a volume only where it is told to by id. It is pure.
package reserve

import (
	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The labels of a reservation. They are part of a resource's identity in Mesos, so they never change.
const (
	LabelCluster  = "holdfast_cluster"
	LabelApp      = "holdfast_app"
	LabelInstance = "holdfast_instance"
	LabelVolume   = "holdfast_volume" // of a volume's disk: its persistence id
)

// Owner is whose a reservation is.
type Owner struct {
	Cluster  string
	App      state.AppID
	Instance state.InstanceID
	Volume   string // persistence id, "" for what is no volume's
}

// Labels of an owner's reservation.
func (o Owner) Labels() map[string]string {
	m := map[string]string{LabelCluster: o.Cluster, LabelApp: string(o.App), LabelInstance: string(o.Instance)}
	if o.Volume != "" {
		m[LabelVolume] = o.Volume
	}
	return m
}

// OwnerOf reads the labels of the innermost reservation. ok is false when they are not those of the cluster, whatever else they are.
func OwnerOf(r *state.Resource, cluster string) (Owner, bool) {
	n := len(r.Reservations)
	if n == 0 || cluster == "" {
		return Owner{}, false
	}
	v := &r.Reservations[n-1]
	if !v.Dynamic || v.Labels[LabelCluster] != cluster || v.Labels[LabelInstance] == "" {
		return Owner{}, false
	}
	return Owner{Cluster: cluster, App: state.AppID(v.Labels[LabelApp]), Instance: state.InstanceID(v.Labels[LabelInstance]), Volume: v.Labels[LabelVolume]}, true
}

// Kind of an operation, as Mesos names it.
type Kind string

// The operations.
const (
	Reserve     Kind = "RESERVE"
	Unreserve   Kind = "UNRESERVE"
	Create      Kind = "CREATE"
	Destroy     Kind = "DESTROY"
	Grow        Kind = "GROW_VOLUME"
	Shrink      Kind = "SHRINK_VOLUME"
	CreateDisk  Kind = "CREATE_DISK"
	DestroyDisk Kind = "DESTROY_DISK"
)

// Op is one operation of an ACCEPT.
type Op struct {
	// ID asks the agent to tell of its end; "" asks for none.
	ID   string
	Kind Kind
	// Instance is the one it is for.
	Instance state.InstanceID
	// Resources of RESERVE and CREATE as they will be, of UNRESERVE and DESTROY as they are; of the others the one that is changed.
	Resources []state.Resource
	// Addition is what GROW_VOLUME adds, Subtract what SHRINK_VOLUME takes, in MB. Target is the source type that CREATE_DISK makes.
	Addition *state.Resource
	Subtract float64
	Target   string
}

// Volume is a local persistent volume that an instance wants.
type Volume struct {
	ID            string // persistence id
	ContainerPath string
	SizeMB        int64
	MaxSizeMB     int64
	Type          string // root, path, mount
	Profile       string
	Constraints   []state.Constraint
	// Created: it exists somewhere, and must not be made.
	Created bool
	// Fixed: its size is used as it is.
	Fixed bool
}

// Wish is what one instance wants to run on.
type Wish struct {
	Owner     Owner // Volume ""
	Role      string
	Principal string
	Spec      *state.Spec
	// Ports are those of the last run, in the order of the app's; they are asked for again.
	Ports   []int
	Volumes []Volume
}

// Plan is how a wish is met on an agent.
type Plan struct {
	Ops []Op
	// Task are the resources of the task, as they must stand in its TaskInfo; Ports in the order of the app's.
	Task  []state.Resource
	Ports []int
	// Later says that the operations must be over before the launch: what they make is usable from the next offer on.
	Later bool
	// Resized names the volumes whose size the plan changes, with the size wanted in MB.
	Resized map[string]int64
}

// Own picks what is reserved for an instance out of an agent's resources: by label, or a volume of it by its id.
func Own(offers []*state.Offer, o Owner, volumes map[string]bool) (own []state.Resource) {
	for _, offer := range offers {
		for i := range offer.Resources {
			r := &offer.Resources[i]
			if x, ok := OwnerOf(r, o.Cluster); ok {
				if x.Instance == o.Instance {
					own = append(own, *r)
				}
			} else if r.Disk != nil && volumes[r.Disk.Persistence] {
				own = append(own, *r) // made of statically reserved disk, which has no labels
			}
		}
	}
	return own
}

// pushed is a resource with our reservation on top of those that it has.
func (w *Wish) pushed(r state.Resource, volume string) state.Resource {
	o := w.Owner
	o.Volume = volume
	r.Reservations = append(r.Reservations[:len(r.Reservations):len(r.Reservations)],
		state.Reservation{Role: w.Role, Dynamic: true, Principal: w.Principal, Labels: o.Labels()})
	return r
}

// popped is a resource without its innermost reservation.
func popped(r state.Resource) state.Resource {
	r.Reservations = r.Reservations[:len(r.Reservations)-1]
	return r
}

// reservable tells whether Mesos lets us reserve a resource: it is not reserved, or for a parent of our role (a refinement).
func (w *Wish) reservable(r *state.Resource) bool {
	role := place.RoleOf(r)
	return w.accepts(role) && (role == "*" || isParent(role, w.Role))
}

// ready tells whether a resource is our role's already, for nobody in particular: it cannot be refined, and is used as it is.
func (w *Wish) ready(r *state.Resource) bool {
	return place.RoleOf(r) == w.Role && w.Role != "*" && w.accepts(w.Role)
}

func (w *Wish) accepts(role string) bool {
	a := w.Spec.AcceptedRoles
	for _, r := range a {
		if r == role {
			return true
		}
	}
	return len(a) == 0
}

func isParent(parent, role string) bool {
	return len(role) > len(parent) && role[:len(parent)] == parent && role[len(parent)] == '/'
}

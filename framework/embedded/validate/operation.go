package validate

import (
	"slices"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// OperationContext is what the master knows of the place an operation is asked for at.
type OperationContext struct {
	// Framework is nil for a call of an operator.
	Framework *mesos.FrameworkInfo
	// Principal is who asks, nil when nobody said.
	Principal *string
	// Total is what the agent has.
	Total resource.List
	// InUse says whether a task uses the volume.
	InUse func(volume *mesos.Resource) bool
}

// Conversion is what an operation does: From becomes To. Created and Destroyed are persistent volumes that appear or go.
// Later says that To may not be used by operations after it in the same ACCEPT (GROW_VOLUME and SHRINK_VOLUME).
type Conversion struct {
	From, To           resource.List
	Created, Destroyed resource.List
	Later              bool
}

// Operation checks an operation on resources and returns what it converts. LAUNCH and LAUNCH_GROUP are not for it.
func Operation(op *mesos.Offer_Operation, c OperationContext) (Conversion, error) {
	missing := invalidf("Operation %s lacks its body", op.Type)
	switch op.Type {
	case mesos.Offer_Operation_RESERVE:
		if op.Reserve == nil {
			return Conversion{}, missing
		}
		return reserve(op.Reserve, c)
	case mesos.Offer_Operation_UNRESERVE:
		if op.Unreserve == nil {
			return Conversion{}, missing
		}
		return unreserve(op.Unreserve.Resources)
	case mesos.Offer_Operation_CREATE:
		if op.Create == nil {
			return Conversion{}, missing
		}
		return create(op.Create.Volumes, c)
	case mesos.Offer_Operation_DESTROY:
		if op.Destroy == nil {
			return Conversion{}, missing
		}
		return destroy(op.Destroy.Volumes, c)
	case mesos.Offer_Operation_GROW_VOLUME:
		if op.GrowVolume == nil {
			return Conversion{}, missing
		}
		return grow(op.GrowVolume)
	case mesos.Offer_Operation_SHRINK_VOLUME:
		if op.ShrinkVolume == nil {
			return Conversion{}, missing
		}
		return shrink(op.ShrinkVolume)
	case mesos.Offer_Operation_CREATE_DISK, mesos.Offer_Operation_DESTROY_DISK:
		return Conversion{}, invalidf("'source' is not managed by a resource provider")
	}
	return Conversion{}, invalidf("Operation type is not known")
}

func wellFormed(l resource.List) error {
	if err := Resources(l); err != nil {
		return invalidf("Invalid resources: %v", err)
	}
	if len(l) == 0 {
		return invalidf("Invalid resources: no resources given")
	}
	if err := singleProvider(l); err != nil {
		return invalidf("Invalid resources: %v", err)
	}
	return nil
}

func reserve(op *mesos.Offer_Operation_Reserve, c OperationContext) (Conversion, error) {
	if err := wellFormed(op.Resources); err != nil {
		return Conversion{}, err
	}
	for i := range op.Resources {
		if err := reserveOne(&op.Resources[i], c); err != nil {
			return Conversion{}, err
		}
	}
	if c.Framework != nil {
		if err := singleRole(op.Resources); err != nil {
			return Conversion{}, invalidf("Invalid reservation resources: %v", err)
		}
	}
	conv := Conversion{From: resource.PopReservation(op.Resources), To: op.Resources}
	if len(op.Source) == 0 {
		return conv, nil
	}
	if err := Resources(op.Source); err != nil {
		return Conversion{}, invalidf("Invalid source: %v", err)
	}
	if err := sameQuantity(op); err != nil {
		return Conversion{}, err
	}
	conv.From = op.Source
	return conv, nil
}

func sameQuantity(op *mesos.Offer_Operation_Reserve) error {
	for _, l := range []struct {
		what string
		list resource.List
	}{{"source", op.Source}, {"resources", op.Resources}} {
		for i := range l.list {
			if !slices.EqualFunc(l.list[i].Reservations, l.list[0].Reservations, func(a, b mesos.Resource_ReservationInfo) bool { return a.Equal(b) }) {
				return invalidf("Invalid %s: Mixed reservations are not supported%s", l.what, resource.Format(l.list))
			}
		}
	}
	from, to := resource.Unreserved(op.Source), resource.Unreserved(op.Resources)
	if !resource.Equal(from, to) {
		return invalidf("Source and target resources should refer to identical resource quantities: %s vs. %s",
			resource.Format(from), resource.Format(to))
	}
	return nil
}

func reserveOne(r *mesos.Resource, c OperationContext) error {
	if !resource.IsDynamic(r) {
		return invalidf("Resource %s is not dynamically reserved", resource.FormatOne(r))
	}
	if c.Principal != nil {
		last := r.Reservations[len(r.Reservations)-1]
		if last.Principal == nil {
			return invalidf("A reserve operation was attempted by principal '%s', but there is a reserved resource in the request with no principal set", *c.Principal)
		}
		if *last.Principal != *c.Principal {
			return invalidf("A reserve operation was attempted by authenticated principal '%s', which does not match a reserved resource in the request with principal '%s'", *c.Principal, *last.Principal)
		}
	}
	if c.Framework == nil {
		if r.AllocationInfo != nil {
			return invalidf("A reserve operation was attempted with an allocated resource, but the operator API only allows reservations to be made to unallocated resources")
		}
		return nil
	}
	allocated, roles := r.GetAllocationInfo().GetRole(), Roles(c.Framework)
	switch {
	case allocated == "":
		return invalidf("A reserve operation was attempted on unallocated resource %s, but frameworks can only perform reservations on allocated resources", resource.FormatOne(r))
	case allocated != resource.Role(r):
		return invalidf("A reserve operation was attempted for a resource with role '%s', but the resource was allocated to role '%s'", resource.Role(r), allocated)
	case !slices.Contains(roles, allocated):
		return invalidf("A reserve operation was attempted for a resource allocated to role '%s', but the framework only has roles '%s'", allocated, set(roles))
	}
	return nil
}

func unreserve(l resource.List) (Conversion, error) {
	if err := wellFormed(l); err != nil {
		return Conversion{}, err
	}
	for i := range l {
		if !resource.IsDynamic(&l[i]) {
			return Conversion{}, invalidf("Resource %s is not dynamically reserved", resource.FormatOne(&l[i]))
		}
		if resource.IsVolume(&l[i]) {
			return Conversion{}, invalidf("A dynamically reserved persistent volume %s cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", resource.FormatOne(&l[i]))
		}
	}
	return Conversion{From: l, To: resource.PopReservation(l)}, nil
}

func create(l resource.List, c OperationContext) (Conversion, error) {
	if err := wellFormed(l); err != nil {
		return Conversion{}, err
	}
	if err := persistentVolume(l); err != nil {
		return Conversion{}, invalidf("Not a persistent volume: %v", err)
	}
	if err := uniquePersistence(slices.Concat(c.Total, l)); err != nil {
		return Conversion{}, err
	}
	for i := range l {
		if err := createOne(&l[i], c); err != nil {
			return Conversion{}, err
		}
	}
	if c.Framework != nil {
		if err := singleRole(l); err != nil {
			return Conversion{}, invalidf("Invalid volume resources: %v", err)
		}
	}
	return Conversion{From: resource.StripVolume(l), To: l, Created: resource.Unallocate(l)}, nil
}

func createOne(v *mesos.Resource, c OperationContext) error {
	if v.Shared != nil {
		return invalidf("Shared persistent volumes are not supported by the embedded engine")
	}
	if c.Principal == nil {
		return nil
	}
	p := v.Disk.Persistence.Principal
	if p == nil {
		return invalidf("Create volume operation attempted by principal '%s', but there is a volume in the operation with no principal set in 'disk.persistence'", *c.Principal)
	}
	if *p != *c.Principal {
		return invalidf("Create volume operation attempted by authenticated principal '%s', which does not match a volume in the operation with principal '%s' set in 'disk.persistence'", *c.Principal, *p)
	}
	return nil
}

func destroy(l resource.List, c OperationContext) (Conversion, error) {
	plain := resource.Unallocate(l)
	if err := wellFormed(plain); err != nil {
		return Conversion{}, err
	}
	if err := persistentVolume(plain); err != nil {
		return Conversion{}, invalidf("Not a persistent volume: %v", err)
	}
	for i := range plain {
		if !resource.Contains(c.Total, plain[i:i+1]) {
			return Conversion{}, invalidf("Persistent volumes not found")
		}
	}
	for i := range plain {
		if c.InUse(&plain[i]) {
			return Conversion{}, invalidf("Persistent volumes in use")
		}
	}
	return Conversion{From: l, To: resource.StripVolume(l), Destroyed: plain}, nil
}

func grow(op *mesos.Offer_Operation_GrowVolume) (Conversion, error) {
	v, add := op.Volume, op.Addition
	switch {
	case resource.Validate(resource.List{v}) != nil:
		return Conversion{}, invalidf("Invalid resource in the 'GrowVolume.volume' field: %v", resource.Validate(resource.List{v}))
	case add.GetScalar().GetValue() <= 0:
		return Conversion{}, invalidf("The size of 'GrowVolume.addition' field must be greater than zero")
	case resource.Validate(resource.List{add}) != nil:
		return Conversion{}, invalidf("Invalid resource in the 'GrowVolume.addition' field: %v", resource.Validate(resource.List{add}))
	case v.ProviderID != nil:
		return Conversion{}, invalidf("Growing a volume from a resource provider is not supported")
	case persistentVolume(resource.List{v}) != nil:
		return Conversion{}, invalidf("Invalid persistent volume in the 'GrowVolume.volume' field: %v", persistentVolume(resource.List{v}))
	case v.Shared != nil:
		return Conversion{}, invalidf("Growing a shared persistent volume is not supported")
	}
	if len(resource.Add(resource.StripVolume(resource.List{v}), add)) != 1 {
		return Conversion{}, invalidf("Incompatible resources in the 'GrowVolume.volume' and 'GrowVolume.addition' fields")
	}
	return Conversion{From: resource.List{v, add}, To: resource.List{sized(v, v.Scalar.Value+add.Scalar.Value)}, Later: true}, nil
}

func shrink(op *mesos.Offer_Operation_ShrinkVolume) (Conversion, error) {
	v, sub := op.Volume, op.Subtract.Value
	switch {
	case resource.Validate(resource.List{v}) != nil:
		return Conversion{}, invalidf("Invalid resource in the 'ShrinkVolume.volume' field: %v", resource.Validate(resource.List{v}))
	case !(sub >= 0.001): // NaN too
		return Conversion{}, invalidf("Value of 'ShrinkVolume.subtract' must be greater than zero")
	case v.GetScalar().GetValue() <= sub:
		return Conversion{}, invalidf("Value of 'ShrinkVolume.subtract' must be smaller than the size of 'ShrinkVolume.volume'")
	case v.ProviderID != nil:
		return Conversion{}, invalidf("Shrinking a volume from a resource provider is not supported")
	case v.GetDisk().GetSource().GetType() == mesos.Resource_DiskInfo_Source_MOUNT:
		return Conversion{}, invalidf("Shrinking a volume on a MOUNT disk is not supported")
	case persistentVolume(resource.List{v}) != nil:
		return Conversion{}, invalidf("Invalid persistent volume in the 'ShrinkVolume.volume' field: %v", persistentVolume(resource.List{v}))
	case v.Shared != nil:
		return Conversion{}, invalidf("Shrinking a shared persistent volume is not supported")
	}
	freed := resource.StripVolume(resource.List{sized(v, sub)})
	return Conversion{From: resource.List{v}, To: resource.List{sized(v, v.Scalar.Value-sub), freed[0]}, Later: true}, nil
}

// sized returns a resource with another amount.
func sized(r mesos.Resource, value float64) mesos.Resource {
	r.Scalar = &mesos.Value_Scalar{Value: value}
	return r
}

// Lists returns every list of resources in an operation, to be rewritten by the master before it is looked at.
func Lists(op *mesos.Offer_Operation) []*[]mesos.Resource {
	var out []*[]mesos.Resource
	if o := op.Reserve; o != nil {
		out = append(out, &o.Resources, &o.Source)
	}
	if o := op.Unreserve; o != nil {
		out = append(out, &o.Resources)
	}
	if o := op.Create; o != nil {
		out = append(out, &o.Volumes)
	}
	if o := op.Destroy; o != nil {
		out = append(out, &o.Volumes)
	}
	tasks := op.GetLaunch().GetTaskInfos()
	if o := op.LaunchGroup; o != nil {
		out = append(out, &o.Executor.Resources)
		tasks = o.TaskGroup.Tasks
	}
	for i := range tasks {
		out = append(out, &tasks[i].Resources)
		if e := tasks[i].Executor; e != nil {
			out = append(out, &e.Resources)
		}
	}
	return out
}

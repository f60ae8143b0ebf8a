package resource

import (
	"slices"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Role returns the role a resource is reserved for, "*" when it is not reserved.
func Role(r *mesos.Resource) string {
	if n := len(r.Reservations); n > 0 {
		return r.Reservations[n-1].GetRole()
	}
	return oldRole(r)
}

// IsReserved says whether a resource is reserved for any role.
func IsReserved(r *mesos.Resource) bool { return len(r.Reservations) > 0 || oldRole(r) != "*" }

// IsDynamic says whether the last reservation was made by an operation rather than a flag of the agent.
func IsDynamic(r *mesos.Resource) bool {
	n := len(r.Reservations)
	return n > 0 && r.Reservations[n-1].GetType() == mesos.Resource_ReservationInfo_DYNAMIC
}

// IsVolume says whether a resource is a persistent volume.
func IsVolume(r *mesos.Resource) bool { return r.GetDisk().GetPersistence() != nil }

// IsRefined says whether a reservation was made on top of another one.
func IsRefined(r *mesos.Resource) bool { return len(r.Reservations) > 1 }

// AllocatableTo says whether a resource may be offered to a role: unreserved, or reserved for the role or one above it.
func AllocatableTo(r *mesos.Resource, role string) bool {
	if !IsReserved(r) {
		return true
	}
	owner := Role(r)
	return owner == role || strings.HasPrefix(role, owner+"/")
}

// PopReservation takes the last reservation off every resource; one that has none stays as it is.
func PopReservation(l List) List {
	out := slices.Clone(l)
	for i := range out {
		if n := len(out[i].Reservations); n > 0 {
			out[i].Reservations = slices.Clip(out[i].Reservations[:n-1])
			if n == 1 {
				out[i].Reservations = nil
			}
		}
	}
	return out
}

// Unreserved takes all reservations off.
func Unreserved(l List) List {
	var out List
	for i := range l {
		r := l[i]
		r.Reservations, r.Role, r.Reservation = nil, nil, nil
		out = addOne(out, &r)
	}
	return out
}

// Allocate says for which role the resources are offered or used.
func Allocate(l List, role string) List {
	out := slices.Clone(l)
	info := &mesos.Resource_AllocationInfo{Role: &role}
	for i := range out {
		out[i].AllocationInfo = info
	}
	return out
}

// AllocateMissing does what Allocate does, only for those that say nothing themselves.
func AllocateMissing(l List, role string) List {
	out := slices.Clone(l)
	info := &mesos.Resource_AllocationInfo{Role: &role}
	for i := range out {
		if out[i].AllocationInfo == nil {
			out[i].AllocationInfo = info
		}
	}
	return out
}

// Unallocate is the opposite of Allocate; equal resources of several roles are joined.
func Unallocate(l List) List {
	var out List
	for i := range l {
		r := l[i]
		r.AllocationInfo = nil
		out = addOne(out, &r)
	}
	return out
}

// StripVolume turns persistent volumes back into the disk they were made of.
func StripVolume(l List) List {
	out := slices.Clone(l)
	for i := range out {
		if d := out[i].Disk; d != nil && d.Persistence != nil {
			if d.Source != nil {
				out[i].Disk = &mesos.Resource_DiskInfo{Source: d.Source}
			} else {
				out[i].Disk = nil
			}
			out[i].Shared = nil
		}
	}
	return out
}

// Volumes returns the persistent volumes of a list.
func Volumes(l List) List { return Filter(l, IsVolume) }

// Upgrade brings resources written in the format before reservation refinement (role, reservation)
// into the one with a stack of reservations, which is the only one the engine computes with.
func Upgrade(l List) List {
	out := slices.Clone(l)
	for i := range out {
		r := &out[i]
		if len(r.Reservations) > 0 {
			r.Role, r.Reservation = nil, nil
			continue
		}
		role := oldRole(r)
		switch {
		case role == "*" && r.Reservation == nil:
		case r.Reservation == nil:
			r.Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: &role}}
		default:
			r.Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(),
				Role: &role, Principal: r.Reservation.Principal, Labels: r.Reservation.Labels}}
		}
		r.Role, r.Reservation = nil, nil
	}
	return out
}

// Both fills in the old format beside the new one, as the operator API shows resources.
func Both(l List) List {
	out := slices.Clone(l)
	for i := range out {
		old(&out[i])
	}
	return out
}

// Downgrade writes resources in the old format, for frameworks without the capability
// RESERVATION_REFINEMENT. Refined reservations cannot be written so: ok is false.
func Downgrade(l List) (_ List, ok bool) {
	out := slices.Clone(l)
	for i := range out {
		if IsRefined(&out[i]) {
			return nil, false
		}
		old(&out[i])
		out[i].Reservations = nil
	}
	return out, true
}

func old(r *mesos.Resource) {
	role := Role(r)
	r.Role = &role
	if n := len(r.Reservations); n == 1 && IsDynamic(r) {
		r.Reservation = &mesos.Resource_ReservationInfo{Principal: r.Reservations[0].Principal, Labels: r.Reservations[0].Labels}
	}
}

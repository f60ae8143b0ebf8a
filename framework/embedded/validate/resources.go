package validate

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// Resources checks that resources are well formed and not used for what they cannot be.
func Resources(l resource.List) error {
	if err := resource.Validate(l); err != nil {
		return invalidf("Invalid resources: %v", err)
	}
	if g := int64(resource.Sum(l, "gpus") * 1000); g%1000 != 0 {
		return invalidf("Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer")
	}
	for i := range l {
		if err := diskInfo(&l[i]); err != nil {
			return invalidf("Invalid DiskInfo: %v", err)
		}
	}
	for i := range l {
		if resource.IsDynamic(&l[i]) && l[i].Revocable != nil {
			return invalidf("Invalid ReservationInfo: Dynamically reserved resource %s cannot be created from revocable resources",
				resource.FormatOne(&l[i]))
		}
	}
	return nil
}

func diskInfo(r *mesos.Resource) error {
	d := r.Disk
	switch {
	case d == nil:
		return nil
	case d.Persistence == nil && d.Volume != nil:
		return invalidf("Non-persistent volume not supported")
	case d.Persistence == nil && d.Source == nil:
		return invalidf("DiskInfo is set but empty")
	case d.Persistence == nil:
		return nil
	case r.Revocable != nil:
		return invalidf("Persistent volumes cannot be created from revocable resources")
	case !resource.IsReserved(r):
		return invalidf("Persistent volumes cannot be created from unreserved resources")
	case d.Volume == nil:
		return invalidf("Expecting 'volume' to be set for persistent volume")
	case d.Volume.HostPath != nil:
		return invalidf("Expecting 'host_path' to be unset for persistent volume")
	}
	if err := ID(d.Persistence.ID); err != nil {
		return invalidf("Invalid persistence ID for persistent volume: %v", err)
	}
	return nil
}

func uniquePersistence(l resource.List) error {
	type key struct{ role, id string }
	seen := map[key]bool{}
	for i := range l {
		if !resource.IsVolume(&l[i]) {
			continue
		}
		k := key{resource.Role(&l[i]), l[i].Disk.Persistence.ID}
		if seen[k] {
			return invalidf("Persistence ID '%s' is not unique", k.id)
		}
		seen[k] = true
	}
	return nil
}

func singleRole(l resource.List) error {
	first := ""
	for i := range l {
		role := l[i].GetAllocationInfo().GetRole()
		switch {
		case role == "":
			return invalidf("The resources are not allocated to a role")
		case first == "":
			first = role
		case role != first:
			return invalidf("The resources have multiple allocation roles ('%s' and '%s') but only one allocation role is allowed", role, first)
		}
	}
	return nil
}

// singleProvider refuses resources of resource providers, which the engine has none of.
func singleProvider(l resource.List) error {
	for i := range l {
		if l[i].ProviderID != nil {
			return invalidf("Resource provider '%s' is not known", l[i].ProviderID.Value)
		}
	}
	return nil
}

func persistentVolume(l resource.List) error {
	for i := range l {
		d := l[i].Disk
		switch {
		case d == nil:
			return invalidf("Resource %s does not have DiskInfo", resource.FormatOne(&l[i]))
		case d.Persistence == nil:
			return invalidf("'persistence' is not set in DiskInfo")
		case d.Volume == nil:
			return invalidf("Expecting 'volume' to be set for persistent volume")
		case d.Volume.GetMode() == mesos.RO:
			return invalidf("Read-only persistent volume not supported")
		}
	}
	return nil
}

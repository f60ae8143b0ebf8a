package reserve

import "github.com/holdfast-io/holdfast/scheduler/state"

// Trim gives back what is reserved for an instance that does not run: all but its volumes and the disks that they are on.
func Trim(own []state.Resource, o Owner) []Op {
	var back []state.Resource
	var ops []Op
	for _, r := range own {
		switch _, labelled := OwnerOf(&r, o.Cluster); {
		case !labelled || isVolume(&r):
		case provided(&r):
			ops = append(ops, Op{Kind: DestroyDisk, Resources: []state.Resource{r}})
		default:
			back = append(back, r)
		}
	}
	return named(append(ops, split(Unreserve, back)...), o.Instance)
}

// provided tells whether a storage provider made the disk for us (CREATE_DISK): it goes back to the provider, and what it was made of is offered
// again, reserved still, and unreserved then.
func provided(r *state.Resource) bool {
	return r.Provider != "" && r.Disk != nil && r.Disk.Profile != "" && (r.Disk.Source == "MOUNT" || r.Disk.Source == "BLOCK")
}

// Free gives everything back: the volumes that destroy names are destroyed, then all that is not the disk of another volume is
// unreserved. kept names the volumes that were not destroyed.
func Free(own []state.Resource, o Owner, destroy func(id string) bool) (ops []Op, kept []string) {
	var gone, back, disks []state.Resource
	for _, r := range own {
		_, labelled := OwnerOf(&r, o.Cluster)
		switch {
		case isVolume(&r) && !destroy(r.Disk.Persistence):
			kept = append(kept, r.Disk.Persistence)
		case isVolume(&r):
			gone = append(gone, r)
			if p := plain(r); labelled && provided(&p) {
				disks = append(disks, p)
			} else if labelled {
				back = append(back, p)
			}
		case labelled && provided(&r):
			disks = append(disks, r)
		case labelled:
			back = append(back, r)
		}
	}
	for _, r := range gone { // one by one, so that the end of each is known
		ops = append(ops, Op{Kind: Destroy, Resources: []state.Resource{r}})
	}
	for _, r := range disks {
		ops = append(ops, Op{Kind: DestroyDisk, Resources: []state.Resource{r}})
	}
	return named(append(ops, split(Unreserve, back)...), o.Instance), kept
}

func isVolume(r *state.Resource) bool { return r.Disk != nil && r.Disk.Persistence != "" }

func named(ops []Op, id state.InstanceID) []Op {
	for i := range ops {
		ops[i].Instance = id
	}
	return ops
}

package reserve

import "github.com/holdfast-io/holdfast/scheduler/state"

// Trim gives back what is reserved for an instance that does not run: all but its volumes and the disks that they are on.
func Trim(own []state.Resource, o Owner) []Op {
	var back []state.Resource
	for _, r := range own {
		if _, labelled := OwnerOf(&r, o.Cluster); labelled && !isVolume(&r) {
			back = append(back, r)
		}
	}
	return named(split(Unreserve, back), o.Instance)
}

// Free gives everything back: the volumes that destroy names are destroyed, then all that is not the disk of another volume is
// unreserved. kept names the volumes that were not destroyed.
func Free(own []state.Resource, o Owner, destroy func(id string) bool) (ops []Op, kept []string) {
	var gone, back []state.Resource
	for _, r := range own {
		_, labelled := OwnerOf(&r, o.Cluster)
		switch {
		case isVolume(&r) && !destroy(r.Disk.Persistence):
			kept = append(kept, r.Disk.Persistence)
		case isVolume(&r):
			gone = append(gone, r)
			if labelled {
				back = append(back, plain(r))
			}
		case labelled:
			back = append(back, r)
		}
	}
	for _, r := range gone { // one by one, so that the end of each is known
		ops = append(ops, Op{Kind: Destroy, Resources: []state.Resource{r}})
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

package state

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// Class is the record classes/<name>: an operator's recipe for volumes. Apps name it; what it says is copied into their definitions, and
// from there into volumes and claims, so that editing a class changes nothing that there is.
type Class struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
	// Options are the driver's; an app's own of the same name win.
	Options map[string]string `json:"options,omitempty"`
	// Size is for volumes that ask for none; 0: the driver's default.
	Size volume.Bytes `json:"size,omitempty"`
	// Policy is how claims may be freed when a node is lost: "lease", "operator"; "" the cluster's default.
	Policy string `json:"policy,omitempty"`
	// Zones are where instances with such volumes may run; empty: anywhere.
	Zones []string `json:"zones,omitempty"`
	// Reclaim "delete" deletes volumes with their app, unless the app says otherwise; "" and "keep" keep them.
	Reclaim   string    `json:"reclaim,omitempty"`
	Encrypt   bool      `json:"encrypt,omitempty"`
	UpdatedAt time.Time `json:"updatedAt"`
	Rev       uint64    `json:"rev"`
}

// MountSource is what a new volume begins as a copy of: a snapshot of another volume of its driver.
type MountSource struct {
	Volume   string `json:"volume"` // a name, or a pattern with {ordinal}
	Snapshot string `json:"snapshot"`
}

// VolumeSource is a MountSource of one volume. UID is the source's, "" when it is not one of ours.
type VolumeSource struct {
	Volume   string    `json:"volume"`
	UID      VolumeUID `json:"uid,omitempty"`
	Snapshot string    `json:"snapshot"`
}

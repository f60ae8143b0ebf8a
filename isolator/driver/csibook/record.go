package csibook

import (
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// The states of a record.
const (
	Creating = "creating" // the call that makes it is about to be made, or was and nobody knows what it did
	There    = "there"
	Deleting = "deleting"
)

// Volume is what is known of a volume beside the plugin.
type Volume struct {
	V        int                 `json:"v"`
	Name     string              `json:"name"`
	UID      string              `json:"uid,omitempty"`
	Cluster  string              `json:"cluster,omitempty"`
	State    string              `json:"state"`
	ID       string              `json:"id,omitempty"`
	Wish     Wish                `json:"wish"`
	Capacity int64               `json:"capacity,omitempty"`
	Context  map[string]string   `json:"context,omitempty"`
	Topology []map[string]string `json:"topology,omitempty"`
	Created  time.Time           `json:"created,omitzero"`
	Node     string              `json:"node,omitempty"` // uid of the node that made it
	// Granted is the capacity that the plugin gave in answer to us. It may have given more in an answer that was lost, and then what lies on the
	// volume has not grown to it.
	Granted int64 `json:"granted,omitempty"`
	// Grow is a size that was wished for and that the controller has not granted yet, Because why.
	Grow    int64  `json:"grow,omitempty"`
	Because string `json:"because,omitempty"`
	// GrowFS is the size that the volume has and its file system has not yet; FS is what that has.
	GrowFS int64 `json:"growFs,omitempty"`
	FS     int64 `json:"fsSize,omitempty"`

	complaint string // what the plugin said of its health when it was last asked
}

// Info is the record in the terms of the driver interface.
func (r Volume) Info() driver.Info {
	return driver.Info{Name: r.Name, UID: r.UID, Cluster: r.Cluster, Size: volume.Bytes(r.Capacity), Created: r.Created, Topology: r.Topology, Complaint: r.complaint}
}

// GrowLater records that the volume has a size that its file system is still to get.
func (r *Volume) GrowLater(size int64) {
	if r.GrowFS == 0 {
		r.FS = r.Granted
	}
	r.GrowFS, r.Capacity = size, max(size, r.Capacity)
}

// Take keeps what a reply says of the volume.
func (r *Volume) Take(v *spec.Volume, accessible []map[string]string) {
	if v.GetCapacityBytes() > 0 { // 0 is a plugin that does not say
		r.Capacity = v.GetCapacityBytes()
	}
	if accessible != nil {
		r.Topology = accessible
	}
	if v.GetVolumeContext() != nil {
		r.Context = v.GetVolumeContext()
	}
}

// Match takes a volume that the plugin gave for this record's, if it is, and what the plugin says of its condition.
func (r *Volume) Match(v *spec.Volume, c *spec.VolumeCondition) error {
	accessible, err := csiwire.CheckVolume(v)
	if err != nil {
		return err
	}
	if v.GetVolumeId() != r.ID {
		return fault.New(fault.Unknown, "the plugin answered about volume id %.80q instead of %q", v.GetVolumeId(), r.ID)
	}
	r.Take(v, accessible)
	r.complaint = csiwire.Complaint(c)
	return nil
}

// Snapshot is what is known of a snapshot beside the plugin. Its file is named <volume>@<name>.
type Snapshot struct {
	V       int       `json:"v"`
	Volume  string    `json:"volume"`
	UID     string    `json:"uid,omitempty"` // of the volume
	Name    string    `json:"name"`
	State   string    `json:"state"`
	ID      string    `json:"id,omitempty"`
	Source  string    `json:"source"` // the plugin's id of the volume
	Called  string    `json:"called"` // its name towards the plugin, where all volumes' snapshots share one set of names
	Size    int64     `json:"size,omitempty"`
	Ready   bool      `json:"ready,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Node    string    `json:"node,omitempty"`
}

// Key names its file.
func (r Snapshot) Key() string { return r.Volume + "@" + r.Name }

// Info is the record in the terms of the driver interface.
func (r Snapshot) Info() driver.SnapshotInfo {
	return driver.SnapshotInfo{Volume: r.Volume, UID: r.UID, Name: r.Name, Created: r.Created, Size: volume.Bytes(r.Size), Ready: r.Ready}
}

// Match takes what the plugin gave for this record's snapshot, if it is.
func (r *Snapshot) Match(s *spec.Snapshot) error {
	switch {
	case s == nil:
		return fault.New(fault.Unknown, "the plugin answered without a snapshot")
	case s.GetSourceVolumeId() != "" && s.GetSourceVolumeId() != r.Source:
		return fault.New(fault.Unknown, "the plugin answered with a snapshot of volume id %.80q instead of %q", s.GetSourceVolumeId(), r.Source)
	case r.ID != "" && s.GetSnapshotId() != r.ID:
		return fault.New(fault.Unknown, "the plugin answered about snapshot id %.80q instead of %q", s.GetSnapshotId(), r.ID)
	case s.GetSizeBytes() < 0:
		return fault.New(fault.Unknown, "the plugin gave a snapshot of %d bytes", s.GetSizeBytes())
	}
	if err := csiwire.CheckText("snapshot id", s.GetSnapshotId(), csiwire.MaxID); err != nil {
		return err
	}
	r.ID, r.State, r.Size, r.Ready = s.GetSnapshotId(), There, s.GetSizeBytes(), s.GetReadyToUse()
	if t := s.GetCreationTime(); t.IsValid() && t.GetSeconds() > 0 {
		r.Created = t.AsTime()
	}
	return nil
}

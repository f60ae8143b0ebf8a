package csibook

import (
	"slices"
	"sort"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// Wish is what a volume's options ask for, in the plugin's terms. It is kept in the volume's record.
type Wish struct {
	Size       volume.Bytes      `json:"size,omitempty"`
	FSType     string            `json:"fs,omitempty"`
	Access     string            `json:"access"`
	MountFlags []string          `json:"mountFlags,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Source     *Source           `json:"source,omitempty"`
}

// Source is what a volume begins as a copy of, by the plugin's ids: a snapshot, or, with Snapshot empty, a volume.
type Source struct {
	Volume   string `json:"volume"`
	Snapshot string `json:"snapshot,omitempty"`
	Size     int64  `json:"size,omitempty"` // of the source, where the copy is to be larger
}

// The access modes that are chosen where the options name none.
const (
	OneNode   = "single-node-writer"
	OneWriter = "single-node-single-writer" // where the plugin tells one writer on a node from several
	AllNodes  = "multi-node-multi-writer"   // for shared volumes
)

// accessModes are the values of the option `access`.
var accessModes = map[string]spec.VolumeCapability_AccessMode_Mode{
	OneNode:                    spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	"single-node-reader-only":  spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	OneWriter:                  spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	"single-node-multi-writer": spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	"multi-node-reader-only":   spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	"multi-node-single-writer": spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
	AllNodes:                   spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

// ParseWish reads a volume's options: size, fs, access and mountflags are ours, everything else goes to the plugin as a parameter. Access is empty
// when the options do not say; see Choose.
func ParseWish(size volume.Bytes, options map[string]string, fsType string) (Wish, error) {
	w := Wish{Size: size, FSType: fsType}
	for k, v := range options {
		var err error
		switch strings.ToLower(k) {
		case "size":
			var n volume.Bytes
			if n, err = volume.ParseSize(v); size == 0 {
				w.Size = n
			}
		case "fs", "fstype":
			if w.FSType = v; len(v) > 32 {
				err = fault.New(fault.Invalid, "option %s is longer than 32 bytes", k)
			}
		case "access":
			if w.Access = v; accessModes[v] == 0 {
				err = fault.New(fault.Invalid, "option access %q is none of %s", v, strings.Join(sorted(accessModes), ", "))
			}
		case "mountflags":
			w.MountFlags = strings.Split(v, ",")
		case "block", "volumemode":
			if v != "" && !strings.EqualFold(v, "false") && !strings.EqualFold(v, "filesystem") {
				err = fault.New(fault.Invalid, "option %s: raw block volumes are not served, only mounted file systems", k)
			}
		default:
			if w.Parameters == nil {
				w.Parameters = map[string]string{}
			}
			w.Parameters[k] = v
		}
		if err != nil {
			return w, err
		}
	}
	return w, nil
}

// Choose settles the access mode. singleWriter says that the plugin knows the modes that tell one writer on a node from several.
func (w *Wish) Choose(singleWriter, shared bool) error {
	switch {
	case w.Access == "" && shared:
		w.Access = AllNodes
	case w.Access == "" && singleWriter:
		w.Access = OneWriter
	case w.Access == "":
		w.Access = OneNode
	case shared && strings.HasPrefix(w.Access, "single-node"):
		return fault.New(fault.Invalid, "access %s of a shared volume: it must be one of the multi-node modes", w.Access)
	case !singleWriter && slices.Contains([]string{OneWriter, "single-node-multi-writer"}, w.Access):
		return fault.New(fault.Invalid, "access %s: the plugin does not tell one writer on a node from several (SINGLE_NODE_MULTI_WRITER); use %s", w.Access, OneNode)
	}
	return nil
}

// Capability is the wish in a request.
func (w Wish) Capability() *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: accessModes[w.Access]},
		AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: w.FSType, MountFlags: w.MountFlags}},
	}
}

// ReadOnly tells whether the access mode lets nobody write.
func (w Wish) ReadOnly() bool { return strings.HasSuffix(w.Access, "reader-only") }

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// Same refuses a volume that the plugin does not say to be a copy of what it should be: it may be empty.
func (want *Source) Same(got *spec.VolumeContentSource) error {
	if want == nil || (want.Snapshot != "" && got.GetSnapshot().GetSnapshotId() == want.Snapshot) ||
		(want.Snapshot == "" && got.GetVolume().GetVolumeId() == want.Volume) {
		return nil
	}
	return fault.New(fault.Conflict, "the plugin made it and does not say that it is a copy of what was asked for, so it may be empty; it is not used (delete it at the plugin)")
}

// Enough makes a copy at least as large as its source.
func (w *Wish) Enough(size int64) error {
	switch {
	case w.Size == 0:
		w.Size = volume.Bytes(size)
	case int64(w.Size) > size:
		w.Source.Size = size
	case int64(w.Size) < size:
		return fault.New(fault.Invalid, "a copy of %s has not room in %s", volume.Bytes(size), w.Size)
	}
	return nil
}

package csi

import (
	"sort"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// wish is what a volume's options ask for, in the plugin's terms. It is kept in the volume's record.
type wish struct {
	Size       volume.Bytes      `json:"size,omitempty"`
	FSType     string            `json:"fs,omitempty"`
	Access     string            `json:"access"`
	MountFlags []string          `json:"mountFlags,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"`
}

// accessModes are the values of the option `access`.
var accessModes = map[string]spec.VolumeCapability_AccessMode_Mode{
	"single-node-writer":        spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	"single-node-reader-only":   spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	"single-node-single-writer": spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	"single-node-multi-writer":  spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	"multi-node-reader-only":    spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	"multi-node-single-writer":  spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER,
	"multi-node-multi-writer":   spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

// parseWish reads a volume's options: size, fs, access and mountflags are ours, everything else goes to the plugin as a parameter.
func parseWish(size volume.Bytes, options map[string]string, fsType string) (wish, error) {
	w := wish{Size: size, FSType: fsType, Access: "single-node-writer"}
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

func (w wish) capability() *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: accessModes[w.Access]},
		AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{FsType: w.FSType, MountFlags: w.MountFlags}},
	}
}

// readOnly tells whether the access mode lets nobody write.
func (w wish) readOnly() bool { return strings.HasSuffix(w.Access, "reader-only") }

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

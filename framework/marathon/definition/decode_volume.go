package definition

import (
	"strconv"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// decodeVolume reads one of the four kinds of volume. Marathon tries one after the other and reports the errors of
// the last, the host volume, whatever was meant: that is kept, and what is really wrong stands beside it.
func decodeVolume(r *document.Reader) Volume {
	v := Volume{}
	before := r.Errors()
	v.ContainerPath = Or(r.StrLen("containerPath", 1, noBounds), "")
	v.Mode = Or(r.Enum("mode", "RO", "RW"), "")
	switch {
	case r.Has("persistent"):
		r.Require("containerPath", "mode")
		v.Persistent = decodePersistent(r.Obj("persistent"))
	case r.Has("external"):
		r.Require("containerPath", "mode")
		v.External = decodeExternal(r.Obj("external"))
	case r.Has("secret"):
		r.Require("containerPath")
		v.Secret = Ptr(Or(r.Str("secret"), ""))
	default:
		r.Require("containerPath", "mode", "hostPath")
		v.HostPath = Ptr(Or(r.StrLen("hostPath", 1, noBounds), ""))
		return v
	}
	r.Has("hostPath")
	if r.Errors() > before {
		r.Problem("hostPath", r.Undefined("hostPath"))
	}
	return v
}

func decodePersistent(r *document.Reader) *Persistent {
	r.Require("size")
	p := &Persistent{Type: r.Enum("type", "root", "path", "mount"), Size: Or(r.Int("size", 0, maxLong), 0), MaxSize: r.Int("maxSize", 0, maxLong),
		ProfileName: r.Str("profileName"), Constraints: decodeConstraints(r, "constraints")}
	r.Close()
	return p
}

func decodeExternal(r *document.Reader) *External {
	e := &External{Name: r.Str("name"), Provider: r.Str("provider"), Shared: r.Flag("shared"), Class: r.StrLen("class", 1, 200)}
	decodeSize(r, e)
	e.AccessMode = r.Enum("accessMode", "SINGLE_NODE_WRITER", "MULTI_NODE_READER_ONLY", "MULTI_NODE_MULTI_WRITER")
	e.Encrypt = r.Flag("encrypt")
	if r.Has("snapshot") {
		o := r.Obj("snapshot")
		o.Require("volume", "name")
		e.Snapshot = &SnapshotSource{Volume: Or(o.StrLen("volume", 1, 200), ""), Name: Or(o.StrLen("name", 1, 200), "")}
		o.Close()
	}
	if r.Has("clone") {
		o := r.Obj("clone")
		o.Require("volume")
		e.Clone = Ptr(Or(o.StrLen("volume", 1, 200), ""))
		o.Close()
	}
	if r.Has("retain") {
		o := r.Obj("retain")
		e.Retain = &Retain{OnScaleDown: o.Enum("onScaleDown", "keep", "delete"), OnDelete: o.Enum("onDelete", "keep", "delete")}
		o.Close()
	}
	if e.Provider != nil && *e.Provider == "csi" {
		if r.Has("options") {
			e.CSI = decodeCSI(r.Obj("options"))
		}
	} else {
		e.Options = r.StrMap("options")
	}
	r.Close()
	return e
}

// decodeSize reads a whole number of GiB, or (ours) a text with a unit.
func decodeSize(r *document.Reader, e *External) {
	v := r.Value("size")
	if v == nil {
		return
	}
	if v.Kind == document.String {
		if _, err := volume.ParseSize(v.Text); err != nil {
			r.Problem("size", err.Error())
		}
		e.Size, e.SizeText = v.Text, true
		return
	}
	n, text := v.Whole(0, maxLong)
	if text == "" && n > 1<<30 {
		text = "error.max" // an exbibyte: nobody has it, and bytes must fit in 64 bits
	}
	if text != "" {
		r.Problem("size", text)
		return
	}
	e.Size = strconv.FormatInt(n, 10)
}

func decodeCSI(r *document.Reader) *CSI {
	r.Require("pluginName", "capability")
	c := &CSI{PluginName: Or(r.StrLen("pluginName", 1, noBounds), "")}
	o := r.Obj("capability")
	o.Require("accessMode", "accessType")
	c.AccessMode = Or(o.Enum("accessMode", "SINGLE_NODE_WRITER", "SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER", "MULTI_NODE_MULTI_WRITER"), "")
	c.AccessType = Or(o.Enum("accessType", "block", "mount"), "")
	c.FSType, c.MountFlags = o.Str("fsType"), o.Strs("mountFlags")
	if c.AccessType == "mount" && o.Present() {
		o.Require("fsType")
	}
	o.Close()
	c.NodeStageSecret, c.NodePublishSecret, c.VolumeContext = r.StrMap("nodeStageSecret"), r.StrMap("nodePublishSecret"), r.StrMap("volumeContext")
	r.Close()
	return c
}

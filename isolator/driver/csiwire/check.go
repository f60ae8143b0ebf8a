package csiwire

import (
	"strings"
	"unicode"
	"unicode/utf8"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

const (
	MaxID      = 1024
	maxContext = 4 << 10 // what the specification allows for a map
	maxSegment = 16
)

// CheckText refuses what a plugin gives for an id when it is empty, too long, or would break a line. The class is Unknown: a reply that cannot be
// understood leaves open what was done.
func CheckText(what, s string, limit int) error {
	switch {
	case s == "":
		return fault.New(fault.Unknown, "the plugin gave no %s", what)
	case len(s) > limit:
		return fault.New(fault.Unknown, "the plugin gave a %s of %d bytes", what, len(s))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return fault.New(fault.Unknown, "the plugin gave a %s that is not one line of text: %.80q", what, s)
	}
	return nil
}

// CheckContext refuses a map that is too large or not text.
func CheckContext(what string, m map[string]string) error {
	size := 0
	for k, v := range m {
		size += len(k) + len(v)
		if !utf8.ValidString(k) || !utf8.ValidString(v) || strings.ContainsRune(k+v, 0) {
			return fault.New(fault.Unknown, "the plugin gave a %s that is not text", what)
		}
	}
	if size > maxContext {
		return fault.New(fault.Unknown, "the plugin gave a %s of %d bytes, more than %d", what, size, maxContext)
	}
	return nil
}

// CheckVolume looks at a volume in a reply and turns its topology into maps.
func CheckVolume(v *spec.Volume) (accessible []map[string]string, err error) {
	if v == nil {
		return nil, fault.New(fault.Unknown, "the plugin answered without a volume")
	}
	if err := CheckText("volume id", v.GetVolumeId(), MaxID); err != nil {
		return nil, err
	}
	if v.GetCapacityBytes() < 0 {
		return nil, fault.New(fault.Unknown, "the plugin gave a capacity of %d bytes", v.GetCapacityBytes())
	}
	if err := CheckContext("volume context", v.GetVolumeContext()); err != nil {
		return nil, err
	}
	if len(v.GetAccessibleTopology()) > maxSegment {
		return nil, fault.New(fault.Unknown, "the plugin gave %d topologies", len(v.GetAccessibleTopology()))
	}
	for _, t := range v.GetAccessibleTopology() {
		if err := CheckContext("topology", t.GetSegments()); err != nil {
			return nil, err
		}
		accessible = append(accessible, t.GetSegments())
	}
	return accessible, nil
}

// CheckSize wants at least what was asked for; 0 is a plugin that does not know.
func CheckSize(got int64, want volume.Bytes) error {
	if got > 0 && got < int64(want) {
		return fault.New(fault.Conflict, "the plugin gave %s, asked for were %s", volume.Bytes(got), want)
	}
	return nil
}

// Complaint gives what a plugin says of a volume that it calls abnormal, "" when it does not. Plugins say so also right after a good mount: it is
// a word for people and stops nothing.
func Complaint(c *spec.VolumeCondition) string {
	switch {
	case !c.GetAbnormal():
		return ""
	case c.GetMessage() == "":
		return "abnormal"
	}
	return Clean(c.GetMessage())
}

// Usage checks what a plugin says of how full a volume is.
func Usage(resp *spec.NodeGetVolumeStatsResponse) (driver.Usage, error) {
	u := driver.Usage{Complaint: Complaint(resp.GetVolumeCondition())}
	for _, w := range resp.GetUsage() {
		if w.GetTotal() < 0 || w.GetUsed() < 0 || w.GetAvailable() < 0 {
			return u, fault.New(fault.Unknown, "NodeGetVolumeStats: the plugin gave figures below zero")
		}
		switch w.GetUnit() {
		case spec.VolumeUsage_BYTES:
			u.Size, u.Used, u.Available = volume.Bytes(w.GetTotal()), volume.Bytes(w.GetUsed()), volume.Bytes(w.GetAvailable())
		case spec.VolumeUsage_INODES:
			u.Inodes, u.InodesUsed = uint64(w.GetTotal()), uint64(w.GetUsed())
		}
	}
	return u, nil
}

package backend

import (
	"sort"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// The fsck policies: what a mount does about a file system of its own that was not unmounted, or in which the kernel found errors.
const (
	FsckAuto  = "auto"  // replay the journal, mend what can be mended without a doubt, refuse what is left
	FsckAsk   = "ask"   // refuse until somebody has had it checked with repair
	FsckNever = "never" // mount what the kernel mounts
)

// Wish is what the options of a volume say.
type Wish struct {
	Size    volume.Bytes
	Encrypt *bool
	Fsck    string
}

// ParseOptions refuses what this driver would have to ignore. Size also comes as Spec.Size; the option is there
// because Marathon sends it as one.
func ParseOptions(options map[string]string) (w Wish, err error) {
	var unknown []string
	for k, v := range options {
		var kerr error
		switch k {
		case "size":
			w.Size, kerr = volume.ParseSize(v)
		case "encrypt":
			b, perr := strconv.ParseBool(v)
			if perr != nil {
				kerr = fault.New(fault.Invalid, "option encrypt=%.40q is neither true nor false", v)
			}
			w.Encrypt = &b
		case "fsck":
			w.Fsck, kerr = v, CheckFsck(v)
		default:
			unknown = append(unknown, strconv.Quote(k))
		}
		if kerr != nil && err == nil {
			err = kerr
		}
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		return w, fault.New(fault.Invalid, "the pool driver does not know option %.200s (it knows size, encrypt, fsck)", strings.Join(unknown, ", "))
	}
	return w, err
}

// CheckFsck is Invalid for what is no fsck policy.
func CheckFsck(policy string) error {
	switch policy {
	case FsckAuto, FsckAsk, FsckNever:
		return nil
	}
	return fault.New(fault.Invalid, "fsck=%.40q is none of auto, ask, never", policy)
}

package pool

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

// wish is what the options of a volume say.
type wish struct {
	size    volume.Bytes
	encrypt *bool
	fsck    string
}

// parseOptions refuses what this driver would have to ignore. Size also comes as Spec.Size; the option is there
// because Marathon sends it as one.
func parseOptions(options map[string]string) (w wish, err error) {
	var unknown []string
	for k, v := range options {
		var kerr error
		switch k {
		case "size":
			w.size, kerr = volume.ParseSize(v)
		case "encrypt":
			b, perr := strconv.ParseBool(v)
			if perr != nil {
				kerr = fault.New(fault.Invalid, "option encrypt=%.40q is neither true nor false", v)
			}
			w.encrypt = &b
		case "fsck":
			w.fsck, kerr = v, checkFsck(v)
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

func checkFsck(policy string) error {
	switch policy {
	case FsckAuto, FsckAsk, FsckNever:
		return nil
	}
	return fault.New(fault.Invalid, "fsck=%.40q is none of auto, ask, never", policy)
}

// settleOptions completes label and wish by the options, and lets the back end judge them.
func (p *Pool) settleOptions(options map[string]string, l *label, clone bool) error {
	w, err := parseOptions(options)
	if err != nil {
		return err
	}
	if l.Size == 0 {
		l.Size = w.size
	}
	if l.Size == 0 && !clone {
		l.Size = p.o.Size
	}
	if l.Size != 0 || !clone { // a clone has its source's
		if l.Size, err = p.back.size(l.Size); err != nil {
			return err
		}
	}
	_, own := p.back.(*loopBack)
	if w.fsck != "" && !own {
		return fault.New(fault.Invalid, "fsck=%s goes with back end loop only: other volumes have no file system of their own", w.fsck)
	}
	l.Fsck = w.fsck
	return p.settleEncryption(w.encrypt, l, clone)
}

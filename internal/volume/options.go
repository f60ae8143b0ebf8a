package volume

import (
	"maps"
	"sort"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// OptionPrefix marks the driver options that are ours. A user may not give such options, and no driver sees them.
const OptionPrefix = "holdfast."

// Grant is what the framework tells the node about a mount, among the driver options of the task's
// DOCKER_VOLUME. It is a cross-check only: the truth is the claim record in the lease authority.
type Grant struct {
	VolumeUID string // uid of the volume (UUIDv7)
	Epoch     Epoch  // the claim's epoch
	Nonce     string // the grant's nonce
	Task      string // Mesos task id
	MustExist bool   // fail rather than create
}

// Encode adds g to the user's options and returns a new map. The user's options must not hold ours; CheckOptions
// sees to that when they come in.
func (g Grant) Encode(user map[string]string) map[string]string {
	out := make(map[string]string, len(user)+5)
	maps.Copy(out, user)
	out[OptionPrefix+"volume-id"] = g.VolumeUID
	out[OptionPrefix+"epoch"] = strconv.FormatUint(uint64(g.Epoch), 10)
	out[OptionPrefix+"nonce"] = g.Nonce
	out[OptionPrefix+"task"] = g.Task
	out[OptionPrefix+"must-exist"] = strconv.FormatBool(g.MustExist)
	return out
}

// SplitOptions takes our options out. given is false when there was none of ours: the caller is stock Marathon,
// Docker, or a person. An option of ours that is unknown or ill-formed, or a grant that is not whole, is
// fault.Invalid: a newer framework may rely on what we would ignore.
func SplitOptions(all map[string]string) (g Grant, given bool, user map[string]string, err error) {
	user = make(map[string]string, len(all))
	for _, k := range sortedKeys(all) {
		v := all[k]
		name, ours := strings.CutPrefix(k, OptionPrefix)
		if !ours {
			user[k] = v
			continue
		}
		given = true
		switch name {
		case "volume-id":
			g.VolumeUID = v
		case "nonce":
			g.Nonce = v
		case "task":
			g.Task = v
		case "epoch":
			n, perr := strconv.ParseUint(v, 10, 64)
			if perr != nil || n == 0 {
				return Grant{}, true, nil, fault.New(fault.Invalid, "option %s=%q is not an epoch", k, v)
			}
			g.Epoch = Epoch(n)
		case "must-exist":
			b, perr := strconv.ParseBool(v)
			if perr != nil {
				return Grant{}, true, nil, fault.New(fault.Invalid, "option %s=%q is neither true nor false", k, v)
			}
			g.MustExist = b
		default:
			return Grant{}, true, nil, fault.New(fault.Invalid, "option %s is not known to this version", k)
		}
	}
	if given && (g.VolumeUID == "" || g.Epoch == 0 || g.Nonce == "") {
		return Grant{}, true, nil, fault.New(fault.Invalid, "options %svolume-id, %[1]sepoch and %[1]snonce must come together", OptionPrefix)
	}
	return g, given, user, nil
}

// CheckOptions refuses options of a user that are reserved, empty, or could break a line or an argv.
// The error is fault.Invalid and names the option.
func CheckOptions(user map[string]string) error {
	for _, k := range sortedKeys(user) {
		v := user[k]
		switch {
		case k == "" || len(k) > 256 || strings.ContainsAny(k, "=\x00\n\r \t"):
			return fault.New(fault.Invalid, "driver option name %q must be 1 to 256 characters without '=' or white space", k)
		case strings.HasPrefix(strings.ToLower(k), OptionPrefix):
			return fault.New(fault.Invalid, "driver option %q: names that begin with %q are reserved", k, OptionPrefix)
		case len(v) > 4096 || strings.ContainsAny(v, "\x00\n\r"):
			return fault.New(fault.Invalid, "driver option %q: the value must be at most 4096 characters on one line", k)
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

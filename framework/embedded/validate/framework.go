package validate

import (
	"math"
	"slices"
	"strconv"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// MaxFailover is the longest failover timeout Mesos can count, in seconds.
const MaxFailover = float64(math.MaxInt64) / 1e9

// Framework checks a framework's description of itself.
func Framework(info *mesos.FrameworkInfo, suppressed []string) error {
	multi := HasCapability(info, mesos.FrameworkInfo_Capability_MULTI_ROLE)
	switch {
	case multi && info.Role != nil:
		return invalidf("'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable")
	case !multi && len(info.Roles) > 0:
		return invalidf("'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable")
	}
	if err := frameworkRoles(info, multi); err != nil {
		return err
	}
	if id := info.GetID().GetValue(); id != "" {
		if err := ID(id); err != nil {
			return err
		}
	}
	if t := info.GetFailoverTimeout(); math.IsNaN(t) || math.Abs(t) > MaxFailover {
		return invalidf("The framework failover_timeout (%s) is invalid", strconv.FormatFloat(t, 'g', -1, 64))
	}
	var extra []string
	for _, r := range suppressed {
		if !slices.Contains(Roles(info), r) {
			extra = append(extra, r)
		}
	}
	if len(extra) > 0 {
		return invalidf("Suppressed roles %s are not contained in the set of roles", set(extra))
	}
	return nil
}

func frameworkRoles(info *mesos.FrameworkInfo, multi bool) error {
	if !multi {
		if err := resource.ValidateRole(Roles(info)[0]); err != nil {
			return invalidf("'FrameworkInfo.role' is not a valid role: %v", err)
		}
		return nil
	}
	seen := map[string]bool{}
	var twice []string
	for _, r := range info.Roles {
		if seen[r] && !slices.Contains(twice, r) {
			twice = append(twice, r)
		}
		seen[r] = true
	}
	if len(twice) > 0 {
		return invalidf("'FrameworkInfo.roles' contains duplicate items: %s", set(twice))
	}
	for _, r := range info.Roles {
		if err := resource.ValidateRole(r); err != nil {
			return invalidf("'FrameworkInfo.roles' contains invalid role: %v", err)
		}
	}
	return nil
}

// FrameworkUpdate checks that nothing changes that cannot. On a new subscription user and checkpoint are kept as
// they were instead (KeepImmutable).
func FrameworkUpdate(was, now *mesos.FrameworkInfo) error {
	switch {
	case was.GetPrincipal() != now.GetPrincipal() || (was.Principal == nil) != (now.Principal == nil):
		return invalidf("Changing framework's principal is not allowed.")
	case was.User != now.User:
		return invalidf("Updating 'FrameworkInfo.user' is unsupported; attempted to update from '%s' to '%s'", was.User, now.User)
	case was.GetCheckpoint() != now.GetCheckpoint():
		return invalidf("Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from '%t' to '%t'", was.GetCheckpoint(), now.GetCheckpoint())
	}
	return nil
}

// KeepImmutable carries over what a subscription cannot change.
func KeepImmutable(was, now *mesos.FrameworkInfo) {
	now.User, now.Checkpoint = was.User, was.Checkpoint
}

// set prints a set as Mesos does.
func set(items []string) string {
	if len(items) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(items, ", ") + " }"
}

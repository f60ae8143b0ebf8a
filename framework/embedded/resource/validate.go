package resource

import (
	"fmt"
	"math"
	"slices"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Invalid is an answer of the engine in the words Mesos itself uses; frameworks and people compare them.
type Invalid string

func (e Invalid) Error() string { return string(e) }

// Invalidf formats an Invalid.
func Invalidf(format string, args ...any) error { return Invalid(fmt.Sprintf(format, args...)) }

// MaxRanges bounds the pieces of one ranges resource that a caller may send.
const MaxRanges = 10000

// Validate checks that every resource is well formed, in Mesos's order and words. It does not
// look at what the resources are used for: that is the business of the operations.
func Validate(l List) error {
	for i := range l {
		if err := validateOne(&l[i]); err != nil {
			return Invalidf("Resource '%s' is invalid: %v", safeFormat(&l[i]), err)
		}
	}
	return nil
}

// safeFormat prints a resource that may be wrong in any way, bounded in length.
func safeFormat(r *mesos.Resource) string {
	s := FormatOne(r)
	if len(s) > 1000 {
		s = s[:1000] + "…"
	}
	return s
}

func validateOne(r *mesos.Resource) error {
	if r.Name == "" {
		return Invalidf("Empty resource name")
	}
	var err error
	switch r.GetType() {
	case mesos.SCALAR:
		err = validateScalar(r)
	case mesos.RANGES:
		err = validateRanges(r)
	case mesos.SET:
		err = validateSet(r)
	default:
		err = Invalidf("Unsupported resource type")
	}
	if err != nil {
		return err
	}
	if r.Disk != nil && r.Name != "disk" {
		return Invalidf("DiskInfo should not be set for %s resource", r.Name)
	}
	return validateReservations(r)
}

func validateScalar(r *mesos.Resource) error {
	if r.Scalar == nil || r.Ranges != nil || r.Set != nil {
		return Invalidf("Invalid scalar resource")
	}
	v := r.Scalar.Value
	if math.IsNaN(v) || math.IsInf(v, 0) || v > 1e15 {
		return Invalidf("Invalid scalar resource: value is not a finite number")
	}
	if fixed(v) <= 0 {
		return Invalidf("Invalid scalar resource: value <= 0")
	}
	return nil
}

func validateRanges(r *mesos.Resource) error {
	if r.Scalar != nil || r.Ranges == nil || r.Set != nil || len(r.Ranges.Range) > MaxRanges {
		return Invalidf("Invalid ranges resource")
	}
	rs := slices.Clone(r.Ranges.Range)
	slices.SortFunc(rs, func(a, b mesos.Value_Range) int {
		switch {
		case a.Begin < b.Begin:
			return -1
		case a.Begin > b.Begin:
			return 1
		}
		return 0
	})
	for i := range rs {
		if rs[i].Begin > rs[i].End {
			return Invalidf("Invalid ranges resource: begin > end")
		}
		if i > 0 && rs[i].Begin <= rs[i-1].End {
			return Invalidf("Invalid ranges resource: overlapping ranges")
		}
	}
	return nil
}

func validateSet(r *mesos.Resource) error {
	if r.Scalar != nil || r.Ranges != nil || r.Set == nil {
		return Invalidf("Invalid set resource")
	}
	items := slices.Clone(r.Set.Item)
	slices.Sort(items)
	if len(slices.Compact(items)) != len(r.Set.Item) {
		return Invalidf("Invalid set resource: duplicated elements")
	}
	return nil
}

func validateReservations(r *mesos.Resource) error {
	for i := range r.Reservations {
		info := &r.Reservations[i]
		if info.Type == nil {
			return Invalidf("Invalid reservation: 'Resource.ReservationInfo.type' field must be set.")
		}
		if info.Role == nil {
			return Invalidf("Invalid reservation: 'Resource.ReservationInfo.role' field must be set.")
		}
		if err := ValidateRole(*info.Role); err != nil {
			return Invalidf("Invalid reservation: %v", err)
		}
		if *info.Role == "*" {
			return Invalidf("Invalid reservation: role \"*\" cannot be reserved")
		}
		if i == 0 {
			continue
		}
		if info.GetType() == mesos.Resource_ReservationInfo_STATIC {
			return Invalidf("Invalid refined reservation: A refined reservation cannot be STATIC")
		}
		if parent := r.Reservations[i-1].GetRole(); !strings.HasPrefix(*info.Role, parent+"/") {
			return Invalidf("Invalid refined reservation: role '%s' is not a refinement of '%s'", *info.Role, parent)
		}
	}
	return nil
}

// ValidateRole checks the name of a role, in Mesos's words.
func ValidateRole(role string) error {
	switch {
	case role == "*":
		return nil
	case strings.HasPrefix(role, "/"):
		return Invalidf("Role '%s' cannot start with a slash", role)
	case strings.HasSuffix(role, "/"):
		return Invalidf("Role '%s' cannot end with a slash", role)
	case strings.Contains(role, "//"):
		return Invalidf("Role '%s' cannot contain two adjacent slashes", role)
	case role == "":
		return Invalidf("Role names cannot be the empty string")
	}
	for _, c := range strings.Split(role, "/") {
		switch {
		case c == "." || c == ".." || c == "*":
			return Invalidf("Role '%s' cannot include '%s' as a component", role, c)
		case strings.HasPrefix(c, "-"):
			return Invalidf("Role component '%s' is invalid because it starts with a dash", c)
		case strings.ContainsAny(c, "\t\n\v\f\r \x7f"):
			return Invalidf("Role component '%s' is invalid because it contains backspace or whitespace", c)
		}
	}
	return nil
}

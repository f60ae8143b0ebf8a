// Package volume holds what every room means by a volume: its natural key (driver, name), its claim's epoch,
// the sizes people write, and the options that carry a claim from the framework through Mesos to the node.
// It is a leaf: no I/O, and it imports only internal/fault.
package volume

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Ref is a volume's natural key: the driver that serves it and its name there. Two refs are the same storage
// if and only if they are equal. A volume that is removed and created again has the same Ref and another uid.
type Ref struct {
	Driver string `json:"driver"`
	Name   string `json:"name"`
}

// String gives driver/name.
func (r Ref) String() string { return r.Driver + "/" + r.Name }

// Epoch orders the holders of a volume: every launch attempt gets a larger one. 0 means none.
type Epoch uint64

// MaxName is the longest volume name in bytes: what file systems and Docker take, less the room for a suffix.
const MaxName = 200

var (
	nameShape   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	driverShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.:-]*(/[A-Za-z0-9][A-Za-z0-9_.:-]*)?$`)
)

// CheckName says whether a volume name may be used: Docker's rule for volume names (letters, digits, `_`, `.`,
// `-`, the first a letter or digit), at most MaxName bytes. Everything that could leave a directory or split a
// line is refused by that. The error is fault.Invalid and names the value.
func CheckName(name string) error {
	switch {
	case name == "":
		return fault.New(fault.Invalid, "volume name must not be empty")
	case len(name) > MaxName:
		return fault.New(fault.Invalid, "volume name of %d bytes is longer than %d", len(name), MaxName)
	case !utf8.ValidString(name) || !nameShape.MatchString(name):
		return fault.New(fault.Invalid, "volume name %q may only hold letters, digits, '_', '.' and '-', and must begin with a letter or digit", name)
	}
	return nil
}

// CheckDriver says whether a driver name may be used: a Docker plugin name or `csi/<name>`, at most 128 bytes.
func CheckDriver(driver string) error {
	switch {
	case driver == "":
		return fault.New(fault.Invalid, "volume driver must not be empty")
	case len(driver) > 128 || !driverShape.MatchString(driver) || strings.Contains(driver, ".."):
		return fault.New(fault.Invalid, "volume driver %q may only hold letters, digits, '_', '.', ':', '-' and one '/'", driver)
	}
	return nil
}

// Check is CheckDriver and CheckName.
func (r Ref) Check() error {
	if err := CheckDriver(r.Driver); err != nil {
		return err
	}
	return CheckName(r.Name)
}

// Ordinal is the placeholder that makes a volume name a template.
const Ordinal = "{ordinal}"

// NameFor gives the volume name of one instance: a pattern with {ordinal} has it replaced; otherwise instance 0
// keeps the name verbatim, so that the volume of a single-instance Marathon app is found again, and instance
// n > 0 gets name-n. A shared volume has the pattern as its one name.
func NameFor(pattern string, ordinal int, shared bool) string {
	switch {
	case strings.Contains(pattern, Ordinal):
		return strings.ReplaceAll(pattern, Ordinal, strconv.Itoa(ordinal))
	case shared || ordinal == 0:
		return pattern
	}
	return pattern + "-" + strconv.Itoa(ordinal)
}

// PatternsClash tells whether two apps' name patterns on one driver could ever give one name: an app owns its
// whole pattern (`db`, `db-1`, …).
func PatternsClash(a, b string) bool {
	if a == b {
		return true
	}
	if !strings.Contains(a, Ordinal) && !strings.Contains(b, Ordinal) {
		return isNumbered(a, b) || isNumbered(b, a)
	}
	ra, rb := patternShape(a), patternShape(b)
	// A template against a template is a clash only if one is an instance of the other for some number.
	for _, n := range []int{0, 1, 7, 10, 42} {
		if ra.MatchString(NameFor(b, n, false)) || rb.MatchString(NameFor(a, n, false)) {
			return true
		}
	}
	return false
}

func isNumbered(base, name string) bool {
	rest, ok := strings.CutPrefix(name, base+"-")
	return ok && isOrdinal(rest) && rest != "0"
}

func isOrdinal(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0 && strconv.Itoa(n) == s
}

func patternShape(p string) *regexp.Regexp {
	const number = `(0|[1-9][0-9]*)`
	if strings.Contains(p, Ordinal) {
		parts := strings.Split(p, Ordinal)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		return regexp.MustCompile("^" + strings.Join(parts, number) + "$")
	}
	return regexp.MustCompile("^" + regexp.QuoteMeta(p) + `(-[1-9][0-9]*)?$`)
}

// Bytes is a size in bytes.
type Bytes int64

// The units that ParseSize knows. A bare number is GiB, as Marathon and REX-Ray users expect.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

var sizeShape = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)$`)

// ParseSize reads "5" (GiB), "512M", "512MiB", "1.5T", "1073741824B". Decimal-looking suffixes (GB) mean the
// binary unit as well, as storage tools take them. The error is fault.Invalid.
func ParseSize(s string) (Bytes, error) {
	bad := fault.New(fault.Invalid, "size %q is not a number of GiB, or a number with B, K, M, G or T", s)
	m := sizeShape.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, bad
	}
	units := map[string]Bytes{"": GiB, "b": 1, "k": KiB, "kb": KiB, "kib": KiB, "m": MiB, "mb": MiB, "mib": MiB,
		"g": GiB, "gb": GiB, "gib": GiB, "t": TiB, "tb": TiB, "tib": TiB}
	unit, ok := units[strings.ToLower(m[2])]
	if !ok {
		return 0, bad
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n <= 0 || n*float64(unit) >= math.MaxInt64/2 {
		return 0, bad
	}
	if v := Bytes(n * float64(unit)); v > 0 {
		return v, nil
	}
	return 0, bad
}

// String gives the shortest exact form: "5GiB", "512MiB", "1000B".
func (b Bytes) String() string {
	for _, u := range []struct {
		unit Bytes
		name string
	}{{TiB, "TiB"}, {GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}} {
		if b >= u.unit && b%u.unit == 0 {
			return fmt.Sprintf("%d%s", b/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}

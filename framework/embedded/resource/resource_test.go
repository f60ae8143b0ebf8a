package resource

import (
	"fmt"
	"testing"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"pgregory.net/rapid"
)

func scalarRes(name string, v float64) mesos.Resource {
	return mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: v}}
}

func rangesRes(pairs ...uint64) mesos.Resource {
	r := mesos.Resource{Name: "ports", Type: mesos.RANGES.Enum(), Ranges: &mesos.Value_Ranges{}}
	for i := 0; i < len(pairs); i += 2 {
		r.Ranges.Range = append(r.Ranges.Range, mesos.Value_Range{Begin: pairs[i], End: pairs[i+1]})
	}
	return r
}

// genList draws lists of scalars, some reserved, and ports.
func genList(t *rapid.T, label string) List {
	var out List
	for i := range rapid.IntRange(0, 6).Draw(t, label) {
		name := rapid.SampledFrom([]string{"cpus", "mem", "ports"}).Draw(t, fmt.Sprint(label, i))
		r := scalarRes(name, float64(rapid.IntRange(1, 5000).Draw(t, "v"))/1000)
		if name == "ports" {
			lo := rapid.Uint64Range(1, 40).Draw(t, "lo")
			r = rangesRes(lo, lo+rapid.Uint64Range(0, 10).Draw(t, "n"))
		}
		if role := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "role"); role != "" {
			r.Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &role}}
		}
		out = Add(out, r)
	}
	return out
}

func TestArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genList(t, "a"), genList(t, "b")
		before := Format(a) + Format(b)
		sum := Add(a, b...)
		if !Contains(sum, a) || !Contains(sum, b) {
			t.Fatalf("%s does not contain its parts %s and %s", Format(sum), Format(a), Format(b))
		}
		if rest := Subtract(sum, b...); !Contains(a, rest) {
			t.Fatalf("%s - %s = %s, more than %s", Format(sum), Format(b), Format(rest), Format(a))
		}
		if len(Subtract(a, a...)) != 0 {
			t.Fatalf("%s - itself is %s", Format(a), Format(Subtract(a, a...)))
		}
		if Contains(a, b) && !Equal(Add(Subtract(a, b...), b...), a) {
			t.Fatalf("%s - %s + it is %s", Format(a), Format(b), Format(Add(Subtract(a, b...), b...)))
		}
		if Contains(a, b) && Contains(b, a) != Equal(a, b) {
			t.Fatal("order")
		}
		if err := Validate(sum); err != nil {
			t.Fatal(err)
		}
		if got := Format(a) + Format(b); got != before {
			t.Fatalf("arguments were changed: %s, was %s", got, before)
		}
	})
}

func TestThousandths(t *testing.T) {
	l := List{scalarRes("cpus", 2)}
	for range 20 {
		l = Subtract(l, scalarRes("cpus", 0.1))
	}
	if len(l) != 0 {
		t.Errorf("2 - 20 × 0.1 = %s", Format(l))
	}
}

func TestExtremes(t *testing.T) {
	const top = ^uint64(0)
	l := Add(nil, rangesRes(0, top))
	if got := Format(Subtract(l, rangesRes(5, top))); got != "ports:[0-4]" {
		t.Error(got)
	}
	if got := Format(Subtract(l, rangesRes(0, 0, top, top))); got != fmt.Sprintf("ports:[1-%d]", top-1) {
		t.Error(got)
	}
	if got := Format(Add(nil, rangesRes(1, 2, 3, 4, 9, 9))); got != "ports:[1-4, 9-9]" {
		t.Error(got)
	}
	for name, r := range map[string]mesos.Resource{
		"negative":   scalarRes("cpus", -1),
		"nothing":    scalarRes("cpus", 0.0001),
		"huge":       scalarRes("cpus", 1e300),
		"no name":    scalarRes("", 1),
		"inverted":   rangesRes(5, 4),
		"overlap":    rangesRes(1, 5, 5, 6),
		"typeless":   {Name: "x"},
		"both":       {Name: "x", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: 1}, Set: &mesos.Value_Set{}},
		"disk of":    {Name: "cpus", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: 1}, Disk: &mesos.Resource_DiskInfo{}},
		"duplicates": {Name: "x", Type: mesos.SET.Enum(), Set: &mesos.Value_Set{Item: []string{"a", "a"}}},
	} {
		if Validate(List{r}) == nil {
			t.Errorf("%s was taken: %s", name, Format(List{r}))
		}
	}
}

func TestVolumesAreWhole(t *testing.T) {
	role := "db"
	disk := scalarRes("disk", 100)
	disk.Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &role}}
	vol := disk
	vol.Disk = &mesos.Resource_DiskInfo{Persistence: &mesos.Resource_DiskInfo_Persistence{ID: "v"}, Volume: &mesos.Volume{ContainerPath: "data"}}
	if got := Format(List{vol}); got != "disk(reservations: [(DYNAMIC,db)])[v:data]:100" {
		t.Error(got)
	}
	smaller := vol
	smaller.Scalar = &mesos.Value_Scalar{Value: 50}
	if Contains(List{vol}, List{smaller}) {
		t.Error("a volume contains half of itself")
	}
	if len(Subtract(List{vol}, smaller)) != 1 || len(Subtract(List{vol}, vol)) != 0 {
		t.Error("a volume is subtracted as a whole or not at all")
	}
	if !Equal(StripVolume(List{vol}), List{disk}) {
		t.Error("a volume stripped is its disk")
	}
}

func TestOldFormat(t *testing.T) {
	role, who := "db", "me"
	r := scalarRes("cpus", 1)
	r.Role, r.Reservation = &role, &mesos.Resource_ReservationInfo{Principal: &who}
	up := Upgrade(List{r})
	if got := Format(up); got != "cpus(reservations: [(DYNAMIC,db,me)]):1" {
		t.Error(got)
	}
	down, ok := Downgrade(up)
	if !ok || down[0].GetRole() != "db" || down[0].Reservation.GetPrincipal() != "me" || down[0].Reservations != nil {
		t.Errorf("%v %v", down, ok)
	}
	if !Equal(Upgrade(down), up) {
		t.Error("there and back")
	}
}

func TestRoleNames(t *testing.T) {
	for role, want := range map[string]string{
		"*": "", "a/b": "", "": "Role names cannot be the empty string", "/bad//role": "Role '/bad//role' cannot start with a slash",
		"a/": "Role 'a/' cannot end with a slash", "a//b": "Role 'a//b' cannot contain two adjacent slashes",
		"a/../b": "Role 'a/../b' cannot include '..' as a component", "a/*": "Role 'a/*' cannot include '*' as a component",
		"-a":  "Role component '-a' is invalid because it starts with a dash",
		"a b": "Role component 'a b' is invalid because it contains backspace or whitespace",
	} {
		got := ""
		if err := ValidateRole(role); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", role, got, want)
		}
	}
}

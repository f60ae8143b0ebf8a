package reserve

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func text(r state.Resource) string {
	s := r.Name
	if r.Name == "ports" {
		s += fmt.Sprint(r.Ranges)
	} else {
		s += fmt.Sprintf(" %g", r.Scalar)
	}
	for _, v := range r.Reservations {
		s += " (" + v.Role
		if v.Labels[LabelVolume] != "" {
			s += " volume " + v.Labels[LabelVolume]
		} else if v.Labels[LabelInstance] != "" {
			s += " " + v.Labels[LabelInstance]
		}
		s += ")"
	}
	if d := r.Disk; d != nil {
		s += " [" + strings.Trim(d.Source+" "+d.Root+d.Profile+" "+d.Persistence, " ") + "]"
	}
	return s
}

func texts(list []state.Resource) string {
	var parts []string
	for _, r := range list {
		parts = append(parts, text(r))
	}
	return strings.Join(parts, ", ")
}

func (p Plan) text() string {
	var lines []string
	for _, op := range p.Ops {
		line := string(op.Kind) + " " + texts(op.Resources)
		if op.Addition != nil {
			line += " by " + text(*op.Addition)
		}
		if op.Subtract > 0 {
			line += fmt.Sprintf(" by %g", op.Subtract)
		}
		if op.Target != "" {
			line += " to " + op.Target
		}
		lines = append(lines, line)
	}
	if p.Later {
		return strings.Join(append(lines, "LATER"), "\n")
	}
	return strings.Join(append(lines, "LAUNCH "+texts(p.Task)), "\n")
}

func scalar(name string, n float64, roles ...state.Reservation) state.Resource {
	return state.Resource{Name: name, Scalar: n, AllocationRole: "a/b", Reservations: roles}
}

func source(n float64, d state.Disk, roles ...state.Reservation) state.Resource {
	r := scalar("disk", n, roles...)
	r.Disk = &d
	return r
}

var owner = Owner{Cluster: "c", App: "/db", Instance: "db.0"}

func mine(volume string) state.Reservation {
	o := owner
	o.Volume = volume
	return state.Reservation{Role: "a/b", Dynamic: true, Principal: "me", Labels: o.Labels()}
}

func offer(list ...state.Resource) []*state.Offer {
	return []*state.Offer{{ID: "o", Role: "a/b", Resources: list}}
}

// TestLaunch is a table of what an agent offers, what is wanted, and what is to be asked for.
func TestLaunch(t *testing.T) {
	static := func(role string) state.Reservation { return state.Reservation{Role: role} }
	vol := Volume{ID: "v", ContainerPath: "data", SizeMB: 100, Type: "root"}
	with := func(f func(*Volume)) Volume { v := vol; f(&v); return v }
	for name, c := range map[string]struct {
		offers  []state.Resource
		volume  *Volume
		disk    float64
		accepts []string
		want    string
	}{
		"unreserved": {offers: []state.Resource{scalar("cpus", 4), scalar("mem", 100), scalar("disk", 500)}, volume: &vol, disk: 10, want: `
RESERVE cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 10 (a/b db.0), disk 100 (a/b volume v)
CREATE disk 100 (a/b volume v) [v]
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 10 (a/b db.0), disk 100 (a/b volume v) [v]`},
		"reserved for the parent role": {offers: []state.Resource{scalar("cpus", 4, static("a")), scalar("mem", 100, static("a")), scalar("disk", 500, static("a"))}, volume: &vol, want: `
RESERVE cpus 1 (a) (a/b db.0), mem 10 (a) (a/b db.0), disk 100 (a) (a/b volume v)
CREATE disk 100 (a) (a/b volume v) [v]
LAUNCH cpus 1 (a) (a/b db.0), mem 10 (a) (a/b db.0), disk 100 (a) (a/b volume v) [v]`},
		"reserved for the role itself, which cannot be refined": {offers: []state.Resource{scalar("cpus", 4, static("a/b")), scalar("mem", 100, static("a/b")), scalar("disk", 500, static("a/b"))}, volume: &vol, want: `
CREATE disk 100 (a/b) [v]
LAUNCH cpus 1 (a/b), mem 10 (a/b), disk 100 (a/b) [v]`},
		"reserved for another": {offers: []state.Resource{scalar("cpus", 4, static("ab")), scalar("mem", 100), scalar("disk", 500)}, volume: &vol, want: `needs 1 cpus, offer has 0 that can be reserved`},
		"only unreserved accepted": {offers: []state.Resource{scalar("cpus", 4, static("a")), scalar("mem", 100), scalar("disk", 500)}, volume: &vol, accepts: []string{"*"},
			want: `needs 1 cpus, offer has 0 that can be reserved`},
		"a volume in two pieces of one kind": {offers: []state.Resource{scalar("cpus", 1), scalar("mem", 10), scalar("disk", 60), scalar("disk", 60)}, volume: &vol, want: `
RESERVE cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 60 (a/b volume v), disk 40 (a/b volume v)
CREATE disk 100 (a/b volume v) [v]
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [v]`},
		"a volume cannot be of two kinds": {offers: []state.Resource{scalar("cpus", 1), scalar("mem", 10), scalar("disk", 60), scalar("disk", 60, static("a"))}, volume: &vol,
			want: `needs 100 MB disk of type root for the volume at data, offer has 60 that can be reserved in one piece`},
		"relaunch": {offers: []state.Resource{scalar("cpus", 1, mine("")), scalar("mem", 10, mine("")), source(100, state.Disk{Persistence: "v", ContainerPath: "data", Principal: "me"}, mine("v"))}, volume: &vol, want: `
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [v]`},
		"relaunch with more and less": {offers: []state.Resource{scalar("cpus", 0.4, mine("")), scalar("cpus", 9), scalar("mem", 30, mine("")), source(100, state.Disk{Persistence: "v"}, mine("v"))}, volume: &vol, want: `
UNRESERVE mem 20 (a/b db.0)
RESERVE cpus 0.6 (a/b db.0)
LAUNCH cpus 0.4 (a/b db.0), cpus 0.6 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [v]`},
		"a volume that exists is not made again": {offers: []state.Resource{scalar("cpus", 4), scalar("mem", 100), scalar("disk", 500)}, volume: ptr(with(func(v *Volume) { v.Created = true })),
			want: `its volume v is not in the offer`},
		"the disk of an earlier attempt": {offers: []state.Resource{scalar("cpus", 4), scalar("mem", 100), scalar("disk", 500), scalar("disk", 100, mine("v"))}, volume: &vol, want: `
RESERVE cpus 1 (a/b db.0), mem 10 (a/b db.0)
CREATE disk 100 (a/b volume v) [v]
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [v]`},
		"grow": {offers: []state.Resource{scalar("cpus", 1, mine("")), scalar("mem", 10, mine("")), scalar("disk", 500), source(60, state.Disk{Persistence: "v"}, mine("v"))}, volume: &vol, want: `
RESERVE disk 40 (a/b volume v)
GROW_VOLUME disk 60 (a/b volume v) [v] by disk 40 (a/b volume v)
LATER`},
		"shrink": {offers: []state.Resource{scalar("cpus", 1, mine("")), scalar("mem", 10, mine("")), source(160, state.Disk{Persistence: "v"}, mine("v"))}, volume: &vol, want: `
SHRINK_VOLUME disk 160 (a/b volume v) [v] by 60
LATER`},
		"the agent cannot resize": {offers: []state.Resource{scalar("cpus", 1, mine("")), scalar("mem", 10, mine("")), source(160, state.Disk{Persistence: "v"}, mine("v"))}, volume: ptr(with(func(v *Volume) { v.Fixed = true })), want: `
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 160 (a/b volume v) [v]`},
		"mount disk, whole": {offers: []state.Resource{scalar("cpus", 1), scalar("mem", 10), source(80, state.Disk{Source: "MOUNT", Root: "/s"}), source(700, state.Disk{Source: "MOUNT", Root: "/b"}), source(300, state.Disk{Source: "MOUNT", Root: "/m"})},
			volume: ptr(with(func(v *Volume) { v.Type, v.MaxSizeMB = "mount", 500 })), want: `
RESERVE cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 300 (a/b volume v) [MOUNT /m]
CREATE disk 300 (a/b volume v) [MOUNT /m v]
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 300 (a/b volume v) [MOUNT /m v]`},
		"path disk by constraint": {offers: []state.Resource{scalar("cpus", 1), scalar("mem", 10), source(800, state.Disk{Source: "PATH", Root: "/slow/1"}), source(700, state.Disk{Source: "PATH", Root: "/fast/1"})},
			volume: ptr(with(func(v *Volume) {
				v.Type, v.Constraints = "path", []state.Constraint{{Field: "path", Operator: "LIKE", Value: "/fast/.*"}}
			})), want: `
RESERVE cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [PATH /fast/1]
CREATE disk 100 (a/b volume v) [PATH /fast/1 v]
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [PATH /fast/1 v]`},
		"path disk by what it is not": {offers: []state.Resource{scalar("cpus", 1), scalar("mem", 10), source(800, state.Disk{Source: "PATH", Root: "/slow/1"})},
			volume: ptr(with(func(v *Volume) {
				v.Type, v.Constraints = "path", []state.Constraint{{Field: "path", Operator: "UNLIKE", Value: "/slow/.*"}}
			})), want: `needs 100 MB disk of type path for the volume at data with path UNLIKE /slow/.*, offer has 0 that can be reserved in one piece`},
		"raw disk of a profile": {offers: []state.Resource{scalar("cpus", 1), scalar("mem", 10), {Name: "disk", Scalar: 900, AllocationRole: "a/b", Provider: "p", Disk: &state.Disk{Source: "RAW", Profile: "fast"}}},
			volume: ptr(with(func(v *Volume) { v.Type, v.Profile = "mount", "fast" })), want: `
RESERVE cpus 1 (a/b db.0), mem 10 (a/b db.0)
RESERVE disk 100 (a/b volume v) [RAW fast]
CREATE_DISK disk 100 (a/b volume v) [RAW fast] to MOUNT
LATER`},
		"the disk that the provider made": {offers: []state.Resource{scalar("cpus", 1, mine("")), scalar("mem", 10, mine("")), {Name: "disk", Scalar: 100, AllocationRole: "a/b", Provider: "p",
			Reservations: []state.Reservation{mine("v")}, Disk: &state.Disk{Source: "MOUNT", Profile: "fast", ID: "7"}}},
			volume: ptr(with(func(v *Volume) { v.Type, v.Profile = "mount", "fast" })), want: `
CREATE disk 100 (a/b volume v) [MOUNT fast v]
LAUNCH cpus 1 (a/b db.0), mem 10 (a/b db.0), disk 100 (a/b volume v) [MOUNT fast v]`},
		"others' reservations of the same role": {offers: []state.Resource{scalar("cpus", 4, state.Reservation{Role: "a/b", Dynamic: true, Labels: map[string]string{"x": "y"}}), scalar("mem", 100), scalar("disk", 500)}, volume: &vol,
			want: `needs 1 cpus, offer has 0 that can be reserved`},
	} {
		t.Run(name, func(t *testing.T) {
			w := &Wish{Owner: owner, Role: "a/b", Principal: "me", Spec: &state.Spec{CPUs: 1, MemMB: 10, DiskMB: c.disk, AcceptedRoles: c.accepts}}
			if c.volume != nil {
				w.Volumes = []Volume{*c.volume}
			}
			offers := offer(c.offers...)
			pool := place.NewPool(offers)
			before := fmt.Sprintf("%+v", pool.Totals())
			p, no := Launch(pool, Own(offers, owner, nil), w, 1)
			got := p.text()
			if len(no) > 0 {
				got = no[0].Text
				if now := fmt.Sprintf("%+v", pool.Totals()); now != before {
					t.Errorf("the pool was touched: %s, before %s", now, before)
				}
			}
			if want := strings.TrimSpace(c.want); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestRoleStar(t *testing.T) {
	w := &Wish{Owner: owner, Role: "*", Spec: &state.Spec{CPUs: 1}}
	if _, no := Launch(place.NewPool(offer(scalar("cpus", 4))), nil, w, 0); len(no) != 1 || no[0].Code != state.ReasonReservation {
		t.Errorf("got %v", no)
	}
}

// TestPorts: the ports of the last run are asked for again; required ones win; others are reserved anew.
func TestPorts(t *testing.T) {
	ports := func(begin, end uint64, r ...state.Reservation) state.Resource {
		return state.Resource{Name: "ports", Ranges: []state.Range{{Begin: begin, End: end}}, AllocationRole: "a/b", Reservations: r}
	}
	for _, c := range []struct {
		offers []state.Resource
		want   []int // of the app; 0 any
		last   []int
		got    string
	}{
		{offers: []state.Resource{ports(31000, 31000)}, want: []int{0}, got: "[31000] RESERVE ports[{31000 31000}] (a/b db.0)"},
		{offers: []state.Resource{ports(31000, 31009), ports(31500, 31501, mine(""))}, want: []int{0, 0}, last: []int{31501, 31500}, got: "[31501 31500]"},
		{offers: []state.Resource{ports(31000, 31000), ports(31500, 31501, mine(""))}, want: []int{0, 31000}, last: []int{31501, 31500},
			got: "[31501 31000] UNRESERVE ports[{31500 31500}] (a/b db.0) RESERVE ports[{31000 31000}] (a/b db.0)"},
		{offers: []state.Resource{ports(31500, 31502, mine(""))}, want: []int{0}, last: []int{31501}, got: "[31501] UNRESERVE ports[{31500 31500} {31502 31502}] (a/b db.0)"},
		{offers: []state.Resource{ports(31000, 31000)}, want: []int{80}, got: "needs port 80, offer does not have it"},
		{offers: []state.Resource{ports(31000, 31000)}, want: []int{0, 0}, got: "needs 2 ports, offer has 1 that can be reserved"},
	} {
		s := &state.Spec{}
		for _, p := range c.want {
			s.Ports = append(s.Ports, state.Port{Want: p})
			s.RequirePort = s.RequirePort || p != 0
		}
		offers := offer(c.offers...)
		p, no := Launch(place.NewPool(offers), Own(offers, owner, nil), &Wish{Owner: owner, Role: "a/b", Spec: s, Ports: c.last}, 3)
		got := fmt.Sprint(p.Ports)
		for _, op := range p.Ops {
			got += fmt.Sprintf(" %s %s", op.Kind, texts(op.Resources))
		}
		if len(no) > 0 {
			got = no[0].Text
		}
		if got != c.got {
			t.Errorf("%v of %s: got %s, want %s", c.want, texts(c.offers), got, c.got)
		}
	}
}

// TestFree: what is given back, and what never is.
func TestFree(t *testing.T) {
	volume := source(100, state.Disk{Persistence: "v", ContainerPath: "data"}, mine("v"))
	static := source(50, state.Disk{Persistence: "s", ContainerPath: "x"}, state.Reservation{Role: "a/b"})
	offers := offer(scalar("cpus", 1, mine("")), scalar("disk", 32, mine("v")), volume, static,
		scalar("cpus", 7, state.Reservation{Role: "a/b", Dynamic: true, Labels: map[string]string{LabelCluster: "another", LabelInstance: "db.0"}}),
		scalar("cpus", 7, state.Reservation{Role: "a/b", Dynamic: true}), source(9, state.Disk{Persistence: "theirs"}, state.Reservation{Role: "a/b", Dynamic: true}))
	own := Own(offers, owner, map[string]bool{"s": true})
	show := func(ops []Op) string { return strings.TrimSuffix(Plan{Ops: ops}.text(), "\nLAUNCH ") }
	if got, want := show(Trim(own, owner)), "UNRESERVE cpus 1 (a/b db.0), disk 32 (a/b volume v)"; got != want {
		t.Errorf("trim: got %s, want %s", got, want)
	}
	ops, kept := Free(own, owner, func(id string) bool { return id != "s" })
	if got, want := show(ops), "DESTROY disk 100 (a/b volume v) [v]\nUNRESERVE cpus 1 (a/b db.0), disk 32 (a/b volume v), disk 100 (a/b volume v)"; got != want {
		t.Errorf("free: got %s, want %s", got, want)
	}
	// What a storage provider made for us goes back to it first.
	disk := state.Resource{Name: "disk", Scalar: 100, AllocationRole: "a/b", Provider: "p", Reservations: []state.Reservation{mine("v")}, Disk: &state.Disk{Source: "MOUNT", Profile: "fast", ID: "7", Persistence: "v"}}
	ops, _ = Free([]state.Resource{disk}, owner, func(string) bool { return true })
	if got, want := show(ops), "DESTROY disk 100 (a/b volume v) [MOUNT fast v]\nDESTROY_DISK disk 100 (a/b volume v) [MOUNT fast]"; got != want {
		t.Errorf("free a provider's disk: got %s, want %s", got, want)
	}
	raw := plain(disk)
	raw.Disk = &state.Disk{Source: "RAW", Profile: "fast"}
	if got, want := show(Trim([]state.Resource{raw, plain(disk)}, owner)), "DESTROY_DISK disk 100 (a/b volume v) [MOUNT fast]\nUNRESERVE disk 100 (a/b volume v) [RAW fast]"; got != want {
		t.Errorf("trim a provider's disk: got %s, want %s", got, want)
	}
	if !slices.Equal(kept, []string{"s"}) {
		t.Errorf("kept %v", kept)
	}
}

// TestAnyOffers throws random offers and wishes at Launch: what it plans is there, is ours or reservable, and is exactly what was wanted.
func TestAnyOffers(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	stacks := [][]state.Reservation{nil, {{Role: "a"}}, {{Role: "a/b"}}, {{Role: "z"}}, {mine("")}, {mine("v")}, {{Role: "a"}, mine("")}, {{Role: "a/b", Dynamic: true, Labels: map[string]string{"q": "1"}}}}
	planned := 0
	for n := range 5000 {
		var list []state.Resource
		for range r.Intn(12) {
			x := scalar([]string{"cpus", "mem", "disk", "disk"}[r.Intn(4)], float64(r.Intn(300)), stacks[r.Intn(len(stacks))]...)
			if x.Name == "disk" && r.Intn(4) == 0 {
				x.Disk = &state.Disk{Source: []string{"PATH", "MOUNT"}[r.Intn(2)], Root: fmt.Sprint("/", r.Intn(3))}
			}
			list = append(list, x)
		}
		offers := offer(list...)
		w := &Wish{Owner: owner, Role: "a/b", Spec: &state.Spec{CPUs: float64(r.Intn(50)), MemMB: float64(r.Intn(50)), DiskMB: float64(r.Intn(50))}}
		if r.Intn(2) == 0 {
			w.Volumes = []Volume{{ID: "v", ContainerPath: "data", SizeMB: int64(1 + r.Intn(100)), Type: []string{"root", "path", "mount"}[r.Intn(3)]}}
		}
		p, no := Launch(place.NewPool(offers), Own(offers, owner, nil), w, uint64(n))
		if len(no) > 0 {
			continue
		}
		planned++
		check(t, list, &p, w)
	}
	if planned < 200 {
		t.Errorf("only %d of 5000 could be planned: the test tests nothing", planned)
	}
}

// check carries a plan out on amounts by identity.
func check(t *testing.T, list []state.Resource, p *Plan, w *Wish) {
	t.Helper()
	have := map[string]place.Milli{}
	for i := range list {
		have[place.Identity(&list[i])] += place.ToMilli(list[i].Scalar)
	}
	move := func(from, to *state.Resource) {
		n := place.ToMilli(from.Scalar)
		if have[place.Identity(from)] -= n; have[place.Identity(from)] < 0 {
			t.Fatalf("%s is not there, in\n%s\nof %s", text(*from), p.text(), texts(list))
		}
		if to != nil {
			have[place.Identity(to)] += n
		}
	}
	for _, op := range p.Ops {
		for i := range op.Resources {
			r := op.Resources[i]
			if _, ours := OwnerOf(&r, "c"); !ours && op.Kind != Create {
				t.Fatalf("%s touches %s", op.Kind, text(r))
			}
			switch op.Kind {
			case Reserve:
				below := popped(r)
				if n := len(below.Reservations); n > 0 && !isParent(below.Reservations[n-1].Role, "a/b") {
					t.Fatalf("refines %s", text(below))
				}
				move(&below, &r)
			case Unreserve:
				below := popped(r)
				move(&r, &below)
			case Create:
				from := plain(r)
				move(&from, &r)
			}
		}
	}
	sum := map[string]place.Milli{}
	for i := range p.Task {
		move(&p.Task[i], nil)
		if p.Task[i].Disk == nil {
			sum[p.Task[i].Name] += place.ToMilli(p.Task[i].Scalar)
		} else if v := w.Volumes[0]; p.Task[i].Scalar < float64(v.SizeMB) || p.Task[i].Disk.Source != "MOUNT" && p.Task[i].Scalar != float64(v.SizeMB) {
			t.Fatalf("volume of %d MB is %s", v.SizeMB, text(p.Task[i]))
		}
	}
	for name, n := range map[string]float64{"cpus": w.Spec.CPUs, "mem": w.Spec.MemMB, "disk": w.Spec.DiskMB} {
		if sum[name] != place.ToMilli(n) {
			t.Fatalf("task gets %s %s, wants %g, in\n%s", sum[name], name, n, p.text())
		}
	}
	// Whatever else is reserved for the instance is given back.
	for i := range list {
		if _, ours := OwnerOf(&list[i], "c"); ours && have[place.Identity(&list[i])] > 0 && !p.Later {
			t.Fatalf("%s is still reserved after\n%s", text(list[i]), p.text())
		}
	}
}

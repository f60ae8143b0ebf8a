package place

import (
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

func offer(cpus float64, ports ...state.Range) *state.Offer {
	return &state.Offer{ID: "o", Resources: []state.Resource{{Name: "cpus", Scalar: cpus}, {Name: "mem", Scalar: 100}, {Name: "ports", Ranges: ports}}}
}

func TestScalarsHaveThreeDecimals(t *testing.T) {
	// 0.1 ten times is 1 in Mesos, and is not in binary floating point.
	p := NewPool([]*state.Offer{offer(1)})
	spec := &state.Spec{CPUs: 0.1, MemMB: 1}
	for n := range 10 {
		if _, _, ok := p.Take(spec, nil, 0); !ok {
			t.Fatalf("the %dth tenth of a cpu does not fit", n+1)
		}
	}
	if p.Fits(spec) {
		t.Fatal("an eleventh tenth fits")
	}
	if got := ToMilli(0.0005).String() + " " + ToMilli(1.5).String(); got != "0.001 1.5" {
		t.Fatalf("got %s", got)
	}
}

func TestTakeAddsUpWhatWasOffered(t *testing.T) {
	reserved := offer(0.5, state.Range{Begin: 10, End: 11})
	for n := range reserved.Resources {
		reserved.Resources[n].Reservations = []state.Reservation{{Role: "holdfast"}}
	}
	p := NewPool([]*state.Offer{offer(2, state.Range{Begin: 20, End: 20}), reserved})
	spec := &state.Spec{CPUs: 1, MemMB: 10, Ports: make([]state.Port, 3)}
	taken, ports, ok := p.Take(spec, nil, 1)
	if !ok || len(ports) != 3 {
		t.Fatalf("ports %v, ok %v", ports, ok)
	}
	var cpus []float64
	var roles []string
	for _, r := range taken {
		if r.Name == "cpus" {
			cpus, roles = append(cpus, r.Scalar), append(roles, roleOf(&r))
		}
	}
	if !reflect.DeepEqual(cpus, []float64{0.5, 0.5}) || !reflect.DeepEqual(roles, []string{"holdfast", "*"}) {
		t.Fatalf("cpus %v of roles %v: what is reserved goes first", cpus, roles)
	}
	if got := p.Totals(); got.CPUs != 1.5 || got.Ports != 0 {
		t.Fatalf("left %+v", got)
	}
	// Taking again with the ports given is what an ACCEPT does after the grants came.
	q := NewPool([]*state.Offer{offer(2, state.Range{Begin: 20, End: 20}), reserved})
	again, _, ok := q.Take(spec, ports, 99)
	if !ok || !reflect.DeepEqual(taken, again) {
		t.Fatalf("%v\n%v", taken, again)
	}
}

func TestTakeLeavesThePoolAloneWhenItDoesNotFit(t *testing.T) {
	p := NewPool([]*state.Offer{offer(4, state.Range{Begin: 1, End: 2})})
	before := p.Totals()
	for _, spec := range []*state.Spec{{CPUs: 5}, {CPUs: 1, Ports: make([]state.Port, 3)}, {CPUs: 1, RequirePort: true, Ports: []state.Port{{Want: 7}}}, {GPUs: 1},
		{CPUs: 1, RequirePort: true, Ports: []state.Port{{Want: 1}, {Want: 1}}}} {
		if _, _, ok := p.Take(spec, nil, 3); ok {
			t.Errorf("%+v fits", spec)
		}
		if p.Totals() != before {
			t.Fatalf("%+v took something: %+v", spec, p.Totals())
		}
	}
}

func TestOthersReservationsAreNotOurs(t *testing.T) {
	o := offer(4)
	o.Resources[0].Reservations = []state.Reservation{{Role: "holdfast", Dynamic: true, Labels: map[string]string{"x": "y"}}}
	if NewPool([]*state.Offer{o}).Fits(&state.Spec{CPUs: 1}) {
		t.Fatal("a labelled reservation is used")
	}
}

func TestMisfitsGiveFigures(t *testing.T) {
	p := NewPool([]*state.Offer{offer(1.5, state.Range{Begin: 1, End: 1})})
	total := state.Totals{CPUs: 8, MemMB: 100}
	for _, c := range []struct {
		spec state.Spec
		want string
	}{
		{state.Spec{CPUs: 4}, "resources: needs 4 cpus, offer has 1.5"},
		{state.Spec{CPUs: 16}, "never-fits: needs 16 cpus, the agent never showed more than 8"},
		{state.Spec{MemMB: 200}, "never-fits: needs 200 MB mem, the agent never showed more than 100"},
		{state.Spec{CPUs: 1, Ports: make([]state.Port, 2)}, "ports: needs 2 ports, offer has 1"},
		{state.Spec{CPUs: 1, RequirePort: true, Ports: []state.Port{{Want: 80}}}, "ports: needs port 80, offer does not have it"},
		{state.Spec{CPUs: 1, AcceptedRoles: []string{"holdfast"}}, "role: needs 1 cpus of role holdfast, the offer has 0 there (1.5 in all roles)"},
		{state.Spec{CPUs: 1}, ""},
	} {
		var got []string
		for _, r := range p.Misfits(&c.spec, total) {
			got = append(got, r.Code+": "+r.Text)
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%+v: %q, want %q", c.spec, got, c.want)
		}
	}
}

func TestConstraints(t *testing.T) {
	site := Site{Hostname: "h1", Zone: "z1", Attributes: map[string]string{"rack": "r1", "n": "2.5"}}
	tally := func(m map[string]int) Tally {
		return Tally{"hostname": m, "@hostname": m, "rack": m, "@zone": m}
	}
	for _, c := range []struct {
		c         string
		counts    map[string]int
		instances int
		want      bool
	}{
		{"hostname:UNIQUE", nil, 3, true},
		{"hostname:UNIQUE", map[string]int{"h1": 1}, 3, false},
		{"@hostname:unique", map[string]int{"h2": 1}, 3, true},
		{"rack:CLUSTER:r1", nil, 3, true},
		{"rack:CLUSTER:r2", nil, 3, false},
		{"rack:CLUSTER", map[string]int{"r2": 1}, 3, false},
		{"rack:CLUSTER", map[string]int{"r1": 1}, 3, true},
		{"rack:CLUSTER", nil, 3, true},
		{"rack:LIKE:r[0-9]", nil, 1, true},
		{"rack:LIKE:r", nil, 1, false}, // the whole value has to match
		{"rack:LIKE:r2|r1", nil, 1, true},
		{"rack:UNLIKE:r.", nil, 1, false},
		{"nosuch:UNLIKE:r.", nil, 1, true},
		{"nosuch:LIKE:r.", nil, 1, false},
		{"nosuch:UNIQUE", nil, 1, false},
		{"rack:IS:r1", nil, 1, true},
		{"n:IS:2.500", nil, 1, true},
		{"n:IS:2.6", nil, 1, false},
		{"rack:MAX_PER:2", map[string]int{"r1": 1}, 9, true},
		{"rack:MAX_PER:2", map[string]int{"r1": 2}, 9, false},
		{"rack:GROUP_BY", nil, 9, true},
		{"rack:GROUP_BY", map[string]int{"r1": 1}, 9, true},
		{"rack:GROUP_BY", map[string]int{"r1": 2, "r2": 1}, 9, false},
		{"rack:GROUP_BY", map[string]int{"r2": 4}, 9, true},
		{"rack:GROUP_BY:2", map[string]int{"r2": 1, "r3": 1}, 4, false}, // two groups are there, this is a third
		{"rack:GROUP_BY:2", map[string]int{"r1": 2}, 4, false},          // its share is two
		{"rack:GROUP_BY:2", map[string]int{"r1": 1}, 4, true},
		{"rack:GROUP_BY:2", map[string]int{"r1": 2}, 5, true}, // one of the two gets three
		{"rack:GROUP_BY:2", map[string]int{"r1": 2, "r2": 3}, 5, false},
		{"rack:GROUP_BY:0", map[string]int{"r1": 1}, 5, true}, // no division by zero
		{"@zone:CLUSTER:z1", nil, 1, true},
		{"@region:CLUSTER:x", nil, 1, false},
		{"rack:LIKE:(", nil, 1, false},
		{"rack:NONESUCH", nil, 1, false},
	} {
		parts := append(strings.SplitN(c.c, ":", 3), "", "")
		rule := &NewRules([]state.Constraint{{Field: parts[0], Operator: parts[1], Value: parts[2]}})[0]
		ok := rule.Allows(&site, tally(c.counts), c.instances)
		text := rule.Refusal(&site, tally(c.counts), c.instances)
		if ok != c.want || text == "" || (rule.Static() && rule.Allows(&site, nil, 0) != ok) {
			t.Errorf("%s with %v of %d: %v %q, want %v", c.c, c.counts, c.instances, ok, text, c.want)
		}
	}
}

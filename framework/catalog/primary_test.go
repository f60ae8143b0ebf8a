package catalog

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestPrimaryIsTagged(t *testing.T) {
	c := newCore()
	c.app("/prod/db", state.Spec{Primary: true, HealthChecks: []state.HealthCheck{{}}})
	well := func(i *state.Instance) { ok := true; i.Run.Healthy = &ok }
	ill := func(i *state.Instance) { i.Run.Healthy = new(bool) }
	zero := c.runs("/prod/db", 0, "a", well)
	c.runs("/prod/db", 1, "b", well)
	b := newBuilder(cluster)
	tags := func() (out []string) {
		for _, s := range b.render(b.collect(c.s)).Services {
			has := slices.Contains(s.Tags, tagPrimary)
			if has != (s.lock != nil) || has != (s.Meta[metaTerm] != "") {
				t.Errorf("tag, lock and term do not go together: %+v", s)
			}
			if has {
				out = append(out, s.Meta[metaInstance]+" "+s.Meta[metaTerm]+" "+strings.TrimPrefix(s.lock.key, lockPrefix(cluster)))
			}
		}
		return out
	}
	want := func(list ...string) {
		t.Helper()
		if got := tags(); !slices.Equal(got, list) {
			t.Errorf("%q, not %q", got, list)
		}
	}
	want()
	c.primary("/prod/db", zero, 7)
	want("prod_db.0 7 prod/db")
	c.primary("/prod/db", zero, 8)
	want("prod_db.0 8 prod/db")
	later := *zero
	later.Run = &state.Run{Task: "another"}
	c.primary("/prod/db", &later, 9)
	want() // the run of the record is not the one that runs
	c.primary("/prod/db", zero, 10)
	c.runs("/prod/db", 0, "a", ill)
	want()
}

// TestTagWaitsForTheOther: whoever is to have the tag gets it only when nobody else has it.
func TestTagWaitsForTheOther(t *testing.T) {
	_, client := newFake(t)
	c := newCore()
	c.app("/db", state.Spec{})
	r := newRegistrar(t, c, client)
	zero, one := c.runs("/db", 0, "a"), c.runs("/db", 1, "b")
	r.there = &Observed{Nodes: map[string]*Node{}, Services: map[Key]*Entry{}}
	c.primary("/db", zero, 1)
	for k, s := range Desired(c.s, cluster).Services {
		r.there.Services[k] = &Entry{Service: *s}
	}
	c.primary("/db", one, 2)
	if err := r.keepSession(context.Background(), &Wanted{}); err != nil {
		t.Fatal(err)
	}
	r.consul.session = "here"
	d := diff(Desired(c.s, cluster), r.there, r.release)
	if len(d.Changes) != 2 || gains(d.Changes[0]) || !gains(d.Changes[1]) {
		t.Fatalf("the tag is not given last: %+v", d.Changes)
	}
	if left := r.free(d.Changes[1:]); len(left) != 0 || len(r.problems()) != 1 || !strings.Contains(r.problems()[0].Error, "still") {
		t.Errorf("%+v, %+v", left, r.problems())
	}
	r.there.Services[d.Changes[0].Key] = &Entry{Service: *d.Changes[0].Put}
	if left := r.free(d.Changes[1:]); len(left) != 1 {
		t.Errorf("%+v", left)
	}
	r.consul.session = ""
	r.locks.denied = "no rights"
	if left := r.free(d.Changes[1:]); len(left) != 0 || !strings.Contains(r.locks.waiting[d.Changes[1].Key], "no rights") {
		t.Errorf("without a session: %+v %v", left, r.locks.waiting)
	}
}

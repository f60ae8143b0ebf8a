package allocator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

func scalar(name string, v float64) mesos.Resource {
	return mesos.Resource{Name: name, Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: v}}
}

func total() resource.List {
	return resource.List{scalar("cpus", 4), scalar("mem", 4096), scalar("disk", 1000),
		{Name: "ports", Type: mesos.RANGES.Enum(), Ranges: &mesos.Value_Ranges{Range: []mesos.Value_Range{{Begin: 31000, End: 31999}}}}}
}

// reserved reserves some of a list for a role.
func reserved(l resource.List, roles ...string) resource.List {
	out := append(resource.List(nil), l...)
	for i := range out {
		for _, role := range roles {
			out[i].Reservations = append(out[i].Reservations[:len(out[i].Reservations):len(out[i].Reservations)],
				mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &role})
		}
	}
	return out
}

func TestReservedOnlyForItsRole(t *testing.T) {
	a := New(0)
	now := time.Unix(1000, 0)
	all := resource.Add(reserved(resource.List{scalar("cpus", 1), scalar("mem", 100)}, "eng"), scalar("cpus", 2))
	all = resource.Add(all, reserved(resource.List{scalar("cpus", 1), scalar("mem", 64)}, "eng", "eng/db")...)
	a.AddAgent("s", all, nil)
	a.SetFramework("other", Framework{Roles: []string{"ops"}, Refinement: true}, true)
	got := a.Cycle(now)
	if len(got) != 1 || resource.Sum(got[0].Resources, "cpus") != 2 {
		t.Fatalf("ops got %v", got)
	}
	a.SetFramework("child", Framework{Roles: []string{"eng/db"}, Refinement: true}, true)
	got = a.Cycle(now)
	if len(got) != 1 || resource.Sum(got[0].Resources, "cpus") != 2 || resource.Sum(got[0].Resources, "mem") != 164 {
		t.Fatalf("eng/db got %v: its own and its parent's reservations", got)
	}
	a.Recover("child", "s", got[0].Resources, 0, now)
	a.SetFrameworkActive("child", false)
	a.SetFramework("plain", Framework{Roles: []string{"eng/db"}}, true)
	got = a.Cycle(now)
	if len(got) != 1 || resource.Sum(got[0].Resources, "cpus") != 1 {
		t.Fatalf("a framework that does not know refined reservations got %v", got)
	}
}

func TestFilters(t *testing.T) {
	a := New(50 * time.Millisecond)
	now := time.Unix(1000, 0)
	a.AddAgent("s", total(), nil)
	a.SetFramework("f", Framework{Roles: []string{"r"}}, true)
	offer := a.Cycle(now)[0].Resources
	a.Recover("f", "s", offer, time.Nanosecond, now)
	if got := a.Cycle(now.Add(49 * time.Millisecond)); got != nil {
		t.Errorf("the shortest filter did not hold: %v", got)
	}
	offer = a.Cycle(now.Add(51 * time.Millisecond))[0].Resources
	half := resource.Allocate(resource.List{scalar("cpus", 1)}, "r")
	a.Recover("f", "s", resource.Subtract(offer, half...), time.Hour, now)
	if got := a.Cycle(now); got != nil {
		t.Errorf("less than refused was offered: %v", got)
	}
	a.Recover("f", "s", half, 0, now)
	if got := a.Cycle(now); len(got) != 1 {
		t.Errorf("more than refused was not offered: %v", got)
	}
}

// TestNothingIsOfferedTwice plays random histories and checks that an agent never gives more than it has, and that
// everything is offered again when all is given back.
func TestNothingIsOfferedTwice(t *testing.T) {
	for seed := range uint64(15) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		a := New(0)
		now := time.Unix(1000, 0)
		for i := range 4 {
			a.AddAgent(fmt.Sprint("s", i), total(), nil)
			a.SetFramework(fmt.Sprint("f", i), Framework{Roles: []string{fmt.Sprint("r", i%3)}, Refinement: true}, true)
		}
		var out []Allocation
		for range 200 {
			now = now.Add(time.Duration(rnd.IntN(100)) * time.Millisecond)
			out = append(out, a.Cycle(now)...)
			check(t, seed, out)
			for len(out) > 0 && rnd.IntN(3) > 0 {
				i := rnd.IntN(len(out))
				x := out[i]
				part := resource.Filter(x.Resources, func(*mesos.Resource) bool { return rnd.IntN(2) == 0 })
				a.Recover(x.Framework, x.Agent, part, time.Duration(rnd.IntN(200))*time.Millisecond, now)
				out[i].Resources = resource.Subtract(x.Resources, part...)
				if len(out[i].Resources) == 0 {
					out[i] = out[len(out)-1]
					out = out[:len(out)-1]
				}
			}
			f := fmt.Sprint("f", rnd.IntN(4))
			switch rnd.IntN(6) {
			case 0:
				a.Suppress(f, nil)
			case 1:
				a.Revive(f, nil)
			}
		}
		for _, x := range out {
			a.Recover(x.Framework, x.Agent, x.Resources, 0, now)
		}
		for i := range 4 {
			if free := a.Free(fmt.Sprint("s", i)); !resource.Equal(free, total()) {
				t.Fatalf("seed %d: all given back, free is %s", seed, resource.Format(free))
			}
		}
	}
}

func check(t *testing.T, seed uint64, out []Allocation) {
	t.Helper()
	used := map[string]resource.List{}
	for _, x := range out {
		plain := resource.Unallocate(x.Resources)
		if !resource.Contains(resource.Subtract(total(), used[x.Agent]...), plain) {
			t.Fatalf("seed %d: %s has given %s and now %s", seed, x.Agent, resource.Format(used[x.Agent]), resource.Format(plain))
		}
		used[x.Agent] = resource.Add(used[x.Agent], plain...)
	}
}

func BenchmarkCycle1000Agents(b *testing.B) {
	a := New(0)
	for i := range 1000 {
		used := map[string]resource.List{}
		var l resource.List
		for range 100 {
			l = resource.Add(l, resource.Allocate(resource.List{scalar("cpus", 0.01), scalar("mem", 8)}, "r0")...)
		}
		used["f0"] = l
		a.AddAgent(fmt.Sprint("s", i), total(), used)
	}
	for i := range 5 {
		a.SetFramework(fmt.Sprint("f", i), Framework{Roles: []string{fmt.Sprint("r", i)}}, true)
	}
	now := time.Unix(1000, 0)
	b.ResetTimer()
	for b.Loop() {
		now = now.Add(time.Second)
		out := a.Cycle(now)
		if len(out) != 1000 {
			b.Fatal(len(out))
		}
		for _, x := range out {
			a.Recover(x.Framework, x.Agent, x.Resources, time.Millisecond, now)
		}
	}
}

package rollout

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestBounds: the columns extra and least are worked out by hand from the rules (minimumHealthCapacity rounded up, capacity with
// maximumOverCapacity rounded down, one over where the strategy allows neither).
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		n                  int
		min, over          float64
		exclusive          bool
		minInst, maxInst   int
		extra, least, down int // down: Spare when all n are up
	}{
		{4, 0.5, 0, true, 0, 0, 0, 2, 2},
		{3, 0.5, 0, true, 0, 0, 0, 2, 1},
		{1, 0.5, 0, true, 0, 0, 0, 0, 1}, // a single one has to go down
		{3, 1, 1, true, 0, 0, 0, 2, 1},   // an exclusive one stops before it starts
		{3, 1, 1, true, 3, 0, 0, 3, 0},   // minInstances has no exception
		{5, 0, 0, true, 4, 0, 0, 4, 1},
		{3, 1, 1, false, 0, 0, 1, 3, 1},
		{3, 1, 1, false, 0, 3, 0, 2, 1}, // maxInstances leaves no room
		{10, 1, 0.2, false, 0, 0, 2, 10, 1},
		{10, 1, 0.29, false, 0, 11, 1, 10, 1},
		{10, 1, 0, false, 0, 0, 1, 10, 1}, // neither down nor over: Marathon allows one over
		{10, 0, 1, false, 0, 0, 0, 0, 10},
		{10, 0, 1, false, 7, 0, 0, 7, 3},
		{3, 0.34, 0, false, 0, 0, 0, 2, 1}, // 1.02 is 2
		{1, 1, 1, false, 0, 0, 1, 1, 1},
		{0, 1, 1, false, 0, 0, 0, 0, 0},
	} {
		s := &state.Spec{Upgrade: state.Upgrade{MinHealth: c.min, MaxOver: c.over}, Rollout: state.Rollout{Min: c.minInst, Max: c.maxInst}}
		extra := Extra(c.n, c.n, s.Upgrade, c.exclusive, c.maxInst)
		if least, down := Least(c.n, extra, s), Spare(c.n, c.n, s); extra != c.extra || least != c.least || down != c.down {
			t.Errorf("%+v: extra %d, least %d, down %d", c, extra, least, down)
		}
		if got := Spare(c.n, 0, s); got != 0 {
			t.Errorf("%+v: of none that are up, %d may be taken down", c, got)
		}
	}
}

func TestOrdinals(t *testing.T) {
	if got := fmt.Sprint(Ordinals(3, []int{1, 2}), Ordinals(0, nil), Ordinals(2, nil)); got != "[0 3 4] [] [0 1]" {
		t.Error(got)
	}
	for _, c := range []struct {
		skip     []int
		from, to int
		want     string
	}{
		{[]int{1}, 2, 2, "[1]"},
		{[]int{1}, 2, 3, "[]"},  // the number that was left out comes back first
		{[]int{1}, 2, 1, "[]"},  // {0}: what lies above is forgotten
		{[]int{0}, 2, 1, "[0]"}, // {1}
		{[]int{0, 2}, 2, 3, "[2]"},
		{[]int{2, 0, 2}, 2, 2, "[0 2]"},
		{[]int{5}, 3, 2, "[]"},
		{nil, 3, 2, "[]"},
		{[]int{0, 1}, 1, 0, "[]"},
	} {
		if got := fmt.Sprint(Reskip(c.skip, c.from, c.to)); got != c.want {
			t.Errorf("skip %v from %d to %d: %s, want %s", c.skip, c.from, c.to, got, c.want)
		}
	}
	r := rand.New(rand.NewSource(1))
	for range 2000 {
		n, skip := r.Intn(6), []int(nil)
		for range r.Intn(4) {
			if o := r.Intn(8); !slices.Contains(skip, o) {
				skip = append(skip, o)
			}
		}
		list := Ordinals(n, skip)
		for o := range 14 {
			if Wants(o, n, skip) != slices.Contains(list, o) {
				t.Fatalf("wants %d of %d without %v: %v", o, n, skip, Wants(o, n, skip))
			}
		}
		to := r.Intn(6)
		after := Ordinals(to, Reskip(skip, n, to))
		for _, o := range list {
			if to >= n && !slices.Contains(after, o) {
				t.Fatalf("growing %v from %d to %d takes %d away: %v", skip, n, to, o, after)
			}
		}
		for _, o := range after {
			if to < n && !slices.Contains(list, o) {
				t.Fatalf("shrinking %v from %d to %d brings %d: %v", skip, n, to, o, after)
			}
		}
	}
}

package away

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }

func TestAfter(t *testing.T) {
	u := state.Unreachable{Inactive: 10 * time.Second, Expunge: 60 * time.Second}
	for _, c := range []struct {
		u     state.Unreachable
		now   int
		want  Verdict
		until time.Time
	}{
		{u, 0, Wait, at(10)}, {u, 9, Wait, at(10)}, {u, 10, Replace, at(60)}, {u, 59, Replace, at(60)}, {u, 60, Forget, time.Time{}},
		{state.Unreachable{}, 0, Forget, time.Time{}},
		{state.Unreachable{Disabled: true, Inactive: time.Second}, 9999, Wait, time.Time{}},
	} {
		if v, until := After(c.u, at(0), at(c.now)); v != c.want || !until.Equal(c.until) {
			t.Errorf("%+v after %d s: %v until %v, want %v until %v", c.u, c.now, v, until, c.want, c.until)
		}
	}
}

func TestReturnedStays(t *testing.T) {
	old, young := &state.Run{StartedAt: at(1)}, &state.Run{StartedAt: at(5)}
	unseen := &state.Run{StagedAt: at(9)}
	for n, c := range []struct {
		returned, replacement *state.Run
		running               bool
		selection             string
		want                  bool
	}{
		{old, young, true, "", true}, {old, young, true, "YOUNGEST_FIRST", true}, {old, young, true, "OLDEST_FIRST", false},
		{young, old, true, "YOUNGEST_FIRST", false}, {young, old, true, "OLDEST_FIRST", true},
		{old, unseen, false, "OLDEST_FIRST", true}, {old, unseen, true, "YOUNGEST_FIRST", true},
	} {
		if got := ReturnedStays(c.returned, c.replacement, c.running, c.selection); got != c.want {
			t.Errorf("case %d: %v", n, got)
		}
	}
}

func TestMayReturn(t *testing.T) {
	for _, s := range []string{"TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN", "TASK_DROPPED", "TASK_KILLED"} {
		if MayReturn(s, "REASON_AGENT_REMOVED") {
			t.Errorf("%s may return", s)
		}
	}
	if !MayReturn("TASK_UNREACHABLE", "") || !MayReturn("TASK_LOST", "REASON_AGENT_REMOVED") || MayReturn("TASK_LOST", "REASON_INVALID_OFFERS") {
		t.Error("TASK_UNREACHABLE, TASK_LOST")
	}
}

func TestBrake(t *testing.T) {
	rule := BrakeRule{Share: .5, Min: 3, Window: 60 * time.Second}
	seen := func(lost ...int) (list []Seen) {
		for n, s := range lost {
			x := Seen{Name: string(rune('a' + n))}
			if s >= 0 {
				x.Since = at(s)
			}
			list = append(list, x)
		}
		return list
	}
	const here = -1
	for name, c := range map[string]struct {
		nodes             []Seen
		released, engaged time.Time
		now               int
		want              Count
	}{
		"too few":                  {nodes: seen(100, 100, here), now: 101, want: Count{Vanished: 2, Total: 3}},
		"half is not more":         {nodes: seen(100, 100, 100, here, here, here), now: 101, want: Count{Vanished: 3, Total: 6}},
		"more than half":           {nodes: seen(100, 100, 100, here, here), now: 101, want: Count{Vanished: 3, Total: 5, Engage: true}},
		"one long ago":             {nodes: seen(1, 100, 100, here), now: 101, want: Count{Vanished: 2, Total: 3}},
		"engaged, and time passes": {nodes: seen(100, 100, 100, here), engaged: at(101), now: 900, want: Count{Vanished: 3, Total: 4, Engage: true}},
		"released":                 {nodes: seen(100, 100, 100, here), released: at(105), now: 110, want: Count{Total: 1}},
		"released, and more":       {nodes: seen(100, 106, 106, 106, here), released: at(105), now: 110, want: Count{Vanished: 3, Total: 4, Engage: true}},
	} {
		got := rule.Look(c.nodes, c.released, c.engaged, at(c.now))
		if got.Vanished != c.want.Vanished || got.Total != c.want.Total || got.Engage != c.want.Engage || len(got.Names) != got.Vanished {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestNodesAreCountedOnce(t *testing.T) {
	nodes := []*state.Node{{UID: "n1", Agent: "a1", Hostname: "one", Alive: true}, {UID: "n2", Agent: "a2", Hostname: "two", DeadAt: at(5)},
		{UID: "n3", Agent: "a3", Hostname: "three", Alive: true, SuspectSince: at(9)}}
	agents := map[state.AgentID]*state.Agent{"a1": {ID: "a1", LostAt: at(7)}, "a3": {ID: "a3", LostAt: at(8)}, "a4": {ID: "a4", Hostname: "four"}}
	got := map[string]time.Time{}
	for _, s := range Nodes(nodes, agents) {
		got[s.Name] = s.Since
	}
	if len(got) != 4 || !got["one"].Equal(at(7)) || !got["two"].Equal(at(5)) || !got["three"].Equal(at(8)) || !got["four"].IsZero() {
		t.Errorf("%v", got)
	}
}

package rollout

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestSteps(t *testing.T) {
	steps := Steps([]state.AppChange{
		{App: "/new", ToVersion: "v1", ToInstances: 2},
		{App: "/same", FromVersion: "v1", ToVersion: "v1", FromInstances: 1, ToInstances: 1},
		{App: "/more", FromVersion: "v1", ToVersion: "v1", FromInstances: 1, ToInstances: 2},
		{App: "/other", FromVersion: "v1", ToVersion: "v2", FromInstances: 1, ToInstances: 2},
		{App: "/again", FromVersion: "v1", ToVersion: "v1", ToRestart: 3},
		{App: "/gone", FromVersion: "v1"},
	})
	got := ""
	for _, s := range steps {
		for _, a := range s.Actions {
			got += a.Action + " " + string(a.App) + "; "
		}
		got += "| "
	}
	want := "StopApplication /gone; | StartApplication /new; | ScaleApplication /new; ScaleApplication /more; RestartApplication /other; RestartApplication /again; | "
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestLevels(t *testing.T) {
	needs := map[state.AppID][]state.AppID{"/web": {"/api", "/cache"}, "/api": {"/db", "/cache"}, "/cache": {"/db"}, "/alone": {"/nothing"}}
	levels, ok := Levels(needs)
	want := map[state.AppID]int{"/web": 3, "/api": 2, "/cache": 1, "/alone": 1}
	if !ok || !maps.Equal(levels, want) {
		t.Errorf("levels %v, want %v", levels, want)
	}
	for _, circle := range []map[state.AppID][]state.AppID{
		{"/a": {"/a"}},
		{"/a": {"/b"}, "/b": {"/a"}},
		{"/x": {"/a"}, "/a": {"/d", "/b"}, "/b": {"/c"}, "/c": {"/d", "/a"}},
	} {
		if levels, ok := Levels(circle); ok {
			t.Errorf("%v has levels %v", circle, levels)
		}
	}
	chain := map[state.AppID][]state.AppID{}
	for n := range 5000 {
		chain[state.AppID(fmt.Sprint(n))] = []state.AppID{state.AppID(fmt.Sprint(n + 1))}
	}
	if levels, ok := Levels(chain); !ok || levels["0"] != 5000 {
		t.Errorf("a chain of 5000 has level %d", levels["0"])
	}
	steps := Ordered([]state.AppChange{{App: "/web", ToVersion: "v"}, {App: "/db", ToVersion: "v"}, {App: "/api", FromVersion: "u", ToVersion: "v"}, {App: "/old", FromVersion: "v"}}, levels)
	got := fmt.Sprint(steps)
	if want := "[{[{StopApplication /old}]} {[{StartApplication /web} {StartApplication /db}]} {[{ScaleApplication /db}]} {[{RestartApplication /api}]} {[{ScaleApplication /web}]}]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDelay(t *testing.T) {
	b := state.Backoff{Base: time.Second, Factor: 1.15, Max: time.Hour}
	for n, want := range map[int]time.Duration{0: 0, 1: time.Second, 2: 1150 * time.Millisecond, 1000: time.Hour} {
		if got := time.Duration(Delay(b, n)); got != want {
			t.Errorf("delay after %d failures = %v, want %v", n, got, want)
		}
	}
}

package state

import (
	"slices"
	"testing"
	"time"
)

func TestTaskIDs(t *testing.T) {
	id := NewInstanceID("/prod/my.db", 2)
	task := NewTaskID(id, 17, "3f9c2a")
	if task != "prod_my.db.2.17-3f9c2a" {
		t.Fatalf("task id %s", task)
	}
	got, n, ok := ParseTaskID(task)
	if !ok || got != id || n != 17 {
		t.Fatalf("parsed %v %v %v", got, n, ok)
	}
	for _, bad := range []TaskID{"", "x", "a.b-123456", "a.1.x-123456", "a.1.2-12345", ".1.2-123456", "a.-1.2-123456"} {
		if id, n, ok := ParseTaskID(bad); ok {
			t.Errorf("%q is taken for run %d of %s", bad, n, id)
		}
	}
}

func TestDueHeap(t *testing.T) {
	s := New()
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	put := func(id string, n int) {
		i := &Instance{ID: InstanceID(id), App: "/a", Goal: GoalRun, Phase: PhaseWaiting, Ordinal: n}
		if n > 0 {
			i.WakeAt = at(n)
		}
		s.Apply([]Write{{Kind: KindInstance, ID: id, Value: i}})
	}
	for _, n := range []int{5, 3, 9, 1, 7} {
		put(string(rune('a'+n)), n)
	}
	due := func(n int) (ids []string) {
		s.Due(at(n), func(_ Kind, id string) { ids = append(ids, id) })
		slices.Sort(ids)
		return ids
	}
	if got := due(5); !slices.Equal(got, []string{"b", "d", "f"}) {
		t.Fatalf("due %v", got)
	}
	s.Apply([]Write{{Kind: KindInstance, ID: "b"}}) // removed
	put("d", 0)                                     // waits for nothing any more
	if got := due(5); !slices.Equal(got, []string{"f"}) {
		t.Fatalf("due %v", got)
	}
	if got := s.NextDue(func(_ Kind, id string) bool { return id == "f" }); !got.Equal(at(7)) {
		t.Fatalf("next %v", got)
	}
	if got := s.NextDue(func(Kind, string) bool { return true }); !got.IsZero() {
		t.Fatalf("next %v", got)
	}
}

func TestApplyRefusesAWrongType(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("an app as an instance was taken")
		}
	}()
	New().Apply([]Write{{Kind: KindInstance, ID: "x", Value: &App{}}})
}

func TestNodeOfPrefersTheLivingOne(t *testing.T) {
	s := New()
	s.Apply([]Write{
		{Kind: KindNode, ID: "old", Value: &Node{UID: "old", Agent: "a"}},
		{Kind: KindNode, ID: "new", Value: &Node{UID: "new", Agent: "a", Alive: true}},
		{Kind: KindNode, ID: "old", Value: &Node{UID: "old", Agent: "a"}},
	})
	if n := s.NodeOf("a"); n == nil || n.UID != "new" {
		t.Fatalf("node %v", n)
	}
}

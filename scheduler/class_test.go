package scheduler

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Classes are made, replaced, left alone when only new ones are wanted, and not removed while an app names them.
func TestClasses(t *testing.T) {
	s := state.New()
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	do := func(e Event) error {
		p := Step(s, e, Env{Now: now})
		s.Apply(p.Writes)
		if p.Reply == nil {
			return nil
		}
		return p.Reply.Err
	}
	s.Apply([]state.Write{{Kind: state.KindFramework, Value: &state.Framework{Cluster: "c"}}})
	_ = do(Loaded{})
	if err := do(PutClass{Class: &state.Class{Name: "fast", Driver: "pool"}}); err != nil {
		t.Fatal(err)
	}
	if err := do(PutClass{Class: &state.Class{Name: "fast", Driver: "other"}, OnlyNew: true}); err != nil || s.Classes["fast"].Driver != "pool" {
		t.Fatalf("a seed replaced a class: %v %+v", err, s.Classes["fast"])
	}
	if err := do(PutClass{Class: &state.Class{Name: "fast", Driver: "other"}}); err != nil || s.Classes["fast"].Driver != "other" || s.Classes["fast"].Rev != 2 {
		t.Fatalf("%v %+v", err, s.Classes["fast"])
	}
	spec := state.Spec{Cmd: "x", Volumes: []state.Mount{{Kind: state.MountExternal, Driver: "pool", Pattern: "v", ContainerPath: "d", Class: "fast"}}}
	if err := do(PutApp{Changes: []AppPut{{Def: &state.Def{App: "/a", Version: "v1", Spec: spec}}}}); err != nil {
		t.Fatal(err)
	}
	if err := do(RemoveClass{Name: "fast"}); !fault.Is(err, fault.Conflict) {
		t.Fatalf("removed while it is used: %v", err)
	}
	if err := do(RemoveApp{App: "/a", Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := do(RemoveClass{Name: "fast"}); err != nil || len(s.Classes) != 0 {
		t.Fatalf("%v %v", err, s.Classes)
	}
	if err := do(RemoveClass{Name: "fast"}); !fault.Is(err, fault.NotFound) {
		t.Fatalf("removed twice: %v", err)
	}
}

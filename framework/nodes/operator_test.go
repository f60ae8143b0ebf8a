package nodes

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

// A word says who and why, is about what was shown, and frees no more than that.
func TestOperatorsWord(t *testing.T) {
	ctx := context.Background()
	a := lease.New(leasetest.NewMemory(), lease.Options{})
	if _, err := a.Init(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.PutNode(ctx, lease.Node{UID: "n1", Generation: 1, BootID: "b", Seq: 1, Alive: true, Grade: lease.GradeSoft, Hostname: "here"}, 0); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []string{"v1", "v2"} {
		if _, err := a.Create(ctx, uid, volume.Ref{Driver: "pool", Name: uid}, lease.Policy{Mode: "operator"}, false); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Grant(ctx, lease.GrantArgs{VolumeUID: uid, Epoch: 1, Nonce: uid, Node: "n1", Policy: lease.Policy{Mode: "operator"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Hold(ctx, lease.HoldArgs{VolumeUID: uid, Epoch: 1, Nonce: uid, Node: "n1", Generation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	o := &Operator{Authority: a, Log: zap.NewNop()}
	h, err := o.Holding(ctx, "n1")
	if err != nil || len(h.Claims) != 2 || h.Hostname != "here" || !h.Alive {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := o.Holding(ctx, "nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a node that nobody knows: %v", err)
	}
	held := func(uid string) bool {
		t.Helper()
		c, err := a.Claim(ctx, uid)
		if err != nil {
			t.Fatal(err)
		}
		return c.State == lease.Held
	}
	good := Word{Node: "n1", Generation: h.Generation, Version: h.Version, Claims: []Shown{{Volume: "v1", Epoch: 1, Generation: 1}}, By: "ann", Why: "it burnt"}
	for name, change := range map[string]func(*Word){
		"nobody says it": func(w *Word) { w.By = " " },
		"no reason":      func(w *Word) { w.Why = "" },
		"a long reason":  func(w *Word) { w.Why = strings.Repeat("x", 1001) },
		"about nothing":  func(w *Word) { w.Claims = nil },
	} {
		w := good
		change(&w)
		if _, err := o.Speak(ctx, w); !fault.Is(err, fault.Invalid) || !held("v1") {
			t.Errorf("%s: %v, held %t", name, err, held("v1"))
		}
	}
	other := good
	other.Whole, other.Generation = true, 2
	if _, err := o.Speak(ctx, other); !fault.Is(err, fault.Conflict) || !held("v1") {
		t.Errorf("about another generation: %v", err)
	}
	freed, err := o.Speak(ctx, good)
	if err != nil || len(freed) != 1 || freed[0].Err != nil || held("v1") || !held("v2") {
		t.Errorf("%+v, %v; v2 held %t", freed, err, held("v2"))
	}
	whole := good
	whole.Whole, whole.Claims = true, []Shown{{Volume: "v2", Epoch: 1, Generation: 1}}
	if _, err := o.Speak(ctx, whole); err != nil || held("v2") {
		t.Errorf("the whole node: %v", err)
	}
	if n, err := a.Node(ctx, "n1"); err != nil || n.Alive || !strings.Contains(n.DeadBy, "ann") {
		t.Errorf("its lease: %+v, %v", n, err)
	}
}

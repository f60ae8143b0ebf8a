package nodes

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// An operation that makes a volume: its claim is made first, the node finds what it is asked, progress and result come back, and asking twice is
// asking once.
func TestOperations(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.renewing("n1")
	o := &state.Operation{ID: "op-1", Kind: state.OpClone, Ref: volume.Ref{Driver: "pool", Name: "v"}, Volume: "uid-v", Snapshot: "s1",
		Target: &state.OperationTarget{UID: "uid-w", Name: "w", Size: 5 << 30}, Node: "n1"}
	ask := scheduler.AskNode{Operation: o, Policy: "lease"}
	w.n.Do(ask)
	w.n.Do(ask)
	request := func() lease.RequestVersion {
		t.Helper()
		for range 1000 {
			all, err := w.a.Requests(ctx, "n1")
			if err != nil {
				t.Fatal(err)
			}
			if len(all) == 1 {
				return all[0]
			}
			w.n.wait(ctx, gap)
		}
		t.Fatal("the node is not asked")
		return lease.RequestVersion{}
	}
	r := request()
	var asked client.OperationRequest
	if err := json.Unmarshal(r.Operation, &asked); err != nil || r.Kind != lease.RequestOperation {
		t.Fatalf("%+v %v", r, err)
	}
	if asked.ID != "op-1" || asked.Kind != "clone" || asked.Name != "v" || asked.UID != "uid-v" || asked.Snapshot != "s1" || asked.Target.UID != "uid-w" || asked.Target.SizeBytes != 5<<30 {
		t.Errorf("asked for %s", r.Operation)
	}
	if c, err := w.a.Claim(ctx, "uid-w"); err != nil || c.State != lease.Free || c.Ref.Name != "w" {
		t.Errorf("the new volume's claim is %+v %v", c, err)
	}
	if err := w.a.ProgressRequest(ctx, "n1", "op-1", json.RawMessage(`{"doneBytes":7}`)); err != nil {
		t.Fatal(err)
	}
	w.await("progress", func(e scheduler.Event) bool {
		p, ok := e.(scheduler.OperationProgress)
		return ok && p.Op == "op-1" && string(p.Progress) == `{"doneBytes":7}`
	})
	if err := w.a.FinishOperation(ctx, "n1", request(), "cloned", json.RawMessage(`{"volume":{"driver":"pool","name":"w","sizeBytes":9}}`), nil); err != nil {
		t.Fatal(err)
	}
	w.await("the result", func(e scheduler.Event) bool {
		x, ok := e.(scheduler.RequestResult)
		return ok && x.Op == "op-1" && x.OK && x.Outcome == "cloned" && x.Size == 9 && len(x.Result) > 0
	})
	w.n.Do(scheduler.ForgetRequest{Op: "op-1", Node: "n1"})
	w.n.Do(scheduler.DropClaim{Volume: "uid-w"})
	for n := 0; ; n++ {
		c, err := w.a.Claim(ctx, "uid-w")
		if err == nil && c.Tombstone {
			break
		}
		if n > 1000 {
			t.Fatalf("the claim is not ended: %+v %v", c, err)
		}
		w.n.wait(ctx, gap)
	}
	// What has ended for good is not begun again.
	w.n.Do(ask)
	w.await("the refusal", func(e scheduler.Event) bool {
		x, ok := e.(scheduler.RequestResult)
		return ok && x.Op == "op-1" && !x.OK && x.Class == string(fault.Conflict)
	})
}

// An operation about no volume, and a node that dies before it answers.
func TestOperationOfDeadNode(t *testing.T) {
	w := newWorld(t)
	stop := w.renewing("n1")
	w.await("the node", func(e scheduler.Event) bool {
		n, ok := e.(scheduler.NodesSeen)
		return ok && len(n.Nodes) == 1 && n.Nodes[0].Alive
	})
	w.n.Do(scheduler.AskNode{Operation: &state.Operation{ID: "op-2", Kind: state.OpBackups, Node: "n1"}})
	for n := 0; ; n++ {
		if all, err := w.a.Requests(context.Background(), "n1"); err == nil && len(all) == 1 {
			break
		} else if n > 1000 {
			t.Fatalf("the node is not asked: %v", err)
		}
		w.n.wait(context.Background(), gap)
	}
	stop()
	w.await("that it is gone", func(e scheduler.Event) bool {
		x, ok := e.(scheduler.RequestResult)
		return ok && x.Op == "op-2" && x.Gone
	})
}

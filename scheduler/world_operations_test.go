package scheduler

import (
	"fmt"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The part of the world that does operations on volumes.

// operationKey is where a node's request for an operation is: the same operation may be asked of another node before the first record is gone.
func operationKey(op string, node state.NodeUID) string { return op + "@" + string(node) }

// operationOrder begins an operation, or cancels one.
func (w *world) operationOrder() {
	if ids := sortedKeys(w.s.Operations); len(ids) > 0 && w.r.Intn(6) == 0 {
		w.step(CancelOperation{ID: ids[w.r.Intn(len(ids))]}, w.crashing())
		return
	}
	uids := sortedKeys(w.s.Volumes)
	if len(uids) == 0 {
		return
	}
	o := state.Operation{Volume: uids[w.r.Intn(len(uids))]}
	switch w.r.Intn(3) {
	case 0:
		o.Kind, o.Snapshot = state.OpSnapshot, fmt.Sprint("s", w.r.Intn(3))
	case 1:
		o.Kind, o.Size = state.OpResize, volume.Bytes(1+w.r.Intn(5))*volume.GiB
	case 2:
		o.Kind, o.Target = state.OpClone, &state.OperationTarget{Name: fmt.Sprint("copy", w.r.Intn(3))}
	}
	w.step(StartOperation{Operation: o}, w.crashing())
}

// checkAsk panics when an operation is asked of a node while another is known to have the volume, or a claim is ended whose volume is there.
func (w *world) checkAsk(c Call) {
	switch c := c.(type) {
	case AskNode:
		o := c.Operation
		uids := []state.VolumeUID{o.Volume}
		if o.Target != nil {
			uids = append(uids, o.Target.UID)
		}
		for _, uid := range uids {
			// Asked again, it may have been held elsewhere meanwhile: the node refuses then.
			if cl := w.s.Claims[uid]; o.Attempts == 1 && o.CreatedAt.Equal(w.now) && cl != nil && cl.State == state.ClaimHeld && cl.Node != o.Node {
				w.broken("operation %s of %s is asked of %s, which %s has", o.Kind, cl.Ref, o.Node, cl.Node)
			}
		}
	case DropClaim:
		if v := w.s.Volumes[c.Volume]; v != nil {
			w.broken("the claim of %s is ended, which is %s", v.Ref, v.Phase)
		}
	}
}

// askOperation is what framework/nodes does with AskNode.
func (w *world) askOperation(c AskNode) {
	o := c.Operation
	if t := o.Target; t != nil {
		ref := volume.Ref{Driver: o.Ref.Driver, Name: t.Name}
		switch cl := w.claims[t.UID]; {
		case cl == nil:
			w.claims[t.UID] = &state.Claim{Volume: t.UID, Ref: ref, State: state.ClaimFree}
			w.unread[t.UID] = true
		case cl.Tombstone:
			w.fromAuth = append(w.fromAuth, RequestResult{Op: o.ID, Node: o.Node, Class: "conflict", Error: "its claim was ended"})
			return
		}
	}
	key := operationKey(o.ID, o.Node)
	if r := w.requests[key]; r != nil {
		if r.done != nil {
			w.fromAuth = append(w.fromAuth, *r.done)
		}
		return
	}
	for _, h := range w.hosts {
		if h.node.UID == o.Node {
			w.requests[key] = &wRequest{op: o.ID, host: h, vol: &state.Volume{UID: o.Volume, Ref: o.Ref}, operation: o}
		}
	}
}

// nodeOperation lets a node answer an operation; false when it does not yet.
func (w *world) nodeOperation(r *wRequest) bool {
	o := r.operation
	res := RequestResult{Op: o.ID, Node: r.host.node.UID, OK: true, Scope: "cluster", Outcome: "done"}
	refuse := func(class, text string) { res.OK, res.Class, res.Error, res.Outcome = false, class, text, "" }
	elsewhere := func(uid state.VolumeUID) bool {
		cl := w.claims[uid]
		return cl != nil && (cl.State == state.ClaimGranted || cl.State == state.ClaimHeld && cl.Node != r.host.node.UID)
	}
	switch {
	case r.host.dead || r.host.cut || r.host.retired:
		if r.host.node.Alive {
			return false
		}
		res.OK, res.Gone = false, true
	case !w.calm && w.r.Intn(6) == 0:
		w.fromAuth = append(w.fromAuth, OperationProgress{Op: o.ID, Progress: []byte(`{}`)})
		return false
	case elsewhere(o.Volume), o.Target != nil && elsewhere(o.Target.UID):
		refuse("conflict", "it is held elsewhere")
	case w.claims[o.Volume] == nil || w.claims[o.Volume].Tombstone:
		refuse("not-found", "it was removed")
	case !w.calm && w.r.Intn(8) == 0:
		refuse("unavailable", "the driver is busy")
	case o.Kind == state.OpResize:
		res.Size = o.Size
	case o.Kind == state.OpClone:
		w.data[volume.Ref{Driver: o.Ref.Driver, Name: o.Target.Name}] = true
	}
	r.done = &res
	w.logf("node %s answers operation %+v", r.host.name, res)
	w.fromAuth = append(w.fromAuth, res)
	return true
}

func (w *world) dropClaim(c DropClaim) {
	if cl := w.claims[c.Volume]; cl != nil && cl.State == state.ClaimFree {
		w.setClaim(c.Volume, func(c *state.Claim) { c.Tombstone = true })
		delete(w.data, cl.Ref)
		delete(w.uids, cl.Ref)
	}
}

// operationTrouble says what is left to do once nothing disturbs any more.
func (w *world) operationTrouble(say func(string, ...any)) {
	for _, id := range sortedKeys(w.s.Operations) {
		if o := w.s.Operations[id]; !o.Over() {
			say("operation %s of %s is %s on %s: %s", o.Kind, o.Ref, o.Phase, o.Node, o.Because)
		}
	}
	for _, uid := range sortedKeys(w.s.Volumes) {
		if v := w.s.Volumes[uid]; v.MadeBy != "" && (w.s.Operations[v.MadeBy] == nil || w.s.Operations[v.MadeBy].Over()) {
			say("volume %s is made by operation %s, which is over", v.Ref, v.MadeBy)
		}
	}
}

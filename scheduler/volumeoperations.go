package scheduler

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Operations on volumes: the wish is a record, a node is chosen that may carry it out (the holder where the volume is held, any that reaches it
// otherwise), and asked under an id that is committed before. A node that dies before it answers is replaced by another once nothing is held there
// any more: everything that an operation does may be done twice.

// Pauses and times of operations.
const (
	operationLook    = 2 * time.Second // between two looks for a node
	operationAsk     = 30 * time.Second
	operationKeep    = 24 * time.Hour
	operationKeepAsk = 2 * time.Minute
	maxOperations    = 1000 // under way at a time
)

// From people, through the API.
type (
	// StartOperation begins an operation, whose ID, phase and times Step fills in; Target.UID too. Answered with Reply.Operation. The same words as
	// one under way join that.
	StartOperation struct{ Operation state.Operation }
	// CancelOperation ends one early.
	CancelOperation struct{ ID string }
)

// OperationProgress tells how far a node is.
type OperationProgress struct {
	Op       string
	Progress json.RawMessage
}

// To the lease authority, through framework/nodes.
type (
	// AskNode asks a node for an operation. With a target the target's claim is made first. Answered by RequestResult and OperationProgress.
	AskNode struct {
		Operation *state.Operation
		// Policy of the target's claim.
		Policy string
	}
	// DropClaim ends the uid of a volume that was never made.
	DropClaim struct{ Volume state.VolumeUID }
)

func (StartOperation) event()    {}
func (CancelOperation) event()   {}
func (OperationProgress) event() {}
func (AskNode) call()            {}
func (DropClaim) call()          {}

func (w *work) operation(id string) *state.Operation {
	return look(w, state.KindOperation, id, w.s.Operations[id])
}

func (w *work) putOperation(o *state.Operation) {
	o.Rev = 1
	if old := w.s.Operations[o.ID]; old != nil {
		o.Rev = old.Rev + 1
	}
	w.put(state.KindOperation, o.ID, o)
}

func (w *work) startOperation(e StartOperation) *Reply {
	o := e.Operation
	if o.Volume != "" {
		v := w.volume(o.Volume)
		if err := operable(v, o); err != nil {
			return refuse(err)
		}
		o.Ref = v.Ref
		if o.Kind == state.OpResize && v.Size > o.Size {
			return refuse(fault.New(fault.Invalid, "volume %s has %s, and a volume is never made smaller: clone or restore into a new one", v.Ref, v.Size))
		}
	}
	going := 0
	for _, id := range sortedKeys(w.s.Operations) {
		if other := w.operation(id); other != nil && !other.Over() {
			if sameWords(other, &o) {
				return &Reply{Operation: id}
			}
			going++
		}
	}
	if going >= maxOperations {
		return refuse(fault.New(fault.Unavailable, "%d operations are under way; wait for some to end", going))
	}
	if err := w.planTarget(&o); err != nil {
		return refuse(err)
	}
	o.ID, o.Phase, o.CreatedAt, o.WakeAt = w.uuid(), state.OperationWaiting, w.now, w.now
	w.putOperation(&o)
	if o.Target != nil {
		w.putTarget(&o)
	}
	w.tryOperation(&o)
	r := &Reply{Operation: o.ID}
	if o.Target != nil {
		r.Volumes = []state.VolumeUID{o.Target.UID}
	}
	return r
}

// operable says why a volume is in no state for an operation.
func operable(v *state.Volume, o state.Operation) error {
	switch {
	case v == nil:
		return fault.New(fault.NotFound, "volume %s does not exist", o.Volume)
	case v.Phase == state.VolumeRemoving:
		return fault.New(fault.Conflict, "volume %s is being removed", v.Ref)
	case v.Phase != state.VolumeReady:
		return fault.New(fault.Conflict, "volume %s was not created yet (it is %s)", v.Ref, v.Phase)
	}
	return nil
}

// sameWords tells whether two operations ask for the same.
func sameWords(a, b *state.Operation) bool {
	same := func(x, y *state.OperationTarget) bool {
		if x == nil || y == nil {
			return x == y
		}
		p, q := *x, *y
		p.UID, q.UID = "", ""
		return reflect.DeepEqual(p, q)
	}
	return a.Kind == b.Kind && a.Ref == b.Ref && a.Volume == b.Volume && a.Snapshot == b.Snapshot && a.Repository == b.Repository && a.Backup == b.Backup &&
		a.BinUID == b.BinUID && a.Size == b.Size && a.Repair == b.Repair && a.Verify == b.Verify && same(a.Target, b.Target)
}

// planTarget gives the volume that an operation makes its uid; a name that is taken is refused.
func (w *work) planTarget(o *state.Operation) error {
	if o.Target == nil {
		return nil
	}
	t := *o.Target
	ref := volume.Ref{Driver: o.Ref.Driver, Name: t.Name}
	if err := ref.Check(); err != nil {
		return err
	}
	if v := w.volumeByRef(ref); v != nil {
		return fault.New(fault.Exists, "volume %s exists (uid %s, app %s): choose another name", ref, v.UID, orNone(string(v.App)))
	}
	// A clone under an app's names would become a volume of its next instances by accident; who restores under such a name means it.
	for _, id := range sortedKeys(w.s.Apps) {
		if o.Kind != state.OpClone {
			break
		}
		for _, m := range externals(w.spec(id, w.s.Apps[id].Version)) {
			if m.Driver == ref.Driver && volume.PatternsClash(m.Pattern, ref.Name) {
				return fault.New(fault.Conflict, "volume %s would belong to app %s, which names its volumes %q: choose another name", ref, id, m.Pattern)
			}
		}
	}
	t.UID = state.VolumeUID(w.uuid7())
	o.Target = &t
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// putTarget records the volume that an operation makes. It belongs to no app until one names it.
func (w *work) putTarget(o *state.Operation) {
	v := &state.Volume{UID: o.Target.UID, Ref: volume.Ref{Driver: o.Ref.Driver, Name: o.Target.Name}, Size: o.Target.Size, Options: o.Target.Options,
		User: o.Target.User, Policy: w.env.Config.DefaultPolicy, Phase: state.VolumeCreating, MadeBy: o.ID, CreatedAt: w.now}
	if from := w.volume(o.Volume); from != nil {
		v.Class, v.Policy = from.Class, from.Policy
		if v.Size == 0 {
			v.Size = from.Size
		}
		if v.User == "" {
			v.User = from.User
		}
	}
	w.putVolume(v)
}

// tryOperation asks a node, if there is one that may.
func (w *work) tryOperation(o *state.Operation) {
	c := *o
	node, because, err := w.nodeForOperation(&c)
	switch {
	case err != nil:
		w.endOperation(&c, RequestResult{Class: string(fault.ClassOf(err)), Error: err.Error()})
		return
	case node == "":
		// Less often as time goes by: each look is a write.
		c.Because, c.WakeAt = because, w.now.Add(min(max(operationLook, w.now.Sub(c.CreatedAt)/8), operationAsk))
		w.putOperation(&c)
		return
	}
	c.Phase, c.Node, c.Because, c.WakeAt = state.OperationAsked, node, "", w.now.Add(operationAsk)
	c.Attempts++
	w.putOperation(&c)
	w.askOperation(&c)
}

func (w *work) askOperation(o *state.Operation) {
	policy := w.env.Config.DefaultPolicy
	if o.Target != nil {
		if v := w.volume(o.Target.UID); v != nil {
			policy = v.Policy
		}
	}
	w.authority(AskNode{Operation: o, Policy: policy})
}

// nodeForOperation gives the node that is to carry an operation out; because what is waited for when there is none now; an error when there will be none.
func (w *work) nodeForOperation(o *state.Operation) (node state.NodeUID, because string, err error) {
	if !w.session().AuthoritySeen {
		return "", "the lease authority was not read yet", nil
	}
	if o.Target != nil {
		// A node that began it before may have the new volume still.
		if cl := w.claim(o.Target.UID); cl != nil && cl.State != state.ClaimFree {
			if n := w.node(cl.Node); n == nil || !n.Alive {
				return "", fmt.Sprintf("the new volume is held by node %s, which is gone", w.nodeName(cl.Node)), nil
			}
			return cl.Node, "", nil
		}
	}
	v := w.volume(o.Volume)
	if o.Volume != "" {
		if err := operable(v, *o); err != nil {
			return "", "", err
		}
		if at, because, known := w.holder(v); known {
			return at, because, nil
		}
	}
	best := w.bestNode(o, v)
	if best == nil {
		return "", w.noNode(o), nil
	}
	return best.UID, "", nil
}

// holder gives the node that has a volume, or what is waited for; known is false when nobody has it.
func (w *work) holder(v *state.Volume) (at state.NodeUID, because string, known bool) {
	cl := w.claim(v.UID)
	switch {
	case cl == nil || v.Shared || cl.State == state.ClaimFree:
		return "", "", false
	case cl.State == state.ClaimGranted:
		return "", fmt.Sprintf("volume %s is granted to %s, which is about to mount it", v.Ref, cl.Owner), true
	}
	if n := w.node(cl.Node); n == nil || !n.Alive {
		return "", fmt.Sprintf("volume %s is held by node %s, which is gone", v.Ref, w.nodeName(cl.Node)), true
	}
	return cl.Node, "", true
}

// bestNode picks a node for an operation on what nobody holds: one that reaches the volume and the repository; the first by host name.
func (w *work) bestNode(o *state.Operation, v *state.Volume) *state.Node {
	var best *state.Node
	for _, uid := range sortedKeys(w.s.Nodes) {
		n := w.node(uid)
		if n == nil || !n.Alive || !n.SuspectSince.IsZero() || o.Ref.Driver != "" && !n.Drivers[o.Ref.Driver].Ready || v != nil && w.pinned(v, n) != "" {
			continue
		}
		if o.Repository != "" && !slices.Contains(n.Repositories, o.Repository) || o.Kind == state.OpBackups && len(n.Repositories) == 0 {
			continue
		}
		if best == nil || n.Hostname < best.Hostname {
			best = n
		}
	}
	return best
}

func (w *work) noNode(o *state.Operation) string {
	var needs []string
	if o.Ref.Driver != "" {
		needs = append(needs, "driver "+o.Ref.Driver+" ready")
	}
	if o.Repository != "" {
		needs = append(needs, fmt.Sprintf("repository %q (its isolator's --backup-config)", o.Repository))
	} else if o.Kind == state.OpBackups {
		needs = append(needs, "a repository for backups (its isolator's --backup-config)")
	}
	if len(needs) == 0 {
		return "no node is there"
	}
	return "no node is there that has " + strings.Join(needs, " and ")
}

// operationDue: a look for a node, a request without an answer, or the end of what is kept.
func (w *work) operationDue(o *state.Operation) {
	switch {
	case o == nil:
	case o.Over():
		w.remove(state.KindOperation, o.ID)
	case o.Phase == state.OperationAsked:
		c := *o
		c.WakeAt = w.now.Add(operationAsk)
		w.putOperation(&c)
		w.askOperation(&c)
	default:
		w.tryOperation(o)
	}
}

// operationResult notes what a node answers; false when the request was no operation's.
func (w *work) operationResult(e RequestResult) bool {
	o := w.operation(e.Op)
	if o == nil {
		return false
	}
	if o.Over() || o.Node != e.Node {
		return true
	}
	c := *o
	if e.Gone {
		c.Phase, c.Node, c.Progress = state.OperationWaiting, "", nil
		c.Because, c.WakeAt = fmt.Sprintf("node %s went away before it answered", w.nodeName(o.Node)), w.now.Add(operationLook)
		w.putOperation(&c)
		return true
	}
	w.endOperation(&c, e)
	return true
}

// endOperation records the outcome, and what it means for the volumes.
func (w *work) endOperation(c *state.Operation, e RequestResult) {
	c.Phase, c.EndedAt, c.Outcome, c.Result, c.Progress, c.Because = state.OperationDone, w.now, e.Outcome, e.Result, nil, ""
	if !e.OK {
		c.Phase, c.Class, c.Error = state.OperationFailed, e.Class, e.Error
	}
	c.WakeAt = w.now.Add(operationKeep)
	if c.Asks() {
		c.WakeAt = w.now.Add(operationKeepAsk)
	}
	w.putOperation(c)
	if v := w.volume(c.Volume); v != nil && e.OK && c.Kind == state.OpResize && e.Size > 0 && e.Size != v.Size {
		n := *v
		n.Size = e.Size
		w.putVolume(&n)
	}
	if c.Target == nil {
		return
	}
	v := w.volume(c.Target.UID)
	if v == nil {
		return
	}
	if !e.OK {
		// The node has undone what it had begun; what is left is the name, which is free again with the claim.
		w.remove(state.KindVolume, string(v.UID))
		w.authority(DropClaim{Volume: v.UID})
		w.touchUsers(v)
		return
	}
	n := *v
	n.Phase, n.MadeBy, n.Scope = state.VolumeReady, "", e.Scope
	if e.Scope == "node" || e.Scope == "zone" {
		n.Node = e.Node
	}
	if e.Size > 0 {
		n.Size = e.Size
	}
	w.putVolume(&n)
	w.touchUsers(&n)
}

func (w *work) operationProgress(e OperationProgress) {
	o := w.operation(e.Op)
	if o == nil || o.Phase != state.OperationAsked {
		return
	}
	c := *o
	c.Progress, c.WakeAt = e.Progress, w.now.Add(operationAsk)
	w.putOperation(&c)
}

func (w *work) cancelOperation(e CancelOperation) *Reply {
	o := w.operation(e.ID)
	if o == nil {
		return refuse(fault.New(fault.NotFound, "operation %s does not exist", e.ID))
	}
	if o.Over() {
		return &Reply{Operation: o.ID}
	}
	if o.Phase == state.OperationAsked {
		w.authority(ForgetRequest{Op: o.ID, Node: o.Node}) // the node sees it go, stops, and undoes
	}
	c := *o
	w.endOperation(&c, RequestResult{Node: o.Node, Class: string(fault.Conflict), Error: "it was cancelled"})
	return &Reply{Operation: o.ID}
}

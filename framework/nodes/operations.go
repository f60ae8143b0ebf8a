package nodes

import (
	"context"
	"encoding/json"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// askOperation asks a node for an operation; the claim of a volume that it makes is made first.
func (n *Nodes) askOperation(ctx context.Context, c scheduler.AskNode) error {
	o := c.Operation
	uid, ref := o.Volume, o.Ref
	if o.Target != nil {
		ref := volume.Ref{Driver: o.Ref.Driver, Name: o.Target.Name}
		if _, err := n.a.Create(ctx, string(o.Target.UID), ref, n.policy(c.Policy), false); err != nil {
			return n.refusedOperation(o, err)
		}
	}
	if uid == "" { // a request names a volume; where there is none, the operation itself stands for it
		uid = state.VolumeUID(o.ID)
	}
	rv, err := n.a.PutRequest(ctx, string(o.Node), lease.Request{Op: o.ID, Kind: lease.RequestOperation, VolumeUID: string(uid), Ref: ref, Operation: wireOperation(o)})
	switch {
	case err != nil:
		return n.refusedOperation(o, err)
	case rv.State == lease.RequestPending:
		n.answers.forget(o.ID)
		return nil
	}
	return n.finished(ctx, string(o.Node), rv)
}

func (n *Nodes) refusedOperation(o *state.Operation, err error) error {
	if fault.Is(err, fault.Unknown) || fault.Is(err, fault.Unavailable) {
		return err
	}
	n.out.add(scheduler.RequestResult{Op: o.ID, Volume: o.Volume, Node: o.Node, Class: string(fault.ClassOf(err)), Error: err.Error()})
	return nil
}

// wireOperation is what a node is asked.
func wireOperation(o *state.Operation) json.RawMessage {
	r := client.OperationRequest{ID: o.ID, Kind: o.Kind, Driver: o.Ref.Driver, Name: o.Ref.Name, UID: string(o.Volume), Snapshot: o.Snapshot,
		SizeBytes: int64(o.Size), Repair: o.Repair, Verify: o.Verify, Repository: o.Repository, Backup: o.Backup}
	if o.BinUID != "" {
		r.UID = o.BinUID
	}
	if t := o.Target; t != nil {
		r.Target = &client.TargetVolume{Name: t.Name, UID: string(t.UID), SizeBytes: int64(t.Size), Options: t.Options, User: t.User}
	}
	raw, err := json.Marshal(r)
	if err != nil { // a struct of strings and numbers
		return nil
	}
	return raw
}

// sizeOf reads the size that a volume has after an operation, 0 when its result does not tell. A size that the next mount brings counts.
func sizeOf(raw json.RawMessage) volume.Bytes {
	var r client.OperationResult
	if len(raw) == 0 || json.Unmarshal(raw, &r) != nil {
		return 0
	}
	switch {
	case r.Growth != nil:
		return volume.Bytes(max(r.Growth.SizeBytes, r.Growth.PendingBytes))
	case r.Volume != nil:
		return volume.Bytes(r.Volume.SizeBytes)
	}
	return 0
}

func fullness(list []lease.VolumeFull) map[state.VolumeUID]state.VolumeFullness {
	if len(list) == 0 {
		return nil
	}
	out := make(map[state.VolumeUID]state.VolumeFullness, len(list))
	for _, v := range list {
		out[state.VolumeUID(v.Volume)] = state.VolumeFullness{Level: v.Level, Size: volume.Bytes(v.Size), Used: volume.Bytes(v.Used), Available: volume.Bytes(v.Available)}
	}
	return out
}

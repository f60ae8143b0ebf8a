package nodes

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// work makes calls, one after the other, until ctx ends.
func (n *Nodes) work(ctx context.Context) {
	for {
		volume, call, ok := n.calls.next(ctx)
		if !ok {
			return
		}
		n.untilKnown(ctx, call)
		n.calls.done(volume)
	}
}

// untilKnown makes a call again until its outcome is known: a refusal is an outcome, a lost reply or an authority
// that is away is none. Everything called here finds out by nonce, epoch or op what an earlier attempt did.
func (n *Nodes) untilKnown(ctx context.Context, call scheduler.Call) {
	const first, last = 50 * time.Millisecond, time.Second
	for pause := first; ; pause = min(2*pause, last) {
		err := n.make(ctx, call)
		if !fault.Is(err, fault.Unknown) && !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return
		}
		n.log.Debug("a call to the lease authority is repeated", zap.Any("call", call), zap.Error(err))
		done, stop := n.c.Clock.After(pause)
		select {
		case <-done:
		case <-ctx.Done():
		}
		stop()
	}
}

// make makes a call once and reports its outcome, if it is known.
func (n *Nodes) make(ctx context.Context, call scheduler.Call) error {
	if n.c.Gate != nil {
		if err := n.c.Gate(ctx); err != nil {
			return err
		}
	}
	switch c := call.(type) {
	case scheduler.Grant:
		return n.grant(ctx, c)
	case scheduler.CancelGrant:
		_, err := n.a.Cancel(ctx, string(c.Volume), c.Epoch, c.Nonce)
		return n.noted("a grant was not cancelled", string(c.Volume), err)
	case scheduler.Revoke:
		if n.held() != "" {
			return nil // asked for before the hold; the scheduler asks again when it ends
		}
		_, err := n.a.Revoke(ctx, string(c.Volume), c.Epoch)
		return n.noted("a hold was not revoked", string(c.Volume), err)
	case scheduler.CreateVolume:
		return n.create(ctx, c)
	case scheduler.RemoveVolumeData:
		return n.ask(ctx, c.Op, c.Node, c.Volume, lease.RequestRemove)
	case scheduler.RetireNode:
		return n.noted("a node was not retired", string(c.Node), n.a.RetireNode(ctx, string(c.Node), c.Generation, c.By))
	case scheduler.AskNode:
		return n.askOperation(ctx, c)
	case scheduler.DropClaim:
		_, err := n.a.Tombstone(ctx, string(c.Volume))
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return n.noted("a claim was not ended", string(c.Volume), err)
	case scheduler.ForgetRequest:
		return n.noted("a request was not removed", c.Op, n.a.DeleteRequest(ctx, string(c.Node), c.Op))
	}
	return fault.New(fault.Internal, "call %T is not for the lease authority", call)
}

// noted logs a refusal, which the claims themselves explain to the scheduler.
func (n *Nodes) noted(what, which string, err error) error {
	if err != nil && !fault.Is(err, fault.Unknown) && !fault.Is(err, fault.Unavailable) {
		n.log.Info(what, zap.String("which", which), zap.Error(err))
	}
	return err
}

func (n *Nodes) grant(ctx context.Context, c scheduler.Grant) error {
	cv, err := n.a.Grant(ctx, lease.GrantArgs{VolumeUID: string(c.Volume), Epoch: c.Epoch, Nonce: c.Nonce,
		Agent: string(c.Agent), Node: string(c.Node), Owner: c.Owner, Policy: n.policy(c.Policy)})
	if fault.Is(err, fault.Unknown) || fault.Is(err, fault.Unavailable) {
		return err
	}
	r := scheduler.GrantResult{Volume: c.Volume, Epoch: c.Epoch, Nonce: c.Nonce, OK: err == nil}
	if cv.VolumeUID != "" {
		r.Claim = claimOf(cv)
	}
	if err != nil {
		r.Reason = err.Error()
	}
	n.out.add(r)
	return nil
}

func (n *Nodes) policy(mode string) lease.Policy {
	p := lease.Policy{Mode: mode}
	if mode == lease.PolicyLease {
		p.MinGrade = n.c.MinGrade
	}
	return p
}

func (n *Nodes) create(ctx context.Context, c scheduler.CreateVolume) error {
	v := c.Volume
	_, err := n.a.Create(ctx, string(v.UID), v.Ref, n.policy(v.Policy), v.Shared)
	if err != nil {
		return n.refused(c.Op, c.Node, v, err)
	}
	return n.ask(ctx, c.Op, c.Node, v, lease.RequestCreate)
}

// ask writes a request. Its result is reported when it is there, which observe sees; at once if it is there already.
func (n *Nodes) ask(ctx context.Context, op string, node state.NodeUID, v *state.Volume, kind lease.RequestKind) error {
	request := lease.Request{Op: op, Kind: kind, VolumeUID: string(v.UID), Ref: v.Ref, SizeBytes: int64(v.Size), Options: v.Options, User: v.User}
	request.Encrypt = v.Encrypt && kind == lease.RequestCreate
	request.Now = v.RemoveNow && kind == lease.RequestRemove
	request.AdoptOnly = v.AdoptOnly && kind == lease.RequestCreate
	if v.Source != nil && kind == lease.RequestCreate {
		request.Source = &lease.RequestSource{Volume: v.Source.Volume, UID: string(v.Source.UID), Snapshot: v.Source.Snapshot}
	}
	rv, err := n.a.PutRequest(ctx, string(node), request)
	switch {
	case err != nil:
		return n.refused(op, node, v, err)
	case rv.State == lease.RequestPending:
		n.answers.forget(op) // report it, or that its node is gone, even if an earlier one was reported
		return nil
	}
	return n.finished(ctx, string(node), rv)
}

func (n *Nodes) refused(op string, node state.NodeUID, v *state.Volume, err error) error {
	if fault.Is(err, fault.Unknown) || fault.Is(err, fault.Unavailable) {
		return err
	}
	n.out.add(scheduler.RequestResult{Op: op, Volume: v.UID, Node: node, Class: string(fault.ClassOf(err)), Error: err.Error()})
	return nil
}

// finished reports a request that has an outcome. A volume that was removed first gets its tombstone, so that a removal reported is one
// that cannot be undone by a late mount.
func (n *Nodes) finished(ctx context.Context, node string, rv lease.RequestVersion) error {
	r := scheduler.RequestResult{Op: rv.Op, Volume: state.VolumeUID(rv.VolumeUID), Node: state.NodeUID(node),
		OK: rv.State == lease.RequestDone, Outcome: rv.Outcome, Class: rv.Class, Error: rv.Error, Scope: n.answers.scope(node, rv.Ref.Driver)}
	if rv.Kind == lease.RequestOperation {
		r.Result, r.Size = rv.Result, sizeOf(rv.Result)
	}
	if r.OK && rv.Kind == lease.RequestRemove {
		_, err := n.a.Tombstone(ctx, rv.VolumeUID)
		switch {
		case fault.Is(err, fault.Unknown) || fault.Is(err, fault.Unavailable):
			return err
		case err != nil && !fault.Is(err, fault.NotFound):
			r.OK, r.Class, r.Error = false, string(fault.ClassOf(err)), err.Error()
		}
	}
	n.out.add(r)
	return nil
}

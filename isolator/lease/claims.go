package lease

import (
	"context"
	"errors"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// GrantArgs are the arguments of Grant.
type GrantArgs struct {
	VolumeUID string
	Epoch     volume.Epoch // must be larger than any used before
	Agent     string       // Mesos agent id the grant is for
	Node      string       // uid of the node beside that agent
	Nonce     string       // new for every attempt
	Policy    Policy
	Owner     string // task id, for display
}

// HoldArgs are the arguments of Hold.
type HoldArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch
	Nonce      string // the grant's
	Node       string
	Generation uint64 // of the node's lease
	Grade      Grade  // of the node's fence now; "" takes the node record's
	Owner      string // "" keeps the grant's
	// Seen is the claim as it was just read, which saves another read: the transaction fails if it has changed since. nil reads it.
	Seen *ClaimVersion
}

// SelfClaimArgs are the arguments of SelfClaim.
type SelfClaimArgs struct {
	Ref        volume.Ref
	NewUID     string // uid of the claim when one has to be made; "" refuses to make one
	Nonce      string // new for every attempt
	Node       string
	Generation uint64
	Grade      Grade
	Policy     Policy // for a new claim, or one that has none
	Owner      string
	Seen       *ClaimVersion // as in HoldArgs; of the volume Ref
}

// RekeyArgs are the arguments of Rekey.
type RekeyArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch // the epoch held now; the next is Epoch+1
	OldNonce   string       // its nonce
	Nonce      string       // the nonce of the next
	Node       string
	Generation uint64
	Grade      Grade
	Owner      string
}

// RegradeArgs are the arguments of Regrade.
type RegradeArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch
	Nonce      string
	Node       string
	Generation uint64
	Grade      Grade // of the node's fence now
}

// OverrideArgs are the arguments of Override: what the operator was shown and agreed to.
type OverrideArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch
	Node       string
	Generation uint64
	// NodeVersion is the version of the node's register that was shown, 0 if there was none.
	NodeVersion uint64
	// Renewing says that the operator typed the second flag: go on although the lease is being renewed.
	Renewing bool
	// By and Why are who says so and for what reason; they are kept in the claim.
	By, Why string
}

// Claim reads one claim. NotFound when the volume is not known.
func (a *Authority) Claim(ctx context.Context, uid string) (ClaimVersion, error) {
	if err := checkID("volume uid", uid); err != nil {
		return ClaimVersion{}, err
	}
	e, err := a.get(ctx, claimKey(uid))
	if err != nil {
		return ClaimVersion{}, fault.Op(err, "read the claim of volume %s", uid)
	}
	return decodeClaim(e)
}

// ClaimByRef reads the claim of the volume that has this natural key now. NotFound when there is none.
func (a *Authority) ClaimByRef(ctx context.Context, ref volume.Ref) (ClaimVersion, error) {
	cv, _, err := a.byRef(ctx, ref)
	return cv, err
}

func (a *Authority) byRef(ctx context.Context, ref volume.Ref) (cv ClaimVersion, nameVersion uint64, err error) {
	if err := ref.Check(); err != nil {
		return ClaimVersion{}, 0, err
	}
	e, err := a.get(ctx, nameKey(ref))
	if err != nil {
		return ClaimVersion{}, 0, fault.Op(err, "find the claim of volume %s", ref)
	}
	var name nameRecord
	if err := decode(e, &name); err != nil {
		return ClaimVersion{}, 0, err
	}
	if name.Ref != ref {
		return ClaimVersion{}, 0, fault.New(fault.Internal, "register %s is of volume %s, not of %s", e.Key, name.Ref, ref)
	}
	cv, err = a.Claim(ctx, name.VolumeUID)
	return cv, e.Version, err
}

// Claims reads all claims. Where some cannot be read the error is a *BadRecords beside the others.
func (a *Authority) Claims(ctx context.Context) ([]ClaimVersion, error) {
	entries, err := a.list(ctx, PrefixClaims)
	if err != nil {
		return nil, fault.Op(err, "read the claims")
	}
	return a.decoded.decodeAll(entries)
}

// Create makes the claim of a volume, free with epoch 0, and its entry under names. The same uid and ref again
// is a success. Exists when the ref is that of another volume, Conflict when the uid was used for another ref or
// is a tombstone.
func (a *Authority) Create(ctx context.Context, uid string, ref volume.Ref, policy Policy, shared bool) (ClaimVersion, error) {
	if err := errors.Join(checkID("volume uid", uid), ref.Check()); err != nil {
		return ClaimVersion{}, err
	}
	var out ClaimVersion
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		cv, err := a.Claim(ctx, uid)
		switch {
		case err == nil && cv.Tombstone:
			return nil, nil, final(removed(cv.Claim))
		case err == nil && cv.Ref != ref:
			return nil, nil, final(fault.New(fault.Conflict, "volume uid %s is that of %s", uid, cv.Ref))
		case err == nil:
			out = cv
			return nil, nil, nil
		case !fault.Is(err, fault.NotFound):
			return nil, nil, err
		}
		if err := a.nameIsFree(ctx, ref); err != nil {
			return nil, nil, err
		}
		c := Claim{V: recordVersion, VolumeUID: uid, Ref: ref, State: Free, Policy: policy, Shared: shared, Since: a.opts.Now()}
		return creation(c), func(e []Entry) { out = ClaimVersion{c, e[0].Version} }, nil
	})
	return out, fault.Op(err, "create the claim of volume %s", ref)
}

func (a *Authority) nameIsFree(ctx context.Context, ref volume.Ref) error {
	other, _, err := a.byRef(ctx, ref)
	switch {
	case err == nil:
		return final(fault.New(fault.Exists, "volume %s exists with uid %s", ref, other.VolumeUID))
	case fault.Is(err, fault.NotFound):
		return nil
	}
	return err
}

func creation(c Claim) []Op {
	return []Op{
		{Kind: OpPut, Key: claimKey(c.VolumeUID), Value: encode(c)},
		{Kind: OpPut, Key: nameKey(c.Ref), Value: encode(nameRecord{V: recordVersion, Ref: c.Ref, VolumeUID: c.VolumeUID})},
	}
}

// Grant is L1, free(e) -> granted(e'). The same epoch and nonce again is a success, also when the node has taken
// the claim to held meanwhile. Conflict (with a *HolderError) when it is somebody else's or the epoch was used; the claim that stands is returned beside it.
func (a *Authority) Grant(ctx context.Context, g GrantArgs) (ClaimVersion, error) {
	if g.Nonce == "" || g.Epoch == 0 || (g.Agent == "" && g.Node == "") {
		return ClaimVersion{}, fault.New(fault.Invalid, "a grant needs an epoch, a nonce, and an agent or a node")
	}
	return a.move(ctx, g.VolumeUID, "", func(c Claim, _ *NodeVersion) (Claim, bool, error) { return decideGrant(c, g) })
}

// Hold is L2, granted(e) -> held(e), by a node whose lease is alive. It admits a mount. The same again is a success as long
// as the lease is alive at that generation. Conflict (mostly with a *HolderError) otherwise.
func (a *Authority) Hold(ctx context.Context, h HoldArgs) (ClaimVersion, error) {
	if h.Nonce == "" || h.Epoch == 0 || h.Generation == 0 {
		return ClaimVersion{}, fault.New(fault.Invalid, "a hold needs an epoch, a nonce and a lease generation")
	}
	return a.moveFrom(ctx, h.Seen, h.VolumeUID, h.Node, func(c Claim, n *NodeVersion) (Claim, bool, error) { return decideHold(c, n.Node, h) })
}

// SelfClaim takes a claim without a grant (stock Marathon, `docker run`): free(e) -> held(e+1). When the volume is
// not known and NewUID is given, it makes the claim, held(1), and says so by created: nobody has ever made that volume
// through this authority. NotFound when it is not known and NewUID is "". A shared volume's claim is returned as it is.
// After an error of class Unknown repeat it with the same NewUID and Nonce; created is told again then only by Epoch 1.
func (a *Authority) SelfClaim(ctx context.Context, s SelfClaimArgs) (cv ClaimVersion, created bool, err error) {
	if s.Nonce == "" || s.Generation == 0 {
		return ClaimVersion{}, false, fault.New(fault.Invalid, "a claim needs a nonce and a lease generation")
	}
	err = errors.Join(s.Ref.Check(), checkID("node uid", s.Node))
	if err == nil && s.NewUID != "" {
		err = checkID("volume uid", s.NewUID)
	}
	if err != nil {
		return ClaimVersion{}, false, err
	}
	for seen := s.Seen; ; seen = nil {
		known, err := a.known(ctx, s.Ref, seen)
		switch {
		case err == nil:
			cv, err := a.moveFrom(ctx, seen, known.VolumeUID, s.Node, func(c Claim, n *NodeVersion) (Claim, bool, error) { return decideSelf(c, n.Node, s) })
			return cv, created || (err == nil && cv.VolumeUID == s.NewUID && cv.Nonce == s.Nonce && cv.Epoch == 1), err
		case !fault.Is(err, fault.NotFound) || s.NewUID == "":
			return ClaimVersion{}, false, err
		}
		cv, err := a.selfCreate(ctx, s)
		if !errors.Is(err, errKnownNow) {
			return cv, err == nil, err
		}
	}
}

// known is ClaimByRef for who may have read it just now.
func (a *Authority) known(ctx context.Context, ref volume.Ref, seen *ClaimVersion) (ClaimVersion, error) {
	if seen != nil && seen.Ref == ref && !seen.Tombstone {
		return *seen, nil
	}
	return a.ClaimByRef(ctx, ref)
}

var errKnownNow = errors.New("the volume has become known")

func (a *Authority) selfCreate(ctx context.Context, s SelfClaimArgs) (out ClaimVersion, err error) {
	err = a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		if _, _, err := a.byRef(ctx, s.Ref); err == nil {
			return nil, nil, final(errKnownNow)
		} else if !fault.Is(err, fault.NotFound) {
			return nil, nil, err
		}
		if _, err := a.Claim(ctx, s.NewUID); err == nil {
			return nil, nil, final(fault.New(fault.Conflict, "volume uid %s was used before", s.NewUID))
		} else if !fault.Is(err, fault.NotFound) {
			return nil, nil, err
		}
		n, err := a.Node(ctx, s.Node)
		if err != nil {
			return nil, nil, err
		}
		if err := aliveAt(n.Node, s.Generation); err != nil {
			return nil, nil, final(err)
		}
		c := selfHeld(Claim{V: recordVersion, VolumeUID: s.NewUID, Ref: s.Ref, Since: a.opts.Now()}, n.Node, s)
		ops := append(creation(c), Op{Kind: OpCheck, Key: nodeKey(n.UID), Expect: n.Version})
		return ops, func(e []Entry) { out = ClaimVersion{c, e[0].Version} }, nil
	})
	if errors.Is(err, errKnownNow) {
		return out, err
	}
	return out, fault.Op(err, "claim volume %s", s.Ref)
}

// Rekey passes a claim on within its node: held(e) -> held(e+1), for a mount that came while e was still
// dying and only once e has no users. Conflict when it is revoked or not held so.
func (a *Authority) Rekey(ctx context.Context, r RekeyArgs) (ClaimVersion, error) {
	if r.Nonce == "" || r.Nonce == r.OldNonce || r.Generation == 0 {
		return ClaimVersion{}, fault.New(fault.Invalid, "a re-key needs a new nonce and a lease generation")
	}
	return a.move(ctx, r.VolumeUID, r.Node, func(c Claim, n *NodeVersion) (Claim, bool, error) { return decideRekey(c, n.Node, r) })
}

// Regrade corrects the fence grade in a held claim, by its holder while its lease is alive, to the weaker of the one given and the node record's: the
// watchdog has come back, or has gone for good. Conflict when it is not held so.
func (a *Authority) Regrade(ctx context.Context, r RegradeArgs) (ClaimVersion, error) {
	return a.move(ctx, r.VolumeUID, r.Node, func(c Claim, n *NodeVersion) (Claim, bool, error) { return decideRegrade(c, n.Node, r) })
}

// Release is L3, held(e) -> free(e). The node calls it after the unmount or fence is verified and flushed. Free
// already, or at a higher epoch, is a success.
func (a *Authority) Release(ctx context.Context, uid string, epoch volume.Epoch, node string, generation uint64, nonce string) (ClaimVersion, error) {
	return a.move(ctx, uid, "", func(c Claim, _ *NodeVersion) (Claim, bool, error) {
		return decideRelease(c, epoch, node, generation, nonce)
	})
}

// Cancel is L5, granted(e) -> free(e). Free already, or at a higher epoch, is a success; Conflict when the node has taken it.
func (a *Authority) Cancel(ctx context.Context, uid string, epoch volume.Epoch, nonce string) (ClaimVersion, error) {
	return a.move(ctx, uid, "", func(c Claim, _ *NodeVersion) (Claim, bool, error) { return decideCancel(c, epoch, nonce) })
}

// Revoke is L6: it asks the holder of held(e) to fence and give back. Free already, or at a higher epoch, is a success.
func (a *Authority) Revoke(ctx context.Context, uid string, epoch volume.Epoch) (ClaimVersion, error) {
	return a.move(ctx, uid, "", func(c Claim, _ *NodeVersion) (Claim, bool, error) { return decideRevoke(c, epoch) })
}

// FreeDead follows L4: held(e, node, G) -> free(e), when the node is dead at G and the claim's policy and grade admit it.
// Free already, or at a higher epoch, is a success; Conflict otherwise, with the reason.
func (a *Authority) FreeDead(ctx context.Context, uid string, epoch volume.Epoch, node string, generation uint64) (ClaimVersion, error) {
	return a.move(ctx, uid, node, func(c Claim, n *NodeVersion) (Claim, bool, error) {
		return decideFreeDead(c, n.Node, epoch, node, generation)
	})
}

// Override is L7, an operator's word: a claim becomes free. It is bound to what was shown, and refused (Conflict) when the
// node has renewed since then, unless o.Renewing.
func (a *Authority) Override(ctx context.Context, o OverrideArgs) (ClaimVersion, error) {
	var node string
	if _, err := a.Node(ctx, o.Node); o.Node != "" && !fault.Is(err, fault.NotFound) {
		node = o.Node
	}
	return a.move(ctx, o.VolumeUID, node, func(c Claim, n *NodeVersion) (Claim, bool, error) {
		return decideOverride(c, n, o, a.opts.Now())
	})
}

// Tombstone ends a volume: a free claim becomes a tombstone, which keeps its uid from being used again, and the name is
// free for a new volume. Conflict when it is granted or held.
func (a *Authority) Tombstone(ctx context.Context, uid string) (ClaimVersion, error) {
	var out ClaimVersion
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		cv, err := a.Claim(ctx, uid)
		switch {
		case err != nil:
			return nil, nil, err
		case cv.Tombstone:
			out = cv
			return nil, nil, nil
		case cv.State != Free:
			return nil, nil, final(a.named(ctx, conflict(cv.Claim, "removal")))
		}
		next := cv.Claim
		next.Tombstone, next.Since = true, a.opts.Now()
		ops := []Op{{Kind: OpPut, Key: claimKey(uid), Expect: cv.Version, Value: encode(next)}}
		named, version, err := a.byRef(ctx, cv.Ref)
		switch {
		case err == nil && named.VolumeUID == uid:
			ops = append(ops, Op{Kind: OpDelete, Key: nameKey(cv.Ref), Expect: version})
		case err != nil && !fault.Is(err, fault.NotFound):
			return nil, nil, err
		}
		return ops, func(e []Entry) { out = ClaimVersion{next, e[0].Version} }, nil
	})
	return out, fault.Op(err, "remove the claim of volume %s", uid)
}

// move makes one transition of one claim. When node is given, its record is read, handed to decide, and checked in the
// transaction; a renewal that comes between only costs another try.
func (a *Authority) move(ctx context.Context, uid, node string, decide func(Claim, *NodeVersion) (Claim, bool, error)) (ClaimVersion, error) {
	return a.moveFrom(ctx, nil, uid, node, decide)
}

// moveFrom is move for who may have read the claim just now. A claim that turns out to be older than the register is read again.
func (a *Authority) moveFrom(ctx context.Context, seen *ClaimVersion, uid, node string, decide func(Claim, *NodeVersion) (Claim, bool, error)) (ClaimVersion, error) {
	var out ClaimVersion
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		cv, err := a.seenOrRead(ctx, seen, uid)
		if err != nil {
			return nil, nil, err
		}
		var nv *NodeVersion
		if node != "" {
			n, err := a.Node(ctx, node)
			if err != nil {
				return nil, nil, err
			}
			nv = &n
		}
		out = cv
		fresh := seen == nil
		seen = nil // from now on it is read
		next, write, err := decide(cv.Claim, nv)
		if !fresh && (err != nil || !write) { // only a transaction shows that what was seen still stands
			if out, err = a.Claim(ctx, uid); err != nil {
				return nil, nil, err
			}
			next, write, err = decide(out.Claim, nv)
			cv = out
		}
		if err != nil {
			return nil, nil, final(a.named(ctx, err))
		}
		if !write {
			return nil, nil, nil
		}
		next.Since = a.opts.Now()
		ops := []Op{{Kind: OpPut, Key: claimKey(uid), Expect: cv.Version, Value: encode(next)}}
		if nv != nil {
			ops = append(ops, Op{Kind: OpCheck, Key: nodeKey(node), Expect: nv.Version})
		}
		return ops, func(e []Entry) { out = ClaimVersion{next, e[0].Version} }, nil
	})
	return out, err
}

func (a *Authority) seenOrRead(ctx context.Context, seen *ClaimVersion, uid string) (ClaimVersion, error) {
	if seen != nil && seen.VolumeUID == uid {
		return *seen, nil
	}
	return a.Claim(ctx, uid)
}

// named puts the holder's host name into an error that names a holder.
func (a *Authority) named(ctx context.Context, err error) error {
	var h *HolderError
	if errors.As(err, &h) && h.Claim.Node != "" {
		if n, nodeErr := a.Node(ctx, h.Claim.Node); nodeErr == nil {
			h.Hostname = n.Hostname
		}
	}
	return err
}

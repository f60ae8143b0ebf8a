package lease

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Nodes reads all node records. Where some cannot be read the error is a *BadRecords beside the others.
func (a *Authority) Nodes(ctx context.Context) ([]NodeVersion, error) {
	entries, err := a.list(ctx, PrefixNodes)
	if err != nil {
		return nil, fault.Op(err, "read the nodes")
	}
	return decodeAll(entries, decodeNode)
}

// Node reads one node record. NotFound when there is none.
func (a *Authority) Node(ctx context.Context, uid string) (NodeVersion, error) {
	if err := checkID("node uid", uid); err != nil {
		return NodeVersion{}, err
	}
	e, err := a.get(ctx, nodeKey(uid))
	if err != nil {
		return NodeVersion{}, fault.Op(err, "read the record of node %s", uid)
	}
	return decodeNode(e)
}

// PutNode writes a node's record (registration, renewal, publication) over the version given, 0 for a new one. Only the
// node itself calls it, with a Seq higher than the one that stands. Conflict when another version stands: somebody
// else has written, which for a node means L4, or a second node with its uid.
func (a *Authority) PutNode(ctx context.Context, n Node, expect uint64) (NodeVersion, error) {
	n.V = recordVersion
	if err := checkID("node uid", n.UID); err != nil {
		return NodeVersion{}, err
	}
	out, first := NodeVersion{Node: n}, true
	put := []Op{{Kind: OpPut, Key: nodeKey(n.UID), Expect: expect, Value: encode(n)}}
	written := func(e []Entry) { out.Version = e[0].Version }
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		if first { // a renewal is one write; it is looked at only when that fails
			first = false
			return put, written, nil
		}
		now, err := a.Node(ctx, n.UID)
		switch {
		case fault.Is(err, fault.NotFound): // Version 0
		case err != nil:
			return nil, nil, err
		case now.Version != expect && sameRenewal(now.Node, n):
			out.Version = now.Version
			return nil, nil, nil
		}
		if now.Version != expect {
			return nil, nil, final(fault.New(fault.Conflict, "the record of node %s was written by somebody else: %s", n.UID, now.describe()))
		}
		return put, written, nil
	})
	if err != nil {
		return NodeVersion{}, fault.Op(err, "write the record of node %s", n.UID)
	}
	return out, nil
}

func sameRenewal(a, b Node) bool {
	return a.Generation == b.Generation && a.Seq == b.Seq && a.BootID == b.BootID && a.Alive == b.Alive && a.RenewedAt.Equal(b.RenewedAt)
}

func (n NodeVersion) describe() string {
	switch {
	case n.Version == 0:
		return "it is gone"
	case !n.Alive:
		return "declared dead by " + n.DeadBy
	}
	return "boot " + n.BootID + " renews it"
}

// KillNode is L4: the lease of a node has run out. It is a compare-and-set at exactly the version that the taker saw standing
// still, so that a renewal that came between makes it fail (Conflict). Dead already at that generation is a success.
func (a *Authority) KillNode(ctx context.Context, nv NodeVersion, by string) error {
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		now, err := a.Node(ctx, nv.UID)
		switch {
		case err != nil:
			return nil, nil, err
		case now.Generation == nv.Generation && !now.Alive:
			return nil, nil, nil
		case now.Version != nv.Version:
			return nil, nil, final(fault.New(fault.Conflict, "node %s has renewed its lease", nv.UID))
		}
		next, at := now.Node, a.opts.Now()
		next.Alive, next.DeadAt, next.DeadBy = false, &at, by
		return []Op{{Kind: OpPut, Key: nodeKey(nv.UID), Expect: nv.Version, Value: encode(next)}}, nil, nil
	})
	return fault.Op(err, "declare node %s dead", nv.UID)
}

// Condemn is an operator's word on a whole node: its lease of a generation is over, whatever it does. It is bound to the version that was shown, and
// refused (Conflict) when the node has renewed since, unless renewing says that the operator was told and insists. A node that lives finds
// its lease gone at its next renewal and fences itself. Dead already at that generation is a success.
func (a *Authority) Condemn(ctx context.Context, uid string, generation, version uint64, renewing bool, by string) error {
	for {
		now, err := a.Node(ctx, uid)
		switch {
		case err != nil:
			return err
		case now.Generation != generation:
			return fault.New(fault.Conflict, "node %s is at generation %d of its lease by now, not %d: it has started over, and holds nothing of generation %d", uid, now.Generation, generation, generation)
		case !renewing:
			now.Version = version
			return a.KillNode(ctx, now, by)
		}
		// A renewal that comes between is only a reason to look again.
		if err := a.KillNode(ctx, now, by); !fault.Is(err, fault.Conflict) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Unknown, err, "declare node %s dead", uid)
		}
	}
}

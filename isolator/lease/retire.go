package lease

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// RetireNode marks the record of a node that is dead, and holds nothing, as forgotten. Nothing about claims follows from it. It is refused
// (Conflict) while the node lives, has begun another generation than the one given, or holds a claim. Retired already is a success.
func (a *Authority) RetireNode(ctx context.Context, uid string, generation uint64, by string) error {
	err := a.transact(ctx, func(ctx context.Context) ([]Op, func([]Entry), error) {
		now, err := a.Node(ctx, uid)
		switch {
		case err != nil:
			return nil, nil, err
		case now.Generation != generation:
			return nil, nil, final(fault.New(fault.Conflict, "node %s is at generation %d, not %d: it was started again", uid, now.Generation, generation))
		case now.Alive:
			return nil, nil, final(fault.New(fault.Conflict, "node %s lives: %s", uid, now.describe()))
		case now.RetiredAt != nil:
			return nil, nil, nil
		}
		// A dead node takes no claim, so that what is read here can only become less.
		claims, err := a.Claims(ctx)
		if _, err = OnlyBadRecords(err); err != nil {
			return nil, nil, err
		}
		for _, c := range claims {
			if c.Node == uid && c.State == Held {
				return nil, nil, final(fault.New(fault.Conflict, "node %s holds volume %s at epoch %d", uid, c.Ref, c.Epoch))
			}
		}
		next, at := now.Node, a.opts.Now()
		next.RetiredAt, next.RetiredBy = &at, by
		return []Op{{Kind: OpPut, Key: nodeKey(uid), Expect: now.Version, Value: encode(next)}}, nil, nil
	})
	return fault.Op(err, "retire node %s", uid)
}

package registers

import (
	"context"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Commit implements store.Backend. After an error that is neither Invalid nor of a wrong term, Lead comes first.
func (b *Backend) Commit(ctx context.Context, cluster string, term store.Term, ops []store.Op) error {
	if err := store.CheckBatch(cluster, b.Limits(), ops); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "commit")
	}
	s, err := b.seat(cluster)
	if err != nil {
		return err
	}
	s.commits.Lock()
	defer s.commits.Unlock()
	if b.isClosed() {
		return errClosed
	}
	s.mu.Lock()
	mine, now := s.mine, s.rec
	s.mu.Unlock()
	switch {
	case term == 0 || store.Term(now.Rev) != term:
		return store.DeposedError(term, store.Term(now.Rev), now.Holder)
	case !mine:
		return fault.New(fault.Conflict, "term %d is over: this process does not lead any more", term)
	case s.broken:
		return fault.New(fault.Unavailable, "an earlier commit failed: what became of it is not known yet")
	}
	if s.known == nil {
		if _, err := s.fill(ctx); err != nil {
			s.broken = true
			return err
		}
	}
	if err := s.commit(ctx, ops); err != nil {
		s.broken, s.known = true, nil
		return err
	}
	return nil
}

// commit does ops in one transaction, or by way of the journal.
func (s *seat) commit(ctx context.Context, ops []store.Op) error {
	if !fits(ops) {
		return s.commitLarge(ctx, ops)
	}
	return s.put(ctx, ops, func(r *record) { r.Count++ })
}

// fits tells whether ops are within one transaction.
func fits(ops []store.Op) bool {
	size := 0
	for _, op := range ops {
		size += len(op.Key) + len(op.Value)
	}
	return len(ops) <= maxSingle.Writes && size <= maxSingle.Bytes
}

// put does one transaction of ops that fit. commits is held.
func (s *seat) put(ctx context.Context, ops []store.Op, change func(*record)) error {
	var keys []string
	var send []lease.Op
	for _, op := range ops {
		o := lease.Op{Kind: lease.OpPut, Key: registerKey(s.cluster, op.Key), Expect: s.known[op.Key]}
		if op.Value == nil {
			if o.Expect == 0 {
				continue // not there
			}
			o.Kind = lease.OpDelete
		} else {
			o.Value = pack(op.Key, op.Value)
		}
		keys, send = append(keys, op.Key), append(send, o)
	}
	entries, err := s.write(ctx, change, send)
	if err != nil {
		return err
	}
	if s.alive.Load() != 0 { // a large commit takes its time
		s.b.Alive(s.cluster)
	}
	for i, e := range entries {
		if e.Version == 0 {
			delete(s.known, keys[i])
			continue
		}
		s.known[keys[i]] = e.Version
	}
	return nil
}

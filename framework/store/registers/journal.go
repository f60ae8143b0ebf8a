package registers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// journal names a commit that is larger than one transaction.
type journal struct {
	Name   string `json:"name"`   // below journal/<cluster>/
	Pieces int    `json:"pieces"` // registers <name>/00000 and so on
	SHA256 string `json:"sha256"` // of them all, in order
}

// pieceSize is what one journal register holds.
const pieceSize = 240 << 10

func (j *journal) key(cluster string, i int) string {
	return fmt.Sprintf("%s%s/%05d", journalPrefix(cluster), j.Name, i)
}

// commitLarge writes the journal, commits by naming it, and carries it out.
func (s *seat) commitLarge(ctx context.Context, ops []store.Op) error {
	raw := encodeOps(ops)
	sum := sha256.Sum256(raw)
	s.mu.Lock()
	j := &journal{Name: fmt.Sprintf("%d-%d", s.rec.Rev, s.rec.Count+1), SHA256: hex.EncodeToString(sum[:])}
	s.mu.Unlock()
	var pieces []lease.Op // to be deleted in the end
	for ; len(raw) > 0; j.Pieces++ {
		piece := raw[:min(len(raw), pieceSize)]
		raw = raw[len(piece):]
		key := j.key(s.cluster, j.Pieces)
		entries, err := s.write(ctx, func(*record) {}, []lease.Op{{Kind: lease.OpPut, Key: key, Value: piece}})
		if err != nil {
			if fault.Is(err, fault.Unknown) {
				err = fault.Wrap(fault.Unavailable, err, "a piece of the journal; nothing was committed")
			}
			return err
		}
		pieces = append(pieces, lease.Op{Kind: lease.OpDelete, Key: key, Expect: entries[0].Version})
	}
	if _, err := s.write(ctx, func(r *record) { r.Count++; r.Journal = j }, nil); err != nil {
		return err
	}
	if err := s.carryOut(ctx, ops); err != nil {
		return fault.Wrap(fault.Unknown, err, "committed, and to be finished by who leads next")
	}
	s.sweep(ctx, pieces)
	return nil
}

// carryOut does the ops of the journal that the leader register names, and takes the name out with the last of them.
func (s *seat) carryOut(ctx context.Context, ops []store.Op) error {
	for len(ops) > 0 {
		n := 1
		for n < len(ops) && fits(ops[:n+1]) {
			n++
		}
		change := func(*record) {}
		if n == len(ops) {
			change = func(r *record) { r.Journal = nil }
		}
		if err := s.put(ctx, ops[:n], change); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// redo carries out the journal that an earlier term left, and removes pieces that nobody named. commits is held, and this process leads.
func (s *seat) redo(ctx context.Context) error {
	s.mu.Lock()
	j := s.rec.Journal
	s.mu.Unlock()
	if j != nil {
		ops, err := s.b.readJournal(ctx, s.cluster, j)
		if err != nil {
			if fault.Is(err, fault.NotFound) {
				err = fault.Wrap(fault.Internal, err, "a piece of the journal is missing")
			}
			return err
		}
		if err := s.versions(ctx); err != nil {
			return err
		}
		err = s.carryOut(ctx, ops)
		s.known = nil
		if err != nil {
			return err
		}
	}
	left, err := s.b.r.List(ctx, journalPrefix(s.cluster))
	if err != nil {
		return err
	}
	var drop []lease.Op
	for _, e := range left {
		drop = append(drop, lease.Op{Kind: lease.OpDelete, Key: e.Key, Expect: e.Version})
	}
	s.sweep(ctx, drop)
	return nil
}

// versions reads those of all records, without laying the journal over them.
func (s *seat) versions(ctx context.Context) error {
	entries, err := s.b.r.List(ctx, statePrefix(s.cluster))
	if err != nil {
		return err
	}
	s.known = make(map[string]uint64, len(entries))
	for _, e := range entries {
		if key, _, ok := unpack(s.cluster, e.Key, e.Value); ok {
			s.known[key] = e.Version
		}
	}
	return nil
}

// sweep deletes pieces. What it leaves, the next Lead finds.
func (s *seat) sweep(ctx context.Context, drop []lease.Op) {
	for len(drop) > 0 {
		n := min(len(drop), maxSingle.Writes)
		if _, err := s.write(ctx, func(*record) {}, drop[:n]); err != nil {
			return
		}
		drop = drop[n:]
	}
}

// readJournal reads the ops of a journal. NotFound when a piece is not there (any more).
func (b *Backend) readJournal(ctx context.Context, cluster string, j *journal) ([]store.Op, error) {
	var raw []byte
	for i := range j.Pieces {
		e, err := b.r.Get(ctx, j.key(cluster, i))
		if err != nil {
			return nil, err
		}
		raw = append(raw, e.Value...)
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != j.SHA256 {
		return nil, fault.New(fault.Internal, "journal %s%s is damaged", journalPrefix(cluster), j.Name)
	}
	ops, err := decodeOps(raw)
	return ops, fault.Wrap(fault.Internal, err, "journal %s%s", journalPrefix(cluster), j.Name)
}

// encodeOps writes ops one after the other: length of the key, key, length of the value and one (0: removed), value.
func encodeOps(ops []store.Op) []byte {
	var out []byte
	for _, op := range ops {
		out = binary.AppendUvarint(out, uint64(len(op.Key)))
		out = append(out, op.Key...)
		if op.Value == nil {
			out = append(out, 0)
			continue
		}
		out = binary.AppendUvarint(out, uint64(len(op.Value))+1)
		out = append(out, op.Value...)
	}
	return out
}

func decodeOps(raw []byte) ([]store.Op, error) {
	r := bytes.NewReader(raw)
	take := func(n uint64) ([]byte, error) {
		if n > uint64(r.Len()) {
			return nil, fmt.Errorf("%d bytes of %d are missing", n, r.Len())
		}
		b := make([]byte, n)
		_, err := r.Read(b)
		if n == 0 {
			err = nil
		}
		return b, err
	}
	var ops []store.Op
	for r.Len() > 0 {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		key, err := take(n)
		if err != nil {
			return nil, err
		}
		op := store.Op{Key: string(key)}
		if n, err = binary.ReadUvarint(r); err != nil {
			return nil, err
		}
		if n > 0 {
			if op.Value, err = take(n - 1); err != nil {
				return nil, err
			}
		}
		ops = append(ops, op)
	}
	return ops, nil
}

package registers

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// stored is one record as read.
type stored struct {
	key     string
	value   []byte
	version uint64 // 0: from a journal, not in a register of its own yet
}

// Load implements store.Backend. What it gives is the state after some commit, never in the middle of one: the count in the
// leader register was the same before and after the reading.
func (b *Backend) Load(ctx context.Context, cluster string, f func(string, []byte) error) error {
	s, err := b.seat(cluster)
	if err != nil {
		return err
	}
	records, err := s.snapshot(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := f(r.key, r.value); err != nil {
			return err
		}
	}
	return nil
}

// snapshot reads for the leader under the lock that keeps its commits away, and otherwise until no commit came between.
func (s *seat) snapshot(ctx context.Context) ([]stored, error) {
	s.commits.Lock()
	s.mu.Lock()
	mine := s.mine
	s.mu.Unlock()
	if mine && !s.broken {
		defer s.commits.Unlock()
		return s.fill(ctx)
	}
	s.commits.Unlock()
	const rounds = 20
	for round := range rounds {
		records, _, same, err := s.b.scan(ctx, s.cluster)
		if err != nil || same {
			return records, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "load")
		case <-time.After(time.Duration(round+1) * 10 * time.Millisecond):
		}
	}
	return nil, fault.New(fault.Unavailable, "the state changes faster than it can be read")
}

// fill reads everything for the leader, and the versions with it. commits is held.
func (s *seat) fill(ctx context.Context) ([]stored, error) {
	records, now, same, err := s.b.scan(ctx, s.cluster)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	ours := same && s.mine && now.Nonce == s.rec.Nonce && now.Count == s.rec.Count
	s.mu.Unlock()
	if !ours {
		s.broken = true
		return nil, fault.New(fault.Unavailable, "another has committed: %s leads in term %d", now.Holder, now.Rev)
	}
	s.known = make(map[string]uint64, len(records))
	for _, r := range records {
		s.known[r.key] = r.version
	}
	return records, nil
}

// scan reads all records once. same tells that no commit came between its first and last read.
func (b *Backend) scan(ctx context.Context, cluster string) (records []stored, before record, same bool, err error) {
	before, _, err = b.readLeader(ctx, cluster)
	if err != nil {
		return nil, before, false, err
	}
	var over []store.Op
	if before.Journal != nil {
		if over, err = b.readJournal(ctx, cluster, before.Journal); err != nil && !fault.Is(err, fault.NotFound) {
			return nil, before, false, err
		}
		if err != nil { // carried out meanwhile
			return nil, before, false, nil
		}
	}
	entries, err := b.r.List(ctx, statePrefix(cluster))
	if err != nil {
		return nil, before, false, err
	}
	after, _, err := b.readLeader(ctx, cluster)
	if err != nil {
		return nil, before, false, err
	}
	records = make([]stored, 0, len(entries))
	for _, e := range entries {
		key, value, ok := unpack(cluster, e.Key, e.Value)
		if !ok { // named to who loads, as a record that cannot be read
			key, value = store.Prefix(cluster)+"damaged/"+strings.TrimPrefix(e.Key, statePrefix(cluster)), []byte("x")
		}
		records = append(records, stored{key, value, e.Version})
	}
	records = overlay(records, over)
	slices.SortFunc(records, func(a, b stored) int { return strings.Compare(a.key, b.key) })
	return records, before, before.Nonce == after.Nonce && before.Count == after.Count, nil
}

// overlay does ops to records.
func overlay(records []stored, ops []store.Op) []stored {
	if len(ops) == 0 {
		return records
	}
	at := make(map[string]int, len(records))
	for i, r := range records {
		at[r.key] = i
	}
	gone := map[int]bool{}
	for _, op := range ops {
		i, there := at[op.Key]
		switch {
		case op.Value == nil && there:
			gone[i] = true
		case op.Value != nil && there:
			records[i].value = op.Value
		case op.Value != nil:
			records = append(records, stored{key: op.Key, value: op.Value})
		}
	}
	out := records[:0]
	for i, r := range records {
		if !gone[i] {
			out = append(out, r)
		}
	}
	return out
}

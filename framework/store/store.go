package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Bad is a record that this program cannot read. It is left untouched, and nothing is written over it.
type Bad struct {
	Key string // whole key
	Err error
}

func (b Bad) String() string { return b.Key + ": " + b.Err.Error() }

// Store is the state of one cluster in a Backend. Commit and Load are for one goroutine at a time; the rest is safe anywhere.
type Store struct {
	back    Backend
	cluster string
	who     string

	mu      sync.Mutex
	term    Term
	bad     map[string]error // by key below the prefix
	deposed func()
}

// ErrNotLeader is in the errors of Lead and Commit that say that another leads.
var ErrNotLeader = errors.New("this process does not lead")

// Open picks the cluster and returns a Store that is not leader yet. want "" takes the only cluster that is there, or mints
// a new UUID when there is none; otherwise a back end that already holds others is refused, because two clusters in one
// state directory are a mistake.
func Open(ctx context.Context, back Backend, want, who string) (*Store, error) {
	if want != "" {
		if err := CheckCluster(want); err != nil {
			return nil, err
		}
	}
	have, err := back.Clusters(ctx)
	if err != nil {
		return nil, fault.Op(err, "look for clusters in %s", back.Name())
	}
	switch {
	case want == "" && len(have) == 0:
		want = uuid.NewString()
	case want == "" && len(have) == 1:
		want = have[0]
	case want == "":
		return nil, fault.New(fault.Invalid, "%s holds several clusters (%s): say which one with --cluster", back.Name(), strings.Join(have, ", "))
	}
	for _, c := range have {
		if c == want {
			have = nil
		}
	}
	if len(have) > 0 {
		return nil, fault.New(fault.Conflict, "%s belongs to cluster %s, not to %s", back.Name(), strings.Join(have, ", "), want)
	}
	return &Store{back: back, cluster: want, who: who}, nil
}

// Cluster is the UUID of the cluster.
func (s *Store) Cluster() string { return s.cluster }

// Name tells people what and where the back end is.
func (s *Store) Name() string { return s.back.Name() }

// Limits of one Commit.
func (s *Store) Limits() Limits { return s.back.Limits() }

// Term is the time of leadership that commits carry.
func (s *Store) Term() Term {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term
}

// Lead takes leadership; commits from now on carry its term. It is called at the start and after every failed commit, before Load.
func (s *Store) Lead(ctx context.Context) error {
	term, err := s.back.Lead(ctx, s.cluster, s.who)
	if err != nil {
		return fault.Op(notLeader(err), "take leadership in %s", s.back.Name())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term = term
	if d, ok := s.back.(interface {
		Deposed(cluster string) <-chan struct{}
	}); ok && s.deposed != nil {
		over, tell := d.Deposed(s.cluster), s.deposed
		go func() { <-over; tell() }()
	}
	return nil
}

// WhenDeposed has f called once the time of leadership that the next Lead begins is found to be over, where the back end notices by itself; it
// may also be called when that time ended in another way. Otherwise the next Commit shows it.
func (s *Store) WhenDeposed(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deposed = f
}

// Alive is the sign of life of the loop that leads: where several processes share the back end, one whose loop hangs loses the leadership.
func (s *Store) Alive() {
	if a, ok := s.back.(interface{ Alive(cluster string) }); ok {
		a.Alive(s.cluster)
	}
}

// Confirm makes sure that this process still leads, for who is about to act outside the store. An error, of which one that says that another leads is ErrNotLeader,
// means that nothing may be done. Always nil where the back end is one process's alone.
func (s *Store) Confirm(ctx context.Context) error {
	c, ok := s.back.(interface {
		Confirm(ctx context.Context, cluster string) error
	})
	if !ok {
		return nil
	}
	return fault.Op(notLeader(c.Confirm(ctx, s.cluster)), "confirm the leadership")
}

// Resign gives the leadership up where the back end can, so that others need not wait. Lead takes it again.
func (s *Store) Resign() {
	if r, ok := s.back.(interface{ Resign(cluster string) }); ok {
		r.Resign(s.cluster)
	}
}

func notLeader(err error) error {
	if fault.Is(err, fault.Conflict) {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return err
}

// Load reads every record as a Write. Those that cannot be read are returned by name; the others stand. A framework record that
// cannot be read is an error of the whole: without it the framework would register as a new one.
func (s *Store) Load(ctx context.Context) ([]state.Write, []Bad, error) {
	var writes []state.Write
	var bad []Bad
	badKeys := make(map[string]error)
	prefix := Prefix(s.cluster)
	err := s.back.Load(ctx, s.cluster, func(key string, value []byte) error {
		rel := strings.TrimPrefix(key, prefix)
		w, err := decode(rel, value)
		switch {
		case err == nil:
			writes = append(writes, w)
		case errors.As(err, new(*Moved)):
			return fault.Wrap(fault.Conflict, err, "cluster %s", s.cluster)
		case rel == "meta/framework":
			return fault.Wrap(fault.Internal, err, "read record %s", key)
		default:
			bad = append(bad, Bad{Key: key, Err: err})
			badKeys[rel] = err
		}
		return nil
	})
	if err != nil {
		return nil, nil, fault.Op(err, "load state from %s", s.back.Name())
	}
	for _, w := range writes {
		if f, ok := w.Value.(*state.Framework); ok && f.Cluster != "" && f.Cluster != s.cluster {
			return nil, nil, fault.New(fault.Internal, "record %smeta/framework names cluster %.80q", prefix, f.Cluster)
		}
	}
	s.mu.Lock()
	s.bad = badKeys
	s.mu.Unlock()
	return writes, bad, nil
}

// Unreadable tells why the record of a kind and id cannot be read, nil when it can or is not there.
func (s *Store) Unreadable(kind state.Kind, id string) error {
	if !kind.Durable() {
		return nil
	}
	key, err := keyOf(kind, id)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bad[key]
}

// Encode makes the ops of the durable ones of writes, in order. An error means that the writes can never be committed:
// Internal or Invalid for what is no record, Conflict for one whose place holds an unreadable record. The record of a hold may be replaced: until
// then the cluster is frozen, and a person's thaw is the only way on.
func (s *Store) Encode(writes []state.Write) ([]Op, error) {
	var ops []Op
	for _, w := range writes {
		if !w.Kind.Durable() {
			continue
		}
		rel, err := keyOf(w.Kind, w.ID)
		if err != nil {
			return nil, err
		}
		if why := s.Unreadable(w.Kind, w.ID); why != nil && w.Kind != state.KindHold {
			return nil, fault.New(fault.Conflict, "write %s %q: the record that is there cannot be read and is kept: %v", w.Kind, w.ID, why)
		}
		op := Op{Key: Prefix(s.cluster) + rel}
		if w.Value != nil {
			if op.Value, err = encode(w); err != nil {
				return nil, err
			}
		}
		if err := CheckKey(s.cluster, op.Key); err != nil {
			return nil, fault.Op(err, "write %s %.200q", w.Kind, w.ID)
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// Batch is a set of ops to be committed together, later ones replacing earlier ones of the same record. The zero value is empty.
type Batch struct {
	ops   []Op
	index map[string]int
	bytes int
}

// Writes is how many records the batch touches.
func (b *Batch) Writes() int { return len(b.ops) }

// Bytes is the size of its keys and values.
func (b *Batch) Bytes() int { return b.bytes }

// Room tells whether ops can be added within l. It counts records that are in the batch already a second time: it may
// say no too early, never yes too late.
func (b *Batch) Room(ops []Op, l Limits) bool {
	size := b.bytes
	for _, op := range ops {
		size += len(op.Key) + len(op.Value)
	}
	return len(b.ops)+len(ops) <= l.Writes && size <= l.Bytes
}

// Add puts ops into the batch.
func (b *Batch) Add(ops []Op) {
	if b.index == nil {
		b.index = make(map[string]int)
	}
	for _, op := range ops {
		if i, ok := b.index[op.Key]; ok {
			b.bytes += len(op.Value) - len(b.ops[i].Value)
			b.ops[i] = op
			continue
		}
		b.index[op.Key] = len(b.ops)
		b.ops = append(b.ops, op)
		b.bytes += len(op.Key) + len(op.Value)
	}
}

// Reset empties the batch.
func (b *Batch) Reset() {
	clear(b.ops)
	clear(b.index)
	b.ops, b.bytes = b.ops[:0], 0
}

// Commit makes a batch durable, whole or not at all. An empty batch is done at once. After an error nothing may be
// assumed: Lead and Load tell what is there.
func (s *Store) Commit(ctx context.Context, b *Batch) error {
	if len(b.ops) == 0 {
		return nil
	}
	return fault.Op(notLeader(s.back.Commit(ctx, s.cluster, s.Term(), b.ops)), "commit %d records", len(b.ops))
}

// Close closes the back end.
func (s *Store) Close() error { return s.back.Close() }

// CheckBatch is what every Backend asks before a Commit: the limits, and keys that may be written.
func CheckBatch(cluster string, l Limits, ops []Op) error {
	if len(ops) > l.Writes {
		return fault.New(fault.Invalid, "a batch of %d writes is larger than %d", len(ops), l.Writes)
	}
	size := 0
	seen := make(map[string]struct{}, len(ops))
	for _, op := range ops {
		if err := CheckKey(cluster, op.Key); err != nil {
			return err
		}
		if _, twice := seen[op.Key]; twice {
			return fault.New(fault.Invalid, "key %s appears twice in a batch", op.Key)
		}
		seen[op.Key] = struct{}{}
		size += len(op.Key) + len(op.Value)
	}
	if size > l.Bytes {
		return fault.New(fault.Invalid, "a batch of %d bytes is larger than %d", size, l.Bytes)
	}
	return nil
}

// DeposedError is what a commit of a term that is over gets.
func DeposedError(mine, now Term, holder string) error {
	return fault.New(fault.Conflict, "term %d is over: %s leads in term %d", mine, holder, now)
}

// Leader is the record at LeaderKey.
type Leader struct {
	V      int    `json:"v"`
	Kind   string `json:"kind"` // "leader"
	Rev    uint64 `json:"rev"`  // the term
	Holder string `json:"holder"`
}

func (l Leader) String() string { return fmt.Sprintf("%s (term %d)", l.Holder, l.Rev) }

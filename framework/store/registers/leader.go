package registers

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// record is the leader register's value.
type record struct {
	V        int    `json:"v"`
	Kind     string `json:"kind"` // "leader"
	Rev      uint64 `json:"rev"`  // the term
	Holder   string `json:"holder"`
	URL      string `json:"url,omitempty"`
	ID       string `json:"id"`    // of the process
	Nonce    string `json:"nonce"` // of the Lead that wrote it first
	Count    uint64 `json:"count"` // of commits and Leads: what readers compare
	Beat     uint64 `json:"beat"`  // of renewals
	Resigned bool   `json:"resigned,omitempty"`
	// Journal is a commit that is done, and whose records may not be there yet.
	Journal *journal `json:"journal,omitempty"`
}

// Leader is who leads, for people and proxies.
type Leader struct {
	Holder string
	URL    string
	Term   store.Term
	// Resigned says that nobody leads: this is who did last.
	Resigned bool
}

// seat is what this process knows of one cluster's leadership.
type seat struct {
	b       *Backend
	cluster string

	// commits is held by Lead, Commit and the leader's Load, always before mu.
	commits sync.Mutex
	// broken and known are guarded by commits.
	broken bool
	known  map[string]uint64 // version of each record's register by store key; nil: not read yet

	alive atomic.Int64 // when the loop last gave a sign of life: time since Backend.began and one; 0: not in this term
	sure  atomic.Int64 // written in the same form, for who does not wait for mu; 0: does not lead, or not known

	// mu guards what follows, also while it is written to the server.
	mu      sync.Mutex
	mine    bool
	unsure  bool // the version may have moved by a renewal of ours that had no answer
	rec     record
	version uint64
	written time.Time // when the last write that was done was sent
	lost    chan struct{}
	seen    observation
}

// observation is how long a register has stood still.
type observation struct {
	version     uint64
	since, last time.Time
}

// still notes a look at the register and tells for how long it has not moved. A gap between two looks begins the count anew: who
// did not look for a while (a server that was away, a process that was stopped) has seen nothing.
func (o *observation) still(version uint64, now time.Time, gap time.Duration) time.Duration {
	if o.version != version || now.Sub(o.last) > gap {
		*o = observation{version: version, since: now}
	}
	o.last = now
	return now.Sub(o.since)
}

// readLeader gives the leader register; version 0 when nobody has ever led.
func (b *Backend) readLeader(ctx context.Context, cluster string) (record, uint64, error) {
	var r record
	e, err := b.r.Get(ctx, leaderKey(cluster))
	switch {
	case fault.Is(err, fault.NotFound):
		return r, 0, nil
	case err != nil:
		return r, 0, err
	}
	if err := json.Unmarshal(e.Value, &r); err != nil || r.V != store.Version || r.Kind != "leader" {
		return r, 0, fault.New(fault.Internal, "register %s cannot be read: it is not a leader record of version %d", e.Key, store.Version)
	}
	return r, e.Version, nil
}

// Leader tells who leads a cluster now. NotFound when nobody ever did.
func (b *Backend) Leader(ctx context.Context, cluster string) (Leader, error) {
	if b.isClosed() {
		return Leader{}, errClosed
	}
	r, version, err := b.readLeader(ctx, cluster)
	if err == nil && version == 0 {
		err = fault.New(fault.NotFound, "nobody has led cluster %s", cluster)
	}
	return Leader{Holder: r.Holder, URL: r.URL, Term: store.Term(r.Rev), Resigned: r.Resigned}, err
}

// Deposed is closed once this process is found not to lead any more what it led. Ask after Lead.
func (b *Backend) Deposed(cluster string) <-chan struct{} {
	s, err := b.seat(cluster)
	if err != nil {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Lead implements store.Backend. While another leads it answers Conflict; it is called again and again by who wants to take over, at
// least every quarter of Options.Takeover, and each call is one look.
func (b *Backend) Lead(ctx context.Context, cluster, who string) (store.Term, error) {
	s, err := b.seat(cluster)
	if err != nil {
		return 0, err
	}
	s.commits.Lock()
	defer s.commits.Unlock()
	if b.isClosed() {
		return 0, errClosed
	}
	s.known = nil
	term, err := s.take(ctx, who)
	if err != nil {
		return 0, err
	}
	s.broken = true // until what an earlier leader left behind is done
	if err := s.redo(ctx); err != nil {
		return 0, fault.Op(err, "carry out what the leader before had committed")
	}
	s.broken = false
	return term, nil
}

// take makes the leader register ours.
func (s *seat) take(ctx context.Context, who string) (store.Term, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := nonce()
	for range 5 {
		old, version, err := s.b.readLeader(ctx, s.cluster)
		if err != nil {
			s.seen = observation{}
			return 0, err
		}
		if version != 0 && old.Nonce == fresh { // an attempt without an answer was done
			return s.taken(old, version, time.Time{}), nil
		}
		still := s.seen.still(version, s.b.o.Now(), s.b.o.Takeover/2)
		if version != 0 && old.ID != s.b.id && !old.Resigned && still < s.b.o.Takeover {
			s.drop()
			return 0, fault.New(fault.Conflict, "%s leads in term %d", old.Holder, old.Rev)
		}
		next := record{V: store.Version, Kind: "leader", Rev: old.Rev + 1, Holder: who, URL: s.b.o.URL, ID: s.b.id, Nonce: fresh,
			Count: old.Count + 1, Journal: old.Journal}
		sent := s.b.o.Now()
		entries, err := s.b.r.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: leaderKey(s.cluster), Expect: version, Value: next.encode()})
		switch {
		case err == nil:
			return s.taken(next, entries[0].Version, sent), nil
		case !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unknown):
			return 0, err
		}
	}
	return 0, fault.New(fault.Unavailable, "the leader register of cluster %s moves too fast to be taken", s.cluster)
}

func (s *seat) taken(r record, version uint64, sent time.Time) store.Term {
	s.drop()
	s.alive.Store(0)
	s.mine, s.unsure, s.rec, s.version, s.lost = true, false, r, version, make(chan struct{})
	s.wrote(sent)
	return store.Term(r.Rev)
}

// drop notes that this process does not lead; mu is held.
func (s *seat) drop() {
	if s.mine {
		close(s.lost)
	}
	s.mine = false
	s.sure.Store(0)
}

func (r record) encode() []byte {
	raw, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain fields only
	}
	return raw
}

// write does one transaction: the leader register, changed as asked, and ops. Errors: Conflict when another leads; Unavailable
// when nothing was done, also when a record is not as known; Unknown.
func (s *seat) write(ctx context.Context, change func(*record), ops []lease.Op) ([]lease.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 5 {
		if !s.mine {
			return nil, store.DeposedError(store.Term(s.rec.Rev), store.Term(s.rec.Rev), "another, or nobody,")
		}
		next := s.rec
		change(&next)
		all := append([]lease.Op{{Kind: lease.OpPut, Key: leaderKey(s.cluster), Expect: s.version, Value: next.encode()}}, ops...)
		sent := s.b.o.Now()
		entries, err := s.b.r.Txn(ctx, all...)
		if err == nil {
			s.rec, s.version, s.unsure = next, entries[0].Version, false
			s.wrote(sent)
			return entries[1:], nil
		}
		if !fault.Is(err, fault.Conflict) {
			s.unsure = s.unsure || fault.Is(err, fault.Unknown)
			return nil, err
		}
		if err := s.look(ctx, err); err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Unavailable, "the leader register of cluster %s moves too fast to be written", s.cluster)
}

// look finds out why a transaction was refused; nil: by a renewal of our own without an answer, whose version is known now.
func (s *seat) look(ctx context.Context, why error) error {
	now, version, err := s.b.readLeader(ctx, s.cluster)
	if err != nil {
		return err
	}
	switch {
	case now.Nonce != s.rec.Nonce:
		mine := s.rec.Rev
		s.drop()
		s.b.o.Log.Warn("another leads now", zap.String("cluster", s.cluster), zap.String("holder", now.Holder), zap.Uint64("term", now.Rev))
		return store.DeposedError(store.Term(mine), store.Term(now.Rev), now.Holder)
	case version == s.version || now.Count != s.rec.Count:
		return fault.Wrap(fault.Unavailable, why, "the records are not as the leader knows them")
	}
	s.rec, s.version, s.unsure = now, version, false
	return nil
}

// renew touches the register unless a commit just did. Errors show at the next commit; a deposition shows now.
func (s *seat) renew(ctx context.Context, every time.Duration) {
	s.mu.Lock()
	skip := !s.mine || (!s.unsure && s.b.o.Now().Sub(s.written) < every/2)
	s.mu.Unlock()
	if skip {
		return
	}
	if silent := s.hangs(); silent > 0 {
		s.giveUp(silent)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, every)
	defer cancel()
	if _, err := s.write(ctx, func(r *record) { r.Beat++ }, nil); err != nil && ctx.Err() == nil {
		s.b.o.Log.Warn("leadership not renewed", zap.String("cluster", s.cluster), zap.Error(err))
	}
}

// resign gives the leadership up, so that others need not wait.
func (s *seat) resign(limit time.Duration) {
	s.commits.Lock()
	defer s.commits.Unlock()
	s.mu.Lock()
	mine := s.mine
	s.mu.Unlock()
	if !mine {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := s.write(ctx, func(r *record) { r.Resigned = true }, nil); err != nil {
		s.b.o.Log.Warn("not resigned: another leads after a pause only", zap.String("cluster", s.cluster), zap.Error(err))
	}
	s.mu.Lock()
	s.drop()
	s.mu.Unlock()
}

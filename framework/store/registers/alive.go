package registers

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Alive is the sign of life of the loop that leads a cluster. From the first one after a Lead on, the leadership is renewed only while they come: a leader whose
// loop hangs for longer than Options.Hang gives it up, although the goroutine that renews is well.
func (b *Backend) Alive(cluster string) {
	s, err := b.seat(cluster)
	if err != nil {
		return
	}
	s.alive.Store(int64(b.o.Now().Sub(b.began)) + 1)
}

// hangs tells for how long the loop has given no sign of life; 0 when it does, or when it never gave one in this term.
func (s *seat) hangs() time.Duration {
	at := s.alive.Load()
	if at == 0 {
		return 0
	}
	if silent := s.b.o.Now().Sub(s.b.began) - time.Duration(at-1); silent > s.b.o.Hang {
		return silent
	}
	return 0
}

// Confirm makes sure that this process still leads a cluster, for who is about to act outside the store on what was committed. nil is certain up to the difference
// of two machines' clock rates: the last write was sent less than half of Options.Takeover ago, and nobody takes over sooner than a whole one
// after it. Otherwise, as after a pause of the process, the register is written now. Conflict when another leads; any other error says that it
// cannot be known, and that nothing may be done.
func (b *Backend) Confirm(ctx context.Context, cluster string) error {
	s, err := b.seat(cluster)
	if err != nil {
		return err
	}
	if s.fresh() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.o.Takeover)
	defer cancel()
	if _, err := s.write(ctx, func(r *record) { r.Beat++ }, nil); err != nil {
		return err
	}
	if !s.fresh() { // the process was stopped while it asked, or the server took that long
		return fault.New(fault.Unavailable, "the store took longer to answer than the leadership lasts")
	}
	return nil
}

// fresh tells whether a write of this leader was sent so short a time ago that nobody can have taken over. It waits for nothing.
func (s *seat) fresh() bool {
	at := s.sure.Load()
	return at != 0 && s.b.o.Now().Sub(s.b.began)-time.Duration(at-1) < s.b.o.Takeover/2
}

// wrote notes when the last write that was done was sent; mu is held.
func (s *seat) wrote(sent time.Time) {
	s.written = sent
	s.sure.Store(0)
	if !sent.IsZero() {
		s.sure.Store(int64(max(sent.Sub(s.b.began), 0)) + 1)
	}
}

// giveUp ends the leadership of a loop that hangs. Others take over as from a process that has died: the register is left as it is, because the loop may
// have been in the middle of something.
func (s *seat) giveUp(silent time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mine {
		return
	}
	s.b.o.Log.Error("THE LOOP HANGS: the leadership is given up (please report this, with what SIGQUIT makes this process print)",
		zap.String("cluster", s.cluster), zap.Duration("silent for", silent), zap.Uint64("term", uint64(store.Term(s.rec.Rev))))
	s.drop()
}

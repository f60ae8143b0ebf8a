package mesos

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// silence ends a context when nothing was heard for too long. It counts only while somebody listens: the time that
// the receiver needs to digest an event is not the sender's silence.
type silence struct {
	limit atomic.Int64
	timer *time.Timer
	fired atomic.Bool
}

func newSilence(limit time.Duration, cancel context.CancelFunc) *silence {
	s := &silence{}
	s.limit.Store(int64(limit))
	s.timer = time.AfterFunc(limit, func() {
		s.fired.Store(true)
		cancel()
	})
	return s
}

// every sets the limit from the next read on.
func (s *silence) every(d time.Duration) { s.limit.Store(int64(d)) }

func (s *silence) stop() { s.timer.Stop() }

// explain replaces the error of the context that was ended by silence.
func (s *silence) explain(err error, what string) error {
	if s.fired.Load() {
		return fault.New(fault.Unavailable, "%s: nothing heard from the master for %s", what, time.Duration(s.limit.Load()))
	}
	return fault.Wrap(fault.Unavailable, err, "%s", what)
}

func (s *silence) reader(r io.Reader) io.Reader { return &listening{s: s, r: r} }

type listening struct {
	s *silence
	r io.Reader
}

func (l *listening) Read(p []byte) (int, error) {
	l.s.timer.Reset(time.Duration(l.s.limit.Load()))
	n, err := l.r.Read(p)
	l.s.timer.Stop()
	return n, err
}

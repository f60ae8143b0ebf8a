package isolator

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/journal"
)

// retry is a take-down that failed and is repeated. Service.mu guards it.
type retry struct {
	attempts int
	next     time.Time
	because  string
	wake     chan struct{} // closed when it is not needed any more
}

// retryTakeDown repeats taking a volume down until it works. One repetition runs for each volume.
func (s *Service) retryTakeDown(v journal.Volume, why error) {
	s.mu.Lock()
	r, ok := s.retries[v.Ref]
	if !ok {
		r = &retry{attempts: 1, wake: make(chan struct{})}
		s.retries[v.Ref] = r
	}
	r.because = why.Error()
	s.mu.Unlock()
	if !ok {
		s.spawn(func() { s.retryLoop(v.Ref, r) })
	}
}

func (s *Service) retryLoop(ref volume.Ref, r *retry) {
	pause := s.o.Limits.RetryMin
	for {
		s.mu.Lock()
		r.next = s.o.Now().Add(pause)
		s.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.wake: // it was taken down by somebody else
			timer.Stop()
			return
		case <-s.life.Done():
			timer.Stop()
			return
		}
		_, err := s.queues.Do(s.life, ref, "unmount again", "", func(ctx context.Context) (string, error) {
			v, ok := s.journal.Volume(ref)
			if !ok || !active(v) || v.Phase == journal.Mounted {
				s.stopRetry(ref) // done, or mounted anew meanwhile
				return "", nil
			}
			return "", s.takeDown(ctx, v, takeDown{})
		})
		if err == nil {
			s.stopRetry(ref)
			return
		}
		s.mu.Lock()
		r.attempts++
		r.because = err.Error()
		s.mu.Unlock()
		pause = min(pause*2, s.o.Limits.RetryMax)
	}
}

func (s *Service) stopRetry(ref volume.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.retries[ref]; ok {
		close(r.wake)
		delete(s.retries, ref)
	}
}

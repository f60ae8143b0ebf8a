package isolator

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// flush writes to the storage what the driver does not, so that whoever has the claim next finds it there. later says that this can wait until the claim was
// given back, because whoever that is looks through the same kernel.
func (s *Service) flush(ctx context.Context, v journal.Volume, f driver.Facts, how takeDown) (later bool, err error) {
	if f.FlushOnUnmount || v.Path == "" {
		return false, nil
	}
	if at, err := mount.Is(v.Path); err == nil && !at && v.Shown {
		return false, nil // gone already; what lies there now is another file system
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	if !how.fence && f.Scope == driver.ScopeNode && mount.SameLocal(ctx, v.Path, s.o.Dir) {
		return true, nil
	}
	err = mount.Within(ctx, "flush volume "+v.Ref.String(), func() error { return mount.Sync(v.Path) })
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil && !fault.Is(err, fault.Unknown) || err != nil && !mount.Dead(ctx, v.Path) {
		return false, err
	}
	if err != nil {
		// Whoever served it is gone, and what it had not written went with it; waiting would not bring that back.
		s.log.Warn("the process that served the volume has died; what it had not written is lost", zap.Stringer("volume", v.Ref), zap.Error(err))
	}
	return false, nil
}

// flushes are those of the node's own file system, on which volumes of Docker plugins often are directories. Flushing it writes what all of the machine has
// not yet written, and may take seconds. No other node can reach such a volume, so nothing but a power cut is in question: one flush serves all volumes
// that were unmounted within flushPause.
type flushes struct {
	mu      sync.Mutex
	due     bool // something was unmounted since the last flush began
	running bool
}

// flushPause is how long unmounts are gathered for one flush.
const flushPause = time.Second

// flushLater has the node's own file system flushed soon.
func (s *Service) flushLater() {
	s.flushes.mu.Lock()
	defer s.flushes.mu.Unlock()
	s.flushes.due = true
	if !s.flushes.running {
		s.flushes.running = s.spawn(s.flushRounds)
	}
}

func (s *Service) flushRounds() {
	for sleep(s.life, flushPause) {
		s.logIf(s.flushDue(s.life), "flush what was unmounted")
		s.flushes.mu.Lock()
		if !s.flushes.due {
			s.flushes.running = false
			s.flushes.mu.Unlock()
			return
		}
		s.flushes.mu.Unlock()
	}
}

// flushDue flushes the node's own file system when something was unmounted since the last time.
func (s *Service) flushDue(ctx context.Context) error {
	s.flushes.mu.Lock()
	due := s.flushes.due
	s.flushes.due = false
	s.flushes.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	err := mount.Within(ctx, "flush the file system of "+s.o.Dir, func() error { return mount.Sync(s.o.Dir) })
	text := ""
	if err != nil && s.life.Err() == nil {
		text = err.Error()
	}
	s.problem("flush", text)
	return err
}

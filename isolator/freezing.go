package isolator

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/mount"
	"github.com/holdfast-io/holdfast/isolator/operation"
)

// A file system that stays frozen is worse than one that was never snapshotted: its writers hang, and do not even die. So a freeze is known to the watchdog
// before it begins, which thaws when its time is over or the isolator is dead; a timer thaws here; a fence thaws before it kills; and the next start
// thaws what the one before has left.

// Freeze runs f while the volume's file system is frozen, for Limits.Freeze at most.
func (n operating) Freeze(ctx context.Context, h operation.Held, f func(context.Context) error) (bool, error) {
	s := n.s
	v, ok := s.journal.Volume(h.Ref)
	if !ok || v.Phase != journal.Mounted || v.UID != h.UID {
		return false, fault.New(fault.Conflict, "it is not mounted here any more")
	}
	own, err := s.ownFileSystem(ctx, v)
	if err != nil {
		return false, err
	}
	if !own {
		return false, f(ctx)
	}
	limit := s.o.Limits.Freeze
	end := s.o.Clock.Now() + limit
	defer s.noteFrozen(h.Ref, 0)
	if err := s.noteFrozen(h.Ref, end); err != nil {
		return false, err
	}
	crashAt("freeze.intent")
	z := &freeze{path: v.Path}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := mount.Within(within, "freeze "+v.Path, z.begin); err != nil {
		if terr := z.thaw(); terr != nil {
			s.log.Error("thaw", zap.Stringer("volume", h.Ref), zap.Error(terr))
		}
		return false, fault.Op(err, "freeze the file system at %s", v.Path)
	}
	crashAt("freeze.frozen")
	late := time.AfterFunc(limit, func() { s.logIf(z.thaw(), "thaw "+v.Path) })
	began := time.Now()
	err = f(within)
	late.Stop()
	terr := z.thaw()
	s.log.Info("the file system was frozen", zap.Stringer("volume", h.Ref), zap.Duration("for", time.Since(began)))
	switch {
	case err != nil:
		return true, err
	case terr != nil:
		// Not frozen any more: the watchdog or a fence, which know better, have thawed it, and the snapshot may be of more than one instant.
		return true, fault.Wrap(fault.Unavailable, terr, "the file system did not stay frozen for the %s that the snapshot took; the longest is %s", time.Since(began).Round(time.Millisecond), limit)
	}
	return true, nil
}

// freeze is one freeze, which is ended exactly once, also when its beginning comes later than anybody waits for it.
type freeze struct {
	path string

	mu     sync.Mutex
	frozen bool
	over   bool
	err    error
}

func (z *freeze) begin() error {
	err := fence.Freeze(z.path)
	z.mu.Lock()
	defer z.mu.Unlock()
	if err != nil {
		return err
	}
	if z.over {
		return fence.Thaw(z.path) // nobody waits any more
	}
	z.frozen = true
	return nil
}

// thaw ends the freeze; the error of who does it is everybody's. NotFound says that it was not frozen any more.
func (z *freeze) thaw() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.over {
		return z.err
	}
	z.over = true
	if !z.frozen {
		return nil
	}
	z.err = fence.Thaw(z.path)
	return z.err
}

// noteFrozen tells the watchdog of a freeze that ends then, or of its end (0).
func (s *Service) noteFrozen(ref volume.Ref, until time.Duration) error {
	s.mu.Lock()
	if until == 0 {
		delete(s.frozen, ref)
	} else {
		s.frozen[ref] = until
	}
	s.mu.Unlock()
	return s.tellWatchdog()
}

// frozenUntil is when the watchdog ends a volume's freeze at the latest, 0 when there is none.
func (s *Service) frozenUntil(ref volume.Ref) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.frozen[ref]
}

// ownFileSystem tells whether what is mounted at a volume's path is a file system of the volume's own: freezing one that others use would stop them.
func (s *Service) ownFileSystem(ctx context.Context, v journal.Volume) (bool, error) {
	if !v.Shown || v.Path == "" {
		return false, nil
	}
	if s.target(v).Verify == fence.VerifySuperblock {
		return true, nil
	}
	at, err := mount.At(v.Path)
	if err != nil || len(at) == 0 {
		return false, err
	}
	m := at[len(at)-1]
	switch m.Type {
	case "ext3", "ext4", "xfs", "f2fs":
	default:
		return false, nil // others make snapshots of one instant by themselves, or cannot be frozen
	}
	if m.Root != "/" {
		return false, nil
	}
	for _, p := range []string{"/", s.o.Dir} {
		var st unix.Stat_t
		if err := mount.Within(ctx, "look at "+p, func() error { return unix.Stat(p, &st) }); err != nil {
			return false, fault.Wrap(fault.Unknown, err, "look at %s", p)
		}
		if st.Dev == unix.Mkdev(uint32(m.Major), uint32(m.Minor)) {
			return false, nil
		}
	}
	return true, nil
}

// thawLeft thaws what an isolator before has left frozen.
func (s *Service) thawLeft() {
	listed, ok := s.state.(interface {
		Mounts() ([]fence.Target, error)
	})
	if !ok {
		return
	}
	targets, err := listed.Mounts()
	if err != nil {
		s.problem("frozen", "what an earlier isolator has frozen cannot be read: "+err.Error())
		return
	}
	for _, t := range targets {
		if t.FrozenUntil == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(s.life, 10*time.Second)
		err := mount.Within(ctx, "thaw "+t.Path, func() error { return fence.Thaw(t.Path) })
		cancel()
		if err == nil {
			s.log.Warn("thawed what an isolator before has left frozen", zap.Stringer("volume", t.Ref), zap.String("path", t.Path))
		} else if !fault.Is(err, fault.NotFound) {
			s.problem("thaw "+t.Ref.String(), err.Error())
		}
	}
}

package isolator

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/journal"
)

// scans looks for users of volumes. A look at all processes costs milliseconds and serves any number of volumes, so those who ask
// while one is under way share the next.
type scans struct {
	fencer Fencer

	mu      sync.Mutex
	waiting *batch // for the next scan; nil when nobody waits
	running bool
}

type batch struct {
	targets map[string]fence.Target // by path
	done    chan struct{}
	usage   map[string]fence.Usage
	err     error
}

// scanLimit bounds one scan.
const scanLimit = 10 * time.Second

// users gives the processes that use a target, by a scan that began after the call.
func (s *scans) users(ctx context.Context, t fence.Target) ([]fence.Process, error) {
	s.mu.Lock()
	b := s.waiting
	if b == nil {
		b = &batch{targets: map[string]fence.Target{}, done: make(chan struct{})}
		s.waiting = b
	}
	b.targets[t.Path] = t
	if !s.running {
		s.running = true
		go s.run()
	}
	s.mu.Unlock()
	select {
	case <-b.done:
		return slices.DeleteFunc(slices.Clone(b.usage[t.Path].Users), func(p fence.Process) bool { return p.PID == os.Getpid() }), b.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unknown, ctx.Err(), "look for users of volume %s", t.Ref)
	}
}

// run scans as long as somebody waits.
func (s *scans) run() {
	for {
		s.mu.Lock()
		b := s.waiting
		s.waiting = nil
		if b == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), scanLimit)
		targets := make([]fence.Target, 0, len(b.targets))
		for _, t := range b.targets {
			targets = append(targets, t)
		}
		b.usage, b.err = s.fencer.Users(ctx, targets...)
		cancel()
		close(b.done)
	}
}

// waitUnused waits until no process uses the volume. Conflict, with the names of the users, when some are left.
func (s *Service) waitUnused(ctx context.Context, v journal.Volume, limit time.Duration) error {
	if v.Path == "" {
		return nil
	}
	end := time.Now().Add(limit)
	pause := 20 * time.Millisecond
	for {
		users, err := s.scans.users(ctx, s.target(v))
		if err != nil {
			return fault.Op(err, "look for users of volume %s", v.Ref)
		}
		if len(users) == 0 {
			return nil
		}
		if !v.Shared && s.keeper.Generation() != v.Generation {
			return fault.New(fault.Unavailable, "volume %s is in use by %s, and the node's lease was lost", v.Ref, nameUsers(users))
		}
		if s.queues.Urgent(v.Ref) || !time.Now().Add(pause).Before(end) {
			return fault.New(fault.Conflict, "volume %s is in use by %s", v.Ref, nameUsers(users))
		}
		if !sleep(ctx, pause) {
			return fault.New(fault.Unknown, "volume %s is in use by %s", v.Ref, nameUsers(users))
		}
		pause = min(pause*2, time.Second)
	}
}

func nameUsers(users []fence.Process) string {
	var b strings.Builder
	for i, u := range users {
		if i == 5 {
			fmt.Fprintf(&b, " and %d more", len(users)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "pid %d %s (%s)", u.PID, u.Command, u.How)
	}
	return b.String()
}

package isolator

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Drain is Empty for an isolator that ends then: the watchdog has nothing left to watch.
func (s *Service) Drain(ctx context.Context, force bool) error {
	if err := s.Empty(ctx, force); err != nil {
		return err
	}
	s.state.Drain()
	return nil
}

// Empty takes no more mounts and gives everything back that nobody uses, until nothing is left or ctx ends; with force it stops the
// users. The error names what is left. The node stays so until Resume, or until the isolator is started again.
func (s *Service) Empty(ctx context.Context, force bool) error {
	s.setDraining(true)
	for {
		var left []error
		for _, v := range s.journal.Volumes() {
			if !active(v) {
				continue
			}
			if err := s.bringDown(ctx, v.Ref, "drain", takeDown{fence: force}, nil); err != nil {
				left = append(left, err)
			}
		}
		if len(left) == 0 && !s.anyActive() {
			return s.flushDue(ctx) // who drains a node may cut its power next
		}
		if !sleep(ctx, min(time.Second, s.o.Limits.RetryMin)) {
			return fault.New(fault.Conflict, "drain: the node takes no mounts, and not all is given back: %v", errors.Join(left...))
		}
	}
}

// Resume takes mounts again after Empty.
func (s *Service) Resume() { s.setDraining(false) }

func (s *Service) setDraining(on bool) {
	s.mu.Lock()
	s.draining = on
	s.mu.Unlock()
	s.keeper.Publish(func(n *lease.Node) { n.Draining = on })
}

func (s *Service) anyActive() bool {
	for _, v := range s.journal.Volumes() {
		if active(v) {
			return true
		}
	}
	return false
}

// isDraining tells whether mounts are refused because the node is being emptied.
func (s *Service) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

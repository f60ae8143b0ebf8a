package isolator

import (
	"context"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Run keeps the lease, recovers, and serves until ctx ends. A clean end leaves what is mounted mounted, for the tasks run on; the
// watchdog keeps the deadline, and the next start goes on in the same lease if it comes in time. Drain empties the node first.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if state, ok := s.state.(*fence.State); ok && len(s.o.Watchdog) > 0 {
		s.spawn(func() {
			if err := fence.KeepWatchdog(ctx, state, s.o.Watchdog, s.log); err != nil && ctx.Err() == nil {
				s.problem("watchdog", err.Error())
				s.log.Error("watchdog", zap.Error(err))
			}
		})
	}
	if s.o.AgentURL != "" {
		s.spawn(func() { s.pollAgent(ctx) })
	}
	s.awaitWatchdog(ctx) // so that the record says at once how well this node is fenced
	kept := make(chan error, 1)
	s.spawn(func() { kept <- s.keeper.Run(ctx) })
	s.spawn(func() { s.serve(ctx) })
	select {
	case <-ctx.Done():
		cancel()
		<-kept
		return nil
	case err := <-kept:
		if ctx.Err() != nil {
			return nil
		}
		// Without a lease nothing may stay.
		s.fenceAll(s.life)
		return fault.Op(err, "keep the node's lease")
	}
}

// serve begins once the node has its lease.
func (s *Service) serve(ctx context.Context) {
	select {
	case <-s.keeper.Ready():
	case <-ctx.Done():
		return
	}
	s.spawn(func() { s.watchRevoked(ctx) })
	s.recover(ctx)
	if ctx.Err() != nil {
		return
	}
	close(s.ready)
	s.log.Info("isolator is ready", zap.String("node", s.nodeUID), zap.Uint64("generation", s.keeper.Generation()))
	s.operations.Resume()
	s.spawn(func() { s.watchRequests(ctx) })
	s.spawn(func() { s.sweepDrivers(ctx) })
	s.spawn(func() { s.audit(ctx) })
	s.spawn(func() { s.measure(ctx) })
	s.publishFacts(ctx)
}

// publishFacts publishes the drivers' facts and the fence's grade when they change.
func (s *Service) publishFacts(ctx context.Context) {
	last, away := "", 0
	for {
		facts, grade := s.driverFacts(), s.grade()
		if now := string(grade) + factsText(facts); now != last {
			last = now
			s.keeper.Publish(func(n *lease.Node) { n.Drivers, n.Grade = facts, grade })
		}
		if grade == lease.GradeNone && s.watched() {
			s.problem("watchdog", "it makes no rounds: what is mounted now is held with fence grade none")
		} else {
			s.problem("watchdog", "")
		}
		s.noteDeadMan(grade)
		// Up at once, down only when the watchdog stays away: it is started again in half a second.
		if away++; grade != lease.GradeNone {
			away = 0
		}
		if s.watched() && (away == 0 || away > 3) {
			s.ungraded()
			s.regrade(ctx, grade)
		}
		if !sleep(ctx, s.o.Limits.Facts) {
			return
		}
	}
}

package isolator

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// prepareLease makes the keeper and the fence.
func (s *Service) prepareLease() error {
	if s.fencer = s.o.fencer; s.fencer == nil {
		s.fencer = fence.New(fence.Options{Log: s.log, Limit: s.o.Timings.S})
	}
	s.scans.fencer = s.fencer
	if state, ok := s.state.(*fence.State); ok {
		state.SetLimit(s.o.Timings.S)
		if err := s.askDeadMan(state); err != nil {
			return err
		}
	}
	generation, deadline := s.state.Deadline()
	var err error
	s.keeper, err = lease.NewKeeper(s.auth, lease.KeeperOptions{
		Timings: s.o.Timings, Clock: s.o.Clock, Log: s.log, Node: s.describe,
		LastGeneration: generation, LastDeadline: deadline,
		SetDeadline: s.state.SetDeadline,
		Verify:      s.verifyNothing,
		Lost:        s.leaseLost,
	})
	return err
}

// grade is how sure it is that this node stops writing: none without the watchdog process, soft while it makes its rounds, reset while it feeds a dead-man
// besides.
func (s *Service) grade() lease.Grade {
	if !s.watched() {
		return lease.GradeNone
	}
	if state, ok := s.state.(interface{ WatchdogAlive() bool }); ok && !state.WatchdogAlive() {
		return lease.GradeNone
	}
	if state, ok := s.state.(interface {
		DeadMan() (time.Duration, string)
	}); ok {
		if armed, _ := state.DeadMan(); armed > 0 {
			return lease.GradeReset
		}
	}
	return lease.GradeSoft
}

// watched tells whether a watchdog process belongs to this isolator.
func (s *Service) watched() bool { return len(s.o.Watchdog) > 0 || s.o.WatchdogKept }

// awaitWatchdog gives a watchdog that is being started a moment. Who goes on without one holds with grade none.
func (s *Service) awaitWatchdog(ctx context.Context) {
	const limit, pause = time.Second, 5 * time.Millisecond
	for waited := time.Duration(0); s.watched() && s.grade() == lease.GradeNone && waited < limit; waited += pause {
		if !sleep(ctx, pause) {
			return
		}
	}
}

// persist repeats a transition of the authority while its outcome is not known or the authority does not answer, for as long as
// Limits.Authority. All transitions are idempotent by their nonce.
func (s *Service) persist(ctx context.Context, what string, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Authority)
	defer cancel()
	pause := 20 * time.Millisecond
	var last error
	for {
		err := f(ctx)
		if c := fault.ClassOf(err); c != fault.Unknown && c != fault.Unavailable {
			return fault.Op(err, "%s", what)
		}
		if last == nil || ctx.Err() == nil {
			last = err // the first real reason, not the end of the waiting
		}
		if !sleep(ctx, pause) {
			return fault.Op(last, "%s", what)
		}
		pause = min(pause*2, time.Second)
	}
}

// target is a volume as the fence sees it.
func (s *Service) target(v journal.Volume) fence.Target {
	s.mu.Lock()
	d := s.drivers[v.Ref.Driver]
	t := fence.Target{VolumeUID: v.UID, Ref: v.Ref, Epoch: v.Epoch, Path: v.Path, Verify: fence.VerifyScan, Agent: s.o.PlayedAgent,
		FrozenUntil: s.frozen[v.Ref]}
	s.mu.Unlock()
	// A volume with a file system of its own is verified by that; the driver names what lies below it.
	if b, ok := d.(driver.Backer); ok {
		if t.Backing = b.Backing(v.Ref.Name); t.Backing != "" {
			t.Verify = fence.VerifySuperblock
		}
	}
	return t
}

// tellWatchdog hands the list of everything that may be mounted to the watchdog: before each mount, after each unmount.
func (s *Service) tellWatchdog() error {
	s.watching.Lock() // an older list must not overwrite a newer one
	defer s.watching.Unlock()
	var list []json.RawMessage
	told := make(map[volume.Ref]watched, len(s.told))
	pending := 0
	for _, v := range s.journal.Volumes() {
		if !active(v) || v.Shared || v.Gone {
			continue
		}
		if v.Path == "" {
			pending++
			continue
		}
		w, same := s.told[v.Ref]
		if same = same && w.path == v.Path && w.epoch == v.Epoch && w.uid == v.UID && w.frozen == s.frozenUntil(v.Ref); !same {
			target := s.target(v)
			raw, err := json.Marshal(target)
			if err != nil {
				return fault.Wrap(fault.Internal, err, "tell the watchdog what is mounted")
			}
			w = watched{path: v.Path, epoch: v.Epoch, uid: v.UID, frozen: target.FrozenUntil, raw: raw}
		}
		told[v.Ref] = w
		list = append(list, w.raw)
	}
	s.told = told
	s.tellPending(max(pending, s.pending)) // what has come to be listed counts until the list says so
	if err := s.state.SetMounts(list); err != nil {
		return fault.Op(err, "tell the watchdog what is mounted")
	}
	s.tellPending(pending)
	return nil
}

// tellPending tells the watchdog how many mounts are on their way to where only their driver knows.
func (s *Service) tellPending(n int) {
	if state, ok := s.state.(interface{ SetPending(n int) }); ok {
		state.SetPending(n)
	}
	s.pending = n
}

// watched is what the watchdog was told of a volume, kept because there may be a thousand of them and one has changed.
type watched struct {
	path, uid string
	epoch     volume.Epoch
	frozen    time.Duration
	raw       json.RawMessage // a fence.Target
}

// fenceUsers stops the users of a volume.
func (s *Service) fenceUsers(ctx context.Context, v journal.Volume) error {
	if v.Path == "" {
		return nil
	}
	for _, r := range s.fencer.Run(ctx, s.target(v)) {
		if !r.Fenced {
			return fault.New(fault.Unknown, "fence volume %s: %s", v.Ref, reportText(r))
		}
		s.log.Warn("fenced", zap.Stringer("volume", v.Ref), zap.Uint64("epoch", uint64(v.Epoch)), zap.Int("killed", len(r.Killed)), zap.Duration("took", r.Took))
	}
	return nil
}

func reportText(r fence.Report) string {
	if r.Err != "" {
		return r.Err
	}
	return "not verified"
}

// leaseLost is the keeper's word that nothing may stay mounted. All volumes are fenced at once, not one after another.
func (s *Service) leaseLost(reason string) {
	s.log.Error("the node's lease is lost: fencing all held volumes", zap.String("reason", reason))
	s.problem("lease", reason)
	s.spawn(func() { s.fenceAll(s.life) })
}

// fenceAll stops the users of everything that is held, in one scan, and then takes the volumes down. The fence does not wait for the volumes'
// turns: whoever has one may hang.
func (s *Service) fenceAll(ctx context.Context) {
	var targets []fence.Target
	var volumes []journal.Volume
	for _, v := range s.journal.Volumes() {
		if active(v) && !v.Shared {
			volumes = append(volumes, v)
			if v.Path != "" {
				targets = append(targets, s.target(v))
			}
		}
	}
	for _, r := range s.fencer.Run(ctx, targets...) {
		if !r.Fenced {
			s.problem("fence "+r.Target.Ref.String(), reportText(r))
			s.log.Error("fence not verified", zap.Stringer("volume", r.Target.Ref), zap.String("because", reportText(r)))
			continue
		}
		s.problem("fence "+r.Target.Ref.String(), "")
	}
	done := make(chan struct{}, len(volumes))
	for _, v := range volumes {
		s.spawn(func() {
			defer func() { done <- struct{}{} }()
			s.bringDown(ctx, v.Ref, "fence", takeDown{fence: true}, nil)
		})
	}
	for range volumes {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// bringDown takes a volume down in its queue if it is still up, and still what is meant; what fails is repeated.
func (s *Service) bringDown(ctx context.Context, ref volume.Ref, verb string, how takeDown, meant func(journal.Volume) bool) error {
	do := s.queues.Do
	if how.fence {
		do = s.queues.DoUrgently
	}
	_, err := do(ctx, ref, verb, verb, func(ctx context.Context) (string, error) {
		v, ok := s.journal.Volume(ref)
		if !ok || !active(v) || (meant != nil && !meant(v)) {
			return "", nil
		}
		err := s.takeDown(ctx, v, how)
		if err != nil {
			s.retryTakeDown(v, err)
		}
		return "", err
	})
	return err
}

// verifyNothing is what the keeper asks before a new lease generation: nil once nothing that needs a hold is mounted here. Claims of the
// generation before are given back afterwards, when the authority answers again.
func (s *Service) verifyNothing(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var errs []error
	for _, v := range s.journal.Volumes() {
		if !active(v) || v.Shared || v.Gone {
			continue
		}
		if v.BootID != "" && v.BootID != s.o.BootID && !s.leftover(v) {
			continue // another boot: the kernel that had it mounted is gone
		}
		_, err := s.queues.DoUrgently(ctx, v.Ref, "fence", "", func(ctx context.Context) (string, error) {
			now, _ := s.journal.Volume(v.Ref)
			if !active(now) || now.Gone {
				return "", nil
			}
			return "", s.detach(ctx, &now, takeDown{fence: true})
		})
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := s.sweepMounts(ctx); err != nil {
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if err != nil {
		s.problem("verify", err.Error())
		return fault.Op(err, "verify that nothing is mounted")
	}
	s.problem("verify", "")
	s.problem("lease", "")
	return nil
}

// watchRevoked gives up claims that the framework wants back.
func (s *Service) watchRevoked(ctx context.Context) {
	for {
		select {
		case claim := <-s.keeper.Revoked():
			s.spawn(func() { s.giveUp(ctx, claim) })
		case <-ctx.Done():
			return
		}
	}
}

// giveUp answers a revoke: unmount when nobody uses it, fence otherwise, then L3.
func (s *Service) giveUp(ctx context.Context, claim lease.ClaimVersion) {
	v, ok := s.journal.Volume(claim.Ref)
	if !ok || !active(v) || v.UID != claim.VolumeUID || v.Epoch != claim.Epoch {
		// Held by the authority's record, but nothing of it is here.
		_, _ = s.queues.Do(ctx, claim.Ref, "revoke", "revoke", func(ctx context.Context) (string, error) {
			if now, ok := s.journal.Volume(claim.Ref); ok && active(now) && now.Epoch == claim.Epoch {
				return "", nil // it came meanwhile; the keeper asks again
			}
			return "", s.giveBackUnjournaled(ctx, claim)
		})
		return
	}
	s.log.Info("claim is revoked", zap.Stringer("volume", claim.Ref), zap.Uint64("epoch", uint64(claim.Epoch)))
	_ = s.bringDown(ctx, claim.Ref, "revoke", takeDown{fence: true}, func(v journal.Volume) bool { return v.Epoch == claim.Epoch })
}

// held is what a journal would say of a claim that this node holds.
func held(c lease.ClaimVersion) journal.Volume {
	return journal.Volume{Ref: c.Ref, UID: c.VolumeUID, Epoch: c.Epoch, Nonce: c.Nonce, Generation: c.NodeGeneration}
}

package isolator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// recover compares the journal with the authority, the mounts and the drivers after a start. It runs once the node
// has its lease: what was mounted and is held still stays untouched; what was half done is undone; a mount is never finished. Nobody can
// mount until it is through.
func (s *Service) recover(ctx context.Context) {
	for pause := s.o.Limits.RetryMin; ; pause = min(pause*2, s.o.Limits.RetryMax) {
		err := s.recoverOnce(ctx)
		if err == nil {
			s.problem("recovery", "")
			return
		}
		s.problem("recovery", err.Error())
		s.log.Warn("recovery", zap.Error(err))
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (s *Service) recoverOnce(ctx context.Context) error {
	claims, err := s.auth.Claims(ctx)
	var bad *lease.BadRecords
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	mine := map[string]lease.ClaimVersion{} // by volume uid
	for _, c := range claims {
		if c.State == lease.Held && c.Node == s.nodeUID {
			mine[c.VolumeUID] = c
			s.noteHold(c)
		}
	}
	done := make(chan struct{}, 16)
	volumes := s.journal.Volumes()
	running := 0
	for _, v := range volumes {
		if v.Phase == journal.Known || v.Phase == journal.Removed {
			continue
		}
		claim, isHeld := mine[v.UID]
		isHeld = isHeld && claim.Epoch == v.Epoch && claim.Nonce == v.Nonce
		running++
		s.spawn(func() {
			defer func() { done <- struct{}{} }()
			s.recoverVolume(ctx, v, isHeld)
		})
	}
	for range running {
		<-done
	}
	if err := errors.Join(s.tellWatchdog(), s.sweepMounts(ctx)); err != nil {
		return err
	}
	for _, c := range mine {
		s.recoverClaim(ctx, c)
	}
	return nil
}

func (s *Service) recoverVolume(ctx context.Context, v journal.Volume, isHeld bool) {
	_, err := s.queues.Do(ctx, v.Ref, "recover", "", func(ctx context.Context) (string, error) {
		switch v.Phase {
		case journal.Creating:
			return "", s.recoverCreate(ctx, v)
		case journal.Removing:
			_, err := s.remove(ctx, v)
			return "", errors.Join(err, s.release(ctx, v))
		case journal.Mounted:
			return "", s.recoverMounted(ctx, v, isHeld)
		}
		// Mounting: its path was never answered, so nobody can use it. Unmounting: it goes on.
		s.log.Info("recovery takes a volume down", zap.Stringer("volume", v.Ref), zap.String("phase", string(v.Phase)), zap.Uint64("epoch", uint64(v.Epoch)))
		return "", s.takeDown(ctx, v, takeDown{fence: !isHeld && !v.Shared})
	})
	if err == nil {
		return
	}
	s.log.Warn("recovery", zap.Stringer("volume", v.Ref), zap.Error(err))
	if now, ok := s.journal.Volume(v.Ref); ok && active(now) {
		if now.Phase == journal.Mounted {
			now.Phase = journal.Unmounting
			s.noteAnyway("recover", "driver", journal.Unknown, now)
		}
		s.retryTakeDown(now, err)
		return
	}
	s.problem("recovery of "+v.Ref.String(), err.Error())
}

// recoverMounted leaves a mount alone that is there and held by this node in this lease.
func (s *Service) recoverMounted(ctx context.Context, v journal.Volume, isHeld bool) error {
	sameLease := v.Shared || (isHeld && v.Generation == s.keeper.Generation())
	if sameLease && v.BootID == s.o.BootID {
		err := s.present(ctx, v)
		if err == nil {
			return nil
		}
		s.log.Warn("a mount is gone", zap.Stringer("volume", v.Ref), zap.Error(err))
	}
	return s.takeDown(ctx, v, takeDown{fence: !v.Shared})
}

// recoverCreate finds out whether a creation came about.
func (s *Service) recoverCreate(ctx context.Context, v journal.Volume) error {
	d, err := s.driver(v.Ref.Driver)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	if v, err = s.whatWasClaimed(ctx, v); err != nil {
		return err
	}
	info, err := d.Get(ctx, v.Ref.Name)
	switch {
	case err == nil && (info.UID == "" || info.UID == v.UID):
		if err := s.release(ctx, v); err != nil {
			return err
		}
		s.noteAnyway("create", "driver", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Known, Shared: v.Shared})
		return nil
	case err != nil && !fault.Is(err, fault.NotFound):
		return err
	}
	if err := s.release(ctx, v); err != nil {
		return err
	}
	if v.Self {
		s.forgetUncreated(ctx, v)
		return nil
	}
	// The framework's request is still pending and is carried out again.
	s.noteAnyway("create", "driver", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Removed})
	return nil
}

// whatWasClaimed completes the journal's word of a claim that was about to be made: the crash came before its epoch could be written.
func (s *Service) whatWasClaimed(ctx context.Context, v journal.Volume) (journal.Volume, error) {
	if !v.Self || v.Epoch != 0 {
		return v, nil
	}
	claim, err := s.auth.Claim(ctx, v.UID)
	if fault.Is(err, fault.NotFound) {
		return v, nil
	}
	if err == nil && claim.State == lease.Held && claim.Node == s.nodeUID {
		v.Epoch, v.Nonce, v.Generation = claim.Epoch, claim.Nonce, claim.NodeGeneration
	}
	return v, err
}

// recoverClaim gives back a claim that this node took just before it was killed, before anything was journaled.
func (s *Service) recoverClaim(ctx context.Context, c lease.ClaimVersion) {
	_, err := s.queues.Do(ctx, c.Ref, "recover", "", func(ctx context.Context) (string, error) {
		if v, ok := s.journal.Volume(c.Ref); ok && v.UID == c.VolumeUID && active(v) {
			return "", nil
		}
		return "", s.giveBackUnjournaled(ctx, c)
	})
	if err != nil {
		s.problem("recovery of "+c.Ref.String(), err.Error())
		s.spawn(func() {
			if sleep(ctx, s.o.Limits.RetryMax) {
				s.recoverClaim(ctx, c)
			}
		})
		return
	}
	s.problem("recovery of "+c.Ref.String(), "")
}

// giveBackUnjournaled gives back a claim that this node holds by the authority's word and of which its journal says nothing. Mostly it was killed
// between the two, and nothing is mounted; but a journal may have been damaged, so it looks first, and stops whom it finds. The turn
// is held.
func (s *Service) giveBackUnjournaled(ctx context.Context, c lease.ClaimVersion) error {
	v := held(c)
	if !s.stillHeld(ctx, v) {
		return nil // given back meanwhile
	}
	d, err := s.driver(c.Ref.Driver)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	facts, err := s.factsOf(limit, d)
	if err != nil {
		return err
	}
	if p, ok := d.(driver.Placer); ok {
		v.Path = p.WillMountAt(c.Ref.Name)
	} else if v.Path, err = d.Path(limit, c.Ref.Name); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if v.Path != "" {
		if err := checkAbsolute(v.Path); err != nil {
			return err
		}
		if v.Shown, err = mount.Is(v.Path); err != nil {
			return err
		}
		if err := s.fenceUsers(ctx, v); err != nil {
			return err
		}
	}
	// A plugin that counts without ids must not be told to unmount what is not there.
	v.Gone = facts.BindsMounts && !v.Shown
	v.MountID = mountID(v)
	return s.takeDown(ctx, v, takeDown{fence: true})
}

func checkAbsolute(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsAny(path, "\n\x00") {
		return fault.New(fault.Conflict, "the driver gave path %.80q, which is not clean and absolute", path)
	}
	return nil
}

// audit looks, a few volumes at a time, whether what is up here is still held by the authority's word: an operator may have overridden
// the claim. What is not is fenced.
func (s *Service) audit(ctx context.Context) {
	const each = 20
	last := ""
	for sleep(ctx, s.o.Limits.Audit) {
		volumes := slices.DeleteFunc(s.journal.Volumes(), func(v journal.Volume) bool { return v.Shared || v.Phase != journal.Mounted })
		slices.SortFunc(volumes, func(a, b journal.Volume) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
		from, _ := slices.BinarySearchFunc(volumes, last, func(v journal.Volume, at string) int { return strings.Compare(v.Ref.String(), at) })
		for i := range min(each, len(volumes)) {
			v := volumes[(from+i)%len(volumes)]
			last = v.Ref.String() + "\x00" // the one behind it comes first next time
			s.auditVolume(ctx, v)
		}
	}
}

func (s *Service) auditVolume(ctx context.Context, v journal.Volume) {
	if s.stillHeld(ctx, v) {
		return
	}
	_, _ = s.queues.DoUrgently(ctx, v.Ref, "audit", "audit", func(ctx context.Context) (string, error) {
		now, ok := s.journal.Volume(v.Ref)
		if !ok || now.Phase != journal.Mounted || s.stillHeld(ctx, now) {
			return "", nil
		}
		s.log.Error("a mounted volume's claim is not this node's any more: fencing it", zap.Stringer("volume", v.Ref), zap.Uint64("epoch", uint64(v.Epoch)))
		err := s.takeDown(ctx, now, takeDown{fence: true})
		if err != nil {
			s.retryTakeDown(now, err)
		}
		return "", err
	})
}

// stillHeld is false only when the authority has said so.
func (s *Service) stillHeld(ctx context.Context, v journal.Volume) bool {
	limit, cancel := context.WithTimeout(ctx, s.o.Limits.Authority)
	defer cancel()
	c, err := s.auth.Claim(limit, v.UID)
	if err != nil {
		return !fault.Is(err, fault.NotFound)
	}
	return c.State == lease.Held && c.Node == s.nodeUID && c.Epoch == v.Epoch && c.Nonce == v.Nonce
}

// sweepMounts takes down what is mounted below this node's mounts directory and belongs to no volume of the journal.
func (s *Service) sweepMounts(ctx context.Context) error {
	dir := MountsDir(s.o.Dir)
	all, err := mount.Under(dir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, v := range s.journal.Volumes() {
		if active(v) && v.Path != "" {
			known[v.Path] = true
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		if known[all[i].Point] || all[i].Point == dir {
			continue
		}
		s.log.Warn("a mount belongs to no volume: fencing it", zap.String("path", all[i].Point))
		stray := journal.Volume{Ref: strayRef(dir, all[i].Point), Path: all[i].Point}
		if err := s.fenceUsers(ctx, stray); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := mount.Unmount(limit, all[i].Point)
		cancel()
		if err != nil {
			return err
		}
		_ = os.Remove(all[i].Point)
	}
	return nil
}

// strayRef says which volume a mount below the mounts directory must be of, by its place <driver>/<name>: its driver then tells the fence what proves
// that it is gone.
func strayRef(dir, point string) volume.Ref {
	d, name, _ := strings.Cut(strings.TrimPrefix(point, dir+"/"), "/")
	ref := volume.Ref{Driver: d, Name: strings.TrimPrefix(name, ".")} // ".name" is where the pool stages a mount
	if ref.Check() != nil {
		return volume.Ref{Driver: "unknown", Name: "stray"}
	}
	return ref
}

// leftover tells whether something of a volume of an earlier boot is mounted all the same: a driver that mounts by itself at boot.
func (s *Service) leftover(v journal.Volume) bool {
	if !v.Shown || v.Path == "" {
		return false
	}
	at, err := mount.Is(v.Path)
	return err != nil || at
}

// sweepDrivers lets drivers clean up after themselves, at start and now and then.
func (s *Service) sweepDrivers(ctx context.Context) {
	for {
		for _, d := range s.o.Drivers {
			if sw, ok := d.(driver.Sweeper); ok {
				limit, cancel := context.WithTimeout(ctx, 10*time.Minute)
				s.logIf(sw.Sweep(limit, s.o.Now().Add(-s.o.Limits.Bin)), "sweep driver "+d.Name())
				cancel()
			}
		}
		if !sleep(ctx, 10*time.Minute) {
			return
		}
	}
}

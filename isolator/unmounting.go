package isolator

import (
	"context"
	"sort"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Outcomes of an unmount.
const (
	Unmounted  = "unmounted"   // it was mounted, it is not any more, and the claim is free
	NotMounted = "not-mounted" // it was not mounted
	Kept       = "kept"        // another owner uses it still
	Retrying   = "retrying"    // it could not be taken down yet; that is journaled and repeated, and the claim is held until then
)

// UnmountRequest ends an owner's use of a volume.
type UnmountRequest struct {
	Ref    volume.Ref
	Owner  string
	Caller Caller
}

// Unmount ends an owner's use. Unmounting what is not mounted succeeds. It is refused (Conflict) when the caller started before the
// volume's present mount: then it speaks of an earlier one.
func (s *Service) Unmount(ctx context.Context, r UnmountRequest) (outcome string, err error) {
	if err := r.Ref.Check(); err != nil {
		return "", err
	}
	if r.Owner == "" {
		r.Owner = OwnerMesos
	}
	if err := s.waitReady(ctx); err != nil {
		return "", err
	}
	return s.queues.Do(ctx, r.Ref, "unmount", "", func(ctx context.Context) (string, error) { return s.unmount(ctx, r) })
}

func (s *Service) unmount(ctx context.Context, r UnmountRequest) (string, error) {
	v, ok := s.journal.Volume(r.Ref)
	if !ok || !active(v) {
		return NotMounted, s.releaseUnjournaled(ctx, r.Ref)
	}
	if s.late(v, r) {
		return "", fault.New(fault.Conflict, "unmount volume %s: the caller (pid %d) started before the present mount of epoch %d and means an earlier one",
			r.Ref, r.Caller.PID, v.Epoch)
	}
	if v.Phase == journal.Mounted {
		if _, owns := v.Owners[r.Owner]; !owns && len(v.Owners) > 0 {
			return Kept, nil
		}
		if rest := withoutOwner(v.Owners, r.Owner); len(rest) > 0 {
			v.Owners = rest
			return Kept, s.journal.Append("unmount", "owner", journal.Intent, v)
		}
	}
	crashAt("unmount.begun")
	err := s.takeDown(ctx, v, takeDown{wait: s.o.Limits.UsersLeave})
	if err == nil {
		return Unmounted, nil
	}
	return s.retryLater(r.Ref, err)
}

// retryLater makes an unmount that did not work the isolator's own business: once that is journaled, the caller need not come
// again (Mesos would only at its next start), and the claim is held until it has worked.
func (s *Service) retryLater(ref volume.Ref, cause error) (string, error) {
	v, _ := s.journal.Volume(ref)
	if v.Phase != journal.Unmounting {
		v.Phase = journal.Unmounting
		if err := s.journal.Append("unmount", "users", journal.Intent, v); err != nil {
			return "", fault.Op(cause, "unmount volume %s (nor can it be journaled: %v)", ref, err)
		}
	}
	s.log.Warn("unmount is being repeated", zap.Stringer("volume", ref), zap.Error(cause))
	s.retryTakeDown(v, cause)
	return Retrying, nil
}

// late tells whether an unmount surely means an earlier mount: Mesos starts a dvdcli for each, so one that is older than the
// mount cannot mean it. A process that mounts and unmounts by itself, and other owners, who name what they mounted, may live long.
// A process's start is known to the clock tick of 10 ms, rounded down.
func (s *Service) late(v journal.Volume, r UnmountRequest) bool {
	return r.Owner == OwnerMesos && r.Caller.Started > 0 && v.BootID == s.o.BootID && r.Caller.String() != v.Mounter &&
		int64(r.Caller.Started+10*time.Millisecond) < v.MountBoot
}

// takeDown says how to take a volume down.
type takeDown struct {
	wait  time.Duration // for users to leave
	fence bool          // do not wait: stop the users
}

// takeDown unmounts a volume and gives its claim back. The volume's turn is held. After an error the volume is still held, and taking it down
// must be repeated.
func (s *Service) takeDown(ctx context.Context, v journal.Volume, how takeDown) error {
	if !v.Gone {
		if err := s.detach(ctx, &v, how); err != nil {
			return err
		}
	}
	if err := s.release(ctx, v); err != nil {
		return err
	}
	crashAt("unmount.released")
	done := journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Known, Shared: v.Shared}
	s.noteAnyway("unmount", "release", journal.Done, done)
	s.stopRetry(v.Ref)
	s.problem("fence "+v.Ref.String(), "")
	crashAt("unmount.done")
	return nil
}

// detach is the part of takeDown up to "nothing of it is mounted here".
func (s *Service) detach(ctx context.Context, v *journal.Volume, how takeDown) error {
	d, err := s.driver(v.Ref.Driver)
	if err != nil {
		return err
	}
	if !how.fence {
		if err := s.waitUnused(ctx, *v, how.wait); err != nil {
			return err
		}
	}
	v.Phase = journal.Unmounting
	s.noteAnyway("unmount", "driver", journal.Intent, *v)
	crashAt("unmount.intent")
	if how.fence {
		if err := s.fenceUsers(ctx, *v); err != nil {
			return err
		}
	}
	facts, _ := s.factsOf(ctx, d)
	later, err := s.flush(ctx, *v, facts, how)
	if err != nil {
		return err
	}
	crashAt("unmount.flushed")
	if err := s.callUnmount(ctx, d, *v); err != nil {
		return err
	}
	crashAt("unmount.driver")
	if err := s.settleGone(ctx, *v); err != nil {
		return err
	}
	v.Gone = true
	if later {
		s.flushLater()
	}
	// Not waited for: a process that is killed leaves what it has written, and after a crash of the machine nothing is mounted anyway.
	s.noteAnyway("unmount", "release", journal.Done, *v)
	if err := s.tellWatchdog(); err != nil {
		s.log.Warn("watchdog's list", zap.Error(err))
	}
	crashAt("unmount.gone")
	s.log.Info("unmounted", zap.Stringer("volume", v.Ref), zap.Uint64("epoch", uint64(v.Epoch)))
	return nil
}

func (s *Service) callUnmount(ctx context.Context, d driver.Driver, v journal.Volume) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	err := d.Unmount(ctx, v.Ref.Name, v.MountID)
	if err != nil && v.Shown && v.Path != "" {
		// The driver's word is worth less than mountinfo's: a plugin that was restarted knows nothing of a mount that is gone.
		if at, merr := mount.Is(v.Path); merr == nil && !at && !fault.Is(err, fault.Unknown) {
			return nil
		}
	}
	if fault.Is(err, fault.Unavailable) && v.Shown && mount.Dead(ctx, v.Path) {
		s.log.Warn("the plugin is gone, and with it what it had mounted", zap.Stringer("volume", v.Ref), zap.Error(err))
		return nil // what is left of the mount is taken away by settleGone
	}
	return err
}

// settleGone is checkGone, and helps where the driver cannot: with a mount whose server has died, and which a restarted plugin does not know
// any more.
func (s *Service) settleGone(ctx context.Context, v journal.Volume) error {
	err := s.checkGone(v)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if !mount.Dead(ctx, v.Path) {
		return err
	}
	if uerr := mount.Unmount(ctx, v.Path); uerr != nil {
		return fault.Op(uerr, "%s; its server has died", err.Error())
	}
	return s.checkGone(v)
}

// checkGone makes sure that what was seen in mountinfo is there no more.
func (s *Service) checkGone(v journal.Volume) error {
	if !v.Shown || v.Path == "" {
		return nil
	}
	at, err := mount.Is(v.Path)
	if err != nil {
		return err
	}
	if at {
		return fault.New(fault.Unknown, "unmount volume %s: the driver says that it is done, but %s is still a mount point", v.Ref, v.Path)
	}
	return nil
}

// release is L3: held to free. Shared volumes are never held.
func (s *Service) release(ctx context.Context, v journal.Volume) error {
	if v.Shared || v.Epoch == 0 {
		return nil
	}
	return s.persist(ctx, "give back claim of "+v.Ref.String(), func(ctx context.Context) error {
		_, err := s.auth.Release(ctx, v.UID, v.Epoch, s.nodeUID, v.Generation, v.Nonce)
		switch {
		case fault.Is(err, fault.NotFound):
			return nil
		case fault.Is(err, fault.Conflict):
			return s.notHeld(ctx, v, err)
		}
		return err
	})
}

// notHeld deals with a claim that is not ours to give back. A grant is cancelled, so that a hold of ours that is still on its
// way can do nothing any more; all else is somebody else's.
func (s *Service) notHeld(ctx context.Context, v journal.Volume, why error) error {
	claim, err := s.auth.Claim(ctx, v.UID)
	if err != nil {
		return err
	}
	if claim.State == lease.Granted && claim.Epoch == v.Epoch && claim.Nonce == v.Nonce {
		_, err = s.auth.Cancel(ctx, v.UID, v.Epoch, v.Nonce)
		return err
	}
	s.log.Warn("claim is not this node's", zap.Stringer("volume", v.Ref), zap.Error(why))
	return nil
}

// releaseUnjournaled gives back a claim that this node took just before it was killed: nothing was journaled, so nothing was mounted.
func (s *Service) releaseUnjournaled(ctx context.Context, ref volume.Ref) error {
	claim, err := s.auth.ClaimByRef(ctx, ref)
	if err != nil || claim.State != lease.Held || claim.Node != s.nodeUID {
		return nil // also when the authority is away: recovery and the keeper see to it
	}
	return s.giveBackUnjournaled(ctx, claim)
}

// present makes sure that a mount is still what it was.
func (s *Service) present(ctx context.Context, v journal.Volume) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := mount.CheckPath(ctx, v.Path, ""); err != nil {
		return err
	}
	if !v.Shown {
		return nil
	}
	at, err := mount.Is(v.Path)
	if err == nil && !at {
		err = fault.New(fault.Conflict, "%s is no mount point any more; somebody else has unmounted it", v.Path)
	}
	return err
}

func ownerNames(owners map[string]time.Time) []string {
	out := make([]string, 0, len(owners))
	for o := range owners {
		out = append(out, o)
	}
	sort.Strings(out)
	return out
}

// noteAnyway journals, and goes on when that does not work: on a full disk a release must still be possible, and without the line
// recovery finds the volume in the state before and compares that with what is really there.
func (s *Service) noteAnyway(op, step string, st journal.State, v journal.Volume) {
	if err := s.journal.Append(op, step, st, v); err != nil {
		s.problem("journal", err.Error())
		s.log.Warn("journal", zap.Error(err))
		s.journal.Remember(v)
		return
	}
	s.problem("journal", "")
}

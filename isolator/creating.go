package isolator

import (
	"context"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// creation is the wish for a new volume, beside its ref and uid.
type creation struct {
	size        volume.Bytes
	options     map[string]string
	owner, mode string
	source      *driver.Source // nil for an empty one
}

// create makes a volume that Get has shown to be absent. The volume's turn is held. The claim's record exists already: creation is recorded
// before it is done. When v is mounted afterwards, v is its state after the hold.
func (s *Service) create(ctx context.Context, d driver.Driver, v journal.Volume, c creation) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	cluster, err := s.clusterID(ctx)
	if err != nil {
		return err
	}
	if c.size == 0 && c.options["size"] != "" {
		if c.size, err = volume.ParseSize(c.options["size"]); err != nil {
			return fault.Op(err, "create volume %s", v.Ref)
		}
	}
	v.Phase = journal.Creating
	if err := s.journal.Append("create", "driver", journal.Intent, v); err != nil {
		return err
	}
	crashAt("create.intent")
	_, err = d.Create(ctx, driver.Spec{Name: v.Ref.Name, UID: v.UID, Cluster: cluster, Size: c.size, Options: c.options, Owner: c.owner, Mode: c.mode, Source: c.source, Shared: v.Shared})
	if err != nil && fault.Is(err, fault.Unknown) {
		err = s.settleCreate(ctx, d, v, err)
	}
	if err != nil {
		s.noteCreateFailed(v, err)
		return err
	}
	crashAt("create.driver")
	s.noteAnyway("create", "driver", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Known, Shared: v.Shared})
	crashAt("create.done")
	s.log.Info("created", zap.Stringer("volume", v.Ref), zap.String("uid", v.UID))
	return nil
}

// settleCreate finds out what a creation came to whose reply was lost.
func (s *Service) settleCreate(ctx context.Context, d driver.Driver, v journal.Volume, cause error) error {
	info, err := d.Get(ctx, v.Ref.Name)
	if err == nil && (info.UID == "" || info.UID == v.UID) {
		return nil
	}
	return cause
}

// noteCreateFailed takes the intent back when the driver has surely made nothing; an unknown outcome stays in the journal.
func (s *Service) noteCreateFailed(v journal.Volume, err error) {
	if fault.Is(err, fault.Unknown) {
		s.noteAnyway("create", "driver", journal.Unknown, v)
		return
	}
	s.noteAnyway("create", "driver", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Removed})
}

// adopt takes a volume that exists for the one with uid v.UID. The volume's turn is held, and the authority knows no other uid of that name.
func (s *Service) adopt(ctx context.Context, d driver.Driver, v journal.Volume) error {
	cluster, err := s.clusterID(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	if a, ok := d.(driver.Adopter); ok {
		if _, err := a.Adopt(ctx, v.Ref.Name, v.UID, cluster); err != nil {
			return err
		}
	}
	s.log.Info("adopted", zap.Stringer("volume", v.Ref), zap.String("uid", v.UID))
	s.noteAnyway("create", "adopt", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Known, Shared: v.Shared})
	return nil
}

// Create makes a volume on a person's word (`dvdcli create`) and its claim. Exists when there is one already.
func (s *Service) Create(ctx context.Context, ref volume.Ref, options map[string]string) (driver.Info, error) {
	if err := ref.Check(); err != nil {
		return driver.Info{}, err
	}
	_, given, user, err := volume.SplitOptions(options)
	if err == nil && given {
		err = fault.New(fault.Invalid, "options that begin with %q belong to a mount", volume.OptionPrefix)
	}
	if err == nil {
		err = volume.CheckOptions(user)
	}
	if err != nil {
		return driver.Info{}, fault.Op(err, "create volume %s", ref)
	}
	d, err := s.driver(ref.Driver)
	if err != nil {
		return driver.Info{}, err
	}
	if err := s.waitReady(ctx); err != nil {
		return driver.Info{}, err
	}
	_, err = s.queues.Do(ctx, ref, "create", "", func(ctx context.Context) (string, error) {
		return "", s.createByHand(ctx, d, ref, user)
	})
	if err != nil {
		return driver.Info{}, err
	}
	return d.Get(ctx, ref.Name)
}

func (s *Service) createByHand(ctx context.Context, d driver.Driver, ref volume.Ref, options map[string]string) error {
	info, err := d.Get(ctx, ref.Name)
	if err == nil {
		return fault.New(fault.Exists, "create volume %s: it exists with uid %q", ref, info.UID)
	}
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	if known, ok := s.journal.Volume(ref); ok && known.Phase == journal.Creating {
		if err := s.recoverCreate(ctx, known); err != nil {
			return err
		}
	}
	v := journal.Volume{Ref: ref, UID: s.o.NewUID(), Self: true}
	if err := s.noteUnclaimed(v); err != nil {
		return err
	}
	if _, err := s.auth.Create(ctx, v.UID, ref, s.o.SelfPolicy, false); err != nil {
		if !fault.Is(err, fault.Unknown) {
			s.noteAnyway("create", "claim", journal.Done, journal.Volume{Ref: ref, UID: v.UID, Phase: journal.Removed})
		}
		return err
	}
	crashAt("create.claimed")
	if err := s.create(ctx, d, v, creation{options: options}); err != nil {
		if !fault.Is(err, fault.Unknown) {
			_, terr := s.auth.Tombstone(ctx, v.UID)
			s.logIf(terr, "take back the claim of a volume that was not created")
		}
		return err
	}
	return nil
}

// Remove deletes a volume on a person's word (`dvdcli remove`). Its claim must be free, and becomes a tombstone.
func (s *Service) Remove(ctx context.Context, ref volume.Ref) error {
	return s.inTurnToRemove(ctx, ref, func(ctx context.Context) (string, error) { return s.removeByHand(ctx, ref) })
}

// RemoveNow is Remove past the driver's bin: what was removed does not come back. When only the bin could not be emptied the volume is removed all the
// same, and the error says so.
func (s *Service) RemoveNow(ctx context.Context, ref volume.Ref) error {
	return s.inTurnToRemove(ctx, ref, func(ctx context.Context) (string, error) {
		d, err := s.driver(ref.Driver)
		if err != nil {
			return "", err
		}
		uid, err := s.uidOf(ctx, d, ref) // others of the name may lie in the bin
		if err != nil {
			return "", err
		}
		outcome, err := s.removeByHand(ctx, ref)
		if err == nil {
			err = s.purge(ctx, ref, uid)
		}
		return outcome, err
	})
}

// purge deletes a volume that was removed from its driver's bin, if that has one. The volume's turn is held. To do it again does no harm.
func (s *Service) purge(ctx context.Context, ref volume.Ref, uid string) error {
	d, err := s.driver(ref.Driver)
	if err != nil {
		return err
	}
	bin, ok := d.(driver.Binner)
	if !ok || uid == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	if err := bin.Purge(ctx, ref.Name, uid); err != nil && !fault.Is(err, fault.NotFound) {
		return fault.Op(err, "volume %s (uid %s) is removed, but still in the bin", ref, uid)
	}
	s.log.Info("purged", zap.Stringer("volume", ref), zap.String("uid", uid))
	return nil
}

func (s *Service) inTurnToRemove(ctx context.Context, ref volume.Ref, f func(context.Context) (string, error)) error {
	if err := ref.Check(); err != nil {
		return err
	}
	if err := s.waitReady(ctx); err != nil {
		return err
	}
	_, err := s.queues.Do(ctx, ref, "remove", "", f)
	return err
}

func (s *Service) removeByHand(ctx context.Context, ref volume.Ref) (string, error) {
	claim, err := s.auth.ClaimByRef(ctx, ref)
	if fault.Is(err, fault.NotFound) {
		return s.remove(ctx, journal.Volume{Ref: ref}) // made without us, and never claimed
	}
	if err != nil {
		return "", err
	}
	return s.removeClaimed(ctx, claim)
}

// uidOf gives the uid of the volume that has a name now, by its claim or, where it has none, by its driver; "" when neither knows one.
func (s *Service) uidOf(ctx context.Context, d driver.Driver, ref volume.Ref) (string, error) {
	claim, err := s.auth.ClaimByRef(ctx, ref)
	if !fault.Is(err, fault.NotFound) {
		return claim.VolumeUID, err
	}
	info, err := d.Get(ctx, ref.Name)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	return info.UID, err
}

// removeClaimed takes the claim, so that nobody mounts meanwhile, deletes the volume, and ends its uid.
func (s *Service) removeClaimed(ctx context.Context, claim lease.ClaimVersion) (string, error) {
	v := journal.Volume{Ref: claim.Ref, UID: claim.VolumeUID, Shared: claim.Shared, Nonce: s.o.NewNonce(), Generation: s.keeper.Generation()}
	if now, ok := s.journal.Volume(claim.Ref); ok && active(now) {
		return "", fault.New(fault.Conflict, "remove volume %s: it is %s on this node", claim.Ref, now.Phase)
	}
	if !claim.Shared && !claim.Tombstone {
		err := s.persist(ctx, "claim "+claim.Ref.String()+" to remove it", func(ctx context.Context) error {
			cv, _, err := s.auth.SelfClaim(ctx, lease.SelfClaimArgs{Ref: claim.Ref, Nonce: v.Nonce, Node: s.nodeUID, Generation: v.Generation,
				Grade: s.grade(), Policy: s.o.SelfPolicy, Owner: "remove"})
			if err == nil {
				v.Epoch = cv.Epoch
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	outcome, err := s.remove(ctx, v)
	if rerr := s.release(ctx, v); rerr != nil {
		s.retryRelease(v, rerr)
	}
	if err != nil {
		return "", err
	}
	_, err = s.auth.Tombstone(ctx, v.UID)
	return outcome, fault.Op(err, "remove volume %s", v.Ref)
}

// remove deletes the volume at its driver. The turn is held, and so is the claim if there is one.
func (s *Service) remove(ctx context.Context, v journal.Volume) (string, error) {
	d, err := s.driver(v.Ref.Driver)
	if err != nil {
		return "", err
	}
	if now, ok := s.journal.Volume(v.Ref); ok && active(now) {
		return "", fault.New(fault.Conflict, "remove volume %s: it is %s on this node", v.Ref, now.Phase)
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Limits.Driver)
	defer cancel()
	v.Phase = journal.Removing
	if err := s.journal.Append("remove", "driver", journal.Intent, v); err != nil {
		return "", err
	}
	crashAt("remove.intent")
	outcome := "removed"
	err = d.Remove(ctx, v.Ref.Name, v.UID)
	if fault.Is(err, fault.NotFound) {
		outcome, err = "absent", nil
	}
	if fault.Is(err, fault.Unknown) {
		if _, gerr := d.Get(ctx, v.Ref.Name); fault.Is(gerr, fault.NotFound) {
			err = nil
		}
	}
	if err != nil {
		known := v
		known.Phase = journal.Known
		if !fault.Is(err, fault.Unknown) {
			s.noteAnyway("remove", "driver", journal.Done, known)
		}
		return "", err
	}
	crashAt("remove.driver")
	s.noteAnyway("remove", "driver", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Removed})
	crashAt("remove.done")
	s.log.Info("removed", zap.Stringer("volume", v.Ref), zap.String("uid", v.UID), zap.String("outcome", outcome))
	return outcome, nil
}

// retryRelease repeats L3 for a claim under which nothing is mounted.
func (s *Service) retryRelease(v journal.Volume, why error) {
	s.log.Warn("claim is given back later", zap.Stringer("volume", v.Ref), zap.Error(why))
	s.spawn(func() {
		for pause := s.o.Limits.RetryMin; sleep(s.life, pause); pause = min(pause*2, s.o.Limits.RetryMax) {
			if s.release(s.life, v) == nil {
				return
			}
		}
	})
}

func (s *Service) logIf(err error, what string) {
	if err != nil {
		s.log.Warn(what, zap.Error(err))
	}
}

package isolator

import (
	"context"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// unasked mounts without a grant: stock Marathon, or a person. The node claims the volume by itself, in a new epoch for every container.
func (m *mounting) unasked(ctx context.Context) (string, error) {
	v, ok := m.s.journal.Volume(m.req.Ref)
	if ok && active(v) {
		_, joins := v.Owners[m.req.Owner]
		if v.Phase == journal.Mounted && (v.Shared || joins && m.req.Owner != OwnerMesos && !v.Gone) {
			return m.again(ctx, v) // an owner with a name of its own (a container of Docker's) asks once more for what it has
		}
		if !v.Shared && v.Phase == journal.Mounted && !v.Gone {
			return m.rekey(ctx, v)
		}
		if err := m.s.takeDown(ctx, v, takeDown{wait: m.s.o.Limits.UsersMount}); err != nil {
			return "", fault.Op(err, "mount volume %s: its last use has not ended", m.req.Ref)
		}
	}
	if ok && v.Phase == journal.Creating {
		if err := m.s.recoverCreate(ctx, v); err != nil {
			return "", fault.Op(err, "mount volume %s: find out what came of its creation", m.req.Ref)
		}
		v, _ = m.s.journal.Volume(m.req.Ref)
	}
	claim, err := m.s.auth.ClaimByRef(ctx, m.req.Ref)
	switch {
	case fault.Is(err, fault.NotFound):
		return m.unknownVolume(ctx, ok && v.Phase != journal.Removed)
	case err != nil:
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	}
	m.seen = &claim
	m.v = journal.Volume{Ref: m.req.Ref, UID: claim.VolumeUID, Self: true, Shared: claim.Shared}
	if !claim.Shared {
		if err := m.selfClaim(ctx, ""); err != nil {
			return "", err
		}
	}
	return m.attach(ctx)
}

// unknownVolume mounts a volume that the authority does not know: one that exists already is adopted; one that does not is created,
// unless this node has seen it before.
func (m *mounting) unknownVolume(ctx context.Context, seen bool) (string, error) {
	info, err := m.d.Get(ctx, m.req.Ref.Name)
	absent := fault.Is(err, fault.NotFound)
	switch {
	case err != nil && !absent:
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	case absent && m.req.ExplicitCreate:
		return "", fault.Op(err, "mount volume %s: creation was ruled out", m.req.Ref)
	case absent && seen:
		return "", fault.Op(err, "mount volume %s: this node has had it before; nothing is created in its place", m.req.Ref)
	}
	if err := m.s.ours(ctx, info); err != nil {
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	}
	m.v = journal.Volume{Ref: m.req.Ref, UID: m.s.o.NewUID(), Self: true}
	if err := m.s.noteUnclaimed(m.v); err != nil {
		return "", err
	}
	if err := m.selfClaim(ctx, m.v.UID); err != nil {
		if !fault.Is(err, fault.Unknown) {
			m.s.noteAnyway("create", "claim", journal.Done, journal.Volume{Ref: m.v.Ref, UID: m.v.UID, Phase: journal.Removed})
		}
		return "", err
	}
	if absent {
		err = m.s.create(ctx, m.d, m.v, creation{options: m.user})
	} else {
		err = m.s.adopt(ctx, m.d, m.v)
	}
	if err != nil {
		err = m.giveBack(ctx, err)
		if absent && !fault.Is(err, fault.Unknown) {
			m.s.forgetUncreated(ctx, m.v)
		}
		return "", err
	}
	return m.attach(ctx)
}

// noteUnclaimed journals that a claim with a new uid is about to be made, so that a crash before the volume is there leaves no claim of a
// volume that nobody ever made.
func (s *Service) noteUnclaimed(v journal.Volume) error {
	v.Phase = journal.Creating
	return s.journal.Append("create", "claim", journal.Intent, v)
}

// forgetUncreated ends the uid of a volume that was surely never made, so that the name is as good as new.
func (s *Service) forgetUncreated(ctx context.Context, v journal.Volume) {
	if _, err := s.auth.Tombstone(ctx, v.UID); err != nil && !fault.Is(err, fault.NotFound) {
		s.logIf(err, "take back the claim of a volume that was not created")
		return
	}
	s.noteAnyway("create", "driver", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Removed})
}

// selfClaim takes the claim, free to held in one step.
func (m *mounting) selfClaim(ctx context.Context, newUID string) error {
	s := m.s
	s.awaitWatchdog(ctx)
	if err := s.keeper.MayMount(s.o.Clock.Now(), s.o.Timings.M); err != nil {
		return fault.Op(err, "mount volume %s", m.req.Ref)
	}
	m.v.Nonce, m.v.Generation = s.o.NewNonce(), s.keeper.Generation()
	crashAt("mount.checked")
	err := s.persist(ctx, "claim "+m.req.Ref.String(), func(ctx context.Context) error {
		cv, _, err := s.auth.SelfClaim(ctx, lease.SelfClaimArgs{Ref: m.req.Ref, NewUID: newUID, Nonce: m.v.Nonce, Node: s.nodeUID,
			Generation: m.v.Generation, Grade: s.grade(), Policy: s.o.SelfPolicy, Owner: m.req.Owner, Seen: m.seen})
		m.seen = nil
		if err == nil {
			m.v.UID, m.v.Epoch = cv.VolumeUID, cv.Epoch
			s.noteHold(cv)
		}
		return err
	})
	if err == nil {
		s.keeper.NoteEpoch(m.v.Epoch)
		crashAt("mount.held")
	}
	return err
}

// rekey mounts for the next container while the one before may still die: Mesos then never unmounts for the first. Once
// nobody uses the volume, the claim goes to a new epoch and the mount stays.
func (m *mounting) rekey(ctx context.Context, v journal.Volume) (string, error) {
	s := m.s
	if _, other := v.Owners[m.req.Owner]; !other && len(v.Owners) > 0 {
		return "", fault.New(fault.Conflict, "mount volume %s: it is in use here by %v", v.Ref, ownerNames(v.Owners))
	}
	if err := s.present(ctx, v); err != nil {
		return "", fault.Op(err, "mount volume %s again", v.Ref)
	}
	if err := s.waitUnused(ctx, v, s.o.Limits.UsersMount); err != nil {
		return "", fault.Op(err, "mount volume %s: its last use has not ended", v.Ref)
	}
	if err := s.keeper.MayMount(s.o.Clock.Now(), 0); err != nil {
		return "", fault.Op(err, "mount volume %s", v.Ref)
	}
	s.awaitWatchdog(ctx)
	next := v
	next.Nonce, next.MountBoot, next.Self, next.Task, next.Mounter = s.o.NewNonce(), m.begun, true, "", m.req.Caller.String()
	err := s.persist(ctx, "claim "+v.Ref.String()+" anew", func(ctx context.Context) error {
		cv, err := s.auth.Rekey(ctx, lease.RekeyArgs{VolumeUID: v.UID, Epoch: v.Epoch, OldNonce: v.Nonce, Nonce: next.Nonce, Node: s.nodeUID,
			Generation: v.Generation, Grade: s.grade(), Owner: m.req.Owner})
		if err == nil {
			next.Epoch = cv.Epoch
			s.noteHold(cv)
		}
		return err
	})
	if err != nil {
		return "", fault.Op(err, "mount volume %s", v.Ref)
	}
	next.Owners = withOwner(nil, m.req.Owner, s.o.Now())
	err = s.journal.Append("mount", "rekey", journal.Intent, next)
	if err == nil {
		err = s.tellWatchdog()
	}
	if err != nil { // the claim is at the new epoch already
		next.Phase = journal.Unmounting
		s.noteAnyway("mount", "rekey", journal.Unknown, next)
		s.retryTakeDown(next, err)
		return "", err
	}
	s.log.Info("mounted again for the next container", zap.Stringer("volume", v.Ref), zap.Uint64("epoch", uint64(next.Epoch)))
	return next.Path, nil
}

// ours refuses a volume that carries the label of another cluster.
func (s *Service) ours(ctx context.Context, info driver.Info) error {
	cluster, err := s.clusterID(ctx)
	if err != nil {
		return err
	}
	if info.Cluster != "" && info.Cluster != cluster {
		return fault.New(fault.Conflict, "it belongs to cluster %s, not to this one (%s)", info.Cluster, cluster)
	}
	return nil
}

func (s *Service) clusterID(ctx context.Context) (string, error) {
	s.mu.Lock()
	known := s.cluster
	s.mu.Unlock()
	if known != "" {
		return known, nil
	}
	root, err := s.auth.Root(ctx)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster = root.Cluster
	return s.cluster, nil
}

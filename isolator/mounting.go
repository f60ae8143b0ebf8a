package isolator

import (
	"context"
	"fmt"
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/identity"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// OwnerMesos is the owner that stands for all of Mesos's uses of a volume: it mounts for every container and
// unmounts once, after the last.
const OwnerMesos = "mesos"

// MountRequest asks for a volume to be mounted here.
type MountRequest struct {
	Ref     volume.Ref
	Options map[string]string // the user's and ours
	Owner   string            // "" is OwnerMesos
	// ExplicitCreate refuses to create, whatever else would allow it.
	ExplicitCreate bool
	// TakeGrant mounts under the grant that the authority shows for this node, when there is one and Options name none.
	TakeGrant bool
	Caller    Caller
}

// Caller is the process at the other end of the socket.
type Caller struct {
	PID      int
	UID, GID int
	// Started is when it started on CLOCK_BOOTTIME, 0 when that is not known.
	Started time.Duration
}

// String names the process for good: a pid alone comes again.
func (c Caller) String() string { return fmt.Sprintf("%d@%d", c.PID, c.Started) }

// mounting is one mount on its way through the steps.
type mounting struct {
	s     *Service
	d     driver.Driver
	facts driver.Facts
	req   MountRequest
	grant volume.Grant
	given bool // grant is there
	user  map[string]string
	begun int64 // boot clock
	v     journal.Volume
	seen  *lease.ClaimVersion // the claim as it was read last, to be used once; nil when it was not
}

// Mount mounts a volume and gives its path. With a grant among the options the claim must be granted to this node in that epoch, or held
// by it already in that epoch (then the mount is joined). Without one, the node claims the volume by itself, and
// creates it only if neither its journal nor the authority has ever known it.
func (s *Service) Mount(ctx context.Context, r MountRequest) (string, error) {
	m, err := s.newMounting(ctx, r)
	if err != nil {
		return "", err
	}
	key := ""
	if m.given {
		key = fmt.Sprintf("mount %s %d %s", m.grant.VolumeUID, m.grant.Epoch, m.grant.Nonce)
	}
	return s.queues.Do(ctx, r.Ref, "mount", key, m.run)
}

func (s *Service) newMounting(ctx context.Context, r MountRequest) (*mounting, error) {
	if err := r.Ref.Check(); err != nil {
		return nil, err
	}
	if r.Owner == "" {
		r.Owner = OwnerMesos
	}
	m := &mounting{s: s, req: r, begun: identity.BootClock()}
	var err error
	if m.grant, m.given, m.user, err = volume.SplitOptions(r.Options); err != nil {
		return nil, fault.Op(err, "mount volume %s", r.Ref)
	}
	if err := volume.CheckOptions(m.user); err != nil {
		return nil, fault.Op(err, "mount volume %s", r.Ref)
	}
	if m.d, err = s.driver(r.Ref.Driver); err != nil {
		return nil, err
	}
	if s.isDraining() {
		return nil, fault.New(fault.Unavailable, "mount volume %s: this node is being drained", r.Ref)
	}
	return m, s.waitReady(ctx)
}

func (m *mounting) run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, m.s.o.Limits.Driver+m.s.o.Limits.UsersMount)
	defer cancel()
	var err error
	if m.facts, err = m.s.factsOf(ctx, m.d); err != nil {
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	}
	if !m.given && m.req.TakeGrant {
		if err := m.takeGrant(ctx); err != nil {
			return "", err
		}
	}
	if m.given {
		return m.granted(ctx)
	}
	return m.unasked(ctx)
}

// granted mounts under a grant of the framework.
func (m *mounting) granted(ctx context.Context) (string, error) {
	if v, ok := m.s.journal.Volume(m.req.Ref); ok && active(v) {
		if v.UID == m.grant.VolumeUID && v.Epoch == m.grant.Epoch && v.Nonce == m.grant.Nonce && v.Phase == journal.Mounted {
			return m.again(ctx, v)
		}
		if err := m.s.clearStale(ctx, v); err != nil {
			return "", fault.Op(err, "mount volume %s epoch %d", m.req.Ref, m.grant.Epoch)
		}
	}
	claim, err := m.s.auth.Claim(ctx, m.grant.VolumeUID)
	m.seen = &claim
	switch {
	case err != nil:
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	case claim.Ref != m.req.Ref || claim.Tombstone:
		return "", fault.New(fault.Conflict, "mount volume %s: the claim %s is of volume %s (removed: %t)", m.req.Ref, m.grant.VolumeUID, claim.Ref, claim.Tombstone)
	}
	m.v = journal.Volume{Ref: m.req.Ref, UID: claim.VolumeUID, Epoch: m.grant.Epoch, Nonce: m.grant.Nonce, Task: m.grant.Task, Shared: claim.Shared}
	crashAt("mount.checked")
	if !claim.Shared {
		if err := m.hold(ctx); err != nil {
			return "", err
		}
	}
	crashAt("mount.held")
	return m.attach(ctx)
}

// hold is L2: from here on the node may have the volume mounted.
func (m *mounting) hold(ctx context.Context) error {
	s := m.s
	s.awaitWatchdog(ctx)
	if err := s.keeper.MayMount(s.o.Clock.Now(), s.o.Timings.M); err != nil {
		return fault.Op(err, "mount volume %s", m.req.Ref)
	}
	s.keeper.NoteEpoch(m.grant.Epoch)
	m.v.Generation = s.keeper.Generation()
	err := s.persist(ctx, "take claim of "+m.req.Ref.String(), func(ctx context.Context) error {
		cv, err := s.auth.Hold(ctx, lease.HoldArgs{VolumeUID: m.v.UID, Epoch: m.v.Epoch, Nonce: m.v.Nonce, Node: s.nodeUID,
			Generation: m.v.Generation, Grade: s.grade(), Owner: m.grant.Task, Seen: m.seen})
		m.seen = nil
		if err == nil {
			s.noteHold(cv)
		}
		return err
	})
	if fault.Is(err, fault.Unknown) {
		return m.giveBack(ctx, err) // it may be held all the same
	}
	return err
}

// again answers a repeated mount of an epoch that is mounted: a second container of the pod, or a caller that was killed and
// asks once more.
func (m *mounting) again(ctx context.Context, v journal.Volume) (string, error) {
	if !v.Shared {
		if err := m.s.keeper.MayMount(m.s.o.Clock.Now(), 0); err != nil {
			return "", fault.Op(err, "mount volume %s", v.Ref)
		}
	}
	if err := m.s.present(ctx, v); err != nil {
		return "", fault.Op(err, "mount volume %s again", v.Ref)
	}
	if _, ok := v.Owners[m.req.Owner]; !ok {
		v.Owners = withOwner(v.Owners, m.req.Owner, m.s.o.Now())
		if err := m.s.journal.Append("mount", "owner", journal.Intent, v); err != nil {
			return "", err
		}
	}
	return v.Path, nil
}

// attach does everything after the hold; on failure it undoes all of it, the hold included.
func (m *mounting) attach(ctx context.Context) (string, error) {
	if err := m.exists(ctx); err != nil {
		return "", m.giveBack(ctx, err)
	}
	m.v.Phase, m.v.BootID, m.v.MountBoot = journal.Mounting, m.s.o.BootID, m.begun
	m.v.Mounter = m.req.Caller.String()
	m.v.MountID = mountID(m.v)
	if p, ok := m.d.(driver.Placer); ok {
		m.v.Path = p.WillMountAt(m.req.Ref.Name)
	}
	if err := m.s.journal.Append("mount", "driver", journal.Intent, m.v); err != nil {
		return "", m.giveBack(ctx, err)
	}
	crashAt("mount.intent")
	if err := m.s.tellWatchdog(); err != nil {
		return "", m.undo(ctx, err)
	}
	expected := m.v.Path
	path, err := m.callDriver(ctx)
	if err != nil {
		return "", m.undo(ctx, err)
	}
	crashAt("mount.driver")
	if path, err = m.verify(ctx, path); err != nil {
		return "", m.undo(ctx, err)
	}
	crashAt("mount.verified")
	m.v.Phase, m.v.Path, m.v.MountedAt = journal.Mounted, path, m.s.o.Now()
	m.v.Owners = withOwner(nil, m.req.Owner, m.s.o.Now())
	if err := m.s.journal.Append("mount", "driver", journal.Done, m.v); err != nil {
		return "", m.undo(ctx, err)
	}
	if path != expected { // what the watchdog was told before the mount is else still right
		if err := m.s.tellWatchdog(); err != nil {
			return "", m.undo(ctx, err)
		}
	}
	crashAt("mount.done")
	m.s.log.Info("mounted", zap.Stringer("volume", m.v.Ref), zap.Uint64("epoch", uint64(m.v.Epoch)), zap.String("path", path),
		zap.String("owner", m.req.Owner), zap.Int("caller", m.req.Caller.PID), zap.Int("uid", m.req.Caller.UID), zap.Duration("took", time.Duration(identity.BootClock()-m.begun)))
	return path, nil
}

// mountID is what a driver knows the mount of one epoch by.
func mountID(v journal.Volume) string { return fmt.Sprintf("holdfast-%s-%d", v.UID, v.Epoch) }

// exists makes sure that the driver will find the volume: a mount never creates. The drivers that keep labels check the uid too.
func (m *mounting) exists(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.s.o.Limits.Driver)
	defer cancel()
	_, err := m.d.Get(ctx, m.req.Ref.Name)
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.NotFound, err, "mount volume %s: it must exist (uid %s) and does not; nothing is created in its place", m.req.Ref, m.v.UID)
	}
	return fault.Op(err, "mount volume %s", m.req.Ref)
}

func (m *mounting) callDriver(ctx context.Context) (string, error) {
	// I3 once more, now that the mount is about to begin, and for the generation of the hold: its answer may have come so late that
	// the lease was lost, all claims given back and a new generation begun.
	if !m.v.Shared {
		if err := m.s.keeper.Covers(m.v.Generation, m.s.o.Clock.Now(), m.s.o.Timings.M); err != nil {
			return "", fault.Op(err, "mount volume %s", m.req.Ref)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, m.s.o.Limits.Driver)
	defer cancel()
	uid := m.v.UID
	return m.d.Mount(ctx, driver.MountSpec{Name: m.req.Ref.Name, UID: uid, ID: m.v.MountID, Options: m.user, Shared: m.v.Shared})
}

// verify looks at what the driver gave, and whether the lease still covers it. It gives the path without links.
func (m *mounting) verify(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	path, err := mount.CheckPath(ctx, path, m.facts.Root)
	if err != nil {
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	}
	at, err := mount.Is(path)
	if err != nil {
		return "", fault.Op(err, "mount volume %s", m.req.Ref)
	}
	m.v.Path, m.v.Shown = path, at
	if m.v.Shared {
		return path, nil
	}
	if err := m.s.keeper.MayMount(m.s.o.Clock.Now(), 0); err != nil {
		return "", fault.Op(err, "mount volume %s: it took too long", m.req.Ref)
	}
	if m.s.keeper.Generation() != m.v.Generation {
		return "", fault.New(fault.Unavailable, "mount volume %s: the node's lease was lost meanwhile", m.req.Ref)
	}
	return path, nil
}

// undo takes down whatever the driver may have done and gives the claim back; what does not work now is repeated until it
// does. It returns the cause.
func (m *mounting) undo(ctx context.Context, cause error) error {
	m.v.Phase = journal.Unmounting
	m.s.noteAnyway("mount", "undo", journal.Unknown, m.v)
	if err := m.s.takeDown(ctx, m.v, takeDown{}); err != nil {
		m.s.retryTakeDown(m.v, err)
		return fault.Op(cause, "%s (taking it down again is being repeated: %v)", cause.Error(), err)
	}
	return cause
}

// giveBack is undo when the driver was not asked yet.
func (m *mounting) giveBack(ctx context.Context, cause error) error {
	m.v.Gone = true
	return m.undo(ctx, cause)
}

// clearStale deals with an epoch that is up here while another one is asked for. If this node holds it by the authority's word, the
// caller must wait until it is given back; if not, it was taken from this node and must not stay up.
func (s *Service) clearStale(ctx context.Context, v journal.Volume) error {
	if v.Shared {
		return s.takeDown(ctx, v, takeDown{wait: s.o.Limits.UsersMount})
	}
	claim, err := s.auth.Claim(ctx, v.UID)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err == nil && claim.State == lease.Held && claim.Node == s.nodeUID && claim.Epoch == v.Epoch && claim.Nonce == v.Nonce {
		if v.Phase == journal.Mounted {
			return fault.New(fault.Conflict, "epoch %d of it is mounted here", v.Epoch)
		}
		return s.takeDown(ctx, v, takeDown{wait: s.o.Limits.UsersMount})
	}
	return s.takeDown(ctx, v, takeDown{fence: true})
}

// active tells whether something of a volume may be mounted or held here.
func active(v journal.Volume) bool {
	switch v.Phase {
	case journal.Mounting, journal.Mounted, journal.Unmounting:
		return true
	}
	return false
}

func withOwner(owners map[string]time.Time, owner string, now time.Time) map[string]time.Time {
	out := maps.Clone(owners)
	if out == nil {
		out = map[string]time.Time{}
	}
	out[owner] = now
	return out
}

func withoutOwner(owners map[string]time.Time, owner string) map[string]time.Time {
	out := maps.Clone(owners)
	delete(out, owner)
	return out
}

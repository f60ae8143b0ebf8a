package isolator

import (
	"context"
	"slices"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// A claim says how well its holder was fenced when it was taken, and by that it is freed, or not, when the node is lost. A watchdog that missed its turn for a
// moment on a busy machine must not leave a claim that waits for an operator's word for good: the holder corrects it when the watchdog is back, and
// also when it stays away.

// noteHold remembers the grade that a hold was taken with.
func (s *Service) noteHold(c lease.ClaimVersion) {
	if c.Shared || c.State != lease.Held || c.Node != s.nodeUID {
		return
	}
	s.mu.Lock()
	known, was := s.grades[c.Ref]
	s.grades[c.Ref] = heldGrade{c.VolumeUID, c.Epoch, c.Fence}
	s.mu.Unlock()
	if c.Fence == lease.GradeNone && s.watched() && !(was && known.epoch == c.Epoch && known.grade == c.Fence) {
		s.log.Warn("held with fence grade none, because the watchdog was late: it is corrected when that is back", zap.Stringer("volume", c.Ref), zap.Uint64("epoch", uint64(c.Epoch)))
	}
}

// heldGrade is what a held claim says of the fence.
type heldGrade struct {
	uid   string
	epoch volume.Epoch
	grade lease.Grade
}

// gradeOf gives the grade in the claim of what is up, "" when that is not known.
func (s *Service) gradeOf(v journal.Volume) lease.Grade {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g, ok := s.grades[v.Ref]; ok && g.uid == v.UID && g.epoch == v.Epoch {
		return g.grade
	}
	return ""
}

// regrade writes a grade into the held claims that say another. The watchdog has all of them in its list.
func (s *Service) regrade(ctx context.Context, grade lease.Grade) {
	for _, v := range s.journal.Volumes() {
		if v.Shared || v.Phase != journal.Mounted || v.Generation != s.keeper.Generation() {
			continue
		}
		if had := s.gradeOf(v); had == "" || had == grade {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, s.o.Limits.Authority)
		c, err := s.auth.Regrade(limit, lease.RegradeArgs{VolumeUID: v.UID, Epoch: v.Epoch, Nonce: v.Nonce, Node: s.nodeUID, Generation: v.Generation, Grade: grade})
		cancel()
		switch {
		case err == nil && c.Fence == grade: // else the node's record does not say so yet
			s.log.Info("corrected the fence grade of a held claim", zap.Stringer("volume", v.Ref), zap.Uint64("epoch", uint64(v.Epoch)), zap.String("grade", string(grade)))
			s.noteHold(c)
		case fault.Is(err, fault.Conflict) || fault.Is(err, fault.NotFound): // given back meanwhile, or no longer ours: others look after that
		case err != nil:
			s.log.Debug("correct the fence grade", zap.Stringer("volume", v.Ref), zap.Error(err))
			return // the authority is away
		}
	}
}

// ungraded forgets what is up no more.
func (s *Service) ungraded() {
	s.mu.Lock()
	refs := make([]volume.Ref, 0, len(s.grades))
	for ref := range s.grades {
		refs = append(refs, ref)
	}
	s.mu.Unlock()
	refs = slices.DeleteFunc(refs, func(ref volume.Ref) bool {
		v, ok := s.journal.Volume(ref)
		return ok && active(v)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ref := range refs {
		delete(s.grades, ref)
	}
}

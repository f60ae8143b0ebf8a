package isolator

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// requestPoll is how often requests are read when no watch fires: watches are hints.
const requestPoll = 2 * time.Second

// watchRequests carries out what the framework asks of this node.
func (s *Service) watchRequests(ctx context.Context) {
	changed := s.auth.Watch(ctx, "requests/"+s.nodeUID+"/")
	for {
		s.readRequests(ctx)
		timer := time.NewTimer(requestPoll)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (s *Service) readRequests(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, s.o.Limits.Authority)
	defer cancel()
	all, err := s.auth.Requests(call, s.nodeUID)
	if err != nil && ctx.Err() == nil {
		s.problem("requests", err.Error())
	} else {
		s.problem("requests", "")
	}
	for _, r := range all {
		if r.State == lease.RequestPending && s.begin(r.Op) {
			do := s.carryOut
			if r.Kind == lease.RequestOperation {
				do = s.carryOutOperation
			}
			s.spawn(func() { do(ctx, r) })
		}
	}
}

func (s *Service) begin(op string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handled[op] {
		return false
	}
	s.handled[op] = true
	return true
}

func (s *Service) end(op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.handled, op)
}

// carryOut does one request and writes its outcome. What is unknown or not possible just now stays pending and is tried again.
func (s *Service) carryOut(ctx context.Context, r lease.RequestVersion) {
	defer s.end(r.Op)
	pause := s.o.Limits.RetryMin
	for {
		do := s.queues.Do
		if r.Kind == lease.RequestFence {
			do = s.queues.DoUrgently
		}
		outcome, err := do(ctx, r.Ref, string(r.Kind), "request "+r.Op, func(ctx context.Context) (string, error) { return s.request(ctx, r.Request) })
		if c := fault.ClassOf(err); c == fault.Unknown || c == fault.Unavailable {
			s.problem("request "+r.Op, err.Error())
			if !sleep(ctx, pause) {
				return
			}
			pause = min(pause*2, s.o.Limits.RetryMax)
			continue
		}
		s.problem("request "+r.Op, "")
		s.log.Info("request", zap.String("op", r.Op), zap.String("kind", string(r.Kind)), zap.Stringer("volume", r.Ref), zap.String("outcome", outcome), zap.Error(err))
		ferr := s.persist(ctx, "answer request "+r.Op, func(ctx context.Context) error {
			return s.auth.FinishRequest(ctx, s.nodeUID, r, outcome, err)
		})
		if ferr == nil || fault.Is(ferr, fault.NotFound) {
			return
		}
		s.logIf(ferr, "answer a request")
		if !sleep(ctx, pause) {
			return
		}
	}
}

// request does one request in the volume's queue. Doing it twice is doing it once.
func (s *Service) request(ctx context.Context, r lease.Request) (string, error) {
	if err := r.Ref.Check(); err != nil {
		return "", err
	}
	switch r.Kind {
	case lease.RequestCreate:
		return s.requestCreate(ctx, r)
	case lease.RequestRemove:
		outcome, err := s.requestRemove(ctx, r)
		if err == nil && r.Now {
			err = s.purge(ctx, r.Ref, r.VolumeUID)
		}
		return outcome, err
	case lease.RequestRelease, lease.RequestFence:
		return s.requestRelease(ctx, r)
	}
	return "", fault.New(fault.Invalid, "this isolator knows no request %q", r.Kind)
}

// requestCreate looks first: a volume that is there is adopted, one that is absent is created, and what is unknown waits.
func (s *Service) requestCreate(ctx context.Context, r lease.Request) (string, error) {
	if err := volume.CheckOptions(r.Options); err != nil {
		return "", err
	}
	d, err := s.driver(r.Ref.Driver)
	if err != nil {
		return "", err
	}
	claim, err := s.auth.Claim(ctx, r.VolumeUID)
	switch {
	case fault.Is(err, fault.NotFound):
		return "", fault.New(fault.Conflict, "create volume %s: the authority knows no claim %s", r.Ref, r.VolumeUID)
	case err != nil:
		return "", err
	case claim.Ref != r.Ref || claim.Tombstone:
		return "", fault.New(fault.Conflict, "create volume %s: claim %s is of volume %s (removed: %t)", r.Ref, r.VolumeUID, claim.Ref, claim.Tombstone)
	}
	v := journal.Volume{Ref: r.Ref, UID: r.VolumeUID, Shared: claim.Shared}
	info, err := d.Get(ctx, r.Ref.Name)
	if eerr := s.encrypts(ctx, d, r, info, err); eerr != nil {
		return "", eerr
	}
	switch {
	case err == nil:
		mine := info.UID != "" && info.UID == r.VolumeUID
		if r.NewOnly && !mine {
			return "", fault.New(fault.Exists, "create volume %s: it exists with uid %q", r.Ref, info.UID)
		}
		if mine {
			s.noteKnown(v)
			return "created", nil // by this very request, before a crash
		}
		if err := s.ours(ctx, info); err != nil {
			return "", fault.Op(err, "adopt volume %s", r.Ref)
		}
		return "adopted", s.adopt(ctx, d, v)
	case !fault.Is(err, fault.NotFound):
		return "", err
	case r.AdoptOnly:
		return "", fault.Op(err, "adopt volume %s", r.Ref)
	}
	err = s.create(ctx, d, v, creation{size: volume.Bytes(r.SizeBytes), options: r.Options, owner: r.User, mode: r.Mode, source: sourceOf(r.Source)})
	if err != nil {
		return "", err
	}
	return "created", nil
}

// encrypts refuses a volume that must be encrypted and would not be: a driver that is not known to do it may ignore the option, and one that exists stays as it is.
func (s *Service) encrypts(ctx context.Context, d driver.Driver, r lease.Request, info driver.Info, got error) error {
	if !r.Encrypt || info.Encrypted || got != nil && !fault.Is(got, fault.NotFound) {
		return nil
	}
	if got == nil {
		return fault.New(fault.Conflict, "volume %s exists and is not known to be encrypted, which its app or class asks for", r.Ref)
	}
	f, err := s.factsOf(ctx, d)
	if err != nil {
		return fault.Op(err, "create volume %s", r.Ref)
	}
	if !f.Encrypts {
		return fault.New(fault.Invalid, "create volume %s: its app or class asks for encryption, and driver %s on this node is not known to encrypt volumes (a pool does with backend=loop, fs=ext4 and key-file or key-command); nothing was created",
			r.Ref, r.Ref.Driver)
	}
	return nil
}

// sourceOf is what a request wants a new volume to be a copy of.
func sourceOf(s *lease.RequestSource) *driver.Source {
	if s == nil {
		return nil
	}
	return &driver.Source{Volume: s.Volume, UID: s.UID, Snapshot: s.Snapshot}
}

// noteKnown records a volume as known unless something is going on with it.
func (s *Service) noteKnown(v journal.Volume) {
	if now, ok := s.journal.Volume(v.Ref); ok && (active(now) || now.Phase == journal.Known && now.UID == v.UID) {
		return
	}
	v.Phase = journal.Known
	s.noteAnyway("create", "found", journal.Done, v)
}

// requestRemove deletes the volume under its claim. When the framework has granted the claim for this, the node holds it in that
// epoch; otherwise it must be free.
func (s *Service) requestRemove(ctx context.Context, r lease.Request) (string, error) {
	claim, err := s.auth.Claim(ctx, r.VolumeUID)
	if fault.Is(err, fault.NotFound) {
		return "", fault.New(fault.Conflict, "remove volume %s: the authority knows no claim %s", r.Ref, r.VolumeUID)
	}
	if err != nil {
		return "", err
	}
	if claim.Ref != r.Ref {
		return "", fault.New(fault.Conflict, "remove volume %s: claim %s is of volume %s", r.Ref, r.VolumeUID, claim.Ref)
	}
	if claim.Tombstone {
		// The removal was done and recorded; this request is a late or doubled one. The name may belong to another volume by now, and
		// not every driver can tell the two apart.
		return "absent", nil
	}
	if r.Epoch == 0 || r.Nonce == "" || claim.Shared {
		return s.removeClaimed(ctx, claim)
	}
	v := journal.Volume{Ref: r.Ref, UID: r.VolumeUID, Epoch: r.Epoch, Nonce: r.Nonce, Generation: s.keeper.Generation()}
	err = s.persist(ctx, "take claim of "+r.Ref.String(), func(ctx context.Context) error {
		_, err := s.auth.Hold(ctx, lease.HoldArgs{VolumeUID: v.UID, Epoch: v.Epoch, Nonce: v.Nonce, Node: s.nodeUID, Generation: v.Generation, Grade: s.grade(), Owner: "remove"})
		return err
	})
	if err != nil {
		return "", err
	}
	outcome, err := s.remove(ctx, v)
	if rerr := s.release(ctx, v); rerr != nil {
		s.retryRelease(v, rerr)
	}
	return outcome, err
}

// requestRelease takes the volume down and gives the claim back; users are in the way of a release and are stopped by a fence.
func (s *Service) requestRelease(ctx context.Context, r lease.Request) (string, error) {
	v, ok := s.journal.Volume(r.Ref)
	if ok && active(v) && v.UID == r.VolumeUID && (r.Epoch == 0 || v.Epoch == r.Epoch) {
		err := s.takeDown(ctx, v, takeDown{fence: r.Kind == lease.RequestFence, wait: s.o.Limits.UsersLeave})
		if err != nil && v.Phase != journal.Mounted {
			s.retryTakeDown(v, err)
		}
		return "released", err
	}
	claim, err := s.auth.Claim(ctx, r.VolumeUID)
	if fault.Is(err, fault.NotFound) {
		return "absent", nil
	}
	if err != nil {
		return "", err
	}
	if claim.State == lease.Held && claim.Node == s.nodeUID && (r.Epoch == 0 || claim.Epoch == r.Epoch) {
		return "released", s.giveBackUnjournaled(ctx, claim)
	}
	return "absent", nil
}

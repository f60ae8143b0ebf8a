package isolator

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/operation"
)

// Operations other than mounting (isolator/operation) see the isolator through what follows.

// operating is the Service as operations see it.
type operating struct{ s *Service }

var _ operation.Node = operating{}

func (s *Service) openOperations() error {
	var err error
	s.operations, err = operation.Open(operation.Options{
		Dir: filepath.Join(s.o.Dir, "operations"), Node: operating{s}, Repositories: s.o.Repositories, NewID: s.o.NewNonce, NewUID: s.o.NewUID, Now: s.o.Now,
		RetryMin: s.o.Limits.RetryMin, RetryMax: s.o.Limits.RetryMax, Crash: crashAt,
		Log: func(msg string, o client.Operation, err error) {
			s.log.Info(msg, zap.String("op", o.ID), zap.String("kind", o.Request.Kind), zap.String("volume", o.Request.Driver+"/"+o.Request.Name), zap.Error(err))
		},
	})
	if err != nil {
		return err
	}
	for _, bad := range s.operations.Damaged() {
		s.problem("operation "+bad, "its record cannot be read and is left as it is")
	}
	return nil
}

// Operate begins an operation, or joins one.
func (s *Service) Operate(ctx context.Context, r client.OperationRequest) (client.Operation, error) {
	if err := operation.Check(r); err != nil {
		return client.Operation{}, err
	}
	if err := s.waitReady(ctx); err != nil {
		return client.Operation{}, err
	}
	return s.operations.Begin(ctx, r)
}

// Operation gives an operation, after its end or the limit.
func (s *Service) Operation(ctx context.Context, id string, limit time.Duration) (client.Operation, error) {
	return s.operations.Operation(ctx, id, limit)
}

// Operations lists those under way and those that ended lately.
func (s *Service) Operations() []client.Operation { return s.operations.List() }

// CancelOperation ends one early.
func (s *Service) CancelOperation(id string) error { return s.operations.Cancel(id) }

func (n operating) Driver(ctx context.Context, name string) (driver.Driver, driver.Facts, error) {
	d, err := n.s.driver(name)
	if err != nil {
		return nil, driver.Facts{}, err
	}
	limit, cancel := context.WithTimeout(ctx, n.s.o.Limits.Driver)
	defer cancel()
	f, err := n.s.factsOf(limit, d)
	return d, f, fault.Op(err, "volume driver %s", name)
}

func (n operating) Drivers() []string {
	var out []string
	for _, d := range n.s.o.Drivers {
		out = append(out, d.Name())
	}
	return out
}

func (n operating) Cluster(ctx context.Context) (string, error) { return n.s.clusterID(ctx) }

func (n operating) Remove(ctx context.Context, ref volume.Ref) error { return n.s.Remove(ctx, ref) }

func (n operating) Mount(ctx context.Context, ref volume.Ref, owner string) (string, error) {
	return n.s.Mount(ctx, MountRequest{Ref: ref, Owner: owner, ExplicitCreate: true})
}

func (n operating) Unmount(ctx context.Context, ref volume.Ref, owner string) error {
	_, err := n.s.Unmount(ctx, UnmountRequest{Ref: ref, Owner: owner})
	return err
}

// inTurn runs f in a volume's turn. f lives as long as ctx, and is waited for to its end.
func (s *Service) inTurn(ctx context.Context, ref volume.Ref, verb string, f func(ctx context.Context) error) error {
	_, err := s.queues.Do(context.WithoutCancel(ctx), ref, verb, "", func(context.Context) (string, error) {
		if ctx.Err() != nil {
			return "", fault.Wrap(fault.Unknown, ctx.Err(), "%s: not begun", verb)
		}
		return "", f(ctx)
	})
	return err
}

func (n operating) WithVolume(ctx context.Context, w operation.Wanted, f func(context.Context, operation.Held) error) error {
	s := n.s
	return s.inTurn(ctx, w.Ref, w.Verb, func(ctx context.Context) error {
		if w.Turn {
			return f(ctx, operation.Held{Ref: w.Ref, UID: w.UID})
		}
		v, here := s.journal.Volume(w.Ref)
		if here && active(v) {
			return s.asHolder(ctx, v, w, f)
		}
		if here && v.Phase == journal.Creating {
			return fault.New(fault.Conflict, "it is being created")
		}
		return s.underClaim(ctx, w, f)
	})
}

// wrongUID refuses to take a volume for another of its name.
func wrongUID(want, have string) error {
	if want != "" && want != have {
		return fault.New(fault.Conflict, "it is another volume now: its uid is %s, not %s", have, want)
	}
	return nil
}

// asHolder runs f where the volume is mounted on this node.
func (s *Service) asHolder(ctx context.Context, v journal.Volume, w operation.Wanted, f func(context.Context, operation.Held) error) error {
	if err := wrongUID(w.UID, v.UID); err != nil {
		return err
	}
	if v.Phase != journal.Mounted {
		return fault.New(fault.Conflict, "it is %s on this node just now; try again", v.Phase)
	}
	ctx, stop := s.whileCovered(ctx, v)
	defer stop()
	return f(ctx, operation.Held{Ref: v.Ref, UID: v.UID, Path: v.Path, Mounted: true, Shared: v.Shared})
}

// underClaim takes the claim for f: free to held, and back.
func (s *Service) underClaim(ctx context.Context, w operation.Wanted, f func(context.Context, operation.Held) error) error {
	claim, err := s.auth.ClaimByRef(ctx, w.Ref)
	switch {
	case fault.Is(err, fault.NotFound):
		return s.unclaimed(ctx, w, err)
	case err != nil:
		return err
	case claim.Tombstone:
		return fault.New(fault.NotFound, "it was removed (uid %s)", claim.VolumeUID)
	}
	if err := wrongUID(w.UID, claim.VolumeUID); err != nil {
		return err
	}
	if claim.Shared {
		return f(ctx, operation.Held{Ref: w.Ref, UID: claim.VolumeUID, Shared: true})
	}
	if claim.State != lease.Free {
		return s.claimTaken(ctx, claim)
	}
	s.awaitWatchdog(ctx)
	if err := s.keeper.MayMount(s.o.Clock.Now(), s.o.Timings.M); err != nil {
		return err
	}
	v := journal.Volume{Ref: w.Ref, UID: claim.VolumeUID, Nonce: s.o.NewNonce(), Generation: s.keeper.Generation()}
	err = s.persist(ctx, "claim "+w.Ref.String(), func(ctx context.Context) error {
		cv, _, err := s.auth.SelfClaim(ctx, lease.SelfClaimArgs{Ref: w.Ref, Nonce: v.Nonce, Node: s.nodeUID, Generation: v.Generation,
			Grade: s.grade(), Policy: s.o.SelfPolicy, Owner: w.Verb + ":" + w.Op})
		if err == nil {
			v.Epoch = cv.Epoch
		}
		return err
	})
	if err != nil {
		return err
	}
	s.keeper.NoteEpoch(v.Epoch)
	crashAt("operation.held")
	guarded, stop := s.whileCovered(ctx, v)
	err = f(guarded, operation.Held{Ref: w.Ref, UID: v.UID})
	stop()
	crashAt("operation.done")
	if rerr := s.release(s.life, v); rerr != nil {
		s.retryRelease(v, rerr)
	}
	return err
}

// unclaimed explains why a volume that the authority does not know is left alone.
func (s *Service) unclaimed(ctx context.Context, w operation.Wanted, cause error) error {
	d, err := s.driver(w.Ref.Driver)
	if err != nil {
		return err
	}
	if _, err := d.Get(ctx, w.Ref.Name); err != nil {
		return err
	}
	return fault.Wrap(fault.Conflict, cause, "driver %s has it, but it was never mounted or created through this cluster, so nobody knows whether it is in use: mount it once, or adopt it with an app", w.Ref.Driver)
}

// claimTaken says who has the volume.
func (s *Service) claimTaken(ctx context.Context, c lease.ClaimVersion) error {
	if c.State == lease.Granted {
		return fault.New(fault.Conflict, "it is granted to %s, which is about to mount it on agent %s; try again", c.Owner, c.Agent)
	}
	holder := c.Node
	if n, err := s.auth.Node(ctx, c.Node); err == nil && n.Hostname != "" {
		holder = n.Hostname + " (" + c.Node + ")"
	}
	if c.Node == s.nodeUID {
		return fault.New(fault.Conflict, "this node holds it for %s, and gives it back just now; try again", c.Owner)
	}
	return fault.New(fault.Conflict, "it is held by node %s for %s since %s: ask there, or stop it first", holder, c.Owner, c.Since.UTC().Format(time.RFC3339))
}

// whileCovered gives a context that ends when the node's lease does not cover the volume any more. Programs that an operation has started
// end with it.
func (s *Service) whileCovered(ctx context.Context, v journal.Volume) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if v.Shared {
		return ctx, func() { cancel(nil) }
	}
	s.spawn(func() {
		for sleep(ctx, 100*time.Millisecond) {
			if err := s.keeper.Covers(v.Generation, s.o.Clock.Now(), 0); err != nil {
				cancel(fault.Wrap(fault.Unknown, err, "the node's lease does not cover the volume any more"))
				return
			}
		}
	})
	return ctx, func() { cancel(nil) }
}

// Make makes a volume for an operation, in its turn.
func (n operating) Make(ctx context.Context, w operation.New, record func(uid string) error) (driver.Info, error) {
	s := n.s
	d, err := s.driver(w.Ref.Driver)
	if err != nil {
		return driver.Info{}, err
	}
	if err := volume.CheckOptions(w.Options); err != nil {
		return driver.Info{}, err
	}
	var info driver.Info
	err = s.inTurn(ctx, w.Ref, "make", func(ctx context.Context) (err error) {
		info, err = s.make(ctx, d, w, record)
		return err
	})
	return info, fault.Op(err, "make volume %s", w.Ref)
}

func (s *Service) make(ctx context.Context, d driver.Driver, w operation.New, record func(uid string) error) (driver.Info, error) {
	if now, ok := s.journal.Volume(w.Ref); ok && now.Phase == journal.Creating {
		if err := s.recoverCreate(ctx, now); err != nil {
			return driver.Info{}, err
		}
	}
	info, err := d.Get(ctx, w.Ref.Name)
	switch {
	case err == nil && s.madeAlready(info, w):
		if w.Claimed {
			s.noteKnown(journal.Volume{Ref: w.Ref, UID: w.UID})
		}
		return info, nil
	case err == nil && (w.Undelete == "" || info.UID != w.Undelete):
		return info, fault.New(fault.Exists, "there is one of that name already (uid %q)", info.UID)
	case err != nil && !fault.Is(err, fault.NotFound):
		return info, err
	}
	v := journal.Volume{Ref: w.Ref, UID: w.UID, Self: !w.Claimed}
	if w.Claimed {
		err = s.checkClaimed(ctx, w)
	} else {
		err = s.claimNew(ctx, &v, record)
	}
	if err != nil {
		return info, err
	}
	if err := s.fill(ctx, d, v, w); err != nil {
		if !w.Claimed && !fault.Is(err, fault.Unknown) {
			s.forgetUncreated(ctx, v)
		}
		return info, err
	}
	return d.Get(ctx, w.Ref.Name)
}

// madeAlready tells whether a volume that is there was made by an earlier attempt of the same operation. Drivers that keep no uids are helped by the journal.
func (s *Service) madeAlready(info driver.Info, w operation.New) bool {
	if info.UID != "" {
		return info.UID == w.UID
	}
	v, ok := s.journal.Volume(w.Ref)
	return ok && v.UID == w.UID && v.Phase != journal.Removed && v.Phase != journal.Creating
}

// checkClaimed makes sure that the claim which the framework has made is of this volume.
func (s *Service) checkClaimed(ctx context.Context, w operation.New) error {
	claim, err := s.auth.Claim(ctx, w.UID)
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.New(fault.Conflict, "the authority knows no claim %s", w.UID)
	case err != nil:
		return err
	case claim.Ref != w.Ref || claim.Tombstone:
		return fault.New(fault.Conflict, "claim %s is of volume %s (removed: %t)", w.UID, claim.Ref, claim.Tombstone)
	}
	return nil
}

// claimNew makes the claim of a volume that a person wants. A uid that an attempt before has used up is replaced.
func (s *Service) claimNew(ctx context.Context, v *journal.Volume, record func(uid string) error) error {
	if claim, err := s.auth.Claim(ctx, v.UID); err == nil && claim.Tombstone {
		v.UID = s.o.NewUID()
		if err := record(v.UID); err != nil {
			return err
		}
	} else if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := s.noteUnclaimed(*v); err != nil {
		return err
	}
	crashAt("make.unclaimed")
	_, err := s.auth.Create(ctx, v.UID, v.Ref, s.o.SelfPolicy, false)
	if err != nil && !fault.Is(err, fault.Unknown) {
		s.noteAnyway("create", "claim", journal.Done, journal.Volume{Ref: v.Ref, UID: v.UID, Phase: journal.Removed})
	}
	return err
}

// fill makes the volume at its driver, new, as a copy, or out of the bin.
func (s *Service) fill(ctx context.Context, d driver.Driver, v journal.Volume, w operation.New) error {
	if w.Undelete == "" {
		return s.create(ctx, d, v, creation{size: w.Size, options: w.Options, owner: w.Owner, mode: w.Mode, source: w.Source})
	}
	b, ok := d.(driver.Binner)
	if !ok {
		return fault.New(fault.Invalid, "driver %s has no bin", d.Name())
	}
	v.Phase = journal.Creating
	if err := s.journal.Append("create", "undelete", journal.Intent, v); err != nil {
		return err
	}
	_, err := b.Undelete(ctx, w.Ref.Name, w.Undelete)
	if fault.Is(err, fault.Exists) {
		if info, gerr := d.Get(ctx, w.Ref.Name); gerr == nil && info.UID == w.Undelete {
			err = nil // by an attempt before
		}
	}
	if err != nil {
		return err
	}
	crashAt("undelete.driver")
	return s.adopt(ctx, d, v)
}

// carryOutOperation does an operation that the framework asks for, tells how far it is, and writes its outcome. The request's disappearance cancels it.
func (s *Service) carryOutOperation(ctx context.Context, r lease.RequestVersion) {
	defer s.end(r.Op)
	var want client.OperationRequest
	err := json.Unmarshal(r.Operation, &want)
	if err != nil {
		err = fault.Wrap(fault.Invalid, err, "the operation is not what it should be")
	}
	want.ID = r.Op
	var o client.Operation
	if err == nil {
		o, err = s.Operate(ctx, want)
	}
	said := ""
	for err == nil && !o.Over() {
		if o, err = s.operations.Operation(ctx, o.ID, operationReport); err != nil || o.Over() || ctx.Err() != nil {
			break
		}
		if now := progressText(o); now != said {
			perr := s.auth.ProgressRequest(ctx, s.nodeUID, r.Op, json.RawMessage(now))
			if fault.Is(perr, fault.NotFound) {
				s.logIf(s.operations.Cancel(o.ID), "cancel an operation that nobody wants any more")
			}
			if perr == nil {
				said = now
			}
		}
	}
	if ctx.Err() != nil {
		return // it goes on at the next start
	}
	if err == nil {
		err = o.Err()
	}
	s.answerOperation(ctx, r, o, err)
}

// operationReport is how often progress is told to the framework.
const operationReport = 2 * time.Second

func progressText(o client.Operation) string {
	raw, err := json.Marshal(client.Operation{ID: o.ID, State: o.State, Doing: o.Doing, Because: o.Because, DoneBytes: o.DoneBytes, TotalBytes: o.TotalBytes, Created: o.Created})
	if err != nil {
		return ""
	}
	return string(raw)
}

func (s *Service) answerOperation(ctx context.Context, r lease.RequestVersion, o client.Operation, err error) {
	if fault.Is(err, fault.Unknown) {
		err = fault.Wrap(fault.Unavailable, err, "it could not be found out")
	}
	outcome, result := "", json.RawMessage(nil)
	if o.Result != nil && err == nil {
		outcome = o.Result.Outcome
		if result, err = json.Marshal(o.Result); err != nil {
			err = fault.Wrap(fault.Internal, err, "encode the result")
		}
	}
	for pause := s.o.Limits.RetryMin; ; pause = min(pause*2, s.o.Limits.RetryMax) {
		ferr := s.persist(ctx, "answer request "+r.Op, func(ctx context.Context) error {
			return s.auth.FinishOperation(ctx, s.nodeUID, r, outcome, result, err)
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

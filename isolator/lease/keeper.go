package lease

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// KeeperOptions configure a Keeper. Node, Verify and Lost are needed.
type KeeperOptions struct {
	Timings Timings // the zero value means EmbeddedTimings
	Clock   Clock   // of the lease: Boottime (the default), in `holdfast dev` Monotonic
	Log     *zap.Logger
	// Node gives what the node says of itself at the start of Run: uid, boot id, grade, host name, drivers and so on; Publish
	// changes it later. Generation, seq, alive, timing and highest epoch are the Keeper's.
	Node func() Node
	// LastGeneration and LastDeadline are what was known before a restart of this process on the same boot (the watchdog
	// keeps them); 0 when nothing was. With them, and before that deadline, the Keeper goes on in the same generation.
	LastGeneration uint64
	LastDeadline   time.Duration
	// SetDeadline hands generation and D to the watchdog. It is called before anybody can see a new D, and must not block.
	SetDeadline func(generation uint64, d time.Duration)
	// Verify fences what is left and returns nil once nothing managed is mounted on this node and the epochs held until now
	// are barred. The Keeper calls it before every new generation, again and again until it succeeds; then it gives back (L3)
	// whatever claims this node holds still.
	Verify func(ctx context.Context) error
	// Lost says that the lease is gone: D has come, L4 has happened, or somebody else writes this node's record. The
	// isolator must fence now. It is called once for each lease lost, from any goroutine, and must not block.
	Lost func(reason string)
}

// Keeper keeps the lease of one node: it registers the node, renews, and says until when mounts may stay. Its
// methods may be called concurrently.
type Keeper struct {
	a       *Authority
	o       KeeperOptions
	log     *zap.Logger
	ready   chan struct{}
	revoked chan ClaimVersion
	wake    chan struct{} // a renewal is wanted now
	leased  chan struct{} // the deadline watcher has something to watch

	mu      sync.Mutex
	h       *holder // nil before Run has asked Node()
	self    Node
	early   []func(*Node) // publications from before Run knew the node
	highest volume.Epoch
	stood   sight  // of a record that must stand still, while standing
	why     string // why there is no lease, for errors
}

// NewKeeper checks the timings (I1) and returns a Keeper that Run starts.
func NewKeeper(a *Authority, o KeeperOptions) (*Keeper, error) {
	if o.Timings == (Timings{}) {
		o.Timings = EmbeddedTimings()
	}
	if err := o.Timings.CheckHolder(); err != nil {
		return nil, err
	}
	if o.Node == nil || o.Verify == nil || o.Lost == nil {
		return nil, fault.New(fault.Internal, "a keeper needs Node, Verify and Lost")
	}
	if o.Clock == nil {
		o.Clock = Boottime()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.SetDeadline == nil {
		o.SetDeadline = func(uint64, time.Duration) {}
	}
	return &Keeper{a: a, o: o, log: o.Log, ready: make(chan struct{}), revoked: make(chan ClaimVersion, 256), wake: make(chan struct{}, 1),
		leased: make(chan struct{}, 1), why: "the node is not registered yet"}, nil
}

// Run registers and renews until ctx ends. When it returns, the lease runs on until its deadline.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for _, f := range []func(context.Context){k.watchDeadline, k.watchRevokes} {
		wg.Add(1)
		go func() { defer wg.Done(); f(ctx) }()
	}
	for ctx.Err() == nil {
		began := k.o.Clock.Now()
		again := k.step(ctx)
		if again {
			continue
		}
		k.sleep(ctx, began+k.o.Timings.P-k.o.Clock.Now(), k.wake)
	}
	return nil
}

// open asks the node who it is.
func (k *Keeper) open() error {
	self := k.o.Node()
	if err := errors.Join(checkID("node uid", self.UID), checkID("boot id", self.BootID)); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, update := range k.early {
		update(&self)
	}
	k.self, k.early = self, nil
	k.h = newHolder(k.o.Timings, self.UID, self.BootID, k.o.LastGeneration, k.o.LastDeadline)
	return nil
}

// step renews when there is a lease and otherwise goes one step towards one. again asks for the next step at once.
func (k *Keeper) step(ctx context.Context) (again bool) {
	k.expire()
	k.mu.Lock()
	p := k.h.phase
	k.mu.Unlock()
	if p == leased {
		k.renew(ctx)
		return false
	}
	return k.begin(ctx)
}

// renew sends one renewal.
func (k *Keeper) renew(ctx context.Context) {
	k.mu.Lock()
	n, expect := k.record(k.h.generation), k.h.version
	k.h.send(n.Seq, k.o.Clock.Now())
	k.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, k.o.Timings.R)
	nv, err := k.a.PutNode(call, n, expect)
	cancel()
	switch {
	case err == nil:
		k.acknowledge(nv)
	case errors.Is(err, ErrRootChanged) || errors.Is(err, ErrSealed) || !fault.Is(err, fault.Conflict):
		k.log.Warn("the lease was not renewed", zap.Error(err), zap.Duration("left", k.Deadline()-k.o.Clock.Now()))
	default:
		k.collide(ctx, err)
	}
}

// record is what a write of the node's register says next. Called with the lock.
func (k *Keeper) record(generation uint64) Node {
	n := k.self
	n.V, n.UID, n.BootID = recordVersion, k.h.uid, k.h.boot
	n.Generation, n.Seq, n.Alive = generation, k.h.seq+1, true
	n.HighestEpoch, n.Timing, n.RenewedAt = k.highest, k.o.Timings.Publish(), k.a.opts.Now()
	n.DeadAt, n.DeadBy = nil, ""
	return n
}

// acknowledge takes in a write that succeeded.
func (k *Keeper) acknowledge(nv NodeVersion) {
	k.mu.Lock()
	d, alive := k.h.acknowledged(k.o.Clock.Now(), nv.Generation, nv.Seq, nv.Version)
	if alive {
		k.o.SetDeadline(nv.Generation, d)
		k.why = ""
	}
	k.mu.Unlock()
	if !alive {
		k.lose("the acknowledgement of a renewal came after the deadline")
		return
	}
	notify(k.leased)
	select {
	case <-k.ready:
	default:
		close(k.ready)
	}
}

// collide looks who wrote our record.
func (k *Keeper) collide(ctx context.Context, cause error) {
	call, cancel := context.WithTimeout(ctx, k.o.Timings.R)
	nv, err := k.a.Node(call, k.uid())
	cancel()
	record := &nv
	switch {
	case fault.Is(err, fault.NotFound):
		record = nil
	case err != nil:
		k.log.Warn("the lease was not renewed", zap.Error(cause), zap.NamedError("reading", err))
		return
	}
	k.mu.Lock()
	why := k.h.collided(record)
	if why == "" && !k.h.wasSent(nv.Seq) {
		k.h.version = nv.Version // the same content under another version: only renew at that one
	}
	k.mu.Unlock()
	if why != "" {
		k.lose(why)
	} else if k.wasSent(nv.Seq) {
		k.acknowledge(nv)
	}
}

func (k *Keeper) wasSent(seq uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.h.wasSent(seq)
}

func (k *Keeper) uid() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.h.uid
}

// lose ends the lease and tells the isolator, once.
func (k *Keeper) lose(why string) {
	k.mu.Lock()
	had := k.h.lose()
	if had {
		k.why = why
	}
	k.mu.Unlock()
	if had {
		k.log.Error("the lease is lost", zap.String("reason", why))
		k.o.Lost(why)
		notify(k.wake)
	}
}

// expire loses the lease when D has come.
func (k *Keeper) expire() {
	k.mu.Lock()
	over := k.h.expired(k.o.Clock.Now())
	k.mu.Unlock()
	if over {
		k.lose("no renewal was acknowledged before the deadline")
	}
}

// begin goes one step from no lease towards one.
func (k *Keeper) begin(ctx context.Context) (again bool) {
	call, cancel := context.WithTimeout(ctx, k.o.Timings.R)
	nv, err := k.a.Node(call, k.uid())
	cancel()
	record := &nv
	if fault.Is(err, fault.NotFound) {
		record, err = nil, nil
	}
	if err != nil {
		k.noLease("the lease authority cannot be read: "+err.Error(), err)
		return false
	}
	k.mu.Lock()
	now := k.o.Clock.Now()
	p := k.h.start(now, record)
	if p == standing && k.stoodStill(now, nv) {
		k.h.take(record)
		p = unverified
	}
	k.mu.Unlock()
	switch p {
	case leased:
		k.log.Info("going on in the same lease generation", zap.Uint64("generation", nv.Generation))
		notify(k.leased)
		return true
	case standing:
		k.noLease("another boot of this node, or another machine with its uid (host "+nv.Hostname+"), has a lease: waiting until it has stood still", nil)
		return false
	}
	return k.next(ctx)
}

// stoodStill tells whether a live record of another boot has not moved for as long as a taker would wait. Called with the lock.
func (k *Keeper) stoodStill(now time.Duration, nv NodeVersion) bool {
	if k.stood.version != nv.Version {
		k.stood = sight{version: nv.Version, first: now}
		return false
	}
	return now-k.stood.first >= max(k.o.Timings.Publish().wait(k.o.Timings.Rho), nv.Timing.wait(k.o.Timings.Rho))
}

// next verifies that nothing is mounted, gives back what this node holds still, and registers the next generation.
func (k *Keeper) next(ctx context.Context) (again bool) {
	if err := k.o.Verify(ctx); err != nil {
		k.noLease("it is not verified yet that nothing managed is mounted: "+err.Error(), err)
		return false
	}
	if err := k.giveBack(ctx); err != nil {
		k.noLease("the claims held before could not be given back: "+err.Error(), err)
		return false
	}
	k.mu.Lock()
	n, expect := k.record(k.h.generation+1), k.h.version
	clear(k.h.sent)
	k.h.send(n.Seq, k.o.Clock.Now())
	k.mu.Unlock()
	call, cancel := context.WithTimeout(ctx, k.o.Timings.R)
	nv, err := k.a.PutNode(call, n, expect)
	cancel()
	if err != nil {
		k.mu.Lock()
		k.h.attempted = n.Generation // it may have been written, or may be yet
		k.mu.Unlock()
		k.noLease("the node could not be registered: "+err.Error(), err)
		return false
	}
	k.log.Info("the node has a lease", zap.String("node", n.UID), zap.Uint64("generation", n.Generation))
	k.acknowledge(nv)
	return false
}

// giveBack is L3 for every claim that this node holds. Nothing managed is mounted here, and no mount begins without a lease.
func (k *Keeper) giveBack(ctx context.Context) error {
	claims, err := k.a.Claims(ctx)
	bad, err := OnlyBadRecords(err)
	if err != nil {
		return err
	}
	if bad != nil {
		k.log.Error("claims that cannot be read", zap.Error(bad))
	}
	for _, c := range claims {
		k.NoteEpochOf(c.Claim)
		if c.State != Held || c.Node != k.uid() {
			continue
		}
		if _, err := k.a.Release(ctx, c.VolumeUID, c.Epoch, c.Node, c.NodeGeneration, c.Nonce); err != nil {
			return err
		}
		k.log.Info("gave a claim back: nothing is mounted", zap.Stringer("volume", c.Ref), zap.Uint64("epoch", uint64(c.Epoch)))
	}
	return nil
}

func (k *Keeper) noLease(why string, err error) {
	k.mu.Lock()
	changed := k.why != why
	k.why = why
	k.mu.Unlock()
	if changed {
		k.log.Warn("the node has no lease", zap.String("reason", why), zap.Error(err))
	}
}

// watchDeadline acts at D, whatever the renewal does meanwhile.
func (k *Keeper) watchDeadline(ctx context.Context) {
	for ctx.Err() == nil {
		k.mu.Lock()
		alive, left := k.h.phase == leased, k.h.deadline-k.o.Clock.Now()
		k.mu.Unlock()
		if !alive {
			select {
			case <-k.leased:
			case <-ctx.Done():
			}
			continue
		}
		k.sleep(ctx, left, nil)
		k.expire()
	}
}

// watchRevokes reads the claims of this node each period, and when something changed.
func (k *Keeper) watchRevokes(ctx context.Context) {
	hint := k.a.Watch(ctx, PrefixClaims)
	for ctx.Err() == nil {
		if k.Generation() != 0 {
			k.readRevokes(ctx)
		}
		k.sleep(ctx, k.o.Timings.P/5, nil) // a burst of changes is one reading
		k.sleep(ctx, k.o.Timings.P*4/5, hint)
	}
}

func (k *Keeper) readRevokes(ctx context.Context) {
	claims, err := k.a.Claims(ctx)
	if _, err = OnlyBadRecords(err); err != nil {
		return // the renewals report it
	}
	uid := k.uid()
	for _, c := range claims {
		if c.State != Held || c.Node != uid || !c.Revoke {
			continue
		}
		select {
		case k.revoked <- c:
		default: // it comes again
		}
	}
}

func (k *Keeper) sleep(ctx context.Context, d time.Duration, early <-chan struct{}) {
	if d <= 0 {
		return
	}
	done, stop := k.o.Clock.After(d)
	defer stop()
	select {
	case <-done:
	case <-early:
	case <-ctx.Done():
	}
}

// Ready is closed once this process has written the node's record for the first time.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Deadline is D on the lease's clock: until then what is mounted may stay. 0 without a lease.
func (k *Keeper) Deadline() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.h == nil || k.h.phase != leased {
		return 0
	}
	return k.h.deadline
}

// Generation is G, 0 without a lease.
func (k *Keeper) Generation() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.h == nil || k.h.phase != leased || k.h.expired(k.o.Clock.Now()) {
		return 0
	}
	return k.h.generation
}

// MayMount is I3: nil when a mount that takes at most m and begins at now (on the lease's clock) ends before D. Otherwise
// the error is Unavailable and says why.
func (k *Keeper) MayMount(now, m time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.h == nil || k.h.phase != leased:
		return fault.New(fault.Unavailable, "this node has no lease: %s", k.why)
	case !k.h.mayMount(now, m):
		return fault.New(fault.Unavailable, "the lease of this node is about to run out: %v left, a mount may take %v", k.h.deadline-now, m)
	}
	return nil
}

// Covers is MayMount for a hold that was taken in a given lease generation. It is what a mount has to ask last before the driver: the
// reply to the hold may have come so late that the lease was lost meanwhile, everything verified and given back, that hold included, and
// a new generation begun, under whose deadline the hold must not live on.
func (k *Keeper) Covers(generation uint64, now, m time.Duration) error {
	if err := k.MayMount(now, m); err != nil {
		return err
	}
	if g := k.Generation(); g != generation {
		return fault.New(fault.Unavailable, "the lease was lost since the claim was taken: it was generation %d and is %d", generation, g)
	}
	return nil
}

// Why says why there is no lease, "" when there is one.
func (k *Keeper) Why() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// Revoked gives claims held by this node whose revoke flag is set, again each period until they are given back.
func (k *Keeper) Revoked() <-chan ClaimVersion { return k.revoked }

// Publish changes what the node's record says beside the lease, and brings the next renewal forward. update must not block.
func (k *Keeper) Publish(update func(*Node)) {
	k.mu.Lock()
	if k.h == nil {
		k.early = append(k.early, update)
	} else {
		update(&k.self)
	}
	k.mu.Unlock()
	notify(k.wake)
}

// NoteEpoch tells the Keeper of an epoch that this node saw; the record carries the highest.
func (k *Keeper) NoteEpoch(e volume.Epoch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.highest = max(k.highest, e)
}

// NoteEpochOf is NoteEpoch for a claim of this node.
func (k *Keeper) NoteEpochOf(c Claim) {
	if c.Node != "" && c.Node == k.uid() {
		k.NoteEpoch(c.Epoch)
	}
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

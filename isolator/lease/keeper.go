package lease

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// KeeperOptions configure a Keeper. Node, Verify and Lost are needed.
type KeeperOptions struct {
	Timings Timings
	Clock   Clock // CLOCK_BOOTTIME, in `holdfast dev` CLOCK_MONOTONIC
	Log     *zap.Logger
	// Node gives what the node says of itself now: uid, boot id, grade, host name, drivers and so on. Generation, seq,
	// alive, timing and highest epoch are the Keeper's.
	Node func() Node
	// LastGeneration and LastDeadline are what was known before a restart of this process on the same boot (the watchdog keeps them);
	// 0 when nothing was. With them, and before that deadline, the Keeper goes on in the same generation.
	LastGeneration uint64
	LastDeadline   time.Duration
	// SetDeadline hands generation and D to the watchdog. It is called before the Keeper uses a new D itself.
	SetDeadline func(generation uint64, d time.Duration)
	// Verify fences what is left and returns nil once nothing managed is mounted on this node, with the epochs held until now barred. The
	// Keeper calls it before every new generation, again and again until it succeeds.
	Verify func(ctx context.Context) error
	// Lost says that the lease is gone: D has passed, L4 has happened, or somebody else writes this node's
	// record. The isolator must fence now. It is called once per generation and must not block.
	Lost func(reason string)
}

// Keeper keeps the lease of one node: it registers the node, renews, and says until when mounts may stay.
type Keeper struct{}

// NewKeeper checks the timings (I1, I2) and returns a Keeper that Run starts.
func NewKeeper(a *Authority, o KeeperOptions) (*Keeper, error) { return nil, errNotYet }

// Run registers and renews until ctx ends. It returns an error only for what will not heal, such as another
// machine with this node's uid.
func (k *Keeper) Run(ctx context.Context) error { return errNotYet }

// Ready is closed once the node is registered for the first time.
func (k *Keeper) Ready() <-chan struct{} { return nil }

// Deadline is D: until then what is mounted may stay. 0 without a lease.
func (k *Keeper) Deadline() time.Duration { return 0 }

// Generation is G, 0 without a lease.
func (k *Keeper) Generation() uint64 { return 0 }

// MayMount is I3: nil when a mount that takes at most m and begins at now ends before D. The error (fault.Unavailable) says why not.
func (k *Keeper) MayMount(now, m time.Duration) error { return errNotYet }

// Revoked gives claims held by this node whose revoke flag is set, again each period until they are given back.
func (k *Keeper) Revoked() <-chan ClaimVersion { return nil }

// Publish changes what the node's record says beside the lease and writes it with the next renewal, which it brings forward.
func (k *Keeper) Publish(update func(*Node)) {}

// NoteEpoch tells the Keeper of an epoch that this node saw; the record carries the highest.
func (k *Keeper) NoteEpoch(e volume.Epoch) {}

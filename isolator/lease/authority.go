package lease

import (
	"context"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// Options of an Authority. The zero value is good: system time, random nonces.
type Options struct {
	// Cluster is the cluster that the root must be of; "" takes what is there.
	Cluster string
	// Now is the wall clock, for what is only shown.
	Now func() time.Time
	// NewNonce gives a string that no other call ever gives.
	NewNonce func() string
	// CallLimit bounds one call to the registers (R); a call that takes longer is unknown and read back. Default 2 s.
	CallLimit time.Duration
}

// Authority makes the transitions of the protocol over Registers. It holds no state but a copy of root's
// version, and may be used concurrently.
type Authority struct {
	reg  Registers
	opts Options

	mu      sync.Mutex
	root    Root
	rootVer uint64
}

// ClaimVersion is a claim and the version of its register.
type ClaimVersion struct {
	Claim
	Version uint64 `json:"version"`
}

// NodeVersion is a node record and the version of its register.
type NodeVersion struct {
	Node
	Version uint64 `json:"-"`
}

// RequestVersion is a request and the version of its register.
type RequestVersion struct {
	Request
	Version uint64 `json:"-"`
}

// GrantArgs are the arguments of Grant.
type GrantArgs struct {
	VolumeUID string
	Epoch     volume.Epoch // must be larger than the claim's
	Agent     string       // Mesos agent id the grant is for
	Node      string       // uid of the node beside that agent
	Nonce     string
	Policy    Policy
	Owner     string
}

// HoldArgs are the arguments of Hold.
type HoldArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch
	Nonce      string
	Node       string
	Generation uint64
	Grade      Grade
	Owner      string
}

// SelfClaimArgs are the arguments of SelfClaim.
type SelfClaimArgs struct {
	Ref        volume.Ref
	NewUID     string // uid of the claim when one has to be made; "" refuses to make one (NotFound)
	Nonce      string
	Node       string
	Generation uint64
	Grade      Grade
	Policy     Policy
	Owner      string
}

// RekeyArgs are the arguments of Rekey.
type RekeyArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch // the epoch held now
	OldNonce   string       // its nonce
	Nonce      string       // the nonce of the next
	Node       string
	Generation uint64
	Grade      Grade
	Owner      string
}

// OverrideArgs are the arguments of Override: what the operator was shown and agreed to.
type OverrideArgs struct {
	VolumeUID  string
	Epoch      volume.Epoch
	Node       string
	Generation uint64
	// NodeVersion is the version of the node's register that was shown, 0 if there was none.
	NodeVersion uint64
	// Renewing says that the operator typed the second flag: go on although the lease is alive.
	Renewing bool
	By, Why  string
}

var errNotYet = fault.New(fault.Internal, "not built yet")

// New returns an Authority over registers.
func New(r Registers, o Options) *Authority { return &Authority{reg: r, opts: o} }

func (a *Authority) Init(ctx context.Context, cluster string) (Root, error) { return Root{}, errNotYet }
func (a *Authority) Root(ctx context.Context) (Root, error)                 { return Root{}, errNotYet }
func (a *Authority) Create(ctx context.Context, uid string, ref volume.Ref, policy Policy, shared bool) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Claim(ctx context.Context, uid string) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) ClaimByRef(ctx context.Context, ref volume.Ref) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Claims(ctx context.Context) ([]ClaimVersion, error) { return nil, errNotYet }
func (a *Authority) Grant(ctx context.Context, g GrantArgs) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Hold(ctx context.Context, h HoldArgs) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}

// SelfClaim: created tells that the claim was made by this call (the volume is known to nobody yet).
func (a *Authority) SelfClaim(ctx context.Context, s SelfClaimArgs) (cv ClaimVersion, created bool, err error) {
	return ClaimVersion{}, false, errNotYet
}
func (a *Authority) Rekey(ctx context.Context, r RekeyArgs) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Release(ctx context.Context, uid string, epoch volume.Epoch, node string, generation uint64, nonce string) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Cancel(ctx context.Context, uid string, epoch volume.Epoch, nonce string) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Revoke(ctx context.Context, uid string, epoch volume.Epoch) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) FreeDead(ctx context.Context, uid string, epoch volume.Epoch, node string, generation uint64) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Override(ctx context.Context, o OverrideArgs) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Tombstone(ctx context.Context, uid string) (ClaimVersion, error) {
	return ClaimVersion{}, errNotYet
}
func (a *Authority) Nodes(ctx context.Context) ([]NodeVersion, error) { return nil, errNotYet }
func (a *Authority) Node(ctx context.Context, uid string) (NodeVersion, error) {
	return NodeVersion{}, errNotYet
}
func (a *Authority) PutNode(ctx context.Context, n Node, expect uint64) (NodeVersion, error) {
	return NodeVersion{}, errNotYet
}
func (a *Authority) KillNode(ctx context.Context, nv NodeVersion, by string) error { return errNotYet }
func (a *Authority) PutRequest(ctx context.Context, node string, r Request) (RequestVersion, error) {
	return RequestVersion{}, errNotYet
}
func (a *Authority) Requests(ctx context.Context, node string) ([]RequestVersion, error) {
	return nil, errNotYet
}

// FinishRequest: failure nil means done with that outcome.
func (a *Authority) FinishRequest(ctx context.Context, node string, rv RequestVersion, outcome string, failure error) error {
	return errNotYet
}
func (a *Authority) DeleteRequest(ctx context.Context, node, op string) error { return errNotYet }
func (a *Authority) Watch(ctx context.Context, prefix string) <-chan struct{} {
	return a.reg.Watch(ctx, prefix)
}

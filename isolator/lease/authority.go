package lease

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Options of an Authority. The zero value is good: system time, random nonces.
type Options struct {
	// Cluster is the cluster that the root must be of; "" takes what is there.
	Cluster string
	// Now is the wall clock, for what is only shown.
	Now func() time.Time
	// NewNonce gives a string that no other call ever gives.
	NewNonce func() string
	// CallLimit bounds one call to the registers (R); the outcome of one that takes longer is unknown and read
	// back. Default 2 s.
	CallLimit time.Duration
}

// Authority makes the transitions of the protocol over Registers. It remembers nothing that counts but which root it works
// with, and may be used concurrently.
//
// Every method that changes something may be repeated with the same arguments, after an error of class Unknown or a crash:
// it finds out by nonce and epoch whether it was done. Unknown is returned only when even the reading back did
// not succeed before the context ended.
type Authority struct {
	reg  Registers
	opts Options

	mu          sync.Mutex
	root        Root
	rootVersion uint64 // 0: not read yet

	decoded claimCache
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

// ErrRootChanged is in the chain of errors (Conflict) that say that the authority is another one than before: restored,
// migrated, or of another cluster. ErrSealed: it is being migrated and accepts nothing.
var (
	ErrRootChanged = errors.New("the authority is not the one this process began with")
	ErrSealed      = errors.New("the authority is sealed")
)

// New returns an Authority over registers.
func New(r Registers, o Options) *Authority {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewNonce == nil {
		o.NewNonce = uuid.NewString
	}
	if o.CallLimit == 0 {
		o.CallLimit = 2 * time.Second
	}
	return &Authority{reg: r, opts: o}
}

// NewNonce gives a nonce for a grant or a hold.
func (a *Authority) NewNonce() string { return a.opts.NewNonce() }

// Watch sends when something under one of the prefixes (PrefixClaims …) may have changed. It is a hint only.
func (a *Authority) Watch(ctx context.Context, prefix string) <-chan struct{} {
	return a.reg.Watch(ctx, prefix)
}

// Init makes the root when there is none, with generation 1 and a new UUID, and otherwise reads it. Only the
// owner of the authority calls it: who merely uses one must not mint a second truth where the first cannot be found.
func (a *Authority) Init(ctx context.Context, cluster string) (Root, error) {
	if err := checkID("cluster", cluster); err != nil {
		return Root{}, err
	}
	fresh := Root{V: recordVersion, UUID: uuid.NewString(), Cluster: cluster, Generation: 1}
	for {
		root, err := a.readRoot(ctx)
		switch {
		case err == nil && root.Cluster != cluster:
			return root, fault.Wrap(fault.Conflict, ErrRootChanged, "the authority is of cluster %s, not of %s", root.Cluster, cluster)
		case !fault.Is(err, fault.NotFound):
			return root, err
		}
		call, cancel := a.call(ctx)
		_, err = a.reg.Txn(call, Op{Kind: OpPut, Key: KeyRoot, Value: encode(fresh)})
		cancel()
		if err != nil && (ctx.Err() != nil || !again(err)) {
			return Root{}, fault.Op(err, "make the root")
		}
	}
}

// Root reads the root. The first one that is read is the one that every transition is bound to.
func (a *Authority) Root(ctx context.Context) (Root, error) { return a.readRoot(ctx) }

// readRoot reads the root and takes note of its version. It fails when the authority is another than before.
func (a *Authority) readRoot(ctx context.Context) (Root, error) {
	call, cancel := a.call(ctx)
	defer cancel()
	e, err := a.reg.Get(call, KeyRoot)
	if err != nil {
		return Root{}, fault.Op(err, "read the root of the authority")
	}
	var root Root
	if err := decode(e, &root); err != nil {
		return Root{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.opts.Cluster != "" && root.Cluster != a.opts.Cluster:
		return root, fault.Wrap(fault.Conflict, ErrRootChanged, "the authority is of cluster %s, not of %s", root.Cluster, a.opts.Cluster)
	case a.rootVersion != 0 && (root.UUID != a.root.UUID || root.Generation != a.root.Generation):
		return root, fault.Wrap(fault.Conflict, ErrRootChanged, "root %s generation %d became %s generation %d",
			a.root.UUID, a.root.Generation, root.UUID, root.Generation)
	}
	a.root, a.rootVersion = root, e.Version
	return root, nil
}

// rootCheck gives the operation that binds a transaction to the root.
func (a *Authority) rootCheck(ctx context.Context) (Op, error) {
	a.mu.Lock()
	root, version := a.root, a.rootVersion
	a.mu.Unlock()
	if version == 0 {
		var err error
		if root, err = a.readRoot(ctx); err != nil {
			return Op{}, err
		}
		a.mu.Lock()
		version = a.rootVersion
		a.mu.Unlock()
	}
	if root.Sealed {
		// Perhaps no longer; a sealed root is rare and worth a read.
		root, err := a.readRoot(ctx)
		if err != nil {
			return Op{}, err
		}
		if root.Sealed {
			return Op{}, fault.Wrap(fault.Conflict, ErrSealed, "root %s", root.UUID)
		}
		return a.rootCheck(ctx)
	}
	return Op{Kind: OpCheck, Key: KeyRoot, Expect: version}, nil
}

// call bounds one call to the registers.
func (a *Authority) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.opts.CallLimit)
}

func (a *Authority) get(ctx context.Context, key string) (Entry, error) {
	call, cancel := a.call(ctx)
	defer cancel()
	return a.reg.Get(call, key)
}

func (a *Authority) list(ctx context.Context, prefix string) ([]Entry, error) {
	call, cancel := a.call(ctx)
	defer cancel()
	return a.reg.List(call, prefix)
}

// look reads what a transition depends on and says what to write: nothing (ops nil) when it stands already, or
// an error when it may not be. result is given the entries written.
type look func(ctx context.Context) (ops []Op, result func([]Entry), err error)

// transact looks, writes, and looks again as long as somebody else's write came between (Conflict) or the reply was lost (Unknown).
// A lost write is repeated at the same versions, if at all, so that only one of both can succeed.
func (a *Authority) transact(ctx context.Context, l look) error {
	unsure := false
	for try := 0; ; try++ {
		err := a.attempt(ctx, l)
		if err == nil {
			return nil
		}
		var final *finalError
		if errors.As(err, &final) {
			return final.err
		}
		unsure = unsure || fault.Is(err, fault.Unknown)
		switch {
		case ctx.Err() == nil && again(err) && try < 200:
			pause(ctx, try)
		case unsure:
			return fault.Wrap(fault.Unknown, err, "no reply, and reading back did not succeed")
		default:
			return err
		}
	}
}

func again(err error) bool { return fault.Is(err, fault.Conflict) || fault.Is(err, fault.Unknown) }

// finalError is a decision, as opposed to a collision with another writer.
type finalError struct{ err error }

func (f *finalError) Error() string { return f.err.Error() }
func (f *finalError) Unwrap() error { return f.err }

func final(err error) error { return &finalError{err} }

func (a *Authority) attempt(ctx context.Context, l look) error {
	root, err := a.rootCheck(ctx)
	if err != nil {
		return finalRoot(err)
	}
	ops, result, err := l(ctx)
	if err != nil {
		return err
	}
	if len(ops) == 0 {
		return nil
	}
	call, cancel := a.call(ctx)
	defer cancel()
	entries, err := a.reg.Txn(call, append(ops, root)...)
	if fault.Is(err, fault.Conflict) {
		if _, rootErr := a.readRoot(ctx); rootErr != nil {
			return finalRoot(rootErr)
		}
	}
	if err == nil && result != nil {
		result(entries)
	}
	return err
}

// finalRoot ends a transition when the root forbids it; when it could not be read, it may be tried again.
func finalRoot(err error) error {
	if fault.Is(err, fault.Conflict) {
		return final(err)
	}
	return err
}

// pause lets a burst of collisions calm down. The first retry is at once: most often a renewal came between.
func pause(ctx context.Context, try int) {
	if try == 0 {
		return
	}
	t := time.NewTimer(min(time.Duration(try)*time.Millisecond, 50*time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Package registers keeps the framework's records in lease.Registers, so that ZooKeeper, Consul and the embedded authority hold
// them through one store.Backend. What each of them promises (linearizable compare-and-set over several registers, held to the suite of
// leasetest) is all that it rests on; sessions, ephemeral nodes and locks of a server play no part.
//
// Registers:
//
//	leaders/<cluster>                       who leads: term, holder, count of commits
//	state/<cluster>/<folders>/<name>.<hash> one record; its value is the record's key, a line feed, the record
//	journal/<cluster>/<term>-<count>/<nr>   a piece of a commit that is larger than one transaction
//
// Every transaction replaces the leader register, expecting the version that the writer saw last. That is the fence: whatever
// a deposed leader, or an earlier term of the same one, still has under way cannot happen once another Lead has moved the register.
//
// The leader is the only writer, and keeps the versions of all records from its Load and its commits. After a commit that failed it
// knows nothing: it must Lead again, which settles what became of the commit, and read again.
//
// A commit beyond one transaction (Consul takes 128 operations) goes through a redo journal: its pieces are written first; one transaction that names
// them in the leader register is the commit; then the records follow, part by part. Readers lay a journal that is not
// carried out yet over what they read, and whoever leads next carries it out first.
//
// Leadership is an observed lease. The holder touches its register every Options.Renew. Another takes it when it saw the register
// unchanged for Options.Takeover by its own monotonic clock, or at once when the holder resigned (Close). A mistake in
// that costs an interruption, never a record: the fence decides. What the leader does outside the store is not fenced by it, so it asks Confirm first,
// and whatever slips through all the same (a process that is stopped between that question and its act) meets the claims of volumes.
package registers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Options of Open.
type Options struct {
	// Name is what and where the registers are, for people; no secrets.
	Name string
	// URL is where this process can be reached when it leads ("http://host:8080"); others read it from Leader.
	URL string
	// Renew is how often the holder touches its register. Default 2 s.
	Renew time.Duration
	// Takeover is for how long another must see the register unchanged. Default 8 s; at least 3 times Renew.
	Takeover time.Duration
	// Hang is for how long the loop may give no sign of life (Alive) before its leadership is given up. Default 15 s.
	Hang time.Duration
	// Now is the clock; it must be monotonic. Tests set it.
	Now func() time.Time
	Log *zap.Logger
}

// Backend is a store.Backend. Make it with Open.
type Backend struct {
	r      lease.Registers
	o      Options
	began  time.Time
	id     string // of this process's hold on the store, told from all others
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	seats  map[string]*seat
}

var _ store.Backend = (*Backend)(nil)

// maxSingle is what one transaction takes beside the leader register.
var maxSingle = store.Portable

// Open takes registers over: Close closes them. Nothing is read yet. Error: Invalid for options that cannot work.
func Open(r lease.Registers, o Options) (*Backend, error) {
	if o.Renew <= 0 {
		o.Renew = 2 * time.Second
	}
	if o.Takeover <= 0 {
		o.Takeover = 4 * o.Renew
	}
	if o.Takeover < 3*o.Renew {
		return nil, fault.New(fault.Invalid, "store %s: another may take over after %v, which is less than three times the renewal's %v", o.Name, o.Takeover, o.Renew)
	}
	if o.Hang <= 0 {
		o.Hang = 15 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	b := &Backend{r: r, o: o, began: o.Now(), id: nonce(), seats: map[string]*seat{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.done.Go(b.renewals)
	return b, nil
}

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program first
	return hex.EncodeToString(b[:])
}

// Name implements store.Backend.
func (b *Backend) Name() string { return b.o.Name }

// Limits implements store.Backend. What is beyond one transaction is journalled first.
func (b *Backend) Limits() store.Limits { return store.Limits{Writes: 20000, Bytes: 16 << 20} }

// Clusters implements store.Backend.
func (b *Backend) Clusters(ctx context.Context) ([]string, error) {
	if b.isClosed() {
		return nil, errClosed
	}
	entries, err := b.r.List(ctx, leaders)
	if err != nil {
		return nil, fault.Op(err, "list clusters")
	}
	var out []string
	for _, e := range entries {
		if name := strings.TrimPrefix(e.Key, leaders); store.CheckCluster(name) == nil {
			out = append(out, name)
		}
	}
	return out, nil
}

// Close implements store.Backend: it resigns, so that another need not wait.
func (b *Backend) Close() error {
	b.mu.Lock()
	was := b.closed
	b.closed = true
	seats := b.all()
	b.mu.Unlock()
	if was {
		return nil
	}
	b.cancel()
	b.done.Wait()
	for _, s := range seats {
		s.resign(b.o.Renew)
	}
	return b.r.Close()
}

func (b *Backend) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// all lists the seats; b.mu is held.
func (b *Backend) all() []*seat {
	out := make([]*seat, 0, len(b.seats))
	for _, s := range b.seats {
		out = append(out, s)
	}
	return out
}

// seat gives the seat of a cluster.
func (b *Backend) seat(cluster string) (*seat, error) {
	if err := store.CheckCluster(cluster); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errClosed
	}
	s := b.seats[cluster]
	if s == nil {
		s = &seat{b: b, cluster: cluster, lost: make(chan struct{})}
		b.seats[cluster] = s
	}
	return s, nil
}

// renewals touches the leader registers of this process until Close.
func (b *Backend) renewals() {
	tick := time.NewTicker(b.o.Renew)
	defer tick.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		seats := b.all()
		b.mu.Unlock()
		for _, s := range seats {
			s.renew(b.ctx, b.o.Renew)
		}
	}
}

var errClosed = fault.New(fault.Unavailable, "the store is closed")

// Cluster gives the name of the one cluster that these registers are for: proposal when there is none yet. Of several processes that
// begin at the same time one's proposal wins. Invalid when several clusters have records here.
func (b *Backend) Cluster(ctx context.Context, proposal string) (string, error) {
	const key = "cluster"
	have, err := b.Clusters(ctx)
	switch {
	case err != nil:
		return "", err
	case len(have) == 1:
		return have[0], nil
	case len(have) > 1:
		return "", fault.New(fault.Invalid, "%s holds several clusters (%s): say which one with --cluster", b.o.Name, strings.Join(have, ", "))
	}
	if err := store.CheckCluster(proposal); err != nil {
		return "", err
	}
	if _, err := b.r.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: key, Value: []byte(proposal)}); err != nil && !fault.Is(err, fault.Conflict) {
		return "", fault.Op(err, "name the cluster")
	}
	e, err := b.r.Get(ctx, key)
	if err == nil {
		err = store.CheckCluster(string(e.Value))
	}
	return string(e.Value), fault.Op(err, "read the cluster's name")
}

// Resign gives the leadership of a cluster up, so that others need not wait. Nothing happens while this process does not lead it.
func (b *Backend) Resign(cluster string) {
	if s, err := b.seat(cluster); err == nil {
		s.resign(b.o.Renew)
	}
}

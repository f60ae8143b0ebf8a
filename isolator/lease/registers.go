package lease

import "context"

// Registers is what a lease authority has to be: a set of registers with linearizable reads and atomic
// compare-and-set over several of them. ZooKeeper, Consul and the embedded server implement it, and the suite in
// leasetest holds them all to it. Sessions, TTLs and watches of a server carry no safety and do not appear
// here; Watch is a hint that may wake somebody up early, late, twice or, when the server is away, not at all.
//
// Keys are relative to the cluster's root, without a leading slash: "root", "nodes/<uid>",
// "claims/<2 hex>/<volume uid>", "requests/<node uid>/<op>", "names/<2 hex>/<hash of driver and name>".
//
// All methods may be called concurrently. Errors have a class of internal/fault: Conflict when an expectation
// of a Txn did not hold (nothing was written), NotFound, Unavailable when nothing was sent, and Unknown when the outcome is not
// known (a time limit, a lost reply): the caller reads back by nonce before it goes on.
type Registers interface {
	// Get reads one register, linearizably. NotFound when there is none.
	Get(ctx context.Context, key string) (Entry, error)
	// List reads all registers whose key begins with prefix, sorted by key. The entries are each linearizable; together they
	// are a snapshot only where the implementation says so.
	List(ctx context.Context, prefix string) ([]Entry, error)
	// Txn applies all operations or none. It returns the entries of the operations in order (deleted ones with
	// Version 0).
	Txn(ctx context.Context, ops ...Op) ([]Entry, error)
	// Watch sends (without blocking, so that several changes may be one signal) after something under prefix may
	// have changed, until ctx ends. A receiver re-reads; it also re-reads on a timer of its own.
	Watch(ctx context.Context, prefix string) <-chan struct{}
	// Close ends every call under way.
	Close() error
}

// Entry is a register's content. Version is never 0, differs after every write to the key, and does not repeat when the key is
// deleted and made again.
type Entry struct {
	Key     string `json:"key"`
	Value   []byte `json:"value"`
	Version uint64 `json:"version"`
}

// OpKind says what an Op does once every expectation of its transaction holds.
type OpKind string

// The kinds of Op.
const (
	OpCheck  OpKind = "check"  // nothing: only the expectation counts
	OpPut    OpKind = "put"    // write Value
	OpDelete OpKind = "delete" // remove the register
)

// Op is one part of a transaction. Expect is the version that the register must have, 0 for "does not exist".
type Op struct {
	Kind   OpKind `json:"kind"`
	Key    string `json:"key"`
	Expect uint64 `json:"expect"`
	Value  []byte `json:"value,omitempty"`
}

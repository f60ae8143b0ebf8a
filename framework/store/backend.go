// Package store keeps the framework's durable state: one JSON record for each app, definition, instance, volume and
// deployment, and one for the framework itself. A Store turns scheduler writes into records and back; a Backend is where records
// live (bolt/ now, others later), and package storetest is the suite that every Backend must pass.
//
// Keys are /holdfast/<cluster>/v1/{meta/leader, meta/framework, apps/<id>, defs/<id>/<version>, instances/<2 hex>/<id>,
// volumes/<2 hex>/<uid>, deployments/<id>}, with ids escaped as in URLs so that an app id is one segment.
package store

import "context"

// Op is one write of a batch: Value replaces the record at Key, nil removes it (removing what is not there is not an error).
type Op struct {
	Key   string
	Value []byte
}

// Term is a time of leadership. It grows with each Lead, for ever; 0 is none. Every commit carries the term it was
// planned in, and a back end refuses a commit of any term but the newest: that is the fence against a leader that was deposed
// without noticing.
type Term uint64

// Limits bound one batch. A Commit beyond them is refused whole, as fault.Invalid; nothing splits a batch below the Store, because
// only the one who planned it knows where a cut leaves a state that makes sense.
type Limits struct {
	Writes int // operations
	Bytes  int // keys and values together
}

// Portable are the limits that every kind of back end can keep in one transaction (Consul: 128 operations, a deletion being two, and 512 KiB of
// JSON with values in base64; ZooKeeper: 1 MiB, where what is created goes twice). A Backend may allow more.
var Portable = Limits{Writes: 60, Bytes: 320 << 10}

// Backend keeps records. All methods may be called from several goroutines. Errors have fault classes: Unavailable when nothing
// was done and it may work later, Unknown when it may have been done, Conflict when the term is over, Invalid when the
// request can never work, Internal for damage.
type Backend interface {
	// Lead takes the leadership of a cluster for the caller and gives its new term, durably. It is called again after a
	// failed commit, when it must not answer before it is certain what became of that commit. Conflict, naming the holder, when somebody
	// else leads. who names the caller for people.
	Lead(ctx context.Context, cluster, who string) (Term, error)
	// Load calls f for every record of the cluster in key order, meta/leader left out, until f returns an error. The
	// slice is only valid during the call.
	Load(ctx context.Context, cluster string, f func(key string, value []byte) error) error
	// Commit does all of ops durably, or nothing, and only if term is the newest of the cluster.
	Commit(ctx context.Context, cluster string, term Term, ops []Op) error
	// Clusters lists the clusters that have records here.
	Clusters(ctx context.Context) ([]string, error)
	// Limits of one Commit.
	Limits() Limits
	// Name tells what and where it is, for people; no secrets.
	Name() string
	// Close gives up leadership and everything else. Commits under way end first.
	Close() error
}

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Core is what the registrar needs of the running framework.
type Core interface {
	View(func(*state.State))
	Events(context.Context) <-chan framework.Notice
	Info() framework.Info
}

// Config of a Registrar. Core, Client and Cluster are needed.
type Config struct {
	Core   Core
	Client *api.Client // of consulconn.Open
	// Cluster is the cluster's UUID: entries are marked with it.
	Cluster string
	// Address and Datacenter are for people to read.
	Address, Datacenter string
	// Namespace and Partition of all entries (Consul Enterprise).
	Namespace, Partition string

	// Resync is how often everything is read anew. Default 1 minute.
	Resync time.Duration
	// Probation is for how long after the start entries of ours are kept whose instance is not known. Default 1 minute.
	Probation time.Duration
	// CallLimit bounds one call. Default 10 s.
	CallLimit time.Duration
	// Settle is how long a change waits for others to share its call. Default 50 ms.
	Settle time.Duration
	// RetryMin and RetryMax bound the pause after a failure. Default 500 ms and 30 s.
	RetryMin, RetryMax time.Duration
	Log                *zap.Logger
}

// Registrar keeps Consul as the state is. Make it with New, then Run it.
type Registrar struct {
	c      Config
	consul *consul
	build  *builder
	status status

	// Of Run's goroutine.
	there    *Observed // what Consul has; nil when it must be read
	readAt   time.Time
	since    time.Time                 // of the leadership
	seen     map[state.InstanceID]bool // instances that were wanted since
	refused  map[Key]refused
	foreign  map[string]bool // node names that somebody else's entry has
	takeable map[string]bool // nodes that may be written over
	locks    locks
}

// refused is a change that Consul did not accept.
type refused struct {
	put  *Service // nil for a removal
	name string
	what string
}

// held says that a change was refused before and is not to be tried yet.
func (r *Registrar) held(c Change) bool {
	e, ok := r.refused[c.Key]
	return ok && e.put == c.Put || c.Put != nil && (r.foreign[c.Node] || gains(c) && r.locks.waiting[c.Key] != "")
}

// New makes a registrar; nothing is sent before Run.
func New(c Config) (*Registrar, error) {
	if c.Core == nil || c.Client == nil || len(c.Cluster) < 8 {
		return nil, fault.New(fault.Internal, "catalog: core, client and cluster are needed")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Resync, time.Minute)
	def(&c.Probation, time.Minute)
	def(&c.CallLimit, 10*time.Second)
	def(&c.Settle, 50*time.Millisecond)
	def(&c.RetryMin, 500*time.Millisecond)
	def(&c.RetryMax, 30*time.Second)
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	r := &Registrar{c: c, build: newBuilder(c.Cluster), seen: map[state.InstanceID]bool{},
		consul: &consul{client: c.Client, cluster: c.Cluster, datacenter: c.Datacenter, namespace: c.Namespace, partition: c.Partition, limit: c.CallLimit}}
	r.forget()
	r.status.init(c)
	return r, nil
}

// forget makes the next turn read everything.
func (r *Registrar) forget() {
	r.there, r.refused, r.foreign, r.takeable = nil, map[Key]refused{}, map[string]bool{}, map[string]bool{}
}

// tick is how often the state is looked at without an event.
const tick = 2 * time.Second

// Run works until ctx ends, and then leaves everything in Consul as it is: tasks go on, too. It never returns an error: Consul may be
// away for as long as it likes.
func (r *Registrar) Run(ctx context.Context) error {
	poke := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() { defer close(done); r.listen(ctx, poke) }()
	defer func() { <-done }()
	defer r.endSession()
	pause := r.c.RetryMin
	for ctx.Err() == nil {
		err := r.turn(ctx)
		if err != nil && ctx.Err() == nil {
			r.forget()
			r.status.failed(err, r.c.Log, r.c.Address)
			// Events cannot shorten this pause: they wait for Consul as everything does.
			if sleep(ctx, pause/2+rand.N(pause/2+1)) {
				pause = min(2*pause, r.c.RetryMax)
			}
			continue
		}
		pause = r.c.RetryMin
		select {
		case <-ctx.Done():
		case <-poke:
			sleep(ctx, r.c.Settle)
		case <-time.After(tick):
		}
	}
	return nil
}

// sleep waits for d, or for the end of ctx, which gives false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// listen pokes the loop at each event that may change services.
func (r *Registrar) listen(ctx context.Context, poke chan<- struct{}) {
	wake := func() {
		select {
		case poke <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		for n := range r.c.Core.Events(ctx) {
			switch n.Type {
			case "instance", "app", "node":
				wake()
			}
		}
		wake() // events may have been missed
		sleep(ctx, 100*time.Millisecond)
	}
}

// turn makes one comparison and what follows from it; once more if the picture of Consul that it started from was wrong.
func (r *Registrar) turn(ctx context.Context) error {
	err := r.compare(ctx)
	if errors.Is(err, errStale) {
		r.forget()
		err = r.compare(ctx)
	}
	return err
}

func (r *Registrar) compare(ctx context.Context) error {
	if !r.c.Core.Info().Elected { // before that the state is not loaded, or somebody else's to announce
		r.forget()
		r.since = time.Time{}
		r.endSession() // whoever leads takes the locks
		r.status.standby(r.c.Log)
		return nil
	}
	now := time.Now()
	if r.since.IsZero() {
		r.since, r.locks.fresh = now, true
	}
	if r.there == nil || now.Sub(r.readAt) >= r.c.Resync {
		r.forget()
		r.build = newBuilder(r.c.Cluster)
		there, err := r.consul.read(ctx)
		if err != nil {
			return err
		}
		r.there, r.readAt = there, now
	}
	var m material
	r.c.Core.View(func(s *state.State) { m = r.build.collect(s) })
	want := r.build.render(m)
	for _, n := range m.members {
		r.seen[n.i.ID] = true
	}
	if err := r.keepSession(ctx, want); err != nil {
		return err
	}
	if err := r.sync(ctx, want); err != nil {
		return err
	}
	if err := r.keepLocks(ctx, want); err != nil {
		return err
	}
	there := len(want.Services)
	for _, e := range r.refused {
		if e.put != nil {
			there--
		}
	}
	r.status.synced(there, len(want.Nodes), r.problems(), r.readAt, r.c.Log)
	return nil
}

// release says whether an entry of ours that is not wanted may go: at once when its instance is known, or was since the start;
// otherwise after a while, lest a state that is not whole empties the catalog.
func (r *Registrar) release(e *Entry) bool {
	id := state.InstanceID(e.Meta[metaInstance])
	if r.seen[id] || time.Since(r.since) >= r.c.Probation {
		return true
	}
	known := false
	r.c.Core.View(func(s *state.State) { known = s.Instances[id] != nil })
	return known
}

// sync sends the difference. What Consul refuses is left out until the next time that everything is read, or until it changes.
func (r *Registrar) sync(ctx context.Context, want *Wanted) error {
	d := diff(want, r.there, r.release)
	for _, k := range d.Taken {
		r.refused[k] = refused{want.Services[k], want.Services[k].Name, "another cluster's entry has this id on this node"}
	}
	for k, e := range r.refused {
		if (want.Services[k] == nil) != (e.put == nil) {
			delete(r.refused, k)
		}
	}
	todo := slices.DeleteFunc(d.Changes, r.held)
	r.status.pending(len(todo))
	// Who gains the tag `primary` comes last, and only once nobody else has it.
	at := slices.IndexFunc(todo, gains)
	if at < 0 {
		at = len(todo)
	}
	if err := r.sendAll(ctx, todo[:at], d.Nodes, len(todo)-at); err != nil {
		return err
	}
	if err := r.sendAll(ctx, r.free(todo[at:]), d.Nodes, 0); err != nil {
		return err
	}
	if err := r.sendAll(ctx, r.plain(todo[at:]), d.Nodes, 0); err != nil {
		return err
	}
	return r.tidy(ctx, d)
}

// sendAll sends changes, transaction by transaction; more are still to come.
func (r *Registrar) sendAll(ctx context.Context, todo []Change, nodes map[string]string, more int) error {
	for done := 0; len(todo) > 0; todo = todo[done:] {
		var err error
		if done, err = r.send(ctx, todo, nodes); err != nil {
			return err
		}
		r.status.pending(len(todo) - done + more)
	}
	return nil
}

// tidy brings addresses of nodes up to date and removes empty node entries.
func (r *Registrar) tidy(ctx context.Context, d Diff) error {
	for name, address := range d.Nodes {
		if n := r.there.Nodes[name]; n == nil || n.Address == address || r.foreign[name] {
			continue
		}
		if err := r.consul.txn(ctx, api.TxnOps{r.consul.nodeOp(name, address, true)}); err != nil {
			return refusedNode(err)
		}
		r.there.Nodes[name].Address = address
	}
	for _, name := range d.Empty {
		n := r.there.Nodes[name]
		if n.Index == 0 {
			continue // made since the last reading: the next one tells whether anything is on it
		}
		err := r.consul.txn(ctx, api.TxnOps{r.consul.dropNodeOp(name, n.Index)})
		if errors.As(err, new(refusal)) {
			continue // it has changed: looked at again after the next reading
		}
		if err != nil {
			return err
		}
		delete(r.there.Nodes, name)
	}
	return nil
}

func refusedNode(err error) error {
	var no refusal
	if errors.As(err, &no) {
		return fault.New(fault.Denied, "write node entries: %s", no.Error())
	}
	return err
}

// send makes one transaction out of the first changes, and tells how many it was about. A transaction that is refused because of some
// of its changes is made again without them.
func (r *Registrar) send(ctx context.Context, todo []Change, nodes map[string]string) (done int, err error) {
	b := r.batch(todo, nodes)
	for len(b.ops) > 0 {
		err := r.consul.txn(ctx, b.ops)
		var no refusal
		if err == nil {
			b.applied(r.there)
			for _, c := range b.changes {
				if gains(c) {
					r.locks.held[c.Put.lock.key] = c.Put.lock.value
				}
			}
			return b.taken, nil
		}
		if !errors.As(err, &no) {
			return 0, err
		}
		if err := r.learn(ctx, b, no); err != nil {
			return 0, err
		}
		left := slices.DeleteFunc(b.changes, r.held)
		taken := b.taken
		b = r.batch(left, nodes)
		if b.taken < len(left) {
			return 0, fault.New(fault.Internal, "a smaller transaction does not fit")
		}
		b.taken = taken
	}
	return b.taken, nil
}

// missingNode is what Consul says of a service on a node that is not there.
const missingNode = "Missing node registration"

// errStale says that Consul is not as it was when it was last read.
var errStale = fault.New(fault.Conflict, "write services: Consul was changed by somebody else")

// learn finds out what a refused transaction was refused for.
func (r *Registrar) learn(ctx context.Context, b *batch, no refusal) error {
	found, first := false, map[Key]bool{}
	for _, at := range slices.Sorted(maps.Keys(no)) {
		if at < 0 || at >= len(b.about) {
			continue
		}
		what := no[at]
		switch c := b.about[at]; {
		case c == nil: // of a node
			name := b.ops[at].Node.Node.Node
			free := false
			if !r.takeable[name] && !permission(what) {
				var err error
				if free, err = r.consul.belongs(ctx, name); err != nil {
					return err
				}
			}
			found = true
			if free {
				r.takeable[name] = true
				continue
			}
			r.foreign[name] = true
			for _, c := range b.changes {
				if c.Put != nil && c.Node == name {
					r.refused[c.Key] = refused{c.Put, c.Put.Name, fmt.Sprintf("node entry %s: %s", name, what)}
				}
			}
		case b.nodes[c.Node] == "" && strings.Contains(what, missingNode):
			return errStale // somebody removed the node entry
		case b.ops[at].KV != nil:
			found = true
			r.refuseLock(c, what)
		default:
			found = true
			if !first[c.Key] { // what follows from it says less
				r.refused[c.Key], first[c.Key] = refused{c.Put, cmp.Or(c.Name, nameOf(c.Put)), what}, true
			}
		}
	}
	if !found {
		return fault.New(fault.Denied, "write services: Consul refuses: %s", no.Error())
	}
	return nil
}

func nameOf(s *Service) string {
	if s == nil {
		return ""
	}
	return s.Name
}

// problems gives what Consul refused, in a stable order.
func (r *Registrar) problems() []Refused {
	out := make([]Refused, 0, len(r.refused))
	for k, e := range r.refused {
		out = append(out, Refused{Service: e.name, ID: k.ID, Node: k.Node, Error: e.what})
	}
	for k, what := range r.locks.waiting {
		out = append(out, Refused{Service: r.locks.names[k], ID: k.ID, Node: k.Node, Error: what})
	}
	slices.SortFunc(out, func(a, b Refused) int { return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Node, b.Node)) })
	return out
}

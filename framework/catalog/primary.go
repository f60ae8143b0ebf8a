package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The tag `primary` (primary.db.service.consul) is guarded by a lock in Consul's store, holdfast/<cluster>/primary/<app>, which this framework's session
// holds on behalf of the instance. Each transaction that gives the tag takes or proves the lock in the same breath, so that a leader that was
// paused or replaced cannot give it any more. Which instance it is the scheduler decides; the lock does not.

const (
	tagPrimary = "primary"
	metaTerm   = metaPrefix + "term"
	// sessionTTL is how long the locks outlive a leader that says nothing; Consul may take twice as long. lockDelay is for how long nobody gets the
	// lock after that.
	sessionTTL = 15 * time.Second
	lockDelay  = time.Second
	// renewEvery leaves room for some renewals that fail.
	renewEvery = sessionTTL / 4
)

// lock is a key with its value: who is the primary.
type lock struct{ key, value string }

// locks is what is known of the locks. It belongs to Run's goroutine.
type locks struct {
	held    map[string]string // by key: the value that was written under the session
	renewed time.Time
	fresh   bool           // this leadership has not looked for sessions of earlier leaders yet
	denied  string         // why there is no session
	waiting map[Key]string // services that wait for their lock, and why
	names   map[Key]string // their names
}

// gains tells whether a change gives the tag `primary`.
func gains(c Change) bool { return c.Put != nil && c.Put.lock != nil }

// termOf is the term in which an instance's run is its app's primary, 0 when it is not.
func termOf(a *state.App, i *state.Instance) uint64 {
	if a == nil || a.Primary == nil || !a.Primary.Named || a.Primary.Task != i.Run.Task {
		return 0
	}
	return a.Primary.Term
}

// named gives a service of the primary its tag, if it is well.
func (b *builder) named(s *Service, n member) *Service {
	if n.term == 0 || s.Status != "passing" {
		return s
	}
	s.Tags = slices.Insert(s.Tags, 1, tagPrimary)
	s.Meta[metaTerm] = strconv.FormatUint(n.term, 10)
	value, _ := json.Marshal(map[string]any{"app": n.i.App, "instance": n.i.ID, "task": n.i.Run.Task, "term": n.term}) // of plain data: cannot fail
	s.lock = &lock{key: lockPrefix(b.cluster) + strings.Trim(string(n.i.App), "/"), value: string(value)}
	return s
}

func lockPrefix(cluster string) string { return "holdfast/" + cluster + "/primary/" }

// lockOps are the operations by which a transaction takes a service's lock, or proves it.
func (c *consul) lockOps(s *Service) api.TxnOps {
	if s.lock == nil {
		return nil
	}
	return api.TxnOps{{KV: &api.KVTxnOp{Verb: api.KVLock, Key: s.lock.key, Value: []byte(s.lock.value), Session: c.session, Namespace: c.namespace, Partition: c.partition}}}
}

// wantedLocks are all locks, by key.
func wantedLocks(want *Wanted) map[string]*Service {
	out := map[string]*Service{}
	for _, s := range want.Services {
		if s.lock != nil {
			out[s.lock.key] = s
		}
	}
	return out
}

// keepSession makes or renews the session, if there is anything to hold.
func (r *Registrar) keepSession(ctx context.Context, want *Wanted) error {
	r.locks.waiting, r.locks.names = map[Key]string{}, map[Key]string{}
	now := time.Now()
	if r.consul.session == "" && (len(wantedLocks(want)) == 0 || r.locks.denied != "" && now.Sub(r.locks.renewed) < renewEvery) {
		return nil
	}
	if r.consul.session != "" {
		if now.Sub(r.locks.renewed) < renewEvery {
			return nil
		}
		there, err := r.consul.renew(ctx)
		if err != nil {
			return err
		}
		if there {
			r.locks.renewed = now
			return nil
		}
		r.c.Log.Warn("the session in Consul that holds the locks of primaries ran out; the locks are taken again")
		r.consul.session = ""
	}
	id, err := r.consul.newSession(ctx)
	r.locks.renewed, r.locks.denied, r.locks.held = now, "", map[string]string{}
	if fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid) {
		r.locks.denied = err.Error() // services go on without the tag
		return nil
	}
	if err != nil {
		return err
	}
	r.consul.session = id
	if r.locks.fresh {
		// Once for each leadership: one that was paused and has lost it must not end the session of who came after.
		r.locks.fresh = false
		return r.consul.endOthers(ctx)
	}
	return nil
}

// free leaves out whose tag somebody else still has: it waits until that is gone.
func (r *Registrar) free(todo []Change) []Change {
	has := map[string][]*Entry{} // by app
	for _, e := range r.there.Services {
		if e.ours(r.c.Cluster) && slices.Contains(e.Tags, tagPrimary) {
			has[e.Meta[metaApp]] = append(has[e.Meta[metaApp]], e)
		}
	}
	return slices.DeleteFunc(slices.Clone(todo), func(c Change) bool {
		if r.consul.session == "" {
			r.refuseLock(&c, r.locks.denied)
			return true
		}
		for _, e := range has[c.Put.Meta[metaApp]] {
			if e.Meta[metaInstance] != c.Put.Meta[metaInstance] {
				r.refuseLock(&c, "service "+e.ID+" on node "+e.Node+" has the tag primary still")
				return true
			}
		}
		return false
	})
}

// plain gives what waits for its lock without the tag: the instance is found by its other names meanwhile.
func (r *Registrar) plain(todo []Change) (out []Change) {
	for _, c := range todo {
		if r.locks.waiting[c.Key] == "" {
			continue
		}
		s := *c.Put
		s.lock, s.Tags, s.Meta = nil, slices.DeleteFunc(slices.Clone(s.Tags), func(tag string) bool { return tag == tagPrimary }), maps.Clone(s.Meta)
		delete(s.Meta, metaTerm)
		if e := r.there.Services[c.Key]; e == nil || !s.equal(&e.Service) {
			out = append(out, Change{Key: c.Key, Put: &s})
		}
	}
	return out
}

// refuseLock notes that a service has to wait for its lock.
func (r *Registrar) refuseLock(c *Change, what string) {
	l := &r.locks
	l.waiting[c.Key], l.names[c.Key] = "lock of the primary: "+what, c.Put.Name
	delete(l.held, c.Put.lock.key)
	if strings.Contains(what, "invalid session") {
		r.consul.session = "" // it ran out
	}
}

// keepLocks takes the locks that are not held yet, of primaries that had their tag before, and gives back those of apps without a primary.
func (r *Registrar) keepLocks(ctx context.Context, want *Wanted) error {
	if r.consul.session == "" {
		return nil
	}
	wanted := wantedLocks(want)
	var ops api.TxnOps
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		s := wanted[key]
		if r.locks.held[key] == s.lock.value || r.locks.waiting[s.Key] != "" {
			continue
		}
		if e := r.there.Services[s.Key]; e == nil || e.wrote != s {
			continue // it was refused
		}
		ops, keys = append(ops, r.consul.lockOps(s)...), append(keys, key)
	}
	for _, key := range slices.Sorted(maps.Keys(r.locks.held)) {
		if wanted[key] == nil {
			ops, keys = append(ops, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVDelete, Key: key, Namespace: r.consul.namespace, Partition: r.consul.partition}}), append(keys, key)
		}
	}
	for at := 0; at < len(ops); at += maxOps {
		end := min(at+maxOps, len(ops))
		if err := r.takeLocks(ctx, ops[at:end], keys[at:end], wanted); err != nil {
			return err
		}
	}
	return nil
}

// takeLocks makes one transaction; when some of its operations are refused the others are made without them.
func (r *Registrar) takeLocks(ctx context.Context, ops api.TxnOps, keys []string, wanted map[string]*Service) error {
	for len(ops) > 0 {
		err := r.consul.txn(ctx, ops)
		var no refusal
		if err != nil && !errors.As(err, &no) {
			return err
		}
		if err == nil {
			for _, key := range keys {
				if s := wanted[key]; s != nil {
					r.locks.held[key] = s.lock.value
				} else {
					delete(r.locks.held, key)
				}
			}
			return nil
		}
		var restOps api.TxnOps
		var restKeys []string
		for n, key := range keys {
			if _, bad := no[n]; !bad {
				restOps, restKeys = append(restOps, ops[n]), append(restKeys, key)
			} else if s := wanted[key]; s != nil {
				r.refuseLock(&Change{Key: s.Key, Put: s}, no[n])
			} else {
				delete(r.locks.held, key)
			}
		}
		if len(restOps) == len(ops) {
			return err
		}
		ops, keys = restOps, restKeys
	}
	return nil
}

// endSession gives all locks back, so that the next leader need not wait for the session's end.
func (r *Registrar) endSession() {
	if r.consul.session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r.consul.calls.Add(1)
	if _, err := r.consul.client.Session().Destroy(r.consul.session, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		r.c.Log.Info("the session in Consul that holds the locks of primaries was not ended; it runs out by itself", zap.Error(err))
	}
	r.consul.session, r.locks = "", locks{}
}

// newSession makes a session that lives by its renewals alone.
func (c *consul) newSession(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	c.calls.Add(1)
	id, _, err = c.client.Session().CreateNoChecks(&api.SessionEntry{Name: sessionName(c.cluster), TTL: sessionTTL.String(), Behavior: api.SessionBehaviorRelease, LockDelay: lockDelay},
		(&api.WriteOptions{}).WithContext(ctx))
	return id, c.sort(ctx, err, "make a session for the locks of primaries")
}

// endOthers ends the sessions that earlier leaders of this cluster left behind.
func (c *consul) endOthers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	c.calls.Add(1)
	list, _, err := c.client.Session().List((&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return c.sort(ctx, err, "list sessions")
	}
	for _, s := range list {
		if s.Name != sessionName(c.cluster) || s.ID == c.session {
			continue
		}
		c.calls.Add(1)
		if _, err := c.client.Session().Destroy(s.ID, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
			return c.sort(ctx, err, "end an earlier leader's session")
		}
	}
	return nil
}

func sessionName(cluster string) string { return "holdfast " + cluster }

// renew renews the session; false when it is no more.
func (c *consul) renew(ctx context.Context) (there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	c.calls.Add(1)
	e, _, err := c.client.Session().Renew(c.session, (&api.WriteOptions{}).WithContext(ctx))
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return false, nil
	}
	return err == nil && e != nil, c.sort(ctx, err, "renew the session for the locks of primaries")
}

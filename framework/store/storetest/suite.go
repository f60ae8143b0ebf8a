// Package storetest is the suite that every store.Backend must pass. A back end's test is a Factory and a call of Run.
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Factory gives back ends over one storage.
type Factory struct {
	// Open opens the storage; every call must see what earlier ones committed.
	Open func(t testing.TB) store.Backend
	// Many says that several may be open at once. Otherwise a second Open while the first is open must fail, which the back end's own
	// tests show.
	Many bool
	// Raw writes a record past all checks, to play damage. The storage is closed. Nil skips that.
	Raw func(t testing.TB, key string, value []byte)
}

// A and B are the clusters that the suite uses.
const (
	A = "0f0e0d0c-0000-4000-8000-00000000000a"
	B = "0f0e0d0c-0000-4000-8000-00000000000b"
)

// Run runs the suite; fresh gives a Factory over an empty storage.
func Run(t *testing.T, fresh func(t testing.TB) Factory) {
	for name, test := range map[string]func(*testing.T, Factory){
		"empty": empty, "commit and load": commitAndLoad, "atomic": atomic, "fencing": fencing, "limits": limits, "bad keys": badKeys,
		"clusters": clusters, "reopen": reopen, "concurrent": concurrent, "closed": closed, "load stops": loadStops, "contexts": contexts,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
}

// Key makes a key of cluster A.
func Key(rest string) string { return store.Prefix(A) + rest }

// Put makes an Op.
func Put(rest, value string) store.Op { return store.Op{Key: Key(rest), Value: []byte(value)} }

// Del makes an Op that deletes.
func Del(rest string) store.Op { return store.Op{Key: Key(rest)} }

// All reads every record of a cluster, keys without prefix, and checks their order.
func All(t testing.TB, b store.Backend, cluster string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var keys []string
	err := b.Load(context.Background(), cluster, func(k string, v []byte) error {
		keys = append(keys, k)
		out[strings.TrimPrefix(k, store.Prefix(cluster))] = string(v)
		return nil
	})
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if !slices.IsSorted(keys) {
		t.Errorf("keys are not in order: %q", keys)
	}
	return out
}

func lead(t testing.TB, b store.Backend, cluster string) store.Term {
	t.Helper()
	term, err := b.Lead(context.Background(), cluster, "suite")
	if err != nil {
		t.Fatalf("lead: %v", err)
	}
	return term
}

func commit(t testing.TB, b store.Backend, term store.Term, ops ...store.Op) {
	t.Helper()
	if err := b.Commit(context.Background(), A, term, ops); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

func want(t testing.TB, b store.Backend, cluster string, kv ...string) {
	t.Helper()
	got := All(t, b, cluster)
	if len(got) != len(kv)/2 {
		t.Errorf("records %q, want %q", got, kv)
		return
	}
	for i := 0; i < len(kv); i += 2 {
		if v, ok := got[kv[i]]; !ok || v != kv[i+1] {
			t.Errorf("record %s = %q, want %q", kv[i], v, kv[i+1])
		}
	}
}

func class(t testing.TB, err error, c fault.Class, holds ...string) {
	t.Helper()
	if !fault.Is(err, c) {
		t.Fatalf("error %v (%s), want class %s", err, fault.ClassOf(err), c)
	}
	for _, h := range holds {
		if !strings.Contains(err.Error(), h) {
			t.Errorf("error %q does not name %q", err, h)
		}
	}
}

func empty(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	if c, err := b.Clusters(context.Background()); err != nil || len(c) != 0 {
		t.Errorf("clusters of nothing: %v, %v", c, err)
	}
	want(t, b, A)
	if b.Name() == "" {
		t.Error("no name")
	}
	if l := b.Limits(); l.Writes < store.Portable.Writes || l.Bytes < store.Portable.Bytes {
		t.Errorf("limits %+v are below what every back end can do", l)
	}
}

func commitAndLoad(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term := lead(t, b, A)
	if term == 0 {
		t.Fatal("term 0")
	}
	want(t, b, A) // the leader record is nobody's business
	commit(t, b, term, Put("apps/a", "1"), Put("instances/00/a.0", "2"))
	want(t, b, A, "apps/a", "1", "instances/00/a.0", "2")
	commit(t, b, term, Put("apps/a", "3"), Del("instances/00/a.0"), Del("instances/00/never"))
	want(t, b, A, "apps/a", "3")
	commit(t, b, term, Put("apps/a", ""))
	got := All(t, b, A)
	if v, ok := got["apps/a"]; !ok || v != "" {
		t.Errorf("an empty value came back as %q, %v", v, ok)
	}
}

func atomic(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term := lead(t, b, A)
	commit(t, b, term, Put("apps/a", "old"))
	err := b.Commit(context.Background(), A, term, []store.Op{Put("apps/a", "new"), Put("apps/b", "new"), {Key: "/elsewhere", Value: []byte("x")}})
	class(t, err, fault.Invalid)
	want(t, b, A, "apps/a", "old")
	err = b.Commit(context.Background(), A, term, []store.Op{Put("apps/a", "new"), Put("apps/a", "newer")})
	class(t, err, fault.Invalid, "apps/a")
	want(t, b, A, "apps/a", "old")
	commit(t, b, term, Put("apps/a", "newest")) // a refusal spoils nothing
	want(t, b, A, "apps/a", "newest")
}

func fencing(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	old := lead(t, b, A)
	commit(t, b, old, Put("apps/a", "old leader"))
	now := lead(t, b, A)
	if now <= old {
		t.Fatalf("term %d after %d", now, old)
	}
	err := b.Commit(context.Background(), A, old, []store.Op{Put("apps/a", "deposed")})
	class(t, err, fault.Conflict, "term")
	want(t, b, A, "apps/a", "old leader")
	for _, never := range []store.Term{0, now + 1, ^store.Term(0)} {
		class(t, b.Commit(context.Background(), A, never, []store.Op{Put("apps/a", "x")}), fault.Conflict)
	}
	commit(t, b, now, Put("apps/a", "new leader"))
	want(t, b, A, "apps/a", "new leader")
	// A term is of one cluster.
	class(t, b.Commit(context.Background(), B, now, []store.Op{{Key: store.Prefix(B) + "apps/a", Value: []byte("x")}}), fault.Conflict)
	want(t, b, B)
}

func limits(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term, l := lead(t, b, A), b.Limits()
	ops := make([]store.Op, 0, l.Writes+1)
	for i := range l.Writes {
		ops = append(ops, Put(fmt.Sprintf("instances/00/a.%d", i), "x"))
	}
	commit(t, b, term, ops...)
	class(t, b.Commit(context.Background(), A, term, append(ops, Put("apps/one-more", "x"))), fault.Invalid)
	if got := All(t, b, A); len(got) != l.Writes || got["apps/one-more"] != "" {
		t.Errorf("%d records after a batch that was too large, want %d", len(got), l.Writes)
	}
	big := bytes.Repeat([]byte("x"), l.Bytes/2)
	class(t, b.Commit(context.Background(), A, term, []store.Op{{Key: Key("apps/b"), Value: big}, {Key: Key("apps/c"), Value: big}}), fault.Invalid)
	if got := All(t, b, A); len(got) != l.Writes {
		t.Error("part of a batch that was too large is there")
	}
	// The largest batch that all can do.
	p := store.Portable
	ops = ops[:0]
	for i := range p.Writes {
		k := fmt.Sprintf("volumes/00/v%04d", i)
		ops = append(ops, store.Op{Key: Key(k), Value: bytes.Repeat([]byte{'v'}, p.Bytes/p.Writes-len(Key(k)))})
	}
	commit(t, b, term, ops...)
}

func badKeys(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term := lead(t, b, A)
	for _, k := range []string{"", "/", "x", store.Prefix(A), store.LeaderKey(A), Key("apps//a"), Key("apps/../a"), Key("apps/."), Key("apps/a/"),
		Key("apps/a b"), Key("apps/a\x00"), Key("apps/ä"), Key("apps/" + strings.Repeat("x", 2000)), store.Prefix(B) + "apps/a"} {
		class(t, b.Commit(context.Background(), A, term, []store.Op{{Key: k, Value: []byte("x")}}), fault.Invalid)
		class(t, b.Commit(context.Background(), A, term, []store.Op{{Key: k}}), fault.Invalid)
	}
	want(t, b, A)
	commit(t, b, term, Put("apps/prod%2Fdb", "x"), Put("defs/prod%2Fdb/2026-01-01T00:00:00.000Z", "y"))
	want(t, b, A, "apps/prod%2Fdb", "x", "defs/prod%2Fdb/2026-01-01T00:00:00.000Z", "y")
	if _, err := b.Lead(context.Background(), "../etc", "suite"); !fault.Is(err, fault.Invalid) {
		t.Errorf("cluster ../etc: %v", err)
	}
}

func clusters(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	ta, tb := lead(t, b, A), lead(t, b, B)
	commit(t, b, ta, Put("apps/a", "of A"))
	if err := b.Commit(context.Background(), B, tb, []store.Op{{Key: store.Prefix(B) + "apps/a", Value: []byte("of B")}}); err != nil {
		t.Fatal(err)
	}
	want(t, b, A, "apps/a", "of A")
	want(t, b, B, "apps/a", "of B")
	c, err := b.Clusters(context.Background())
	slices.Sort(c)
	if err != nil || !slices.Equal(c, []string{A, B}) {
		t.Errorf("clusters %v, %v", c, err)
	}
}

func reopen(t *testing.T, f Factory) {
	b := f.Open(t)
	first := lead(t, b, A)
	commit(t, b, first, Put("apps/a", "1"), Put("apps/b", "2"))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = f.Open(t)
	defer b.Close()
	want(t, b, A, "apps/a", "1", "apps/b", "2")
	second := lead(t, b, A)
	if second <= first {
		t.Errorf("term %d after %d", second, first)
	}
	class(t, b.Commit(context.Background(), A, first, []store.Op{Put("apps/a", "x")}), fault.Conflict)
	commit(t, b, second, Del("apps/a"))
	want(t, b, A, "apps/b", "2")
}

// concurrent has writers that each change two records together, and readers that must never see one without the other.
func concurrent(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term := lead(t, b, A)
	const writers, rounds = 4, 25
	var wg, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				got := map[string]string{}
				err := b.Load(context.Background(), A, func(k string, v []byte) error {
					got[strings.TrimPrefix(k, store.Prefix(A))] = string(v)
					return nil
				})
				if err != nil {
					t.Errorf("load: %v", err)
					return
				}
				for w := range writers {
					if l, r := got[fmt.Sprintf("apps/l%d", w)], got[fmt.Sprintf("instances/00/r%d", w)]; l != r {
						t.Errorf("half a commit was seen: %q and %q", l, r)
						return
					}
				}
			}
		}()
	}
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range rounds {
				v := fmt.Sprint(i)
				if err := b.Commit(context.Background(), A, term, []store.Op{Put(fmt.Sprintf("apps/l%d", w), v), Put(fmt.Sprintf("instances/00/r%d", w), v)}); err != nil {
					t.Errorf("commit: %v", err)
				}
			}
		}()
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	for w := range writers {
		if got := All(t, b, A)[fmt.Sprintf("apps/l%d", w)]; got != fmt.Sprint(rounds-1) {
			t.Errorf("writer %d ended at %q", w, got)
		}
	}
}

func closed(t *testing.T, f Factory) {
	b := f.Open(t)
	term := lead(t, b, A)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	class(t, b.Commit(context.Background(), A, term, []store.Op{Put("apps/a", "x")}), fault.Unavailable)
	class(t, b.Load(context.Background(), A, func(string, []byte) error { return nil }), fault.Unavailable)
	if _, err := b.Lead(context.Background(), A, "suite"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("lead of a closed back end: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func loadStops(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term := lead(t, b, A)
	commit(t, b, term, Put("apps/a", "1"), Put("apps/b", "2"))
	stop, n := fault.New(fault.Exists, "enough"), 0
	err := b.Load(context.Background(), A, func(string, []byte) error { n++; return stop })
	if n != 1 || !fault.Is(err, fault.Exists) {
		t.Errorf("load went on for %d records and gave %v", n, err)
	}
}

func contexts(t *testing.T, f Factory) {
	b := f.Open(t)
	defer b.Close()
	term := lead(t, b, A)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Commit(ctx, A, term, []store.Op{Put("apps/a", "x")}); !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown) {
		t.Errorf("commit after the end of its context: %v", err)
	}
	term = lead(t, b, A) // after an error nothing is assumed
	commit(t, b, term, Put("apps/b", "y"))
}

package embedded

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-io/holdfast/isolator/lease"
)

// The list that a client puts together from differences is the list that the server has, also over a restart of the server and more changes than
// the server remembers.
func TestListByDifferences(t *testing.T) {
	s := serveNew(t).(*served)
	client, direct := s.Client(), s.server.Registers()
	versions := map[string]uint64{}
	change := func() {
		key := fmt.Sprintf("claims/%d", rand.IntN(40))
		op := lease.Op{Kind: lease.OpPut, Key: key, Expect: versions[key], Value: []byte(fmt.Sprint(rand.Int()))}
		if versions[key] != 0 && rand.IntN(3) == 0 {
			op.Kind, op.Value = lease.OpDelete, nil
		}
		e, err := direct.Txn(ctx, op)
		if err != nil {
			t.Fatal(err)
		}
		versions[key] = e[0].Version
	}
	same := func() {
		t.Helper()
		for _, prefix := range []string{"claims/", "claims/1", "nodes/"} {
			want, err := direct.List(ctx, prefix)
			if err != nil {
				t.Fatal(err)
			}
			got, err := client.List(ctx, prefix)
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("list %q: %v, %v; want %v", prefix, got, err, want)
			}
		}
	}
	same()
	for i := range 100 {
		for range i % 5 {
			change()
		}
		same()
	}
	for range 5 { // forget the beginning
		s.server.hub.publish(s.server.hub.rev, make([]string, recentLimit))
	}
	change()
	same()
	s.listener.Cut()
	if err := s.listener.Heal(); err != nil {
		t.Fatal(err)
	}
	change()
	same()
}

func BenchmarkList(b *testing.B) {
	s, err := Open(b.TempDir() + "/r.db")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := s.Listen(b.TempDir() + "/s")
	if err != nil {
		b.Fatal(err)
	}
	c, err := Dial(l.Path())
	if err != nil {
		b.Fatal(err)
	}
	for i := range 500 {
		if _, err := c.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: fmt.Sprintf("claims/%03d", i), Value: make([]byte, 600)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for range b.N {
		if l, err := c.List(ctx, "claims/"); err != nil || len(l) != 500 {
			b.Fatal(err)
		}
	}
}

func BenchmarkTxn(b *testing.B) {
	s, err := Open(b.TempDir() + "/r.db")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := s.Listen(b.TempDir() + "/s")
	if err != nil {
		b.Fatal(err)
	}
	c, err := Dial(l.Path())
	if err != nil {
		b.Fatal(err)
	}
	version := uint64(0)
	for range b.N {
		e, err := c.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k", Expect: version, Value: make([]byte, 600)})
		if err != nil {
			b.Fatal(err)
		}
		version = e[0].Version
	}
}

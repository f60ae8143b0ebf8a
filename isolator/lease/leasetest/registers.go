// Package leasetest holds every lease authority to the contract of lease.Registers, and the protocol's
// transitions on it to docs/safety.md. An implementation's test is a few lines:
//
//	func TestRegisters(t *testing.T) { leasetest.Registers(t, newServer) }
//
// It also has an authority in memory and a bad network, for tests of what is built on top.
package leasetest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Server is one authority, empty at the beginning of a test.
type Server interface {
	// Client opens one more connection.
	Client() lease.Registers
}

// Registers runs the suite. open makes an empty authority for each part.
func Registers(t *testing.T, open func(t *testing.T) Server) {
	for _, part := range []struct {
		name string
		run  func(t *testing.T, s Server)
	}{
		{"one register", oneRegister}, {"versions never repeat", versions}, {"transactions are atomic", atomic},
		{"list", list}, {"values", values}, {"bad input", badInput}, {"ended context", endedContext}, {"watch", watch},
		{"concurrent increments", increments}, {"linearizable", func(t *testing.T, s Server) { Linearizable(t, s, 6, 60, nil) }},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, open(t)) })
	}
}

var ctx = context.Background()

func put(key string, expect uint64, value string) lease.Op {
	return lease.Op{Kind: lease.OpPut, Key: key, Expect: expect, Value: []byte(value)}
}

func must(t *testing.T, r lease.Registers, ops ...lease.Op) []lease.Entry {
	t.Helper()
	e, err := r.Txn(ctx, ops...)
	if err != nil {
		t.Fatalf("txn %+v: %v", ops, err)
	}
	if len(e) != len(ops) {
		t.Fatalf("txn of %d operations gave %d entries", len(ops), len(e))
	}
	return e
}

func wantClass(t *testing.T, err error, c fault.Class) {
	t.Helper()
	if !fault.Is(err, c) {
		t.Errorf("error %v has class %q, want %q", err, fault.ClassOf(err), c)
	}
}

func oneRegister(t *testing.T, s Server) {
	r, other := s.Client(), s.Client()
	_, err := r.Get(ctx, "a/b")
	wantClass(t, err, fault.NotFound)
	_, err = r.Txn(ctx, put("a/b", 7, "x"))
	wantClass(t, err, fault.Conflict)
	e := must(t, r, put("a/b", 0, "one"))[0]
	if e.Key != "a/b" || e.Version == 0 || string(e.Value) != "one" {
		t.Errorf("put gave %+v", e)
	}
	if got, err := other.Get(ctx, "a/b"); err != nil || got.Version != e.Version || string(got.Value) != "one" || got.Key != "a/b" {
		t.Errorf("get gave %+v, %v", got, err)
	}
	_, err = other.Txn(ctx, put("a/b", 0, "two"))
	wantClass(t, err, fault.Conflict)
	next := must(t, other, put("a/b", e.Version, "two"))[0]
	_, err = r.Txn(ctx, put("a/b", e.Version, "three"))
	wantClass(t, err, fault.Conflict)
	_, err = r.Txn(ctx, lease.Op{Kind: lease.OpDelete, Key: "a/b", Expect: e.Version})
	wantClass(t, err, fault.Conflict)
	if gone := must(t, r, lease.Op{Kind: lease.OpDelete, Key: "a/b", Expect: next.Version})[0]; gone.Version != 0 {
		t.Errorf("delete gave %+v", gone)
	}
	_, err = other.Get(ctx, "a/b")
	wantClass(t, err, fault.NotFound)
}

func versions(t *testing.T, s Server) {
	r := s.Client()
	seen := map[uint64]bool{}
	for range 3 {
		version := uint64(0)
		for i := range 3 {
			version = must(t, r, put("k", version, strconv.Itoa(i)))[0].Version
			if version == 0 || seen[version] {
				t.Fatalf("version %d: zero or seen before", version)
			}
			seen[version] = true
		}
		version = must(t, r, put("k", version, "2"))[0].Version // the same value is a write, too
		if seen[version] {
			t.Fatalf("version %d was seen before", version)
		}
		seen[version] = true
		must(t, r, lease.Op{Kind: lease.OpDelete, Key: "k", Expect: version})
	}
}

func atomic(t *testing.T, s Server) {
	r := s.Client()
	e := must(t, r, put("x", 0, "1"), put("y", 0, "1"), lease.Op{Kind: lease.OpCheck, Key: "z"})
	for _, bad := range [][]lease.Op{
		{put("x", e[0].Version, "2"), put("y", e[0].Version+e[1].Version, "2")},
		{put("x", e[0].Version, "2"), {Kind: lease.OpCheck, Key: "y"}},
		{{Kind: lease.OpCheck, Key: "z", Expect: 1}, put("x", e[0].Version, "2")},
		{put("new", 0, "2"), {Kind: lease.OpDelete, Key: "z", Expect: 1}},
		{{Kind: lease.OpDelete, Key: "x", Expect: e[0].Version}, put("y", 0, "2")},
	} {
		_, err := r.Txn(ctx, bad...)
		wantClass(t, err, fault.Conflict)
	}
	all, err := r.List(ctx, "")
	if err != nil || len(all) != 2 || string(all[0].Value) != "1" || string(all[1].Value) != "1" {
		t.Errorf("after transactions that failed: %+v, %v", all, err)
	}
	got := must(t, r, lease.Op{Kind: lease.OpCheck, Key: "x", Expect: e[0].Version}, put("y", e[1].Version, "2"), put("z", 0, "2"),
		lease.Op{Kind: lease.OpCheck, Key: "none"})
	for i, key := range []string{"x", "y", "z", "none"} {
		if got[i].Key != key {
			t.Errorf("entry %d is of %q, want %q", i, got[i].Key, key)
		}
	}
	if got[0].Version != e[0].Version || got[1].Version == e[1].Version || got[3].Version != 0 {
		t.Errorf("entries %+v", got)
	}
}

func list(t *testing.T, s Server) {
	r := s.Client()
	if l, err := r.List(ctx, "claims/"); err != nil || len(l) != 0 {
		t.Fatalf("empty: %v, %v", l, err)
	}
	var ops []lease.Op
	for _, k := range []string{"claims/b/2", "claims/a/1", "claims/a/10", "claimsx/1", "nodes/1", "claims/a/2"} {
		ops = append(ops, put(k, 0, k))
	}
	must(t, r, ops...)
	for prefix, want := range map[string]string{
		"claims/": "[claims/a/1 claims/a/10 claims/a/2 claims/b/2]", "claims/a/1": "[claims/a/1 claims/a/10]", "nodes/": "[nodes/1]", "x": "[]",
	} {
		l, err := r.List(ctx, prefix)
		keys := []string{}
		for _, e := range l {
			keys = append(keys, e.Key)
			if string(e.Value) != e.Key || e.Version == 0 {
				t.Errorf("list %q: entry %+v", prefix, e)
			}
		}
		if got := fmt.Sprint(keys); err != nil || got != want {
			t.Errorf("list %q = %s, %v; want %s", prefix, got, err, want)
		}
	}
}

func values(t *testing.T, s Server) {
	r := s.Client()
	for i, v := range [][]byte{{}, {0, 1, 255, '\n', '"'}, bytes.Repeat([]byte("0123456789abcdef"), 6000), []byte(`{"v":1}`)} {
		key := "v/" + strconv.Itoa(i)
		must(t, r, lease.Op{Kind: lease.OpPut, Key: key, Value: v})
		if e, err := r.Get(ctx, key); err != nil || !bytes.Equal(e.Value, v) {
			t.Errorf("value %d of %d bytes came back with %d, %v", i, len(v), len(e.Value), err)
		}
	}
}

func badInput(t *testing.T, s Server) {
	r := s.Client()
	for _, ops := range [][]lease.Op{
		{}, {put("", 0, "x")}, {put("/x", 0, "x")}, {put("x/", 0, "x")}, {put("a//b", 0, "x")}, {put("a/../b", 0, "x")}, {put("a b", 0, "x")},
		{put("x", 0, "1"), put("x", 0, "2")}, {{Kind: "append", Key: "x"}}, {{Kind: lease.OpDelete, Key: "x"}},
	} {
		_, err := r.Txn(ctx, ops...)
		wantClass(t, err, fault.Invalid)
	}
	_, err := r.Get(ctx, "../root")
	wantClass(t, err, fault.Invalid)
	if l, err := r.List(ctx, ""); err != nil || len(l) != 0 {
		t.Errorf("something was written: %v, %v", l, err)
	}
}

func endedContext(t *testing.T, s Server) {
	r := s.Client()
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err := r.Txn(over, put("x", 0, "1"))
	wantClass(t, err, fault.Unavailable)
	_, err = r.Get(over, "x")
	wantClass(t, err, fault.Unavailable)
	_, err = r.List(over, "")
	wantClass(t, err, fault.Unavailable)
	_, err = r.Get(ctx, "x")
	wantClass(t, err, fault.NotFound)
}

// watch wants a signal within a second of each change, and none that never ends.
func watch(t *testing.T, s Server) {
	r, writer := s.Client(), s.Client()
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	c := r.Watch(watching, "a/")
	version := uint64(0)
	for i := range 3 {
		quiet(c)
		version = must(t, writer, put("a/x", version, strconv.Itoa(i)))[0].Version
		select {
		case <-c:
		case <-time.After(time.Second):
			t.Fatalf("no signal for change %d", i)
		}
	}
	quiet(c)
	must(t, writer, put("b/x", 0, "1"))
	cancel()
	time.Sleep(10 * time.Millisecond)
	must(t, writer, put("a/x", version, "4")) // nobody watches; nothing blocks
}

// quiet waits until no signal has come for a moment.
func quiet(c <-chan struct{}) {
	for {
		select {
		case <-c:
		case <-time.After(30 * time.Millisecond):
			return
		}
	}
}

func increments(t *testing.T, s Server) {
	const workers, each = 8, 15
	must(t, s.Client(), put("n", 0, "0"))
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := s.Client()
			for done := 0; done < each; {
				e, err := r.Get(ctx, "n")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(e.Value))
				_, err = r.Txn(ctx, put("n", e.Version, strconv.Itoa(n+1)))
				switch {
				case err == nil:
					done++
				case !fault.Is(err, fault.Conflict):
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if e, err := s.Client().Get(ctx, "n"); err != nil || string(e.Value) != strconv.Itoa(workers*each) {
		t.Errorf("%s, %v; want %d", e.Value, err, workers*each)
	}
}

package embedded

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

var ctx = context.Background()

// The history stays linearizable while connections are severed in the middle of calls.
func TestLinearizableWhileCut(t *testing.T) {
	s := serveNew(t).(*served)
	cuts := 0
	leasetest.Linearizable(t, s, 6, 80, func() bool {
		time.Sleep(10 * time.Millisecond)
		s.listener.Cut()
		time.Sleep(2 * time.Millisecond)
		if err := s.listener.Heal(); err != nil {
			t.Error(err)
		}
		cuts++
		return cuts < 6
	})
}

func TestCutAndHeal(t *testing.T) {
	s := serveNew(t).(*served)
	other, err := s.server.Listen(filepath.Join(t.TempDir(), "b.sock"))
	if err != nil {
		t.Fatal(err)
	}
	near := s.Client()
	far, err := Dial(other.Path())
	if err != nil {
		t.Fatal(err)
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := near.Watch(watching, "k")
	if _, err := near.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k"}); err != nil {
		t.Fatal(err)
	}
	s.listener.Cut()
	s.listener.Cut()
	if !s.listener.IsCut() || other.IsCut() {
		t.Error("the wrong cable is cut")
	}
	for range 3 {
		if _, err := near.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "lost"}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("write during a cut: %v", err)
		}
		if _, err := near.Get(ctx, "k"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("read during a cut: %v", err)
		}
	}
	e, err := far.Get(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k", Expect: e.Version}); err != nil {
		t.Fatal(err)
	}
	for drained := false; !drained; {
		select {
		case <-signals:
		case <-time.After(50 * time.Millisecond):
			drained = true
		}
	}
	for range 2 {
		if err := s.listener.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := near.Get(ctx, "k"); err != nil || now.Version == e.Version {
		t.Errorf("after the heal: %+v, %v", now, err)
	}
	select {
	case <-signals: // of the change that was missed
	case <-time.After(2 * time.Second):
		t.Error("the watch did not come back")
	}
	if st, err := os.Stat(s.listener.Path()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", st, err)
	}
	if err := s.listener.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.listener.Heal(); err == nil {
		t.Error("a closed listener was opened again")
	}
}

// A call that has reached the server and gets no answer within its context is unknown; one that has reached nobody did nothing.
func TestNoAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deaf.sock")
	deaf, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	c, err := Dial("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if _, err := c.Txn(short, lease.Op{Kind: lease.OpPut, Key: "k"}); !fault.Is(err, fault.Unknown) {
		t.Errorf("write without an answer: %v", err)
	}
	if _, err := c.Get(short, "k"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("read without an answer: %v", err)
	}
	gone, err := Dial(filepath.Join(t.TempDir(), "none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("write to nobody: %v", err)
	}
	for _, bad := range []string{"", "http://x", "relative.sock", "unix://relative"} {
		if _, err := Dial(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("Dial(%q): %v", bad, err)
		}
	}
}

func TestServerLimits(t *testing.T) {
	s := serveNew(t).(*served)
	c := s.Client()
	many := make([]lease.Op, MaxOps+1)
	for i := range many {
		many[i] = lease.Op{Kind: lease.OpPut, Key: "k/" + strings.Repeat("x", i+1)}
	}
	for name, ops := range map[string][]lease.Op{
		"too many operations": many,
		"value too large":     {{Kind: lease.OpPut, Key: "k", Value: make([]byte, MaxValue+1)}},
		"body too large":      {{Kind: lease.OpPut, Key: "k", Value: make([]byte, maxRequest)}},
		"key too long":        {{Kind: lease.OpPut, Key: strings.Repeat("x", MaxKey+1)}},
	} {
		if _, err := c.Txn(ctx, ops...); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k", Value: make([]byte, MaxValue)}); err != nil {
		t.Errorf("the largest value: %v", err)
	}
}

// What was written is there after a restart, versions go on, and one file has one server.
func TestReopen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "registers.db")
	s, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); !fault.Is(err, fault.Conflict) {
		t.Errorf("second server on one file: %v", err)
	}
	r := s.Registers()
	first, err := r.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "a", Value: []byte("1")}, lease.Op{Kind: lease.OpPut, Key: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Txn(ctx, lease.Op{Kind: lease.OpDelete, Key: "b", Expect: first[1].Version}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 { // calls under way while it closes end, one way or the other
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, _ = r.Txn(ctx, lease.Op{Kind: lease.OpCheck, Key: "a", Expect: first[0].Version})
		}()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if _, err := r.Get(ctx, "a"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("get after Close: %v", err)
	}
	if _, err := r.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "c"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("txn after Close: %v", err)
	}
	again, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if e, err := again.Registers().Get(ctx, "a"); err != nil || string(e.Value) != "1" || e.Version != first[0].Version {
		t.Errorf("after a restart: %+v, %v", e, err)
	}
	if e, err := again.Registers().Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "b"}); err != nil || e[0].Version <= first[1].Version {
		t.Errorf("made again: %+v, %v; before it had version %d", e, err, first[1].Version)
	}
}

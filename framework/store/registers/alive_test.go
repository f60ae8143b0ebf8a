package registers

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

// Who was stopped after a commit may not act on it once another leads, and may when nobody took over.
func TestConfirm(t *testing.T) {
	ctx, m := context.Background(), leasetest.NewMemory()
	base, jump := time.Now(), new(atomic.Int64)
	clock := func() time.Time { return base.Add(time.Duration(jump.Load())) }
	o := Options{Renew: time.Hour, Takeover: 4 * time.Hour, Now: clock}
	a := open(t, m, o)
	if err := a.Confirm(ctx, storetest.A); err == nil {
		t.Fatal("who never led may act")
	}
	term, err := a.Lead(ctx, storetest.A, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(ctx, storetest.A, term, []store.Op{storetest.Put("meta/n", "1")}); err != nil {
		t.Fatal(err)
	}
	if err := a.Confirm(ctx, storetest.A); err != nil {
		t.Fatal(err)
	}
	jump.Add(int64(24 * time.Hour)) // stopped, and nobody was there to take over
	if err := a.Confirm(ctx, storetest.A); err != nil {
		t.Fatalf("nobody took over: %v", err)
	}
	b := open(t, m, o)
	for i := 0; ; i++ {
		if _, err = b.Lead(ctx, storetest.A, "b"); err == nil {
			break
		}
		if i > 20 {
			t.Fatal(err)
		}
		jump.Add(int64(time.Hour)) // a stands still meanwhile
	}
	if err := a.Confirm(ctx, storetest.A); !fault.Is(err, fault.Conflict) {
		t.Fatalf("b leads, and a may act: %v", err)
	}
	if err := b.Confirm(ctx, storetest.A); err != nil {
		t.Fatal(err)
	}
}

// A leader whose loop hangs gives up, and another takes over; one that gives signs of life does not.
func TestLoopHangs(t *testing.T) {
	ctx, m := context.Background(), leasetest.NewMemory()
	o := Options{Renew: 10 * time.Millisecond, Takeover: 100 * time.Millisecond, Hang: 200 * time.Millisecond}
	a, b := open(t, m, o), open(t, m, o)
	if _, err := a.Lead(ctx, storetest.A, "a"); err != nil {
		t.Fatal(err)
	}
	over := a.Deposed(storetest.A)
	for range 30 { // also without a first sign: the state may take long to load
		if _, err := b.Lead(ctx, storetest.A, "b"); err == nil {
			t.Fatal("b leads although a lives")
		}
		time.Sleep(10 * time.Millisecond)
	}
	a.Alive(storetest.A)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := b.Lead(ctx, storetest.A, "b"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a's loop hangs, and b does not lead")
		}
	}
	select {
	case <-over:
	default:
		t.Error("a does not know")
	}
	if err := a.Confirm(ctx, storetest.A); !fault.Is(err, fault.Conflict) {
		t.Errorf("a may act: %v", err)
	}
}

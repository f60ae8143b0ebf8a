package isolator

import (
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Case 10 of safety.md: an attach hangs over the deadline and completes later. Until the driver has answered it counts as held: the watchdog knows of it before
// the driver does, no new lease begins, the claim is not given back; and then it is undone.
func TestPendingMountCounts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the lease")
	}
	c := newCluster(t)
	slow := &slowDriver{gate: make(chan struct{})}
	n := c.node(quick, func(o *Options) {
		slow.Driver = o.Drivers[0]
		o.Drivers[0] = slow
	})
	uid, ref := c.volume(n, "slow")
	slow.set("slow")
	opts := c.grant(n, uid)
	release := sync.OnceFunc(func() { close(slow.gate) })
	defer release() // also when this test has failed
	answered := make(chan error, 1)
	go func() { _, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts}); answered <- err }()
	c.eventually("the driver was asked", func() bool { return slow.count() == 1 })
	n.state.mu.Lock()
	told := n.state.pending
	n.state.mu.Unlock()
	if told != 1 {
		t.Errorf("the watchdog was told of %d mounts before the driver was asked", told)
	}
	n.cut.cut(true)
	c.eventually("the lease is lost", func() bool { return n.keeper.Generation() == 0 })
	n.cut.cut(false)
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		if g := n.keeper.Generation(); g != 0 {
			t.Fatalf("generation %d has begun while a mount of the last is under way", g)
		}
	}
	c.wantState(uid, lease.Held)
	release()
	if err := <-answered; err == nil {
		t.Error("a path was handed out after the deadline")
	}
	c.eventually("it is undone and given back", func() bool { return c.state(uid).State == lease.Free })
	c.eventually("leased again", n.isReady)
}

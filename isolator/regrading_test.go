package isolator

import (
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/isolator/lease"
)

// A watchdog that was late at the hold leaves a claim with grade none only until it is back; one that stays away lowers it.
func TestRegrade(t *testing.T) {
	c := newCluster(t)
	n := c.node(func(o *Options) { o.WatchdogKept, o.Limits.Facts = true, 50*time.Millisecond })
	uid, ref := c.volume(n, "v")
	n.state.setDead(true)
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Fatal(err)
	}
	if got := c.state(uid).Fence; got != lease.GradeNone {
		t.Fatalf("held with %q without a watchdog", got)
	}
	n.state.setDead(false)
	c.eventually("the claim says soft", func() bool { return c.state(uid).Fence == lease.GradeSoft })
	c.eventually("so does the status", func() bool {
		st := n.Status()
		return len(st.Volumes) == 1 && st.Volumes[0].Fence == string(lease.GradeSoft)
	})
	n.state.setDead(true)
	c.eventually("the claim says none", func() bool { return c.state(uid).Fence == lease.GradeNone })
}

package isolator

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// A node is emptied of what nobody uses, says what keeps the rest, takes no mounts meanwhile, and takes them again when told to.
func TestEmpty(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	used, usedRef := c.volume(n, "used")
	idle, idleRef := c.volume(n, "idle")
	path, err := n.Mount(bg, MountRequest{Ref: usedRef, Options: c.grant(n, used)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: idleRef, Options: c.grant(n, idle)}); err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
	defer cancel()
	if err := n.Empty(ctx, false); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "postgres") {
		t.Errorf("with a user: %v", err)
	}
	c.wantState(idle, lease.Free)
	c.wantState(used, lease.Held)
	next := MountRequest{Ref: idleRef, Options: c.grant(n, idle)}
	if _, err := n.Mount(bg, next); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a mount on a node that is being emptied: %v", err)
	}
	if err := n.Empty(bg, true); err != nil {
		t.Errorf("with force: %v", err)
	}
	c.wantState(used, lease.Free)
	n.Resume()
	if _, err := n.Mount(bg, next); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

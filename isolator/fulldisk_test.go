package isolator

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Case 20 of docs/safety.md: no journal, no effect; a release must still be possible.
func TestHeavyFullDisk(t *testing.T) {
	heavy.Require(t, heavy.Root)
	c := newCluster(t)
	n := &node{c: c, dir: t.TempDir(), fence: &fakeFence{}, state: &fakeState{}, boot: "boot-1"}
	if err := unix.Mount("tmpfs", n.dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(n.dir, unix.MNT_DETACH) })
	asked := &slowDriver{gate: make(chan struct{})}
	close(asked.gate)
	n.start(func(o *Options) {
		asked.Driver = o.Drivers[0]
		o.Drivers[0] = asked
	})
	held, heldRef := c.volume(n, "held")
	path, err := n.Mount(bg, MountRequest{Ref: heldRef, Options: c.grant(n, held)})
	if err != nil {
		t.Fatal(err)
	}
	uid, ref := c.volume(n, "v")
	asked.set("v")
	fill(t, n)
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("mount on a full disk: %v", err)
	}
	if asked.count() > 0 {
		t.Error("the driver was asked although nothing could be journaled")
	}
	c.wantState(uid, lease.Free)
	n.fence.use(path, false)
	if out, err := n.Unmount(bg, UnmountRequest{Ref: heldRef}); err != nil || out != Unmounted {
		t.Errorf("unmount on a full disk: %s %v", out, err)
	}
	c.wantState(held, lease.Free)
	if len(n.problemList()) == 0 {
		t.Error("nobody is told")
	}
	// Killed and back with room again, it finds out by looking.
	n.stop()
	if err := os.Remove(filepath.Join(n.dir, "filler")); err != nil {
		t.Fatal(err)
	}
	n.start()
	for _, u := range []string{uid, held} {
		c.wantState(u, lease.Free)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: heldRef, Options: c.grant(n, held)}); err != nil {
		t.Error(err)
	}
}

// fill leaves no room for a single record.
func fill(t *testing.T, n *node) {
	t.Helper()
	f, err := os.Create(filepath.Join(n.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4096, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
	// What is left of the log's last page.
	for range 100 {
		if n.journal.Append("test", "fill", journal.Done, journal.Volume{Ref: volume.Ref{Driver: "pool", Name: "filler"}, Phase: journal.Known}) != nil {
			return
		}
	}
	t.Fatal("the disk does not fill")
}

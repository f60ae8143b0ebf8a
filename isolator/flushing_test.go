package isolator

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
)

func TestFlush(t *testing.T) {
	n := newCluster(t).node()
	here := filepath.Join(n.dir, "volume")
	if err := os.Mkdir(here, 0o755); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(here, &fs); err != nil {
		t.Fatal(err)
	}
	local := map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true}[int64(fs.Type)]
	node, cluster := driver.Facts{Scope: driver.ScopeNode}, driver.Facts{Scope: driver.ScopeCluster}
	for name, x := range map[string]struct {
		path  string
		facts driver.Facts
		how   takeDown
		later bool
	}{
		"a directory of this node":          {here, node, takeDown{}, local},
		"before a fence gives it back":      {here, node, takeDown{fence: true}, false},
		"that other nodes reach":            {here, cluster, takeDown{}, false},
		"of a driver that has said nothing": {here, driver.Facts{}, takeDown{}, false},
		"of a driver that flushes":          {here, driver.Facts{Scope: driver.ScopeNode, FlushOnUnmount: true}, takeDown{}, false},
		"on another file system":            {"/proc", node, takeDown{}, false},
		"that is not there":                 {filepath.Join(n.dir, "none"), node, takeDown{}, false},
		"whose path was never known":        {"", node, takeDown{}, false},
	} {
		later, err := n.flush(bg, journal.Volume{Path: x.path}, x.facts, x.how)
		if err != nil || later != x.later {
			t.Errorf("%s: later %t, %v", name, later, err)
		}
	}
	due := func() bool {
		n.flushes.mu.Lock()
		defer n.flushes.mu.Unlock()
		return n.flushes.due
	}
	n.flushLater()
	n.flushLater()
	if !due() {
		t.Error("nothing is due after an unmount")
	}
	if err := n.Empty(bg, false); err != nil || due() {
		t.Errorf("a drain leaves it due: %v", err)
	}
	n.flushLater() // and whoever asks next is heard too
	if !due() {
		t.Error("nothing is due after another unmount")
	}
}

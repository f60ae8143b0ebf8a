package nodecheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// A mount that no volume owns, and a full disk below the journal, on real mounts.
func TestHeavyMountsAndDisk(t *testing.T) {
	heavy.Require(t, heavy.Root)
	h := healthy(t)
	state := filepath.Join(h.dir, "state")
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	if f := h.find("disk"); f.Result != Failed || !strings.Contains(f.Found, "left") {
		t.Errorf("a disk of a megabyte: %+v", f)
	}
	at := filepath.Join(state, "mounts", "pool", "db")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(at, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if f := h.find("stale mounts"); f.Result != Failed || !strings.Contains(f.Found, at) || f.Mend == "" {
		t.Errorf("a mount of nobody's: %+v", f)
	}
	h.status.Volumes = []client.VolumeStatus{{Driver: "pool", Name: "db", Phase: "mounted", Path: at}}
	if f := h.find("stale mounts"); f.Result != OK {
		t.Errorf("a volume's mount: %+v", f)
	}
}

package mount

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSameLocal(t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(below, 0o755); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if got := SameLocal(context.Background(), below, dir); got != ofOneMachine[int64(fs.Type)] {
		t.Errorf("a directory below another, file system %#x: %t", fs.Type, got)
	}
	for _, other := range []string{"/proc", "/sys", filepath.Join(dir, "none")} {
		if SameLocal(context.Background(), other, dir) || SameLocal(context.Background(), dir, other) {
			t.Errorf("%s and %s are said to be one file system", other, dir)
		}
	}
	if SameLocal(context.Background(), "/proc/self", "/proc/self") {
		t.Error("/proc is said to keep files")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if SameLocal(ended, below, dir) {
		t.Error("told although nothing was looked at")
	}
}

package mount_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

func TestWithin(t *testing.T) {
	gate := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := mount.Within(ctx, "hang", func() error { <-gate; return nil })
	if !fault.Is(err, fault.Unknown) {
		t.Errorf("a call that hangs: %v", err)
	}
	if mount.Stuck() != 1 {
		t.Errorf("stuck %d", mount.Stuck())
	}
	close(gate)
	for end := time.Now().Add(5 * time.Second); mount.Stuck() != 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if mount.Stuck() != 0 {
		t.Error("it came back and is still counted")
	}
	if err := mount.Within(ctx, "late", func() error { t.Error("begun after the end"); return nil }); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestCheckPath(t *testing.T) {
	root := t.TempDir()
	inside, outside := filepath.Join(root, "in"), t.TempDir()
	for _, d := range []string{inside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link, file := filepath.Join(root, "link"), filepath.Join(root, "file")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if real, err := mount.CheckPath(ctx, inside, root); err != nil || !strings.HasSuffix(real, "/in") {
		t.Errorf("%s %v", real, err)
	}
	if real, err := mount.CheckPath(ctx, link, ""); err != nil || real == link {
		t.Errorf("a link without a root is resolved: %s %v", real, err)
	}
	for _, bad := range []string{"", "rel", "/", link, file, outside, root, root + "/in/", root + "/in/../in", inside + "\n", inside + "\x00", "/etc", "/proc/self", "/usr/lib", "/" + strings.Repeat("x", 5000), root + "/none"} {
		if real, err := mount.CheckPath(ctx, bad, root); err == nil {
			t.Errorf("%q was taken: %s", bad, real)
		}
	}
}

func TestHeavyBind(t *testing.T) {
	heavy.Require(t, heavy.Root)
	ctx := context.Background()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst with space")
	for _, d := range []string{src, dst} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := mount.Bind(ctx, src, dst); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mount.Unmount(ctx, dst) })
	if at, err := mount.At(dst); err != nil || len(at) != 1 {
		t.Errorf("at: %+v %v", at, err)
	}
	if is, err := mount.Is(dst); err != nil || !is {
		t.Errorf("is: %v %v", is, err)
	}
	for _, not := range []string{src, filepath.Join(dir, "none"), filepath.Join(src, "none", "deeper")} {
		if is, err := mount.Is(not); err != nil || is {
			t.Errorf("%s is: %v %v", not, is, err)
		}
	}
	if under, err := mount.Under(dir); err != nil || len(under) != 1 {
		t.Errorf("under: %+v %v", under, err)
	}
	if same, err := mount.SameDir(src, dst); err != nil || !same {
		t.Errorf("same: %v %v", same, err)
	}
	f, err := os.Create(filepath.Join(dst, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.Unmount(ctx, dst); !fault.Is(err, fault.Conflict) {
		t.Errorf("busy: %v", err)
	}
	f.Close()
	if err := mount.Unmount(ctx, dst); err != nil {
		t.Error(err)
	}
	if err := mount.Unmount(ctx, dst); err != nil {
		t.Errorf("twice: %v", err)
	}
}

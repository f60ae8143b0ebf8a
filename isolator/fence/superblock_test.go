package fence

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// image is a volume with a file system of its own, mounted.
type image struct {
	path, point string
	device      loop.Device
}

func mounted(t *testing.T) image {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := image{path: filepath.Join(dir, "v", "image"), point: filepath.Join(dir, "mnt")}
	for _, d := range []string{m.point, filepath.Dir(m.path)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(m.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", m.path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d, open, err := loop.Attach(f)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	m.device = d
	if err := unix.Mount(d.Path(), m.point, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Unmount(m.point, unix.MNT_DETACH)
		_ = mount.UnmountElsewhere(context.Background(), d.Number(), func(string) bool { return true })
		again, err := loop.OpenImage(m.path)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if err := d.Release(context.Background(), again, 5*time.Second); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return m
}

func (m image) target() Target {
	return Target{VolumeUID: "v", Path: m.point, Verify: VerifySuperblock, Backing: m.path}
}

func (m image) alive() bool { return m.device.Gone(context.Background(), 0) != nil }

func fenceOf(spare ...int) *Fence { return New(Options{Limit: 10 * time.Second, Spare: spare}) }

// A file system of the volume's own is shut down, its users are killed, it is unmounted, and its end is what counts. Who only has a copy of the mount
// lives on without it.
func TestHeavySuperblock(t *testing.T) {
	heavy.Require(t, heavy.Root)
	m := mounted(t)
	user := start(t, "", nil, shell("exec 3>>"+m.point+"/file; echo ready; while true; do echo x >&3 || sleep 0.01; done")...)
	bound := start(t, "pool "+m.point+" "+t.TempDir(), nil)
	copied := start(t, "copy", nil)
	r := fenceOf().Run(context.Background(), m.target())[0]
	t.Logf("%v %+v", r.Took, r.Steps)
	if !r.Fenced || m.alive() {
		t.Errorf("report %+v", r)
	}
	for name, p := range map[string]*process{"writer": user, "private namespace": bound} {
		if !p.killed(time.Second) {
			t.Errorf("%s was not killed", name)
		}
	}
	if copied.killed(0) {
		t.Error("the holder of a copied namespace was killed")
	}
	for _, s := range r.Steps {
		if (s.Step == "shutdown" || s.Step == "unmount") && s.Outcome != done {
			t.Errorf("%s: %s", s.Step, s.Outcome)
		}
	}
	if r := fenceOf().Run(context.Background(), m.target())[0]; !r.Fenced {
		t.Errorf("again: %+v", r)
	}
}

// Case 11: after umount -l no namespace shows the mount, and the writer goes on. That is not fenced as long as it may not be killed.
func TestHeavySuperblockDetached(t *testing.T) {
	heavy.Require(t, heavy.Root)
	m := mounted(t)
	user := start(t, "", nil, shell("exec 3>>"+m.point+"/file; echo ready; read x")...)
	if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if r := fenceOf(user.Process.Pid).Run(context.Background(), m.target())[0]; r.Fenced {
		t.Errorf("fenced under a writer: %+v", r)
	}
	if r := fenceOf().Run(context.Background(), m.target())[0]; !r.Fenced || !user.killed(time.Second) || m.alive() {
		t.Errorf("report %+v", r)
	}
}

// Case 11 once more: a file system that no namespace shows and no process has open may live on all the same, here under a loop device on a file of it. Only
// the kernel knows.
func TestHeavySuperblockHeldByTheKernel(t *testing.T) {
	heavy.Require(t, heavy.Root)
	m := mounted(t)
	inner, err := os.Create(filepath.Join(m.point, "inner"))
	if err != nil {
		t.Fatal(err)
	}
	if err := inner.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	_, open, err := loop.Attach(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	inner.Close()
	if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if r := fenceOf().Run(context.Background(), m.target())[0]; r.Fenced || !m.alive() {
		t.Errorf("fenced while its file system lives: %+v", r)
	}
	if err := unix.IoctlSetInt(int(open.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		t.Fatal(err)
	}
	open.Close()
	if r := fenceOf().Run(context.Background(), m.target())[0]; !r.Fenced || m.alive() {
		t.Errorf("report %+v", r)
	}
}

// Case 13: writers in a frozen file system ignore SIGKILL until it is thawed.
func TestHeavySuperblockFrozen(t *testing.T) {
	heavy.Require(t, heavy.Root)
	m := mounted(t)
	user := start(t, "", nil, shell("exec 3>>"+m.point+"/file; echo ready; while true; do echo x >&3 || sleep 0.01; done")...)
	dir, err := os.Open(m.point)
	if err != nil {
		t.Fatal(err)
	}
	const freeze = 0xc0045877 // FIFREEZE
	if err := ioctl(int(dir.Fd()), freeze, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // where the fence fails, a frozen file system and its loop device would outlive the test
		if again, err := os.Open(m.point); err == nil {
			_ = ioctl(int(again.Fd()), freeze+1, 0) // FITHAW
			again.Close()
		}
	})
	dir.Close()
	time.Sleep(20 * time.Millisecond)
	r := fenceOf().Run(context.Background(), m.target())[0]
	t.Logf("%v %+v", r.Took, r.Steps)
	if !r.Fenced || !user.killed(time.Second) || m.alive() {
		t.Errorf("report %+v", r)
	}
}

// What lies at the target's path when the volume is not mounted is the node's own file system: nothing is done to it.
func TestHeavySuperblockElsewhere(t *testing.T) {
	heavy.Require(t, heavy.Root)
	other, m := mounted(t), mounted(t)
	target := m.target()
	target.Path = other.point
	user := start(t, "idle", in(m.point))
	r := fenceOf().Run(context.Background(), target)[0]
	if !r.Fenced || m.alive() || !user.killed(time.Second) {
		t.Errorf("report %+v", r)
	}
	if err := os.WriteFile(filepath.Join(other.point, "f"), []byte("x"), 0o644); err != nil || !other.alive() {
		t.Errorf("the other file system was touched: %v", err)
	}
	target.Backing = filepath.Join(filepath.Dir(m.path), "none")
	if r := fenceOf().Run(context.Background(), target)[0]; !r.Fenced || !other.alive() {
		t.Errorf("of an image that is not there: %+v", r)
	}
	target.Backing = ""
	if r := fenceOf().Run(context.Background(), target)[0]; r.Fenced {
		t.Errorf("without an image: %+v", r)
	}
}

package pool_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/drivertest"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// kind is a back end to try, and what it needs.
type kind struct {
	name string
	o    pool.Options
	size string // of a small volume
	on   string // the file system that the pool must lie on
}

var kinds = []kind{
	{name: "loop ext4", o: pool.Options{Backend: pool.Loop, FS: "ext4", FullCopies: true}, size: "16m"},
	{name: "loop xfs", o: pool.Options{Backend: pool.Loop, FS: "xfs"}, size: "300m"},
	{name: "btrfs", o: pool.Options{Backend: pool.Btrfs}, size: "16m", on: "btrfs"},
	{name: "loop ext4 on xfs", o: pool.Options{Backend: pool.Loop, FS: "ext4"}, size: "16m", on: "xfs"},
	{name: "loop xfs on btrfs", o: pool.Options{Backend: pool.Loop, FS: "xfs"}, size: "300m", on: "btrfs"},
}

func needKinds(t *testing.T) {
	t.Helper()
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.xfs"), heavy.Program("mkfs.btrfs"))
}

func eachKind(t *testing.T, f func(t *testing.T, k kind)) {
	needKinds(t)
	for _, k := range kinds[:3] { // one of each back end and file system
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}

// fresh makes an empty pool, on a btrfs of its own where it must be.
func (k kind) fresh(t testing.TB) pool.Options {
	t.Helper()
	o := k.o
	o.Dir, o.Mounts = real(t, t.TempDir()), real(t, t.TempDir())
	if k.on != "" {
		mountOwn(t, o.Dir, k.on)
	}
	t.Cleanup(func() { nothingLeft(t, o.Dir) })
	return o
}

func real(t testing.TB, dir string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func mountOwn(t testing.TB, dir, kind string) {
	t.Helper()
	image := filepath.Join(t.TempDir(), kind)
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(2 << 30); err != nil {
		t.Fatal(err)
	}
	sector := map[string]string{"xfs": "-ssize=4096", "btrfs": "-s4096"}[kind]
	if out, err := exec.Command("mkfs."+kind, "-q", sector, image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := loop.Lock(f); err != nil {
		t.Fatal(err)
	}
	d, open, err := loop.Attach(f)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := unix.Mount(d.Path(), dir, kind, 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the pool: %v", err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
		again, err := loop.OpenImage(image)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		// Whatever else is started on this machine meanwhile may have a copy of the mount.
		for end := time.Now().Add(30 * time.Second); ; {
			err := mount.UnmountElsewhere(ctx, d.Number(), func(string) bool { return true })
			if err == nil {
				err = d.Release(ctx, again, time.Second)
			}
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Error(err)
				return
			}
		}
	})
}

// nothingLeft looks for devices that nobody detached.
func nothingLeft(t testing.TB, dir string) {
	t.Helper()
	all, err := loop.Attached()
	if err != nil {
		t.Fatal(err)
	}
	for d, image := range all {
		if strings.HasPrefix(image, dir+"/") {
			t.Errorf("%s still shows %s", d.Path(), image)
		}
	}
}

func TestHeavyBackendSuite(t *testing.T) {
	needKinds(t)
	for i, k := range kinds {
		run := drivertest.Run
		if i >= 3 { // what they lie on makes a difference to their powers only
			run = drivertest.RunPowers
		}
		t.Run(k.name, func(t *testing.T) {
			run(t, func(t *testing.T) drivertest.Fixture {
				o := k.fresh(t)
				return drivertest.Fixture{Driver: open(t, o), KeepsUID: true, Options: map[string]string{"size": k.size},
					Again: func() driver.Driver { again := o; again.Mounts = t.TempDir(); return open(t, again) }}
			})
		})
	}
}

// A pool keeps the back end that it was made with, and a pool of before there were any has plain directories.
func TestBackendIsSettled(t *testing.T) {
	dir := t.TempDir()
	open(t, pool.Options{Dir: dir})
	for _, o := range []pool.Options{{Backend: pool.Loop}, {Backend: pool.Btrfs}, {FS: "xfs"}} {
		o.Dir = dir
		if _, err := pool.Open(o); !fault.Is(err, fault.Conflict) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	open(t, pool.Options{Dir: dir, Backend: pool.Dir})

	old := t.TempDir()
	p := open(t, pool.Options{Dir: old})
	if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: "u"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(old, ".pool.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Open(pool.Options{Dir: old, Backend: pool.Loop}); !fault.Is(err, fault.Conflict) {
		t.Errorf("an old pool as loop: %v", err)
	}
	if got, err := open(t, pool.Options{Dir: old}).Get(ctx, "v"); err != nil || got.UID != "u" {
		t.Errorf("an old pool: %+v %v", got, err)
	}
	for name, o := range map[string]pool.Options{"back end": {Backend: "zfs"}, "fs of dir": {FS: "ext4"}} {
		o.Dir = t.TempDir()
		if _, err := pool.Open(o); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(o.Dir, ".pool.json")); err == nil {
			t.Errorf("%s: a pool was made of a bad wish", name)
		}
	}
	for _, content := range []string{"", "{", `{"v":2}`, `{"v":1,"backend":"zfs"}`} {
		bad := t.TempDir()
		if err := os.WriteFile(filepath.Join(bad, ".pool.json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Open(pool.Options{Dir: bad}); err == nil {
			t.Errorf("record %q was taken", content)
		}
	}
}

// An adopted volume keeps its snapshots: they are read, cloned and known by its new uid.
func TestHeavyAdoptSnapshots(t *testing.T) {
	needKinds(t)
	for _, k := range kinds[2:4] {
		p, _, old := k.one(t)
		writeSynced(t, filepath.Join(mountV(t, p, old), "f"), "kept")
		unmountV(t, p)
		if _, err := p.Snapshot(ctx, "v", old, "s"); err != nil {
			t.Fatal(err)
		}
		uid := uuid.NewString()
		if _, err := p.Adopt(ctx, "v", uid, "c"); err != nil {
			t.Fatal(err)
		}
		if s, err := p.Snapshot(ctx, "v", uid, "s"); err != nil || s.UID != uid {
			t.Errorf("%s: %+v %v", k.name, s, err)
		}
		if at, err := p.MountSnapshot(ctx, "v", "s", "i"); err != nil || readFile(at, "f") != "kept" {
			t.Errorf("%s: %v", k.name, err)
		}
		if err := p.UnmountSnapshot(ctx, "v", "s", "i"); err != nil {
			t.Error(err)
		}
		if _, err := p.Create(ctx, driver.Spec{Name: "w", UID: uuid.NewString(), Source: &driver.Source{Volume: "v", UID: uid, Snapshot: "s"}}); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
	}
}

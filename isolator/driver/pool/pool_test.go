package pool_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/drivertest"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
)

var ctx = context.Background()

func open(t *testing.T, o pool.Options) *pool.Pool {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	p, err := pool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSuitePlain(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		dir := t.TempDir()
		var late atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
		return drivertest.Fixture{Driver: open(t, pool.Options{Dir: dir, Now: now}), KeepsUID: true, Later: func() { late.Add(int64(time.Hour)) },
			Again: func() driver.Driver { return open(t, pool.Options{Dir: dir}) }}
	})
}

func TestHeavySuiteBind(t *testing.T) {
	heavy.Require(t, heavy.Root)
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		dir := t.TempDir()
		var late atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
		return drivertest.Fixture{Driver: open(t, pool.Options{Dir: dir, Mounts: t.TempDir(), Now: now}), KeepsUID: true, Later: func() { late.Add(int64(time.Hour)) },
			Again: func() driver.Driver { return open(t, pool.Options{Dir: dir, Mounts: t.TempDir()}) }}
	})
}

func TestLayout(t *testing.T) {
	dir := t.TempDir()
	p := open(t, pool.Options{Dir: dir, Scope: driver.ScopeCluster})
	if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: "u1", Cluster: "c", Size: 5, Mode: "2750"}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "v", "data"))
	if err != nil || fi.Mode().Perm() != 0o750 || fi.Mode()&os.ModeSetgid == 0 {
		t.Errorf("data: %v %v", fi.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, ".new")); len(left) != 0 {
		t.Errorf("left in .new: %v", left)
	}
	if f, err := p.Facts(ctx); err != nil || f.Scope != driver.ScopeCluster || !f.FlushOnUnmount || f.BindsMounts {
		t.Errorf("facts %+v %v", f, err)
	}
	if err := p.Remove(ctx, "v", "u1"); err != nil {
		t.Fatal(err)
	}
	bin, _ := os.ReadDir(filepath.Join(dir, ".bin"))
	if len(bin) != 1 || !strings.HasPrefix(bin[0].Name(), "v.u1.") {
		t.Errorf("bin: %v", bin)
	}
	if err := p.Sweep(ctx, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if bin, _ := os.ReadDir(filepath.Join(dir, ".bin")); len(bin) != 1 {
		t.Error("a volume was deleted from the bin before its time")
	}
	if err := p.Sweep(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if bin, _ := os.ReadDir(filepath.Join(dir, ".bin")); len(bin) != 0 {
		t.Errorf("bin after sweep: %v", bin)
	}
}

// A directory that is no volume is neither found, nor made into one, nor mounted, nor removed.
func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	p := open(t, pool.Options{Dir: dir})
	if err := os.MkdirAll(filepath.Join(dir, "alien", "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Get(ctx, "alien"); !fault.Is(err, fault.Conflict) {
		t.Errorf("get: %v", err)
	}
	if _, err := p.Create(ctx, driver.Spec{Name: "alien"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("create: %v", err)
	}
	if _, err := p.Mount(ctx, driver.MountSpec{Name: "alien", ID: "i"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("mount: %v", err)
	}
	if err := p.Remove(ctx, "alien", ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("remove: %v", err)
	}
}

// Links and other things in a volume's or a label's place are never followed.
func TestLinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, pool.Options{Dir: dir})
	for _, name := range []string{"v", "w", "x"} {
		if _, err := p.Create(ctx, driver.Spec{Name: name, UID: "u"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Rename(filepath.Join(dir, "v"), filepath.Join(outside, "v")), os.Symlink(filepath.Join(outside, "v"), filepath.Join(dir, "v")), // a volume by a link
		os.Rename(filepath.Join(dir, "w", "volume.json"), filepath.Join(outside, "label")), os.Symlink(filepath.Join(outside, "label"), filepath.Join(dir, "w", "volume.json")), // its label
		os.Remove(filepath.Join(dir, "x", "volume.json")), unix.Mkfifo(filepath.Join(dir, "x", "volume.json"), 0o644), // a label that hangs who reads it
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o644),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"v", "w", "x", "file"} {
		_, gerr := p.Get(ctx, name)
		_, merr := p.Mount(ctx, driver.MountSpec{Name: name, ID: "i"})
		_, cerr := p.Create(ctx, driver.Spec{Name: name, UID: "u"})
		_, uerr := p.Usage(ctx, name)
		for verb, err := range map[string]error{"get": gerr, "mount": merr, "create": cerr, "usage": uerr, "remove": p.Remove(ctx, name, "")} {
			if !fault.Is(err, fault.Conflict) {
				t.Errorf("%s %s: %v", verb, name, err)
			}
		}
	}
	if all, err := p.List(ctx); err != nil || len(all) != 0 {
		t.Errorf("list: %+v %v", all, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "v", "data")); err != nil {
		t.Error(err)
	}
}

// A link in the bin is neither listed, brought back nor followed.
func TestLinkInBin(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, pool.Options{Dir: dir})
	if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: "u"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(filepath.Join(dir, "v"), filepath.Join(outside, "v")),
		os.Symlink(filepath.Join(outside, "v"), filepath.Join(dir, ".bin", "v.u.20200101T000000"))); err != nil {
		t.Fatal(err)
	}
	if all, err := p.Bin(ctx); err != nil || len(all) != 0 {
		t.Errorf("bin: %+v %v", all, err)
	}
	if _, err := p.Undelete(ctx, "v", "u"); !fault.Is(err, fault.NotFound) {
		t.Errorf("undelete: %v", err)
	}
	if err := errors.Join(p.Sweep(ctx, time.Now())); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "v", "data")); err != nil {
		t.Error(err)
	}
}

// A count of files is remembered for a minute, counts a file of two names once, and leaves out what is mounted inside.
func TestUsageOfDir(t *testing.T) {
	now := time.Now()
	p := open(t, pool.Options{Now: func() time.Time { return now }})
	if _, err := p.Create(ctx, driver.Spec{Name: "v", Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	path, err := p.Mount(ctx, driver.MountSpec{Name: "v", ID: "i"})
	if err != nil {
		t.Fatal(err)
	}
	used := func() volume.Bytes {
		t.Helper()
		u, err := p.Usage(ctx, "v")
		if err != nil || u.Size != 0 {
			t.Fatalf("%+v %v", u, err)
		}
		return u.Used
	}
	empty := used()
	if err := errors.Join(os.WriteFile(filepath.Join(path, "a"), make([]byte, 1<<20), 0o644), os.Link(filepath.Join(path, "a"), filepath.Join(path, "b")), os.Symlink("/usr", filepath.Join(path, "c"))); err != nil {
		t.Fatal(err)
	}
	if got := used(); got != empty {
		t.Errorf("counted again within the minute: %d, %d", empty, got)
	}
	now = now.Add(61 * time.Second)
	if got := used(); got < empty+1<<20 || got > empty+1<<20+64<<10 {
		t.Errorf("%d after a mebibyte, %d before", got, empty)
	}
}

func TestLabelDamage(t *testing.T) {
	for name, content := range map[string]string{"garbage": "{", "newer": `{"v":2}`, "empty": "", "huge": strings.Repeat(" ", 1<<17), "moved": `{"v":1,"uid":"u","name":"other"}`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, pool.Options{Dir: dir})
			if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: "u"}); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "v", "volume.json"), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: "u", ID: "i"}); !fault.Is(err, fault.Conflict) {
				t.Errorf("mount: %v", err)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	p := open(t, pool.Options{})
	for _, uid := range []string{"a/b", "..", "a\x00", strings.Repeat("u", 200)} {
		if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: uid}); !fault.Is(err, fault.Invalid) {
			t.Errorf("uid %q: %v", uid, err)
		}
		if _, err := p.Adopt(ctx, "v", uid, ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("adopt as %q: %v", uid, err)
		}
	}
	for name, s := range map[string]driver.Spec{
		"option": {Name: "v", Options: map[string]string{"iops": "5"}}, "mode": {Name: "v", Mode: "9"}, "mode2": {Name: "v", Mode: "77777"},
		"user": {Name: "v", Owner: "no such user"}, "group": {Name: "v", Owner: "0:no such group"}, "size": {Name: "v", Options: map[string]string{"size": "NaN"}},
	} {
		if _, err := p.Create(ctx, s); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.Get(ctx, "v"); !fault.Is(err, fault.NotFound) {
		t.Errorf("half made: %v", err)
	}
	if _, err := pool.Open(pool.Options{Dir: "relative"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("relative: %v", err)
	}
	if _, err := pool.Open(pool.Options{Dir: t.TempDir(), Scope: "galaxy"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("scope: %v", err)
	}
}

// What a maker that was killed left in .new is no volume, and is swept up by its own node after a while.
func TestSweepNew(t *testing.T) {
	dir := t.TempDir()
	late := func() time.Time { return time.Now().Add(2 * time.Minute) }
	p := open(t, pool.Options{Dir: dir, Node: "n1", Now: late})
	probe := filepath.Join(dir, ".new", ".reflink-1")
	if err := errors.Join(os.WriteFile(probe, nil, 0o600), os.Chtimes(probe, time.Time{}, time.Now().Add(-2*time.Hour))); err != nil {
		t.Fatal(err)
	}
	mine, others := filepath.Join(dir, ".new", "v.n1.123"), filepath.Join(dir, ".new", "v.n2.123")
	for _, d := range []string{mine, others} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Sweep(ctx, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mine); !os.IsNotExist(err) {
		t.Error("own leavings are still there")
	}
	if _, err := os.Stat(probe); !os.IsNotExist(err) {
		t.Error("a probe's file is still there")
	}
	if _, err := os.Stat(others); err != nil {
		t.Error("another node's work was taken away")
	}
}

func TestHeavyOwner(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dir := t.TempDir()
	p := open(t, pool.Options{Dir: dir})
	if _, err := p.Create(ctx, driver.Spec{Name: "v", Owner: "12345:54321"}); err != nil {
		t.Fatal(err)
	}
	out, err := os.Stat(filepath.Join(dir, "v", "data"))
	if err != nil {
		t.Fatal(err)
	}
	if uid, gid := owner(out); uid != 12345 || gid != 54321 {
		t.Errorf("owner %d:%d", uid, gid)
	}
}

// On a pool without room creation fails cleanly and removal works.
func TestHeavyFullPool(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dir := t.TempDir()
	tmpfs(t, dir, "size=64k,nr_inodes=24")
	p := open(t, pool.Options{Dir: dir})
	var made []string
	for i := range 20 {
		name := "v" + string(rune('a'+i))
		if _, err := p.Create(ctx, driver.Spec{Name: name}); err != nil {
			if !fault.Is(err, fault.Unavailable) {
				t.Errorf("full pool: %v", err)
			}
			if _, err := p.Get(ctx, name); !fault.Is(err, fault.NotFound) {
				t.Errorf("half made: %v", err)
			}
			break
		}
		made = append(made, name)
	}
	if len(made) == 0 || len(made) == 20 {
		t.Fatalf("%d volumes made", len(made))
	}
	if err := p.Remove(ctx, made[0], ""); err != nil {
		t.Errorf("remove on a full pool: %v", err)
	}
	if err := p.Sweep(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := p.Create(ctx, driver.Spec{Name: "again"}); err != nil {
		t.Errorf("after making room: %v", err)
	}
}

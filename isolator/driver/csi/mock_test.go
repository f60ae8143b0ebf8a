package csi

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// TestHeavyMock takes volumes of gocsi's mock through their life: another's code, CSI as of 1.1, ids of its own, volumes that we did not make, lists by
// pages, attach and stage. It keeps all in memory and mounts nothing, so that the test says what is mounted.
func TestHeavyMock(t *testing.T) {
	heavy.Require(t)
	dir, err := os.MkdirTemp("/tmp", "hfm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "mock")
	build := exec.Command("go", "build", "-o", program, "github.com/rexray/gocsi/mock")
	build.Dir = filepath.Join("..", "..", "..", "tools", "gocsi")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gocsi's mock: %v\n%s", err, out)
	}
	plugin := exec.Command(program)
	plugin.Env = append(os.Environ(), "CSI_ENDPOINT=unix://"+filepath.Join(dir, "csi.sock"))
	if err := plugin.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = plugin.Process.Kill()
		_ = plugin.Wait()
	})
	var mounted atomic.Bool
	d, err := New(Options{Name: "csi/mock", Endpoint: "unix://" + filepath.Join(dir, "csi.sock"), Dir: filepath.Join(dir, "state"), Mounts: filepath.Join(dir, "mounts"), Names: filepath.Join(dir, "names"),
		Node: "n1", isMount: func(p string) (bool, error) { return mounted.Load() && strings.Contains(p, "mounts"), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var facts driver.Facts
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if facts, err = d.Facts(bg); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if facts.Scope != driver.ScopeCluster || !facts.Snapshots || facts.Grows != driver.GrowsOnline {
		t.Errorf("%+v", facts)
	}
	mock(t, d, &mounted)
}

func mock(t *testing.T, d *Driver, mounted *atomic.Bool) {
	if all, err := d.List(bg); err != nil || len(all) != 0 {
		t.Errorf("its own three volumes have no names with us: %v %v", all, err)
	}
	s := spec1("v")
	s.Size = 10 * mib
	i, err := d.Create(bg, s)
	if err != nil || i.Size != 10*mib || i.UID != "uid-v" {
		t.Fatalf("create: %+v %v", i, err)
	}
	if again, err := d.Create(bg, s); err != nil || again.Size != i.Size {
		t.Errorf("again: %+v %v", again, err)
	}
	if r, _, err := d.record("v"); err != nil || r.ID != "4" {
		t.Errorf("its id is %q, %v", r.ID, err)
	}
	mounted.Store(true)
	if path, err := d.Mount(bg, mountV); err != nil || path != d.WillMountAt("v") {
		t.Errorf("mount: %s %v", path, err)
	}
	if err := d.Remove(bg, "v", "uid-v"); !fault.Is(err, fault.Conflict) {
		t.Errorf("removed while it is mounted: %v", err)
	}
	mounted.Store(false)
	if err := d.Unmount(bg, "v", "e1"); err != nil {
		t.Errorf("unmount: %v", err)
	}
	if left, err := d.steps.Ledger.All(); err != nil || len(left) != 0 {
		t.Errorf("left in the ledger: %v %v", left, err)
	}
	g, err := d.Grow(bg, "v", "uid-v", 20*mib)
	if err != nil || max(g.Size, g.Pending) != 20*mib {
		t.Errorf("grow: %+v %v", g, err)
	}
	for range 2 {
		if sn, err := d.Snapshot(bg, "v", "uid-v", "s"); err != nil || !sn.Ready {
			t.Errorf("snapshot: %+v %v", sn, err)
		}
	}
	if all, err := d.Snapshots(bg, "v"); err != nil || len(all) != 1 {
		t.Errorf("snapshots: %+v %v", all, err)
	}
	if _, err := d.Create(bg, driver.Spec{Name: "copy", UID: "u2", Source: &driver.Source{Volume: "v"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("it copies no volumes: %v", err)
	}
	// It does not know of content sources, and makes an empty volume instead.
	if _, err := d.Create(bg, driver.Spec{Name: "copy", UID: "u2", Source: &driver.Source{Volume: "v", Snapshot: "s"}}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty volume was taken for a copy: %v", err)
	}
	if err := d.RemoveSnapshot(bg, "v", "s"); err != nil {
		t.Errorf("remove the snapshot: %v", err)
	}
	if err := d.Remove(bg, "v", "uid-v"); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := d.Get(bg, "v"); !fault.Is(err, fault.NotFound) {
		t.Errorf("get after remove: %v", err)
	}
}

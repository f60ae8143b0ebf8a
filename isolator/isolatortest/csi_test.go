package isolatortest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/csiplugin"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// servePool serves a pool on a new btrfs by CSI, and gives the --csi flag for it.
func servePool(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfv")
	if err != nil {
		t.Fatal(err)
	}
	at, image := filepath.Join(dir, "pool"), filepath.Join(dir, "image")
	for _, c := range [][]string{{"mkdir", at}, {"truncate", "-s", "2G", image}, {"mkfs.btrfs", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	p, err := csiplugin.New(csiplugin.Options{Pool: at, Mounts: filepath.Join(dir, "shown"), NodeID: "n1", Scope: "node", Backend: pool.Btrfs})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(bg)
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, "unix://"+filepath.Join(dir, "csi.sock")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if left, err := mount.Under(filepath.Join(dir, "shown")); err != nil || len(left) > 0 {
			t.Errorf("left mounted by the plugin: %v %v", left, err)
		}
		if err := mount.Unmount(bg, at); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return "pool=unix://" + filepath.Join(dir, "csi.sock")
}

// A volume behind a CSI plugin goes through its life in a real isolator process: claimed, mounted, measured, snapshotted, grown and cloned in use, kept over
// the isolator's death, given back and removed.
func TestHeavyCSI(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.btrfs"))
	m := newMachine(t, 0)
	m.args = []string{"-csi", servePool(t)}
	m.start("")
	const d = "csi/pool"
	v := client.VolumeRequest{Driver: d, Name: "v"}
	if _, err := m.client.Create(bg, client.CreateRequest{Driver: d, Name: "v", Options: map[string]string{"size": "16M"}}); err != nil {
		t.Fatal(err)
	}
	path, err := m.client.Mount(bg, client.MountRequest{Driver: d, Name: "v"})
	if err != nil {
		t.Fatalf("%v\n%s", err, m.log())
	}
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("then"), 0o600); err != nil {
		t.Fatal(err)
	}
	operate := func(r client.OperationRequest) *client.OperationResult {
		t.Helper()
		r.Driver, r.Name = d, "v"
		o, err := m.client.Operate(bg, r, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", r.Kind, err, m.log())
		}
		return o.Result
	}
	operate(client.OperationRequest{Kind: client.OpSnapshot, Snapshot: "s"})
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("now"), 0o600); err != nil {
		t.Fatal(err)
	}
	operate(client.OperationRequest{Kind: client.OpResize, SizeBytes: 64 << 20})
	if u := operate(client.OperationRequest{Kind: client.OpUsage}).Usage; u == nil || u.SizeBytes != 64<<20 {
		t.Errorf("usage after growing in use: %+v", u)
	}
	if i, err := m.client.Get(bg, v); err != nil || i.SizeBytes != 64<<20 || len(i.Topology) != 1 || i.Topology[0][csiplugin.TopologyKey] != "n1" {
		t.Errorf("%+v %v", i, err)
	}
	operate(client.OperationRequest{Kind: client.OpClone, Snapshot: "s", Target: &client.TargetVolume{Name: "w"}})
	copied, err := m.client.Mount(bg, client.MountRequest{Driver: d, Name: "w"})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(filepath.Join(copied, "f")); err != nil || string(raw) != "then" {
		t.Errorf("the clone has %q %v", raw, err)
	}
	m.kill()
	m.start("")
	if raw, err := os.ReadFile(filepath.Join(path, "f")); err != nil || string(raw) != "now" {
		t.Errorf("after the isolator's death: %q %v", raw, err)
	}
	for _, n := range []string{"v", "w"} {
		if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: d, Name: n}); err != nil {
			t.Errorf("unmount %s: %v", n, err)
		}
		c, err := m.auth.ClaimByRef(bg, volume.Ref{Driver: d, Name: n})
		if err != nil || c.State != lease.Free {
			t.Errorf("claim %+v %v", c, err)
		}
	}
	operate(client.OperationRequest{Kind: client.OpRemoveSnapshot, Snapshot: "s"})
	for _, n := range []string{"v", "w"} {
		if err := m.client.Remove(bg, client.VolumeRequest{Driver: d, Name: n}); err != nil {
			t.Errorf("remove %s: %v", n, err)
		}
	}
	if left, err := m.client.List(bg, d); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(m.node, "csi", "pool", "*", "*.json")); err != nil || len(left) > 0 {
		t.Errorf("left in the books: %v %v", left, err)
	}
	if strings.Contains(m.log(), "panic") {
		t.Error(m.log())
	}
}

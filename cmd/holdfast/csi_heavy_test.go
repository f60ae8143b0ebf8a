package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// csiNode is a node as an administrator sets it up: a CSI plugin, an isolator that knows it, and dvdcli.
type csiNode struct {
	*testing.T
	top, bin, socket string
	isolator, plugin *exec.Cmd
}

// TestHeavyCSI takes a volume of a CSI plugin through its life as Mesos does, by dvdcli: claim and journal are kept as with any driver, and
// isolator and plugin are killed and started again while it is mounted.
func TestHeavyCSI(t *testing.T) {
	heavy.Require(t, heavy.Root)
	top, err := os.MkdirTemp("/tmp", "hfe")
	if err != nil {
		t.Fatal(err)
	}
	n := &csiNode{T: t, top: top, bin: devtest.Bin(t), socket: filepath.Join(top, "i.sock")}
	t.Cleanup(n.remove)
	server, err := embedded.Open(filepath.Join(top, "authority.db"))
	if err != nil {
		t.Fatal(err)
	}
	door, err := server.Listen(filepath.Join(top, "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Close(); server.Close() })
	auth := lease.New(server.Registers(), lease.Options{})
	ctx := context.Background()
	if _, err := auth.Init(ctx, uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	n.startPlugin()
	n.startIsolator()

	path := n.dvdcli("mount", "--volumename=db", "--volumeopts=size=1")
	if want := filepath.Join(top, "node", "mounts", "csi", "pool", "db"); path != want {
		t.Fatalf("mounted at %q, want %q", path, want)
	}
	claim := func(want lease.ClaimState) {
		t.Helper()
		if c, err := auth.ClaimByRef(ctx, volume.Ref{Driver: "csi/pool", Name: "db"}); err != nil || c.State != want {
			t.Errorf("claim %+v %v, want %s", c, err, want)
		}
	}
	claim(lease.Held)
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := n.try("remove", "--volumename=db"); err == nil {
		t.Errorf("removed while mounted: %s", out)
	}

	n.kill(n.isolator)
	n.kill(n.plugin)
	n.startPlugin()
	n.startIsolator()
	if again := n.dvdcli("mount", "--volumename=db"); again != path {
		t.Errorf("mounted again at %q", again)
	}
	claim(lease.Held)
	n.dvdcli("unmount", "--volumename=db")
	claim(lease.Free)
	if left, err := mount.Under(top); err != nil || len(left) > 0 {
		t.Errorf("left mounted: %v %v", left, err)
	}

	path = n.dvdcli("mount", "--volumename=db")
	if raw, err := os.ReadFile(filepath.Join(path, "f")); err != nil || string(raw) != "kept" {
		t.Errorf("%q %v", raw, err)
	}
	n.dvdcli("unmount", "--volumename=db")
	if out := n.dvdcli("list"); !strings.Contains(out, "db") {
		t.Errorf("list: %q", out)
	}
	n.dvdcli("remove", "--volumename=db")
	if left, err := os.ReadDir(filepath.Join(top, "pool", "db")); err == nil {
		t.Errorf("after remove: %v", left)
	}
}

func (n *csiNode) startPlugin() {
	n.plugin = n.start("csi-plugin", "--endpoint", "unix://"+filepath.Join(n.top, "csi.sock"), "--pool", filepath.Join(n.top, "pool"), "--node-id", "n1", "--scope", "node")
}

func (n *csiNode) startIsolator() {
	n.isolator = n.start("isolator", "--dir", filepath.Join(n.top, "node"), "--socket", n.socket, "--authority", "unix://"+filepath.Join(n.top, "a.sock"),
		"--csi", "pool=unix://"+filepath.Join(n.top, "csi.sock"), "--hostname", "n1", "--docker-socket", "")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if h, err := client.New(n.socket).Health(context.Background()); err == nil && h.Ready {
			return
		}
		if time.Now().After(end) {
			n.Fatal("the isolator is not ready after 20 s")
		}
	}
}

func (n *csiNode) start(args ...string) *exec.Cmd {
	n.Helper()
	cmd := exec.Command(filepath.Join(n.bin, "holdfast"), args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	return cmd
}

func (n *csiNode) kill(cmd *exec.Cmd) {
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func (n *csiNode) remove() {
	n.kill(n.isolator)
	n.kill(n.plugin)
	time.Sleep(100 * time.Millisecond) // the watchdog ends by itself
	left, err := mount.Under(n.top)
	if err != nil || len(left) > 0 {
		n.Errorf("left mounted: %v %v", left, err)
	}
	for i := len(left) - 1; i >= 0; i-- {
		_ = mount.Unmount(context.Background(), left[i].Point)
	}
	os.RemoveAll(n.top)
}

func (n *csiNode) try(verb string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, "dvdcli"), append([]string{verb, "--volumedriver=csi/pool"}, args...)...)
	cmd.Env = append(os.Environ(), client.SocketVariable+"="+n.socket)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return errOut.String(), err
	}
	return strings.TrimSpace(string(out)), nil
}

func (n *csiNode) dvdcli(verb string, args ...string) string {
	n.Helper()
	out, err := n.try(verb, args...)
	if err != nil {
		n.Fatalf("dvdcli %s: %v: %s", verb, err, out)
	}
	return out
}

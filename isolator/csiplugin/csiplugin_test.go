package csiplugin_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/csiplugin"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// serve runs a plugin over directories on a socket of its own until the test ends.
func serve(t *testing.T, scope string) (dir, endpoint string) {
	t.Helper()
	return serveOn(t, csiplugin.Options{Scope: scope}, "")
}

// serveOn is serve with another back end, where fs is not empty on a file system of that kind that was made for it.
func serveOn(t *testing.T, o csiplugin.Options, fs string) (dir, endpoint string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfc")
	if err != nil {
		t.Fatal(err)
	}
	o.Pool, o.NodeID = filepath.Join(dir, "pool"), "n1"
	if fs != "" {
		o.Mounts = filepath.Join(dir, "shown")
		scratch(t, o.Pool, fs)
	}
	p, err := csiplugin.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	endpoint = "unix://" + filepath.Join(dir, "csi.sock")
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, endpoint) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		left, err := mount.Under(dir)
		left = slices.DeleteFunc(left, func(m mount.Mount) bool { return m.Point == o.Pool })
		if err != nil || len(left) > 0 {
			t.Errorf("left mounted: %v %v", left, err)
		}
		for _, m := range left {
			_ = mount.Unmount(context.Background(), m.Point)
		}
		if fs != "" {
			if err := unix.Unmount(o.Pool, 0); err != nil {
				t.Errorf("the pool is still in use: %v", err)
			}
		}
		os.RemoveAll(dir)
	})
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("unix", filepath.Join(dir, "csi.sock"))
		if err == nil {
			c.Close()
			return dir, endpoint
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// scratch mounts a new file system of a kind at dir.
func scratch(t *testing.T, dir, fs string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := dir + ".image"
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<30); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs." + fs, "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
}

// TestHeavySanity runs csi-sanity, which Kubernetes's storage group tests drivers with, against the plugin over real mounts.
func TestHeavySanity(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.xfs"), heavy.Program("mkfs.btrfs"))
	program := filepath.Join(t.TempDir(), "csi-sanity")
	build := exec.Command("go", "build", "-o", program, "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity")
	build.Dir = filepath.Join("..", "..", "tools", "csi-sanity")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build csi-sanity: %v\n%s", err, out)
	}
	for name, c := range map[string]struct {
		o  csiplugin.Options
		fs string
	}{
		"directories of one node": {csiplugin.Options{Scope: "node"}, ""}, "directories of all nodes": {csiplugin.Options{Scope: "cluster"}, ""},
		"loop": {csiplugin.Options{Scope: "node", Backend: pool.Loop, Size: 10 << 20}, "xfs"}, "btrfs": {csiplugin.Options{Scope: "node", Backend: pool.Btrfs}, "btrfs"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, endpoint := serveOn(t, c.o, c.fs)
			ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, program, "--csi.endpoint="+endpoint, "--csi.mountdir="+filepath.Join(dir, "mnt"), "--csi.testvolumesize=67108864",
				"--csi.testvolumeexpandsize=134217728", "--csi.stagingdir="+filepath.Join(dir, "stage"), "--ginkgo.no-color").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			ran := string(out[strings.LastIndex(string(out), "Ran "):])
			t.Log(strings.TrimSpace(ran))
			if !strings.Contains(ran, "SUCCESS") || strings.Contains(ran, "Ran 0 ") {
				t.Errorf("%s", out)
			}
		})
	}
}

func dial(t *testing.T, endpoint string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var writer = &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{Mode: spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{}}}

// TestRefusals has what csi-sanity does not ask: each refusal has its code, and nothing is made.
func TestRefusals(t *testing.T) {
	_, endpoint := serve(t, "node")
	c := spec.NewControllerClient(dial(t, endpoint))
	n := spec.NewNodeClient(dial(t, endpoint))
	ctx := context.Background()
	create := func(change func(*spec.CreateVolumeRequest)) error {
		q := &spec.CreateVolumeRequest{Name: "v", VolumeCapabilities: []*spec.VolumeCapability{writer}}
		change(q)
		_, err := c.CreateVolume(ctx, q)
		return err
	}
	block := &spec.VolumeCapability{AccessMode: writer.AccessMode, AccessType: &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}}
	for name, x := range map[string]struct {
		err  error
		want codes.Code
	}{
		"path as name":    {create(func(q *spec.CreateVolumeRequest) { q.Name = "../x" }), codes.InvalidArgument},
		"raw block":       {create(func(q *spec.CreateVolumeRequest) { q.VolumeCapabilities[0] = block }), codes.InvalidArgument},
		"parameter":       {create(func(q *spec.CreateVolumeRequest) { q.Parameters = map[string]string{"iops": "5"} }), codes.InvalidArgument},
		"from a snapshot": {create(func(q *spec.CreateVolumeRequest) { q.VolumeContentSource = &spec.VolumeContentSource{} }), codes.InvalidArgument},
		"range": {create(func(q *spec.CreateVolumeRequest) {
			q.CapacityRange = &spec.CapacityRange{RequiredBytes: 2, LimitBytes: 1}
		}), codes.OutOfRange},
		"another node": {create(func(q *spec.CreateVolumeRequest) {
			q.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: []*spec.Topology{{Segments: map[string]string{csiplugin.TopologyKey: "n2"}}}}
		}), codes.ResourceExhausted},
	} {
		if status.Code(x.err) != x.want {
			t.Errorf("%s: %v, want %s", name, x.err, x.want)
		}
	}
	if l, err := c.ListVolumes(ctx, &spec.ListVolumesRequest{}); err != nil || len(l.Entries) != 0 {
		t.Errorf("made all the same: %v %v", l, err)
	}
	if err := create(func(*spec.CreateVolumeRequest) {}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "relative", "/", "/a/../b", "/a\nb"} {
		_, err := n.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{VolumeId: "v", StagingTargetPath: path, VolumeCapability: writer})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("stage at %q: %v", path, err)
		}
	}
	_, err := n.NodePublishVolume(ctx, &spec.NodePublishVolumeRequest{VolumeId: "v", StagingTargetPath: t.TempDir(), TargetPath: "/nowhere/x", VolumeCapability: writer})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("publish before stage: %v", err)
	}
}

// TestHeavyInUse: what is staged is not deleted, on its own and on another path, and goes when it is free.
func TestHeavyInUse(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dir, endpoint := serve(t, "node")
	c, n := spec.NewControllerClient(dial(t, endpoint)), spec.NewNodeClient(dial(t, endpoint))
	ctx := context.Background()
	if _, err := c.CreateVolume(ctx, &spec.CreateVolumeRequest{Name: "v", VolumeCapabilities: []*spec.VolumeCapability{writer}}); err != nil {
		t.Fatal(err)
	}
	stage, target := filepath.Join(dir, "stage"), filepath.Join(dir, "target")
	if _, err := n.NodeStageVolume(ctx, &spec.NodeStageVolumeRequest{VolumeId: "v", StagingTargetPath: stage, VolumeCapability: writer}); err != nil {
		t.Fatal(err)
	}
	q := &spec.NodePublishVolumeRequest{VolumeId: "v", StagingTargetPath: stage, TargetPath: target, VolumeCapability: writer, Readonly: true}
	for range 2 {
		if _, err := n.NodePublishVolume(ctx, q); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(target, "f"), nil, 0o600); err == nil {
		t.Error("a read-only volume was written to")
	}
	if _, err := c.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: "v"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("delete while published: %v", err)
	}
	if _, err := n.NodeUnpublishVolume(ctx, &spec.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: target}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: "v"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("delete while staged: %v", err)
	}
	if _, err := n.NodeUnstageVolume(ctx, &spec.NodeUnstageVolumeRequest{VolumeId: "v", StagingTargetPath: stage}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: "v"}); err != nil {
		t.Error(err)
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]csiplugin.Options{"no node": {Pool: t.TempDir()}, "relative": {Pool: "x", NodeID: "n"}, "lines": {Pool: t.TempDir(), NodeID: "a\nb"}} {
		if _, err := csiplugin.New(o); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p, err := csiplugin.New(csiplugin.Options{Pool: t.TempDir(), NodeID: "n"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []string{"tcp://1.2.3.4:5", "unix://x", "/x", "unix:///a/../b"} {
		if err := p.Serve(context.Background(), e); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", e, err)
		}
	}
	if err := p.Serve(context.Background(), "unix://"+file); !fault.Is(err, fault.Conflict) {
		t.Errorf("a file in the socket's place: %v", err)
	}
	_, taken := serve(t, "node")
	if err := p.Serve(context.Background(), taken); !fault.Is(err, fault.Conflict) {
		t.Errorf("a socket that answers: %v", err)
	}
}

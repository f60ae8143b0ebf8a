package csi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/drivertest"
)

var bg = context.Background()

func TestSuite(t *testing.T) {
	suites(t, map[string]func(f *fake, o *Options, shared string){
		"records of this node": func(*fake, *Options, string) {},
		"shared records":       func(f *fake, o *Options, shared string) { f.local, o.Names = false, shared },
	})
}

func TestHeavySuite(t *testing.T) {
	heavy.Require(t)
	suites(t, map[string]func(f *fake, o *Options, shared string){
		"ids are names":     func(f *fake, o *Options, _ string) { f.idName, o.IDsAreNames = true, true },
		"asked by list":     func(f *fake, _ *Options, _ string) { f.control = []spec.ControllerServiceCapability_RPC_Type{1, 2, 3} },
		"asked by validate": func(f *fake, _ *Options, _ string) { f.control = []spec.ControllerServiceCapability_RPC_Type{1, 2} },
	})
}

func suites(t *testing.T, all map[string]func(f *fake, o *Options, shared string)) {
	for name, change := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
				f, dir := newFake(t), t.TempDir()
				open := func() driver.Driver {
					return f.open(t, dir, func(o *Options) { change(f, o, filepath.Join(dir, "names")) })
				}
				return drivertest.Fixture{Driver: open(), Again: open, KeepsUID: true, Options: map[string]string{"size": "4M"}}
			})
		})
	}
}

// mustCreate makes the volume v.
func mustCreate(t *testing.T, d *Driver) {
	t.Helper()
	if _, err := d.Create(bg, spec1("v")); err != nil {
		t.Fatal(err)
	}
}

var mountV = driver.MountSpec{Name: "v", UID: "uid-v", ID: "e1"}

// TestUnknownIsNotAbsent: only the plugin, or a book that is the only one, says that there is no volume.
func TestUnknownIsNotAbsent(t *testing.T) {
	cluster := func(o *Options) { o.Scope = driver.ScopeCluster }
	f := newFake(t)
	d := f.open(t, t.TempDir(), cluster)
	if _, err := d.Get(bg, "v"); !fault.Is(err, fault.Unknown) {
		t.Errorf("another node may have made it: %v", err)
	}
	if _, err := d.Create(bg, spec1("v")); !fault.Is(err, fault.Unknown) || f.count("CreateVolume") != 0 {
		t.Errorf("created without knowing: %v", err)
	}
	if _, err := d.List(bg); err == nil {
		t.Error("a list that leaves out other nodes' volumes")
	}
	d = f.open(t, t.TempDir(), nil)
	mustCreate(t, d)
	for _, c := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Aborted, codes.Unknown, codes.PermissionDenied} {
		f.spoil(func(m string) error {
			if m == "ControllerGetVolume" {
				return status.Error(c, "x")
			}
			return nil
		}, nil)
		if _, err := d.Get(bg, "v"); err == nil || fault.Is(err, fault.NotFound) {
			t.Errorf("%s: %v", c, err)
		}
	}
	f.spoil(nil, nil)
	f.server.Stop()
	if _, err := d.Get(bg, "v"); err == nil || fault.Is(err, fault.NotFound) {
		t.Errorf("plugin away: %v", err)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil {
		t.Errorf("nothing was mounted, and nobody need be asked: %v", err)
	}
	for end := time.Now().Add(5 * time.Second); ; { // once the broken connection has been noticed
		if _, err := d.Mount(bg, mountV); fault.Is(err, fault.Unavailable) {
			break
		} else if !fault.Is(err, fault.Unknown) || time.Now().After(end) {
			t.Fatalf("plugin away: %v", err)
		}
	}
	f.start(t)
	if _, err := d.Get(bg, "v"); err != nil {
		t.Errorf("plugin back: %v", err)
	}
	if err := os.WriteFile(d.names.Path("v"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(bg, "v"); !fault.Is(err, fault.Unknown) {
		t.Errorf("damaged record: %v", err)
	}
}

// TestLostReplies loses the answer of every call once, after it had its effect: the driver says Unknown, and doing it again works and leaks nothing.
func TestLostReplies(t *testing.T) {
	f := newFake(t)
	for _, method := range []string{"CreateVolume", "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume", "NodeUnpublishVolume",
		"NodeUnstageVolume", "ControllerUnpublishVolume", "DeleteVolume"} {
		t.Run(method, func(t *testing.T) {
			d := f.open(t, t.TempDir(), nil)
			lost := false
			f.spoil(nil, func(m string) error {
				if m == method && !lost {
					lost = true
					return status.Error(codes.Unavailable, "connection reset")
				}
				return nil
			})
			twice := func(what string, do func() error) {
				before := lost
				err := do()
				if lost != before {
					if !fault.Is(err, fault.Unknown) {
						t.Errorf("%s: %v, want unknown", what, err)
					}
					err = do()
				}
				if err != nil && !fault.Is(err, fault.NotFound) {
					t.Fatalf("%s: %v", what, err)
				}
			}
			twice("create", func() error { _, err := d.Create(bg, spec1("v")); return err })
			twice("mount", func() error { _, err := d.Mount(bg, mountV); return err })
			twice("unmount", func() error { return d.Unmount(bg, "v", "e1") })
			twice("remove", func() error { return d.Remove(bg, "v", "uid-v") })
			if left := f.left(); !lost || left != "0 0 0" || f.made() != 0 {
				t.Errorf("lost %t, left %s, %d volumes", lost, left, f.made())
			}
		})
	}
}

// TestRefusedCreate: a refusal leaves nothing, a size that differs is a conflict.
func TestRefusedCreate(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	d := f.open(t, dir, nil)
	f.volumes["x"] = &fakeVolume{id: "x", name: "v", size: 5}
	if _, err := d.Create(bg, spec1("v")); !fault.Is(err, fault.Conflict) {
		t.Errorf("another size: %v", err)
	}
	if _, err := d.Get(bg, "v"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after the refusal: %v", err)
	}
	for name, s := range map[string]driver.Spec{
		"owner": {Name: "w", Owner: "root"}, "block": {Name: "w", Options: map[string]string{"volumeMode": "Block"}},
		"access": {Name: "w", Options: map[string]string{"access": "everybody"}}, "long": {Name: strings.Repeat("w", 129)},
		"size": {Name: "w", Options: map[string]string{"size": "x"}},
	} {
		if _, err := d.Create(bg, s); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Create(bg, driver.Spec{Name: "w", Options: map[string]string{"size": "1M", "access": "multi-node-multi-writer", "fs": "xfs", "tier": "gold"}}); err != nil {
		t.Fatal(err)
	}
	q, ok := f.lastRequest().(*spec.CreateVolumeRequest)
	if !ok || q.GetCapacityRange().GetRequiredBytes() != 1<<20 || q.Parameters["tier"] != "gold" || len(q.Parameters) != 1 || q.VolumeCapabilities[0].GetMount().GetFsType() != "xfs" ||
		q.VolumeCapabilities[0].GetAccessMode().GetMode() != spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER || q.GetAccessibilityRequirements() == nil {
		t.Errorf("asked for %v", q)
	}
}

// TestGarbage answers every call with what no plugin should: nothing of it is taken for a success or an absence.
func TestGarbage(t *testing.T) {
	vol := func(id string, size int64) *spec.Volume { return &spec.Volume{VolumeId: id, CapacityBytes: size} }
	big := map[string]string{"k": strings.Repeat("x", 5000)}
	for name, x := range map[string]struct {
		method string
		reply  any
	}{
		"no volume":       {"CreateVolume", &spec.CreateVolumeResponse{}},
		"no id":           {"CreateVolume", &spec.CreateVolumeResponse{Volume: vol("", 1)}},
		"lines in the id": {"CreateVolume", &spec.CreateVolumeResponse{Volume: vol("a\nb", 1)}},
		"long id":         {"CreateVolume", &spec.CreateVolumeResponse{Volume: vol(strings.Repeat("a", 2000), 1)}},
		"too small":       {"CreateVolume", &spec.CreateVolumeResponse{Volume: vol("a", 1)}},
		"negative":        {"CreateVolume", &spec.CreateVolumeResponse{Volume: vol("a", -1)}},
		"another's id":    {"CreateVolume", &spec.CreateVolumeResponse{Volume: vol("taken", 1<<30)}},
		"large context":   {"CreateVolume", &spec.CreateVolumeResponse{Volume: &spec.Volume{VolumeId: "a", VolumeContext: big}}},
		"huge reply":      {"CreateVolume", &spec.CreateVolumeResponse{Volume: &spec.Volume{VolumeId: "a", VolumeContext: map[string]string{"k": strings.Repeat("x", 5<<20)}}}},
		"wrong type":      {"CreateVolume", &spec.ListVolumesResponse{NextToken: "\xff"}},
		"other volume":    {"ControllerGetVolume", &spec.ControllerGetVolumeResponse{Volume: vol("other", 1)}},
		"empty get":       {"ControllerGetVolume", &spec.ControllerGetVolumeResponse{}},
		"publish context": {"ControllerPublishVolume", &spec.ControllerPublishVolumeResponse{PublishContext: big}},
		"not published":   {"NodePublishVolume", &spec.NodePublishVolumeResponse{}},
		"endless list":    {"ListVolumes", &spec.ListVolumesResponse{NextToken: "again"}},
		"plugin name":     {"GetPluginInfo", &spec.GetPluginInfoResponse{Name: "a b"}},
		"node id":         {"NodeGetInfo", &spec.NodeGetInfoResponse{}},
		"limit":           {"NodeGetInfo", &spec.NodeGetInfoResponse{NodeId: "n", MaxVolumesPerNode: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			if x.method == "ListVolumes" {
				f.control = []spec.ControllerServiceCapability_RPC_Type{1, 2, 3}
			}
			d := f.open(t, t.TempDir(), func(o *Options) { o.LookLimit = 300 * time.Millisecond })
			if err := d.names.Put("o", csibook.Volume{V: 1, Name: "o", State: csibook.There, ID: "taken"}); err != nil {
				t.Fatal(err)
			}
			f.reply[x.method] = x.reply
			s := spec1("v")
			s.Size = 1 << 20
			_, cerr := d.Create(bg, s)
			_, merr := d.Mount(bg, mountV)
			if err := errors.Join(cerr, merr); cerr == nil && merr == nil {
				t.Error("created and mounted")
			} else if x.method != "CreateVolume" && fault.Is(err, fault.NotFound) {
				t.Errorf("taken for absent: %v", err)
			}
		})
	}
}

// TestSlow: a call that takes too long is unknown, in time, and the ledger has it. Its effect comes later all the same.
func TestSlow(t *testing.T) {
	f := newFake(t)
	d := f.open(t, t.TempDir(), func(o *Options) { o.CallLimit = 300 * time.Millisecond })
	mustCreate(t, d)
	release := make(chan struct{})
	f.spoil(func(m string) error {
		if m == "NodeStageVolume" {
			<-release
		}
		return nil
	}, nil)
	begun := time.Now()
	if _, err := d.Mount(bg, mountV); !fault.Is(err, fault.Unknown) || time.Since(begun) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
	if err := d.Remove(bg, "v", ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("remove of what may be mounted: %v", err)
	}
	f.spoil(nil, nil)
	close(release)
	for end := time.Now().Add(10 * time.Second); f.left() != "1 1 0" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil || f.left() != "0 0 0" {
		t.Errorf("%v, left %s", err, f.left())
	}
}

// TestManners holds the driver to what the fake's manners ask of it.
func TestManners(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	d := f.open(t, dir, nil)
	mustCreate(t, d)
	path, err := d.Mount(bg, mountV)
	if err != nil || path != d.WillMountAt("v") {
		t.Fatal(path, err)
	}
	if err := d.Remove(bg, "v", "uid-v"); !fault.Is(err, fault.Conflict) || f.count("DeleteVolume") != 0 {
		t.Errorf("the plugin would delete what is published: %v", err)
	}
	if u, err := d.Usage(bg, "v"); u.Complaint != "just so" || err != nil {
		t.Errorf("condition %+v %v", u, err)
	}
	if _, err := d.Mount(bg, driver.MountSpec{Name: "v", UID: "uid-v", ID: "e2"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("mounted for another epoch: %v", err)
	}
	// The plugin forgets its stage, as after a restart.
	f.mu.Lock()
	os.Remove(path)
	f.published, f.staged = map[string]string{}, map[string]string{}
	f.mu.Unlock()
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Errorf("mount again: %v", err)
	}
	if facts, err := d.Facts(bg); err != nil || facts.AttachLimit != 7 || facts.Scope != driver.ScopeNode || facts.Root == "" {
		t.Errorf("%+v %v", facts, err)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil || f.left() != "0 0 0" {
		t.Errorf("%v, left %s", err, f.left())
	}
	// A volume that is somewhere else is not even attached.
	r, _, _ := d.record("v")
	f.control = []spec.ControllerServiceCapability_RPC_Type{1, 2}
	r.Topology = []map[string]string{{"node": "another"}}
	if err := d.names.Put("v", r); err != nil {
		t.Fatal(err)
	}
	d = f.open(t, dir, nil)
	if _, err := d.Mount(bg, mountV); !fault.Is(err, fault.Conflict) || f.left() != "0 0 0" {
		t.Errorf("%v, left %s", err, f.left())
	}
}

// TestSweep: what an earlier boot left attached and staged is undone, what is mounted is not.
func TestSweep(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	d := f.open(t, dir, nil)
	mustCreate(t, d)
	path, err := d.Mount(bg, mountV)
	if err != nil {
		t.Fatal(err)
	}
	next := f.open(t, dir, func(o *Options) { o.BootID = "boot-2" })
	if err := next.Sweep(bg, time.Time{}); err != nil || f.left() != "1 1 1" {
		t.Errorf("%v, left %s", err, f.left())
	}
	os.Remove(path) // the reboot
	if err := d.Sweep(bg, time.Time{}); err != nil || f.left() != "1 1 1" {
		t.Errorf("a mount that is being made: %v, left %s", err, f.left())
	}
	if err := next.Sweep(bg, time.Time{}); err != nil || f.left() != "0 0 0" {
		t.Errorf("%v, left %s", err, f.left())
	}
}

// TestLostState: the state directory is gone, the mount and a shared record are not.
func TestLostState(t *testing.T) {
	f := newFake(t)
	dir, names := t.TempDir(), t.TempDir()
	shared := func(o *Options) { o.Names = names }
	d := f.open(t, dir, shared)
	mustCreate(t, d)
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.steps.Ledger.Path("v")); err != nil {
		t.Fatal(err)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil || f.left() != "0 0 0" {
		t.Errorf("%v, left %s", err, f.left())
	}
}

// TestForeignVolume: with ids that are names, what others made is found, and mounted as the mount's options say.
func TestForeignVolume(t *testing.T) {
	f := newFake(t)
	f.idName, f.local = true, false
	if _, err := f.CreateVolume(bg, &spec.CreateVolumeRequest{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	d := f.open(t, t.TempDir(), func(o *Options) { o.IDsAreNames = true })
	if got, err := d.Get(bg, "v"); err != nil || got.UID != "" {
		t.Fatalf("%+v %v", got, err)
	}
	if all, err := d.List(bg); err != nil || len(all) != 1 {
		t.Errorf("%v %v", all, err)
	}
	path, err := d.Mount(bg, driver.MountSpec{Name: "v", UID: "u", ID: "e1", Options: map[string]string{"access": "multi-node-reader-only"}})
	if err != nil {
		t.Fatal(err)
	}
	if q, ok := f.lastRequest().(*spec.NodePublishVolumeRequest); !ok || !q.Readonly || q.TargetPath != path {
		t.Errorf("asked for %v", q)
	}
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("tasks of other users cannot come by: %v %v", fi.Mode(), err)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil || f.left() != "0 0 0" {
		t.Errorf("%v, left %s", err, f.left())
	}
	if err := d.Remove(bg, "v", ""); err != nil || f.made() != 0 {
		t.Error(err)
	}
}

// TestSecrets: they reach the plugin and nothing else.
func TestSecrets(t *testing.T) {
	const secret = "hunter2-hunter2"
	f := newFake(t)
	dir, secretDir := t.TempDir(), t.TempDir()
	file := filepath.Join(secretDir, "password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := f.open(t, dir, func(o *Options) { o.Secrets = secretDir })
	if _, err := d.Create(bg, spec1("v")); !fault.Is(err, fault.Denied) {
		t.Errorf("a secret that everybody may read: %v", err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, d)
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, q := range f.seen {
		if s, ok := q.(interface{ GetSecrets() map[string]string }); ok && s.GetSecrets()["password"] == secret {
			got++
		}
	}
	if got != 4 {
		t.Errorf("secrets came with %d calls, want create, attach, stage and publish", got)
	}
	err := filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		if err != nil || !fi.Mode().IsRegular() {
			return err
		}
		if raw, _ := os.ReadFile(path); strings.Contains(string(raw), secret) {
			t.Errorf("the secret is in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	f.spoil(func(m string) error { return status.Error(codes.InvalidArgument, "login with "+secret+" failed") }, nil)
	if _, err := d.Create(bg, spec1("w")); err == nil || strings.Contains(fmt.Sprintf("%+v", err), secret) {
		t.Errorf("the secret is in %v", err)
	}
}

// TestSharedBook: what one node began another one does not take over, and what it made the other sees.
func TestSharedBook(t *testing.T) {
	f := newFake(t)
	f.local = false
	names := t.TempDir()
	a := f.open(t, t.TempDir(), func(o *Options) { o.Names = names })
	b := f.open(t, t.TempDir(), func(o *Options) { o.Names, o.Node = names, "n2" })
	f.spoil(func(m string) error {
		if m == "CreateVolume" {
			return status.Error(codes.Internal, "x")
		}
		return nil
	}, nil)
	if _, err := a.Create(bg, spec1("v")); !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
	f.spoil(nil, nil)
	if _, err := b.Get(bg, "v"); !fault.Is(err, fault.Unknown) {
		t.Errorf("begun by another node: %v", err)
	}
	if _, err := b.Create(bg, driver.Spec{Name: "v", UID: "other"}); !fault.Is(err, fault.Exists) {
		t.Errorf("create over it: %v", err)
	}
	if got, err := a.Get(bg, "v"); err != nil || got.UID != "uid-v" {
		t.Errorf("its own node: %+v %v", got, err)
	}
	if got, err := b.Get(bg, "v"); err != nil || got.UID != "uid-v" {
		t.Errorf("the other node: %+v %v", got, err)
	}
}

func TestOptions(t *testing.T) {
	good := Options{Name: "csi/x", Endpoint: "unix:///run/x.sock", Dir: t.TempDir(), Mounts: t.TempDir()}
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "x" }, "tcp": func(o *Options) { o.Endpoint = "tcp://h:1" }, "relative": func(o *Options) { o.Endpoint = "unix://x" },
		"dir": func(o *Options) { o.Dir = "d" }, "scope": func(o *Options) { o.Scope = "moon" }, "dots": func(o *Options) { o.Names = "/a/../b" },
	} {
		o := good
		change(&o)
		if _, err := New(o); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

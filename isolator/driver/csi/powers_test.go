package csi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
)

const mib = 1 << 20

// sized makes volume v of 1 MiB with a file in it.
func sized(t *testing.T, f *fake, d *Driver) {
	t.Helper()
	s := spec1("v")
	s.Size = mib
	if _, err := d.Create(bg, s); err != nil {
		t.Fatal(err)
	}
	r, _, err := d.record("v")
	if err == nil {
		err = os.WriteFile(filepath.Join(f.data(r.ID), "f"), []byte("content"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestGrow: online at once; offline while it is mounted the wish waits for the next mount; the file system grows when it is there.
func TestGrow(t *testing.T) {
	for _, online := range []bool{true, false} {
		t.Run(fmt.Sprint("online ", online), func(t *testing.T) {
			f := newFake(t)
			f.restart(t, func() { f.online = online })
			d := f.open(t, t.TempDir(), nil)
			sized(t, f, d)
			r, _, _ := d.record("v")
			for what, c := range map[string]struct {
				size volume.Bytes
				uid  string
				want fault.Class
			}{"smaller": {mib / 2, "uid-v", fault.Invalid}, "another's": {2 * mib, "x", fault.Conflict}, "too large": {2 << 40, "uid-v", fault.Invalid}} {
				if _, err := d.Grow(bg, "v", c.uid, c.size); !fault.Is(err, c.want) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if g, err := d.Grow(bg, "v", "uid-v", mib); err != nil || g.Size != mib || g.Pending != 0 {
				t.Errorf("to what it has: %+v %v", g, err)
			}
			if g, err := d.Grow(bg, "v", "uid-v", 2*mib); err != nil || g.Size != mib || g.Pending != 2*mib || g.Because == "" {
				t.Errorf("while it is nowhere mounted: %+v %v", g, err)
			}
			if _, err := d.Mount(bg, mountV); err != nil || f.grown[r.ID] != 2*mib {
				t.Errorf("the mount did not bring it: %v, %v", err, f.grown)
			}
			g, err := d.Grow(bg, "v", "uid-v", 4*mib)
			if online && (err != nil || g.Size != 4*mib || g.Pending != 0 || f.grown[r.ID] != 4*mib) {
				t.Errorf("while it is mounted: %+v %v", g, err)
			}
			if !online && (err != nil || g.Size != 2*mib || g.Pending != 4*mib || g.Because == "" || f.volumes[r.ID].size != 2*mib) {
				t.Errorf("while it is mounted: %+v %v", g, err)
			}
			if err := d.Unmount(bg, "v", "e1"); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Mount(bg, mountV); err != nil || f.grown[r.ID] != 4*mib || f.volumes[r.ID].size != 4*mib {
				t.Errorf("the next mount: %v, %v", err, f.grown)
			}
			if g, err := d.Grow(bg, "v", "uid-v", 4*mib); err != nil || g.Size != 4*mib || g.Pending != 0 {
				t.Errorf("again: %+v %v", g, err)
			}
		})
	}
}

// TestGrowUnsaid: a plugin that does not say whether it grows what is published is asked to, and its refusal leaves the wish to the next mount.
func TestGrowUnsaid(t *testing.T) {
	for _, can := range []bool{true, false} {
		f := newFake(t)
		f.restart(t, func() { f.quiet, f.online = true, can })
		d := f.open(t, t.TempDir(), nil)
		sized(t, f, d)
		if facts, err := d.Facts(bg); err != nil || facts.Grows != driver.GrowsOffline {
			t.Errorf("%+v %v", facts, err)
		}
		if _, err := d.Mount(bg, mountV); err != nil {
			t.Fatal(err)
		}
		g, err := d.Grow(bg, "v", "", 2*mib)
		if can && (err != nil || g.Size != 2*mib || g.Pending != 0) {
			t.Errorf("it can: %+v %v", g, err)
		}
		if !can && (err != nil || g.Pending != 2*mib || !strings.Contains(g.Because, "it is attached")) {
			t.Errorf("it cannot: %+v %v", g, err)
		}
		if err := d.Unmount(bg, "v", "e1"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Mount(bg, mountV); err != nil || f.grown[first(t, d)] != 2*mib {
			t.Errorf("the next mount: %v, %v", err, f.grown)
		}
	}
}

// TestGrowFails: a file system that does not grow keeps nobody from mounting, a controller whose answer is not known does.
func TestGrowFails(t *testing.T) {
	f := newFake(t)
	d := f.open(t, t.TempDir(), nil)
	sized(t, f, d)
	if _, err := d.Grow(bg, "v", "", 2*mib); err != nil {
		t.Fatal(err)
	}
	fail := func(method string, c codes.Code) func(string) error {
		return func(m string) error {
			if m == method {
				return status.Error(c, "x")
			}
			return nil
		}
	}
	f.spoil(fail("NodeExpandVolume", codes.Internal), nil)
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Errorf("the file system did not grow: %v", err)
	}
	if g, err := d.Grow(bg, "v", "", 3*mib); err != nil || g.Pending != 3*mib {
		t.Errorf("%+v %v", g, err)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil {
		t.Fatal(err)
	}
	f.spoil(nil, fail("ControllerExpandVolume", codes.DeadlineExceeded))
	if _, err := d.Mount(bg, mountV); !fault.Is(err, fault.Unknown) || f.left() != "0 0 0" {
		t.Errorf("the plugin may still be expanding it: %v, left %s", err, f.left())
	}
	f.spoil(fail("ControllerExpandVolume", codes.ResourceExhausted), nil)
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Errorf("there is no room to grow: %v", err)
	}
	if _, err := d.Grow(bg, "v", "", 5*mib); err != nil {
		t.Errorf("offline, mounted: %v", err)
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Grow(bg, "v", "", 5*mib); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no room: %v", err)
	}
	f.spoil(nil, nil)
	if g, err := d.Grow(bg, "v", "", 3*mib); err != nil || g.Pending != 3*mib {
		t.Errorf("less: %+v %v", g, err)
	}
}

// TestSnapshots: taken once, listed by pages, ready when the plugin says so, kept when their volume goes, never mixed up with a namesake's.
func TestSnapshots(t *testing.T) {
	f := newFake(t)
	d := f.open(t, t.TempDir(), nil)
	sized(t, f, d)
	f.unready = 2
	s, err := d.Snapshot(bg, "v", "uid-v", "monday")
	if err != nil || s.Ready || s.Size != mib || s.UID != "uid-v" || s.Created.IsZero() {
		t.Fatalf("%+v %v", s, err)
	}
	again, err := d.Snapshot(bg, "v", "uid-v", "monday")
	if err != nil || !again.Created.Equal(s.Created) || len(f.snapshots) != 1 {
		t.Errorf("again: %+v %v", again, err)
	}
	if all, err := d.Snapshots(bg, "v"); err != nil || len(all) != 1 || !all[0].Ready {
		t.Errorf("list: %+v %v", all, err)
	}
	if _, err := d.Snapshot(bg, "v", "another", "tuesday"); !fault.Is(err, fault.Conflict) {
		t.Errorf("of another volume: %v", err)
	}
	if _, err := d.Snapshot(bg, "nobody", "", "x"); !fault.Is(err, fault.NotFound) {
		t.Errorf("of none: %v", err)
	}
	for _, bad := range []string{"", "a/b", "../x", "a@b", "a\nb"} {
		if _, err := d.Snapshot(bg, "v", "", bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, n := range []string{"c", "a", "b"} {
		if _, err := d.Snapshot(bg, "v", "", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Remove(bg, "v", "uid-v"); err != nil {
		t.Fatal(err)
	}
	mustCreate2 := spec1("v")
	mustCreate2.UID = "second"
	if _, err := d.Create(bg, mustCreate2); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(bg, "v", "second", "monday"); !fault.Is(err, fault.Exists) {
		t.Errorf("the name is that of the former volume's: %v", err)
	}
	all, err := d.Snapshots(bg, "")
	if err != nil || len(all) != 4 || all[0].Name != "a" || all[3].Name != "monday" || all[3].UID != "uid-v" {
		t.Errorf("%+v %v", all, err)
	}
	delete(f.snapshots, slices.Collect(func(yield func(string) bool) {
		for id := range f.snapshots {
			if !yield(id) {
				return
			}
		}
	})[0]) // behind our back
	if all, err := d.Snapshots(bg, ""); err != nil || len(all) != 3 {
		t.Errorf("%+v %v", all, err)
	}
	for _, n := range []string{"a", "b", "c", "monday"} {
		if err := d.RemoveSnapshot(bg, "v", n); err != nil {
			t.Errorf("remove %s: %v", n, err)
		}
	}
	if err := d.RemoveSnapshot(bg, "v", "a"); !fault.Is(err, fault.NotFound) || len(f.snapshots) != 0 {
		t.Errorf("%v, %d left", err, len(f.snapshots))
	}
}

// TestSnapshotUnknown: an answer that was lost is found out by asking again, and until then the volume stays.
func TestSnapshotUnknown(t *testing.T) {
	f := newFake(t)
	d := f.open(t, t.TempDir(), nil)
	sized(t, f, d)
	f.spoil(nil, func(m string) error {
		if m == "CreateSnapshot" {
			return status.Error(codes.Unavailable, "reset")
		}
		return nil
	})
	if _, err := d.Snapshot(bg, "v", "", "s"); !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
	if err := d.Remove(bg, "v", ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("removed although nobody knows the snapshot's id: %v", err)
	}
	if err := d.RemoveSnapshot(bg, "v", "s"); !fault.Is(err, fault.Unknown) {
		t.Errorf("%v", err)
	}
	f.spoil(nil, nil)
	if err := d.RemoveSnapshot(bg, "v", "s"); err != nil || len(f.snapshots) != 0 {
		t.Errorf("%v, %d left", err, len(f.snapshots))
	}
	f.spoil(func(m string) error {
		if m == "CreateSnapshot" {
			return status.Error(codes.ResourceExhausted, "full")
		}
		return nil
	}, nil)
	if _, err := d.Snapshot(bg, "v", "", "s"); !fault.Is(err, fault.Unavailable) {
		t.Fatal(err)
	}
	if err := d.Remove(bg, "v", ""); err != nil {
		t.Errorf("a refused snapshot is none: %v", err)
	}
}

// TestClone: of a volume and of a snapshot, as large as its source, refused where it cannot be one.
func TestClone(t *testing.T) {
	f := newFake(t)
	d := f.open(t, t.TempDir(), nil)
	sized(t, f, d)
	f.unready = 2
	if _, err := d.Snapshot(bg, "v", "uid-v", "s"); err != nil {
		t.Fatal(err)
	}
	holds := func(name string) {
		t.Helper()
		r, _, err := d.record(name)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := os.ReadFile(filepath.Join(f.data(r.ID), "f")); err != nil || string(raw) != "content" || r.Capacity != mib {
			t.Errorf("%s: %q %v, %d bytes", name, raw, err, r.Capacity)
		}
	}
	clone := func(name string, src driver.Source, size volume.Bytes) error {
		_, err := d.Create(bg, driver.Spec{Name: name, UID: "uid-" + name, Source: &src, Size: size})
		return err
	}
	if err := clone("fromsnap", driver.Source{Volume: "v", UID: "uid-v", Snapshot: "s"}, 0); err != nil {
		t.Fatal(err) // it was not ready, and was waited for
	}
	holds("fromsnap")
	if err := clone("fromvol", driver.Source{Volume: "v"}, 0); err != nil {
		t.Fatal(err)
	}
	holds("fromvol")
	for what, c := range map[string]struct {
		src  driver.Source
		size volume.Bytes
		want fault.Class
	}{
		"smaller": {driver.Source{Volume: "v"}, mib / 2, fault.Invalid}, "no source": {driver.Source{Volume: "nobody"}, 0, fault.NotFound},
		"no snapshot": {driver.Source{Volume: "v", Snapshot: "x"}, 0, fault.NotFound}, "another's": {driver.Source{Volume: "v", UID: "x"}, 0, fault.Conflict},
		"another's snapshot": {driver.Source{Volume: "v", UID: "x", Snapshot: "s"}, 0, fault.Conflict},
	} {
		if err := clone("w", c.src, c.size); !fault.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.unready = 1 << 30
	if _, err := d.Snapshot(bg, "v", "uid-v", "slow"); err != nil {
		t.Fatal(err)
	}
	brief, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	if _, err := d.Create(brief, driver.Spec{Name: "w", Source: &driver.Source{Volume: "v", Snapshot: "slow"}}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("not ready: %v", err)
	}
	// A plugin that makes an empty volume of it must not get away with it.
	f.reply["CreateVolume"] = &spec.CreateVolumeResponse{Volume: &spec.Volume{VolumeId: "empty", CapacityBytes: mib}}
	if err := clone("w", driver.Source{Volume: "v"}, 0); !fault.Is(err, fault.Conflict) {
		t.Errorf("empty instead of a copy: %v", err)
	}
	if _, err := d.Get(bg, "w"); !fault.Is(err, fault.NotFound) {
		t.Errorf("after that: %v", err)
	}
}

// TestUsage: from the node while it is mounted; an abnormal right after a good publish is a word, and stops nothing.
func TestUsage(t *testing.T) {
	f := newFake(t)
	d := f.open(t, t.TempDir(), nil)
	mustCreate(t, d)
	if _, err := d.Usage(bg, "v"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("not mounted: %v", err)
	}
	if _, err := d.Usage(bg, "nobody"); !fault.Is(err, fault.NotFound) {
		t.Errorf("not there: %v", err)
	}
	f.reply["ControllerGetVolume"] = &spec.ControllerGetVolumeResponse{Volume: f.wire(f.volumes[first(t, d)]),
		Status: &spec.ControllerGetVolumeResponse_VolumeStatus{VolumeCondition: &spec.VolumeCondition{Abnormal: true, Message: "not\nmounted"}}}
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Fatalf("abnormal kept it from being mounted: %v", err)
	}
	if i, err := d.Get(bg, "v"); err != nil || i.Complaint != "not mounted" || len(i.Topology) != 1 || i.Topology[0]["node"] != "fake-node" {
		t.Errorf("%+v %v", i, err)
	}
	if u, err := d.Usage(bg, "v"); err != nil || u != (driver.Usage{Size: 100, Used: 40, Available: 60, Inodes: 9, InodesUsed: 4, Complaint: "just so"}) {
		t.Errorf("%+v %v", u, err)
	}
	f.reply["NodeGetVolumeStats"] = &spec.NodeGetVolumeStatsResponse{Usage: []*spec.VolumeUsage{{Unit: 1, Used: -1}}}
	if _, err := d.Usage(bg, "v"); !fault.Is(err, fault.Unknown) {
		t.Errorf("below zero: %v", err)
	}
}

func first(t *testing.T, d *Driver) string {
	t.Helper()
	r, _, err := d.record("v")
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

// TestAccess: what is asked for where the options name no access mode, and what cannot be asked for.
func TestAccess(t *testing.T) {
	for _, knows := range []bool{false, true} {
		f := newFake(t)
		f.restart(t, func() {
			if knows {
				f.control = append(f.control, spec.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
				f.nodal = append(f.nodal, spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
			}
		})
		d := f.open(t, t.TempDir(), nil)
		asked := func(name string, shared bool, access string) (spec.VolumeCapability_AccessMode_Mode, error) {
			s := driver.Spec{Name: name, UID: "u", Shared: shared}
			if access != "" {
				s.Options = map[string]string{"access": access}
			}
			if _, err := d.Create(bg, s); err != nil {
				return 0, err
			}
			q, _ := f.lastRequest().(*spec.CreateVolumeRequest)
			return q.GetVolumeCapabilities()[0].GetAccessMode().GetMode(), nil
		}
		want := spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
		if knows {
			want = spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
		}
		if got, err := asked("a", false, ""); got != want || err != nil {
			t.Errorf("knows %t: %v %v", knows, got, err)
		}
		if got, err := asked("b", true, ""); got != spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER || err != nil {
			t.Errorf("shared: %v %v", got, err)
		}
		if _, err := asked("c", true, "single-node-writer"); !fault.Is(err, fault.Invalid) {
			t.Errorf("shared on one node: %v", err)
		}
		if got, err := asked("d", true, "multi-node-reader-only"); got != spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY || err != nil {
			t.Errorf("shared, read only: %v %v", got, err)
		}
		if _, err := asked("e", false, "single-node-multi-writer"); fault.Is(err, fault.Invalid) == knows {
			t.Errorf("knows %t: %v", knows, err)
		}
	}
}

// TestShapes: plugins that lack a part are used as far as they go, and say what is missing.
func TestShapes(t *testing.T) {
	t.Run("node only", func(t *testing.T) {
		f := newFake(t)
		f.restart(t, func() {
			f.noController, f.local, f.control, f.nodal = true, false, nil, []spec.NodeServiceCapability_RPC_Type{}
		})
		d := f.open(t, t.TempDir(), nil)
		if _, err := d.Get(bg, "v"); !fault.Is(err, fault.Unknown) {
			t.Errorf("%v", err)
		}
		d = f.open(t, t.TempDir(), func(o *Options) { o.IDsAreNames = true })
		if facts, err := d.Facts(bg); err != nil || facts.Snapshots || facts.Clones || facts.Grows != "" || facts.Scope != driver.ScopeCluster {
			t.Errorf("%+v %v", facts, err)
		}
		if _, err := d.Create(bg, spec1("v")); !fault.Is(err, fault.Invalid) {
			t.Errorf("create: %v", err)
		}
		f.volumes["v"] = &fakeVolume{id: "v", name: "v"}
		if err := os.Mkdir(f.data("v"), 0o755); err != nil {
			t.Fatal(err)
		}
		path, err := d.Mount(bg, driver.MountSpec{Name: "v", ID: "e1", Options: map[string]string{"server": "nfs1", "access": "single-node-writer"}})
		if err != nil || f.count("NodeStageVolume") != 0 || f.count("ControllerPublishVolume") != 0 {
			t.Fatal(path, err)
		}
		if q, ok := f.lastRequest().(*spec.NodePublishVolumeRequest); !ok || q.VolumeContext["server"] != "nfs1" || len(q.VolumeContext) != 1 || q.StagingTargetPath != "" {
			t.Errorf("asked for %v", q)
		}
		if _, err := d.List(bg); !fault.Is(err, fault.Invalid) {
			t.Errorf("list: %v", err)
		}
		if _, err := d.Snapshot(bg, "v", "", "s"); !fault.Is(err, fault.Invalid) {
			t.Errorf("snapshot: %v", err)
		}
		if _, err := d.Grow(bg, "v", "", mib); !fault.Is(err, fault.Invalid) {
			t.Errorf("grow: %v", err)
		}
		if err := d.Unmount(bg, "v", "e1"); err != nil || f.left() != "0 0 0" {
			t.Errorf("%v, left %s", err, f.left())
		}
		if err := d.Remove(bg, "v", ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("remove: %v", err)
		}
	})
	t.Run("controller only", func(t *testing.T) {
		f := newFake(t)
		f.restart(t, func() { f.noNode, f.local = true, false })
		d := f.open(t, t.TempDir(), func(o *Options) { o.Names = filepath.Join(f.dir, "names") })
		mustCreate(t, d)
		if _, err := d.Mount(bg, mountV); !fault.Is(err, fault.Invalid) || f.left() != "0 0 0" {
			t.Errorf("mount: %v, left %s", err, f.left())
		}
		if _, err := d.Snapshot(bg, "v", "", "s"); err != nil {
			t.Error(err)
		}
		if _, err := d.Usage(bg, "v"); !fault.Is(err, fault.Invalid) {
			t.Errorf("usage: %v", err)
		}
		if err := d.Remove(bg, "v", "uid-v"); err != nil {
			t.Error(err)
		}
	})
	t.Run("two sockets", func(t *testing.T) {
		f, g := newFake(t), newFake(t)
		f.restart(t, func() { f.noController = true })
		g.restart(t, func() { g.noNode = true })
		g.volumes, g.attached, g.staged = f.volumes, f.attached, f.staged
		g.mu = f.mu
		d := f.open(t, t.TempDir(), func(o *Options) { o.Controller = g.endpoint })
		mustCreate(t, d)
		os.Symlink(g.data(first(t, d)), f.data(first(t, d)))
		if _, err := d.Mount(bg, mountV); err != nil || g.count("ControllerPublishVolume") != 1 || f.count("NodePublishVolume") != 1 || f.count("ControllerPublishVolume") != 0 {
			t.Errorf("%v, %v and %v", err, f.calls, g.calls)
		}
		g.server.Stop()
		for end := time.Now().Add(5 * time.Second); ; {
			if err := d.Unmount(bg, "v", "e1"); fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Unknown) {
				break
			} else if time.Now().After(end) {
				t.Fatalf("the controller is away: %v", err)
			}
		}
		g.start(t)
		if err := d.Unmount(bg, "v", "e1"); err != nil || f.left() != "0 0 0" {
			t.Errorf("%v, left %s", err, f.left())
		}
	})
}

// TestSecretsByStage: what lies in a stage's directory goes with its calls and no others.
func TestSecretsByStage(t *testing.T) {
	f := newFake(t)
	secrets := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(secrets, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("all", "everywhere")
	for _, s := range []string{"provision", "attach", "stage", "publish", "expand", "node-expand", "snapshot"} {
		write(s+"/own", s)
	}
	write("stage/all", "instead")
	d := f.open(t, t.TempDir(), func(o *Options) { o.Secrets = secrets })
	sized(t, f, d)
	if _, err := d.Grow(bg, "v", "", 2*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mount(bg, mountV); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Snapshot(bg, "v", "", "s"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"CreateVolume": "provision", "ControllerExpandVolume": "expand", "ControllerPublishVolume": "attach", "NodeStageVolume": "stage",
		"NodePublishVolume": "publish", "NodeExpandVolume": "node-expand", "CreateSnapshot": "snapshot"}
	for i, m := range f.calls {
		q, ok := f.seen[i].(interface{ GetSecrets() map[string]string })
		if !ok {
			continue
		}
		all := "everywhere"
		if m == "NodeStageVolume" {
			all = "instead"
		}
		if got := q.GetSecrets(); got["own"] != want[m] || got["all"] != all || len(got) != 2 {
			t.Errorf("%s got %v", m, got)
		}
		delete(want, m)
	}
	if len(want) > 0 {
		t.Errorf("no secrets for %v", want)
	}
	write("typo/own", "x")
	if _, err := d.Snapshot(bg, "v", "", "t"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a stage that there is not: %v", err)
	}
}

// TestStepsAreNamed: the kill test comes by every step that there is.
func TestStepsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range csistage.CrashSteps {
		if seen[s] {
			t.Errorf("%s is there twice", s)
		}
		seen[s] = true
	}
	if len(seen) < 27 {
		t.Errorf("%d steps", len(seen))
	}
}

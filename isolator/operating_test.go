package isolator

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// modelDriver is a pool with all the powers of driver, in the plainest way: snapshots are copies in a directory beside.
type modelDriver struct {
	*pool.Pool
	dir   string // of the pool
	shots string

	mu    sync.Mutex
	sizes map[string]volume.Bytes
	// before is called in every call that changes something, and may fail it; lost fails it after it was done.
	before func(call string) error
	lost   func(call string) error
	calls  []string
}

func newModel(t *testing.T, dir string) *modelDriver {
	t.Helper()
	off := false
	p, err := pool.Open(pool.Options{Dir: dir, Scope: driver.ScopeCluster, Binds: &off})
	if err != nil {
		t.Fatal(err)
	}
	return &modelDriver{Pool: p, dir: dir, shots: t.TempDir(), sizes: map[string]volume.Bytes{}}
}

func (m *modelDriver) called(call string) error {
	m.mu.Lock()
	m.calls = append(m.calls, call)
	f := m.before
	m.mu.Unlock()
	if f != nil {
		return f(call)
	}
	return nil
}

func (m *modelDriver) after(call string) error {
	if m.lost != nil {
		return m.lost(call)
	}
	return nil
}

func (m *modelDriver) Facts(ctx context.Context) (driver.Facts, error) {
	f, err := m.Pool.Facts(ctx)
	f.Snapshots, f.Clones, f.Grows, f.Freeze = true, true, driver.GrowsOnline, false
	return f, err
}

func (m *modelDriver) data(name string) string { return filepath.Join(m.dir, name, "data") }

func copyTree(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	return exec.Command("cp", "-a", from+"/.", to).Run()
}

func (m *modelDriver) Create(ctx context.Context, s driver.Spec) (driver.Info, error) {
	if err := m.called("create"); err != nil {
		return driver.Info{}, err
	}
	from := s.Source
	s.Source = nil
	info, err := m.Pool.Create(ctx, s)
	if err == nil && from != nil {
		dir := m.data(from.Volume)
		if from.Snapshot != "" {
			dir = filepath.Join(m.shots, from.Volume+"@"+from.Snapshot)
		}
		err = copyTree(dir, m.data(s.Name))
	}
	if err == nil {
		err = m.after("create")
	}
	return info, err
}

func (m *modelDriver) Snapshot(_ context.Context, name, uid, snapshot string) (driver.SnapshotInfo, error) {
	if err := m.called("snapshot"); err != nil {
		return driver.SnapshotInfo{}, err
	}
	dir := filepath.Join(m.shots, name+"@"+snapshot)
	if _, err := os.Stat(dir); err != nil {
		if err := copyTree(m.data(name), dir); err != nil {
			return driver.SnapshotInfo{}, err
		}
	}
	return driver.SnapshotInfo{Volume: name, UID: uid, Name: snapshot, Ready: true}, m.after("snapshot")
}

func (m *modelDriver) RemoveSnapshot(_ context.Context, name, snapshot string) error {
	if err := m.called("remove-snapshot"); err != nil {
		return err
	}
	dir := filepath.Join(m.shots, name+"@"+snapshot)
	if _, err := os.Stat(dir); err != nil {
		return fault.New(fault.NotFound, "no such snapshot: %s", snapshot)
	}
	return os.RemoveAll(dir)
}

func (m *modelDriver) Snapshots(_ context.Context, name string) ([]driver.SnapshotInfo, error) {
	entries, err := os.ReadDir(m.shots)
	var out []driver.SnapshotInfo
	for _, e := range entries {
		if v, s, ok := strings.Cut(e.Name(), "@"); ok && (name == "" || v == name) {
			out = append(out, driver.SnapshotInfo{Volume: v, Name: s, Ready: true})
		}
	}
	return out, err
}

func (m *modelDriver) MountSnapshot(_ context.Context, name, snapshot, _ string) (string, error) {
	return filepath.Join(m.shots, name+"@"+snapshot), m.called("mount-snapshot")
}

func (m *modelDriver) UnmountSnapshot(context.Context, string, string, string) error {
	return m.called("unmount-snapshot")
}

func (m *modelDriver) Grow(ctx context.Context, name, uid string, size volume.Bytes) (driver.Growth, error) {
	if err := m.called("grow"); err != nil {
		return driver.Growth{}, err
	}
	info, err := m.Get(ctx, name)
	if err != nil || info.UID != uid {
		return driver.Growth{}, fault.New(fault.Conflict, "uid %s is not %s (%v)", info.UID, uid, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes[name] = size
	return driver.Growth{Size: size}, nil
}

func (m *modelDriver) Get(ctx context.Context, name string) (driver.Info, error) {
	info, err := m.Pool.Get(ctx, name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.sizes[name]; s > 0 && err == nil {
		info.Size = s
	}
	return info, err
}

func (m *modelDriver) Check(_ context.Context, name, _ string, repair bool) (bool, string, error) {
	return repair, "looked at " + name, m.called("check")
}

func (m *modelDriver) Usage(context.Context, string) (driver.Usage, error) {
	return driver.Usage{Size: 100, Used: 90, Available: 10}, nil
}

// modelNode is a node over the model driver.
func (c *cluster) modelNode(change ...func(*Options)) (*node, *modelDriver) {
	c.Helper()
	m := newModel(c.T, c.pool)
	return c.node(append([]func(*Options){func(o *Options) { o.Drivers = []driver.Driver{m} }}, change...)...), m
}

// operate begins an operation and waits for its end.
func (n *node) operate(r client.OperationRequest) (client.Operation, error) {
	n.c.Helper()
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	o, err := n.Operate(ctx, r)
	if err != nil {
		return o, err
	}
	if !o.Over() {
		if o, err = n.Operation(ctx, o.ID, 10*time.Second); err != nil {
			n.c.Fatal(err)
		}
	}
	if !o.Over() {
		n.c.Fatalf("operation is not over: %+v", o)
	}
	return o, o.Err()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func wantClass(t *testing.T, err error, class fault.Class, words ...string) {
	t.Helper()
	if !fault.Is(err, class) {
		t.Fatalf("error is %v (%s), want class %s", err, fault.ClassOf(err), class)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// An operation on a volume that nobody has takes the claim and gives it back; at the holder it runs where the volume is mounted; elsewhere
// it is refused and the holder named.
func TestOperationTakesTheClaim(t *testing.T) {
	c := newCluster(t)
	a, m := c.modelNode()
	b, _ := c.modelNode(func(o *Options) { o.Hostname = "other" })
	uid, ref := c.volume(a, "v")
	write(t, filepath.Join(m.dir, "v", "data", "f"), "one")

	var during lease.Claim
	m.before = func(call string) error {
		if call == "snapshot" {
			during = c.state(uid)
		}
		return nil
	}
	o, err := a.operate(client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	if during.State != lease.Held || during.Node != a.NodeUID() || !strings.HasPrefix(during.Owner, "snapshot:") {
		t.Errorf("during the snapshot the claim was %+v", during)
	}
	c.wantState(uid, lease.Free)
	if s := o.Result.Snapshot; s == nil || s.Name != "s1" || s.Volume != "v" || s.UID != uid {
		t.Errorf("result %+v", o.Result)
	}

	if _, err := a.Mount(bg, MountRequest{Ref: ref, Options: c.grant(a, uid)}); err != nil {
		t.Fatal(err)
	}
	epoch := c.state(uid).Epoch
	if _, err := a.operate(client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s2"}); err != nil {
		t.Fatal(err)
	}
	if got := c.state(uid); got.State != lease.Held || got.Epoch != epoch {
		t.Errorf("the holder's snapshot changed the claim to %+v", got)
	}
	_, err = b.operate(client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s3"})
	wantClass(t, err, fault.Conflict, "held by node test ("+a.NodeUID()+")")
	_, err = a.operate(client.OperationRequest{Kind: client.OpCheck, Driver: "pool", Name: "v"})
	wantClass(t, err, fault.Conflict, "stop what uses it")
}

func TestSnapshotsCloneResizeCheckUsage(t *testing.T) {
	c := newCluster(t)
	n, m := c.modelNode()
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, "f"), "one")
	do := func(r client.OperationRequest) client.Operation {
		t.Helper()
		r.Driver = "pool"
		o, err := n.operate(r)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	do(client.OperationRequest{Kind: client.OpSnapshot, Name: "v", Snapshot: "s1"})
	write(t, filepath.Join(path, "f"), "two")
	if got := do(client.OperationRequest{Kind: client.OpSnapshots, Name: "v"}).Result.Snapshots; len(got) != 1 || got[0].Name != "s1" {
		t.Errorf("snapshots %+v", got)
	}

	made := do(client.OperationRequest{Kind: client.OpClone, Name: "v", Snapshot: "s1", Target: &client.TargetVolume{Name: "old"}}).Result.Volume
	if made.UID == "" || made.UID == uid || made.Name != "old" {
		t.Errorf("clone is %+v", made)
	}
	if got := read(t, filepath.Join(m.dir, "old", "data", "f")); got != "one" {
		t.Errorf("the clone of the snapshot has %q", got)
	}
	c.wantState(made.UID, lease.Free)
	// Of the volume as it is now, which is mounted: through a snapshot that goes again.
	do(client.OperationRequest{Kind: client.OpClone, Name: "v", Target: &client.TargetVolume{Name: "new"}})
	if got := read(t, filepath.Join(m.dir, "new", "data", "f")); got != "two" {
		t.Errorf("the clone has %q", got)
	}
	if got := do(client.OperationRequest{Kind: client.OpSnapshots, Name: "v"}).Result.Snapshots; len(got) != 1 {
		t.Errorf("the clone's snapshot is left over: %+v", got)
	}
	_, err = n.operate(client.OperationRequest{Kind: client.OpClone, Driver: "pool", Name: "v", Target: &client.TargetVolume{Name: "new"}})
	wantClass(t, err, fault.Exists, "there is one of that name already")

	if g := do(client.OperationRequest{Kind: client.OpResize, Name: "v", SizeBytes: 5 << 30}).Result.Growth; g.SizeBytes != 5<<30 {
		t.Errorf("growth %+v", g)
	}
	_, err = n.operate(client.OperationRequest{Kind: client.OpResize, Driver: "pool", Name: "v", SizeBytes: 1 << 30})
	wantClass(t, err, fault.Invalid, "never made smaller")
	if u := do(client.OperationRequest{Kind: client.OpUsage, Name: "v"}).Result.Usage; u.UsedBytes != 90 {
		t.Errorf("usage %+v", u)
	}
	if o := do(client.OperationRequest{Kind: client.OpCheck, Name: "old", Repair: true}); o.Result.Clean == nil || !*o.Result.Clean || o.Result.Outcome != "clean" {
		t.Errorf("check %+v", o.Result)
	}
	do(client.OperationRequest{Kind: client.OpRemoveSnapshot, Name: "v", Snapshot: "s1"})
	_, err = n.operate(client.OperationRequest{Kind: client.OpRemoveSnapshot, Driver: "pool", Name: "v", Snapshot: "s1"})
	wantClass(t, err, fault.NotFound)
	_, err = n.operate(client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "nowhere", Snapshot: "s1"})
	wantClass(t, err, fault.NotFound)
	_, err = n.operate(client.OperationRequest{Kind: client.OpResize, Driver: "pool", Name: "v", UID: uuid.NewString(), SizeBytes: 9 << 30})
	wantClass(t, err, fault.Conflict, "another volume now")
}

// An operation goes on without its caller, and asking again joins it: by its id, and by its words.
func TestOperationIsJoined(t *testing.T) {
	c := newCluster(t)
	n, m := c.modelNode()
	c.volume(n, "v")
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	m.before = func(call string) error {
		if call == "snapshot" {
			begun <- struct{}{}
			<-goOn
		}
		return nil
	}
	r := client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s1"}
	first, err := n.Operate(bg, r)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	second, err := n.Operate(bg, r)
	if err != nil || second.ID != first.ID {
		t.Errorf("asked again: %+v %v, want operation %s", second, err, first.ID)
	}
	r.ID = first.ID
	if third, err := n.Operate(bg, r); err != nil || third.ID != first.ID {
		t.Errorf("asked by id: %+v %v", third, err)
	}
	r.Snapshot = "s2"
	if _, err := n.Operate(bg, r); !fault.Is(err, fault.Conflict) {
		t.Errorf("another operation under that id: %v", err)
	}
	close(goOn)
	if o, err := n.Operation(bg, first.ID, 10*time.Second); err != nil || o.State != client.OperationDone {
		t.Fatalf("%+v %v", o, err)
	}
	if len(begun) != 0 {
		t.Error("it was done twice")
	}
}

// What was under way when the isolator ended is done by the next, once: the claim is given back, the clone has the uid that was recorded.
func TestOperationsAreResumed(t *testing.T) {
	for _, step := range []string{"snapshot", "create", "grow"} {
		t.Run(step, func(t *testing.T) {
			c := newCluster(t)
			n, m := c.modelNode()
			uid, _ := c.volume(n, "v")
			stopped := make(chan struct{})
			m.before = func(call string) error {
				if call == step {
					<-stopped
					return fault.New(fault.Unknown, "the process ended")
				}
				return nil
			}
			r := map[string]client.OperationRequest{
				"snapshot": {Kind: client.OpSnapshot, Snapshot: "s1"},
				"create":   {Kind: client.OpClone, Target: &client.TargetVolume{Name: "w"}},
				"grow":     {Kind: client.OpResize, SizeBytes: 3 << 30},
			}[step]
			r.Driver, r.Name = "pool", "v"
			o, err := n.Operate(bg, r)
			if err != nil {
				t.Fatal(err)
			}
			c.eventually("the driver is asked", func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return len(m.calls) > 1
			})
			go func() { time.Sleep(50 * time.Millisecond); close(stopped) }()
			n.stop()
			m.before = nil
			n.start(func(opts *Options) { opts.Drivers = []driver.Driver{m} })
			if o, err = n.Operation(bg, o.ID, 10*time.Second); err != nil || o.State != client.OperationDone {
				t.Fatalf("after the restart: %+v %v", o, err)
			}
			c.wantState(uid, lease.Free)
			if step == "create" {
				c.wantState(o.Result.Volume.UID, lease.Free)
				if info, err := m.Get(bg, "w"); err != nil || info.UID != o.Result.Volume.UID {
					t.Errorf("the clone is %+v %v, want uid %s", info, err, o.Result.Volume.UID)
				}
			}
		})
	}
}

// A reply that was lost after the effect is found out, not reported.
func TestOperationReplyLost(t *testing.T) {
	c := newCluster(t)
	n, m := c.modelNode()
	c.volume(n, "v")
	times := 0
	m.lost = func(call string) error {
		if times++; times == 1 {
			return fault.New(fault.Unknown, "the reply to %s was lost", call)
		}
		return nil
	}
	if _, err := n.operate(client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s1"}); err != nil {
		t.Fatal(err)
	}
	times = 0
	o, err := n.operate(client.OperationRequest{Kind: client.OpClone, Driver: "pool", Name: "v", Target: &client.TargetVolume{Name: "w"}})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := m.Get(bg, "w"); err != nil || info.UID != o.Result.Volume.UID {
		t.Errorf("%+v %v", info, err)
	}
}

// A volume that was removed comes back from the bin with a new uid, for its old one is over for good.
func TestUndelete(t *testing.T) {
	c := newCluster(t)
	n, _ := c.modelNode()
	uid, ref := c.volume(n, "v")
	write(t, filepath.Join(c.pool, "v", "data", "f"), "one")
	if err := n.Remove(bg, ref); err != nil {
		t.Fatal(err)
	}
	o, err := n.operate(client.OperationRequest{Kind: client.OpBin})
	if err != nil || len(o.Result.Bin) != 1 || o.Result.Bin[0].UID != uid {
		t.Fatalf("bin %+v %v", o.Result, err)
	}
	if o, err = n.operate(client.OperationRequest{Kind: client.OpUndelete, Driver: "pool", Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if now := o.Result.Volume.UID; now == uid || now == "" {
		t.Errorf("it has uid %q again", now)
	}
	c.wantState(o.Result.Volume.UID, lease.Free)
	path, err := n.Mount(bg, MountRequest{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(path, "f")); got != "one" {
		t.Errorf("it has %q", got)
	}
	_, err = n.operate(client.OperationRequest{Kind: client.OpUndelete, Driver: "pool", Name: "v"})
	wantClass(t, err, fault.NotFound, "the bin has no volume v")
}

// Cancelled operations end, and say so; a full disk begins none.
func TestOperationCancelled(t *testing.T) {
	c := newCluster(t)
	n, m := c.modelNode()
	uid, _ := c.volume(n, "v")
	m.before = func(call string) error {
		if call == "snapshot" {
			return fault.New(fault.Unknown, "no answer")
		}
		return nil
	}
	o, err := n.Operate(bg, client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	c.eventually("it is repeated, and says why", func() bool {
		now, _ := n.Operation(bg, o.ID, 0)
		return strings.Contains(now.Because, "no answer")
	})
	if err := n.CancelOperation(o.ID); err != nil {
		t.Fatal(err)
	}
	if o, err = n.Operation(bg, o.ID, 10*time.Second); err != nil || o.State != client.OperationFailed || !strings.Contains(o.Message, "cancelled") {
		t.Errorf("%+v %v", o, err)
	}
	c.eventually("the claim is free", func() bool { return c.state(uid).State == lease.Free })
}

// What the framework asks for is done and answered in the request's own record.
func TestOperationRequest(t *testing.T) {
	c := newCluster(t)
	n, _ := c.modelNode()
	uid, ref := c.volume(n, "v")
	got := c.request(n, lease.Request{Kind: lease.RequestOperation, VolumeUID: uid, Ref: ref, Operation: []byte(`{"kind":"snapshot","driver":"pool","name":"v","snapshot":"s1"}`)})
	if got.State != lease.RequestDone || got.Outcome != "snapshotted" || !strings.Contains(string(got.Result), `"name":"s1"`) {
		t.Errorf("%+v", got)
	}
	got = c.request(n, lease.Request{Kind: lease.RequestOperation, VolumeUID: uid, Ref: ref, Operation: []byte(`{"kind":"snapshot","driver":"pool","name":"v"}`)})
	if got.State != lease.RequestFailed || got.Class != string(fault.Invalid) || !strings.Contains(got.Error, "snapshot is missing") {
		t.Errorf("%+v", got)
	}
	target := timeID()
	if _, err := c.auth.Create(bg, target, volume.Ref{Driver: "pool", Name: "w"}, softLease, false); err != nil {
		t.Fatal(err)
	}
	got = c.request(n, lease.Request{Kind: lease.RequestOperation, VolumeUID: uid, Ref: ref,
		Operation: []byte(`{"kind":"clone","driver":"pool","name":"v","target":{"name":"w","uid":"` + target + `"}}`)})
	if got.State != lease.RequestDone || !strings.Contains(string(got.Result), target) {
		t.Errorf("%+v", got)
	}
	if info, err := n.Get(bg, volume.Ref{Driver: "pool", Name: "w"}); err != nil || info.UID != target {
		t.Errorf("%+v %v", info, err)
	}
}

// A node tells of a volume that is nearly full once it comes to a level, and again when it leaves it; not of every byte.
func TestNearlyFull(t *testing.T) {
	c := newCluster(t)
	n, _ := c.modelNode(func(o *Options) { o.Limits.Measure = 20 * time.Millisecond })
	uid, ref := c.volume(n, "v")
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Fatal(err)
	}
	full := func() []lease.VolumeFull {
		nodes, err := c.auth.Nodes(bg)
		if err != nil || len(nodes) != 1 {
			t.Fatal(nodes, err)
		}
		return nodes[0].Full
	}
	c.eventually("the node's record says so", func() bool { return len(full()) == 1 })
	if f := full()[0]; f.Volume != uid || f.Level != "nearly-full" || f.Used != 90 {
		t.Errorf("%+v", f)
	}
	st := n.Status()
	if len(st.Volumes) != 1 || st.Volumes[0].Level != "nearly-full" || st.Volumes[0].Usage.UsedBytes != 90 {
		t.Errorf("%+v", st.Volumes)
	}
	if _, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	c.eventually("it is no more", func() bool { return len(full()) == 0 })
}

// A removal that is to be for good leaves nothing in the bin of that volume, and all that was there of others of its name.
func TestRemoveNow(t *testing.T) {
	c := newCluster(t)
	n, _ := c.modelNode()
	first, ref := c.volume(n, "v")
	if err := n.Remove(bg, ref); err != nil {
		t.Fatal(err)
	}
	second, _ := c.volume(n, "v")
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	wantClass(t, n.RemoveNow(bg, ref), fault.Conflict, "")
	if _, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	if err := n.RemoveNow(bg, ref); err != nil {
		t.Fatal(err)
	}
	if !c.state(second).Tombstone {
		t.Error("no tombstone")
	}
	o, err := n.operate(client.OperationRequest{Kind: client.OpBin})
	if err != nil || len(o.Result.Bin) != 1 || o.Result.Bin[0].UID != first {
		t.Errorf("bin %+v %v, want %s alone", o.Result, err, first)
	}
	if err := n.RemoveNow(bg, ref); err != nil { // there is none of that name any more
		t.Errorf("again: %v", err)
	}
	if o, err = n.operate(client.OperationRequest{Kind: client.OpBin}); err != nil || len(o.Result.Bin) != 1 {
		t.Errorf("a removal of nothing has emptied the bin: %+v %v", o.Result, err)
	}
	third, _ := c.volume(n, "v") // by the framework's word
	for _, want := range []string{"removed", "absent"} {
		if r := c.request(n, lease.Request{Kind: lease.RequestRemove, VolumeUID: third, Ref: ref, Now: true}); r.Outcome != want {
			t.Errorf("request: %+v", r)
		}
	}
	if o, err = n.operate(client.OperationRequest{Kind: client.OpBin}); err != nil || len(o.Result.Bin) != 1 {
		t.Errorf("bin %+v %v", o.Result, err)
	}
}

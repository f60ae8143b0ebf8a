package isolator

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap/zaptest"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/identity"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
)

// cluster is an authority and a pool that several nodes share.
type cluster struct {
	*testing.T
	server *embedded.Server
	auth   *lease.Authority
	pool   string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	srv, err := embedded.Open(filepath.Join(t.TempDir(), "authority"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	c := &cluster{T: t, server: srv, auth: lease.New(srv.Registers(), lease.Options{}), pool: t.TempDir()}
	if _, err := c.auth.Init(context.Background(), uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	return c
}

// fakeFence models users: a set of paths that somebody uses.
type fakeFence struct {
	mu     sync.Mutex
	users  map[string]bool
	fenced []string
	stuck  bool
}

func (f *fakeFence) use(path string, on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users == nil {
		f.users = map[string]bool{}
	}
	f.users[path] = on
}

func (f *fakeFence) Users(_ context.Context, targets ...fence.Target) (map[string]fence.Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]fence.Usage{}
	for _, t := range targets {
		if f.users[t.Path] {
			out[t.Path] = fence.Usage{Users: []fence.Process{{PID: 4711, Command: "postgres", How: "fd 3"}}}
		}
	}
	return out, nil
}

func (f *fakeFence) Run(_ context.Context, targets ...fence.Target) []fence.Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []fence.Report
	for _, t := range targets {
		f.fenced = append(f.fenced, t.Path)
		if !f.stuck {
			delete(f.users, t.Path)
		}
		out = append(out, fence.Report{Target: t, Fenced: !f.stuck, Err: map[bool]string{true: "a user does not die"}[f.stuck]})
	}
	return out
}

func (f *fakeFence) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.fenced)
}

// fakeState is the shared memory of a watchdog that does not exist.
type fakeState struct {
	mu         sync.Mutex
	generation uint64
	deadline   time.Duration
	mounts     []fence.Target
	dead       bool // no watchdog makes its rounds
	pending    int
}

func (f *fakeState) SetPending(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = n
}

func (f *fakeState) SetDeadline(g uint64, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.generation, f.deadline = g, d
}

func (f *fakeState) Deadline() (uint64, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.generation, f.deadline
}

func (f *fakeState) SetMounts(raws []json.RawMessage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mounts = nil
	for _, raw := range raws {
		var t fence.Target
		if err := json.Unmarshal(raw, &t); err != nil {
			return err
		}
		f.mounts = append(f.mounts, t)
	}
	return nil
}

func (f *fakeState) WatchdogAlive() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.dead
}

func (f *fakeState) setDead(dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = dead
}

func (f *fakeState) Drain()       {}
func (f *fakeState) Close() error { return nil }

// quick makes deadlines that a test can wait for.
func quick(o *Options) {
	o.Timings = lease.Timings{P: 50 * time.Millisecond, R: 50 * time.Millisecond, F: 400 * time.Millisecond, S: 100 * time.Millisecond, M: 50 * time.Millisecond, W: 500 * time.Millisecond}
}

// node is one isolator in this process.
type node struct {
	*Service
	c     *cluster
	dir   string
	fence *fakeFence
	state *fakeState
	boot  string
	cut   *cutRegisters
	stop  func()
}

func (c *cluster) node(change ...func(*Options)) *node {
	c.Helper()
	n := &node{c: c, dir: c.TempDir(), fence: &fakeFence{}, state: &fakeState{}, boot: uuid.NewString()}
	n.start(change...)
	return n
}

func (n *node) start(change ...func(*Options)) {
	n.c.Helper()
	t := n.c.T
	off := false
	p, err := pool.Open(pool.Options{Dir: n.c.pool, Scope: driver.ScopeCluster, Binds: &off})
	if err != nil {
		t.Fatal(err)
	}
	n.cut = &cutRegisters{Registers: n.c.server.Registers()}
	o := Options{Dir: n.dir, Authority: lease.New(n.cut, lease.Options{CallLimit: 200 * time.Millisecond}), Drivers: []driver.Driver{p}, Timings: lease.EmbeddedTimings(), Clock: lease.Monotonic(),
		BootID: n.boot, Log: zaptest.NewLogger(t, zaptest.Level(logLevel)), Describe: Describe{Hostname: "test"}, Watchdog: []string{"none"},
		Limits: Limits{UsersMount: 300 * time.Millisecond, UsersLeave: 200 * time.Millisecond, RetryMin: 20 * time.Millisecond, RetryMax: 100 * time.Millisecond, Authority: time.Second, Audit: 50 * time.Millisecond},
		fencer: n.fence, state: n.state}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	n.Service = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	stopped := false
	n.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-done
			s.Close()
		}
	}
	t.Cleanup(n.stop)
	select {
	case <-s.Ready():
	case <-time.After(10 * time.Second):
		t.Fatalf("isolator is not ready: %v", s.problemList())
	}
}

// cutRegisters lets a test cut a node from the authority.
type cutRegisters struct {
	lease.Registers
	mu  sync.Mutex
	off bool
}

func (c *cutRegisters) cut(off bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = off
}

func (c *cutRegisters) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.off {
		return fault.New(fault.Unavailable, "cut off")
	}
	return nil
}

func (c *cutRegisters) Get(ctx context.Context, key string) (lease.Entry, error) {
	if err := c.err(); err != nil {
		return lease.Entry{}, err
	}
	return c.Registers.Get(ctx, key)
}

func (c *cutRegisters) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.Registers.List(ctx, prefix)
}

func (c *cutRegisters) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.Registers.Txn(ctx, ops...)
}

var bg = context.Background()

var softLease = lease.Policy{Mode: lease.PolicyLease, MinGrade: lease.GradeSoft}

// volume makes a claim and, by a request, the volume.
func (c *cluster) volume(n *node, name string) (uid string, ref volume.Ref) {
	c.Helper()
	uid, ref = timeID(), volume.Ref{Driver: "pool", Name: name}
	if _, err := c.auth.Create(bg, uid, ref, softLease, false); err != nil {
		c.Fatal(err)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref, SizeBytes: 1 << 30}); r.Outcome != "created" {
		c.Fatalf("create: %+v", r)
	}
	return uid, ref
}

// request asks a node and waits for the outcome.
func (c *cluster) request(n *node, r lease.Request) lease.Request {
	c.Helper()
	r.Op = uuid.NewString()
	if _, err := c.auth.PutRequest(bg, n.NodeUID(), r); err != nil {
		c.Fatal(err)
	}
	var got lease.Request
	c.eventually("request is answered", func() bool {
		all, err := c.auth.Requests(bg, n.NodeUID())
		if err != nil {
			c.Fatal(err)
		}
		for _, x := range all {
			if x.Op == r.Op && x.State != lease.RequestPending {
				got = x.Request
				return true
			}
		}
		return false
	})
	return got
}

func (c *cluster) eventually(what string, f func() bool) {
	c.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	c.Fatalf("not so after 10 s: %s", what)
}

// grant does L1 for a node and gives the mount options.
func (c *cluster) grant(n *node, uid string) map[string]string {
	c.Helper()
	claim, err := c.auth.Claim(bg, uid)
	if err != nil {
		c.Fatal(err)
	}
	g := volume.Grant{VolumeUID: uid, Epoch: claim.Epoch + 1, Nonce: uuid.NewString(), Task: "task", MustExist: true}
	if _, err := c.auth.Grant(bg, lease.GrantArgs{VolumeUID: uid, Epoch: g.Epoch, Node: n.NodeUID(), Agent: "a", Nonce: g.Nonce, Policy: softLease, Owner: "task"}); err != nil {
		c.Fatal(err)
	}
	return g.Encode(nil)
}

func (c *cluster) state(uid string) lease.Claim {
	c.Helper()
	claim, err := c.auth.Claim(bg, uid)
	if err != nil {
		c.Fatal(err)
	}
	return claim.Claim
}

func (c *cluster) wantState(uid string, want lease.ClaimState) {
	c.Helper()
	if got := c.state(uid); got.State != want {
		c.Fatalf("claim is %s (epoch %d), want %s", got.State, got.Epoch, want)
	}
}

func TestMountUnderGrant(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	opts := c.grant(n, uid)
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	if path != filepath.Join(c.pool, "v", "data") {
		t.Errorf("path %s", path)
	}
	c.wantState(uid, lease.Held)
	if len(n.state.mounts) != 1 || n.state.mounts[0].Path != path {
		t.Errorf("the watchdog knows %+v", n.state.mounts)
	}
	// Mesos mounts again for the second container of a pod, and unmounts once.
	if again, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts}); err != nil || again != path {
		t.Errorf("again: %s %v", again, err)
	}
	if out, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil || out != Unmounted {
		t.Fatalf("unmount: %s %v", out, err)
	}
	c.wantState(uid, lease.Free)
	if len(n.state.mounts) != 0 {
		t.Errorf("the watchdog still knows %+v", n.state.mounts)
	}
	if out, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil || out != NotMounted {
		t.Errorf("unmount twice: %s %v", out, err)
	}
	// The epoch is over: the same options mount nothing any more.
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts}); !fault.Is(err, fault.Conflict) {
		t.Errorf("old grant: %v", err)
	}
}

func TestMountRefused(t *testing.T) {
	c := newCluster(t)
	n, other := c.node(), c.node()
	uid, ref := c.volume(n, "v")
	opts := c.grant(other, uid)
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts}); !fault.Is(err, fault.Conflict) {
		t.Errorf("grant of another node: %v", err)
	}
	c.wantState(uid, lease.Granted)
	for name, ref := range map[string]volume.Ref{"name": {Driver: "pool", Name: "../x"}, "driver": {Driver: "a b", Name: "x"}, "other ref": {Driver: "pool", Name: "w"}} {
		if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts}); err == nil {
			t.Errorf("%s: mounted", name)
		}
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: map[string]string{"holdfast.epoch": "1"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("half a grant: %v", err)
	}
	if _, err := other.Mount(bg, MountRequest{Ref: ref, Options: opts}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); !fault.Is(err, fault.Conflict) {
		t.Errorf("without a grant while another holds: %v", err)
	}
	if err := n.Remove(bg, ref); !fault.Is(err, fault.Conflict) {
		t.Errorf("remove while another holds: %v", err)
	}
}

// Promise 2: a volume that is gone is not made anew, and the claim is given back.
// Who comes with another epoch than the one that is mounted is not let in, whatever the journal shows.
func TestOtherEpoch(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	options := c.grant(n, uid)
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: options}); err != nil {
		t.Fatal(err)
	}
	for _, change := range []map[string]string{{"holdfast.epoch": "7"}, {"holdfast.nonce": "another"}} {
		other := maps.Clone(options)
		maps.Copy(other, change)
		if path, err := n.Mount(bg, MountRequest{Ref: ref, Options: other}); !fault.Is(err, fault.Conflict) {
			t.Errorf("with %v: %q %v", change, path, err)
		}
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: options}); err != nil {
		t.Errorf("again as it is: %v", err)
	}
}

func TestMustExist(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	if err := os.RemoveAll(filepath.Join(c.pool, "v")); err != nil {
		t.Fatal(err)
	}
	_, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "pool/v") {
		t.Errorf("mount: %v", err)
	}
	c.wantState(uid, lease.Free)
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); !fault.Is(err, fault.NotFound) {
		t.Errorf("mount by hand: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.pool, "v")); !os.IsNotExist(err) {
		t.Error("something was created")
	}
	// An empty volume in its place is not taken for it either.
	if _, err := n.drivers["pool"].Create(bg, driver.Spec{Name: "v", UID: "another"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); !fault.Is(err, fault.Conflict) {
		t.Errorf("wrong volume: %v", err)
	}
	c.wantState(uid, lease.Free)
}

// A mount that cannot name its grant takes the one that waits for this node; one for another node it does not.
func TestTakeGrant(t *testing.T) {
	c := newCluster(t)
	n, other := c.node(), c.node()
	uid, ref := c.volume(n, "v")
	grant := c.grant(n, uid)
	if _, err := other.Mount(bg, MountRequest{Ref: ref, Owner: "docker:1", TakeGrant: true}); !fault.Is(err, fault.Conflict) {
		t.Fatalf("another node's grant: %v", err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Owner: "docker:1"}); !fault.Is(err, fault.Conflict) {
		t.Fatalf("without leave to take it: %v", err)
	}
	path, err := n.Mount(bg, MountRequest{Ref: ref, Owner: "docker:1", TakeGrant: true})
	if err != nil {
		t.Fatal(err)
	}
	if claim := c.state(uid); claim.State != lease.Held || claim.Node != n.NodeUID() || grant["holdfast.nonce"] != claim.Nonce {
		t.Errorf("claim %+v, granted %v", claim, grant)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Owner: "docker:2", TakeGrant: true}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second container: %v", err)
	}
	if again, err := n.Mount(bg, MountRequest{Ref: ref, Owner: "docker:1", TakeGrant: true}); err != nil || again != path {
		t.Errorf("the same container again: %s %v", again, err)
	}
	if out, err := n.Unmount(bg, UnmountRequest{Ref: ref, Owner: "docker:1"}); err != nil || out != Unmounted {
		t.Fatalf("unmount: %s %v", out, err)
	}
	c.wantState(uid, lease.Free)
}

func TestSelfClaim(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	ref := volume.Ref{Driver: "pool", Name: "stock"}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, ExplicitCreate: true}); !fault.Is(err, fault.NotFound) {
		t.Fatalf("explicit create: %v", err)
	}
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: map[string]string{"size": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	claim, err := c.auth.ClaimByRef(bg, ref)
	if err != nil || claim.State != lease.Held || claim.Epoch != 1 {
		t.Fatalf("claim %+v %v", claim, err)
	}
	// The next container comes while the first still dies.
	n.fence.use(path, true)
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "postgres") {
		t.Errorf("with users: %v", err)
	}
	n.fence.use(path, false)
	if again, err := n.Mount(bg, MountRequest{Ref: ref}); err != nil || again != path {
		t.Fatalf("re-key: %s %v", again, err)
	}
	if claim := c.state(claim.VolumeUID); claim.Epoch != 2 || claim.State != lease.Held {
		t.Errorf("after re-key: %+v", claim)
	}
	n.state.mu.Lock()
	if told := n.state.mounts; len(told) != 1 || told[0].Epoch != 2 || told[0].Path != path {
		t.Errorf("after re-key the watchdog was told of %+v", told)
	}
	n.state.mu.Unlock()
	if out, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil || out != Unmounted {
		t.Fatalf("unmount: %s %v", out, err)
	}
	c.wantState(claim.VolumeUID, lease.Free)
	if err := n.Remove(bg, ref); err != nil {
		t.Fatal(err)
	}
	if !c.state(claim.VolumeUID).Tombstone {
		t.Error("no tombstone")
	}
	// Removed on a person's word: the name is as good as new.
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); err != nil {
		t.Errorf("after removal: %v", err)
	}
}

// A bad option must not leave a claim of a volume that was never made.
// A volume that this node has had is not made anew when the authority does not know it any more and the storage has lost it.
func TestNotMadeAgain(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	ref := volume.Ref{Driver: "pool", Name: "stock"}
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil {
		t.Fatal(err)
	}
	claim, err := c.auth.ClaimByRef(bg, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.auth.Tombstone(bg, claim.VolumeUID); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.pool, "stock")); err != nil {
		t.Fatal(err)
	}
	if path, err := n.Mount(bg, MountRequest{Ref: ref}); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "had it before") {
		t.Errorf("mounted at %q: %v", path, err)
	}
}

func TestSelfClaimCreateFails(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	ref := volume.Ref{Driver: "pool", Name: "bad"}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: map[string]string{"iops": "5"}}); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref}); err != nil {
		t.Errorf("then without it: %v", err)
	}
}

func TestUnmountWithUsers(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	out, err := n.Unmount(bg, UnmountRequest{Ref: ref})
	if err != nil || out != Retrying {
		t.Fatalf("unmount: %s %v", out, err)
	}
	c.wantState(uid, lease.Held)
	st := n.Status()
	if len(st.Volumes) != 1 || st.Volumes[0].Retry == 0 || !strings.Contains(st.Volumes[0].Because, "postgres") {
		t.Errorf("status %+v", st.Volumes)
	}
	n.fence.use(path, false)
	c.eventually("claim is free", func() bool { return c.state(uid).State == lease.Free })
	c.eventually("nothing left to do", func() bool { return len(n.Status().Volumes) == 0 })
}

func TestLateUnmount(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	early := time.Duration(identity.BootClock()) - time.Second
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Unmount(bg, UnmountRequest{Ref: ref, Caller: Caller{PID: 1, Started: early}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("late unmount: %v", err)
	}
	c.wantState(uid, lease.Held)
	if _, err := n.Unmount(bg, UnmountRequest{Ref: ref, Caller: Caller{PID: 1, Started: time.Duration(identity.BootClock())}}); err != nil {
		t.Error(err)
	}
}

func TestOwners(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	opts := c.grant(n, uid)
	for _, owner := range []string{"", "docker:1", "docker:2"} {
		if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts, Owner: owner}); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ owner, want string }{{"docker:1", Kept}, {"docker:1", Kept}, {"", Kept}, {"docker:2", Unmounted}} {
		if out, err := n.Unmount(bg, UnmountRequest{Ref: ref, Owner: step.owner}); err != nil || out != step.want {
			t.Errorf("unmount by %q: %s %v", step.owner, out, err)
		}
	}
	c.wantState(uid, lease.Free)
}

func TestShared(t *testing.T) {
	c := newCluster(t)
	a, b := c.node(), c.node()
	uid, ref := timeID(), volume.Ref{Driver: "pool", Name: "shared"}
	if _, err := c.auth.Create(bg, uid, ref, softLease, true); err != nil {
		t.Fatal(err)
	}
	if r := c.request(a, lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref}); r.Outcome != "created" {
		t.Fatalf("%+v", r)
	}
	g := volume.Grant{VolumeUID: uid, Epoch: 1, Nonce: "n", MustExist: true}
	for _, n := range []*node{a, b} {
		if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: g.Encode(nil)}); err != nil {
			t.Error(err)
		}
		if _, err := n.Mount(bg, MountRequest{Ref: ref}); err != nil {
			t.Errorf("by hand: %v", err)
		}
	}
	c.wantState(uid, lease.Free)
	if out, err := a.Unmount(bg, UnmountRequest{Ref: ref}); err != nil || out != Unmounted {
		t.Errorf("unmount: %s %v", out, err)
	}
}

func TestRequests(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	if r := c.request(n, lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref}); r.Outcome != "created" {
		t.Errorf("create again: %+v", r)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestCreate, VolumeUID: timeID(), Ref: volume.Ref{Driver: "pool", Name: "w"}}); r.State != lease.RequestFailed {
		t.Errorf("create without a claim: %+v", r)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Fatal(err)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestRemove, VolumeUID: uid, Ref: ref}); r.State != lease.RequestFailed || r.Class != string(fault.Conflict) {
		t.Errorf("remove while mounted: %+v", r)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestRelease, VolumeUID: uid, Ref: ref}); r.Outcome != "released" {
		t.Errorf("release: %+v", r)
	}
	c.wantState(uid, lease.Free)
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	if r := c.request(n, lease.Request{Kind: lease.RequestRelease, VolumeUID: uid, Ref: ref}); r.Class != string(fault.Conflict) {
		t.Errorf("release with users: %+v", r)
	}
	c.wantState(uid, lease.Held)
	if r := c.request(n, lease.Request{Kind: lease.RequestFence, VolumeUID: uid, Ref: ref}); r.Outcome != "released" {
		t.Errorf("fence: %+v", r)
	}
	c.wantState(uid, lease.Free)
	if r := c.request(n, lease.Request{Kind: lease.RequestRemove, VolumeUID: uid, Ref: ref}); r.Outcome != "removed" {
		t.Errorf("remove: %+v", r)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestRemove, VolumeUID: uid, Ref: ref}); r.Outcome != "absent" {
		t.Errorf("remove again: %+v", r)
	}
	if r := c.request(n, lease.Request{Kind: "dance", VolumeUID: uid, Ref: ref}); r.Class != string(fault.Invalid) {
		t.Errorf("unknown kind: %+v", r)
	}
}

func TestAdopt(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	ref := volume.Ref{Driver: "pool", Name: "old"}
	if _, err := n.drivers["pool"].Create(bg, driver.Spec{Name: "old", UID: "before"}); err != nil {
		t.Fatal(err)
	}
	uid := timeID()
	if _, err := c.auth.Create(bg, uid, ref, softLease, false); err != nil {
		t.Fatal(err)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestCreate, NewOnly: true, VolumeUID: uid, Ref: ref}); r.Class != string(fault.Exists) {
		t.Errorf("new only: %+v", r)
	}
	if r := c.request(n, lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref}); r.Outcome != "adopted" {
		t.Errorf("adopt: %+v", r)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Error(err)
	}
	// Another cluster's volume is not ours to adopt.
	if _, err := n.drivers["pool"].Create(bg, driver.Spec{Name: "theirs", UID: "x", Cluster: "another"}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: volume.Ref{Driver: "pool", Name: "theirs"}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("another cluster's: %v", err)
	}
}

func TestRevoke(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	if _, err := c.auth.Revoke(bg, uid, c.state(uid).Epoch); err != nil {
		t.Fatal(err)
	}
	c.eventually("claim is free", func() bool { return c.state(uid).State == lease.Free })
	if n.fence.times() == 0 {
		t.Error("nobody was fenced")
	}
	if by := c.state(uid).FreedBy; by != "L3" {
		t.Errorf("freed by %s", by)
	}
}

// A revoke does not wait for an unmount that waits for users.
func TestRevokeOvertakesWaiting(t *testing.T) {
	c := newCluster(t)
	n := c.node(func(o *Options) { o.Limits.UsersLeave = time.Minute })
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	waiting := make(chan error, 1)
	go func() { _, err := n.Unmount(bg, UnmountRequest{Ref: ref}); waiting <- err }()
	time.Sleep(50 * time.Millisecond)
	if _, err := c.auth.Revoke(bg, uid, c.state(uid).Epoch); err != nil {
		t.Fatal(err)
	}
	c.eventually("claim is free", func() bool { return c.state(uid).State == lease.Free })
	if err := <-waiting; err != nil {
		t.Errorf("the unmount: %v", err)
	}
}

// Cut off from the authority, a node fences at its deadline, and gives back what it held once it is there again.
func TestDeadline(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the lease")
	}
	c := newCluster(t)
	n := c.node(quick)
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	n.cut.cut(true)
	c.eventually("fenced", func() bool { return n.fence.times() > 0 })
	c.wantState(uid, lease.Held) // nobody has freed it yet
	if _, err := n.Mount(bg, MountRequest{Ref: volume.Ref{Driver: "pool", Name: "other"}}); err == nil {
		t.Error("mounted without a lease")
	}
	n.cut.cut(false)
	c.eventually("claim is free", func() bool { return c.state(uid).State == lease.Free })
	c.eventually("leased again", n.isReady)
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Errorf("in the next generation: %v", err)
	}
}

// Started again before the deadline, an isolator goes on in its lease and touches nothing.
func TestRestartKeepsMounts(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	opts := c.grant(n, uid)
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	g := n.keeper.Generation()
	n.fence.use(path, true)
	n.stop()
	n.start()
	if n.keeper.Generation() != g || n.fence.times() != 0 {
		t.Errorf("generation %d -> %d, fenced %d times", g, n.keeper.Generation(), n.fence.times())
	}
	c.wantState(uid, lease.Held)
	if again, err := n.Mount(bg, MountRequest{Ref: ref, Options: opts}); err != nil || again != path {
		t.Errorf("again: %s %v", again, err)
	}
	n.fence.use(path, false)
	if out, err := n.Unmount(bg, UnmountRequest{Ref: ref}); err != nil || out != Unmounted {
		t.Errorf("unmount: %s %v", out, err)
	}
	c.wantState(uid, lease.Free)
}

// An operator who overrides a claim (L7) is believed: what is up here is fenced.
func TestOverride(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	claim := c.state(uid)
	if _, err := c.auth.Override(bg, lease.OverrideArgs{VolumeUID: uid, Epoch: claim.Epoch, Node: claim.Node, Generation: claim.NodeGeneration, Renewing: true}); err != nil {
		t.Fatal(err)
	}
	c.eventually("fenced", func() bool { v, _ := n.journal.Volume(ref); return n.fence.times() > 0 && v.Phase == journal.Known })
}

// Without its journal an isolator does not give back what it finds held before it has stopped the users.
func TestLostJournal(t *testing.T) {
	c := newCluster(t)
	n := c.node()
	uid, ref := c.volume(n, "v")
	path, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)})
	if err != nil {
		t.Fatal(err)
	}
	n.fence.use(path, true)
	n.stop()
	if err := os.RemoveAll(filepath.Join(n.dir, "journal")); err != nil {
		t.Fatal(err)
	}
	n.start()
	c.eventually("claim is free", func() bool { return c.state(uid).State == lease.Free })
	if n.fence.times() == 0 {
		t.Error("given back under its users")
	}
}

// After a reboot nothing is mounted: what was held is given back in the next generation.
func TestReboot(t *testing.T) {
	c := newCluster(t)
	n := c.node(quick)
	uid, ref := c.volume(n, "v")
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Fatal(err)
	}
	g := n.keeper.Generation()
	n.stop()
	n.boot, n.state = uuid.NewString(), &fakeState{}
	n.start(quick)
	if n.keeper.Generation() <= g {
		t.Errorf("generation %d -> %d", g, n.keeper.Generation())
	}
	c.eventually("claim is free", func() bool { return c.state(uid).State == lease.Free })
}

// Operations on one volume wait for each other; another volume does not wait.
func TestQueues(t *testing.T) {
	c := newCluster(t)
	slow := &slowDriver{Driver: nil, gate: make(chan struct{})}
	n := c.node(func(o *Options) {
		slow.Driver = o.Drivers[0]
		o.Drivers[0] = slow
	})
	slowUID, slowRef := c.volume(n, "slow")
	uid, ref := c.volume(n, "quick")
	opts := c.grant(n, slowUID)
	slow.set("slow")
	early, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	if _, err := n.Mount(early, MountRequest{Ref: slowRef, Options: opts}); !fault.Is(err, fault.Unknown) {
		t.Fatalf("the caller went away: %v", err)
	}
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err != nil {
		t.Fatalf("another volume: %v", err)
	}
	joined := make(chan error, 1)
	go func() { _, err := n.Mount(bg, MountRequest{Ref: slowRef, Options: opts}); joined <- err }()
	time.Sleep(20 * time.Millisecond)
	close(slow.gate)
	if err := <-joined; err != nil {
		t.Errorf("joined: %v", err)
	}
	if slow.count() != 1 {
		t.Errorf("the driver was asked %d times", slow.count())
	}
}

type slowDriver struct {
	driver.Driver
	mu    sync.Mutex
	name  string
	calls int
	gate  chan struct{}
}

func (d *slowDriver) set(name string) { d.mu.Lock(); d.name = name; d.mu.Unlock() }
func (d *slowDriver) count() int      { d.mu.Lock(); defer d.mu.Unlock(); return d.calls }

func (d *slowDriver) Mount(ctx context.Context, m driver.MountSpec) (string, error) {
	d.mu.Lock()
	slow := m.Name == d.name
	if slow {
		d.calls++
	}
	d.mu.Unlock()
	if slow {
		<-d.gate
	}
	return d.Driver.Mount(ctx, m)
}

// failingDriver gives an answer of a test's choice to Mount after having mounted.
type failingDriver struct {
	driver.Driver
	path string
	err  error
}

func (d *failingDriver) Mount(ctx context.Context, m driver.MountSpec) (string, error) {
	path, err := d.Driver.Mount(ctx, m)
	if d.path != "" {
		path = d.path
	}
	if d.err != nil {
		return "", d.err
	}
	return path, err
}

func TestHostilePaths(t *testing.T) {
	c := newCluster(t)
	bad := &failingDriver{}
	n := c.node(func(o *Options) { bad.Driver = o.Drivers[0]; o.Drivers[0] = bad })
	uid, ref := c.volume(n, "v")
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(c.pool, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"relative", "/", "/etc", outside, filepath.Join(c.pool, "link"), c.pool + "/v/../v/data", c.pool + "/v/data\n/x", c.pool + "/nobody", c.pool + "/v/volume.json"} {
		bad.path = path
		if got, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); err == nil {
			t.Errorf("%q was taken: %s", path, got)
		}
		c.wantState(uid, lease.Free)
	}
}

func TestLostReply(t *testing.T) {
	c := newCluster(t)
	bad := &failingDriver{err: fault.New(fault.Unknown, "no answer")}
	n := c.node(func(o *Options) { bad.Driver = o.Drivers[0]; o.Drivers[0] = bad })
	uid, ref := c.volume(n, "v")
	if _, err := n.Mount(bg, MountRequest{Ref: ref, Options: c.grant(n, uid)}); !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
	c.wantState(uid, lease.Free) // taken down and given back
	if v, _ := n.journal.Volume(ref); v.Phase != journal.Known {
		t.Errorf("phase %s", v.Phase)
	}
}

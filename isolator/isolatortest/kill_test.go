package isolatortest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/isolatortest"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// The test binary is also the isolator and the watchdog, told by its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		program := os.Args[1]
		switch program {
		case isolatortest.Program:
			os.Args = os.Args[1:]
			isolatortest.Main()
		case isolatortest.WatchdogProgram:
			os.Args = os.Args[1:]
			isolatortest.Watchdog()
		case isolatortest.PluginProgram:
			os.Args = os.Args[1:]
			isolatortest.MountPlugin()
		case isolatortest.TaskProgram:
			os.Args = os.Args[1:]
			isolatortest.Task()
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

var bg = context.Background()

var softLease = lease.Policy{Mode: lease.PolicyLease, MinGrade: lease.GradeSoft}

// machine is one node with an isolator process, and the authority beside it.
type machine struct {
	testing.TB
	dir, node, pool, socket, binary string
	authority                       string
	server                          *embedded.Server
	auth                            *lease.Authority
	client                          *client.Client
	uid                             int // 0: as the test; otherwise the user to run as
	boot                            string
	args                            []string // further arguments of the isolator

	poolFlags []string // of the pool's back end

	mu   sync.Mutex
	proc *exec.Cmd
	out  bytes.Buffer
	end  chan struct{}
}

func newMachine(t testing.TB, uid int) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfk")
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{TB: t, dir: dir, node: filepath.Join(dir, "node"), pool: filepath.Join(dir, "pool"), socket: filepath.Join(dir, "node", "i.sock"), uid: uid, boot: uuid.NewString()}
	t.Cleanup(func() {
		m.kill()
		for _, mt := range m.mounts() {
			t.Errorf("leaked mount %s", mt.Point)
			_ = syscall.Unmount(mt.Point, syscall.MNT_DETACH)
		}
		os.RemoveAll(dir)
	})
	for _, d := range []string{m.node, m.pool} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.binary = filepath.Join(dir, "program")
	copyFile(t, m.binary)
	if uid != 0 {
		for _, d := range []string{dir, m.node, m.pool} {
			if err := os.Chown(d, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.startAuthority()
	m.client = client.New(m.socket)
	return m
}

func copyFile(t testing.TB, to string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(self, to); err == nil {
		return
	}
	raw, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(to, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) startAuthority() {
	var err error
	if m.server, err = embedded.Open(filepath.Join(m.dir, "authority.db")); err != nil {
		m.Fatal(err)
	}
	socket := filepath.Join(m.dir, "a.sock")
	l, err := m.server.Listen(socket)
	if err != nil {
		m.Fatal(err)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { l.Close(); m.server.Close() })
	m.authority = "unix://" + socket
	m.auth = lease.New(m.server.Registers(), lease.Options{})
	if _, err := m.auth.Init(bg, uuid.NewString()); err != nil {
		m.Fatal(err)
	}
}

// start runs the isolator; crash is a step or "".
func (m *machine) start(crash string) {
	m.Helper()
	cmd := exec.Command(m.binary, isolatortest.Program, "-dir", m.node, "-socket", m.socket, "-authority", m.authority, "-pool", m.pool,
		"-boot-id", m.boot, "-watchdog", m.binary+" "+isolatortest.WatchdogProgram)
	cmd.Args = append(cmd.Args, m.args...)
	cmd.Args = append(cmd.Args, m.poolFlags...)
	variable, step := isolator.CrashVariable, crash
	if rest, ok := strings.CutPrefix(crash, "pool "); ok {
		variable, step = pool.CrashVariable, rest
	}
	cmd.Env = append(os.Environ(), variable+"="+step)
	cmd.Stdout, cmd.Stderr = &locked{m}, &locked{m}
	if m.uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(m.uid), Gid: uint32(m.uid)}}
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	end := make(chan struct{})
	go func() { _ = cmd.Wait(); close(end) }()
	m.proc, m.end = cmd, end
	m.eventually("isolator takes mounts", func() bool {
		select {
		case <-end:
			return crash != "" // it may crash before it is ready
		default:
		}
		h, err := m.client.Health(bg)
		return err == nil && h.Ready
	})
}

type locked struct{ m *machine }

func (l *locked) Write(p []byte) (int, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.out.Write(p)
}

func (m *machine) log() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.out.String()
}

func (m *machine) kill() {
	if m.proc != nil {
		_ = m.proc.Process.Kill()
		<-m.end
	}
}

// died tells whether the isolator process has ended.
func (m *machine) died() bool {
	select {
	case <-m.end:
		return true
	default:
		return false
	}
}

func (m *machine) eventually(what string, f func() bool) {
	m.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	m.Fatalf("not so after 20 s: %s\n%s", what, m.log())
}

func (m *machine) mounts() []mount.Mount {
	all, err := mount.Under(m.node)
	if err != nil {
		m.Fatal(err)
	}
	return all
}

func (m *machine) nodeUID() string {
	raw, err := os.ReadFile(filepath.Join(m.node, "node-uid"))
	if err != nil {
		m.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func (m *machine) claim(uid string) lease.Claim {
	m.Helper()
	c, err := m.auth.Claim(bg, uid)
	if err != nil {
		m.Fatal(err)
	}
	return c.Claim
}

// request asks and waits until it is answered or the isolator has died.
func (m *machine) request(r lease.Request) (lease.Request, bool) {
	m.Helper()
	if r.Op == "" {
		r.Op = uuid.NewString()
	}
	if _, err := m.auth.PutRequest(bg, m.nodeUID(), r); err != nil {
		m.Fatal(err)
	}
	var got lease.Request
	answered := false
	m.eventually("request is answered", func() bool {
		all, err := m.auth.Requests(bg, m.nodeUID())
		if err != nil {
			m.Fatal(err)
		}
		for _, x := range all {
			if x.Op == r.Op && x.State != lease.RequestPending {
				got, answered = x.Request, true
			}
		}
		return answered || m.died()
	})
	return got, answered
}

func (m *machine) grant(uid string) map[string]string {
	m.Helper()
	c := m.claim(uid)
	if c.State == lease.Granted { // L5, as the framework does with a grant that came to nothing
		if _, err := m.auth.Cancel(bg, uid, c.Epoch, c.Nonce); err != nil {
			m.Fatal(err)
		}
	}
	g := volume.Grant{VolumeUID: uid, Epoch: c.Epoch + 1, Nonce: uuid.NewString(), Task: "t", MustExist: true}
	if _, err := m.auth.Grant(bg, lease.GrantArgs{VolumeUID: uid, Epoch: g.Epoch, Node: m.nodeUID(), Nonce: g.Nonce, Policy: softLease, Owner: "t"}); err != nil {
		m.Fatal(err)
	}
	return g.Encode(nil)
}

var ref = volume.Ref{Driver: "pool", Name: "v"}

// live takes a volume through its whole life and stops where the isolator dies. It gives how far it came.
func (m *machine) live(uid string) (steps []string) {
	m.Helper()
	did := func(step string, ok bool) bool {
		if ok {
			steps = append(steps, step)
		}
		return ok && !m.died()
	}
	_, ok := m.request(lease.Request{Kind: lease.RequestCreate, VolumeUID: uid, Ref: ref, Op: "create-" + uid})
	if !did("created", ok) {
		return
	}
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(uid)})
	if err == nil {
		err = os.WriteFile(filepath.Join(path, "kept"), []byte("kept"), 0o644)
	}
	if !did("mounted", err == nil) {
		return
	}
	_, err = m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"})
	if !did("unmounted", err == nil) {
		return
	}
	_, ok = m.request(lease.Request{Kind: lease.RequestRemove, VolumeUID: uid, Ref: ref, Op: "remove-" + uid})
	did("removed", ok)
	return
}

// settle is what follows a crash: the isolator starts again, Mesos unmounts, and everything must be in order.
func (m *machine) settle(uid string, steps []string) {
	m.Helper()
	m.start("")
	m.consistent(uid)
	if out, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
		m.Fatalf("unmount after the crash: %s %v\n%s", out, err, m.log())
	}
	m.eventually("claim is not held", func() bool { return m.claim(uid).State != lease.Held })
	if left := m.mounts(); len(left) != 0 {
		m.Errorf("left mounted: %+v", left)
	}
	m.eventually("no request is pending", func() bool {
		all, err := m.auth.Requests(bg, m.nodeUID())
		if err != nil {
			return false
		}
		for _, r := range all {
			if r.State == lease.RequestPending {
				return false
			}
			if r.State == lease.RequestFailed {
				m.Fatalf("request failed: %+v", r.Request)
			}
		}
		return true
	})
	if m.claim(uid).Tombstone {
		if got, err := m.client.Get(bg, client.VolumeRequest{Driver: "pool", Name: "v"}); !fault.Is(err, fault.NotFound) {
			m.Errorf("removed, and there is %+v %v", got, err)
		}
		return
	}
	m.usable(uid, steps)
}

// consistent: what is mounted is held, and what is held is known to the isolator.
func (m *machine) consistent(uid string) {
	m.Helper()
	st, err := m.client.Status(bg)
	if err != nil {
		m.Fatal(err)
	}
	c := m.claim(uid)
	for _, v := range st.Volumes {
		if v.Phase == "mounted" && (c.State != lease.Held || uint64(c.Epoch) != v.Epoch) {
			m.Errorf("mounted at epoch %d, claim %s at %d", v.Epoch, c.State, c.Epoch)
		}
	}
	if len(st.Volumes) == 0 && len(m.mounts()) > 0 {
		m.Errorf("mounted and not known: %+v", m.mounts())
	}
	if len(st.Volumes) == 0 && c.State == lease.Held {
		m.eventually("an unknown hold is given back", func() bool { return m.claim(uid).State != lease.Held })
	}
	if len(st.Problems) > 0 {
		m.Errorf("problems: %v", st.Problems)
	}
}

// usable: the volume is there with all that was written, and mounts in the next epoch.
func (m *machine) usable(uid string, steps []string) {
	m.Helper()
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(uid)})
	if err != nil {
		m.Fatalf("mount after the crash (came to %v): %v\n%s", steps, err, m.log())
	}
	raw, err := os.ReadFile(filepath.Join(path, "kept"))
	if wrote := len(steps) > 1; wrote && string(raw) != "kept" {
		m.Errorf("content is %q, %v", raw, err)
	}
	if out, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil || out != isolator.Unmounted {
		m.Fatalf("unmount: %s %v", out, err)
	}
	if c := m.claim(uid); c.State != lease.Free {
		m.Errorf("claim is %s", c.State)
	}
	if left := m.mounts(); len(left) != 0 {
		m.Errorf("left mounted: %+v", left)
	}
}

func (m *machine) newVolume() string {
	m.Helper()
	uid := uuid.Must(uuid.NewV7()).String()
	if _, err := m.auth.Create(bg, uid, ref, softLease, false); err != nil {
		m.Fatal(err)
	}
	return uid
}

// TestHeavyKillAtEachStep kills the isolator at every step of a volume's life, and looks whether the next one leaves all in order.
func TestHeavyKillAtEachStep(t *testing.T) {
	heavy.Require(t)
	users := map[string]int{"self": 0}
	if os.Geteuid() == 0 {
		users = map[string]int{"root": 0, "user": 65534}
	}
	for who, uid := range users {
		for _, step := range isolator.CrashSteps {
			t.Run(who+"/"+step, func(t *testing.T) {
				m := newMachine(t, uid)
				m.start(step)
				v := m.newVolume()
				steps := m.live(v)
				select {
				case <-m.end:
				case <-time.After(5 * time.Second):
					t.Fatalf("it never came to %s; it did %v", step, steps)
				}
				m.settle(v, steps)
			})
		}
	}
}

// TestHeavyKillByHand is the same for a volume that stock Marathon mounts: the node claims and creates it by itself.
func TestHeavyKillByHand(t *testing.T) {
	heavy.Require(t)
	for _, step := range isolator.CrashSteps {
		if strings.HasPrefix(step, "remove.") {
			continue
		}
		t.Run(step, func(t *testing.T) {
			m := newMachine(t, 0)
			m.start(step)
			wrote := m.byHand()
			select {
			case <-m.end:
			case <-time.After(5 * time.Second):
				t.Fatalf("it never came to %s", step)
			}
			m.start("")
			if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
				t.Fatal(err)
			}
			if c, err := m.auth.ClaimByRef(bg, ref); err == nil {
				m.eventually("claim is not held", func() bool { return m.claim(c.VolumeUID).State != lease.Held })
			}
			path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"})
			if err != nil {
				t.Fatalf("mount again: %v\n%s", err, m.log())
			}
			if raw, err := os.ReadFile(filepath.Join(path, "kept")); wrote && string(raw) != "kept" {
				t.Errorf("content is %q %v", raw, err)
			}
			if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestHeavyKillCreateByHand kills it at each step of `dvdcli create`: what was asked for can be asked for again.
func TestHeavyKillCreateByHand(t *testing.T) {
	heavy.Require(t)
	for _, step := range []string{"create.claimed", "create.intent", "create.driver", "create.done"} {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t, 0)
			m.start(step)
			if _, err := m.client.Create(bg, client.CreateRequest{Driver: "pool", Name: "v"}); err == nil {
				t.Fatal("it was not killed")
			}
			<-m.end
			m.start("")
			if _, err := m.client.Create(bg, client.CreateRequest{Driver: "pool", Name: "v"}); err != nil && !fault.Is(err, fault.Exists) {
				t.Fatalf("again: %v", err)
			}
			if _, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", ExplicitCreate: true}); err != nil {
				t.Fatalf("mount: %v", err)
			}
			if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (m *machine) byHand() (wrote bool) {
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"})
	if err != nil {
		return false
	}
	wrote = os.WriteFile(filepath.Join(path, "kept"), []byte("kept"), 0o644) == nil
	_, _ = m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"})
	return wrote
}

// TestHeavyKillTwice kills it again while it recovers from the first time.
func TestHeavyKillTwice(t *testing.T) {
	heavy.Require(t)
	for _, pair := range [][2]string{{"mount.intent", "unmount.intent"}, {"mount.driver", "unmount.driver"}, {"mount.verified", "unmount.gone"}, {"mount.driver", "unmount.released"},
		{"unmount.driver", "unmount.gone"}, {"unmount.intent", "unmount.flushed"}, {"create.intent", "create.driver"}, {"remove.intent", "remove.driver"}} {
		t.Run(fmt.Sprint(pair), func(t *testing.T) {
			m := newMachine(t, 0)
			m.start(pair[0])
			v := m.newVolume()
			steps := m.live(v)
			<-m.end
			m.start(pair[1])
			m.eventually("it dies again", m.died)
			m.settle(v, steps)
		})
	}
}

// TestHeavyKillAndLate lets the deadline pass before the isolator is back: the watchdog has fenced, and the claim is given back in the
// next generation.
func TestHeavyKillAndLate(t *testing.T) {
	heavy.Require(t)
	m := newMachine(t, 0)
	m.start("")
	v := m.newVolume()
	if _, ok := m.request(lease.Request{Kind: lease.RequestCreate, VolumeUID: v, Ref: ref}); !ok {
		t.Fatal("not created")
	}
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(v)})
	if err != nil {
		t.Fatal(err)
	}
	writer := exec.Command("sleep", "60")
	writer.Dir = path
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- writer.Wait() }()
	m.kill()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the watchdog let the writer live past the deadline")
		_ = writer.Process.Kill()
	}
	if m.claim(v).State != lease.Held {
		t.Error("somebody freed the claim without the node's word")
	}
	m.start("")
	m.eventually("claim is free", func() bool { return m.claim(v).State == lease.Free })
	if by := m.claim(v).FreedBy; by != "L3" {
		t.Errorf("freed by %s", by)
	}
	m.usable(v, []string{"created"})
}

// TestHeavyKillKeepsTask kills and restarts the isolator under a running task within the deadline: nobody is touched.
func TestHeavyKillKeepsTask(t *testing.T) {
	heavy.Require(t)
	m := newMachine(t, 0)
	m.start("")
	v := m.newVolume()
	if _, ok := m.request(lease.Request{Kind: lease.RequestCreate, VolumeUID: v, Ref: ref}); !ok {
		t.Fatal("not created")
	}
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(v)})
	if err != nil {
		t.Fatal(err)
	}
	if g := m.claim(v).Fence; g != lease.GradeSoft {
		t.Errorf("held with grade %q although the watchdog runs", g)
	}
	task := exec.Command("sleep", "60")
	task.Dir = path
	if err := task.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = task.Process.Kill(); _ = task.Wait() }()
	for range 5 {
		m.kill()
		m.start("")
		if err := task.Process.Signal(syscall.Signal(0)); err != nil {
			t.Fatalf("the task is gone: %v\n%s", err, m.log())
		}
		m.consistent(v)
	}
	// An unmount that comes while the task lives is refused or repeated, never done.
	if out, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil || out != isolator.Retrying {
		t.Errorf("unmount under a task: %s %v", out, err)
	}
	if m.claim(v).State != lease.Held {
		t.Error("given back under a task")
	}
	_ = task.Process.Kill()
	m.eventually("claim is free", func() bool { return m.claim(v).State == lease.Free })
	if errors.Is(m.proc.Process.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		t.Error("the isolator has died")
	}
}

package isolatortest_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// localDriver is Docker's own local driver as a plugin, which mounts in the kernel.
type localDriver struct {
	*testing.T
	program, root, dir string
	proc               *exec.Cmd
}

func (l *localDriver) start(args ...string) {
	l.Helper()
	socket := filepath.Join(l.dir, "local.sock")
	os.Remove(socket)
	l.proc = exec.Command(l.program, append([]string{"-root", l.root, "-socket", socket}, args...)...)
	if err := l.proc.Start(); err != nil {
		l.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
	}
	l.Fatal("the plugin does not listen")
}

func (l *localDriver) kill() {
	_ = l.proc.Process.Kill()
	_ = l.proc.Wait()
}

// Docker's local driver is killed under use, restarted, and made to lose every reply.
func TestHeavyDockerLocalDriver(t *testing.T) {
	heavy.Require(t, heavy.Root)
	m := newMachine(t, 0)
	l := &localDriver{T: t, program: filepath.Join(m.dir, "localplugin"), root: filepath.Join(m.dir, "local"), dir: filepath.Join(m.dir, "plugins")}
	build := exec.Command("go", "build", "-o", l.program, ".")
	build.Dir = filepath.Join("..", "..", "tools", "localplugin")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build localplugin: %v\n%s", err, out)
	}
	for _, d := range []string{l.root, l.dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mounts := func() int {
		all, err := mount.Under(l.root)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	l.start()
	t.Cleanup(func() {
		l.kill()
		if n := mounts(); n > 0 {
			t.Errorf("%d mounts leaked", n)
		}
	})
	m.args = []string{"-plugin-dir", l.dir}
	m.start("")
	ref := client.VolumeRequest{Driver: "local", Name: "vol"}
	options := map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
	if _, err := m.client.Create(bg, client.CreateRequest{Driver: ref.Driver, Name: ref.Name, Options: options}); err != nil {
		t.Fatal(err)
	}
	c, err := m.auth.ClaimByRef(bg, volume.Ref{Driver: "local", Name: "vol"})
	if err != nil {
		t.Fatal(err)
	}
	uid := c.VolumeUID
	up := func() error {
		_, err := m.client.Mount(bg, client.MountRequest{Driver: ref.Driver, Name: ref.Name})
		return err
	}
	down := func(what string) {
		t.Helper()
		if _, err := m.client.Unmount(bg, client.UnmountRequest{Driver: ref.Driver, Name: ref.Name}); err != nil {
			t.Fatalf("%s: unmount: %v", what, err)
		}
		m.eventually(what+": the claim is free and nothing is mounted", func() bool { return m.claim(uid).State == lease.Free && mounts() == 0 })
	}
	if err := up(); err != nil || mounts() != 1 {
		t.Fatalf("mount: %v, %d mounts", err, mounts())
	}
	down("plain")

	// Killed: its mount stays, and is nobody else's to take away until it is back.
	if err := up(); err != nil {
		t.Fatal(err)
	}
	l.kill()
	out, err := m.client.Unmount(bg, client.UnmountRequest{Driver: ref.Driver, Name: ref.Name})
	if (err == nil && out != "retrying") || m.claim(uid).State != lease.Held || mounts() != 1 {
		t.Errorf("without its plugin: %s %v, claim %+v, %d mounts", out, err, m.claim(uid), mounts())
	}
	// Restarted, it has forgotten its mount: it says "done" and does nothing. The claim stays held and the status says why; taking the mount
	// away behind its back would make it believe later that it is still there, and give a container the empty directory below.
	l.start()
	m.eventually("the status says what is wrong", func() bool {
		st, err := m.client.Status(bg)
		return err == nil && len(st.Volumes) == 1 && strings.Contains(st.Volumes[0].Because, "is still a mount point")
	})
	if m.claim(uid).State != lease.Held {
		t.Errorf("claim %+v while it is mounted", m.claim(uid))
	}
	if err := up(); err == nil {
		t.Error("mounted over what was not unmounted")
	}
	// What an administrator does: stop the plugin, unmount, start it.
	l.kill()
	if err := unix.Unmount(filepath.Join(l.root, "volumes", "vol", "_data"), 0); err != nil {
		t.Fatal(err)
	}
	l.start()
	down("after the administrator")

	// Through the shim every reply about a volume is lost.
	l.kill()
	l.start("-shim")
	if err := up(); !fault.Is(err, fault.Unknown) {
		t.Errorf("a lost reply is %v", err)
	}
	m.eventually("what is unknown is undone", func() bool { return m.claim(uid).State == lease.Free && mounts() == 0 })
	l.kill()
	l.start()
	if err := up(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	down("afterwards")
	if err := m.client.Remove(bg, ref); err != nil {
		t.Error(err)
	}
}

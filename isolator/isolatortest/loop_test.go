package isolatortest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/loop"
)

// newLoopMachine has a pool of loop images, and leaves no device behind.
func newLoopMachine(t testing.TB) *machine {
	m := newMachine(t, 0)
	m.poolFlags = []string{"-pool-backend", "loop", "-pool-fs", "ext4", "-pool-size", "16777216"}
	t.Cleanup(func() {
		m.kill()
		for _, d := range m.devices("/") {
			t.Errorf("leaked %s", d)
		}
	})
	return m
}

// devices gives the attached images of a part of the pool.
func (m *machine) devices(part string) (images []string) {
	m.Helper()
	all, err := loop.Attached()
	if err != nil {
		m.Fatal(err)
	}
	for _, image := range all {
		if strings.HasPrefix(image, m.pool+part) {
			images = append(images, image)
		}
	}
	return images
}

// TestHeavyKillLoop is TestHeavyKillAtEachStep for volumes with a file system of their own, at the steps of the pool driver, too.
func TestHeavyKillLoop(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.ext4"))
	steps := append([]string(nil), isolator.CrashSteps...)
	for _, s := range pool.CrashSteps {
		steps = append(steps, "pool "+s)
	}
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			m := newLoopMachine(t)
			m.start(step)
			v := m.newVolume()
			done := m.live(v)
			select {
			case <-m.end:
			case <-time.After(5 * time.Second):
				t.Fatalf("it never came to %s; it did %v", step, done)
			}
			m.settle(v, done)
			if left := m.devices("/v/"); len(left) > 0 {
				t.Errorf("unmounted, and attached: %v", left)
			}
			m.sweep()
		})
	}
}

// sweep does what the isolator does to a dead maker's leavings after a while.
func (m *machine) sweep() {
	m.Helper()
	m.kill()
	p, err := pool.Open(pool.Options{Dir: m.pool, Mounts: isolator.MountsDir(m.node), Now: func() time.Time { return time.Now().Add(48 * time.Hour) }})
	if err != nil {
		m.Fatal(err)
	}
	if err := p.Sweep(bg, time.Now()); err != nil {
		m.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(m.pool, ".new")); len(left) > 0 {
		m.Errorf("left in .new: %v", left)
	}
}

// TestHeavyLoopLate lets the deadline pass over a dead isolator: the watchdog shuts the file system down, kills the writer and unmounts.
func TestHeavyLoopLate(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.ext4"))
	m := newLoopMachine(t)
	m.start("")
	v := m.newVolume()
	if _, ok := m.request(lease.Request{Kind: lease.RequestCreate, VolumeUID: v, Ref: ref}); !ok {
		t.Fatal("not created")
	}
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(v)})
	if err != nil {
		t.Fatal(err)
	}
	writer := exec.Command("sh", "-c", "echo kept > kept; sync kept; while :; do echo x >> more || exit 1; done")
	writer.Dir = path
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan error, 1)
	go func() { gone <- writer.Wait() }()
	m.eventually("the writer writes", func() bool { _, err := os.Stat(filepath.Join(path, "more")); return err == nil })
	m.kill()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the watchdog let the writer live past the deadline")
		_ = writer.Process.Kill()
	}
	m.eventually("the file system is gone", func() bool { return len(m.mounts()) == 0 })
	m.start("")
	m.eventually("claim is free", func() bool { return m.claim(v).State == lease.Free })
	if by := m.claim(v).FreedBy; by != "L3" {
		t.Errorf("freed by %s", by)
	}
	if left := m.devices("/"); len(left) > 0 {
		t.Errorf("given back, and attached: %v", left)
	}
	path, err = m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v", Options: m.grant(v)})
	if err != nil {
		t.Fatalf("%v\n%s", err, m.log())
	}
	if raw, err := os.ReadFile(filepath.Join(path, "kept")); string(raw) != "kept\n" {
		t.Errorf("content is %q, %v", raw, err)
	}
	if out, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil || out != isolator.Unmounted {
		t.Fatalf("unmount: %s %v", out, err)
	}
}

// TestHeavyEncrypted has an encrypted volume made, mounted, fenced when its isolator is dead for too long, and mounted again, all through the isolator: no key is left in its state or log, and nothing of the
// content in the image.
func TestHeavyEncrypted(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.ext4"))
	m := newLoopMachine(t)
	key := filepath.Join(t.TempDir(), "key")
	const master, secret = "0123456789abcdef0123456789abcdef-master", "correct-horse-battery-staple"
	if err := os.WriteFile(key, []byte(master), 0o600); err != nil {
		t.Fatal(err)
	}
	m.poolFlags = append(m.poolFlags, "-pool-key-file", key)
	m.start("")
	if _, err := m.client.Create(bg, client.CreateRequest{Driver: "pool", Name: "v", Options: map[string]string{"encrypt": "true"}}); err != nil {
		t.Fatal(err)
	}
	path, err := m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"})
	if err != nil {
		t.Fatalf("%v\n%s", err, m.log())
	}
	f, err := os.Create(filepath.Join(path, secret))
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(strings.Repeat(secret, 1000))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	m.kill()
	m.eventually("the file system is gone", func() bool { return len(m.mounts()) == 0 })
	m.start("")
	m.eventually("it can be mounted again", func() bool {
		path, err = m.client.Mount(bg, client.MountRequest{Driver: "pool", Name: "v"})
		return err == nil
	})
	if raw, err := os.ReadFile(filepath.Join(path, secret)); err != nil || !strings.HasPrefix(string(raw), secret) {
		t.Errorf("content %.40q %v", raw, err)
	}
	if out, err := m.client.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "v"}); err != nil || out != isolator.Unmounted {
		t.Fatalf("unmount: %s %v", out, err)
	}
	if strings.Contains(m.log(), master) {
		t.Error("the key is in the log")
	}
	for _, dir := range []string{m.node, m.pool} {
		out, err := exec.Command("grep", "-rlaF", "-e", master, "-e", secret, dir).CombinedOutput()
		if err == nil {
			t.Errorf("key or content in the clear in %s", out)
		}
	}
}

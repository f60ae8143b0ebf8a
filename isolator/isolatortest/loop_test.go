package isolatortest_test

import (
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

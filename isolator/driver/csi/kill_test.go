package csi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
)

// FakeLife takes a volume of the fake at dir's socket through its life, in a process that may be killed. TestMain calls it.
func FakeLife(dir string) error {
	d, err := New(Options{Name: "csi/fake", Endpoint: "unix://" + filepath.Join(dir, "csi.sock"), Dir: filepath.Join(dir, "state"), Mounts: filepath.Join(dir, "mounts"),
		Node: "n1", BootID: "boot-1", LookLimit: 2 * time.Second, CallLimit: 2 * time.Second, isMount: isLink})
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Create(bg, spec1("v"))
	if err != nil && !fault.Is(err, fault.Conflict) { // it is being removed
		return err
	}
	if err == nil {
		if _, err := d.Mount(bg, mountV); err != nil {
			return err
		}
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil {
		return err
	}
	if err == nil {
		if _, err := d.Grow(bg, "v", "uid-v", 2<<20); err != nil {
			return err
		}
		if _, err := d.Snapshot(bg, "v", "uid-v", "s"); err != nil && !fault.Is(err, fault.Conflict) { // it is being removed
			return err
		}
		if err := d.RemoveSnapshot(bg, "v", "s"); err != nil {
			return err
		}
	}
	if err := d.Remove(bg, "v", "uid-v"); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// TestHeavyKillWithAttach kills the driver's process at every step with a plugin that has them all. The next process ends what was begun.
func TestHeavyKillWithAttach(t *testing.T) {
	heavy.Require(t)
	f := newFake(t)
	for _, step := range csistage.CrashSteps {
		cmd := exec.Command("/proc/self/exe", "test-fake-life", f.dir)
		var out bytes.Buffer
		cmd.Env, cmd.Stderr = append(os.Environ(), csistage.CrashVariable+"="+step), &out
		err := cmd.Run()
		if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() || st.Signal() != syscall.SIGKILL {
			t.Errorf("%s was not reached: %v\n%s", step, err, out.String())
		}
		if err := FakeLife(f.dir); err != nil {
			t.Errorf("after a kill at %s: %v", step, err)
		}
		left, err := filepath.Glob(filepath.Join(f.dir, "state", "*", "[a-z]*.json"))
		more, _ := filepath.Glob(filepath.Join(f.dir, "state", "*", "*", "[a-z]*.json"))
		if left = append(left, more...); err != nil || len(left) > 0 || f.left() != "0 0 0" || f.made() != 0 || len(f.snapshots) != 0 {
			t.Errorf("after a kill at %s: files %v, attached, staged, published %s, %d volumes, %v", step, left, f.left(), f.made(), err)
		}
	}
}

package isolatortest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// A FUSE server that was stopped hangs whoever touches its mount, and as a plugin it answers nobody. Only its own volumes wait for it: others are mounted and
// unmounted, with a look at all processes in between of which one has a file open there, and the status is told. When it goes on, so does what waited.
func TestHeavyStuckBlocksNobody(t *testing.T) {
	r := newRemote(t)
	path, err := r.mount()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	holder := r.hold(filepath.Join(path, "file"))
	if err := r.rclone.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.rclone.Signal(syscall.SIGCONT) })
	unmounted := make(chan error, 1)
	go func() {
		_, err := r.client.Unmount(bg, client.UnmountRequest{Driver: "rclone", Name: "v"})
		unmounted <- err
	}()
	for range 5 {
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		if _, err := r.client.Mount(ctx, client.MountRequest{Driver: "pool", Name: "quick"}); err != nil {
			t.Errorf("mount beside a stuck volume: %v", err)
		}
		if out, err := r.client.Unmount(ctx, client.UnmountRequest{Driver: "pool", Name: "quick"}); err != nil || out != isolator.Unmounted {
			t.Errorf("unmount beside a stuck volume: %s %v", out, err)
		}
		if _, err := r.client.Status(ctx); err != nil {
			t.Errorf("status: %v", err)
		}
		cancel()
	}
	_ = holder.Process.Kill()
	if err := r.rclone.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait()
	<-unmounted
	r.eventually("the volume is given back", func() bool {
		_, _ = r.client.Unmount(bg, client.UnmountRequest{Driver: "rclone", Name: "v"})
		st, err := r.client.Status(bg)
		return err == nil && len(st.Volumes) == 0
	})
}

// hold starts a process that has a file open.
func (m *machine) hold(file string) *exec.Cmd {
	m.Helper()
	cmd := exec.Command("sh", "-c", `exec 3<"$0"; echo ready; exec sleep 300`, file)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		m.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		m.Fatal(err)
	}
	return cmd
}

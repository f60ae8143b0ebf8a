package isolatortest_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// engine is a Docker Engine of the test's own, with an image that holds busybox and nothing else.
type engine struct {
	*testing.T
	dir        string
	containerd *exec.Cmd // of its own, as on a real node: it outlives dockerd
	proc       *exec.Cmd
	end        chan struct{}
}

const image = "busybox:test"

func newEngine(t *testing.T) *engine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfe")
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{T: t, dir: dir}
	t.Cleanup(func() {
		_ = syscall.Unmount(filepath.Join(dir, "data"), syscall.MNT_DETACH) // dockerd mounts it on itself, and a killed one leaves that
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	e.startContainerd()
	e.start()
	t.Cleanup(e.stop)
	e.importImage()
	return e
}

func (e *engine) startContainerd() {
	e.Helper()
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		filepath.Join(e.dir, "croot"), filepath.Join(e.dir, "crun"), filepath.Join(e.dir, "c.sock"), filepath.Join(e.dir, "ct.sock"))
	if err := os.WriteFile(filepath.Join(e.dir, "config.toml"), []byte(config), 0o600); err != nil {
		e.Fatal(err)
	}
	e.containerd = exec.Command("containerd", "-c", filepath.Join(e.dir, "config.toml"))
	if err := e.containerd.Start(); err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() {
		_ = e.containerd.Process.Kill()
		_ = e.containerd.Wait()
	})
	for limit := time.Now().Add(10 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(e.dir, "c.sock")); err == nil {
			return
		}
	}
	e.Fatal("containerd does not listen")
}

func (e *engine) start() {
	e.Helper()
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"), "--pidfile", filepath.Join(e.dir, "pid"),
		"-H", e.host(), "--containerd", filepath.Join(e.dir, "c.sock"), "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--shutdown-timeout=1")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.Fatal(err)
	}
	e.proc, e.end = cmd, make(chan struct{})
	go func() { _ = cmd.Wait(); close(e.end) }()
	for limit := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := e.try("version"); err == nil {
			return
		}
		if time.Now().After(limit) {
			raw, _ := os.ReadFile(filepath.Join(e.dir, "log"))
			e.Fatalf("dockerd does not answer: %s", raw)
		}
	}
}

// stop removes the containers and ends dockerd as a service manager would.
func (e *engine) stop() {
	if ids, err := e.try("ps", "-aq"); err == nil && ids != "" {
		_, _ = e.try(append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
	}
	_ = e.proc.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.end:
	case <-time.After(10 * time.Second):
		_ = e.proc.Process.Kill()
		<-e.end
		e.Error("dockerd did not stop")
	}
}

func (e *engine) kill() {
	_ = e.proc.Process.Kill()
	<-e.end
}

func (e *engine) host() string { return "unix://" + filepath.Join(e.dir, "d.sock") }

func (e *engine) try(args ...string) (string, error) {
	return e.tryWith(nil, args...)
}

func (e *engine) tryWith(in []byte, args ...string) (string, error) {
	cmd := exec.Command("docker", append([]string{"-H", e.host()}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Join(e.dir, "config"))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (e *engine) docker(args ...string) string {
	e.Helper()
	out, err := e.try(args...)
	if err != nil {
		e.Fatalf("docker %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func (e *engine) importImage() {
	e.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		e.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	_ = w.WriteHeader(&tar.Header{Name: "bin/sh", Mode: 0o755, Size: int64(len(busybox)), Typeflag: tar.TypeReg})
	_, _ = w.Write(busybox)
	for _, name := range []string{"sleep", "cat"} {
		_ = w.WriteHeader(&tar.Header{Name: "bin/" + name, Linkname: "sh", Typeflag: tar.TypeSymlink})
	}
	if err := w.Close(); err != nil {
		e.Fatal(err)
	}
	if out, err := e.tryWith(buf.Bytes(), "import", "-", image); err != nil {
		e.Fatalf("docker import: %v: %s", err, out)
	}
}

// A real Docker Engine uses a volume of the pool through the isolator: made, listed, written, refused to a second container, kept over
// the death of the isolator and of dockerd, removed; the claim follows each step.
func TestHeavyDockerEngine(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("dockerd"), heavy.Program("docker"), heavy.Program("busybox"))
	e, m := newEngine(t), newMachine(t, 0)
	// Docker looks for plugins in this directory alone, so the name is this test's own.
	name := fmt.Sprintf("hf-test-%d", os.Getpid())
	socket := "/run/docker/plugins/" + name + ".sock"
	m.args = []string{"-docker-socket", socket}
	t.Cleanup(func() { os.Remove(socket) })
	m.start("")

	e.docker("volume", "create", "-d", name, "db")
	if out := e.docker("volume", "ls", "-q", "-f", "driver="+name); out != "db" {
		t.Errorf("docker volume ls: %q", out)
	}
	var seen []struct {
		Driver, Name, Scope string
		Status              map[string]any
	}
	if err := json.Unmarshal([]byte(e.docker("volume", "inspect", "db")), &seen); err != nil || len(seen) != 1 || seen[0].Driver != name || seen[0].Status["driver"] != "pool" || seen[0].Status["claim"] != "free" || seen[0].Scope != "global" {
		t.Errorf("docker volume inspect: %+v %v", seen, err)
	}
	run := []string{"run", "--net=none", "--volume-driver=" + name, "-v", "db:/data"}
	with := func(args ...string) []string { return append(append([]string{}, run...), args...) }
	e.docker(with("--rm", image, "/bin/sh", "-c", "echo kept > /data/f")...)
	uid := m.uidOf("db")
	if c := m.claim(uid); c.State != lease.Free {
		t.Fatalf("after a run the claim is %+v", c)
	}

	e.docker(with("-d", "--name=one", "--stop-timeout=1", image, "/bin/sh", "-c", "while :; do echo x >> /data/log; sleep 0.05; done")...)
	held := m.claim(uid)
	if held.State != lease.Held || !strings.HasPrefix(held.Owner, "docker:") {
		t.Fatalf("claim %+v", held)
	}
	if err := json.Unmarshal([]byte(e.docker("volume", "inspect", "db")), &seen); err != nil || seen[0].Status["claim"] != "held" || seen[0].Status["holder"] != held.Owner || seen[0].Status["here"] != true {
		t.Errorf("docker volume inspect while it is used: %+v %v", seen, err)
	}
	if out, err := e.try(with("--rm", image, "/bin/cat", "/data/f")...); err == nil || !strings.Contains(out, "one container at a time") {
		t.Errorf("a second container: %v %s", err, out)
	}
	if out, err := e.try("volume", "rm", "db"); err == nil {
		t.Errorf("removed in use: %s", out)
	}

	// The isolator dies and comes back in time: the container never knows.
	m.kill()
	m.start("")
	log := filepath.Join(m.pool, "db", "data", "log")
	before := size(t, log)
	m.eventually("the container writes on", func() bool { return size(t, log) > before })
	if c := m.claim(uid); c.State != lease.Held || c.Epoch != held.Epoch {
		t.Errorf("claim %+v after the isolator's restart, was %+v", c, held)
	}

	// Docker dies and comes back: it finds the container dead or kills it, and starts it again on the same volume.
	e.kill()
	e.start()
	e.docker("start", "one")
	before = size(t, log)
	m.eventually("the container writes again", func() bool { return size(t, log) > before })
	if n := len(m.mounts()); n > 1 {
		t.Errorf("%d mounts", n)
	}
	e.docker("rm", "-f", "one")
	if c := m.claim(uid); c.State != lease.Free {
		t.Errorf("claim %+v after the container is gone\n%s", c, m.log())
	}
	if out := e.docker(with("--rm", image, "/bin/cat", "/data/f")...); out != "kept" {
		t.Errorf("content %q", out)
	}
	e.docker("volume", "rm", "db")
	if c := m.claim(uid); !c.Tombstone {
		t.Errorf("claim %+v after docker volume rm", c)
	}
}

func (m *machine) uidOf(name string) string {
	m.Helper()
	c, err := m.auth.ClaimByRef(bg, volume.Ref{Driver: "pool", Name: name})
	if err != nil {
		m.Fatal(err)
	}
	return c.VolumeUID
}

func size(t *testing.T, name string) int64 {
	t.Helper()
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return fi.Size()
}

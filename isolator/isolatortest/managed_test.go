package isolatortest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// managedConfig is what `docker plugin create` takes: the plugin mounts below /mnt, which Docker shows to the host.
const managedConfig = `{
  "description": "Docker's local driver, managed", "documentation": "none", "workdir": "/", "entrypoint": ["/localplugin", "-root", "/mnt/root", "-socket", "/run/docker/plugins/local.sock"],
  "interface": {"types": ["docker.volumedriver/1.0"], "socket": "local.sock"}, "network": {"type": "host"}, "propagatedMount": "/mnt",
  "linux": {"capabilities": ["CAP_SYS_ADMIN"], "allowAllDevices": true}
}`

// A plugin that a real Docker Engine runs in a container is found by its name, used by its socket, and its mounts are on the node where we say.
func TestHeavyManagedPlugin(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("dockerd"), heavy.Program("docker"), heavy.Program("busybox"))
	e := newEngine(t)
	plugin := filepath.Join(e.dir, "plugin")
	if err := os.MkdirAll(filepath.Join(plugin, "rootfs", "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"run/docker/plugins", "tmp", "proc", "sys", "dev", "etc"} {
		if err := os.MkdirAll(filepath.Join(plugin, "rootfs", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", filepath.Join(plugin, "rootfs", "localplugin"), ".")
	build.Dir, build.Env = filepath.Join("..", "..", "tools", "localplugin"), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build localplugin: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(plugin, "config.json"), []byte(managedConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	e.docker("plugin", "create", "test/local", plugin)
	managed := docker.Managed{Engine: filepath.Join(e.dir, "d.sock"), Sockets: docker.DefaultManaged().Sockets, Root: filepath.Join(e.dir, "data")}
	dirs := docker.Dirs{Managed: managed, Sockets: []string{filepath.Join(e.dir, "none")}}
	open := func(name string) *docker.Driver {
		t.Helper()
		d, err := docker.New(docker.Options{Name: name, Dirs: dirs})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if _, err := open("test/local").Get(bg, "v"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "docker plugin enable test/local") {
		t.Errorf("disabled: %v", err)
	}
	e.docker("plugin", "enable", "test/local")
	t.Cleanup(func() { _, _ = e.try("plugin", "rm", "-f", "test/local") })
	if _, err := open("test/other").Get(bg, "v"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("not there: %v", err)
	}
	if names := strings.Join(dirs.Names(), " "); names != "test/local" {
		t.Errorf("names %q", names)
	}
	managedLife(t, open("test/local:latest"))

	// Docker is stopped, and its files still say which plugin is which.
	dirs.Managed.Engine = filepath.Join(e.dir, "nobody.sock")
	managedLife(t, open("test/local"))
}

func managedLife(t *testing.T, d *docker.Driver) {
	t.Helper()
	if _, err := d.Get(bg, "vol"); !fault.Is(err, fault.NotFound) {
		t.Fatalf("get: %v", err)
	}
	if _, err := d.Create(bg, driver.Spec{Name: "vol", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=8m"}}); err != nil {
		t.Fatal(err)
	}
	path, err := d.Mount(bg, driver.MountSpec{Name: "vol", ID: "i"})
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Statfs_t
	if at, merr := mount.Is(path); merr != nil || !at || syscall.Statfs(path, &st) != nil || st.Type != 0x01021994 || st.Blocks*uint64(st.Bsize) != 8<<20 {
		t.Errorf("no tmpfs of 8 MiB at %s: %t %v", path, at, merr)
	}
	if again, err := d.Path(bg, "vol"); err != nil || again != path {
		t.Errorf("path %s %v", again, err)
	}
	if err := d.Unmount(bg, "vol", "i"); err != nil {
		t.Error(err)
	}
	if at, err := mount.Is(path); err != nil || at {
		t.Errorf("after unmount: %t %v", at, err)
	}
	if err := d.Remove(bg, "vol", ""); err != nil {
		t.Error(err)
	}
}

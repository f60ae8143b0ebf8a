package docker_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
	"github.com/holdfast-io/holdfast/isolator/driver/drivertest"
)

var ctx = context.Background()

func start(t *testing.T) (*dockertest.Plugin, *docker.Driver) {
	t.Helper()
	dir := shortDir(t)
	p, err := dockertest.Start(dir, "fake")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	d, err := docker.New(docker.Options{Name: "fake", Dirs: docker.Dirs{Sockets: []string{dir}, Specs: []string{dir}}, ReadLimit: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return p, d
}

// shortDir gives a directory whose sockets stay within 107 bytes.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSuite(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		_, d := start(t)
		return drivertest.Fixture{Driver: d}
	})
}

func TestSuiteLoose(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		p, d := start(t)
		p.LooseGet, p.LooseMount, p.Scope = true, true, "global"
		return drivertest.Fixture{Driver: d}
	})
}

// What a quirk makes of each call: NotFound only where the plugin has proved it, Unknown for the rest, and never success.
func TestQuirks(t *testing.T) {
	all := []dockertest.Quirk{dockertest.Err200, dockertest.Status500, dockertest.Slow, dockertest.Garbage, dockertest.Half, dockertest.Endless, dockertest.LostReply, dockertest.Refuse, dockertest.MultiLine}
	for _, q := range all {
		t.Run(string(q), func(t *testing.T) {
			t.Parallel()
			p, d := start(t)
			if _, err := d.Create(ctx, driver.Spec{Name: "v"}); err != nil {
				t.Fatal(err)
			}
			for _, m := range []string{"Get", "Create", "Mount", "Unmount", "Remove", "List", "Path"} {
				p.Set("VolumeDriver."+m, q)
			}
			calls := map[string]func(ctx context.Context) error{
				"get":    func(ctx context.Context) error { _, err := d.Get(ctx, "v"); return err },
				"create": func(ctx context.Context) error { _, err := d.Create(ctx, driver.Spec{Name: "w"}); return err },
				"mount": func(ctx context.Context) error {
					_, err := d.Mount(ctx, driver.MountSpec{Name: "v", ID: "i"})
					return err
				},
				"unmount": func(ctx context.Context) error { return d.Unmount(ctx, "v", "i") },
				"list":    func(ctx context.Context) error { _, err := d.List(ctx); return err },
				"path":    func(ctx context.Context) error { _, err := d.Path(ctx, "v"); return err },
				"remove":  func(ctx context.Context) error { return d.Remove(ctx, "v", "") },
			}
			for name, call := range calls {
				limit, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				err := call(limit)
				cancel()
				if !fault.Is(err, fault.Unknown) {
					t.Errorf("%s: %v (class %q), want unknown", name, err, fault.ClassOf(err))
				}
				if err != nil && strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: error of several lines %q", name, err)
				}
			}
		})
	}
}

// A call with an effect is sent once, also when its reply is lost.
func TestEffectOnce(t *testing.T) {
	p, d := start(t)
	p.Set("VolumeDriver.Create", dockertest.LostReply)
	if _, err := d.Create(ctx, driver.Spec{Name: "v"}); !fault.Is(err, fault.Unknown) {
		t.Fatal(err)
	}
	if n := p.Count("VolumeDriver.Create"); n != 1 {
		t.Errorf("sent %d times", n)
	}
	if _, err := d.Get(ctx, "v"); err != nil {
		t.Errorf("the effect was done: %v", err)
	}
}

func TestEmptyAnswers(t *testing.T) {
	p, d := start(t)
	for _, q := range []dockertest.Quirk{dockertest.Empty200, dockertest.Null} {
		for _, m := range []string{"Get", "Mount", "List", "Path", "Capabilities", "Create", "Unmount", "Remove"} {
			p.Set("VolumeDriver."+m, q)
		}
		if _, err := d.Get(ctx, "v"); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: get: %v", q, err)
		}
		if path, err := d.Mount(ctx, driver.MountSpec{Name: "v", ID: "i"}); !fault.Is(err, fault.Unknown) {
			t.Errorf("%s: mount: %q %v", q, path, err)
		}
		if path, err := d.Path(ctx, "v"); path != "" || err != nil {
			t.Errorf("%s: path: %q %v", q, path, err)
		}
		if all, err := d.List(ctx); len(all) != 0 || err != nil {
			t.Errorf("%s: list: %v %v", q, all, err)
		}
		if f, err := d.Facts(ctx); f.Scope != driver.ScopeNode || err != nil {
			t.Errorf("%s: facts: %+v %v", q, f, err)
		}
		if err := d.Unmount(ctx, "v", "i"); err != nil { // these say nothing in success, too
			t.Errorf("%s: unmount: %v", q, err)
		}
		if err := d.Remove(ctx, "v", ""); err != nil {
			t.Errorf("%s: remove: %v", q, err)
		}
	}
	p.Set("VolumeDriver.Mount", "")
	p.Set("VolumeDriver.Get", dockertest.OtherName)
	if _, err := d.Get(ctx, "v"); !fault.Is(err, fault.Unknown) {
		t.Errorf("another volume: %v", err)
	}
}

// A failed mount that leaves a volume in the list has not made one: Get decides.
func TestPhantoms(t *testing.T) {
	p, d := start(t)
	p.Phantoms = true
	if _, err := d.Mount(ctx, driver.MountSpec{Name: "ghost", ID: "i"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("mount: %v", err)
	}
	if all, err := d.List(ctx); err != nil || len(all) != 1 {
		t.Errorf("list: %v %v", all, err)
	}
	if _, err := d.Get(ctx, "ghost"); !fault.Is(err, fault.NotFound) {
		t.Errorf("get: %v", err)
	}
}

func TestRestartOfPlugin(t *testing.T) {
	p, d := start(t)
	if _, err := d.Create(ctx, driver.Spec{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mount(ctx, driver.MountSpec{Name: "v", ID: "i"}); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	if _, err := d.Get(ctx, "v"); !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown) {
		t.Errorf("while it is down: %v", err)
	}
	if err := p.Listen(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(ctx, "v"); err != nil {
		t.Errorf("after: %v", err)
	}
	if err := d.Unmount(ctx, "v", "i"); err != nil {
		t.Errorf("unmount of what it forgot: %v", err)
	}
}

// A plugin whose socket is there and answers nobody is waited for by who has patience, and by nobody else.
func TestPatience(t *testing.T) {
	p, d := start(t)
	if _, err := d.Get(ctx, "v"); !fault.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	p.Stop()
	l, err := net.Listen("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a killed plugin leaves it
	if _, err := d.Get(ctx, "v"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("no patience: %v", err)
	}
	patient, err := docker.New(docker.Options{Name: "fake", Dirs: docker.Dirs{Sockets: []string{filepath.Dir(p.Socket)}}, Patience: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() {
		if err := p.Listen(); err != nil {
			t.Error(err)
		}
	})
	if _, err := patient.Get(ctx, "v"); !fault.Is(err, fault.NotFound) {
		t.Errorf("patience: %v", err)
	}
	nobody, err := docker.New(docker.Options{Name: "nobody", Dirs: docker.Dirs{Sockets: []string{filepath.Dir(p.Socket)}}, Patience: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Get(ctx, "v"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one that announces itself nowhere: %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	p, d := start(t)
	p.Set("VolumeDriver.Capabilities", dockertest.Unknown)
	if f, err := d.Facts(ctx); err != nil || f.Scope != driver.ScopeNode {
		t.Errorf("without the call: %+v %v", f, err)
	}
	p2, d2 := start(t)
	p2.Scope = "global"
	if f, err := d2.Facts(ctx); err != nil || f.Scope != driver.ScopeCluster {
		t.Errorf("global: %+v %v", f, err)
	}
}

func TestDiscovery(t *testing.T) {
	dir := shortDir(t)
	p, err := dockertest.Start(dir, "real")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("byspec.spec", "unix://"+p.Socket+"\n")
	write("byjson.json", `{"Name":"byjson","Addr":"unix://`+p.Socket+`"}`)
	if got := strings.Join((docker.Dirs{Sockets: []string{dir}, Specs: []string{dir}}).Names(), " "); got != "byjson byspec real" {
		t.Errorf("names: %s", got)
	}
	write("badspec.spec", "ftp://host")
	write("badjson.json", "{")
	for name, want := range map[string]fault.Class{"real": fault.NotFound, "byspec": fault.NotFound, "byjson": fault.NotFound,
		"badspec": fault.Invalid, "badjson": fault.Invalid, "nobody": fault.Unavailable, "a/b": fault.Unavailable} {
		d, err := docker.New(docker.Options{Name: name, Dirs: docker.Dirs{Sockets: []string{dir}, Specs: []string{dir}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Get(ctx, "v"); !fault.Is(err, want) {
			t.Errorf("%s: %v (class %q), want %q", name, err, fault.ClassOf(err), want)
		}
	}
	if _, err := docker.New(docker.Options{Name: "../x"}); err == nil {
		t.Error("a driver name that leaves the directory was taken")
	}
}

// The words of real plugins, as recorded or met.
func TestWords(t *testing.T) {
	_, d := start(t)
	for text, want := range map[string]fault.Class{
		"volume not found": fault.NotFound, "no such volume": fault.NotFound, "Volume v not found": fault.NotFound, "volume v does not exist": fault.NotFound,
		"get v: no such volume": fault.NotFound, "Unknown volume": fault.NotFound,
		"connection refused": fault.Unknown, "didn't find section in config file": fault.Unknown, "timeout looking for volume": fault.Unknown,
		"host not found": fault.Unknown, "token not found": fault.Unknown, "mount helper not found": fault.Unknown,
	} {
		if got := docker.ClassOfWords("VolumeDriver.Get", text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	if got := docker.ClassOfWords("VolumeDriver.Create", "volume already exists"); got != fault.Exists {
		t.Errorf("exists: %q", got)
	}
	if err := d.Unmount(ctx, "v", "i"); err != nil {
		t.Errorf("unmount of nothing: %v", err)
	}
}

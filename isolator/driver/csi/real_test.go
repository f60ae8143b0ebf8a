package csi_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/csiplugin"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csi"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
	"github.com/holdfast-io/holdfast/isolator/driver/drivertest"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

var bg = context.Background()

// The test binary is also the plugin, and a process that takes a volume through its life, told by its first argument.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case "test-plugin":
			backend, _ := os.ReadFile(filepath.Join(os.Args[2], "backend"))
			p, err := csiplugin.New(csiplugin.Options{Pool: filepath.Join(os.Args[2], "pool"), NodeID: "n1", Scope: driver.ScopeNode, Backend: string(backend),
				Mounts: filepath.Join(os.Args[2], "shown"), Size: 16 << 20})
			if err == nil {
				err = p.Serve(bg, "unix://"+filepath.Join(os.Args[2], "csi.sock"))
			}
			fmt.Fprintln(os.Stderr, "plugin:", err)
			os.Exit(1)
		case "test-fake-life":
			if err := csi.FakeLife(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, "life:", err)
				os.Exit(1)
			}
			os.Exit(0)
		case "test-life":
			if err := life(os.Args[2]); err != nil {
				fmt.Fprintln(os.Stderr, "life:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func open(dir, node string) (*csi.Driver, error) {
	return csi.New(csi.Options{Name: "csi/pool", Endpoint: "unix://" + filepath.Join(dir, "csi.sock"), Dir: filepath.Join(dir, node), Mounts: filepath.Join(dir, node, "mounts"),
		Names: filepath.Join(dir, "names"), Node: node, LookLimit: 5 * time.Second, CallLimit: 5 * time.Second})
}

var one = driver.MountSpec{Name: "v", UID: "u", ID: "e1"}

// life does what it finds not done, and does all of it however far an earlier one came.
func life(dir string) error {
	d, err := open(dir, "n1")
	if err != nil {
		return err
	}
	_, err = d.Create(bg, driver.Spec{Name: "v", UID: "u", Size: 16 << 20})
	if fault.Is(err, fault.Conflict) { // an earlier life ended while it was being removed: the isolator's journal goes on with that first
		if err := d.Remove(bg, "v", "u"); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		_, err = d.Create(bg, driver.Spec{Name: "v", UID: "u", Size: 16 << 20})
	}
	if err != nil {
		return err
	}
	path, err := d.Mount(bg, one)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o600); err != nil {
		return err
	}
	facts, err := d.Facts(bg)
	if err != nil {
		return err
	}
	if facts.Grows != "" {
		if _, err := d.Grow(bg, "v", "u", 32<<20); err != nil {
			return err
		}
	}
	if err := d.Unmount(bg, "v", "e1"); err != nil {
		return err
	}
	if facts.Snapshots {
		if _, err := d.Snapshot(bg, "v", "u", "s"); err != nil && !fault.Is(err, fault.Conflict) { // an earlier life ended while it was being removed
			return err
		}
		if err := d.RemoveSnapshot(bg, "v", "s"); err != nil {
			return err
		}
	}
	if err := d.Remove(bg, "v", "u"); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

type plugin struct {
	*testing.T
	dir string
	cmd *exec.Cmd
}

// startPlugin runs the real plugin as a process, over directories.
func startPlugin(t *testing.T) *plugin {
	t.Helper()
	return startPluginOn(t, pool.Dir, "")
}

// startPluginOn runs it over another back end, with the pool on a new file system of the kind fs.
func startPluginOn(t *testing.T, backend, fs string) *plugin {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfr")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "backend"), []byte(backend), 0o600); err != nil {
		t.Fatal(err)
	}
	if fs != "" {
		image, at := filepath.Join(dir, "image"), filepath.Join(dir, "pool")
		for _, c := range [][]string{{"mkdir", at}, {"truncate", "-s", "4G", image}, {"mkfs." + fs, "-q", image}, {"mount", "-o", "loop", image, at}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", c, err, out)
			}
		}
	}
	p := &plugin{T: t, dir: dir}
	t.Cleanup(func() {
		p.kill()
		left, err := mount.Under(dir)
		if fs != "" {
			left = slices.DeleteFunc(left, func(m mount.Mount) bool { return m.Point == filepath.Join(dir, "pool") })
		}
		if err != nil || len(left) > 0 {
			t.Errorf("left mounted: %v %v", left, err)
		}
		for i := len(left) - 1; i >= 0; i-- {
			_ = mount.Unmount(bg, left[i].Point)
		}
		if fs != "" {
			if err := mount.Unmount(bg, filepath.Join(dir, "pool")); err != nil {
				t.Error(err)
			}
		}
		os.RemoveAll(dir)
	})
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plugin) start() error {
	p.cmd = exec.Command("/proc/self/exe", "test-plugin", p.dir)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	d, err := open(p.dir, "wait")
	if err != nil {
		return err
	}
	defer d.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err = d.Facts(bg); err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (p *plugin) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// TestHeavySuitePool takes the driver through the conformance suite over the real plugin and real mounts.
func TestHeavySuitePool(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.xfs"), heavy.Program("mkfs.btrfs"))
	for backend, fs := range map[string]string{pool.Dir: "", pool.Loop: "xfs", pool.Btrfs: "btrfs"} {
		t.Run(backend, func(t *testing.T) {
			drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
				p, nodes := startPluginOn(t, backend, fs), 0
				again := func() driver.Driver {
					nodes++
					d, err := open(p.dir, fmt.Sprint("n", nodes))
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { d.Close() })
					return d
				}
				return drivertest.Fixture{Driver: again(), Again: again, KeepsUID: true, Options: map[string]string{"size": "16M"}}
			})
		})
	}
}

// TestHeavyKillDriver kills the driver's process at every step; the next process finishes, and nothing is left.
func TestHeavyKillDriver(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("mkfs.btrfs"))
	p := startPluginOn(t, pool.Btrfs, "btrfs")
	reached := 0
	for _, step := range csistage.CrashSteps {
		cmd := exec.Command("/proc/self/exe", "test-life", p.dir)
		var out bytes.Buffer
		cmd.Env, cmd.Stderr = append(os.Environ(), csistage.CrashVariable+"="+step), &out
		err := cmd.Run()
		if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() && st.Signal() == syscall.SIGKILL {
			reached++
		} else if err != nil {
			t.Errorf("%s: %v\n%s", step, err, out.String())
		}
		if err := life(p.dir); err != nil {
			t.Errorf("after a kill at %s: %v", step, err)
		}
		if left, err := mount.Under(p.dir); err != nil || len(left) != 1 { // the pool
			t.Errorf("after a kill at %s: mounted %v %v", step, left, err)
		}
		for _, what := range []string{"names/*.json", "names/snapshots/*.json", "n1/ledger/*.json", "n1/staging/[a-z]*", "n1/mounts/csi/pool/[a-z]*"} {
			if left, err := filepath.Glob(filepath.Join(p.dir, what)); err != nil || len(left) > 0 {
				t.Errorf("after a kill at %s: %v %v", step, left, err)
			}
		}
	}
	want := 0
	d, err := open(p.dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	facts, err := d.Facts(bg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range csistage.CrashSteps {
		// The plugin has no attach of its own, so those steps are never come to.
		if !strings.Contains(s, "tach") && (facts.Snapshots || !strings.Contains(s, "snapshot")) && (facts.Grows != "" || !strings.HasPrefix(s, "grow")) {
			want++
		}
	}
	if reached != want {
		t.Errorf("%d steps reached, want %d", reached, want)
	}
}

// TestHeavyKillPlugin kills the plugin at random moments while volumes live, and starts it again: no call says more than is true,
// nothing is lost and nothing leaks.
func TestHeavyKillPlugin(t *testing.T) {
	heavy.Require(t, heavy.Root)
	p := startPlugin(t)
	d, err := open(p.dir, "n1")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	random := rand.New(rand.NewPCG(1, 2))
	killed := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(killed)
		for range 12 {
			time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
			p.kill()
			if err := p.start(); err != nil {
				t.Error(err)
			}
		}
		close(stop)
	}()
	until := func(what string, do func() error) {
		var err error
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); {
			if err = do(); err == nil {
				return
			}
			if !fault.Is(err, fault.Unknown) && !fault.Is(err, fault.Unavailable) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	rounds := 0
	for running := true; running; rounds++ {
		select {
		case <-stop:
			running = false
		default:
		}
		until("create", func() error { _, err := d.Create(bg, driver.Spec{Name: "v", UID: "u", Size: 16 << 20}); return err })
		until("mount", func() error { _, err := d.Mount(bg, one); return err })
		if err := os.WriteFile(filepath.Join(d.WillMountAt("v"), "f"), []byte("kept"), 0o600); err != nil {
			t.Fatal(err)
		}
		until("unmount", func() error { return d.Unmount(bg, "v", "e1") })
		until("mount", func() error { _, err := d.Mount(bg, one); return err })
		if raw, err := os.ReadFile(filepath.Join(d.WillMountAt("v"), "f")); err != nil || string(raw) != "kept" {
			t.Fatalf("%q %v", raw, err)
		}
		until("unmount", func() error { return d.Unmount(bg, "v", "e1") })
		until("remove", func() error {
			err := d.Remove(bg, "v", "u")
			if fault.Is(err, fault.NotFound) {
				return nil
			}
			return err
		})
	}
	<-killed
	t.Logf("%d lives under 12 kills", rounds)
}

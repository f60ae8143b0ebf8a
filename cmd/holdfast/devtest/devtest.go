// Package devtest starts `holdfast dev` clusters for heavy tests: the real programs, built once, in processes of their own. A
// cluster is stopped with its test, and must then have left nothing behind.
package devtest

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Cluster is a running cluster.
type Cluster struct {
	*dev.Process
	Dir string
	Bin string // directory of the programs
	t   testing.TB
}

var build = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("HOLDFAST_BIN"); bin != "" {
		return bin, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("make", "--no-print-directory", "build")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	return filepath.Join(root, "bin"), cmd.Run()
})

// Root is the top of the checkout.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fault.New(fault.NotFound, "no go.mod above the working directory")
		}
		dir = up
	}
}

// Bin gives the directory of the programs: HOLDFAST_BIN, or the checkout's bin/ built now.
func Bin(t testing.TB) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	return bin
}

// Start runs a cluster in a directory that any user can reach. At the end of the test it is stopped in good order.
func Start(t testing.TB, args ...string) *Cluster {
	t.Helper()
	return start(t, openDir(t), args)
}

// StartOn is Start on a file system of its own in memory, with mount options such as size=48m. It needs root.
func StartOn(t testing.TB, options string, args ...string) *Cluster {
	t.Helper()
	top := openDir(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "mode=711,"+options, "tmpfs", top).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", top).Run() })
	return start(t, top, args)
}

// StartOnXFS is Start on an xfs of its own, whose files can share blocks, as snapshots and clones of loop pools want. It needs root.
func StartOnXFS(t testing.TB, size string, args ...string) *Cluster {
	t.Helper()
	top, image := openDir(t), filepath.Join(t.TempDir(), "disk")
	for _, argv := range [][]string{{"truncate", "-s", size, image}, {"mkfs.xfs", "-q", image}, {"mount", "-o", "loop", image, top}, {"chmod", "711", top}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", top).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return start(t, top, args)
}

func start(t testing.TB, top string, args []string) *Cluster {
	t.Helper()
	c := &Cluster{Dir: filepath.Join(top, "state"), Bin: Bin(t), t: t}
	c.Spawn(args...)
	t.Cleanup(c.finish)
	return c
}

// openDir makes a directory that any user can reach. Not t.TempDir: its parents are closed to other users, whom examples run as.
func openDir(t testing.TB) string {
	t.Helper()
	top, err := os.MkdirTemp("/tmp", "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	if err := os.Chmod(top, 0o711); err != nil {
		t.Fatal(err)
	}
	return top
}

// Spawn starts the cluster again, after Stop or Kill.
func (c *Cluster) Spawn(args ...string) {
	c.t.Helper()
	p, err := dev.Spawn(context.Background(), filepath.Join(c.Bin, "holdfast"), c.Dir, args...)
	if err != nil {
		raw, _ := os.ReadFile(c.Dir + ".log")
		c.t.Fatalf("%v\n%s", err, raw)
	}
	c.Process = p
}

func (c *Cluster) finish() {
	select {
	case <-c.Ended: // the test has stopped it itself
	default:
		if err := c.Stop(); err != nil {
			c.t.Error(err)
		}
	}
	left, err := dev.Leftovers(c.Dir)
	if err != nil || len(left) > 0 {
		c.t.Errorf("left behind: %v, %v", left, err)
	}
	if c.t.Failed() {
		c.showLogs()
	}
}

// showLogs prints the end of every log, and of what the latest tasks wrote to stderr: the directory is about to go.
func (c *Cluster) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(c.Dir, "logs", "*.log"))
	for _, name := range append(append(logs, c.Dir+".log"), c.latestErrors(4)...) {
		raw, err := os.ReadFile(name)
		if err == nil && len(raw) > 0 {
			c.t.Logf("---- end of %s\n%s", name, raw[max(0, len(raw)-6000):])
		}
	}
}

func (c *Cluster) latestErrors(n int) []string {
	type file struct {
		name string
		at   time.Time
	}
	var files []file
	_ = filepath.WalkDir(filepath.Join(c.Dir, "nodes"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "stderr" {
			if info, err := d.Info(); err == nil {
				files = append(files, file{path, info.ModTime()})
			}
		}
		return nil
	})
	slices.SortFunc(files, func(a, b file) int { return b.at.Compare(a.at) })
	var names []string
	for _, f := range files[:min(n, len(files))] {
		names = append(names, f.name)
	}
	return names
}

// Await polls until done says so, and fails the test after the limit. Errors of a framework that is away for a moment are waited out.
func Await(t testing.TB, what string, limit time.Duration, done func(ctx context.Context) (bool, string, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	now := ""
	for {
		ok, n, err := done(ctx)
		switch {
		case err == nil && ok:
			return
		case err != nil:
			now = err.Error()
			if c := fault.ClassOf(err); c != fault.Unavailable && c != fault.Unknown && c != fault.NotFound {
				t.Fatalf("%s: %v", what, err)
			}
		default:
			now = n
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %s", what, limit, now)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// Running waits until an app has all its instances running, healthy where they have checks, and nothing under way.
func (c *Cluster) Running(app string, instances int) []client.Instance {
	c.t.Helper()
	var list []client.Instance
	Await(c.t, app+" runs", 90*time.Second, func(ctx context.Context) (bool, string, error) {
		a, err := c.API.App(ctx, app)
		if err != nil {
			return false, "", err
		}
		list, err = c.API.Instances(ctx, app)
		return err == nil && a.Instances == instances && a.Running == instances && a.Stopping == 0 && a.Deployment == "" && a.Unhealthy == 0, a.Status, err
	})
	return list
}

// Relaunched waits until an instance runs again with a later incarnation, and gives it.
func (c *Cluster) Relaunched(before client.Instance) client.Instance {
	c.t.Helper()
	var now *client.Instance
	Await(c.t, before.ID+" runs again", 90*time.Second, func(ctx context.Context) (bool, string, error) {
		i, err := c.API.Instance(ctx, before.ID)
		if err != nil {
			return false, "", err
		}
		now = i
		why := i.Phase
		if i.Why != nil {
			why += ": " + i.Why.Summary
		}
		return i.Phase == "running" && i.Incarnation > before.Incarnation && (i.Healthy == nil || *i.Healthy), why, nil
	})
	return *now
}

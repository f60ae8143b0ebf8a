package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// count asks an instance of examples/counter, which may have only just started; add counts first.
func count(t *testing.T, i client.Instance, add bool) string {
	t.Helper()
	method := http.MethodGet
	if add {
		method = http.MethodPost
	}
	answer := ""
	devtest.Await(t, i.ID+" answers", 10*time.Second, func(ctx context.Context) (bool, string, error) {
		req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d/", i.Ports[0]), nil)
		if err != nil {
			return false, "", err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err.Error(), nil // refused: it does not listen yet
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		answer = strings.TrimSpace(string(body))
		return true, "", err
	})
	return answer
}

func submit(t *testing.T, c *devtest.Cluster, example string) {
	t.Helper()
	root, err := devtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(filepath.Join(root, "examples", example, "app.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.API.PutApp(t.Context(), json.RawMessage(body), client.PutOptions{CreateOnly: true}); err != nil {
		t.Fatal(err)
	}
}

// TestHeavyResume stops a cluster in good order, and then kills its supervisor, and each time wants everything back.
func TestHeavyResume(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	submit(t, c, "counter")
	before := c.Running("/counter", 3)
	for n, i := range before {
		for range n + 1 {
			count(t, i, true)
		}
	}
	info, err := c.API.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name string
		end  func()
	}{
		{"stop", func() {
			if err := c.Stop(); err != nil {
				t.Fatal(err)
			}
			if left, err := dev.Leftovers(c.Dir); err != nil || len(left) > 0 {
				t.Fatalf("left behind: %v, %v", left, err)
			}
		}},
		{"kill -9", func() { c.Kill() }},
	} {
		end.end()
		c.Spawn()
		// Runs of before may be shown until the framework knows better.
		after := make([]client.Instance, len(before))
		for n := range before {
			after[n] = c.Relaunched(before[n])
		}
		c.Running("/counter", 3)
		now, err := c.API.Info(t.Context())
		if err != nil || now.FrameworkID != info.FrameworkID || now.Cluster != info.Cluster {
			t.Fatalf("after %s: %+v, %v; it was %+v", end.name, now, err, info)
		}
		for n, i := range after {
			if i.Volumes[0].UID != before[n].Volumes[0].UID {
				t.Errorf("after %s: %s has volume %s, not %s", end.name, i.ID, i.Volumes[0].UID, before[n].Volumes[0].UID)
			}
			if got := count(t, i, false); got != fmt.Sprint(n+1) {
				t.Errorf("after %s: %s is at %s, not %d", end.name, i.ID, got, n+1)
			}
		}
		before = after
	}
}

// TestHeavyPartition pulls an agent's cables while its tasks go on: the volume follows only after the node has given it up.
func TestHeavyPartition(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	submit(t, c, "counter")
	i := c.Running("/counter", 3)[0]
	count(t, i, true)
	if _, err := c.Control.Agent(t.Context(), i.Hostname, "partition", dev.Order{FromMaster: true, FromAuthority: true}); err != nil {
		t.Fatal(err)
	}
	now := c.Relaunched(i)
	if now.Hostname == i.Hostname {
		t.Fatalf("%s runs on %s again", now.ID, now.Hostname)
	}
	if got := count(t, now, false); got != "1" {
		t.Errorf("it is at %s", got)
	}
	if conn, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", i.Ports[0])); err == nil {
		conn.Body.Close()
		t.Error("the old run still answers on the agent that was cut off: two writers")
	}
	if _, err := c.Control.Agent(t.Context(), i.Hostname, "heal", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	c.Running("/counter", 3)
}

// TestHeavyOneAtATime starts second clusters that collide with a running one.
func TestHeavyOneAtATime(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t, "--agents", "1")
	program := filepath.Join(c.Bin, "holdfast")
	run := func(args ...string) (int, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, program, append([]string{"dev"}, args...)...).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); ok {
			return exit.ExitCode(), string(out)
		}
		return 0, string(out)
	}
	if code, out := run("--dir", c.Dir, "--port", "1"); code != fault.ExitConflict || !strings.Contains(out, "runs on "+c.Dir+" already") {
		t.Errorf("same directory: exit %d: %s", code, out)
	}
	port := c.URL[strings.LastIndexByte(c.URL, ':')+1:]
	if code, out := run("--dir", t.TempDir(), "--port", port); code != fault.ExitConflict || !strings.Contains(out, "--port") {
		t.Errorf("same port: exit %d: %s", code, out)
	}
	if err := c.API.Ping(t.Context()); err != nil {
		t.Errorf("the first one suffered: %v", err)
	}
}

// TestHeavyDemoAsAnyUser runs the demo as a user without any rights.
func TestHeavyDemoAsAnyUser(t *testing.T) {
	heavy.Require(t, heavy.Root)
	home, err := os.MkdirTemp("/tmp", "holdfast-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(devtest.Bin(t), "holdfast"), "demo")
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + home, "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestHeavyUnusableDirectories starts on a full and on a read-only file system: a clear error, and nothing is left running.
func TestHeavyUnusableDirectories(t *testing.T) {
	heavy.Require(t, heavy.Root)
	program := filepath.Join(devtest.Bin(t), "holdfast")
	for _, c := range []struct{ name, options, want string }{
		{"full", "size=64k", "no space left on device"},
		{"read-only", "size=1m,ro", "read-only file system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", c.options, "tmpfs", dir).CombinedOutput(); err != nil {
				t.Fatalf("mount: %v: %s", err, out)
			}
			defer syscall.Unmount(dir, 0)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, program, "dev", "--dir", filepath.Join(dir, "state"), "--port", "1").CombinedOutput()
			exit := new(exec.ExitError)
			if !errors.As(err, &exit) || exit.ExitCode() != fault.ExitUnavailable || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "--dir") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestHeavyFullWhileRunning fills the file system under a running cluster: orders are refused clearly, nothing that was there is
// lost, and when there is room again it goes on.
func TestHeavyFullWhileRunning(t *testing.T) {
	heavy.Require(t, heavy.Root)
	c := devtest.StartOn(t, "size=48m", "--agents", "2")
	submit(t, c, "counter")
	i := c.Running("/counter", 3)[0]
	count(t, i, true)
	filler := filepath.Join(c.Dir, "filler")
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=64k").CombinedOutput(); err == nil {
		t.Fatalf("it is not full: %s", out)
	}
	var refused error
	for n := range 200 { // what is left in pages that the files have already
		app := sleeperApp(fmt.Sprintf("/full%d", n), 1, false)
		if _, refused = c.API.PutApp(t.Context(), app, client.PutOptions{CreateOnly: true}); refused != nil {
			break
		}
	}
	t.Logf("with a full disk: %v", refused)
	if refused != nil && !fault.Is(refused, fault.Unavailable) && !fault.Is(refused, fault.Unknown) {
		t.Errorf("refused as %v", fault.ClassOf(refused))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "it goes on", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := c.API.PutApp(ctx, sleeperApp("/after", 1, true), client.PutOptions{})
		return err == nil, "", err
	})
	c.Running("/after", 1)
	if got := count(t, c.Running("/counter", 3)[0], false); got != "1" {
		t.Errorf("counter.0 is at %s", got)
	}
}

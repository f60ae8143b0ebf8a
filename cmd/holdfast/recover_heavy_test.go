package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// frameworkOf finds a cluster's framework process: its pid and arguments.
func frameworkOf(t *testing.T, c *devtest.Cluster) (pid int, args []string) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
		if len(args) > 2 && args[1] == "framework" && strings.Contains(string(raw), filepath.Join(c.Dir, "framework")) {
			if pid, err := strconv.Atoi(strings.Split(name, "/")[2]); err == nil {
				return pid, args
			}
		}
	}
	t.Fatal("the cluster has no framework process")
	return 0, nil
}

func argOf(t *testing.T, args []string, flag string) string {
	t.Helper()
	for i, a := range args {
		if a == flag && i+1 < len(args) {
			return args[i+1]
		}
	}
	t.Fatalf("the framework was started without %s: %q", flag, args)
	return ""
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %v", url, resp.StatusCode, err)
	}
	return string(raw)
}

// The store is lost while everything runs. It is rebuilt from the master, the authority and the apps' definitions: the same tasks go on with the same volumes, none is
// restarted, and an instance that is restarted afterwards finds its data.
func TestHeavyStateRecover(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	submit(t, c, "counter")
	submit(t, c, "local-counter")
	before := c.Running("/counter", 3)
	for n, i := range before {
		for range n + 1 {
			count(t, i, true)
		}
	}
	devtest.Await(t, "local-counter runs", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		list, err := c.API.Instances(ctx, "/local-counter")
		ok := len(list) > 0
		for _, i := range list {
			ok = ok && i.Phase == "running"
		}
		return ok, fmt.Sprintf("%+v", list), err
	})
	local, err := c.API.Instances(t.Context(), "/local-counter")
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.API.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	apps := filepath.Join(t.TempDir(), "apps.json")
	if err := os.WriteFile(apps, []byte(get(t, c.URL+"/v2/apps")), 0o600); err != nil {
		t.Fatal(err)
	}
	pid, args := frameworkOf(t, c)
	dir, fresh := filepath.Join(c.Dir, "framework"), filepath.Join(c.Dir, "framework.new")
	recovering := []string{"state", "recover", "--dir", fresh, "--master", argOf(t, args, "--master"), "--authority", argOf(t, args, "--authority"), "--apps", apps}
	if code, _, errs := hf(t, "", recovering...); code == 0 || !strings.Contains(errs, "is connected") {
		t.Errorf("recovery beside a running framework: %d %s", code, errs)
	}
	// The directory is lost, and a file in its place keeps the supervisor from starting on nothing.
	if err := os.Rename(dir, dir+".lost"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var out, errs string
	devtest.Await(t, "the master sees that the framework is away", 20*time.Second, func(context.Context) (bool, string, error) {
		code := 0
		code, out, errs = hf(t, "", recovering...)
		return code == 0, errs, nil
	})
	t.Logf("plan:\n%s", out)
	if _, err := os.Stat(fresh); err == nil {
		t.Error("without --apply something was written")
	}
	var plan struct {
		Instances []struct{ Task string }
		Volumes   []struct{ App string }
		Unknown   []struct{ Task string } `json:"unknownTasks"`
	}
	if err := json.Unmarshal([]byte(hfOK(t, "", append([]string{"-o", "json"}, recovering...)...)), &plan); err != nil || len(plan.Instances) != 3+len(local) || len(plan.Volumes) != 3 || len(plan.Unknown) != 0 {
		t.Fatalf("%v %+v", err, plan)
	}
	if code, _, errs := hf(t, "", append(append([]string{}, recovering[:len(recovering)-1]...), filepath.Join(mustRoot(t), "examples", "counter", "app.json"), "--apply")...); code == 0 || !strings.Contains(errs, "would be killed") {
		t.Errorf("an app was not given: %d %s", code, errs)
	}
	hfOK(t, "", append(recovering, "--apply")...)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "the framework is back", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		now, err := c.API.Info(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return now.FrameworkID == info.FrameworkID && now.Cluster == info.Cluster, fmt.Sprintf("%+v", now), nil
	})
	same := func(app string, want []client.Instance) {
		t.Helper()
		list, err := c.API.Instances(t.Context(), app)
		if err != nil || len(list) != len(want) {
			t.Fatalf("%s: %v %+v", app, err, list)
		}
		for n, i := range list {
			if i.Task != want[n].Task || i.Phase != "running" {
				t.Errorf("%s is %s with task %s, it was %s", i.ID, i.Phase, i.Task, want[n].Task)
			}
		}
	}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(time.Second) { // long enough for reconciliation and offers
		same("/counter", before)
		same("/local-counter", local)
	}
	now := c.Running("/counter", 3)
	for n, i := range now {
		if got := count(t, i, false); got != fmt.Sprint(n+1) || i.Volumes[0].UID != before[n].Volumes[0].UID {
			t.Errorf("%s is at %s with volume %s", i.ID, got, i.Volumes[0].UID)
		}
	}
	// A restart goes the whole way: kill, claim free, new epoch, same volume.
	if _, err := c.API.RestartInstance(t.Context(), now[1].ID); err != nil {
		t.Fatal(err)
	}
	again := c.Relaunched(now[1])
	if got := count(t, again, false); got != "2" || again.Volumes[0].UID != before[1].Volumes[0].UID {
		t.Errorf("after a restart: %s with %s", got, again.Volumes[0].UID)
	}
}

func mustRoot(t *testing.T) string {
	t.Helper()
	root, err := devtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

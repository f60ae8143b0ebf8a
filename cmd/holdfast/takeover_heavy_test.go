package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// TestHeavyImport takes apps over from a Marathon: a volume that another app left is a conflict until it is passed on, its data is there afterwards, and
// a volume that is not there is waited for, not made.
func TestHeavyImport(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	holdfast := func(wantExit int, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), filepath.Join(c.Bin, "holdfast"), append([]string{"--api", c.URL}, args...)...).CombinedOutput()
		code := 0
		if exit, ok := err.(*exec.ExitError); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != wantExit {
			t.Fatalf("holdfast %v: exit %d, want %d\n%s", args, code, wantExit, out)
		}
		return string(out)
	}
	volumes := func(name string) string {
		return `"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"` + name + `","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}`
	}
	old := `{"id":"/old","cmd":"echo precious > data/file; exec sleep 1000","cpus":0.1,"mem":16,` + volumes("pgdata") + `}`
	if _, err := c.API.PutApp(t.Context(), json.RawMessage(old), client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	c.Running("/old", 1)
	marathon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/groups" || len(r.URL.Query()["embed"]) != 3 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write([]byte(`{"id":"/","apps":[{"id":"/web","cmd":"exec sleep 1000","cpus":0.1,"mem":16,"role":"*","version":"2020-01-01T00:00:00.000Z","tasksRunning":1,"dependencies":["/prod"],
			"versionInfo":{"lastScalingAt":"2020-01-01T00:00:00.000Z","lastConfigChangeAt":"2020-01-01T00:00:00.000Z"}},
			{"id":"/bad","cmd":"exec sleep 1000","executorResources":{"cpus":0.1,"mem":32,"disk":10}}],
			"groups":[{"id":"/prod","groups":[],"apps":[{"id":"/prod/db","cmd":"cat data/file > seen; exec sleep 1000","cpus":0.1,"mem":16,` + volumes("pgdata") + `},
			{"id":"/prod/gone","cmd":"exec sleep 1000","cpus":0.1,"mem":16,` + volumes("nowhere") + `}]}]}`))
	}))
	defer marathon.Close()

	plan := holdfast(4, "import", "marathon", marathon.URL)
	for _, want := range []string{"conflict: it is a volume of /old", "pool/nowhere", "/bad: refused: /executorResources", "/web"} {
		if !strings.Contains(plan, want) {
			t.Errorf("no %q in the plan:\n%s", want, plan)
		}
	}
	if apps, err := c.API.Apps(t.Context()); err != nil || len(apps) != 1 {
		t.Fatalf("the plan alone made apps: %d %v", len(apps), err)
	}
	holdfast(4, "volume", "adopt", "pool/pgdata", "--app", "/prod/db") // /old runs with it
	holdfast(0, "app", "remove", "/old", "--wait")
	devtest.Await(t, "the volume is passed on", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := c.API.AdoptVolume(ctx, "pool", "pgdata", "/prod/db", 0, false)
		if err != nil {
			return false, err.Error(), nil
		}
		return true, "", nil
	})
	holdfast(4, "import", "marathon", marathon.URL, "--apply") // all but /bad
	db := c.Running("/prod/db", 1)
	var seen []byte
	devtest.Await(t, "the data is there", 20*time.Second, func(ctx context.Context) (bool, string, error) {
		files, _ := filepath.Glob(filepath.Join(c.Dir, "nodes", "*", "*", "slaves", "*", "frameworks", "*", "executors", db[0].Task, "runs", "latest", "seen"))
		for _, f := range files {
			seen, _ = os.ReadFile(f)
		}
		out := holdfast(0, "instance", "logs", "prod_db.0", "--file", "seen")
		return strings.Contains(out, "precious") || strings.Contains(string(seen), "precious"), out, nil
	})
	c.Running("/web", 1)
	devtest.Await(t, "the volume that is not there is waited for", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		list, err := c.API.Volumes(ctx, "/prod/gone")
		return err == nil && len(list) == 1 && list[0].Phase == "planned" && strings.Contains(list[0].Error, "adopt"), "", err
	})
	if again := holdfast(4, "import", "marathon", marathon.URL, "--only", "/"); strings.Contains(again, "conflict") || strings.Contains(again, "create") {
		t.Errorf("the second time:\n%s", again)
	}
}

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/packaging/dcos"
)

// Holdfast run by Holdfast: the app that the DC/OS package renders starts the framework as a task of the embedded engine, fetched as the tarball that users
// get; the framework registers, and runs an app of its own. A kill -9 of it loses nothing, because its state is in ZooKeeper.
func TestHeavyDCOSPackageRunsTheFramework(t *testing.T) {
	heavy.Require(t, heavy.Root, servertest.NeedZooKeeper)
	zk := strings.Join(servertest.StartZooKeeper(t, 1).Servers(), ",")
	outer := devtest.Start(t, "--agents", "2")
	files := http.FileServer(http.Dir(packed(t, outer.Bin)))
	assets := httptest.NewServer(files)
	defer assets.Close()

	p, err := dcos.Open("1.0", assets.URL)
	if err != nil {
		t.Fatal(err)
	}
	app, err := p.Render(map[string]any{
		"service": map[string]any{"name": "infra/inner", "user": "root", "cpus": 0.2, "mem": 128},
		"mesos":   map[string]any{"master": masterOf(t, outer), "role": "inner", "mesos-user": "root"},
		"state":   map[string]any{"store": "zk://" + zk + "/inner/store", "authority": "zk://" + zk + "/inner/authority"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := outer.API.PutApp(ctx, app, client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	first := outer.Running("/infra/inner", 1)[0]
	inner := innerClient(first)
	sleeper := json.RawMessage(`{"id":"/sleeper","cmd":"exec sleep 1000","cpus":0.1,"mem":16,"instances":2}`)
	devtest.Await(t, "the inner framework takes an app", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := inner.PutApp(ctx, sleeper, client.PutOptions{})
		return err == nil, "", err
	})
	awaitInner(t, inner, "/sleeper", 2)

	if _, err := outer.API.RestartInstance(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	inner = innerClient(outer.Relaunched(first))
	awaitInner(t, inner, "/sleeper", 2)
	if _, err := inner.Remove(ctx, "/sleeper", client.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "the inner app is gone", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		apps, err := inner.Apps(ctx)
		return err == nil && len(apps) == 0, fmt.Sprint(apps), err
	})
	if _, err := outer.API.Remove(ctx, "/infra/inner", client.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
}

func innerClient(i client.Instance) *client.Client {
	return client.New(fmt.Sprintf("http://%s:%d", "127.0.0.1", i.Ports[0]))
}

func awaitInner(t *testing.T, inner *client.Client, app string, n int) {
	t.Helper()
	devtest.Await(t, app+" runs in the inner framework", 90*time.Second, func(ctx context.Context) (bool, string, error) {
		a, err := inner.App(ctx, app)
		if err != nil {
			return false, "", err
		}
		return a.Running == n && a.Deployment == "", a.Status, nil
	})
}

// packed makes the tarball of `make dist` from programs that are built already, under the name that the package gives it.
func packed(t *testing.T, bin string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(bin, "holdfast"))
	if err != nil {
		t.Fatal(err)
	}
	out := &bytes.Buffer{}
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "holdfast/bin/holdfast", Mode: 0o755, Size: int64(len(raw))}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func() error{func() error { _, err := w.Write(raw); return err }, w.Close, z.Close} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "holdfast-1.0-linux-amd64.tar.gz"), out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func masterOf(t *testing.T, c *devtest.Cluster) string {
	t.Helper()
	s, err := c.Control.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(s.Master, "http://")
}

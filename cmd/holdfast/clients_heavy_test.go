package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// TestHeavyMarathonClients runs clients that were written for Marathon against a cluster: marathon-node, python3-marathon, and Prometheus
// finding its targets.
func TestHeavyMarathonClients(t *testing.T) {
	root, err := devtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(root, "tools", "marathon-node")
	heavy.Require(t, heavy.Program("node"), heavy.Program("prometheus"), func(testing.TB) string {
		if _, err := os.Stat(filepath.Join(node, "node_modules", "marathon-node")); err != nil {
			return "needs marathon-node: npm ci --ignore-scripts in tools/marathon-node"
		}
		if exec.Command("/usr/bin/python3", "-c", "import marathon").Run() != nil {
			return "needs Debian's python3-marathon"
		}
		return ""
	})
	c := devtest.Start(t)
	url := c.URL
	t.Run("node", func(t *testing.T) { runClient(t, node, "node", "client.js", url) })
	t.Run("python", func(t *testing.T) {
		runClient(t, filepath.Join(root, "framework", "api", "testdata"), "/usr/bin/python3", "client.py", url)
	})
	t.Run("prometheus", func(t *testing.T) { discover(t, c, url) })
}

func runClient(t *testing.T, dir, program string, args ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// discover lets Prometheus find an app's tasks with marathon_sd_configs.
func discover(t *testing.T, c *devtest.Cluster, url string) {
	app := `{"id":"/mon/web","cmd":"sleep 1000","cpus":0.1,"mem":16,"instances":2,"labels":{"team":"x"},"portDefinitions":[{"port":0,"name":"metrics","labels":{"scrape":"yes"}}]}`
	if _, err := c.API.PutApp(t.Context(), json.RawMessage(app), client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	instances := c.Running("/mon/web", 2)
	dir := t.TempDir()
	config := fmt.Sprintf("scrape_configs:\n- job_name: marathon\n  marathon_sd_configs:\n  - servers: [%q]\n    refresh_interval: 1s\n", url)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command("prometheus", "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	devtest.Await(t, "Prometheus finds the tasks", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		targets, text := targetsOf(ctx, address)
		found := 0
		for _, i := range instances {
			labels := targets[fmt.Sprintf("%s:%d", i.Hostname, i.Ports[0])]
			if labels["__meta_marathon_app"] == "/mon/web" && labels["__meta_marathon_app_label_team"] == "x" && labels["__meta_marathon_task"] == i.Task && labels["__meta_marathon_port_definition_label_scrape"] == "yes" {
				found++
			}
		}
		return found == 2, text, nil
	})
	if _, err := c.API.Remove(t.Context(), "/mon/web", client.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "Prometheus forgets the tasks", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		targets, text := targetsOf(ctx, address)
		return targets != nil && len(targets) == 0, text, nil
	})
}

// targetsOf gives the labels that Prometheus discovered, by address; nil when it does not answer yet.
func targetsOf(ctx context.Context, address string) (map[string]map[string]string, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/targets", nil)
	if err != nil {
		return nil, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err.Error()
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	var out struct {
		Data struct {
			ActiveTargets []struct{ DiscoveredLabels map[string]string }
		}
	}
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return nil, err.Error()
	}
	targets := map[string]map[string]string{}
	for _, t := range out.Data.ActiveTargets {
		targets[t.DiscoveredLabels["__address__"]] = t.DiscoveredLabels
	}
	return targets, string(raw)
}

package api_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestPageIsServedWithItsPolicy(t *testing.T) {
	_, srv := serve(t)
	resp, err := http.Get(srv.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || !strings.Contains(string(body), "<title>Holdfast</title>") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "'sha256-") {
		t.Errorf("status %d, policy %q", resp.StatusCode, resp.Header.Get("Content-Security-Policy"))
	}
	for _, s := range []string{"innerHTML", "insertAdjacentHTML", "http://", "https://"} {
		if n := strings.Count(strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", ""), s); n > 0 {
			t.Errorf("the page has %q", s)
		}
	}
}

// populate makes a cluster with something of everything on it.
func populate(t *testing.T, c *core, url string) {
	t.Helper()
	post := func(body string) {
		resp, err := http.Post(url+"/v2/apps", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			b, _ := io.ReadAll(resp.Body)
			t.Fatalf("%d %s", resp.StatusCode, b)
		}
	}
	volume := func(name string) string {
		return `"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"` + name + `","provider":"dvdi","size":5,"options":{"dvdi/driver":"pool"}}}]}`
	}
	post(`{"id":"/prod/postgres","cmd":"exec postgres -D data/pg -p $PORT0","instances":3,"cpus":0.5,"mem":256,` + volume("pgdata") + `}`)
	post(`{"id":"/prod/redis","cmd":"exec redis-server --port $PORT0 --dir data","instances":2,"cpus":0.1,"mem":64,` + volume("redis-{ordinal}") + `}`)
	post(`{"id":"/web<img src=x onerror=alert(1)>","cmd":"sleep 1"}`[:10] + `2","cmd":"echo '<b>not bold</b>' && sleep 1000","instances":4,"cpus":0.1,"mem":32}`)
	post(`{"id":"/huge","cmd":"sleep 100","cpus":64,"mem":999999,"instances":1}`)
	c.holdStart = true
	post(`{"id":"/batch/nightly","cmd":"./nightly.sh --really","instances":2,"cpus":0.2,"mem":64}`)
	c.event(scheduler.AgentLost{Agent: state.AgentID("agent-gamma")})
	c.pass(2 * time.Second)
}

func TestHeavyPageInBrowser(t *testing.T) {
	heavy.Require(t, heavy.Program("chromium"))
	c, srv := serve(t)
	populate(t, c, srv.URL)
	out := os.Getenv("HOLDFAST_SCREENSHOTS")
	if out == "" {
		out = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dom := chromium(ctx, t, "--virtual-time-budget=6000", "--dump-dom", srv.URL+"/#poll")
	for _, want := range []string{"/prod/postgres", "pgdata-2", "postgres.1", "alpha", "data-loaded=\"yes\"", "huge.0"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if strings.Contains(dom, "<b>not bold</b>") {
		t.Error("a command's text became markup")
	}
	for name, args := range map[string][]string{"light": nil, "dark": {"--force-dark-mode"}, "narrow": {"--window-size=480,1400"}} {
		file := filepath.Join(out, "page-"+name+".png")
		args = append([]string{"--window-size=1500,1150"}, args...)
		chromium(ctx, t, append(args, "--virtual-time-budget=6000", "--screenshot="+file, srv.URL+"/#poll")...)
		if info, err := os.Stat(file); err != nil || info.Size() < 10000 {
			t.Errorf("no screenshot %s: %v", file, err)
		}
	}
}

func chromium(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--user-data-dir=" + t.TempDir()}, args...)
	out, err := exec.CommandContext(ctx, "chromium", args...).Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

package examples

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// add submits an example; as an ordinary user without its `user`.
func add(t *testing.T, c *devtest.Cluster, name string) []client.Instance {
	t.Helper()
	body, err := os.ReadFile(filepath.Join(name, "app.json"))
	if err != nil {
		t.Fatal(err)
	}
	var app map[string]any
	if err := json.Unmarshal(body, &app); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		delete(app, "user")
	}
	if body, err = json.Marshal(app); err != nil {
		t.Fatal(err)
	}
	if _, err := c.API.PutApp(t.Context(), body, client.PutOptions{CreateOnly: true}); err != nil {
		t.Fatal(err)
	}
	instances := int(app["instances"].(float64))
	return c.Running("/"+name, instances)
}

// lose kills the agent that an instance is on, and gives the instance as it comes back elsewhere.
func lose(t *testing.T, c *devtest.Cluster, i client.Instance) client.Instance {
	t.Helper()
	if _, err := c.Control.Agent(t.Context(), i.Hostname, "kill", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	now := c.Relaunched(i)
	if now.Hostname == i.Hostname {
		t.Fatalf("%s runs on %s again", i.ID, now.Hostname)
	}
	return now
}

// eventually repeats a command until its output is as wanted.
func eventually(t *testing.T, want string, command func(context.Context) *exec.Cmd) {
	t.Helper()
	devtest.Await(t, fmt.Sprintf("answer %q", want), 60*time.Second, func(ctx context.Context) (bool, string, error) {
		out, err := command(ctx).CombinedOutput()
		got := strings.TrimSpace(string(out))
		return err == nil && got == want, fmt.Sprintf("%q, %v", got, err), nil
	})
}

func TestHeavyPostgres(t *testing.T) {
	heavy.Require(t, heavy.Program("psql"), postgresServer)
	c := devtest.Start(t)
	all := add(t, c, "postgres")
	sql := func(i client.Instance, statement string) func(context.Context) *exec.Cmd {
		return func(ctx context.Context) *exec.Cmd {
			cmd := exec.CommandContext(ctx, "psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", fmt.Sprint(i.Ports[0]), "-U", "holdfast", "-d", "postgres", "-c", statement)
			cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=5")
			return cmd
		}
	}
	eventually(t, "", sql(all[0], "create table if not exists t (n int primary key)"))
	eventually(t, "", sql(all[0], "insert into t select generate_series(1, 1000) on conflict do nothing"))
	eventually(t, "500500|1000", sql(all[1], "select sum(n), count(*) from t")) // a replica has them
	primary := lose(t, c, all[0])
	eventually(t, "500500|1000", sql(primary, "select sum(n), count(*) from t"))
	eventually(t, "", sql(primary, "insert into t values (0) on conflict do nothing"))
	for _, i := range c.Running("/postgres", 3)[1:] { // replicas follow the primary to where it is now
		eventually(t, "500500|1001", sql(i, "select sum(n), count(*) from t"))
	}
}

func postgresServer(testing.TB) string {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) == 0 {
		return "needs the PostgreSQL server of Debian"
	}
	return ""
}

func TestHeavyRedis(t *testing.T) {
	heavy.Require(t, heavy.Program("redis-server"), heavy.Program("redis-cli"))
	c := devtest.Start(t)
	all := add(t, c, "redis")
	redis := func(i client.Instance, args ...string) func(context.Context) *exec.Cmd {
		return func(ctx context.Context) *exec.Cmd {
			return exec.CommandContext(ctx, "redis-cli", append([]string{"-p", fmt.Sprint(i.Ports[0])}, args...)...)
		}
	}
	for n := range 20 {
		eventually(t, "OK", redis(all[0], "set", fmt.Sprintf("key%d", n), fmt.Sprint(n)))
	}
	eventually(t, "19", redis(all[2], "get", "key19"))
	primary := lose(t, c, all[0])
	for n := range 20 {
		eventually(t, fmt.Sprint(n), redis(primary, "get", fmt.Sprintf("key%d", n)))
	}
	eventually(t, "OK", redis(primary, "set", "later", "yes"))
	for _, i := range c.Running("/redis", 3)[1:] {
		eventually(t, "yes", redis(i, "get", "later"))
	}
}

func TestHeavyCounter(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	all := add(t, c, "counter")
	ask := func(i client.Instance, method string) string {
		t.Helper()
		n := 0
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
			_, err = fmt.Fscan(resp.Body, &n)
			return true, "", err
		})
		return fmt.Sprint(n)
	}
	for range 7 {
		ask(all[1], http.MethodPost)
	}
	ask(all[2], http.MethodPost)
	if got := ask(lose(t, c, all[1]), http.MethodGet); got != "7" {
		t.Errorf("counter.1 is at %s after the loss of its agent, not 7", got)
	}
}

func TestHeavyMarathonDate(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	i := add(t, c, "marathon-date")[0]
	file := filepath.Join(dev.PoolOf(c.Dir), "marathon-date", "data", "test.txt")
	lines := func() int {
		raw, err := os.ReadFile(file)
		if err != nil {
			return 0
		}
		return strings.Count(string(raw), "\n")
	}
	more := func(than int) {
		t.Helper()
		devtest.Await(t, "a line is written", 30*time.Second, func(context.Context) (bool, string, error) { return lines() > than, "", nil })
	}
	more(1)
	before := lines()
	lose(t, c, i)
	more(before)
}

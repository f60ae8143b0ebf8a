package servertest

import (
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
)

// ConsulVersion is the version that tools/consul pins.
const ConsulVersion = "1.19.2"

func consulBinary() (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "consul-"+ConsulVersion)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there: `make consul` builds it, once", path)
	}
	return path, nil
}

// NeedConsul is the heavy.Need of a real Consul: `make consul` has built it.
func NeedConsul(testing.TB) string {
	if _, err := consulBinary(); err != nil {
		return "needs Consul: " + err.Error()
	}
	return ""
}

// Consul is one server that is its own cluster, with its data on disk.
type Consul struct {
	process
	dir             string
	http, dns, serf int
}

// StartConsul starts a server with its data in a temporary directory and waits until it leads. More configuration
// (a JSON object, "" for none) is added to its own.
func StartConsul(t testing.TB, more string) *Consul {
	t.Helper()
	bin, err := consulBinary()
	if err != nil {
		t.Fatal(err)
	}
	p := FreePorts(t, 6)
	c := &Consul{dir: t.TempDir(), http: p[0], dns: p[1], serf: p[2]}
	args := []string{"agent", "-server", "-bootstrap", "-node=test", "-bind=127.0.0.1", "-client=127.0.0.1", "-data-dir=" + filepath.Join(c.dir, "data"),
		fmt.Sprintf("-http-port=%d", c.http), fmt.Sprintf("-dns-port=%d", c.dns), fmt.Sprintf("-serf-lan-port=%d", c.serf), "-serf-wan-port=-1",
		fmt.Sprintf("-server-port=%d", p[3]), "-grpc-port=-1", "-grpc-tls-port=-1", "-log-level=warn", "-disable-host-node-id",
		"-hcl=performance { raft_multiplier = 1 }", "-hcl=session_ttl_min = \"1s\"", "-hcl=disable_update_check = true", "-hcl=disable_remote_exec = true"}
	if more != "" {
		path := filepath.Join(c.dir, "more.json")
		if err := os.WriteFile(path, []byte(more), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-config-file="+path)
	}
	c.process = process{t: t, name: "consul", log: filepath.Join(c.dir, "log"), make: func() *exec.Cmd { return exec.Command(bin, args...) }}
	c.Start()
	t.Cleanup(func() { c.signal(syscall.SIGKILL) })
	return c
}

// Addr is the HTTP address, "host:port".
func (c *Consul) Addr() string { return fmt.Sprintf("127.0.0.1:%d", c.http) }

// DNS is the address of the DNS interface (UDP and TCP).
func (c *Consul) DNS() string { return fmt.Sprintf("127.0.0.1:%d", c.dns) }

// Start starts it (again, on its data) and waits until it leads.
func (c *Consul) Start() {
	c.t.Helper()
	c.start()
	client := &http.Client{Timeout: 2 * time.Second}
	c.await(60*time.Second, func() error {
		r, err := client.Get("http://" + c.Addr() + "/v1/status/leader")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(io.LimitReader(r.Body, 1<<12))
		if err != nil {
			return err
		}
		if strings.Trim(strings.TrimSpace(string(b)), `"`) == "" || r.StatusCode != http.StatusOK {
			return fmt.Errorf("no leader yet: %s", b)
		}
		return nil
	})
}

// Kill ends it with SIGKILL; Pause and Continue stop it where it stands and let it go on.
func (c *Consul) Kill() { c.signal(syscall.SIGKILL) }

// Pause stops it where it stands.
func (c *Consul) Pause() { c.signal(syscall.SIGSTOP) }

// Continue is the end of Pause.
func (c *Consul) Continue() { c.signal(syscall.SIGCONT) }

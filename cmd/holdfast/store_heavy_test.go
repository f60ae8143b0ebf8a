package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
)

// member is one of several framework processes on a store.
type member struct {
	cmd *exec.Cmd
	url string
}

func startMember(t *testing.T, bin, name string, args ...string) *member {
	t.Helper()
	dir := t.TempDir()
	port := servertest.FreePorts(t, 1)[0]
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m := &member{url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	m.cmd = exec.Command(filepath.Join(bin, "holdfast"), append([]string{"framework", "--dir", dir, "--listen", fmt.Sprintf("127.0.0.1:%d", port)}, args...)...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		if t.Failed() {
			raw, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("---- %s\n%s", name, raw[max(0, len(raw)-6000):])
		}
	})
	return m
}

// call makes one request and gives its status and body, 0 when nobody answers.
func (m *member) call(ctx context.Context, method, path, body string) (int, string) {
	r, err := http.NewRequestWithContext(ctx, method, m.url+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(raw)
}

func (m *member) await(t *testing.T, what string, limit time.Duration, method, path, body, holds string) {
	t.Helper()
	devtest.Await(t, what, limit, func(ctx context.Context) (bool, string, error) {
		code, text := m.call(ctx, method, path, body)
		return code >= 200 && code < 300 && strings.Contains(text, holds), fmt.Sprint(code, " ", text), nil
	})
}

// Two framework processes on one ZooKeeper: the standby passes requests on, takes over from a leader killed with -9, and has what was acknowledged.
func TestHeavyTwoFrameworksOnOneStore(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	zk := servertest.StartZooKeeper(t, 1).Servers()[0]
	bin := devtest.Bin(t)
	// The master may be away: that the framework leads does not depend on it.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := []string{"--master", l.Addr().String(), "--store", "zk://" + zk + "/hf/state", "--authority", "zk://" + zk + "/hf/leases"}
	a := startMember(t, bin, "a", args...)
	a.await(t, "a leads", 30*time.Second, "GET", "/v1/info", "", `"elected":true`)
	b := startMember(t, bin, "b", args...)
	b.await(t, "b passes a write on", 30*time.Second, "PUT", "/v2/apps/one", `{"cmd":"sleep 1000","instances":1,"cpus":0.1,"mem":16}`, "")
	b.await(t, "b passes a read on", 5*time.Second, "GET", "/v2/apps/one", "", "sleep 1000")
	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.await(t, "b takes over", 30*time.Second, "GET", "/v2/apps/one", "", "sleep 1000")
	b.await(t, "b leads", 5*time.Second, "GET", "/v1/info", "", `"elected":true`)
	t.Logf("b leads %v after a was killed", time.Since(began))
	c := startMember(t, bin, "c", args...)
	c.await(t, "c stands by", 30*time.Second, "GET", "/v2/apps/one", "", "sleep 1000")
	if err := b.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = b.cmd.Wait()
	began = time.Now()
	c.await(t, "c takes over", 10*time.Second, "GET", "/v1/info", "", `"elected":true`)
	t.Logf("c leads %v after b ended in good order", time.Since(began))
}

package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/server"
)

var bg = context.Background()

func start(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	srv, err := embedded.Open(filepath.Join(dir, "authority"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	auth := lease.New(srv.Registers(), lease.Options{})
	if _, err := auth.Init(bg, uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	off := false
	p, err := pool.Open(pool.Options{Dir: filepath.Join(dir, "pool"), Binds: &off})
	if err != nil {
		t.Fatal(err)
	}
	s, err := isolator.Open(isolator.Options{Dir: filepath.Join(dir, "node"), Authority: auth, Drivers: []driver.Driver{p}, Timings: lease.EmbeddedTimings(),
		Clock: lease.Monotonic(), WatchdogClock: unix.CLOCK_MONOTONIC, Describe: isolator.Describe{Hostname: "h", Version: "9.9"}})
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "i.sock")
	l, err := server.Listen(s, server.Options{Socket: socket, Group: -1, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(bg)
	done := make(chan struct{}, 2)
	go func() { _ = s.Run(ctx); done <- struct{}{} }()
	go func() { _ = l.Serve(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done; s.Close() })
	<-s.Ready()
	return socket
}

func TestCalls(t *testing.T) {
	c := client.New(start(t))
	if v, err := c.Version(bg); err != nil || v != "9.9" {
		t.Errorf("version %q %v", v, err)
	}
	if h, err := c.Health(bg); err != nil || !h.Ready {
		t.Errorf("health %+v %v", h, err)
	}
	if d, err := c.Capabilities(bg); err != nil || len(d) != 1 || d[0].Driver != "pool" || d[0].Scope != "node" || !d[0].Ready {
		t.Errorf("capabilities %+v %v", d, err)
	}
	v, err := c.Create(bg, client.CreateRequest{Driver: "pool", Name: "a", Options: map[string]string{"size": "2"}})
	if err != nil || v.Name != "a" || v.UID == "" || v.SizeBytes != 2<<30 {
		t.Errorf("create %+v %v", v, err)
	}
	path, err := c.Mount(bg, client.MountRequest{Driver: "pool", Name: "a"})
	if err != nil || !strings.HasSuffix(path, "/a/data") {
		t.Errorf("mount %q %v", path, err)
	}
	if p, err := c.Path(bg, client.VolumeRequest{Driver: "pool", Name: "a"}); err != nil || p != path {
		t.Errorf("path %q %v", p, err)
	}
	st, err := c.Status(bg)
	if err != nil || len(st.Volumes) != 1 || st.Volumes[0].Phase != "mounted" || st.Volumes[0].Owners[0] != "mesos" || st.PID != os.Getpid() || !st.Ready {
		t.Errorf("status %+v %v", st, err)
	}
	if out, err := c.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "a"}); err != nil || out != "unmounted" {
		t.Errorf("unmount %q %v", out, err)
	}
	if l, err := c.List(bg, "pool"); err != nil || len(l) != 1 || l[0].Name != "a" {
		t.Errorf("list %+v %v", l, err)
	}
	if err := c.Remove(bg, client.VolumeRequest{Driver: "pool", Name: "a"}); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(bg, client.VolumeRequest{Driver: "pool", Name: "a"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("get after remove: %v", err)
	}
	if _, err := c.Get(bg, client.VolumeRequest{Driver: "nobody", Name: "a"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown driver: %v", err)
	}
}

// Whatever is sent, the answer is an error of the right class, and the server lives.
func TestBadRequests(t *testing.T) {
	socket := start(t)
	h := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	for name, c := range map[string]struct {
		verb, path, body string
		status           int
	}{
		"no json":       {"POST", "/v1/mount", "{", 422},
		"not an object": {"POST", "/v1/mount", "[]", 422},
		"unknown field": {"POST", "/v1/mount", `{"driver":"pool","nmae":"x"}`, 422},
		"two bodies":    {"POST", "/v1/mount", `{"driver":"pool","name":"x"} {}`, 422},
		"empty":         {"POST", "/v1/mount", `{}`, 422},
		"wrong type":    {"POST", "/v1/mount", `{"driver":1}`, 422},
		"bad name":      {"POST", "/v1/mount", `{"driver":"pool","name":"../x"}`, 422},
		"nul":           {"POST", "/v1/mount", `{"driver":"pool","name":"a\u0000b"}`, 422},
		"long name":     {"POST", "/v1/mount", `{"driver":"pool","name":"` + strings.Repeat("n", 300) + `"}`, 422},
		"bad option":    {"POST", "/v1/mount", `{"driver":"pool","name":"x","options":{"a\nb":"c"}}`, 422},
		"reserved":      {"POST", "/v1/create", `{"driver":"pool","name":"x","options":{"holdfast.epoch":"1"}}`, 422},
		"bad owner":     {"POST", "/v1/mount", `{"driver":"pool","name":"x","owner":"a b"}`, 422},
		"huge":          {"POST", "/v1/mount", `{"driver":"` + strings.Repeat("x", 10<<20) + `"}`, 422},
		"no such call":  {"POST", "/v1/dance", `{}`, 404},
		"wrong verb":    {"GET", "/v1/mount", ``, 404},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(c.verb, "http://x"+c.path, bytes.NewReader([]byte(c.body)))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := h.Do(req)
			if err != nil {
				if name == "huge" { // the server may hang up before all of it is sent
					return
				}
				t.Fatal(err)
			}
			defer resp.Body.Close()
			raw, _ := io.ReadAll(resp.Body)
			var e struct{ Message, Code string }
			if resp.StatusCode != c.status || json.Unmarshal(raw, &e) != nil || e.Message == "" || e.Code == "" {
				t.Errorf("status %d, want %d: %.300s", resp.StatusCode, c.status, raw)
			}
		})
	}
	if h, err := client.New(socket).Health(bg); err != nil || !h.Ready {
		t.Errorf("afterwards: %+v %v", h, err)
	}
}

func TestSocket(t *testing.T) {
	socket := start(t)
	fi, err := os.Stat(socket)
	if err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("mode %v %v", fi.Mode(), err)
	}
	if _, err := server.Listen(nil, server.Options{Socket: socket, Group: -1, Log: zap.NewNop()}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second server: %v", err)
	}
	dir := filepath.Dir(socket)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(nil, server.Options{Socket: file, Group: -1, Log: zap.NewNop()}); !fault.Is(err, fault.Conflict) {
		t.Errorf("in place of a file: %v", err)
	}
	if _, err := server.Listen(nil, server.Options{Socket: "/tmp/" + strings.Repeat("x", 120), Group: -1, Log: zap.NewNop()}); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v", err)
	}
	// A socket that a dead isolator left is replaced.
	stale := filepath.Join(dir, "stale.sock")
	ln, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	l, err := server.Listen(nil, server.Options{Socket: stale, Mode: 0o600, Group: -1, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	_ = l.Serve(ctx)
}

package consulconn

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// seen starts a server that notes the newest request.
func seen(t *testing.T) (*httptest.Server, *http.Request) {
	t.Helper()
	last := new(http.Request)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*last = *r
		_, _ = w.Write([]byte(`"127.0.0.1:8300"`))
	}))
	t.Cleanup(s.Close)
	return s, last
}

func TestTokenIsReadAgain(t *testing.T) {
	t.Setenv("CONSUL_HTTP_TOKEN", "from-the-environment")
	s, last := seen(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("first\n", time.Unix(1, 0))
	client, err := Open(Config{Address: s.URL, TokenFile: file, Datacenter: "east", Namespace: "team", Partition: "part"})
	if err != nil {
		t.Fatal(err)
	}
	for n, c := range []struct{ text, want string }{{"first\n", "first"}, {"second", "second"}, {"", "second"}, {"third\nrest", "third"}} {
		write(c.text, time.Unix(int64(n+2), 0))
		if _, err := client.Status().Leader(); err != nil {
			t.Fatal(err)
		}
		if got := last.Header.Get("X-Consul-Token"); got != c.want {
			t.Errorf("with %q in the file the token is %q, not %q", c.text, got, c.want)
		}
	}
	if q := last.URL.Query(); q.Get("dc") != "east" || q.Get("ns") != "team" || q.Get("partition") != "part" {
		t.Errorf("query %v", q)
	}
}

func TestEnvironmentGivesTheToken(t *testing.T) {
	t.Setenv("CONSUL_HTTP_TOKEN", "from-the-environment")
	s, last := seen(t)
	client, err := Open(Config{Address: strings.TrimPrefix(s.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status().Leader(); err != nil || last.Header.Get("X-Consul-Token") != "from-the-environment" {
		t.Errorf("%v, token %q", err, last.Header.Get("X-Consul-Token"))
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`"here"`)) }), ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	client, err := Open(Config{Address: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	if leader, err := client.Status().Leader(); err != nil || leader != "here" {
		t.Errorf("%q, %v", leader, err)
	}
}

func TestBadSettings(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, "must be"},
		{Config{Address: "ftp://host"}, "must be"},
		{Config{Address: "http://"}, "must be"},
		{Config{Address: "http://user:hunter2@host:8500"}, "a token comes from a file"},
		{Config{Address: "http://host:8500/v1?token=x"}, "only scheme"},
		{Config{Address: "unix://relative"}, "unix:///path"},
		{Config{Address: "host:8500", TokenFile: "/does/not/exist"}, "token file"},
		{Config{Address: "host:8500", TokenFile: empty}, "empty"},
		{Config{Address: "https://host:8501", CertFile: "cert"}, "go together"},
		{Config{Address: "https://host:8501", CAFile: "/does/not/exist"}, "TLS"},
	} {
		_, err := Open(c.config)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
}

package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
)

// peersServer answers with one document after the other, and notes what was given up.
type peersServer struct {
	mu      sync.Mutex
	now     client.Peers
	broken  bool
	yielded []string
}

func (s *peersServer) set(p client.Peers, broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.broken = p, broken
}

func (s *peersServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		now, broken := s.now, s.broken
		if r.Method == http.MethodPost {
			s.yielded = append(s.yielded, r.URL.String())
		}
		s.mu.Unlock()
		switch {
		case r.Method == http.MethodPost:
			fmt.Fprint(w, "{}")
			return
		case r.Context().Err() != nil:
			return
		case broken:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case r.URL.Query().Get("index") != now.Index || time.Now().After(deadline):
			_ = json.NewEncoder(w).Encode(now)
			return
		}
	}
}

func runPeers(ctx context.Context, url string, args ...string) (string, error) {
	var out bytes.Buffer
	c := &Console{API: url, Output: "text", Out: &out, Err: &out}
	cmd := peersCommand(c)
	cmd.Flags().StringVarP(&c.Output, "output", "o", "text", "")
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(ctx)
	return out.String(), err
}

func peersDoc(index string, primary int, term uint64, retiring string) client.Peers {
	p := client.Peers{App: "/db", Index: index, Term: term}
	for n := range 2 {
		task := fmt.Sprintf("db.%d.1-aaaaaa", n)
		p.Peers = append(p.Peers, client.Peer{Ordinal: n, Instance: fmt.Sprintf("db.%d", n), State: "running", Task: task, Address: "192.0.2.1", Ports: []client.PeerPort{{Port: 31000 + n}}, Healthy: true, Primary: n == primary})
		if n == primary {
			p.Primary = &client.PrimaryPeer{Instance: fmt.Sprintf("db.%d", n), Ordinal: n, Task: task, Term: term}
		}
	}
	if retiring != "" {
		p.Retiring = &client.PrimaryPeer{Task: retiring, Term: term}
	}
	return p
}

func TestPeersFileFollows(t *testing.T) {
	s := &peersServer{now: peersDoc("a", 0, 7, "")}
	server := httptest.NewServer(s)
	defer server.Close()
	dir := t.TempDir()
	file, told := filepath.Join(dir, "peers"), filepath.Join(dir, "told")
	t.Setenv("HOLDFAST_APP_ID", "/db")
	t.Setenv("MESOS_TASK_ID", "db.0.1-aaaaaa")
	if out, err := runPeers(t.Context(), server.URL); err != nil || !strings.Contains(out, "term 7") || !strings.Contains(out, "31001") {
		t.Errorf("%s, %v", out, err)
	}
	if _, err := runPeers(t.Context(), server.URL, "--file", file); err != nil {
		t.Fatal(err)
	}
	var doc client.Peers
	if raw, err := os.ReadFile(file); err != nil || json.Unmarshal(raw, &doc) != nil || len(doc.Peers) != 2 {
		t.Errorf("%s, %v", raw, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := runPeers(ctx, server.URL, "--watch", "-o", "text", "--file", file, "--yield", "--exec", "echo $HOLDFAST_PRIMARY $HOLDFAST_TERM >>"+told)
		ended <- err
	}()
	await := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				a, _ := os.ReadFile(file)
				b, _ := os.ReadFile(told)
				t.Fatalf("%s: not in time\n%s\n%s", what, a, b)
			}
		}
	}
	has := func(name, text string) func() bool {
		return func() bool { raw, _ := os.ReadFile(name); return string(raw) == text }
	}
	await("first", has(told, "true 7\n"))
	if !has(file, "0 db.0 192.0.2.1 31000 running healthy primary\n1 db.1 192.0.2.1 31001 running healthy -\n")() {
		raw, _ := os.ReadFile(file)
		t.Errorf("%s", raw)
	}
	s.set(client.Peers{}, true) // the framework is away: the file stays
	time.Sleep(50 * time.Millisecond)
	s.set(peersDoc("b", -1, 7, "db.0.1-aaaaaa"), false)
	await("retiring", has(told, "true 7\nfalse 7\n"))
	await("given up", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.yielded) == 1 && strings.Contains(s.yielded[0], "/v1/apps/db/primary/yield?task=db.0.1-aaaaaa&term=7")
	})
	s.set(peersDoc("c", 1, 8, ""), false)
	await("another", has(file, "0 db.0 192.0.2.1 31000 running healthy -\n1 db.1 192.0.2.1 31001 running healthy primary\n"))
	await("and told", has(told, "true 7\nfalse 7\nfalse 8\n"))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".peers-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPeersUsage(t *testing.T) {
	t.Setenv("HOLDFAST_APP_ID", "")
	t.Setenv("MESOS_TASK_ID", "")
	for args, want := range map[string]string{
		"":                                      "give an app",
		"/db --watch":                           "--watch needs",
		"/db --signal HUP --pid 9":              "need --watch",
		"/db --watch --file x --signal FOO":     "--signal",
		"/db --watch --file x --signal HUP":     "go together",
		"/db --watch --file x --pid 1":          "go together",
		"/db --watch --exec true --yield":       "MESOS_TASK_ID",
		"/db --watch --file x --yield":          "--yield needs",
		"/db --watch --signal HUP --pid 999999": "--watch needs",
	} {
		if _, err := runPeers(t.Context(), "http://127.0.0.1:1", strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

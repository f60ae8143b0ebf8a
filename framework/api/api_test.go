package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/internal/fault"
)

var rewrite = flag.Bool("rewrite", false, "write the answers into testdata instead of comparing them; read the difference before you commit it")

func serve(t testing.TB) (*core, *httptest.Server) {
	t.Helper()
	c := newCore()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = api.Serve(api.New(c, api.Options{Log: zaptest.NewLogger(t), Now: c.clock, Patience: 200 * time.Millisecond, Hosts: []string{"holdfast.example"}}), nil)
	srv.Start()
	t.Cleanup(srv.Close)
	return c, srv
}

// TestPairs runs the request and answer pairs in testdata, one server per file. A file is a list of
//
//	> METHOD path              the request; further "> Header: value" lines, then the body
//	> body
//	< status                   the answer, with the headers that matter, then the body
//	< Header: value
//	body
//	! command                  moves the world: "pass 5s", "hold" (new tasks stay in staging), "start", "stuck" (kills are ignored), "down", "up"
//
// Ids and times that are random are written as <uuid>.
func TestPairs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runPairs(t, string(data))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(data) {
				t.Errorf("answers differ (go test -rewrite writes them):\n%s", difference(string(data), got))
			}
		})
	}
}

func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range b {
		if i >= len(a) || a[i] != b[i] {
			old := "(nothing)"
			if i < len(a) {
				old = a[i]
			}
			return fmt.Sprintf("line %d\nwant %s\n got %s", i+1, old, b[i])
		}
	}
	return fmt.Sprintf("line %d\nwant %s\n got nothing", len(b)+1, a[len(b)])
}

// runPairs gives the file with the answers as they are now.
func runPairs(t *testing.T, script string) string {
	c, srv := serve(t)
	var out strings.Builder
	lines := strings.Split(script, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "# "):
			out.WriteString(line + "\n")
		case strings.HasPrefix(line, "! "):
			out.WriteString(line + "\n\n")
			world(t, c, strings.Fields(line[2:]))
		case strings.HasPrefix(line, "> "):
			var request []string
			for ; i < len(lines) && strings.HasPrefix(lines[i], "> ") && (len(request) == 0 || !first.MatchString(lines[i])); i++ {
				out.WriteString(lines[i] + "\n")
				request = append(request, lines[i][2:])
			}
			i--
			out.WriteString(exchange(t, srv, request))
		}
	}
	return out.String()
}

func world(t *testing.T, c *core, words []string) {
	switch words[0] {
	case "pass":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		c.pass(d)
	case "hold":
		c.holdStart = true
	case "stuck":
		c.deaf = true
	case "start":
		c.start()
	case "down":
		c.down = fault.New(fault.Unavailable, "the framework takes no commands now: the store is lost")
	case "up":
		c.down = nil
	default:
		t.Fatalf("no such command: %v", words)
	}
}

var first = regexp.MustCompile(`^> (GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) /`)

var header = regexp.MustCompile(`^[A-Z][A-Za-z-]*: `)

// exchange sends a request and gives the answer as the file has it.
func exchange(t *testing.T, srv *httptest.Server, lines []string) string {
	method, path, _ := strings.Cut(lines[0], " ")
	lines = lines[1:]
	head := http.Header{}
	for len(lines) > 0 && header.MatchString(lines[0]) {
		k, v, _ := strings.Cut(lines[0], ": ")
		head.Add(k, v)
		lines = lines[1:]
	}
	body := strings.Join(lines, "\n")
	req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range head {
		if k == "Host" {
			req.Host = v[0]
			continue
		}
		req.Header[k] = v
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "< %d\n", resp.StatusCode)
	for _, k := range []string{"Location", "Marathon-Deployment-Id", "Warning", "Content-Encoding"} {
		for _, v := range resp.Header.Values(k) {
			fmt.Fprintf(&out, "< %s: %s\n", k, stable(srv, v))
		}
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" && len(data) > 0 {
		fmt.Fprintf(&out, "< Content-Type: %s\n", ct)
	}
	if len(data) > 0 {
		out.WriteString(stable(srv, pretty(data)) + "\n")
	}
	return out.String() + "\n"
}

var (
	uuids  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	runs   = regexp.MustCompile(`(\.[0-9]+\.[0-9]+)-[0-9a-f]{6}`)
	ports  = regexp.MustCompile(`\b310[0-9][0-9]\b`)
	moment = regexp.MustCompile(`("(stagedAt|startedAt|since|createdAt|at|timestamp)": )"[^"]+"`)
	prose  = regexp.MustCompile(`("(summary|text|status)": )"[^"]{8,}"`)
	story  = regexp.MustCompile(`"lines": \[[^\]]*\]`)
	prefix = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`)
)

func stable(srv *httptest.Server, s string) string {
	s = prefix.ReplaceAllString(uuids.ReplaceAllString(s, "<uuid>"), "<server>")
	s = runs.ReplaceAllString(s, "$1-<hex>")
	// What the scheduler says of waiting is the scheduler's to word.
	s = prose.ReplaceAllString(s, `$1"<text>"`)
	s = story.ReplaceAllString(s, `"lines": "<lines>"`)
	s = moment.ReplaceAllString(s, `$1"<time>"`)
	return ports.ReplaceAllString(s, "<port>")
}

// pretty prints JSON with one member of the outer object a line, so that differences can be read.
func pretty(data []byte) string {
	if !json.Valid(data) {
		return strings.TrimRight(string(data), "\n")
	}
	var b bytes.Buffer
	if json.Indent(&b, data, "", "\t") != nil {
		return string(data)
	}
	return b.String()
}

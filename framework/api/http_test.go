package api_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/framework/api"
)

// ask sends a request with headers ("Name: value") and gives the answer with its body.
func ask(t *testing.T, h http.Handler, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost"+path, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

// What HTTP clients ask for around the resources: methods, origins, validators, compression, health.
func TestManners(t *testing.T) {
	c := newCore()
	registry := prometheus.NewRegistry()
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hits_total"}, []string{"kind"})
	registry.MustRegister(hits)
	hits.WithLabelValues("a").Add(3)
	var abdicated atomic.Bool
	h := api.New(c, api.Options{Metrics: registry, Origins: []string{"https://a.example", "https://b.example"}, Abdicate: func() { abdicated.Store(true) }})
	for _, x := range []struct {
		method, path, headers string
		status                int
		header, want, body    string
	}{
		{"OPTIONS", "/v2/apps/x", "", 200, "Allow", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS", ""},
		{"OPTIONS", "/v2/queue", "", 200, "Allow", "GET, HEAD, OPTIONS", ""},
		{"OPTIONS", "/v2/nothing", "", 404, "Allow", "", "URI not found"},
		{"TRACE", "/v2/apps", "", 405, "Allow", "GET, HEAD, POST, PUT, PATCH, OPTIONS", "Method Not Allowed"},
		{"POST", "/v2/info", "", 405, "Allow", "GET, HEAD, OPTIONS", "Method Not Allowed"},
		{"HEAD", "/v2/apps", "", 200, "Content-Type", "application/json", ""},
		{"HEAD", "/v2/info", "", 200, "Content-Type", "application/json", ""},
		{"GET", "/v2/apps", "Origin: https://a.example", 200, "Access-Control-Allow-Origin", "https://a.example", "apps"},
		{"GET", "/v2/apps", "Origin: https://c.example", 200, "Access-Control-Allow-Origin", "https://b.example", "apps"},
		{"GET", "/v2/apps/none", "Origin: https://a.example", 404, "Access-Control-Allow-Methods", "GET, HEAD, OPTIONS", "does not exist"},
		{"OPTIONS", "/v2/apps", "Access-Control-Request-Headers: X-One,x-two", 200, "Access-Control-Allow-Headers", "X-One, x-two", ""},
		{"GET", "/ping", "", 200, "Content-Type", "text/plain; charset=utf-8", "pong"},
		{"GET", "/ping", "Accept: text/html", 200, "Content-Type", "text/html; charset=utf-8", "pong"},
		{"GET", "/ping", "Accept: application/json", 200, "Content-Type", "application/json", `"pong"`},
		{"GET", "/ping", "Accept: image/png", 204, "Content-Type", "", ""},
		{"GET", "/metrics", "", 200, "Content-Type", "application/json", `"hits_total.a":{"count":3}`},
		{"GET", "/metrics", "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", 200, "", "", `hits_total{kind="a"} 3`},
		{"GET", "/metrics/prometheus", "", 200, "", "", `hits_total{kind="a"} 3`},
		{"GET", "/v2/info", "", 200, "", "", `"access_control_allow_origin":["https://a.example","https://b.example"]`},
		{"GET", "/v1/schema/app.json", "", 200, "Content-Type", "application/json", `"minInstances"`},
		{"DELETE", "/v2/leader?backup=x", "", 422, "", "", "backup and restore"},
		{"DELETE", "/v2/leader", "", 200, "", "", `{"message":"Leadership abdicated"}`},
	} {
		var headers []string
		if x.headers != "" {
			headers = append(headers, x.headers)
		}
		r, body := ask(t, h, x.method, x.path, headers...)
		what := fmt.Sprintf("%s %s (%s)", x.method, x.path, x.headers)
		if r.StatusCode != x.status || !strings.Contains(body, x.body) || x.method == "HEAD" && body != "" {
			t.Errorf("%s: %d %.300s", what, r.StatusCode, body)
		}
		if got := r.Header.Get(x.header); x.header != "" && got != x.want {
			t.Errorf("%s: %s is %q, want %q", what, x.header, got, x.want)
		}
	}
	for end := time.Now().Add(5 * time.Second); !abdicated.Load(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the leader did not abdicate")
		}
	}
}

// A body that the asker has is not sent again; one that changed is.
func TestEntityTag(t *testing.T) {
	c := newCore()
	h := api.New(c, api.Options{})
	r, _ := ask(t, h, "GET", "/v2/deployments")
	tag := r.Header.Get("ETag")
	if tag == "" {
		t.Fatal("no ETag")
	}
	if r, body := ask(t, h, "GET", "/v2/deployments", `If-None-Match: "x", `+tag); r.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("the same again: %d %q", r.StatusCode, body)
	}
	if r, _ := ask(t, h, "GET", "/v2/leader", "If-None-Match: "+tag); r.StatusCode != http.StatusOK {
		t.Errorf("another body: %d", r.StatusCode)
	}
}

// Answers that are printed piece by piece are whole, compressed or not.
func TestStreamed(t *testing.T) {
	c, srv := serve(t)
	for i := range 40 {
		app := fmt.Sprintf(`{"id":"/g%d/a%d","cmd":"sleep 1","instances":2,"labels":{"n":"%s"}}`, i%4, i, strings.Repeat("x", 4000))
		if status, text := send(t, srv, http.MethodPost, "/v2/apps", app); status != http.StatusCreated {
			t.Fatal(text)
		}
	}
	c.pass(time.Second)
	for _, path := range []string{"/v2/apps?embed=apps.tasks", "/v2/groups?embed=group.groups&embed=group.apps&embed=group.apps.tasks", "/v2/tasks", "/v2/groups/g1/apps", "/v2/apps/g1/*/tasks"} {
		_, plain := send(t, srv, http.MethodGet, path, "")
		req, _ := http.NewRequest(http.MethodGet, srv.URL+path, nil)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		zipped, err := io.ReadAll(z)
		resp.Body.Close()
		if err != nil || string(zipped) != plain || !json.Valid(zipped) || len(zipped) < 2000 {
			t.Errorf("%s: %v; %d bytes compressed, %d plain, JSON %v", path, err, len(zipped), len(plain), json.Valid(zipped))
		}
	}
}

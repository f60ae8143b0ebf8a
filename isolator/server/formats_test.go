package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// exchange is one request of an earlier version's dvdcli to the isolator of the same version, and its answer.
type exchange struct {
	Method, Path string
	Request      json.RawMessage
	Status       int
	Response     json.RawMessage
}

func exchanges(t *testing.T) map[string][]exchange {
	t.Helper()
	files, err := filepath.Glob("testdata/*/exchanges.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	all := map[string][]exchange{}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for in := bufio.NewScanner(bytes.NewReader(raw)); in.Scan(); {
			var e exchange
			if err := json.Unmarshal(in.Bytes(), &e); err != nil {
				t.Fatal(name, err)
			}
			all[name] = append(all[name], e)
		}
	}
	return all
}

// The isolator answers what earlier dvdclis ask as theirs did: the same status, and every field of then, of the same type.
func TestRequestsOfEarlierVersions(t *testing.T) {
	for name, list := range exchanges(t) {
		socket := start(t)
		hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
		for _, e := range list {
			body := io.Reader(nil)
			if e.Method == http.MethodPost {
				body = bytes.NewReader(e.Request)
			}
			req, err := http.NewRequest(e.Method, "http://isolator"+e.Path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != e.Status {
				t.Errorf("%s: %s %s: %d %s %v; it was %d", name, e.Path, e.Request, resp.StatusCode, raw, err, e.Status)
				continue
			}
			var was, is any
			if json.Unmarshal(e.Response, &was) != nil || json.Unmarshal(raw, &is) != nil {
				t.Errorf("%s: %s", e.Path, raw)
			}
			for _, gone := range missing("", was, is) {
				switch gone {
				case ".agentId", ".volumes[0].task": // of an agent and a task that are not here
				default:
					t.Errorf("%s: %s: %s is not in %s", name, e.Path, gone, raw)
				}
			}
		}
	}
}

// missing names the fields of an old answer that a new one has not, or has with another type. Lists are compared by their first element.
func missing(at string, was, is any) (out []string) {
	switch was := was.(type) {
	case map[string]any:
		now, ok := is.(map[string]any)
		if !ok {
			return []string{at}
		}
		for k, v := range was {
			out = append(out, missing(at+"."+k, v, now[k])...)
		}
	case []any:
		now, ok := is.([]any)
		if !ok {
			return []string{at}
		}
		if len(was) > 0 && len(now) > 0 {
			out = missing(at+"[0]", was[0], now[0])
		}
	default:
		if fmt.Sprintf("%T", was) != fmt.Sprintf("%T", is) {
			return []string{at}
		}
	}
	return out
}

// This dvdcli understands the answers of earlier isolators.
func TestAnswersOfEarlierVersions(t *testing.T) {
	for name, list := range exchanges(t) {
		answers := map[string]exchange{}
		for _, e := range list {
			answers[e.Path+" "+string(e.Request)] = e
		}
		socket := filepath.Join("/tmp", fmt.Sprintf("hfo%d.sock", time.Now().UnixNano()))
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, _ := io.ReadAll(r.Body)
			var v map[string]any
			key := r.URL.Path + " null"
			if len(raw) > 0 && json.Unmarshal(raw, &v) == nil {
				key = ""
				for _, e := range list {
					var w map[string]any
					if e.Path == r.URL.Path && json.Unmarshal(e.Request, &w) == nil && fmt.Sprint(w) == fmt.Sprint(v) {
						key = e.Path + " " + string(e.Request)
					}
				}
			}
			e, ok := answers[key]
			if !ok {
				t.Errorf("%s: a request that it did not know: %s %s", name, r.URL.Path, raw)
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(e.Status)
			_, _ = w.Write(e.Response)
		})}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		c := client.New(socket)
		v := client.VolumeRequest{Driver: "pool", Name: "byhand"}
		if got, err := c.Create(bg, client.CreateRequest{Driver: "pool", Name: "byhand", Options: map[string]string{"size": "1"}}); err != nil || got.UID == "" || got.SizeBytes != 1<<30 {
			t.Error(got, err)
		}
		if path, err := c.Mount(bg, client.MountRequest{Driver: "pool", Name: "byhand"}); err != nil || filepath.Base(path) != "byhand" {
			t.Error(path, err)
		}
		if path, err := c.Path(bg, v); err != nil || filepath.Base(path) != "byhand" {
			t.Error(path, err)
		}
		if got, err := c.Get(bg, v); err != nil || got.Name != "byhand" || got.Path == "" {
			t.Error(got, err)
		}
		if got, err := c.List(bg, "pool"); err != nil || len(got) == 0 {
			t.Error(got, err)
		}
		if st, err := c.Status(bg); err != nil || !st.Ready || len(st.Volumes) == 0 || st.Volumes[0].Phase != "mounted" || st.Volumes[0].Epoch != 1 {
			t.Error(st, err)
		}
		if d, err := c.Capabilities(bg); err != nil || len(d) != 1 || !d[0].Ready || d[0].Verify != "scan" {
			t.Error(d, err)
		}
		if out, err := c.Unmount(bg, client.UnmountRequest{Driver: "pool", Name: "byhand"}); err != nil || out != "unmounted" {
			t.Error(out, err)
		}
		if err := c.Remove(bg, v); err != nil {
			t.Error(err)
		}
		if _, err := c.Get(bg, client.VolumeRequest{Driver: "pool", Name: "nope"}); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
}

package mesos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// fakeAgent answers as an agent of Apache Mesos does.
func fakeAgent(t *testing.T, files map[string]string) (url string, requests *[]string) {
	t.Helper()
	requests = new([]string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests = append(*requests, r.URL.Path)
		switch r.URL.Path {
		case "/state":
			fmt.Fprint(w, `{"frameworks":[{"id":"other","executors":[{"id":"t1","directory":"/wrong"}]},
				{"id":"fw","executors":[{"id":"t1","directory":"/sandbox/t1"}],"completed_executors":[{"id":"t0","directory":"/sandbox/t0"}]}],
				"completed_frameworks":[]}`)
		case "/files/read":
			data, ok := files[r.FormValue("path")]
			if !ok {
				http.Error(w, "No such file", http.StatusNotFound)
				return
			}
			offset, _ := strconv.Atoi(r.FormValue("offset"))
			if offset == -1 {
				fmt.Fprintf(w, `{"data":"","offset":%d}`, len(data))
				return
			}
			length, err := strconv.Atoi(r.FormValue("length"))
			if err != nil {
				length = 64 << 10
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"data": data[offset:min(offset+length, len(data))], "offset": offset})
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func TestReadSandbox(t *testing.T) {
	big := strings.Repeat("line of text\n", 10000)
	url, requests := fakeAgent(t, map[string]string{"/sandbox/t1/stdout": big, "/sandbox/t1/binary": "a\xff\xfeb€", "/sandbox/t0/stdout": "old", "/sandbox/t1/empty": ""})
	var s mesos.Sandboxes
	ctx := context.Background()
	var got strings.Builder
	for at := int64(0); ; {
		data, next, err := s.Read(ctx, url, "fw", "t1", "stdout", at)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) == 0 {
			break
		}
		if len(data) > mesos.MaxRead || next != at+int64(len(data)) {
			t.Fatalf("%d bytes from %d, next %d", len(data), at, next)
		}
		got.Write(data)
		at = next
	}
	if got.String() != big {
		t.Errorf("read %d bytes of %d", got.Len(), len(big))
	}
	if data, next, err := s.Read(ctx, url, "fw", "t1", "binary", 0); err != nil || next != 7 || !strings.HasPrefix(string(data), "a") || !strings.HasSuffix(string(data), "b€") {
		t.Errorf("binary: %q, %d, %v", data, next, err)
	}
	if data, next, err := s.Read(ctx, url, "fw", "t1", "stdout", 1<<40); err != nil || len(data) != 0 || next != int64(len(big)) {
		t.Errorf("past the end: %q, %d, %v", data, next, err)
	}
	if data, next, err := s.Read(ctx, url, "fw", "t1", "empty", 0); err != nil || len(data) != 0 || next != 0 {
		t.Errorf("empty: %q, %d, %v", data, next, err)
	}
	if data, _, err := s.Read(ctx, url, "fw", "t0", "stdout", 0); err != nil || string(data) != "old" {
		t.Errorf("a task that is over: %q, %v", data, err)
	}
	states := 0
	for _, r := range *requests {
		if r == "/state" {
			states++
		}
	}
	if states != 2 {
		t.Errorf("the agent's state was asked for %d times for two tasks", states)
	}
	if _, _, err := s.Read(ctx, url, "fw", "t9", "stdout", 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown task: %v", err)
	}
	if _, _, err := s.Read(ctx, url, "fw", "t1", "no", 0); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown file: %v", err)
	}
	if _, _, err := s.Read(ctx, "http://127.0.0.1:1", "fw", "t2", "stdout", 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("agent away: %v", err)
	}
	if _, _, err := s.Read(ctx, "", "fw", "t2", "stdout", 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("address not known: %v", err)
	}
	for _, bad := range []string{"", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "."} {
		if _, _, err := s.Read(ctx, url, "fw", "t1", bad, 0); !fault.Is(err, fault.Invalid) {
			t.Errorf("file %q: %v", bad, err)
		}
	}
}

package identity_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/identity"
)

func TestAskAgent(t *testing.T) {
	modern := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1" {
			_, _ = w.Write([]byte(`{"type":"GET_AGENT","get_agent":{"agent_info":{"hostname":"h","id":{"value":"S1"},"port":5051}}}`))
			return
		}
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer modern.Close()
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/state" {
			_, _ = w.Write([]byte(`{"id":"S2","hostname":"g","frameworks":[]}`))
			return
		}
		http.Error(w, "bad request", http.StatusBadRequest)
	}))
	defer old.Close()
	for url, want := range map[string]identity.Agent{modern.URL: {"S1", "h"}, modern.URL + "/": {"S1", "h"}, old.URL: {"S2", "g"}} {
		if got, err := identity.AskAgent(context.Background(), http.DefaultClient, url); err != nil || got != want {
			t.Errorf("%+v %v", got, err)
		}
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer broken.Close()
	if _, err := identity.AskAgent(context.Background(), http.DefaultClient, broken.URL); !fault.Is(err, fault.Unavailable) {
		t.Errorf("broken: %v", err)
	}
}

func TestNodeUID(t *testing.T) {
	dir := t.TempDir()
	one, err := identity.NodeUID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := identity.NodeUID(dir); err != nil || two != one {
		t.Errorf("%s then %s %v", one, two, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node-uid"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.NodeUID(dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("a damaged uid must not become a new node: %v", err)
	}
}

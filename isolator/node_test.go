package isolator

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
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
	for url, want := range map[string]agentIdentity{modern.URL: {"S1", "h"}, modern.URL + "/": {"S1", "h"}, old.URL: {"S2", "g"}} {
		if got, err := askAgent(bg, http.DefaultClient, url); err != nil || got != want {
			t.Errorf("%+v %v", got, err)
		}
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) }))
	defer broken.Close()
	if _, err := askAgent(bg, http.DefaultClient, broken.URL); !fault.Is(err, fault.Unavailable) {
		t.Errorf("broken: %v", err)
	}
}

// The agent's id is in the node's record soon after the agent has one, and stays there while it does not answer.
func TestAgentInRecord(t *testing.T) {
	id := "S1"
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"id":"` + id + `","hostname":"h"}`))
	}))
	c := newCluster(t)
	n := c.node(func(o *Options) { o.AgentURL = agent.URL })
	c.eventually("the record has the agent", func() bool {
		r, err := c.auth.Node(bg, n.NodeUID())
		return err == nil && r.AgentID == "S1" && r.AgentHostname == "h" && r.Grade == lease.GradeSoft && len(r.Drivers) == 1
	})
	agent.Close()
	time.Sleep(50 * time.Millisecond)
	if r, err := c.auth.Node(bg, n.NodeUID()); err != nil || r.AgentID != "S1" {
		t.Errorf("while it is away: %+v %v", r, err)
	}
}

func TestNodeUID(t *testing.T) {
	dir := t.TempDir()
	one, err := EnsureNodeUID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := EnsureNodeUID(dir); err != nil || two != one {
		t.Errorf("%s then %s %v", one, two, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node-uid"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := EnsureNodeUID(dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("a damaged uid must not become a new node: %v", err)
	}
}

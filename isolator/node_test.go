package isolator

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/isolator/lease"
)

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

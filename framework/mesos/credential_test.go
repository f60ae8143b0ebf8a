package mesos_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/mastertest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// token is a credential that changes each time it was refused.
type token struct {
	mu   sync.Mutex
	n    int
	away bool // the login service
}

func (c *token) Authorize(_ context.Context, req *http.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return fault.New(fault.Unavailable, "the login service is away")
	}
	req.Header.Set("Authorization", "token="+strings.Repeat("x", c.n))
	return nil
}

func (c *token) Refused()          { c.mu.Lock(); c.n++; c.mu.Unlock() }
func (c *token) Principal() string { return "p" }

// checking is a master's authentication before the master.
type checking struct {
	mu   sync.Mutex
	want string
}

func (c *checking) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	want := c.want
	c.mu.Unlock()
	if r.Header.Get("Authorization") != want {
		return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
	}
	return http.DefaultTransport.RoundTrip(r)
}

// A token that has ended is answered with 401: the client gets a new one and goes on, for SUBSCRIBE and for calls. A login service that is away is a
// reason to wait, and is named.
func TestTokenIsRenewed(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	who, gate := &token{away: true}, &checking{want: "token=xx"}
	r := start(t, "f", m.URL(), func(c *mesos.Config) { c.Credential, c.Transport = who, gate })
	if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, "login service") {
		t.Errorf("reason %q", d.Reason)
	}
	who.mu.Lock()
	who.away = false
	who.mu.Unlock()
	await[scheduler.Subscribed](r, 1)

	gate.mu.Lock()
	gate.want = "token=xxx"
	gate.mu.Unlock()
	r.Do(scheduler.Revive{})
	if f := await[scheduler.CallFailed](r, 1); f.Unknown {
		t.Errorf("a call that was answered with 401 counts as perhaps done: %v", f)
	}
	r.Do(scheduler.Suppress{}) // with the next token
	await[scheduler.Subscribed](r, 1)
}

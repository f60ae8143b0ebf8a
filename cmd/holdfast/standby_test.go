package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

// A standby passes requests on with a host and origin that the leader knows as its own, but only those that were meant for it.
func TestStandbyPassesOn(t *testing.T) {
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "leader host=", r.Host, " origin=", r.Header.Get("Origin"), " path=", r.URL)
	}))
	defer leader.Close()
	m := leasetest.NewMemory()
	open := func(url string) *registers.Backend {
		b, err := registers.Open(m, registers.Options{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	leads := open(leader.URL)
	s := &standby{own: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "own") }), back: open("http://me:1"), cluster: storetest.A,
		leading: func() bool { return false }, url: "http://me:1", hosts: []string{"me"}, log: zap.NewNop()}
	ask := func(host, origin, passed, want string) {
		t.Helper()
		r := httptest.NewRequest("PUT", "/v2/apps/a%2Fb?x=1", nil)
		r.Host = host
		for k, v := range map[string]string{"Origin": origin, proxied: passed} {
			if v != "" {
				r.Header.Set(k, v)
			}
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if got := w.Body.String(); got != want {
			t.Errorf("host %s, origin %s: %q, want %q", host, origin, got, want)
		}
	}
	ask("me:8080", "", "", "own") // nobody leads
	if _, err := leads.Lead(context.Background(), storetest.A, "leader"); err != nil {
		t.Fatal(err)
	}
	its := leader.Listener.Addr().String()
	ask("me:8080", "", "", "leader host="+its+" origin= path=/v2/apps/a%2Fb?x=1")
	ask("me:8080", "http://me:8080", "", "leader host="+its+" origin=http://"+its+" path=/v2/apps/a%2Fb?x=1")
	ask("127.0.0.1:1", "http://evil", "", "leader host="+its+" origin=http://evil path=/v2/apps/a%2Fb?x=1") // the leader refuses it
	ask("evil:8080", "http://evil:8080", "", "leader host=evil:8080 origin=http://evil:8080 path=/v2/apps/a%2Fb?x=1")
	ask("me:8080", "", "http://other", "own") // passed on already
	leader.Close()
	r, w := httptest.NewRequest("GET", "/v1/apps", nil), httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("leader away: %d %s", w.Code, w.Body)
	}
	if err := leads.Close(); err != nil {
		t.Fatal(err)
	}
	ask("me:8080", "", "", "own")
}

package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/holdfast-io/holdfast/framework/api"
)

// The leader is named by an address that works: by https where the API speaks that.
func TestLeaderHeader(t *testing.T) {
	c := newCore()
	h := api.New(c, api.Options{Now: c.clock})
	for _, scheme := range []string{"http", "https"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, scheme+"://localhost/v2/leader", nil))
		if got := w.Header().Get("X-Marathon-Leader"); got != scheme+"://127.0.0.1:8080" {
			t.Errorf("asked by %s, the leader is %q", scheme, got)
		}
	}
}

// A framework that other machines reach is called by names that it cannot know; a page from elsewhere still changes nothing.
func TestAnyHost(t *testing.T) {
	c := newCore()
	for _, any := range []bool{false, true} {
		h := api.New(c, api.Options{Now: c.clock, AnyHost: any})
		ask := func(method, origin string) int {
			r := httptest.NewRequest(method, "http://holdfast.service.consul:8080/v2/apps/none", nil)
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w.Code
		}
		want := http.StatusForbidden
		if any {
			want = http.StatusNotFound
		}
		if got := ask(http.MethodGet, ""); got != want {
			t.Errorf("any host %t: GET is answered %d, not %d", any, got, want)
		}
		if got := ask(http.MethodDelete, "http://evil.example"); got != http.StatusForbidden {
			t.Errorf("any host %t: DELETE from another origin is answered %d", any, got)
		}
		if got := ask(http.MethodDelete, ""); got != want {
			t.Errorf("any host %t: DELETE is answered %d, not %d", any, got, want)
		}
	}
}

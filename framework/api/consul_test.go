package api_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework/api"
)

func TestConsulStatus(t *testing.T) {
	for _, c := range []struct {
		consul func() any
		code   int
		want   string
	}{
		{nil, http.StatusNotFound, "--consul"},
		{func() any { return map[string]string{"state": "synced"} }, http.StatusOK, `"state":"synced"`},
	} {
		w := httptest.NewRecorder()
		api.New(newCore(), api.Options{Consul: c.consul}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/v1/consul", nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	}
}

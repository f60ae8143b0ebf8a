package check

import (
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func ptr[T any](v T) *T { return &v }

// results collects what a health check tells until n results have come.
func results(t *testing.T, hc mesos.HealthCheck, n int) []HealthResult {
	t.Helper()
	ch := make(chan HealthResult, 100)
	stop := Health(hc, Target{}, func(r HealthResult) { ch <- r })
	defer stop()
	var out []HealthResult
	for len(out) < n {
		select {
		case r := <-ch:
			out = append(out, r)
		case <-time.After(5 * time.Second):
			t.Fatalf("only %d results: %+v", len(out), out)
		}
	}
	return out
}

func TestHTTPHealth(t *testing.T) {
	answers := make(chan int, 10)
	for _, code := range []int{200, 204, 302, 503, 404, 399, 500} {
		answers <- code
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ping" {
			w.WriteHeader(404)
			return
		}
		select {
		case code := <-answers:
			if code == 302 {
				code = 200
			}
			w.WriteHeader(code)
		default:
			w.WriteHeader(200)
		}
	}))
	defer srv.Close()
	_, p, _ := net.SplitHostPort(srv.Listener.Addr().String())
	port, _ := strconv.Atoi(p)
	got := results(t, mesos.HealthCheck{Type: mesos.HealthCheck_HTTP, HTTP: &mesos.HealthCheck_HTTPCheckInfo{Port: uint32(port), Path: ptr("ping")},
		DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.001), GracePeriodSeconds: ptr(0.0), ConsecutiveFailures: ptr(uint32(2))}, 6)
	want := []HealthResult{{Healthy: true}, {Message: "Unexpected HTTP response code: 503 Service Unavailable"}, {Message: "Unexpected HTTP response code: 404 Not Found", Kill: true},
		{Healthy: true}, {Message: "Unexpected HTTP response code: 500 Internal Server Error"}, {Healthy: true}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("result %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestGraceAndDefaults(t *testing.T) {
	hc := mesos.HealthCheck{Type: mesos.HealthCheck_TCP, TCP: &mesos.HealthCheck_TCPCheckInfo{Port: 1}, DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.005),
		GracePeriodSeconds: ptr(0.1), ConsecutiveFailures: ptr(uint32(2))}
	begun := time.Now()
	got := results(t, hc, 2)
	if time.Since(begun) < 100*time.Millisecond || got[0].Kill || !got[1].Kill || !strings.Contains(got[0].Message, "refused") {
		t.Errorf("%+v after %v", got, time.Since(begun))
	}
	got = results(t, mesos.HealthCheck{DelaySeconds: ptr(0.0), IntervalSeconds: ptr(0.001), GracePeriodSeconds: ptr(0.0)}, 1)
	if !strings.Contains(got[0].Message, "neither") {
		t.Errorf("%+v", got)
	}
	for _, v := range []*float64{nil, ptr(-1.0), ptr(math.NaN())} {
		if d := seconds(v, 15); d != 15*time.Second {
			t.Errorf("%v: %v", v, d)
		}
	}
	if d := seconds(ptr(math.Inf(1)), 1); d <= 0 {
		t.Errorf("infinite: %v", d)
	}
}

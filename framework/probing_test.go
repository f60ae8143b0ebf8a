package framework

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestProbing: a task with a health check of the framework's own is asked; what comes of it is committed once, not for each answer; and the
// next process goes on from there and ends the run when it fails.
func TestProbing(t *testing.T) {
	var status, asked atomic.Int32
	status.Store(200)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	port, _ := strconv.Atoi(u.Port())
	dir := t.TempDir()
	begin := func(b *bench) {
		b.master.send(t, scheduler.Subscribed{FrameworkID: "F1", Master: "m:5050"})
	}
	run := func(b *bench) (r *state.Run) {
		b.View(func(s *state.State) {
			if i := s.Instances["web.0"]; i != nil {
				r = i.Run
			}
		})
		return r
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s", what)
			}
		}
	}

	b := setup(t, dir, scheduler.Step)
	begin(b)
	spec := state.Spec{Cmd: "x", CPUs: 1, MemMB: 1, Backoff: state.Backoff{Base: time.Second, Factor: 1, Max: time.Second},
		HealthChecks: []state.HealthCheck{{Protocol: "HTTP", Path: "/", Port: port, Interval: time.Second, Timeout: 10 * time.Second, MaxFailures: 1}}}
	if _, err := b.Do(context.Background(), scheduler.PutApp{Changes: []scheduler.AppPut{{Def: &state.Def{App: "/web", Version: "2026-01-01T00:00:00.000Z", Spec: spec}, Instances: 1}}}); err != nil {
		t.Fatal(err)
	}
	b.master.send(t, scheduler.Offers{Offers: []*state.Offer{{ID: "o", Agent: "A", Hostname: "nowhere.invalid", AgentURL: "http://127.0.0.1:5051",
		Resources: []state.Resource{{Name: "cpus", Scalar: 1}, {Name: "mem", Scalar: 10}}}}})
	b.j.await(t, "accept 1")
	b.master.send(t, scheduler.Status{Task: run(b).Task, Agent: "A", State: "TASK_RUNNING"})
	await("healthy", func() bool { r := run(b); return r.Healthy != nil && *r.Healthy })
	commits := len(b.j.all())
	n := asked.Load()
	await("asked again", func() bool { return asked.Load() > n })
	if now := b.j.all(); len(now) != commits {
		t.Errorf("more happened than the one change of health: %q", now[commits:])
	}
	if health, _ := b.Checks(run(b).Task); len(health) != 1 || !health[0].Alive || health[0].FirstSuccess.IsZero() {
		t.Errorf("results %+v", health)
	}
	b.stop()

	status.Store(500)
	b = setup(t, dir, scheduler.Step)
	begin(b)
	task := run(b).Task
	b.j.await(t, "kill "+string(task))
	var i *state.Instance
	b.View(func(s *state.State) { i = s.Instances["web.0"] })
	if i.Failures != 1 || !strings.Contains(i.KillReason, "500 Internal Server Error") || *i.Run.Healthy {
		t.Errorf("killed because %q after %d failures", i.KillReason, i.Failures)
	}
}

package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// service is a task to be asked: what it answers can be changed.
type service struct {
	*httptest.Server
	status atomic.Int32
	asked  atomic.Int32
	other  atomic.Int32 // requests for anything but /health
}

func newService(t *testing.T, secure bool) *service {
	s := &service{}
	s.status.Store(200)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			s.other.Add(1)
		}
		s.asked.Add(1)
		status := int(s.status.Load())
		if status >= 300 && status < 400 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		fmt.Fprint(w, strings.Repeat("x", 100_000))
	})
	if secure {
		s.Server = httptest.NewTLSServer(h)
	} else {
		s.Server = httptest.NewServer(h)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *service) port(t *testing.T) int {
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(u.Port())
	return n
}

func instance(port int, checks ...state.HealthCheck) (*state.Instance, *state.Def) {
	zero := 0
	for n := range checks {
		checks[n].PortIndex = &zero
	}
	i := &state.Instance{ID: "web.0", App: "/web", Phase: state.PhaseRunning, Version: "v", Run: &state.Run{Task: "web.0.1-abcdef", Version: "v",
		AgentURL: "http://127.0.0.1:5051", Hostname: "nowhere.invalid", Ports: []int{port}, StartedAt: time.Now()}}
	return i, &state.Def{App: "/web", Version: "v", Spec: state.Spec{HealthChecks: checks}}
}

// rig runs a prober and plays the scheduler: what is reported is put into the instance, which is shown to the prober again.
type rig struct {
	*Prober
	mu       sync.Mutex
	i        *state.Instance
	d        *state.Def
	events   []scheduler.Health
	failures atomic.Int32
}

func start(t *testing.T, i *state.Instance, d *state.Def) *rig {
	r := &rig{i: i, d: d}
	r.Prober = New(Options{MinInterval: 2 * time.Millisecond, Failed: func(Failure) { r.failures.Add(1) }, Report: func(e scheduler.Health) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
		n, run := *r.i, *r.i.Run
		if e.Healthy != nil {
			run.Healthy = e.Healthy
		}
		run.Ready = run.Ready || e.Ready
		if e.Kill != "" {
			n.Phase = state.PhaseKilling
		}
		n.Run = &run
		r.i = &n
		r.Watch(&n, r.d)
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() { cancel(); <-done })
	r.Watch(i, d)
	return r
}

func (r *rig) until(t *testing.T, what string, ok func(*state.Instance) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		r.mu.Lock()
		i, events := r.i, fmt.Sprintf("%+v", r.events)
		r.mu.Unlock()
		if ok(i) {
			return
		}
		if time.Now().After(end) {
			h, ready := r.Results(i.Run.Task)
			t.Fatalf("not %s: %s; %+v %+v", what, events, h, ready)
		}
	}
}

func healthy(want bool) func(*state.Instance) bool {
	return func(i *state.Instance) bool { return i.Run.Healthy != nil && *i.Run.Healthy == want }
}

func TestHealth(t *testing.T) {
	for _, secure := range []bool{false, true} {
		s := newService(t, secure)
		protocol := map[bool]string{false: "HTTP", true: "HTTPS"}[secure]
		i, d := instance(s.port(t), state.HealthCheck{Protocol: protocol, Path: "health", Timeout: 5 * time.Second, MaxFailures: 3}, state.HealthCheck{Protocol: "TCP", Timeout: 5 * time.Second})
		r := start(t, i, d)
		r.until(t, "healthy", healthy(true))
		s.status.Store(302)
		n := s.asked.Load()
		r.until(t, "asked again", func(*state.Instance) bool { return s.asked.Load() > n+3 })
		r.until(t, "healthy when it points elsewhere", healthy(true))
		if s.other.Load() > 0 {
			t.Error("a redirection was followed")
		}
		s.status.Store(500)
		r.until(t, "given up", func(i *state.Instance) bool { return i.Phase == state.PhaseKilling })
		r.mu.Lock()
		last := r.events[len(r.events)-1]
		r.mu.Unlock()
		if want := "its " + protocol + " health check failed 3 times in a row, last with: 500 Internal Server Error"; last.Kill != want {
			t.Errorf("killed because %q, want %q", last.Kill, want)
		}
		h, _ := r.Results(i.Run.Task)
		if len(h) != 2 || h[0].Alive || h[0].Failures != 3 || h[0].FirstSuccess.IsZero() || !h[1].Alive || h[1].Failures != 0 || r.failures.Load() != 3 {
			t.Errorf("results %+v, %d failures told", h, r.failures.Load())
		}
		n = s.asked.Load()
		time.Sleep(30 * time.Millisecond)
		if s.asked.Load() > n+1 {
			t.Error("a run that is being killed is asked on")
		}
	}
}

// TestGrace: failures do not count before the first success while the grace period lasts, and count after it.
func TestGrace(t *testing.T) {
	s := newService(t, false)
	s.status.Store(503)
	i, d := instance(s.port(t), state.HealthCheck{Protocol: "HTTP", Path: "/health", Timeout: 5 * time.Second, MaxFailures: 1, Grace: time.Hour})
	r := start(t, i, d)
	r.until(t, "asked", func(*state.Instance) bool { return s.asked.Load() > 5 })
	if h, _ := r.Results(i.Run.Task); len(h) != 1 || h[0].Known() {
		t.Errorf("results in the grace period: %+v", h)
	}
	s.status.Store(204)
	r.until(t, "healthy", healthy(true))
	s.status.Store(404)
	r.until(t, "given up", func(i *state.Instance) bool { return i.Phase == state.PhaseKilling })
}

// TestNeverKilled: maxConsecutiveFailures 0.
func TestNeverKilled(t *testing.T) {
	s := newService(t, false)
	s.status.Store(503)
	i, d := instance(s.port(t), state.HealthCheck{Protocol: "HTTP", Path: "/health", Timeout: 5 * time.Second})
	r := start(t, i, d)
	r.until(t, "unhealthy", healthy(false))
	r.until(t, "failing on", func(*state.Instance) bool { return r.failures.Load() > 10 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) != 1 || r.events[0].Kill != "" {
		t.Errorf("reported %+v, once would do", r.events)
	}
}

func TestReadiness(t *testing.T) {
	s := newService(t, false)
	s.status.Store(503)
	i, d := instance(s.port(t))
	zero := 0
	d.Spec.ReadinessChecks = []state.ReadinessCheck{{Name: "up", Protocol: "HTTP", Path: "/health", Timeout: 5 * time.Second, Codes: []int{200, 418}, Keep: true, PortIndex: &zero}}
	r := start(t, i, d)
	r.until(t, "asked", func(*state.Instance) bool {
		_, ready := r.Results(i.Run.Task)
		return len(ready) == 1 && ready[0].Last != nil
	})
	_, ready := r.Results(i.Run.Task)
	if got := ready[0]; got.Name != "up" || got.Ready || got.Last.Status != 503 || len(got.Last.Body) != maxBody || got.Last.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("%+v, body of %d", got, len(got.Last.Body))
	}
	s.status.Store(418)
	r.until(t, "ready", func(i *state.Instance) bool { return i.Run.Ready })
	n := s.asked.Load()
	time.Sleep(50 * time.Millisecond)
	if s.asked.Load() > n+2 {
		t.Error("it is ready, and is asked on")
	}
	if _, ready := r.Results(i.Run.Task); !ready[0].Ready {
		t.Errorf("%+v", ready)
	}
}

// TestLeaderChange: a new prober takes what the state says as known, reports no news that are none, and forgives nothing that was healthy before.
func TestLeaderChange(t *testing.T) {
	s := newService(t, false)
	i, d := instance(s.port(t), state.HealthCheck{Protocol: "HTTP", Path: "/health", Timeout: 5 * time.Second, MaxFailures: 2, Grace: time.Hour})
	yes := true
	i.Run.Healthy = &yes
	r := start(t, i, d)
	r.until(t, "asked", func(*state.Instance) bool { return s.asked.Load() > 5 })
	r.mu.Lock()
	if len(r.events) > 0 {
		t.Errorf("reported %+v", r.events)
	}
	r.mu.Unlock()
	s.status.Store(500)
	r.until(t, "given up", func(i *state.Instance) bool { return i.Phase == state.PhaseKilling })
}

func TestAnswers(t *testing.T) {
	a := newAsker()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	odd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		switch r.URL.Path {
		case "/101":
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		case "/102":
			fmt.Fprint(conn, "HTTP/1.1 102 Processing\r\n\r\n")
		case "/huge":
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 200<<10)+"\r\n\r\n")
		case "/nonsense":
			fmt.Fprint(conn, "\x00\xff\r\n\r\n")
		}
	}))
	defer odd.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	host := func(raw string) string { u, _ := url.Parse(raw); return u.Host }
	for _, c := range []struct {
		check      Check
		ok, ignore bool
		cause      string
	}{
		{check: Check{Protocol: "TCP", Address: silent.Addr().String()}, ok: true},
		{check: Check{Protocol: "HTTP", Address: silent.Addr().String(), Timeout: minTimeout}, cause: "no answer within 100ms"},
		{check: Check{Protocol: "TCP", Address: host(gone.URL)}, cause: "connection refused"},
		{check: Check{Protocol: "HTTP", Address: host(gone.URL)}, cause: "connection refused"},
		{check: Check{Protocol: "HTTP", Missing: "the check has no port"}, cause: "the check has no port"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/101"}, cause: "101 Switching Protocols"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/101", Ignore1xx: true}, ignore: true, cause: "101 Switching Protocols"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/102", Ignore1xx: true}, ignore: true, cause: "EOF"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/102"}, cause: "EOF"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/huge"}, cause: "exceeded"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/nonsense"}, cause: "malformed"},
		{check: Check{Protocol: "HTTPS", Address: host(odd.URL), Path: "/"}, cause: "HTTP response to HTTPS client"},
		{check: Check{Protocol: "HTTP", Address: host(odd.URL), Path: "/%zz"}, cause: "makes no URL"},
	} {
		if c.check.Timeout == 0 {
			c.check.Timeout = 10 * time.Second
		}
		got := a.ask(context.Background(), &c.check)
		if got.ok != c.ok || got.ignore != c.ignore || !strings.Contains(got.cause, c.cause) {
			t.Errorf("%+v: %+v", c.check, got)
		}
	}
}

func TestAddress(t *testing.T) {
	one, nine := 1, 9
	run := func() *state.Run {
		return &state.Run{Hostname: "agent7", AgentURL: "http://10.0.0.7:5051", Ports: []int{31000, 31001}, ContainerIP: "172.17.0.2"}
	}
	for _, c := range []struct {
		name          string
		network       string
		index         *int
		port          int
		change        func(*state.Run)
		addr, missing string
	}{
		{name: "host port", index: &one, addr: "10.0.0.7:31001"},
		{name: "fixed port", port: 8080, addr: "10.0.0.7:8080"},
		{name: "bridge, by index", network: "container/bridge", index: &one, addr: "10.0.0.7:31001"},
		{name: "bridge, fixed", network: "container/bridge", port: 8080, addr: "10.0.0.7:8080"},
		{name: "own address", network: "container", port: 80, addr: "172.17.0.2:80"},
		{name: "own address, host port", network: "container", index: &one, addr: "10.0.0.7:31001"},
		{name: "own address not known", network: "container", port: 80, change: func(r *state.Run) { r.ContainerIP = "" }, missing: "the container's address is not known"},
		{name: "IPv6", network: "container", port: 80, change: func(r *state.Run) { r.ContainerIP = "fd00::1" }, addr: "[fd00::1]:80"},
		{name: "by name", index: &one, change: func(r *state.Run) { r.AgentURL = "http://agent7:5051" }, addr: "agent7:31001"},
		{name: "agent on all addresses", index: &one, change: func(r *state.Run) { r.AgentURL = "http://0.0.0.0:5051" }, addr: "agent7:31001"},
		{name: "no host", index: &one, change: func(r *state.Run) { r.AgentURL, r.Hostname = "", "" }, missing: "the agent's address is not known"},
		{name: "no such port", index: &nine, missing: "the task has no port of index 9"},
		{name: "no port", missing: "the check has no port"},
	} {
		r := run()
		if c.change != nil {
			c.change(r)
		}
		addr, missing := address(r, &state.Spec{Container: state.Container{Network: c.network}}, c.index, c.port)
		if addr != c.addr || missing != c.missing {
			t.Errorf("%s: %q %q", c.name, addr, missing)
		}
	}
}

// TestMany: thousands of checks, of which some never answer, on few slots; all that answer are found healthy, and no more are under way than may be.
func TestMany(t *testing.T) {
	var now, most atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
	}))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	port, _ := strconv.Atoi(u.Port())
	var mu sync.Mutex
	well := map[state.TaskID]bool{}
	p := New(Options{Limit: 40, MinInterval: 50 * time.Millisecond, Report: func(e scheduler.Health) {
		mu.Lock()
		defer mu.Unlock()
		well[e.Task] = *e.Healthy
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	const all = 2000
	for n := range all {
		i, d := instance(port, state.HealthCheck{Protocol: "HTTP", Timeout: 20 * time.Second})
		i.ID = state.InstanceID(fmt.Sprintf("web.%d", n))
		i.Run.Task = state.TaskID(fmt.Sprintf("web.%d.1-abcdef", n))
		p.Watch(i, d)
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		n := len(well)
		mu.Unlock()
		if n == all {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d were asked", n, all)
		}
	}
	cancel()
	<-done
	if most.Load() > 40 {
		t.Errorf("%d probes at a time, of at most 40", most.Load())
	}
	p.Only(nil)
	if len(p.runs)+len(p.by)+len(p.queue) > 0 {
		t.Errorf("left: %d runs, %d instances, %d in the queue", len(p.runs), len(p.by), len(p.queue))
	}
}

// BenchmarkProbe is one HTTP probe of 10,000 that are watched, everything included.
func BenchmarkProbe(b *testing.B) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer srv.Close()
	u, _ := url.Parse(srv.URL)
	port, _ := strconv.Atoi(u.Port())
	p := New(Options{MinInterval: time.Millisecond, Report: func(scheduler.Health) {}})
	for n := range 10_000 {
		i, d := instance(port, state.HealthCheck{Protocol: "HTTP", Timeout: 20 * time.Second, Interval: 10 * time.Second})
		i.ID = state.InstanceID(fmt.Sprintf("web.%d", n))
		i.Run.Task = state.TaskID(fmt.Sprintf("web.%d.1-abcdef", n))
		p.Watch(i, d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	b.ResetTimer()
	began := time.Now()
	go func() { p.Run(ctx); close(done) }()
	for asked.Load() < 10_000 {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(10_000/time.Since(began).Seconds(), "probes/s")
	b.StopTimer()
	cancel()
	<-done
}

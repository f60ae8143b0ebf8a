package api_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

const (
	benchApps  = 5000
	benchTasks = 10 // of each app
)

// crowd fills a cluster: 5,000 apps in 50 groups with 50,000 running tasks.
func crowd(tb testing.TB, c *core) {
	tb.Helper()
	var writes []state.Write
	for n := range benchApps {
		id := fmt.Sprintf("/team-%d/app-%d", n%50, n)
		d, err := definitionOf(fmt.Sprintf(`{"id":%q,"cmd":"exec server --port $PORT0","instances":%d,"env":{"MODE":"production"},"labels":{"team":"%d"},
			"healthChecks":[{"protocol":"MESOS_HTTP","path":"/health"}],"portDefinitions":[{"port":%d,"name":"http"}]}`, id, benchTasks, n%50, 10000+n))
		if err != nil {
			tb.Fatal(err)
		}
		at := c.now
		writes = append(writes, state.Write{Kind: state.KindDef, ID: state.DefID(d.App, d.Version), Value: d},
			state.Write{Kind: state.KindApp, ID: id, Value: &state.App{ID: d.App, Version: d.Version, Instances: benchTasks, LastScalingAt: at, LastConfigChangeAt: at, Rev: 1}})
		for o := range benchTasks {
			i := &state.Instance{ID: state.NewInstanceID(d.App, o), App: d.App, Ordinal: o, Goal: state.GoalRun, Version: d.Version, Phase: state.PhaseRunning, Since: at, Incarnation: 1, CreatedAt: at, Rev: 1}
			i.Run = &state.Run{Task: state.NewTaskID(i.ID, 1, "abcdef"), Version: d.Version, Agent: "agent-alpha", Hostname: "alpha", MesosState: "TASK_RUNNING",
				Ports: []int{31000 + o}, ContainerIP: "10.0.0.1", StagedAt: at, StartedAt: at}
			writes = append(writes, state.Write{Kind: state.KindInstance, ID: string(i.ID), Value: i})
		}
	}
	c.s.Apply(writes)
}

// counter takes an answer without keeping it, and watches the heap while it comes.
type counter struct {
	header http.Header
	bytes  int
	status int
	peak   uint64
	every  int
}

func (c *counter) Header() http.Header  { return c.header }
func (c *counter) WriteHeader(code int) { c.status = code }
func (c *counter) Write(p []byte) (int, error) {
	c.bytes += len(p)
	if c.every++; c.every%8 == 0 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		c.peak = max(c.peak, m.HeapAlloc)
	}
	return len(p), nil
}

// BenchmarkLists prints everything there is at 5,000 apps and 50,000 tasks: how long, how much, and how much more heap than before.
func BenchmarkLists(b *testing.B) {
	c := newCore()
	crowd(b, c)
	h := api.New(c, api.Options{Log: zap.NewNop(), Now: c.clock})
	for _, path := range []string{"/v2/apps?embed=apps.tasks", "/v2/groups?embed=group.groups&embed=group.apps&embed=group.apps.tasks&embed=group.apps.counts", "/v2/tasks"} {
		b.Run(strings.Split(path, "?")[0], func(b *testing.B) {
			for b.Loop() {
				runtime.GC()
				var before runtime.MemStats
				runtime.ReadMemStats(&before)
				w := &counter{header: http.Header{}}
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil))
				if w.status != http.StatusOK || w.bytes < 10<<20 {
					b.Fatalf("%d, %d bytes", w.status, w.bytes)
				}
				b.ReportMetric(float64(w.bytes)/(1<<20), "MiB-answer")
				b.ReportMetric(float64(max(w.peak, before.HeapAlloc)-before.HeapAlloc)/(1<<20), "MiB-heap")
			}
		})
	}
}

// BenchmarkPostApp creates an app among 5,000.
func BenchmarkPostApp(b *testing.B) {
	c := newCore()
	crowd(b, c)
	h := api.New(c, api.Options{Log: zap.NewNop(), Now: c.clock})
	n := 0
	post := func() {
		n++
		body := fmt.Sprintf(`{"id":"/new/app-%d","cmd":"sleep 1000","instances":1}`, n)
		r := httptest.NewRequest(http.MethodPost, "http://localhost/v2/apps", strings.NewReader(body))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusCreated {
			b.Fatal(w.Body)
		}
	}
	post() // the book of service ports is written at the first change
	for b.Loop() {
		post()
	}
}

// BenchmarkReadGroup reads and checks a group of 5,000 apps, as PUT /v2/groups does before it looks at what there is.
func BenchmarkReadGroup(b *testing.B) {
	var text bytes.Buffer
	text.WriteString(`{"id":"/big","groups":[`)
	for g := range 50 {
		if g > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `{"id":"g%d","apps":[`, g)
		for n := range benchApps / 50 {
			if n > 0 {
				text.WriteByte(',')
			}
			fmt.Fprintf(&text, `{"id":"app-%d","cmd":"exec server --port $PORT0","instances":10,"env":{"MODE":"production"},"labels":{"team":"%d"},"healthChecks":[{"protocol":"MESOS_HTTP","path":"/health"}],"portDefinitions":[{"port":0,"name":"http"}]}`, n, g)
		}
		text.WriteString(`]}`)
	}
	text.WriteString(`]}`)
	b.Run("validate", func(b *testing.B) {
		for b.Loop() {
			v, err := document.Parse(text.Bytes())
			if err == nil {
				_, _, err = marathon.ReadGroup(v, "/", marathon.Options{Role: "holdfast"})
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("dry-run", func(b *testing.B) {
		c := newCore()
		h := api.New(c, api.Options{Log: zap.NewNop(), Now: c.clock})
		for b.Loop() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "http://localhost/v2/groups/big?dryRun=true", bytes.NewReader(text.Bytes())))
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "StartApplication") {
				b.Fatalf("%d %.300s", w.Code, w.Body)
			}
		}
	})
}

// BenchmarkEventClients sends one event to 1,000 clients: from the change to its arrival at the last one.
func BenchmarkEventClients(b *testing.B) {
	const clients = 1000
	c := newCore()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = api.Serve(api.New(c, api.Options{Log: zap.NewNop(), Now: c.clock}), nil)
	srv.Start()
	defer srv.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	defer srv.CloseClientConnections()
	arrived := make(chan struct{}, clients)
	var open sync.WaitGroup
	for range clients {
		open.Add(1)
		go readEvents(ctx, srv.Listener.Addr().String(), &open, arrived)
	}
	open.Wait()
	n := 0
	for b.Loop() {
		n++
		if _, err := c.Do(ctx, scheduler.PutApp{Changes: []scheduler.AppPut{{Def: must(definitionOf(fmt.Sprintf(`{"id":"/e%d","cmd":"sleep 1","instances":0}`, n)))}}}); err != nil {
			b.Fatal(err)
		}
		end := time.After(30 * time.Second)
		for range clients {
			select {
			case <-arrived:
			case <-end:
				b.Fatal("an event did not arrive everywhere within 30 s")
			}
		}
	}
}

func must(d *state.Def, err error) *state.Def {
	if err != nil {
		panic(err)
	}
	return d
}

// readEvents is a client that tells of each deployment_success.
func readEvents(ctx context.Context, address string, open *sync.WaitGroup, arrived chan<- struct{}) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		panic(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, _ = io.WriteString(conn, "GET /v2/events?event_type=deployment_success HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	in := bufio.NewScanner(conn)
	for first := true; in.Scan(); {
		if first {
			first = false
			open.Done()
		}
		if strings.HasPrefix(in.Text(), "event: deployment_success") {
			arrived <- struct{}{}
		}
	}
}

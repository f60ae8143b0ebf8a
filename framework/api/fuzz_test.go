package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// FuzzRequests: no request makes a 500, whatever it is. Run it longer with: go test -fuzz FuzzRequests ./framework/api
func FuzzRequests(f *testing.F) {
	for _, s := range [][3]string{
		{"POST", "/v2/apps", `{"id":"/a","cmd":"sleep 1"}`}, {"PUT", "/v2/apps/a?force=true", `{"instances":2}`}, {"PATCH", "/v2/apps", `[{"id":"/a","cpus":1}]`},
		{"GET", "/v2/apps?label=a%20in%20(b,c)&embed=apps.tasks&embed=apps.taskStats", ""}, {"GET", "/v2/apps/%2Fdb/versions/x", ""}, {"DELETE", "/v2/apps/db/tasks?scale=true&host=x", ""},
		{"POST", "/v2/tasks/delete?scale=true", `{"ids":["db.0.1-abcdef"]}`}, {"DELETE", "/v2/queue//db/delay", ""}, {"GET", "/v1/explain/db.0", ""}, {"GET", "/v1/volumes/pool/v", ""},
		{"DELETE", "/v1/volumes/v", ""}, {"POST", "/v1/instances/db.0/move", ""}, {"GET", "/v1/instances/db.0/logs?offset=-9223372036854775808", ""}, {"GET", "/v2/apps/*", ""},
		{"PUT", "/v2/apps/db", `{"version":"2026-05-04T03:02:01.000Z"}`}, {"GET", "/v2/queue", ""}, {"DELETE", "/v2/deployments/x?force=true", ""}, {"POST", "/v2/apps/db/restart", ""},
		{"PUT", "/v2/apps/db", `{"container":{"volumes":[]},"cmd":null}`}, {"PUT", "/v2/apps/db", `[]`}, {"PUT", "/v2/apps", `[[]]`},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") || strings.Contains(target, "follow") || strings.HasPrefix(u.Path, "/v1/events") || len(body) > 1<<16 {
			return
		}
		req, err := http.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
		if err != nil {
			return
		}
		c := newCore()
		c.run(scheduler.PutApp{Changes: []scheduler.AppPut{{Def: fuzzDef(t), Instances: 2}}})
		w := httptest.NewRecorder()
		api.New(c, api.Options{Now: c.clock, Patience: 50 * time.Millisecond}).ServeHTTP(w, req)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s %s %s: %d %s", method, target, body, w.Code, w.Body)
		}
	})
}

func fuzzDef(t testing.TB) *state.Def {
	t.Helper()
	def, err := definitionOf(`{"id":"/db","cmd":"sleep 1","instances":2,"cpus":0.1,"mem":1,"container":{"type":"MESOS","volumes":[{"containerPath":"d","mode":"RW","external":{"name":"v","provider":"dvdi","options":{"dvdi/driver":"pool"}}}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	return def
}

// BenchmarkListApps prints 5,000 apps with ten tasks each.
func BenchmarkListApps(b *testing.B) {
	c := newCore()
	var writes []state.Write
	for n := range 5000 {
		def, err := definitionOf(fmt.Sprintf(`{"id":"/g%d/app-%d","cmd":"sleep 1","cpus":0.1,"mem":1,"env":{"A":"b"},"instances":10}`, n/100, n))
		if err != nil {
			b.Fatal(err)
		}
		writes = append(writes, state.Write{Kind: state.KindDef, ID: state.DefID(def.App, def.Version), Value: def},
			state.Write{Kind: state.KindApp, ID: string(def.App), Value: &state.App{ID: def.App, Version: def.Version, Instances: 10}})
		for k := range 10 {
			i := &state.Instance{ID: state.NewInstanceID(def.App, k), App: def.App, Ordinal: k, Goal: state.GoalRun, Phase: state.PhaseRunning, Version: def.Version}
			i.Run = &state.Run{Task: state.NewTaskID(i.ID, 1, "abcdef"), Version: def.Version, Agent: "a", Hostname: "h", Ports: []int{31000}, MesosState: "TASK_RUNNING"}
			writes = append(writes, state.Write{Kind: state.KindInstance, ID: string(i.ID), Value: i})
		}
	}
	c.s.Apply(writes)
	h := api.New(c, api.Options{Now: c.clock, Patience: 50 * time.Millisecond})
	b.ResetTimer()
	b.ReportAllocs()
	for range b.N {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/v2/apps?embed=apps.tasks", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
		b.SetBytes(int64(w.Body.Len()))
	}
}

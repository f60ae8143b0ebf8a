package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	gomarathon "github.com/gambol99/go-marathon"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

const stateful = `{"id":"/db","cmd":"sleep 1000","instances":2,"cpus":0.1,"mem":32,"containr":{},"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW",
 "external":{"name":"v","provider":"dvdi","size":1,"options":{"dvdi/driver":"pool"}}}]}}`

// TestClient goes through what the command line does.
func TestClient(t *testing.T) {
	c, srv := serve(t)
	cl := client.New(srv.URL)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("ping", cl.Ping(ctx))
	r, err := cl.PutApp(ctx, json.RawMessage(stateful), client.PutOptions{})
	must("put", err)
	if !r.Created || r.Deployment == "" || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], `did you mean "container"?`) {
		t.Errorf("put answers %+v", r)
	}
	if _, err := cl.PutApp(ctx, json.RawMessage(stateful), client.PutOptions{CreateOnly: true}); !fault.Is(err, fault.Exists) {
		t.Errorf("create of what exists: %v", err)
	}
	if _, err := cl.PutApp(ctx, json.RawMessage(`{"id":"/db","cmd":"sleep 1","instances":"x"}`), client.PutOptions{}); !fault.Is(err, fault.Invalid) || fault.DetailsOf(err)[0].Path != "/instances" {
		t.Errorf("bad app: %v", err)
	}
	if _, err := cl.PutApp(ctx, json.RawMessage(`{`), client.PutOptions{}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "line: 1") {
		t.Errorf("no JSON: %v", err)
	}
	r, err = cl.PutApp(ctx, json.RawMessage(stateful), client.PutOptions{})
	must("put again", err)
	if r.Created {
		t.Error("an update says that it created")
	}
	_, err = cl.Scale(ctx, "/db", 3, false)
	must("scale", err)
	apps, err := cl.Apps(ctx)
	must("apps", err)
	if len(apps) != 1 || apps[0].Running != 3 || apps[0].Status != "running" {
		t.Errorf("apps: %+v", apps)
	}
	def, err := cl.AppDefinition(ctx, "db")
	must("definition", err)
	if !bytes.Contains(def, []byte(`"instances":3`)) {
		t.Errorf("definition: %s", def)
	}
	inst, err := cl.Instances(ctx, "/db")
	must("instances", err)
	if len(inst) != 3 || inst[2].ID != "db.2" || inst[2].Volumes[0].Name != "v-2" {
		t.Errorf("instances: %+v", inst)
	}
	before := inst[0].Hostname
	_, err = cl.MoveInstance(ctx, "db.0")
	must("move", err)
	c.pass(2 * time.Second)
	one, err := cl.Instance(ctx, "db.0")
	must("instance", err)
	if one.Hostname == before || one.Incarnation != 2 {
		t.Errorf("db.0 did not move from %s: %+v", before, one)
	}
	_, err = cl.RestartInstance(ctx, "db.1")
	must("restart instance", err)
	c.pass(2 * time.Second)
	e, err := cl.Explain(ctx, "/db")
	must("explain", err)
	if e.Waiting || e.Kind != "app" || len(e.Lines) < 2 {
		t.Errorf("explain: %+v", e)
	}
	if _, err = cl.RemoveVolume(ctx, "pool/v-2"); !fault.Is(err, fault.Conflict) {
		t.Errorf("removal of a used volume: %v", err)
	}
	_, err = cl.Remove(ctx, "/db", client.RemoveOptions{})
	must("remove", err)
	c.pass(2 * time.Second)
	if _, err := cl.App(ctx, "/db"); !fault.Is(err, fault.NotFound) {
		t.Errorf("app that was removed: %v", err)
	}
	vols, err := cl.Volumes(ctx, "")
	must("volumes", err)
	if len(vols) != 3 {
		t.Errorf("the volumes did not stay: %+v", vols)
	}
	_, err = cl.RemoveVolume(ctx, "v-2")
	must("remove volume", err)
	nodes, err := cl.Nodes(ctx)
	must("nodes", err)
	claims, err := cl.Claims(ctx)
	must("claims", err)
	info, err := cl.Info(ctx)
	must("info", err)
	deps, err := cl.Deployments(ctx)
	must("deployments", err)
	if len(nodes) != 3 || len(claims) == 0 || !info.Connected || len(deps) != 0 {
		t.Errorf("nodes %d, claims %d, info %+v, deployments %+v", len(nodes), len(claims), info, deps)
	}
}

func TestClientSaysWhatIsUnknown(t *testing.T) {
	_, srv := serve(t)
	url := srv.URL
	srv.Close()
	cl := client.New(url)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := cl.Scale(ctx, "/db", 1, false); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nobody there: %v (%s)", err, fault.ClassOf(err))
	}
}

func TestLogs(t *testing.T) {
	c, srv := serve(t)
	cl := client.New(srv.URL)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := cl.PutApp(ctx, json.RawMessage(stateful), client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Logs(ctx, "db.0", client.LogOptions{File: "nothing"}); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such file: %v", err)
	}
	r, err := cl.Logs(ctx, "db.0", client.LogOptions{Offset: -5})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r)
	if len(text) != 5 || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("the end: %q", text)
	}
	// Followed over a relaunch: what the next run writes comes too.
	r, err = cl.Logs(ctx, "db.0", client.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := func(part string) {
		t.Helper()
		var got strings.Builder
		buf := make([]byte, 1000)
		for !strings.Contains(got.String(), part) {
			n, err := r.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v after %q, want %q", err, got.String(), part)
			}
		}
	}
	want("db.0.1-")
	if _, err := cl.RestartInstance(ctx, "db.0"); err != nil {
		t.Fatal(err)
	}
	c.pass(2 * time.Second)
	want("db.0.2-")
}

func TestEvents(t *testing.T) {
	c, srv := serve(t)
	cl := client.New(srv.URL)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	events, err := cl.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.PutApp(ctx, json.RawMessage(stateful), client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for e := range events {
		seen[e.Type] = true
		if e.Instance != nil && e.Instance.ID == "db.1" && e.Instance.Phase == "running" {
			break
		}
	}
	if !seen["app"] || !seen["instance"] || !seen["deployment"] || !seen["volume"] {
		t.Errorf("events seen: %v", seen)
	}
	cancel()
	for range events {
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		n := len(c.subs)
		c.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the subscription stays after the reader went")
		}
	}
}

// TestGoMarathon runs a client that many programs use.
func TestGoMarathon(t *testing.T) {
	c, srv := serve(t)
	config := gomarathon.NewDefaultConfig()
	config.URL = srv.URL
	m, err := gomarathon.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, err = m.Ping()
	must("ping", err)
	info, err := m.Info()
	must("info", err)
	if info.FrameworkID != "fw-1" {
		t.Errorf("info %+v", info)
	}
	app := gomarathon.NewDockerApplication()
	app.Container = nil
	app.Name("/product/web").CPU(0.1).Memory(32).Count(2).Command("sleep 1000").AddEnv("A", "b").AddLabel("x", "y")
	created, err := m.CreateApplication(app)
	must("create", err)
	if len(created.Deployments) != 1 || *created.Instances != 2 {
		t.Errorf("created %+v", created)
	}
	must("wait", m.WaitOnApplication("/product/web", 5*time.Second))
	apps, err := m.Applications(nil)
	must("list", err)
	if len(apps.Apps) != 1 || apps.Apps[0].TasksRunning != 2 {
		t.Errorf("apps %+v", apps)
	}
	if _, err := m.CreateApplication(app); err == nil || err.(*gomarathon.APIError).ErrCode != gomarathon.ErrCodeDuplicateID {
		t.Errorf("create twice: %v", err)
	}
	dep, err := m.ScaleApplicationInstances("/product/web", 3, false)
	must("scale", err)
	must("wait for the deployment", m.WaitOnDeployment(dep.DeploymentID, 5*time.Second))
	tasks, err := m.Tasks("/product/web")
	must("tasks", err)
	if len(tasks.Tasks) != 3 || len(tasks.Tasks[0].Ports) != 1 {
		t.Errorf("tasks %+v", tasks)
	}
	all, err := m.AllTasks(nil)
	must("all tasks", err)
	if len(all.Tasks) != 3 {
		t.Errorf("all tasks: %+v", all)
	}
	c.holdStart = true
	dep, err = m.RestartApplication("/product/web", false)
	must("restart", err)
	deps, err := m.Deployments()
	must("deployments", err)
	if len(deps) != 1 || deps[0].ID != dep.DeploymentID || len(deps[0].Steps) == 0 {
		t.Errorf("deployments: %+v", deps)
	}
	if _, err := m.RestartApplication("/product/web", false); err == nil || err.(*gomarathon.APIError).ErrCode != gomarathon.ErrCodeAppLocked {
		t.Errorf("restart under lock: %v", err)
	}
	for range 5 {
		c.start()
		c.pass(2 * time.Second)
	}
	app.CPU(0.2)
	app.Count(3)
	_, err = m.UpdateApplication(app, false)
	must("update", err)
	for range 5 {
		c.start()
		c.pass(2 * time.Second)
	}
	versions, err := m.ApplicationVersions("/product/web")
	must("versions", err)
	if len(versions.Versions) != 2 {
		t.Errorf("versions %+v", versions)
	}
	old, err := m.ApplicationByVersion("/product/web", versions.Versions[1])
	must("old version", err)
	if old.CPUs != 0.1 {
		t.Errorf("old version has cpus %v", old.CPUs)
	}
	_, err = m.SetApplicationVersion("/product/web", &gomarathon.ApplicationVersion{Version: versions.Versions[1]})
	must("roll back", err)
	for range 5 {
		c.start()
		c.pass(2 * time.Second)
	}
	back, err := m.Application("/product/web")
	must("show", err)
	if back.CPUs != 0.1 || *back.Instances != 2 {
		t.Errorf("after the rollback: cpus %v, %d instances", back.CPUs, *back.Instances)
	}
	group := gomarathon.NewApplicationGroup("/shop")
	one := gomarathon.NewDockerApplication()
	one.Container = nil
	one.Name("/shop/a").CPU(0.1).Memory(32).Count(1).Command("sleep 1000")
	must("create a group", m.CreateGroup(group.App(one)))
	must("wait for the group", m.WaitOnGroup("/shop", 5*time.Second))
	groups, err := m.Groups()
	must("groups", err)
	if len(groups.Groups) != 2 || groups.Groups[1].ID != "/shop" || len(groups.Groups[1].Apps) != 1 {
		t.Errorf("groups %+v", groups)
	}
	if there, err := m.HasGroup("/nowhere"); there || err != nil {
		t.Errorf("a group that is not: %v %v", there, err)
	}
	one.Count(2)
	_, err = m.UpdateGroup("/shop", group, false)
	must("update the group", err)
	if g, err := m.Group("/shop"); err != nil || *g.Apps[0].Instances != 2 {
		t.Errorf("group %+v %v", g, err)
	}
	c.pass(2 * time.Second)
	_, err = m.DeleteGroup("/shop", true)
	must("delete the group", err)
	_, err = m.KillApplicationTasks("/product/web", &gomarathon.KillApplicationTasksOpts{})
	must("kill", err)
	_, err = m.Queue()
	must("queue", err)
	_, err = m.DeleteApplication("/product/web", true)
	must("delete", err)
	c.pass(time.Second)
	if _, err := m.Application("/product/web"); err == nil || err.(*gomarathon.APIError).ErrCode != gomarathon.ErrCodeNotFound {
		t.Errorf("deleted, and there: %v", err)
	}
}

func TestLimits(t *testing.T) {
	_, srv := serve(t)
	post := func(body io.Reader) (*http.Response, string) {
		t.Helper()
		resp, err := http.Post(srv.URL+"/v2/apps", "application/json", body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return resp, string(data)
	}
	big := `{"id":"/a","cmd":"` + strings.Repeat("x", 10<<20) + `"}`
	if resp, body := post(strings.NewReader(big)); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("10 MB: %d %.200s", resp.StatusCode, body)
	}
	// Without Content-Length, as marathonctl sends.
	if resp, body := post(io.MultiReader(strings.NewReader(big))); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("10 MB in chunks: %d %.200s", resp.StatusCode, body)
	}
	if resp, body := post(strings.NewReader(`{"id":"/a","cmd":"` + strings.Repeat("x", 300<<10) + `"}`)); resp.StatusCode != 422 || !strings.Contains(body, "larger than 256 KiB") {
		t.Errorf("300 KB: %d %.200s", resp.StatusCode, body)
	}
	if resp, body := post(strings.NewReader(strings.Repeat("[", 100000))); resp.StatusCode != 400 || !strings.Contains(body, "nested deeper") {
		t.Errorf("deep: %d %.200s", resp.StatusCode, body)
	}
	if resp, body := post(strings.NewReader("{\"id\":\"/a\xff\"}")); resp.StatusCode != 400 || !strings.Contains(body, "UTF-8") {
		t.Errorf("no UTF-8: %d %.200s", resp.StatusCode, body)
	}
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf(`"k%d":1`, i)
	}
	if resp, _ := post(strings.NewReader(`{"id":"/a","cmd":"sleep 1",` + strings.Join(many, ",") + `}`)); resp.StatusCode != 201 || len(resp.Header.Values("Warning")) > 50 {
		t.Errorf("5000 unknown fields: %d, %d warnings", resp.StatusCode, len(resp.Header.Values("Warning")))
	}
}

func TestGzip(t *testing.T) {
	c, srv := serve(t)
	populate(t, c, srv.URL)
	req, _ := http.NewRequest(http.MethodGet, srv.URL+"/v2/apps", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Encoding") != "gzip" {
		t.Fatal("not compressed")
	}
	z, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(z); err != nil || !json.Valid(data) {
		t.Errorf("%v %.100s", err, data)
	}
}

// TestExplainText looks at what people read.
func TestExplainText(t *testing.T) {
	c, srv := serve(t)
	populate(t, c, srv.URL)
	c.event(scheduler.AgentLost{Agent: state.AgentID("agent-gamma")})
	cl := client.New(srv.URL)
	for id, parts := range map[string][]string{
		"/huge":           {"app /huge: 0 of 1 instances run", "cpus", "alpha"},
		"prod_postgres.2": {"prod_postgres.2 is lost", "pool/pgdata-2", "gamma"},
		"pgdata-2":        {"volume pool/pgdata-2 is ready", "held by", "instance prod_postgres.2"},
		"gamma":           {"node gamma is"},
		"agent-alpha":     {"node alpha is alive", "instances: batch_nightly.0"},
	} {
		e, err := cl.Explain(context.Background(), id)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		text := strings.Join(e.Lines, "\n")
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("explain %s lacks %q:\n%s", id, p, text)
			}
		}
	}
}

func TestDeploymentIsCancelled(t *testing.T) {
	c, srv := serve(t)
	cl := client.New(srv.URL)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := cl.PutApp(ctx, json.RawMessage(stateful), client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	c.holdStart = true
	r, err := cl.Scale(ctx, "/db", 4, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Scale(ctx, "/db", 5, false); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), r.Deployment) {
		t.Errorf("a second change: %v, want a conflict that names %s", err, r.Deployment)
	}
	back, err := cl.CancelDeployment(ctx, r.Deployment, false)
	if err != nil || back.Deployment == "" || back.Deployment == r.Deployment {
		t.Fatalf("roll back: %+v %v", back, err)
	}
	c.start()
	c.pass(2 * time.Second)
	app, err := cl.App(ctx, "/db")
	if err != nil || app.Instances != 2 {
		t.Errorf("after the roll back: %+v %v", app, err)
	}
	if _, err := cl.CancelDeployment(ctx, r.Deployment, false); !fault.Is(err, fault.NotFound) {
		t.Errorf("cancelled twice: %v", err)
	}
	c.holdStart = true
	if r, err = cl.Scale(ctx, "/db", 3, false); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodDelete, srv.URL+"/v2/deployments/"+r.Deployment+"?force=true", nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusAccepted || len(body) > 0 {
		t.Errorf("abandoned: %d %s", resp.StatusCode, body)
	}
}

// TestManyWriters: whoever comes at once is served, refused with a reason, or told to wait; nothing is lost, no two get one service port.
func TestManyWriters(t *testing.T) {
	c, srv := serve(t)
	cl := client.New(srv.URL)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for n := range 30 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			app := fmt.Sprintf(`{"id":"/w/app-%d","cmd":"sleep 1","cpus":0.01,"mem":1,"instances":1}`, n%20)
			if _, err := cl.PutApp(ctx, json.RawMessage(app), client.PutOptions{}); err != nil && !fault.Is(err, fault.Conflict) {
				t.Errorf("put %d: %v", n, err)
			}
			if _, err := cl.Instances(ctx, ""); err != nil {
				t.Errorf("list: %v", err)
			}
			if _, err := cl.Scale(ctx, fmt.Sprintf("/w/app-%d", n%20), 1+n%2, true); err != nil && !fault.Is(err, fault.Conflict) {
				t.Errorf("scale %d: %v", n, err)
			}
		}()
	}
	wg.Wait()
	ports := map[int]state.AppID{}
	c.View(func(st *state.State) {
		if len(st.Apps) != 20 {
			t.Errorf("%d apps", len(st.Apps))
		}
		for _, a := range st.Apps {
			p := st.DefOf(a.ID).Spec.Ports[0].Want
			if other, twice := ports[p]; twice {
				t.Errorf("%s and %s have service port %d", a.ID, other, p)
			}
			ports[p] = a.ID
		}
	})
}

// TestHeavySlowEventReaderIsCut: who asks for events and does not read them costs nothing for long.
func TestHeavySlowEventReaderIsCut(t *testing.T) {
	heavy.Require(t)
	c, srv := serve(t)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	readers := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		for n := 0; n < 200 && len(c.subs) > 0; n++ {
			c.notify(framework.Notice{Type: "instance", ID: "x.0", Instance: &state.Instance{ID: "x.0", KillReason: strings.Repeat("x", 10000)}})
		}
		return len(c.subs)
	}
	for deadline := time.Now().Add(5 * time.Second); readers() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the reader was never subscribed")
		}
	}
	for deadline := time.Now().Add(40 * time.Second); readers() > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a reader that reads nothing is still served")
		}
	}
}

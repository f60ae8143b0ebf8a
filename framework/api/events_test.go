package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	gomarathon "github.com/gambol99/go-marathon"

	marathonevent "github.com/holdfast-io/holdfast/framework/api/event"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// listener reads an event stream.
type listener struct {
	t *testing.T
	r *bufio.Reader
}

// event is one frame.
type event struct {
	kind string
	data map[string]any
}

func listen(t *testing.T, srv *httptest.Server, query string) *listener {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v2/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream;charset=utf-8" {
		t.Fatalf("events answer %d %s", resp.StatusCode, ct)
	}
	return &listener{t, bufio.NewReader(resp.Body)}
}

func (l *listener) next() event {
	l.t.Helper()
	var e event
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			l.t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "event: "):
			e.kind = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[len("data: "):]), &e.data); err != nil {
				l.t.Fatal(err)
			}
			if e.data["eventType"] != e.kind || e.data["timestamp"] == "" {
				l.t.Fatalf("event %s says %v at %v", e.kind, e.data["eventType"], e.data["timestamp"])
			}
		case line == "" && e.kind != "":
			return e
		}
	}
}

// until gives the events up to the first of a kind, printed as "kind field…".
func (l *listener) until(kind string) (out []string) {
	l.t.Helper()
	for {
		e := l.next()
		text := e.kind
		for _, k := range []string{"appId", "instanceId", "condition", "taskStatus", "alive", "healthy", "groupId", "runSpecId"} {
			if v, ok := e.data[k]; ok {
				text += fmt.Sprintf(" %v", v)
			}
		}
		if step, ok := e.data["currentStep"].(map[string]any); ok {
			for _, a := range step["actions"].([]any) {
				a := a.(map[string]any)
				text += fmt.Sprintf(" %v %v", a["action"], a["app"])
			}
		}
		out = append(out, text)
		if e.kind == kind {
			return out
		}
	}
}

func send(t *testing.T, srv *httptest.Server, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// same compares without regard to order: a request's own events and those of the state come from two sides.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	a, b := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(a, b) {
		t.Errorf("%s:\n got %s\nwant %s", what, strings.Join(a, "\n     "), strings.Join(b, "\n     "))
	}
}

// TestMarathonEvents follows an app through its life.
func TestMarathonEvents(t *testing.T) {
	c, srv := serve(t)
	l := listen(t, srv, "")
	if e := l.next(); e.kind != "event_stream_attached" || e.data["remoteAddress"] == "" {
		t.Fatalf("first event %+v", e)
	}
	only := listen(t, srv, "?event_type=app_terminated_event&event_type=health_status_changed_event")
	l.until("event_stream_attached")
	const app = `{"id":"/p/a","cmd":"sleep 1","healthChecks":[{"protocol":"MESOS_TCP","portIndex":0}]}`
	if status, text := send(t, srv, http.MethodPost, "/v2/apps", app); status != http.StatusCreated {
		t.Fatal(status, text)
	}
	var task state.TaskID
	c.View(func(st *state.State) { task = st.Instances["p_a.0"].Run.Task })
	yes := true
	c.event(scheduler.Status{Task: task, Agent: c.agents[task], State: "TASK_RUNNING", Healthy: &yes, UUID: []byte("h"), At: c.now})
	same(t, "create", l.until("deployment_success"), []string{"add_health_check_event /p/a", "api_post_event", "deployment_info StartApplication /p/a", "deployment_info ScaleApplication /p/a",
		"deployment_step_success ScaleApplication /p/a", "deployment_step_success StartApplication /p/a", "deployment_success", "group_change_success /p",
		"health_status_changed_event /p/a p_a.0 true", "instance_health_changed_event p_a.0 true /p/a",
		"instance_changed_event p_a.0 Provisioned /p/a", "instance_changed_event p_a.0 Running /p/a", "instance_changed_event p_a.0 Scheduled /p/a", "status_update_event /p/a TASK_RUNNING"})
	c.event(scheduler.Status{Task: task, Agent: c.agents[task], State: "TASK_FAILED", Message: "it broke", UUID: []byte("f"), At: c.now})
	same(t, "failure", l.until("instance_changed_event"), []string{"instance_changed_event p_a.0 Failed /p/a", "status_update_event /p/a TASK_FAILED"})
	send(t, srv, http.MethodDelete, "/v2/apps/p/a", "")
	got := l.until("deployment_success")
	for _, want := range []string{"app_terminated_event /p/a", "remove_health_check_event /p/a"} {
		if !slices.Contains(got, want) {
			t.Errorf("delete: no %s in %v", want, got)
		}
	}
	same(t, "chosen", only.until("app_terminated_event"), []string{"health_status_changed_event /p/a p_a.0 true", "app_terminated_event /p/a"})
}

// TestFullPlans: who asks for it gets the groups before and after with each plan.
func TestFullPlans(t *testing.T) {
	_, srv := serve(t)
	send(t, srv, http.MethodPost, "/v2/apps", `{"id":"/p/a","cmd":"sleep 1","instances":1}`)
	full, light := listen(t, srv, "?plan-format=full&event_type=deployment_info&event_type=deployment_success"), listen(t, srv, "?plan-format=light&event_type=deployment_info")
	send(t, srv, http.MethodPut, "/v2/groups/p?dryRun=true", `{"apps":[]}`) // tells nobody anything
	send(t, srv, http.MethodPut, "/v2/groups/p", `{"apps":[{"id":"a","cmd":"sleep 1","instances":3},{"id":"b","cmd":"sleep 1"}]}`)
	plan := light.next().data["plan"].(map[string]any)
	if len(plan) != 3 || plan["id"] == "" || plan["steps"] == nil || plan["version"] == "" {
		t.Errorf("light plan %v", plan)
	}
	plan = full.next().data["plan"].(map[string]any)
	for side, want := range map[string]string{"original": "/p/a 1", "target": "/p/a 3,/p/b 1"} {
		group := plan[side].(map[string]any)["groups"].([]any)[0].(map[string]any)
		var got []string
		for _, a := range group["apps"].([]any) {
			a := a.(map[string]any)
			got = append(got, fmt.Sprintf("%v %v", a["id"], a["instances"]))
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s has %v, want %s", side, got, want)
		}
	}
}

// TestSlowEventReaderIsCut: a reader may fall behind by so many events, and no more; others do not notice.
func TestSlowEventReaderIsCut(t *testing.T) {
	c := newCore()
	h := marathonevent.NewHub(c, &marathonevent.Translator{Now: c.clock, View: c.View})
	slow, other := h.Attach("slow", nil, false), h.Attach("other", []string{"event_stream_detached"}, true)
	if h.Count() != 2 {
		t.Fatalf("%d readers", h.Count())
	}
	for range marathonevent.Room {
		h.Publish(marathonevent.GroupChanged(c.now, "/", "v"))
	}
	if e := <-other.Events(); h.Count() != 1 || e.Type != "event_stream_detached" {
		t.Fatalf("%d readers, %s", h.Count(), e.Type)
	}
	n := 0
	for range slow.Events() {
		n++
	}
	if n != marathonevent.Room {
		t.Errorf("the slow one got %d", n)
	}
	slow.Detach()
	other.Detach()
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Count() != 0 {
		t.Error("somebody stays")
	}
}

// TestGoMarathonEvents: a client that many programs use reads the stream.
func TestGoMarathonEvents(t *testing.T) {
	_, srv := serve(t)
	t.Cleanup(srv.CloseClientConnections) // the client has no end
	config := gomarathon.NewDefaultConfig()
	config.URL, config.EventsTransport = srv.URL, gomarathon.EventsTransportSSE
	m, err := gomarathon.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	events, err := m.AddEventsListener(gomarathon.EventIDApplications | gomarathon.EventIDDeploymentSuccess | gomarathon.EventIDAPIRequest)
	if err != nil {
		t.Fatal(err)
	}
	send(t, srv, http.MethodPost, "/v2/apps", `{"id":"/a","cmd":"sleep 1"}`)
	seen := map[string]bool{}
	for deadline := time.After(10 * time.Second); len(seen) < 3; {
		select {
		case e := <-events:
			seen[e.Name] = true
			if s, ok := e.Event.(*gomarathon.EventStatusUpdate); ok && (s.AppID != "/a" || s.TaskStatus != "TASK_RUNNING" || len(s.Ports) != 1) {
				t.Errorf("status %+v", s)
			}
			if s, ok := e.Event.(*gomarathon.EventAPIRequest); ok && (s.ClientIP != "127.0.0.1" || s.AppDefinition.ID != "/a") {
				t.Errorf("request %+v", s)
			}
		case <-deadline:
			t.Fatalf("only %v came", seen)
		}
	}
}

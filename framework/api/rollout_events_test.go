package api_test

import (
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestEventsOfFailures: a refused change, a deployment that is abandoned, and a failed check of the framework's own.
func TestEventsOfFailures(t *testing.T) {
	c, srv := serve(t)
	world(t, c, []string{"hold"})
	l := listen(t, srv, "?event_type=group_change_failed&event_type=deployment_step_failure&event_type=deployment_failed&event_type=failed_health_check_event&event_type=deployment_info")
	if got, _ := send(t, srv, "POST", "/v2/apps", `{"id":"/g/web","cmd":"sleep 1","healthChecks":[{"protocol":"COMMAND","command":{"value":"true"}},{"protocol":"TCP","intervalSeconds":7}]}`); got != 201 {
		t.Fatal(got)
	}
	info := l.next()
	plan := info.data["plan"].(map[string]any)
	if got, _ := send(t, srv, "PUT", "/v2/apps/g/web", `{"cmd":"sleep 2"}`); got != 409 {
		t.Fatal(got)
	}
	for { // the events of the deployment's steps come on
		e := l.next()
		if e.kind == "deployment_info" {
			continue
		}
		if e.kind != "group_change_failed" || e.data["groupId"] != "/g" || e.data["version"] == "" || !strings.Contains(e.data["reason"].(string), "locked") {
			t.Fatalf("%+v", e)
		}
		break
	}
	version := ""
	c.View(func(st *state.State) { version = st.Apps["/g/web"].Version })
	c.mu.Lock()
	c.notify(framework.Notice{Type: "check", ID: "g_web.0", Check: &probe.Failure{App: "/g/web", Instance: "g_web.0", Version: version, Index: 1}})
	c.mu.Unlock()
	e := l.next()
	if check, _ := e.data["healthCheck"].(map[string]any); e.kind != "failed_health_check_event" || e.data["taskId"] != "g_web.0" || check["protocol"] != "TCP" || check["intervalSeconds"] != 7.0 {
		t.Fatalf("%+v", e)
	}
	if got, _ := send(t, srv, "DELETE", "/v2/deployments/"+plan["id"].(string)+"?force=true", ""); got != 202 {
		t.Fatal(got)
	}
	e = l.next()
	step, _ := e.data["currentStep"].(map[string]any)
	if e.kind != "deployment_step_failure" || len(step["actions"].([]any)) != 1 || e.data["plan"].(map[string]any)["id"] != plan["id"] {
		t.Fatalf("%+v", e)
	}
	if e = l.next(); e.kind != "deployment_failed" || e.data["id"] != plan["id"] {
		t.Fatalf("%+v", e)
	}
}

package console

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/framework/api/client"
)

func TestPrintPlan(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	r := &client.Result{
		Steps: []client.DeploymentStep{{Actions: []client.DeploymentAction{{Action: "StopApplication", App: "/old"}}},
			{Actions: []client.DeploymentAction{{Action: "RestartApplication", App: "/db"}, {Action: "ScaleApplication", App: "/web"}}}},
		Changes: []client.PlannedChange{
			{App: "/db", Action: "update", FromInstances: 3, ToInstances: 3, Differences: []client.Difference{
				{Path: "/cmd", From: raw(`"a"`), To: raw(`"b"`)}, {Path: "/env/X", To: raw(`"` + strings.Repeat("y", 100) + `"`)}, {Path: "/labels/l", From: raw(`"v"`)}}},
			{App: "/web", Action: "scale", FromInstances: 1, ToInstances: 2},
			{App: "/new", Action: "create", ToInstances: 2},
			{App: "/old", Action: "remove"},
		},
	}
	var b strings.Builder
	printPlan(&b, r)
	got := b.String()
	for _, want := range []string{"step 1: StopApplication /old\n", "step 2: RestartApplication /db, ScaleApplication /web\n", "update /db\n", "scale /web, 2 instances instead of 1\n",
		"create /new, 2 instances instead of 0\n", "remove /old\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	for line, fields := range map[string][]string{"/cmd": {"/cmd", `"a"`, `"b"`}, "/labels/l": {"/labels/l", `"v"`, "-"}} {
		found := false
		for _, l := range strings.Split(got, "\n") {
			if f := strings.Fields(l); len(f) == 3 && f[0] == line {
				found = f[1] == fields[1] && f[2] == fields[2]
			}
		}
		if !found {
			t.Errorf("no line %v in\n%s", fields, got)
		}
	}
	for _, l := range strings.Split(got, "\n") {
		if len([]rune(l)) > 120 {
			t.Errorf("line of %d: %s", len(l), l)
		}
	}
	b.Reset()
	if printPlan(&b, &client.Result{}); b.String() != "nothing would change\n" {
		t.Errorf("%q", b.String())
	}
}

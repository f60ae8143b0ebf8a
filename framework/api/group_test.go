package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// fiftyApps is a group of ten subgroups of five apps: each subgroup depends on the one before, three of the apps are stateful.
func fiftyApps(cmd string) string {
	type app = map[string]any
	var groups []app
	for g := range 10 {
		one := app{"id": fmt.Sprintf("g%d", g)}
		if g > 0 {
			one["dependencies"] = []string{fmt.Sprintf("../g%d", g-1)}
		}
		var apps []app
		for n := range 5 {
			a := app{"id": fmt.Sprintf("a%d", n), "cmd": cmd, "cpus": 0.01, "mem": 8}
			if n > 0 {
				a["dependencies"] = []string{"a0"}
			}
			if g == 0 && n < 3 {
				a["container"] = app{"type": "MESOS", "volumes": []app{{"containerPath": "data", "mode": "RW",
					"external": app{"name": fmt.Sprintf("v%d", n), "provider": "dvdi", "size": 1, "options": app{"dvdi/driver": "pool"}}}}}
				a["instances"] = 2
			}
			apps = append(apps, a)
		}
		one["apps"] = apps
		groups = append(groups, one)
	}
	out, err := json.Marshal(app{"groups": groups})
	if err != nil {
		panic(err)
	}
	return string(out)
}

// TestGroupOfFifty deploys, updates, rolls back and deletes a group whose apps depend on each other. At no time does an app run before
// what it depends on, and in the end there is nothing but the volumes.
func TestGroupOfFifty(t *testing.T) {
	c, srv := serve(t)
	finish := func(what string) {
		t.Helper()
		for range 200 {
			left := 0
			c.View(func(st *state.State) { left = len(st.Deployments) })
			if left == 0 {
				return
			}
			c.pass(2 * time.Second)
		}
		_, text := send(t, srv, http.MethodGet, "/v2/deployments", "")
		t.Fatalf("%s does not end: %s", what, text)
	}
	must := func(what string, want int, method, path, body string) string {
		t.Helper()
		status, text := send(t, srv, method, path, body)
		if status != want {
			t.Fatalf("%s: %d %s", what, status, text)
		}
		return text
	}
	must("deploy", http.StatusOK, http.MethodPut, "/v2/groups/big", fiftyApps("sleep 1"))
	finish("deploy")
	began := map[state.AppID]uint64{}
	versions := map[state.AppID]string{}
	c.View(func(st *state.State) {
		if len(st.Apps) != 50 || len(st.Instances) != 53 || len(st.Volumes) != 6 {
			t.Fatalf("%d apps, %d instances, %d volumes", len(st.Apps), len(st.Instances), len(st.Volumes))
		}
		for _, i := range st.Instances {
			if i.Phase != state.PhaseRunning {
				t.Errorf("%s is %s", i.ID, i.Phase)
			}
		}
		for id, n := range c.launched {
			began[st.InstanceByTask(id).App] = max(began[st.InstanceByTask(id).App], n)
		}
		for id, a := range st.Apps {
			versions[id] = a.Version
		}
	})
	for id := range began {
		group, name := string(id[:strings.LastIndexByte(string(id), '/')]), string(id[strings.LastIndexByte(string(id), '/')+1:])
		if name != "a0" && began[id] < began[state.AppID(group+"/a0")] {
			t.Errorf("%s began before %s/a0", id, group)
		}
		if n := group[len(group)-1]; n > '0' && name == "a0" {
			for k := range 5 {
				if on := state.AppID(fmt.Sprintf("/big/g%c/a%d", n-1, k)); began[id] < began[on] {
					t.Errorf("%s began before %s", id, on)
				}
			}
		}
	}
	c.holdStart = true
	must("update", http.StatusOK, http.MethodPut, "/v2/groups/big", fiftyApps("sleep 2"))
	must("an update meanwhile", http.StatusConflict, http.MethodPut, "/v2/groups/big", fiftyApps("sleep 3"))
	var under []state.DeploymentID
	c.View(func(st *state.State) {
		for id := range st.Deployments {
			under = append(under, id)
		}
	})
	if len(under) != 1 {
		t.Fatalf("%d deployments of one group", len(under))
	}
	must("roll back", http.StatusOK, http.MethodDelete, "/v2/deployments/"+string(under[0]), "")
	c.start()
	finish("rollback")
	c.View(func(st *state.State) {
		for id, a := range st.Apps {
			if a.Version != versions[id] {
				t.Errorf("%s has version %s after the rollback, not %s", id, a.Version, versions[id])
			}
		}
	})
	must("update again", http.StatusOK, http.MethodPut, "/v2/groups/big", fiftyApps("sleep 2"))
	finish("update")
	must("delete", http.StatusOK, http.MethodDelete, "/v2/groups/big", "")
	finish("delete")
	c.View(func(st *state.State) {
		var volumes []string
		for _, v := range st.Volumes {
			volumes = append(volumes, v.Ref.Name)
		}
		slices.Sort(volumes)
		if len(st.Apps)+len(st.Instances)+len(st.Defs)+len(st.Groups)+len(c.tasks) != 0 || fmt.Sprint(volumes) != "[v0 v0-1 v1 v1-1 v2 v2-1]" {
			t.Errorf("left: %d apps, %d instances, %d groups, %d tasks, volumes %v", len(st.Apps), len(st.Instances), len(st.Groups), len(c.tasks), volumes)
		}
	})
}

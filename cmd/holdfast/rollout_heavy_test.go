package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// fifty is a group of 50 apps: three stateful ones, which ten services need, which thirty-seven others need as a group. mark is what an update changes.
func fifty(mark string) json.RawMessage {
	app := func(id string, more map[string]any) map[string]any {
		a := map[string]any{"id": id, "cmd": "exec sleep 1000", "cpus": 0.01, "mem": 8, "disk": 1, "env": map[string]string{"MARK": mark},
			"upgradeStrategy": map[string]float64{"minimumHealthCapacity": 0, "maximumOverCapacity": 0}}
		for k, v := range more {
			a[k] = v
		}
		return a
	}
	var stateful, services, fronts []any
	for _, name := range []string{"a", "b", "c"} {
		stateful = append(stateful, app(name, map[string]any{"instances": 2, "order": "serial", "minInstances": 1, "cmd": "echo $MARK >> data/log; exec sleep 1000",
			"container": map[string]any{"type": "MESOS", "volumes": []any{map[string]any{"containerPath": "data", "mode": "RW",
				"external": map[string]any{"name": "fifty" + name, "provider": "dvdi", "size": 1, "options": map[string]string{"dvdi/driver": "pool"}}}}}}))
	}
	for n := range 10 {
		services = append(services, app(fmt.Sprintf("s%d", n), map[string]any{"dependencies": []string{"/fifty/data/" + []string{"a", "b", "c"}[n%3]}}))
	}
	for n := range 37 {
		fronts = append(fronts, app(fmt.Sprintf("f%d", n), nil))
	}
	if mark == "stuck" { // nobody listens there: its update never ends
		fronts[0].(map[string]any)["healthChecks"] = []any{map[string]any{"protocol": "TCP", "gracePeriodSeconds": 0, "intervalSeconds": 1, "maxConsecutiveFailures": 0}}
	}
	raw, err := json.Marshal(map[string]any{"id": "/fifty", "groups": []any{
		map[string]any{"id": "data", "apps": stateful},
		map[string]any{"id": "service", "apps": services},
		map[string]any{"id": "front", "apps": fronts, "dependencies": []string{"/fifty/service"}},
	}})
	if err != nil {
		panic(err)
	}
	return raw
}

// fiftyRun waits until nothing is under way and all instances of the group run, and gives them by app.
func fiftyRun(t *testing.T, c *devtest.Cluster, what string) map[string][]client.Instance {
	t.Helper()
	var by map[string][]client.Instance
	devtest.Await(t, what, 2*time.Minute, func(ctx context.Context) (bool, string, error) {
		deployments, err := c.API.Deployments(ctx)
		if err != nil {
			return false, "", err
		}
		list, err := c.API.Instances(ctx, "")
		if err != nil {
			return false, "", err
		}
		by = map[string][]client.Instance{}
		running := 0
		for _, i := range list {
			by[i.App] = append(by[i.App], i)
			if i.Phase == "running" && i.Goal == "run" {
				running++
			}
		}
		now := fmt.Sprintf("%d of %d instances run", running, len(list))
		for _, d := range deployments {
			now += fmt.Sprintf(", deployment at step %d of %d", d.Step, len(d.Steps))
		}
		return len(deployments) == 0 && len(by) == 50 && running == 53 && len(list) == 53, now, nil
	})
	return by
}

// inOrder checks that no instance of a later tier began before all of the earlier tier were running.
func inOrder(t *testing.T, by map[string][]client.Instance) {
	t.Helper()
	begin, end := map[string]time.Time{}, map[string]time.Time{}
	for app, list := range by {
		tier := strings.Split(app, "/")[2]
		for _, i := range list {
			if b := begin[tier]; b.IsZero() || i.StagedAt.Before(b) {
				begin[tier] = i.StagedAt
			}
			if i.StartedAt.After(end[tier]) {
				end[tier] = i.StartedAt
			}
		}
	}
	if begin["service"].Before(end["data"]) || begin["front"].Before(end["service"]) {
		t.Errorf("out of order: began %v, ended %v", begin, end)
	}
	for _, app := range []string{"/fifty/data/a", "/fifty/data/b", "/fifty/data/c"} {
		if list := by[app]; list[0].Ordinal != 0 || list[1].StagedAt.Before(list[0].StartedAt) && list[0].StagedAt.Before(list[1].StartedAt) {
			t.Errorf("%s is serial, and its instances started together: %v to %v, %v to %v", app, list[0].StagedAt, list[0].StartedAt, list[1].StagedAt, list[1].StartedAt)
		}
	}
}

// TestHeavyGroupInOrder takes a group of 50 apps, three of them serial, through deployment, an update while the framework is killed, and a rollback: always in the
// order of the dependencies, and back to the very versions of before. Nothing is left then but the volumes.
func TestHeavyGroupInOrder(t *testing.T) {
	heavy.Require(t, heavy.Root)
	c := devtest.Start(t)
	ctx := t.Context()
	put := func(mark string) *client.Result {
		t.Helper()
		r, err := c.API.PutGroup(ctx, "/fifty", fifty(mark), false, false)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	dry, err := c.API.PutGroup(ctx, "/fifty", fifty("one"), false, true)
	if err != nil || len(dry.Changes) != 50 || len(dry.Steps) != 4 {
		t.Fatalf("dry run: %d changes in %d steps, %v", len(dry.Changes), len(dry.Steps), err)
	}
	began := time.Now()
	put("one")
	inOrder(t, fiftyRun(t, c, "deployment"))
	t.Logf("deployed in %v", time.Since(began))

	// An update, through which the framework is killed.
	began = time.Now()
	put("two")
	if _, err := c.Control.Framework(ctx, "kill"); err != nil {
		t.Fatal(err)
	}
	two := fiftyRun(t, c, "update")
	inOrder(t, two)
	t.Logf("updated in %v", time.Since(began))

	// Another one, which never ends, rolled back: every app is as it was before.
	began = time.Now()
	r := put("stuck")
	devtest.Await(t, "third update comes to the app that is not healthy", time.Minute, func(ctx context.Context) (bool, string, error) {
		list, err := c.API.Instances(ctx, "/fifty/front/f0")
		return err == nil && len(list) == 1 && list[0].Healthy != nil && !*list[0].Healthy, fmt.Sprint(list), err
	})
	if _, err := c.API.CancelDeployment(ctx, r.Deployment, false); err != nil {
		t.Fatal(err)
	}
	back := fiftyRun(t, c, "rollback")
	for app, list := range back {
		def, err := c.API.AppDefinition(ctx, app)
		if err != nil || !strings.Contains(string(def), `"MARK":"two"`) {
			t.Errorf("%s after the rollback: %s %v", app, def, err)
		}
		for n, i := range list {
			if i.Version != two[app][n].Version {
				t.Errorf("%s has version %s, had %s before", i.ID, i.Version, two[app][n].Version)
			}
		}
	}
	t.Logf("rolled back in %v", time.Since(began))

	before, err := c.API.Volumes(ctx, "")
	if err != nil || len(before) != 6 {
		t.Fatalf("%d volumes: %v", len(before), err)
	}
	began = time.Now()
	if _, err := c.API.RemoveGroup(ctx, "/fifty", false, false); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "removal", 2*time.Minute, func(ctx context.Context) (bool, string, error) {
		apps, err := c.API.Apps(ctx)
		if err != nil {
			return false, "", err
		}
		list, err := c.API.Instances(ctx, "")
		if err != nil {
			return false, "", err
		}
		deployments, err := c.API.Deployments(ctx)
		return len(apps)+len(list)+len(deployments) == 0, fmt.Sprintf("%d apps, %d instances, %d deployments are left", len(apps), len(list), len(deployments)), err
	})
	t.Logf("deleted in %v", time.Since(began))
	after, err := c.API.Volumes(ctx, "")
	uid := func(v client.Volume) string { return v.UID }
	if err != nil || !slices.Equal(uids(before, uid), uids(after, uid)) {
		t.Errorf("volumes before %v, after %v: %v", before, after, err)
	}
	for _, v := range after {
		if v.InUse || v.Claim == nil || v.Claim.State != "free" {
			t.Errorf("volume %s is left in use: %+v", v.Name, v.Claim)
		}
	}
}

func uids(list []client.Volume, f func(client.Volume) string) []string {
	var out []string
	for _, v := range list {
		out = append(out, f(v))
	}
	slices.Sort(out)
	return out
}

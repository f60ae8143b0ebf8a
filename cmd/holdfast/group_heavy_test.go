package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// call sends JSON and gives the answer's.
func call(t *testing.T, method, url, body string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %d %v %.2000s", method, url, resp.StatusCode, err, raw)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
	}
}

// shop is a group of 50 apps in three tiers: three stateful ones, 27 that need these, 20 that need the whole second tier.
func shop(version string) string {
	var data, middle, web []string
	for n := range 3 {
		data = append(data, fmt.Sprintf(`{"id":"db-%d","cmd":"echo %s >> data/versions; exec sleep 1000","cpus":0.02,"mem":8,"instances":2,"env":{"V":%q},
			"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"shop-%d","provider":"dvdi","size":1,"options":{"dvdi/driver":"pool"}}}]}}`, n, version, version, n))
	}
	for n := range 27 {
		middle = append(middle, fmt.Sprintf(`{"id":"app-%d","cmd":"exec sleep 1000","cpus":0.01,"mem":4,"env":{"V":%q},"dependencies":["/shop/data/db-%d"]}`, n, version, n%3))
	}
	for n := range 20 {
		web = append(web, fmt.Sprintf(`{"id":"web-%d","cmd":"exec sleep 1000","cpus":0.01,"mem":4,"env":{"V":%q}}`, n, version))
	}
	return fmt.Sprintf(`{"id":"/shop","groups":[{"id":"data","apps":[%s]},{"id":"apps","apps":[%s]},{"id":"web","dependencies":["/shop/apps"],"apps":[%s]}]}`,
		strings.Join(data, ","), strings.Join(middle, ","), strings.Join(web, ","))
}

// TestHeavyGroup deploys, updates, rolls back and deletes a group of 50 apps with dependencies, three of them stateful, and finds nothing left but
// their volumes.
func TestHeavyGroup(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	idle := func(what string) {
		t.Helper()
		devtest.Await(t, what, 90*time.Second, func(ctx context.Context) (bool, string, error) {
			list, err := c.API.Deployments(ctx)
			return err == nil && len(list) == 0, fmt.Sprintf("%d deployments", len(list)), err
		})
	}
	running := func(version string) {
		t.Helper()
		var list struct {
			Apps []struct {
				ID                      string
				Instances, TasksRunning int
				Env                     map[string]string
			}
		}
		call(t, http.MethodGet, c.URL+"/v2/apps", "", &list)
		if len(list.Apps) != 50 {
			t.Fatalf("%d apps", len(list.Apps))
		}
		for _, a := range list.Apps {
			if a.TasksRunning != a.Instances || a.Env["V"] != version {
				t.Errorf("%s: %d of %d run, version %s, want %s", a.ID, a.TasksRunning, a.Instances, a.Env["V"], version)
			}
		}
	}
	began := time.Now()
	call(t, http.MethodPost, c.URL+"/v2/groups", shop("one"), nil)
	var plans []struct{ Steps []json.RawMessage }
	call(t, http.MethodGet, c.URL+"/v2/deployments", "", &plans)
	if len(plans) != 1 || len(plans[0].Steps) < 3 {
		t.Errorf("the plan has no order: %d deployments", len(plans))
	}
	idle("the group is deployed")
	t.Logf("deployed in %v", time.Since(began))
	running("one")
	var versions []string
	call(t, http.MethodGet, c.URL+"/v2/groups/shop/versions", "", &versions)
	first := versions[0]
	volumes, err := c.API.Volumes(t.Context(), "")
	if err != nil || len(volumes) != 6 {
		t.Fatalf("%d volumes: %v", len(volumes), err)
	}
	began = time.Now()
	call(t, http.MethodPut, c.URL+"/v2/groups/shop", shop("two"), nil)
	idle("the group is updated")
	t.Logf("updated in %v", time.Since(began))
	running("two")
	// A deployment that can never end is rolled back.
	var result struct{ DeploymentID string }
	call(t, http.MethodPut, c.URL+"/v2/groups/shop/web", `{"apps":[{"id":"web-0","cmd":"exec sleep 1000","mem":900000000,"env":{"V":"three"}}]}`, &result)
	call(t, http.MethodDelete, c.URL+"/v2/deployments/"+result.DeploymentID, "", nil)
	idle("the bad change is rolled back")
	running("two")
	// Back to the first version of the group.
	call(t, http.MethodPut, c.URL+"/v2/groups/shop", fmt.Sprintf(`{"version":%q}`, first), nil)
	idle("the group is as it was first")
	running("one")
	began = time.Now()
	call(t, http.MethodDelete, c.URL+"/v2/groups/shop", "", nil)
	idle("the group is deleted")
	t.Logf("deleted in %v", time.Since(began))
	nothingLeft(t, c, 6)
}

// nothingLeft finds no app, instance, task, deployment or held claim, and as many volumes as are to be there.
func nothingLeft(t *testing.T, c *devtest.Cluster, volumes int) {
	t.Helper()
	devtest.Await(t, "nothing is left", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		apps, err := c.API.Apps(ctx)
		instances, err1 := c.API.Instances(ctx, "")
		claims, err2 := c.API.Claims(ctx)
		vols, err3 := c.API.Volumes(ctx, "")
		if err := errors.Join(err, err1, err2, err3); err != nil {
			return false, "", err
		}
		held := 0
		for _, k := range claims {
			if k.State != "free" {
				held++
			}
		}
		ready := 0
		for _, v := range vols {
			if v.Phase == "ready" {
				ready++
			}
		}
		return len(apps)+len(instances)+held == 0 && len(vols) == volumes && ready == volumes,
			fmt.Sprintf("%d apps, %d instances, %d claims, %d volumes (%d ready)", len(apps), len(instances), held, len(vols), ready), nil
	})
	var tasks struct{ Tasks []json.RawMessage }
	call(t, http.MethodGet, c.URL+"/v2/tasks", "", &tasks)
	if len(tasks.Tasks) > 0 {
		t.Errorf("%d tasks are left", len(tasks.Tasks))
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// reservations waits until the reservations of an app are as wanted: "instance state" each, sorted by host.
func reservations(t *testing.T, c *devtest.Cluster, app string, want ...string) (list []client.Reservation) {
	t.Helper()
	devtest.Await(t, fmt.Sprintf("reservations %v", want), 30*time.Second, func(ctx context.Context) (bool, string, error) {
		var err error
		if list, err = c.API.Reservations(ctx, app); err != nil {
			return false, "", err
		}
		have := map[string]int{}
		for _, r := range list {
			have[r.Instance+" "+r.State]++
		}
		ok := len(list) == len(want)
		for _, w := range want {
			have[w]--
			ok = ok && have[w] >= 0
		}
		return ok, fmt.Sprintf("%+v", list), nil
	})
	return list
}

// volumes are the directories of persistent volumes on all agents' disks.
func volumeDirs(t *testing.T, c *devtest.Cluster) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(c.Dir, "nodes", "*", "agent", "volumes", "roles", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// reserved adds up what the engine's agents have reserved, by kind of resource.
func reserved(t *testing.T, c *devtest.Cluster) map[string]float64 {
	t.Helper()
	var info struct{ Master string }
	call(t, http.MethodGet, c.URL+"/v1/info", "", &info)
	addr := info.Master
	if i, j := strings.LastIndexByte(addr, '('), strings.LastIndexByte(addr, ')'); i >= 0 && j > i {
		addr = addr[i+1 : j]
	}
	var out struct {
		GetAgents struct {
			Agents []struct {
				TotalResources []struct {
					Name         string
					Reservations []any
					Scalar       struct{ Value float64 }
					Ranges       struct {
						Range []struct{ Begin, End float64 }
					}
				} `json:"total_resources"`
			}
		} `json:"get_agents"`
	}
	resp, err := http.Post("http://"+addr+"/api/v1", "application/json", strings.NewReader(`{"type":"GET_AGENTS"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	sum := map[string]float64{}
	for _, a := range out.GetAgents.Agents {
		for _, r := range a.TotalResources {
			if len(r.Reservations) == 0 {
				continue
			}
			sum[r.Name] += r.Scalar.Value
			for _, g := range r.Ranges.Range {
				sum[r.Name] += g.End - g.Begin + 1
			}
		}
	}
	return sum
}

func wantReserved(t *testing.T, c *devtest.Cluster, want map[string]float64) {
	t.Helper()
	devtest.Await(t, fmt.Sprintf("reserved %v", want), 30*time.Second, func(context.Context) (bool, string, error) {
		have := reserved(t, c)
		ok := true
		for _, name := range []string{"cpus", "mem", "disk", "ports"} {
			ok = ok && have[name] > want[name]-0.001 && have[name] < want[name]+0.001
		}
		return ok, fmt.Sprint(have), nil
	})
}

// TestHeavyLocalVolumes takes an app with local persistent volumes through its life: it counts, is killed, its agent stops and comes back,
// the framework is killed, it is resized, scaled, deleted and made again, wiped and released; its data is always where it was.
func TestHeavyLocalVolumes(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	submit(t, c, "local-counter")
	before := c.Running("/local-counter", 2)
	for n, i := range before {
		for range n + 1 {
			count(t, i, true)
		}
	}
	list := reservations(t, c, "/local-counter", "local-counter.0 held", "local-counter.1 held")
	if len(list[0].Volumes) != 1 || !list[0].Volumes[0].Exists {
		t.Errorf("volumes %+v", list[0].Volumes)
	}
	wantReserved(t, c, map[string]float64{"cpus": 0.2, "mem": 64, "disk": 128, "ports": 2})
	localTask(t, c)

	again := func(what string, i int, f func()) {
		t.Helper()
		was := before[i]
		f()
		now := c.Relaunched(was)
		if now.Hostname != was.Hostname || now.Ports[0] != was.Ports[0] {
			t.Errorf("after %s: %s is on %s port %v, it was on %s port %v", what, now.ID, now.Hostname, now.Ports, was.Hostname, was.Ports)
		}
		if got, want := count(t, now, false), fmt.Sprint(i+1); got != want {
			t.Errorf("after %s: %s is at %s, not %s", what, now.ID, got, want)
		}
		before[i] = now
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	again("restart", 0, func() { _, err := c.API.RestartInstance(t.Context(), "local-counter.0"); must(err) })
	again("the agent's machine was lost and booted", 1, func() {
		_, err := c.Control.Agent(t.Context(), before[1].Hostname, "kill", dev.Order{})
		must(err)
		devtest.Await(t, "explained", 30*time.Second, func(ctx context.Context) (bool, string, error) {
			e, err := c.API.Explain(ctx, "local-counter.1")
			if err != nil {
				return false, "", err
			}
			text := fmt.Sprintf("%+v", e)
			return strings.Contains(text, "volume"), text, nil
		})
		_, err = c.Control.Agent(t.Context(), before[1].Hostname, "start", dev.Order{})
		must(err)
	})
	again("a kill of the framework, and a restart", 0, func() {
		_, err := c.Control.Framework(t.Context(), "kill")
		must(err)
		devtest.Await(t, "framework answers", 20*time.Second, func(ctx context.Context) (bool, string, error) {
			_, err := c.API.RestartInstance(ctx, "local-counter.0")
			return err == nil, fmt.Sprint(err), nil
		})
	})

	// Other resources and a larger volume: the same data.
	example, err := os.ReadFile(filepath.Join(rootDir(t), "examples", "local-counter", "app.json"))
	must(err)
	larger := strings.NewReplacer(`"size": 64`, `"size": 80`, `"cpus": 0.1`, `"cpus": 0.2`, `"mem": 32`, `"mem": 16`).Replace(string(example))
	again("new resources", 0, func() {
		_, err := c.API.PutApp(t.Context(), json.RawMessage(larger), client.PutOptions{})
		must(err)
	})
	before = c.Running("/local-counter", 2)
	wantReserved(t, c, map[string]float64{"cpus": 0.4, "mem": 32, "disk": 160, "ports": 2})

	// Scaled down and up.
	_, err = c.API.Scale(t.Context(), "/local-counter", 1, false)
	must(err)
	reservations(t, c, "/local-counter", "local-counter.0 held", "local-counter.1 retained")
	wantReserved(t, c, map[string]float64{"cpus": 0.2, "mem": 16, "disk": 160, "ports": 1})
	_, err = c.API.Scale(t.Context(), "/local-counter", 2, false)
	must(err)
	before = c.Running("/local-counter", 2)
	if got := count(t, before[1], false); got != "2" {
		t.Errorf("scaled up again: at %s", got)
	}

	// Deleted: the volumes stay, and are found by an app of the same name.
	_, err = c.API.Remove(t.Context(), "/local-counter", client.RemoveOptions{})
	must(err)
	reservations(t, c, "", "local-counter.0 retained", "local-counter.1 retained")
	wantReserved(t, c, map[string]float64{"disk": 160})
	_, err = c.API.PutApp(t.Context(), json.RawMessage(larger), client.PutOptions{CreateOnly: true})
	must(err)
	before = c.Running("/local-counter", 2)
	if got := count(t, before[1], false); got != "2" {
		t.Errorf("made again: at %s", got)
	}

	// One task wiped: a new volume.
	call(t, http.MethodDelete, c.URL+"/v2/apps//local-counter/tasks/"+before[1].Task+"?wipe=true", "", nil)
	now := c.Relaunched(before[1])
	if got := count(t, now, false); got != "0" {
		t.Errorf("wiped: at %s", got)
	}
	reservations(t, c, "", "local-counter.0 held", "local-counter.1 held")
	if dirs := volumeDirs(t, c); len(dirs) != 2 {
		t.Errorf("volumes on disk: %v", dirs)
	}

	// Removed without wipe and released by hand; the other with wipe.
	_, err = c.API.Scale(t.Context(), "/local-counter", 1, false)
	must(err)
	reservations(t, c, "", "local-counter.0 held", "local-counter.1 retained")
	_, err = c.API.ReleaseReservation(t.Context(), "local-counter.1", false)
	must(err)
	reservations(t, c, "", "local-counter.0 held")
	_, err = c.API.Remove(t.Context(), "/local-counter", client.RemoveOptions{Wipe: true})
	must(err)
	reservations(t, c, "")
	wantReserved(t, c, nil)
	if dirs := volumeDirs(t, c); len(dirs) != 0 {
		t.Errorf("volumes on disk: %v", dirs)
	}
}

// localTask looks at the task as Marathon's clients see it.
func localTask(t *testing.T, c *devtest.Cluster) {
	t.Helper()
	var out struct {
		Tasks []struct {
			LocalVolumes []struct{ RunSpecID, ContainerPath, UUID, PersistenceID string }
		}
	}
	call(t, http.MethodGet, c.URL+"/v2/apps//local-counter/tasks", "", &out)
	if len(out.Tasks) != 2 || len(out.Tasks[0].LocalVolumes) != 1 {
		t.Fatalf("tasks %+v", out)
	}
	if v := out.Tasks[0].LocalVolumes[0]; v.RunSpecID != "/local-counter" || v.ContainerPath != "data" || v.PersistenceID != "local-counter#data#"+v.UUID || len(v.UUID) != 36 {
		t.Errorf("local volume %+v", v)
	}
}

func rootDir(t *testing.T) string {
	t.Helper()
	root, err := devtest.Root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

package main

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// What a framework has on a cluster is taken down as chosen: apps stop, reservations with their local volumes are given back, external volumes stay; an agent that
// is gone for good is named and left behind; the master knows the framework no more, and a restart does not bring it back.
func TestHeavyUninstall(t *testing.T) {
	heavy.Require(t, heavy.Root)
	c := devtest.Start(t, "--agents", "3")
	ctx := context.Background()
	for _, app := range []string{
		`{"id":"/ext","instances":2,"cmd":"exec sleep 1000","cpus":0.1,"mem":16,"constraints":[["hostname","UNIQUE"]],"container":{"type":"MESOS","volumes":[
			{"containerPath":"data","mode":"RW","external":{"name":"ext","provider":"dvdi","size":1,"options":{"dvdi/driver":"pool"}}}]},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`,
		`{"id":"/loc","instances":3,"cmd":"exec sleep 1000","cpus":0.1,"mem":16,"constraints":[["hostname","UNIQUE"]],"container":{"type":"MESOS","volumes":[
			{"containerPath":"data","mode":"RW","persistent":{"type":"root","size":16}}]},"residency":{"taskLostBehavior":"WAIT_FOREVER"},"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`,
	} {
		if _, err := c.API.PutApp(ctx, json.RawMessage(app), client.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c.Running("/ext", 2)
	c.Running("/loc", 3)
	holdfast := func(code int, text string, args ...string) {
		t.Helper()
		cmd := exec.Command(c.Bin+"/holdfast", append([]string{"--api", c.URL}, args...)...)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), text) {
			t.Errorf("holdfast %s: %v, want exit %d and %q:\n%s", strings.Join(args, " "), err, code, text, out)
		}
	}
	holdfast(0, "LOCAL VOLUMES", "uninstall", "--plan", "--reservations", "release")
	holdfast(2, "nobody to ask", "uninstall")
	holdfast(2, "--volumes", "uninstall", "--volumes", "burn")
	if list, err := c.API.Reservations(ctx, ""); err != nil || len(list) != 3 {
		t.Fatalf("after plans only: %d reservations, %v", len(list), err)
	}
	instances, err := c.API.Instances(ctx, "/ext")
	if err != nil {
		t.Fatal(err)
	}
	dead := instances[0].Hostname
	if _, err := c.Control.Agent(ctx, dead, "kill", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	holdfast(6, "--skip-agent", "uninstall", "--reservations", "release", "--yes", "--timeout", "8s")
	holdfast(0, "the framework is over", "uninstall", "--reservations", "release", "--yes", "--skip-agent", dead, "--timeout", "90s")

	volumes, err := c.API.Volumes(ctx, "/ext")
	if err != nil || len(volumes) != 2 {
		t.Errorf("external volumes: %d, %v; want 2 kept", len(volumes), err)
	}
	left, err := c.API.Reservations(ctx, "")
	if err != nil || len(left) != 1 || left[0].Hostname != dead {
		t.Errorf("reservations left: %+v, %v; want that of %s", left, err, dead)
	}
	if _, err := c.Control.Framework(ctx, "kill"); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "the framework stays over after a restart", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		info, err := c.API.Info(ctx)
		if err != nil {
			return false, "", err
		}
		return strings.Contains(info.Stopped, "torn down"), info.Stopped, nil
	})
}

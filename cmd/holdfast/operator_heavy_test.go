package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

// An operator's word where the lease alone frees nothing (policy operator): the instance of a lost node waits, says why, and moves once somebody has given
// the word. A node that renews is refused without a second flag; with it the node loses its lease and stops what uses volumes by itself.
func TestHeavyOperatorsWord(t *testing.T) {
	heavy.Require(t, heavy.Root)
	t.Setenv("HOLDFAST_FRAMEWORK_DEFAULT_POLICY", "operator")
	c := devtest.Start(t, "--agents", "3")
	app := json.RawMessage(`{"id":"/safe","cmd":"echo $HOLDFAST_INCARNATION >> data/log; exec sleep 1000","cpus":0.1,"mem":16,
		"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"safe","provider":"dvdi","size":1,"options":{"dvdi/driver":"pool"}}}]},
		"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`)
	ctx := context.Background()
	if _, err := c.API.PutApp(ctx, app, client.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	first := c.Running("/safe", 1)[0]
	holdfast := func(args ...string) (string, int) {
		cmd := exec.Command(c.Bin+"/holdfast", append([]string{"--api", c.URL}, args...)...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return string(out), 0
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	wants := func(code int, text string, args ...string) {
		t.Helper()
		if out, got := holdfast(args...); got != code || !strings.Contains(out, text) {
			t.Errorf("holdfast %s: exit %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, text, out)
		}
	}
	wants(2, "--reason", "volume", "release", "pool/safe")
	wants(4, "renews its lease", "volume", "release", "pool/safe", "--reason", "a test", "--yes")
	wants(4, "renews its lease", "node", "fence", first.Hostname, "--reason", "a test", "--yes")
	wants(3, "does not exist", "node", "fence", "nobody", "--reason", "a test", "--yes")
	wants(3, "no claim", "volume", "release", "pool/none", "--reason", "a test", "--yes")

	if _, err := c.Control.Agent(ctx, first.Hostname, "kill", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	devtest.Await(t, "the node is declared dead and the instance waits for a word", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		h, err := c.API.Release(ctx, "pool/safe")
		if err != nil {
			return false, "", err
		}
		return !h.Alive && h.DeadBy != "" && len(h.Claims) == 1, fmt.Sprintf("%+v", h), nil
	})
	devtest.Await(t, "explain names what is waited for", 30*time.Second, func(context.Context) (bool, string, error) {
		out, _ := holdfast("explain", first.ID)
		return strings.Contains(out, "holdfast volume release"), out, nil
	})
	wants(2, "nobody to ask", "volume", "release", "pool/safe", "--why", "the machine burnt")
	wants(0, "pool/safe is free (epoch 1)", "volume", "release", "pool/safe", "--why", "the machine burnt", "--yes")
	second := c.Relaunched(first)

	// Now a node that is well: the second flag ends its lease, and it stops the task itself.
	wants(0, "pool/safe is free", "node", "fence", second.Hostname, "--why", "to see it go", "--yes", "--although-it-renews")
	third := c.Relaunched(second)
	if third.Hostname == "" {
		t.Errorf("%+v", third)
	}
	devtest.Await(t, "the node starts over", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		nodes, err := c.API.Nodes(ctx)
		if err != nil {
			return false, "", err
		}
		for _, n := range nodes {
			if n.Hostname == second.Hostname {
				return n.Alive && n.Generation > 1, fmt.Sprintf("%+v", n), nil
			}
		}
		return false, "not listed", nil
	})
}

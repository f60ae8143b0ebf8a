package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
)

// TestHeavyPrimaryFollowsItsInstance runs an app with a primary, with its peers file beside each task and its name in Consul, and takes the primary's node away.
func TestHeavyPrimaryFollowsItsInstance(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	server := servertest.StartConsul(t, "")
	c := devtest.Start(t, "--consul", "http://"+server.Addr())
	body := `{"id":"/lead","cmd":"exec holdfast peers --watch -o text --file data/peers --exec 'echo $HOLDFAST_TERM $HOLDFAST_PRIMARY >>data/told'","instances":3,"cpus":0.1,"mem":32,"primary":true,
		"portDefinitions":[{"port":0,"name":"x"}],"backoffSeconds":1,"container":{"type":"MESOS","volumes":[{"containerPath":"data","mode":"RW","external":{"name":"lead","provider":"dvdi","size":1,"options":{"dvdi/driver":"pool"}}}]},
		"upgradeStrategy":{"minimumHealthCapacity":0,"maximumOverCapacity":0}}`
	if _, err := c.API.PutApp(t.Context(), json.RawMessage(body), client.PutOptions{CreateOnly: true}); err != nil {
		t.Fatal(err)
	}
	c.Running("/lead", 3)
	// settled waits for a primary, which every file and Consul must agree on.
	settled := func(above uint64) *client.Peers {
		t.Helper()
		var p *client.Peers
		devtest.Await(t, "there is a primary that all know", 60*time.Second, func(ctx context.Context) (bool, string, error) {
			var err error
			if p, err = c.API.Peers(ctx, "/lead", "", 0); err != nil || p.Primary == nil || p.Term <= above {
				return false, fmt.Sprintf("%+v", p), err
			}
			port := p.Peers[p.Primary.Ordinal].Ports[0].Port
			for n := range 3 {
				raw, err := os.ReadFile(filepath.Join(dev.PoolOf(c.Dir), []string{"lead", "lead-1", "lead-2"}[n], "data", "peers"))
				want := fmt.Sprintf("%d %s 127.0.0.1 %d running healthy primary\n", p.Primary.Ordinal, p.Primary.Instance, port)
				if err != nil || !strings.Contains(string(raw), want) || strings.Count(string(raw), "primary\n") != 1 {
					return false, fmt.Sprintf("file of %d: %s %v, not %s", n, raw, err, want), nil
				}
			}
			got := consulDNS(ctx, server, "primary.lead")
			return got == port, fmt.Sprintf("DNS leads to %d, not %d", got, port), nil
		})
		return p
	}
	before := settled(0)
	victim, err := c.API.Instance(t.Context(), before.Primary.Instance)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Control.Framework(t.Context(), "kill"); err != nil { // who leads then names nobody else
		t.Fatal(err)
	}
	if now := settled(before.Term - 1); *now.Primary != *before.Primary {
		t.Errorf("after a restart of the framework: %+v, not %+v", now.Primary, before.Primary)
	}
	if _, err := c.Control.Agent(t.Context(), victim.Hostname, "kill", dev.Order{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	after := settled(before.Term)
	t.Logf("the primary is up again %v after the loss of its node, and all know it", time.Since(began))
	if after.Primary.Instance != before.Primary.Instance || after.Primary.Task == before.Primary.Task {
		t.Errorf("%+v after %+v: the primary is to come back with its data", after.Primary, before.Primary)
	}
	volume := []string{"lead", "lead-1", "lead-2"}[after.Primary.Ordinal]
	told, err := os.ReadFile(filepath.Join(dev.PoolOf(c.Dir), volume, "data", "told"))
	if err != nil || !strings.Contains(string(told), fmt.Sprintf("%d true\n", before.Term)) || !strings.Contains(string(told), fmt.Sprintf("%d true\n", after.Term)) {
		t.Errorf("it was told:\n%s%v", told, err)
	}
	// A word moves it to another instance.
	if _, err := c.API.YieldPrimary(t.Context(), "/lead", after.Primary.Task, after.Term); err != nil {
		t.Fatal(err)
	}
	if last := settled(after.Term); last.Primary.Instance == after.Primary.Instance {
		t.Errorf("%+v gave up, and is named again", last.Primary)
	}
}

func TestHeavyDemoWithConsul(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	cache, err := servertest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(devtest.Bin(t), "holdfast")
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "demo", "--consul", filepath.Join(cache, "consul-"+servertest.ConsulVersion)).CombinedOutput()
	for _, want := range []string{"records.service.consul leads to", "led to the lost place no more", "leads to its new place", "OK: "} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("no %q, %v:\n%s", want, err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, program, "demo", "--dir", t.TempDir(), "--consul", "/bin/false").CombinedOutput(); err == nil || !strings.Contains(string(out), "Consul ended at its start") {
		t.Errorf("a Consul that does not start: %v\n%s", err, out)
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/framework/api/client"
)

// sleeperApp is an app that costs next to nothing, with a volume per instance or without.
func sleeperApp(id string, instances int, volume bool) json.RawMessage {
	app := map[string]any{"id": id, "cmd": "exec sleep 100000", "instances": instances, "cpus": 0.01, "mem": 1, "disk": 0,
		"upgradeStrategy": map[string]any{"minimumHealthCapacity": 0, "maximumOverCapacity": 0}}
	if volume {
		app["container"] = map[string]any{"type": "MESOS", "volumes": []any{map[string]any{"containerPath": "data", "mode": "RW",
			"external": map[string]any{"name": strings.Trim(id, "/"), "provider": "dvdi", "size": 1, "options": map[string]string{"dvdi/driver": "pool"}}}}}
	}
	raw, err := json.Marshal(app)
	if err != nil {
		panic(err)
	}
	return raw
}

// BenchmarkDeploy measures from the first POST until everything runs.
func BenchmarkDeploy(b *testing.B) {
	for _, volume := range []bool{false, true} {
		name := map[bool]string{false: "", true: "WithVolumes"}[volume]
		b.Run("100Apps"+name, func(b *testing.B) {
			deploy(b, func(api *client.Client) error {
				var wg sync.WaitGroup
				errs := make([]error, 100)
				for i := range 100 {
					wg.Go(func() {
						_, errs[i] = api.PutApp(b.Context(), sleeperApp(fmt.Sprintf("/app%d", i), 1, volume), client.PutOptions{CreateOnly: true})
					})
				}
				wg.Wait()
				for _, err := range errs {
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run("100Instances"+name, func(b *testing.B) {
			deploy(b, func(api *client.Client) error {
				_, err := api.PutApp(b.Context(), sleeperApp("/app", 100, volume), client.PutOptions{CreateOnly: true})
				return err
			})
		})
	}
}

func deploy(b *testing.B, order func(*client.Client) error) {
	for b.Loop() {
		b.StopTimer()
		c := devtest.Start(b)
		b.StartTimer()
		if err := order(c.API); err != nil {
			b.Fatal(err)
		}
		devtest.Await(b, "100 instances run", 120*time.Second, func(ctx context.Context) (bool, string, error) {
			info, err := c.API.Info(ctx)
			if err != nil {
				return false, "", err
			}
			return info.Running == 100, fmt.Sprint(info.Running), nil
		})
		b.StopTimer()
		if err := c.Stop(); err != nil {
			b.Error(err)
		}
		b.StartTimer()
	}
}

// BenchmarkAgentLoss measures from the kill of an agent to the first record that the moved instance writes. Most of it is the
// wait until the dead node has surely stopped (W, 4 s).
func BenchmarkAgentLoss(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := devtest.Start(b)
		acks := b.TempDir()
		app := strings.Replace(string(sleeperApp("/records", 1, true)), "exec sleep 100000", "exec holdfast-records --dir data --every 5ms --acks "+acks, 1)
		if _, err := c.API.PutApp(b.Context(), json.RawMessage(app), client.PutOptions{}); err != nil {
			b.Fatal(err)
		}
		i := c.Running("/records", 1)[0]
		size := func() int64 {
			info, err := os.Stat(filepath.Join(acks, "acks-records.0"))
			if err != nil {
				return 0
			}
			return info.Size()
		}
		devtest.Await(b, "it writes", 10*time.Second, func(context.Context) (bool, string, error) { return size() > 0, "", nil })
		b.StartTimer()
		if _, err := c.Control.Agent(b.Context(), i.Hostname, "kill", dev.Order{}); err != nil {
			b.Fatal(err)
		}
		before := size()
		devtest.Await(b, "it writes again", 60*time.Second, func(context.Context) (bool, string, error) { return size() > before, "", nil })
		b.StopTimer()
		if err := c.Stop(); err != nil {
			b.Error(err)
		}
		b.StartTimer()
	}
}

// BenchmarkDvdcli measures a mount and an unmount by the command that Mesos executes, and the same two calls by curl.
func BenchmarkDvdcli(b *testing.B) {
	c := devtest.Start(b, "--agents", "1")
	// Sockets of a node are named for its agent, beside the control socket.
	socket := filepath.Join(filepath.Dir(controlSocket(b, c)), "agent1")
	run := func(b *testing.B, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "HOLDFAST_ISOLATOR="+socket)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	dvdcli := filepath.Join(c.Bin, "dvdcli")
	b.Run("MountUnmount", func(b *testing.B) {
		for b.Loop() {
			run(b, dvdcli, "mount", "--volumedriver=pool", "--volumename=bench")
			run(b, dvdcli, "unmount", "--volumedriver=pool", "--volumename=bench")
		}
	})
	b.Run("CurlTwice", func(b *testing.B) { // start of two processes and two round trips, no mount
		for b.Loop() {
			for range 2 {
				run(b, "curl", "-s", "--unix-socket", socket, "http://isolator/")
			}
		}
	})
}

func controlSocket(b *testing.B, c *devtest.Cluster) string {
	s, err := c.Control.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s.Info.Control
}

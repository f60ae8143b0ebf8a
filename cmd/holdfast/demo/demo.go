package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// limitSettle bounds each wait. It only matters when something is wrong: a wait ends as soon as what it waits for is there.
const limitSettle = 60 * time.Second

const app = "/records"

// Config of a run.
type Config struct {
	Out    io.Writer
	Dir    string // where to work; "" makes a directory of its own, which is removed when all is well
	Agents int
	Pause  time.Duration // between two records of a writer
	// Acts > 0 plays that many random acts, chosen by Seed, instead of the plot.
	Acts int
	Seed uint64
	// Consul is the program of a Consul that instances are registered in, "" for none.
	Consul string
}

// demo is one run.
type demo struct {
	cfg     Config
	out     io.Writer
	dir     string
	began   time.Time
	cluster *dev.Process
	consul  *consul // nil without
	api     *client.Client
	ctl     *dev.Control
	checks  int
	wanted  int // instances, while acts are random
}

// Run plays the demo. The error says what is off; everything that was started is stopped in either case.
func Run(ctx context.Context, cfg Config) (err error) {
	d := &demo{cfg: cfg, out: cfg.Out, dir: cfg.Dir, began: time.Now(), wanted: 3}
	if d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "holdfast-demo-"); err != nil {
			return fault.Wrap(fault.Unavailable, err, "make a directory to work in")
		}
	}
	if err := os.MkdirAll(d.acks(), 0o777); err != nil {
		return fault.Wrap(fault.Unavailable, err, "make a directory to work in")
	}
	err = d.play(ctx)
	if d.cluster != nil {
		if serr := d.stopCluster(); err == nil {
			err = serr
		}
	}
	if d.consul != nil {
		d.consul.stop()
	}
	if err != nil {
		fmt.Fprintf(d.out, "FAILED after %.1f s: %v\n  logs and state: %s\n", time.Since(d.began).Seconds(), err, d.dir)
		return err
	}
	fmt.Fprintf(d.out, "OK: %d checks in %.1f s\n", d.checks, time.Since(d.began).Seconds())
	if cfg.Dir == "" {
		return fault.Wrap(fault.Internal, os.RemoveAll(d.dir), "remove the demo's directory")
	}
	return nil
}

func (d *demo) state() string { return filepath.Join(d.dir, "state") }
func (d *demo) acks() string  { return filepath.Join(d.dir, "acks") }

type act struct {
	title string
	run   func(context.Context) error
}

// play is the plot.
func (d *demo) play(ctx context.Context) error {
	plot := []act{
		{"a cluster of three agents; three instances write numbered records, each with fsync", d.deploy},
		{"an agent is killed with everything on it", d.loseAgent},
		{"the agent comes back; an instance is moved by hand", d.move},
		{"scale 3 -> 5, framework killed with -9 in the middle", d.scaleUp},
		{"scale 5 -> 2: volumes are kept", d.scaleDown},
		{"scale 2 -> 4: instances 2 and 3 find their own data again", d.scaleAgain},
		{"stop; nothing is left behind; every acknowledged record is there, once, in order", d.audit},
	}
	if d.cfg.Acts > 0 {
		plot = []act{plot[0], {"random acts", d.chaos}, plot[len(plot)-1]}
	}
	for _, act := range plot {
		fmt.Fprintf(d.out, "[%5.1f s] %s\n", time.Since(d.began).Seconds(), act.title)
		if err := act.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ok reports a check that passed.
func (d *demo) ok(format string, args ...any) {
	d.checks++
	fmt.Fprintf(d.out, "          ok: %s\n", fmt.Sprintf(format, args...))
}

func (d *demo) deploy(ctx context.Context) error {
	if d.cfg.Consul != "" {
		if err := d.startConsul(ctx); err != nil {
			return err
		}
	}
	if err := d.startCluster(ctx); err != nil {
		return err
	}
	body, err := d.app(3)
	if err != nil {
		return err
	}
	err = d.await(ctx, "the app is taken", func() (bool, string, error) {
		_, err := d.api.PutApp(ctx, body, client.PutOptions{CreateOnly: true})
		return err == nil, "", err
	})
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.settled(ctx, 3); err != nil {
		return err
	}
	d.ok("3 instances run %.1f s after the app was submitted", time.Since(began).Seconds())
	if err := d.byName(ctx); err != nil {
		return err
	}
	return d.allWrite(ctx, 3, 20)
}

// app is the example with a path for acknowledgements that outlives every sandbox.
func (d *demo) app(instances int) (json.RawMessage, error) {
	return json.Marshal(map[string]any{
		"id": app, "instances": instances, "cpus": 0.1, "mem": 32, "disk": 0,
		"cmd": fmt.Sprintf("exec holdfast-records --dir data --acks '%s' --every %s", d.acks(), d.cfg.Pause),
		"container": map[string]any{"type": "MESOS", "volumes": []any{map[string]any{
			"containerPath": "data", "mode": "RW",
			"external": map[string]any{"name": "records", "provider": "dvdi", "size": 1, "options": map[string]string{"dvdi/driver": "pool"}},
		}}},
		"portDefinitions": []any{map[string]any{"port": 0, "protocol": "tcp"}}, // for its name in Consul; nothing listens there
		"backoffSeconds":  1, "maxLaunchDelaySeconds": 5, "taskKillGracePeriodSeconds": 3,
		"upgradeStrategy": map[string]any{"minimumHealthCapacity": 0, "maximumOverCapacity": 0},
	})
}

func (d *demo) loseAgent(ctx context.Context) error {
	victim, err := d.api.Instance(ctx, "records.1")
	if err != nil {
		return err
	}
	began := time.Now()
	lost := d.acked("records.1")
	if _, err := d.ctl.Agent(ctx, victim.Hostname, "kill", dev.Order{}); err != nil {
		return err
	}
	d.note("killed %s, where records.1 was", victim.Hostname)
	if err := d.emptied(ctx, victim); err != nil {
		return err
	}
	if err := d.relaunched(ctx, victim); err != nil {
		return err
	}
	if err := d.movedByName(ctx, victim.ID, victim.Ordinal); err != nil {
		return err
	}
	if err := d.wrote(ctx, "records.1", max(lost, d.acked("records.1"))+1); err != nil {
		return err
	}
	d.ok("records.1 writes again %.1f s after the kill", time.Since(began).Seconds())
	if err := d.settled(ctx, 3); err != nil {
		return err
	}
	if err := d.timeline(ctx, "records.1"); err != nil {
		return err
	}
	if err := d.byName(ctx); err != nil {
		return err
	}
	return d.allWrite(ctx, 3, 10)
}

// timeline shows the latest failover of an instance as the API tells it, which must have the steps of a move.
func (d *demo) timeline(ctx context.Context, id string) error {
	list, err := d.api.Failovers(ctx, "/records")
	if err != nil {
		return err
	}
	for _, f := range list {
		if f.Instance != id {
			continue
		}
		if f.End != "moved" || f.FreeAt.IsZero() || f.LaunchedAt.Before(f.FreeAt) || f.RunningAt.Before(f.LaunchedAt) {
			return fault.New(fault.Internal, "the failover of %s is told as %+v", id, f)
		}
		after := func(t time.Time) string { return fmt.Sprintf("+%.1f s", t.Sub(f.LostAt).Seconds()) }
		d.note("its timeline: lost on %s, claims free %s (%s), launched on %s %s, mounted %s, up %s", f.Hostname, after(f.FreeAt), f.FreedBy, f.NextHostname, after(f.LaunchedAt), after(f.HeldAt), after(f.UpAt))
		return nil
	}
	return fault.New(fault.NotFound, "no failover of %s is told", id)
}

// relaunched waits until an instance runs elsewhere, and checks that number and volume are the same.
func (d *demo) relaunched(ctx context.Context, before *client.Instance) error {
	var now *client.Instance
	err := d.await(ctx, before.ID+" runs on another agent", func() (bool, string, error) {
		i, err := d.api.Instance(ctx, before.ID)
		if err != nil {
			return false, "", err
		}
		now = i
		return i.Phase == "running" && i.Incarnation > before.Incarnation, describe(i), nil
	})
	if err != nil {
		return err
	}
	if now.Hostname == before.Hostname {
		return fault.New(fault.Internal, "%s runs on %s again", now.ID, now.Hostname)
	}
	if len(now.Volumes) != 1 || len(before.Volumes) != 1 || now.Volumes[0].UID != before.Volumes[0].UID || now.Ordinal != before.Ordinal {
		return fault.New(fault.Internal, "%s came back with another number or volume: %+v instead of %+v", now.ID, now.Volumes, before.Volumes)
	}
	d.ok("%s runs on %s, with its number and volume %s, epoch %d -> %d", now.ID, now.Hostname, now.Volumes[0].Name, before.Volumes[0].Epoch, now.Volumes[0].Epoch)
	return nil
}

func (d *demo) move(ctx context.Context) error {
	s, err := d.ctl.Status(ctx)
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if n.State == "off" {
			if _, err := d.ctl.Agent(ctx, n.Name, "start", dev.Order{}); err != nil {
				return err
			}
			d.note("started %s", n.Name)
		}
	}
	before, err := d.api.Instance(ctx, "records.0")
	if err != nil {
		return err
	}
	if _, err := d.api.MoveInstance(ctx, "records.0"); err != nil {
		return err
	}
	if err := d.relaunched(ctx, before); err != nil {
		return err
	}
	return d.allWrite(ctx, 3, 10)
}

func (d *demo) scaleUp(ctx context.Context) error {
	if err := d.scale(ctx, 5); err != nil {
		return err
	}
	// In the middle: the order is committed, and not all of it is done.
	if _, err := d.ctl.Framework(ctx, "kill"); err != nil {
		return err
	}
	d.note("kill -9 of the framework")
	if err := d.settled(ctx, 5); err != nil {
		return err
	}
	d.ok("5 instances run; the framework took up the scaling where it was")
	return d.allWrite(ctx, 5, 20)
}

func (d *demo) scaleDown(ctx context.Context) error {
	if err := d.scale(ctx, 2); err != nil {
		return err
	}
	if err := d.settled(ctx, 2); err != nil {
		return err
	}
	volumes, err := d.volumes(ctx)
	if err != nil {
		return err
	}
	if want := []string{"records", "records-1", "records-2", "records-3", "records-4"}; !slices.Equal(volumes, want) {
		return fault.New(fault.Internal, "volumes are %v, not %v", volumes, want)
	}
	d.ok("2 instances run, 5 volumes are kept")
	return d.byName(ctx)
}

func (d *demo) volumes(ctx context.Context) ([]string, error) {
	list, err := d.api.Volumes(ctx, app)
	var names []string
	for _, v := range list {
		if v.Phase != "ready" {
			return nil, fault.New(fault.Internal, "volume %s is %s", v.Name, v.Phase)
		}
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names, err
}

func (d *demo) scaleAgain(ctx context.Context) error {
	had := map[string]uint64{"records.2": d.acked("records.2"), "records.3": d.acked("records.3")}
	if err := d.scale(ctx, 4); err != nil {
		return err
	}
	if _, err := d.ctl.Framework(ctx, "kill"); err != nil {
		return err
	}
	d.note("kill -9 of the framework, again")
	if err := d.settled(ctx, 4); err != nil {
		return err
	}
	for _, id := range []string{"records.2", "records.3"} {
		if had[id] == 0 {
			return fault.New(fault.Internal, "%s had written nothing before", id)
		}
		if err := d.wrote(ctx, id, had[id]+5); err != nil {
			return err
		}
		d.ok("%s went on after its %d records", id, had[id])
	}
	return d.allWrite(ctx, 4, 10)
}

// scale orders a number of instances. The framework may be coming up: an order that was surely not taken is repeated.
func (d *demo) scale(ctx context.Context, n int) error {
	return d.await(ctx, fmt.Sprintf("the order to scale to %d is taken", n), func() (bool, string, error) {
		_, err := d.api.Scale(ctx, app, n, false)
		return err == nil, "", err
	})
}

// settled waits until exactly n instances run and no deployment is under way.
func (d *demo) settled(ctx context.Context, n int) error {
	return d.await(ctx, fmt.Sprintf("%d instances run", n), func() (bool, string, error) {
		a, err := d.api.App(ctx, app)
		if err != nil {
			return false, "", err
		}
		list, err := d.api.Instances(ctx, app)
		if err != nil {
			return false, "", err
		}
		var others []string
		for i := range list {
			if list[i].Phase != "running" && list[i].Phase != "stopped" {
				others = append(others, describe(&list[i]))
			}
		}
		done := a.Instances == n && a.Running == n && a.Stopping == 0 && a.Deployment == "" && len(others) == 0
		return done, fmt.Sprintf("%d of %d run; %s", a.Running, a.Instances, strings.Join(others, "; ")), nil
	})
}

// allWrite waits until each of the first n instances has acknowledged some records more.
func (d *demo) allWrite(ctx context.Context, n, more int) error {
	var parts []string
	want := make([]uint64, n)
	for i := range n {
		want[i] = d.acked(fmt.Sprintf("records.%d", i)) + uint64(more)
	}
	for i := range n {
		id := fmt.Sprintf("records.%d", i)
		if err := d.wrote(ctx, id, want[i]); err != nil {
			return err
		}
		parts = append(parts, fmt.Sprint(d.acked(id)))
	}
	d.ok("all %d write; records acknowledged: %s", n, strings.Join(parts, ", "))
	return nil
}

func (d *demo) wrote(ctx context.Context, id string, n uint64) error {
	return d.await(ctx, fmt.Sprintf("%s has acknowledged record %d", id, n), func() (bool, string, error) {
		have := d.acked(id)
		return have >= n, fmt.Sprintf("it is at %d", have), nil
	})
}

// await polls until done. What is unavailable or unknown for a moment is asked again; any other error ends the wait.
func (d *demo) await(ctx context.Context, what string, poll func() (done bool, now string, err error)) error {
	for deadline := time.Now().Add(limitSettle); ; {
		done, now, err := poll()
		switch {
		case done && err == nil:
			return nil
		case err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown):
			return fault.Op(err, "%s", what)
		case err != nil:
			now = err.Error()
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unknown, "%s: not within %v: %s", what, limitSettle, now)
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Unknown, ctx.Err(), "%s", what)
		case <-d.cluster.Ended:
			return fault.New(fault.Internal, "the cluster has ended by itself")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *demo) note(format string, args ...any) {
	fmt.Fprintf(d.out, "          %s\n", fmt.Sprintf(format, args...))
}

func describe(i *client.Instance) string {
	s := i.ID + " " + i.Phase
	if i.Why != nil {
		s += " (" + i.Why.Summary + ")"
	}
	return s
}

// startCluster runs `holdfast dev` in the background and waits until it answers.
func (d *demo) startCluster(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "find the holdfast program")
	}
	args := []string{"--agents", fmt.Sprint(d.cfg.Agents)}
	if d.consul != nil {
		args = append(args, "--consul", "http://"+d.consul.http)
	}
	d.cluster, err = dev.Spawn(ctx, self, d.state(), args...)
	if err != nil {
		return err
	}
	d.api, d.ctl = d.cluster.API, d.cluster.Control
	return nil
}

// stopCluster ends the cluster as Ctrl-C does.
func (d *demo) stopCluster() error {
	c := d.cluster
	d.cluster = nil
	return c.Stop()
}

package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// consul is a real Consul of the demo's own, which the instances are looked up in by DNS.
type consul struct {
	cmd       *exec.Cmd
	ended     chan struct{}
	http, dns string
}

// startConsul runs a Consul that keeps nothing, on free ports, and waits until it leads.
func (d *demo) startConsul(ctx context.Context) error {
	program, err := filepath.Abs(d.cfg.Consul)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "--consul")
	}
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	logName := filepath.Join(d.dir, "consul.log")
	log, err := os.Create(logName)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "make a log")
	}
	defer log.Close()
	cmd := exec.Command(program, "agent", "-dev", "-node=demo", "-bind=127.0.0.1", "-client=127.0.0.1", fmt.Sprintf("-http-port=%d", ports[0]), fmt.Sprintf("-dns-port=%d", ports[1]),
		fmt.Sprintf("-serf-lan-port=%d", ports[2]), "-serf-wan-port=-1", fmt.Sprintf("-server-port=%d", ports[3]), "-grpc-port=-1", "-grpc-tls-port=-1", "-log-level=warn", "-disable-host-node-id",
		"-hcl=disable_update_check = true", "-hcl=connect { enabled = false }")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "start Consul")
	}
	c := &consul{cmd: cmd, ended: make(chan struct{}), http: fmt.Sprintf("127.0.0.1:%d", ports[0]), dns: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	go func() { _ = cmd.Wait(); close(c.ended) }()
	d.consul = c
	for deadline := time.Now().Add(limitSettle); ; {
		if c.leads(ctx) {
			d.note("a Consul of its own: its API is at %s, its DNS at %s", c.http, c.dns)
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Unknown, ctx.Err(), "start Consul")
		case <-c.ended:
			return fault.New(fault.Unavailable, "Consul ended at its start: see %s", logName)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unavailable, "Consul does not lead after %v: see %s", limitSettle, logName)
		}
	}
}

func (c *consul) leads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.http+"/v1/status/leader", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return err == nil && resp.StatusCode == http.StatusOK && strings.Contains(string(body), ":")
}

func (c *consul) stop() {
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.ended
}

func freePorts(n int) ([]int, error) {
	out := make([]int, n)
	for i := range out {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "find a free port")
		}
		defer l.Close()
		out[i] = l.Addr().(*net.TCPAddr).Port
	}
	return out, nil
}

// lookup asks Consul's DNS for the ports of a name, sorted; none for a name that is not there.
func (c *consul) lookup(ctx context.Context, name string) []int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, c.dns)
	}}
	_, list, err := r.LookupSRV(ctx, "", "", name+".service.consul.")
	if err != nil {
		return nil
	}
	var ports []int
	for _, s := range list {
		ports = append(ports, int(s.Port))
	}
	slices.Sort(ports)
	return ports
}

// byName wants the names of running instances to lead to them, and to nothing else.
func (d *demo) byName(ctx context.Context) error {
	if d.consul == nil {
		return nil
	}
	list, err := d.api.Instances(ctx, app)
	if err != nil {
		return err
	}
	var all []int
	for _, i := range list {
		if i.Phase != "running" || len(i.Ports) != 1 {
			return fault.New(fault.Internal, "%s has ports %v", describe(&i), i.Ports)
		}
		all = append(all, i.Ports[0])
		if err := d.leadsTo(ctx, fmt.Sprintf("instance-%d.records", i.Ordinal), i.Ports[0]); err != nil {
			return err
		}
	}
	slices.Sort(all)
	if err := d.leadsTo(ctx, "records", all...); err != nil {
		return err
	}
	d.ok("records.service.consul leads to %v, and instance-N.records.service.consul to each", all)
	return nil
}

func (d *demo) leadsTo(ctx context.Context, name string, want ...int) error {
	return d.await(ctx, name+".service.consul leads to "+fmt.Sprint(want), func() (bool, string, error) {
		got := d.consul.lookup(ctx, name)
		return slices.Equal(got, want), fmt.Sprint(got), nil
	})
}

// emptied wants a lost host's entry to be gone from DNS, whether its instance is elsewhere already or not.
func (d *demo) emptied(ctx context.Context, victim *client.Instance) error {
	if d.consul == nil {
		return nil
	}
	began, name := time.Now(), fmt.Sprintf("instance-%d.records", victim.Ordinal)
	err := d.await(ctx, name+".service.consul leads to the lost place no more", func() (bool, string, error) {
		got := d.consul.lookup(ctx, name)
		return !slices.Contains(got, victim.Ports[0]), fmt.Sprint(got), nil
	})
	if err == nil {
		d.ok("%s.service.consul led to the lost place no more %.1f s after the kill", name, time.Since(began).Seconds())
	}
	return err
}

// movedByName wants the name of an instance to lead to its new place.
func (d *demo) movedByName(ctx context.Context, id string, ordinal int) error {
	if d.consul == nil {
		return nil
	}
	now, err := d.api.Instance(ctx, id)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("instance-%d.records", ordinal)
	if err := d.leadsTo(ctx, name, now.Ports...); err != nil {
		return err
	}
	d.ok("%s.service.consul leads to its new place, %s:%v", name, now.Hostname, now.Ports[0])
	return nil
}

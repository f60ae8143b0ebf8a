package mesos

import (
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/framework/mesos/detect"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// target is a master to subscribe to, and the leader in ZooKeeper that led to it (nil without ZooKeeper).
type target struct {
	url    *url.URL
	leader *detect.Leader
}

// findMasters reads Config.Master.
func (c *Client) findMasters() (err error) {
	scheme := "http"
	if c.c.TLS != nil {
		scheme = "https"
	}
	if strings.HasPrefix(c.c.Master, detect.Scheme) {
		c.detector, err = detect.New(c.c.Master, detect.Options{Secret: c.c.MasterSecret, Log: c.log.Named("zookeeper")})
		return err
	}
	if c.c.MasterSecret != "" {
		return fault.New(fault.Invalid, "a secret for ZooKeeper is given, but the master is not zk://…")
	}
	c.masters, err = parseMasters(c.c.Master, scheme)
	return err
}

// detect starts following the election, when there is one; the result waits for its end, after ctx's.
func (c *Client) detect(ctx context.Context) (wait func()) {
	if c.detector == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.detector.Run(ctx) })
	return func() { cancel(); wg.Wait() }
}

// pick gives the master to try next. With ZooKeeper it waits until a leader is known, and tells why there is none; false when ctx ends before.
func (c *Client) pick(ctx context.Context, emit func(scheduler.Event)) (target, bool) {
	if c.detector == nil {
		return target{url: c.masters[c.next%len(c.masters)]}, true
	}
	told := ""
	for {
		leader, changed, problem := c.detector.Leader()
		if leader != nil {
			return c.target(leader), true
		}
		if why := problem.Error(); why != told {
			emit(scheduler.Disconnected{Reason: why})
			told = why
		}
		select {
		case <-ctx.Done():
			return target{}, false
		case <-changed:
		}
	}
}

// target is the scheduler endpoint of a detected master. Its certificate is checked for its host name, when it gave one.
func (c *Client) target(l *detect.Leader) target {
	u := &url.URL{Scheme: "http", Host: l.Address, Path: schedulerPath}
	if c.c.TLS != nil {
		u.Scheme = "https"
		if _, port, err := net.SplitHostPort(l.Address); err == nil && l.Hostname != "" {
			u.Host = net.JoinHostPort(l.Hostname, port)
			c.dials.Store(u.Host, l.Address)
		}
	}
	return target{url: u, leader: l}
}

// watchLeader calls cancel once ZooKeeper names another leader than the one that the subscription is with. That ZooKeeper is away, or names none,
// ends nothing: the master that leads goes on leading until it knows better. The result puts the reason into an error.
func (c *Client) watchLeader(ctx context.Context, at target, cancel context.CancelFunc) func(error) error {
	if c.detector == nil {
		return func(err error) error { return err }
	}
	moved := make(chan string, 1)
	go func() {
		for {
			leader, changed, _ := c.detector.Leader()
			if leader != nil && !leader.Same(at.leader) && c.target(leader).url.Host != at.url.Host {
				moved <- leader.Address
				cancel()
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return func(err error) error {
		select {
		case to := <-moved:
			return fault.New(fault.Unavailable, "master %s does not lead any more: %s does", at.url.Host, to)
		default:
			return err
		}
	}
}

// pause waits before the next attempt; true when it was cut short because another master leads than the one that failed.
func (c *Client) pause(ctx context.Context, at target, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		var changed <-chan struct{}
		if c.detector != nil {
			var leader *detect.Leader
			if leader, changed, _ = c.detector.Leader(); leader != nil && !leader.Same(at.leader) {
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

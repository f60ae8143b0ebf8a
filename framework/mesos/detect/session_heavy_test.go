package detect

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
)

// cable is a connection to a server that can be pulled.
type cable struct {
	net.Listener
	mu     sync.Mutex
	pulled bool
	conns  []net.Conn
}

func newCable(t *testing.T, to string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{Listener: l}
	t.Cleanup(func() { l.Close(); c.pull(true) })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in, out)
			pulled := c.pulled
			c.mu.Unlock()
			if pulled {
				in.Close()
				out.Close()
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() { _, _ = io.Copy(pair[0], pair[1]); pair[0].Close() }()
			}
		}
	}()
	return c
}

func (c *cable) pull(pulled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = pulled
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// TestHeavySessionExpires: cut off for longer than its session lives, a detector keeps the last known leader and says what is wrong; afterwards it
// learns what it has missed, by a session of its own again, and hears of the next change.
func TestHeavySessionExpires(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	conn, events, err := zk.Connect(z.Servers(), 10*time.Second, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		for range events {
		}
	}()
	register := func(port int) string {
		t.Helper()
		node, err := conn.Create("/mesos/json.info_", fmt.Appendf(nil, `{"id":"%d","address":{"ip":"127.0.0.1","port":%d}}`, port, port), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	if _, err := conn.Create("/mesos", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	first := register(1)

	c := newCable(t, z.Servers()[0])
	d, err := New("zk://"+c.Addr().String()+"/mesos", Options{SessionTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); d.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	await := func(what string, good func(*Leader, error) bool) {
		t.Helper()
		limit := time.After(40 * time.Second)
		for {
			leader, changed, problem := d.Leader()
			if good(leader, problem) {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("%s: it is %+v, %v", what, leader, problem)
			}
		}
	}
	leads := func(id string) func(*Leader, error) bool {
		return func(l *Leader, problem error) bool { return l != nil && l.ID == id && problem == nil }
	}
	await("the first leads", leads("1"))
	c.pull(true)
	await("cut off", func(l *Leader, problem error) bool { return l != nil && l.ID == "1" && problem != nil })
	if err := conn.Delete(first, -1); err != nil {
		t.Fatal(err)
	}
	second := register(2)
	time.Sleep(2 * time.Second)
	c.pull(false)
	await("the second leads", leads("2"))
	if err := conn.Delete(second, -1); err != nil {
		t.Fatal(err)
	}
	await("nobody leads", func(l *Leader, problem error) bool { return l == nil && problem != nil })
	register(3)
	await("the third leads", leads("3"))
}

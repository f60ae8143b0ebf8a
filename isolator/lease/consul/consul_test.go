package consul

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

var ctx = context.Background()

// server serves each part of the suite below a folder of its own.
type server struct {
	t    *testing.T
	c    *servertest.Consul
	root string
}

var roots atomic.Int64

func (s server) Client() lease.Registers {
	a, err := api.NewClient(&api.Config{Address: s.c.Addr()})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := New(a, s.root)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { r.Close() })
	return r
}

func open(c *servertest.Consul) func(t *testing.T) leasetest.Server {
	return func(t *testing.T) leasetest.Server {
		return server{t, c, fmt.Sprintf("holdfast/test%d", roots.Add(1))}
	}
}

func TestHeavyRegistersAndTransitions(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	c := servertest.StartConsul(t, "")
	leasetest.Registers(t, open(c))
	leasetest.Transitions(t, open(c))
}

// The history stays linearizable while the server is killed and started again on its data.
func TestHeavyLinearizableThroughRestarts(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	c := servertest.StartConsul(t, "")
	rounds := 0
	leasetest.Linearizable(t, open(c)(t), 6, 120, func() bool {
		c.Kill()
		time.Sleep(200 * time.Millisecond)
		c.Start()
		rounds++
		return rounds < 2
	})
}

func TestNothingThere(t *testing.T) {
	a, err := api.NewClient(&api.Config{Address: fmt.Sprintf("127.0.0.1:%d", servertest.FreePorts(t, 1)[0])})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(a, "/holdfast/x/")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("write: %v", err)
	}
	if _, err := c.Get(ctx, "k"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("read: %v", err)
	}
	if _, err := New(a, "a b"); !fault.Is(err, fault.Invalid) {
		t.Errorf("folder with a space: %v", err)
	}
}

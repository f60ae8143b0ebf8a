package zookeeper

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

var ctx = context.Background()

func TestParseAddress(t *testing.T) {
	servers, o, err := ParseAddress("zk://user:p%40ss@h1:2182,h2/holdfast/c1")
	if err != nil || fmt.Sprint(servers) != "[h1:2182 h2:2181]" || o.Root != "/holdfast/c1" || o.User != "user" || o.Password != "p@ss" {
		t.Errorf("got %v %+v %v", servers, o, err)
	}
	for _, bad := range []string{"", "http://h/x", "zk://", "zk://:2181/x", "zk://h1,,h2/x", "zk://user@h/x", "zk://h/a//b", "zk://h/../x"} {
		if _, _, err := ParseAddress(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseAddress(%q) = %v, want invalid", bad, err)
		}
	}
}

// ensemble serves each part of the suite below a path of its own.
type ensemble struct {
	t    *testing.T
	z    *servertest.ZooKeeper
	root string
}

var roots atomic.Int64

func (e ensemble) Client() lease.Registers {
	c, err := Dial(e.z.Servers(), Options{Root: e.root, SessionTimeout: 2 * time.Second})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	return c
}

func open(z *servertest.ZooKeeper) func(t *testing.T) leasetest.Server {
	return func(t *testing.T) leasetest.Server {
		return ensemble{t, z, fmt.Sprintf("/holdfast/test%d", roots.Add(1))}
	}
}

func TestHeavyRegisters(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	leasetest.Registers(t, open(servertest.StartZooKeeper(t, 3)))
}

func TestHeavyTransitions(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	leasetest.Transitions(t, open(servertest.StartZooKeeper(t, 1)))
}

// The history stays linearizable while servers are killed, leaders among them.
func TestHeavyLinearizableThroughElections(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 3)
	rounds := 0
	leasetest.Linearizable(t, open(z)(t), 6, 120, func() bool {
		victim := max(z.Leader(), 0)
		if rounds%2 == 1 {
			victim = (victim + 1) % 3
		}
		z.Kill(victim)
		time.Sleep(300 * time.Millisecond)
		z.Start(victim)
		z.Await(victim)
		rounds++
		return rounds < 4
	})
}

// A register that was deleted and made again has ZooKeeper's version 0 again, but not the version of before.
func TestHeavyDeletedAndMadeAgain(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	c := open(z)(t).Client()
	put := func(expect uint64) (uint64, error) {
		e, err := c.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k", Expect: expect, Value: []byte("x")})
		if err != nil {
			return 0, err
		}
		return e[0].Version, nil
	}
	first, err := put(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Txn(ctx, lease.Op{Kind: lease.OpDelete, Key: "k", Expect: first}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(0); err != nil {
		t.Fatal(err)
	}
	if _, err := put(first); !fault.Is(err, fault.Conflict) {
		t.Errorf("the old version is taken for the new one: %v", err)
	}
}

// What one user made is closed to others, and to nobody in particular.
func TestHeavyAccessList(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	dial := func(user, password string) *Client {
		c, err := Dial(z.Servers(), Options{Root: "/holdfast/closed", User: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	if _, err := dial("hold", "fast").Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if e, err := dial("hold", "fast").Get(ctx, "k"); err != nil || string(e.Value) != "x" {
		t.Errorf("the same user reads %q, %v", e.Value, err)
	}
	for _, c := range []*Client{dial("", ""), dial("hold", "slow")} {
		if _, err := c.Get(ctx, "k"); !fault.Is(err, fault.Denied) {
			t.Errorf("another reads: %v", err)
		}
		if _, err := c.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "k2", Value: []byte("x")}); !fault.Is(err, fault.Denied) {
			t.Errorf("another writes: %v", err)
		}
	}
}

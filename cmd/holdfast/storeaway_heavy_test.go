package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
)

// outage kills a store's server under a framework for longer than a leadership lasts (ZooKeeper's session expires as well) and starts it again: meanwhile changes are refused
// and nothing is shown as new; afterwards the same process goes on with everything that was acknowledged.
func outage(t *testing.T, address string, kill, start func()) {
	bin := devtest.Bin(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// The authority is somewhere else: it is the store alone that goes away.
	a := startMember(t, bin, "a", "--master", l.Addr().String(), "--store", address+"/hf/state", "--authority", "unix://"+t.TempDir()+"/nobody")
	a.await(t, "a leads", 30*time.Second, "GET", "/v1/info", "", `"elected":true`)
	a.await(t, "a takes a write", 20*time.Second, "PUT", "/v2/apps/one", `{"cmd":"sleep 1000","instances":1,"cpus":0.1,"mem":16}`, "")
	kill()
	devtest.Await(t, "writes are refused", 60*time.Second, func(ctx context.Context) (bool, string, error) {
		code, text := a.call(ctx, "PUT", "/v2/apps/two", `{"cmd":"sleep 2000","instances":1,"cpus":0.1,"mem":16}`)
		return code == 503 || code == 504 || code == 0, text, nil
	})
	if code, text := a.call(t.Context(), "GET", "/v2/apps/one", ""); code != 200 || !strings.Contains(text, "sleep 1000") {
		t.Errorf("what was last committed is not shown while the store is away: %d %s", code, text)
	}
	time.Sleep(12 * time.Second) // longer than leaderships and sessions last
	start()
	a.await(t, "a goes on", 60*time.Second, "PUT", "/v2/apps/three", `{"cmd":"sleep 3000","instances":1,"cpus":0.1,"mem":16}`, "")
	a.await(t, "a has what was acknowledged", 5*time.Second, "GET", "/v2/apps/one", "", "sleep 1000")
}

func TestHeavyStoreAway(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper, servertest.NeedConsul)
	t.Run("zookeeper", func(t *testing.T) {
		t.Parallel() // they mostly wait
		zk := servertest.StartZooKeeper(t, 1)
		outage(t, "zk://"+zk.Servers()[0], func() { zk.Kill(0) }, func() { zk.Start(0) })
	})
	t.Run("consul", func(t *testing.T) {
		t.Parallel()
		c := servertest.StartConsul(t, "")
		outage(t, "consul://"+c.Addr(), func() { c.Kill() }, func() { c.Start() })
	})
}

package main

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
)

// A leader that is stopped (SIGSTOP, as a hypervisor or a debugger would) is followed within seconds. When it goes on it stands by, passes requests on, and
// what was written through the new leader stays.
func TestHeavyStoppedLeader(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper, servertest.NeedConsul)
	zk, consul := servertest.StartZooKeeper(t, 1).Servers()[0], servertest.StartConsul(t, "").Addr()
	bin := devtest.Bin(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, address := range []string{"zk://" + zk + "/hf/", "consul://" + consul + "/hf/"} {
		t.Run(strings.SplitN(address, ":", 2)[0], func(t *testing.T) {
			t.Parallel() // they mostly wait
			args := []string{"--master", l.Addr().String(), "--store", address + "state", "--authority", address + "leases"}
			a := startMember(t, bin, "a", args...)
			a.await(t, "a leads", 30*time.Second, "GET", "/v1/info", "", `"elected":true`)
			b := startMember(t, bin, "b", args...)
			b.await(t, "b passes a write on", 30*time.Second, "PUT", "/v2/apps/one", `{"cmd":"sleep 1000","instances":1,"cpus":0.1,"mem":16}`, "")
			if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			// With force: the old leader may have committed it in the moment that the signal took, and its deployment never ends here.
			b.await(t, "b takes over", 40*time.Second, "PUT", "/v2/apps/two?force=true", `{"cmd":"sleep 2000","instances":1,"cpus":0.1,"mem":16}`, "")
			t.Logf("b takes writes %v after a was stopped", time.Since(began))
			if err := a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			a.await(t, "a passes on what it has not", 15*time.Second, "GET", "/v2/apps/two", "", "sleep 2000")
			a.await(t, "a passes a write on", 15*time.Second, "PUT", "/v2/apps/three", `{"cmd":"sleep 3000","instances":1,"cpus":0.1,"mem":16}`, "")
			for _, app := range []string{"one", "two", "three"} {
				b.await(t, "b has "+app, 10*time.Second, "GET", "/v2/apps/"+app, "", "sleep")
			}
		})
	}
}

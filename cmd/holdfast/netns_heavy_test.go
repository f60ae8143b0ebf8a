package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/examples/records/ledger"
	"github.com/holdfast-io/holdfast/framework/embedded"
	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// netNode is a node whose isolator and watchdog live in a network namespace of their own: they reach the authority over a pair of virtual
// network cards, which can be cut, also for one direction.
type netNode struct {
	name, ns, card string
	host, own      string // addresses of the two ends
	isolator       []string
	link           *embedded.Link
}

// netTorture is a cluster of two such nodes.
type netTorture struct {
	*remote
	consul *servertest.Consul
	list   []*netNode
	rnd    *rand.Rand
	counts map[string]int
}

func command(t testing.TB, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

// listenIn listens in a network namespace.
func listenIn(ns, address string) (l net.Listener, err error) {
	if ns == "" {
		return net.Listen("tcp", address)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine, and the namespace goes with it
		var f *os.File
		if f, err = os.Open(filepath.Join("/run/netns", ns)); err != nil {
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil {
			l, err = net.Listen("tcp", address)
		}
	}()
	<-done
	return l, err
}

// forward carries TCP connections from an address in a network namespace, "" for ours, to another of ours.
func forward(t testing.TB, ns, from, to string) {
	t.Helper()
	l, err := listenIn(ns, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.DialTimeout("tcp", to, 2*time.Second)
				if err != nil {
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, in); out.Close(); in.Close() }()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
}

func startNetTorture(t *testing.T, seed uint64) *netTorture {
	c := servertest.StartConsul(t, "")
	n := &netTorture{consul: c, rnd: rand.New(rand.NewPCG(seed, 1)), counts: map[string]int{}}
	n.remote = startRemoteOn(t, "consul://"+c.Addr()+"/holdfast/test", 4*time.Second, func(m *embedded.Master) string { return m.URL() }, func(r *remote, bin string) {
		for i, name := range []string{"left", "right"} {
			n.list = append(n.list, r.startNetNode(bin, name, i, c.Addr()))
		}
	})
	return n
}

// startNetNode is startNode in a network namespace.
func (r *remote) startNetNode(bin, name string, index int, consul string) *netNode {
	t := r.t
	pid := os.Getpid()
	n := &netNode{name: name, ns: fmt.Sprintf("hf%d-%d", pid, index), card: fmt.Sprintf("hf%d%c", pid%10000000, 'a'+index)}
	n.host, n.own = fmt.Sprintf("10.231.%d.%d", pid%250, 4*index+1), fmt.Sprintf("10.231.%d.%d", pid%250, 4*index+2)
	command(t, "ip", "netns", "add", n.ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.ns).Run() })
	command(t, "ip", "link", "add", n.card, "type", "veth", "peer", "name", "up0", "netns", n.ns)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", n.card).Run() })
	command(t, "ip", "addr", "add", n.host+"/30", "dev", n.card)
	command(t, "ip", "link", "set", n.card, "up")
	command(t, "ip", "-n", n.ns, "addr", "add", n.own+"/30", "dev", "up0")
	command(t, "ip", "-n", n.ns, "link", "set", "up0", "up")
	command(t, "ip", "-n", n.ns, "link", "set", "lo", "up")
	_, port, _ := net.SplitHostPort(consul)
	forward(t, "", n.host+":"+port, consul)

	url := "127.0.0.1:" + strconv.Itoa(servertest.FreePorts(t, 1)[0])
	forward(t, n.ns, url, url) // the agent beside the isolator is in our namespace
	socket := filepath.Join(r.top, "run", name+".sock")
	n.link = r.master.Link(name)
	n.isolator = append([]string{"--net=/run/netns/" + n.ns, filepath.Join(bin, "holdfast"), "isolator", "--docker-socket", "", "--dir", filepath.Join(r.top, name, "isolator"), "--socket", socket,
		"--authority", "consul://" + n.host + ":" + port + "/holdfast/test", "--agent-url", "http://" + url, "--hostname", name, "--boot-id", fmt.Sprintf("00000000-0000-4000-8000-%012d", index+1),
		"--lease-mount-limit", "500ms", "--pool", "pool=" + filepath.Join(r.top, "pool") + ",scope=cluster"}, r.timings()...)
	r.run("nsenter", name, n.isolator...)
	a, err := agent.New(agent.Config{Dir: filepath.Join(r.top, name, "agent"), Hostname: name, Listen: url,
		Resources: agent.Resources{CPUs: 4, Mem: 1024, Disk: 1024, PortsBegin: uint64(15000 + index*100), PortsEnd: uint64(15099 + index*100)},
		Dvdcli:    filepath.Join(bin, "dvdcli"), Env: []string{"HOLDFAST_ISOLATOR=" + socket},
		TaskEnv: map[string]string{"PATH": bin + ":" + os.Getenv("PATH")}, Master: n.link, Logger: zap.NewNop()})
	if err == nil {
		err = a.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	r.nodes[name] = &remoteNode{name: name, link: n.link, agent: a}
	return n
}

// processes gives the isolator and the watchdog process of a node.
func (n *netTorture) processes(node *netNode) (isolator, watchdog []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, p := range all {
		raw, err := os.ReadFile(p)
		if err != nil || !strings.Contains(string(raw)+"\x00", n.mark(node.name)+"\x00") {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(p, "/")[2])
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline"))
		switch {
		case strings.Contains(string(args), "isolator\x00watchdog\x00"):
			watchdog = append(watchdog, pid)
		case strings.Contains(string(args), "isolator\x00--docker-socket"):
			isolator = append(isolator, pid)
		}
	}
	return isolator, watchdog
}

func signalAll(pids []int, s unix.Signal) {
	for _, pid := range pids {
		_ = unix.Kill(pid, s)
	}
}

// trouble makes one fault and mends it after a while; most last longer than a lease.
func (n *netTorture) trouble() string {
	node := n.list[n.rnd.IntN(len(n.list))]
	long := time.Duration(500+n.rnd.IntN(9000)) * time.Millisecond
	isolator, watchdog := n.processes(node)
	kinds := []struct {
		name       string
		make, mend func()
	}{
		{"cut both ways", func() { command(n.t, "ip", "link", "set", n.card(node), "down") }, func() { command(n.t, "ip", "link", "set", n.card(node), "up") }},
		{"answers are lost", func() { command(n.t, "ip", "route", "add", "blackhole", node.own+"/32") }, func() { command(n.t, "ip", "route", "del", "blackhole", node.own+"/32") }},
		{"requests are lost", func() { command(n.t, "ip", "-n", node.ns, "route", "add", "blackhole", node.host+"/32") }, func() { command(n.t, "ip", "-n", node.ns, "route", "del", "blackhole", node.host+"/32") }},
		{"isolator stopped", func() { signalAll(isolator, unix.SIGSTOP) }, func() { signalAll(isolator, unix.SIGCONT) }},
		{"watchdog stopped", func() { signalAll(watchdog, unix.SIGSTOP) }, func() { signalAll(watchdog, unix.SIGCONT) }},
		{"isolator killed", func() { signalAll(isolator, unix.SIGKILL) }, func() { n.run("nsenter", node.name, node.isolator...) }},
		{"watchdog killed", func() { signalAll(watchdog, unix.SIGKILL) }, func() {}},
		{"agent cut from the master", func() { node.link.Cut() }, func() { node.link.Heal() }},
		{"agent and isolator cut", func() { node.link.Cut(); command(n.t, "ip", "link", "set", n.card(node), "down") }, func() {
			command(n.t, "ip", "link", "set", n.card(node), "up")
			node.link.Heal()
		}},
		{"authority paused", func() { n.consul.Pause() }, func() { n.consul.Continue() }},
		{"authority killed", func() { n.consul.Kill() }, func() { n.consul.Start() }},
	}
	k := kinds[n.rnd.IntN(len(kinds))]
	n.counts[k.name]++
	k.make()
	time.Sleep(long)
	k.mend()
	return fmt.Sprintf("%s of %s for %v", k.name, node.name, long)
}

func (n *netTorture) card(node *netNode) string { return node.card }

// look reads the volumes as they are: records that no older run wrote after a newer one.
func (n *netTorture) look() {
	n.t.Helper()
	for i := range 2 {
		f, err := os.Open(filepath.Join(n.top, "pool", volume.NameFor("records", i, false), "data", "records"))
		if err != nil {
			n.t.Error(err)
			continue
		}
		if _, _, err := ledger.Read(f); err != nil {
			n.t.Errorf("records.%d: %v", i, err)
		}
		f.Close()
	}
}

// nothingLeaks waits until each instance's volume is mounted once, and each node has one isolator and one watchdog.
func (n *netTorture) nothingLeaks() {
	n.t.Helper()
	devtest.Await(n.t, "nothing is left over", 30*time.Second, func(context.Context) (bool, string, error) {
		said := ""
		mounts := 0
		for _, node := range n.list {
			list, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(n.top, node.name, "isolator", "mounts")))
			if err != nil {
				return false, "", err
			}
			mounts += len(list)
			isolators, watchdogs := n.processes(node)
			if len(isolators) != 1 || len(watchdogs) != 1 {
				said += fmt.Sprintf("%s: isolators %v, watchdogs %v; ", node.name, isolators, watchdogs)
			}
		}
		return mounts == 2 && said == "", fmt.Sprintf("%s%d mounts", said, mounts), nil
	})
}

// runs gives the highest number of runs so far.
func (n *netTorture) runs() (sum uint64) {
	list, err := n.api.Instances(context.Background(), "/records")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, i := range list {
		sum += i.Incarnation
	}
	return sum
}

// TestHeavyNetworkTorture lets two nodes in network namespaces of their own go through partitions, one-way ones too, stopped and killed isolators and watchdogs, and an
// authority (Consul) that is paused or killed, one trouble after another, while instances write numbered records. After each, the cluster must come to rest with
// both instances writing, and no record may be lost, doubled or written by an older run. HOLDFAST_NETWORK_ROUNDS and HOLDFAST_SEED say how many and which.
//
// Isolator and watchdog of a node are never stopped together here: that is what fence grade soft assumes, and the dead-man has tests of its own.
func TestHeavyNetworkTorture(t *testing.T) {
	heavy.Require(t, heavy.Root, servertest.NeedConsul, heavy.Program("ip"), heavy.Program("nsenter"))
	rounds := 2
	if k, err := strconv.Atoi(os.Getenv("HOLDFAST_NETWORK_ROUNDS")); err == nil {
		rounds = k
	}
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if s, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	n := startNetTorture(t, seed)
	n.add()
	n.instances("both instances run", 30*time.Second, nil)
	n.progress()
	for i := range rounds {
		began := time.Now()
		what := n.trouble()
		n.instances("both run again after: "+what, 90*time.Second, nil)
		n.progress()
		n.look()
		n.nothingLeaks()
		t.Logf("round %d: %s; all well after %v", i, what, time.Since(began).Round(100*time.Millisecond))
		if t.Failed() {
			t.FailNow()
		}
	}
	runs := n.runs()
	n.audit()
	t.Logf("%d rounds: %v; %d runs of two instances", rounds, n.counts, runs)
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/moby/sys/mountinfo"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/cmd/holdfast/supervise"
	"github.com/holdfast-io/holdfast/examples/records/ledger"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/embedded"
	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// remote is a cluster as one has it in a data centre: an engine that is found through ZooKeeper, a lease authority that no part of it serves, and
// framework and isolators as processes that know only those addresses.
type remote struct {
	t         *testing.T
	top       string
	authority string
	deadline  time.Duration // F
	master    *embedded.Master
	nodes     map[string]*remoteNode
	api       *client.Client
}

type remoteNode struct {
	name, boot string
	link       *embedded.Link
	agent      *agent.Agent
}

// startRemote starts two nodes and the framework; master is its --master, "" means the engine's own address.
func startRemote(t *testing.T, authority string, deadline time.Duration, announce func(*embedded.Master) string) *remote {
	t.Helper()
	return startRemoteOn(t, authority, deadline, announce, func(r *remote, bin string) {
		for i, name := range []string{"left", "right"} {
			r.startNode(bin, name, 15000+i*100)
		}
	})
}

// startRemoteOn is startRemote with nodes of another kind.
func startRemoteOn(t *testing.T, authority string, deadline time.Duration, announce func(*embedded.Master) string, nodes func(r *remote, bin string)) *remote {
	t.Helper()
	bin := devtest.Bin(t)
	top, err := os.MkdirTemp("/tmp", "holdfast-remote-")
	if err != nil {
		t.Fatal(err)
	}
	r := &remote{t: t, top: top, authority: authority, deadline: deadline, nodes: map[string]*remoteNode{}}
	t.Cleanup(r.remove)
	for _, dir := range []string{"pool", "acks", "run", "framework"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if r.master, err = embedded.New(embedded.Config{Dir: filepath.Join(top, "engine"), Listen: "127.0.0.1:0", Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- r.master.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-served })
	nodes(r, bin)
	r.run(filepath.Join(bin, "holdfast"), "framework", append([]string{"framework", "--master", announce(r.master), "--listen", "127.0.0.1:0", "--dir", filepath.Join(top, "framework"),
		"--min-grade", "soft", "--mesos-user", "root", "--authority", authority}, r.timings()...)...)
	devtest.Await(t, "the framework listens", 20*time.Second, func(ctx context.Context) (bool, string, error) {
		raw, err := os.ReadFile(filepath.Join(top, "framework", "listen"))
		if err != nil {
			return false, err.Error(), nil
		}
		r.api = client.New("http://" + strings.TrimSpace(string(raw)))
		return r.api.Ping(ctx) == nil, "no answer", nil
	})
	return r
}

// timings are the same flags for framework and isolators. W follows from them.
func (r *remote) timings() []string {
	return []string{"--lease-period", "500ms", "--lease-call-limit", "400ms", "--lease-deadline", r.deadline.String(), "--lease-fence-limit", "1s", "--lease-clock-error", "0.1"}
}

// wait is W.
func (r *remote) wait() time.Duration { return (r.deadline + time.Second) * 11 / 9 }

func (r *remote) mark(name string) string { return "HOLDFAST_DEV=" + r.top + "/" + name }

// run starts a program of the cluster, with its log below run/.
func (r *remote) run(program, name string, args ...string) {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.top, "run", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), r.mark(name)), log, log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
}

func (r *remote) startNode(bin, name string, ports int) {
	r.t.Helper()
	port := servertest.FreePorts(r.t, 1)[0]
	url, socket := fmt.Sprintf("http://127.0.0.1:%d", port), filepath.Join(r.top, "run", name+".sock")
	n := &remoteNode{name: name, boot: "00000000-0000-4000-8000-" + fmt.Sprintf("%012d", ports), link: r.master.Link(name)}
	r.nodes[name] = n
	r.run(filepath.Join(bin, "holdfast"), name, append([]string{"isolator", "--docker-socket", "", "--dir", filepath.Join(r.top, name, "isolator"), "--socket", socket, "--authority", r.authority,
		"--agent-url", url, "--hostname", name, "--boot-id", n.boot, "--lease-mount-limit", "500ms", "--pool", "pool=" + filepath.Join(r.top, "pool") + ",scope=cluster"}, r.timings()...)...)
	var err error
	n.agent, err = agent.New(agent.Config{Dir: filepath.Join(r.top, name, "agent"), Hostname: name, Listen: fmt.Sprintf("127.0.0.1:%d", port),
		Resources: agent.Resources{CPUs: 4, Mem: 1024, Disk: 1024, PortsBegin: uint64(ports), PortsEnd: uint64(ports + 99)},
		Dvdcli:    filepath.Join(bin, "dvdcli"), Env: []string{"HOLDFAST_ISOLATOR=" + socket},
		TaskEnv: map[string]string{"PATH": bin + ":" + os.Getenv("PATH")}, Master: n.link, Logger: zap.NewNop()})
	if err == nil {
		err = n.agent.Start(context.Background())
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// kill is the loss of a machine: nothing of it runs or can be reached any more.
func (r *remote) kill(name string) {
	r.t.Helper()
	n := r.nodes[name]
	n.link.Cut()
	helper := make(chan error, 1)
	go func() { _, err := supervise.KillMarked(r.mark(name), 5*time.Second); helper <- err }() // isolator and watchdog
	if err := n.agent.Kill(); err != nil {
		r.t.Error(err)
	}
	if err := <-helper; err != nil {
		r.t.Error(err)
	}
	delete(r.nodes, name)
}

// stop ends everything; what is mounted is gone with it.
func (r *remote) stop() {
	for name, n := range r.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := n.agent.Close(ctx); err != nil {
			r.t.Errorf("stop node %s: %v", name, err)
		}
		cancel()
	}
	for _, name := range []string{"framework", "left", "right"} {
		if _, err := supervise.KillMarked(r.mark(name), 5*time.Second); err != nil {
			r.t.Error(err)
		}
	}
	r.nodes = nil
}

func (r *remote) remove() {
	if r.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(r.top, "run", "*.log"))
		for _, name := range logs {
			raw, _ := os.ReadFile(name)
			r.t.Logf("---- end of %s\n%s", name, raw[max(0, len(raw)-5000):])
		}
	}
	r.stop()
	mounts, _ := mountinfo.GetMounts(mountinfo.PrefixFilter(r.top))
	sort.Slice(mounts, func(i, j int) bool { return mounts[i].ID > mounts[j].ID })
	for _, m := range mounts {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil {
			r.t.Errorf("unmount %s: %v", m.Mountpoint, err)
			return // never remove through a mount
		}
	}
	_ = os.RemoveAll(r.top)
}

// add starts the app of two instances, once both nodes have begun their leases: otherwise both may run on one.
func (r *remote) add() {
	r.t.Helper()
	devtest.Await(r.t, "both nodes have a lease", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		nodes, err := r.api.Nodes(ctx)
		begun := 0
		for _, n := range nodes {
			if n.Generation > 0 {
				begun++
			}
		}
		return begun == 2, fmt.Sprintf("%d of 2", begun), err
	})
	app := map[string]any{"id": "/records", "cmd": "exec holdfast-records --dir data --every 20ms --acks " + filepath.Join(r.top, "acks"), "instances": 2, "cpus": 0.1, "mem": 32, "disk": 0,
		"backoffSeconds": 1, "maxLaunchDelaySeconds": 2, "container": map[string]any{"type": "MESOS", "volumes": []any{map[string]any{"containerPath": "data", "mode": "RW",
			"external": map[string]any{"name": "records", "provider": "dvdi", "size": 1, "options": map[string]string{"dvdi/driver": "pool"}}}}}}
	body, err := json.Marshal(app)
	if err != nil {
		r.t.Fatal(err)
	}
	devtest.Await(r.t, "the app is taken", 30*time.Second, func(ctx context.Context) (bool, string, error) {
		_, err := r.api.PutApp(ctx, body, client.PutOptions{CreateOnly: true})
		return err == nil, "", err
	})
}

// instances waits until all run and good says yes.
func (r *remote) instances(what string, limit time.Duration, good func([]client.Instance) bool) []client.Instance {
	r.t.Helper()
	var list []client.Instance
	devtest.Await(r.t, what, limit, func(ctx context.Context) (bool, string, error) {
		var err error
		if list, err = r.api.Instances(ctx, "/records"); err != nil {
			return false, "", err
		}
		states := make([]string, len(list))
		running := len(list) == 2
		for n, i := range list {
			states[n] = fmt.Sprintf("%s %s on %s (%+v)", i.ID, i.Phase, i.Hostname, i.Why)
			running = running && i.Phase == "running"
		}
		return running && (good == nil || good(list)), strings.Join(states, ", "), nil
	})
	return list
}

// acked gives how many records the instances have acknowledged so far.
func (r *remote) acked() (n int) {
	for i := range 2 {
		raw, _ := os.ReadFile(filepath.Join(r.top, "acks", fmt.Sprintf("acks-records.%d", i)))
		n += strings.Count(string(raw), "\n")
	}
	return n
}

// progress waits until every instance has written since.
func (r *remote) progress() {
	r.t.Helper()
	before := r.acked()
	devtest.Await(r.t, "records are written", 30*time.Second, func(context.Context) (bool, string, error) { return r.acked() > before+4, "", nil })
}

// generations gives the lease generation of each node.
func (r *remote) generations() map[string]uint64 {
	r.t.Helper()
	out := map[string]uint64{}
	nodes, err := r.api.Nodes(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range nodes {
		out[n.Hostname] = n.Generation
	}
	return out
}

// audit stops the cluster and compares the volumes with what was acknowledged: no record lost, none written by two.
func (r *remote) audit() {
	r.t.Helper()
	r.stop()
	for i := range 2 {
		id := fmt.Sprintf("records.%d", i)
		f, err := os.Open(filepath.Join(r.top, "pool", volume.NameFor("records", i, false), "data", "records"))
		if err != nil {
			r.t.Error(err)
			continue
		}
		records, _, err := ledger.Read(f)
		f.Close()
		if err != nil {
			r.t.Errorf("the volume of %s: %v", id, err)
			continue
		}
		acks, err := os.Open(filepath.Join(r.top, "acks", "acks-"+id))
		if err != nil {
			r.t.Error(err)
			continue
		}
		n := 0
		for lines := bufio.NewScanner(acks); lines.Scan(); n++ {
			ack, err := ledger.Parse(lines.Text())
			if err != nil || ack.Sequence == 0 || ack.Sequence > uint64(len(records)) || records[ack.Sequence-1] != ack {
				r.t.Errorf("%s: the acknowledged record %q is not in the volume of %d records (%v)", id, lines.Text(), len(records), err)
				break
			}
		}
		acks.Close()
		r.t.Logf("%s: %d records acknowledged, all there", id, n)
	}
}

// announceMaster registers the engine in ZooKeeper as Mesos does, and gives the --master to find it by.
func announceMaster(t *testing.T, servers []string) func(*embedded.Master) string {
	return func(m *embedded.Master) string {
		t.Helper()
		conn, events, err := zk.Connect(servers, 10*time.Second, zk.WithLogInfo(false), zk.WithLogger(noLog{}))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for range events {
			}
		}()
		t.Cleanup(conn.Close)
		host, port, _ := strings.Cut(m.Addr(), ":")
		info := fmt.Sprintf(`{"address":{"hostname":"localhost","ip":%q,"port":%s},"hostname":"localhost","id":%q,"ip":16777343,"pid":"master@%s","port":%s,"version":"1.11.0"}`, host, port, m.ID(), m.Addr(), port)
		if _, err := conn.Create("/mesos", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Create("/mesos/json.info_", []byte(info), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll)); err != nil {
			t.Fatal(err)
		}
		return "zk://" + strings.Join(servers, ",") + "/mesos"
	}
}

type noLog struct{}

func (noLog) Printf(string, ...any) {}

// TestHeavyFailoverOnZooKeeper loses ZooKeeper's leader, which must cost nobody anything, and then a whole node, whose instances come back on the other
// once its lease has stood still for W.
func TestHeavyFailoverOnZooKeeper(t *testing.T) {
	heavy.Require(t, heavy.Root, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 3)
	servers := strings.Join(z.Servers(), ",")
	r := startRemote(t, "zk://"+servers+"/holdfast/test", 4*time.Second, announceMaster(t, z.Servers()))
	r.add()
	before := r.instances("both instances run", 30*time.Second, nil)
	r.progress()

	generations := r.generations()
	leader := z.Leader()
	z.Kill(leader)
	killed := time.Now()
	devtest.Await(t, "ZooKeeper leads again", 20*time.Second, func(context.Context) (bool, string, error) { return z.Leader() >= 0, "", nil })
	elected := time.Since(killed)
	time.Sleep(r.deadline + time.Second) // whoever did not renew has fenced by now
	now := r.generations()
	for _, n := range []string{"left", "right"} {
		if now[n] != generations[n] && elected < r.deadline/2 { // on a machine too busy to elect in time, a node rightly gives up
			t.Errorf("node %s is in lease generation %d, it was in %d: ZooKeeper had a leader again after %v, F is %v", n, now[n], generations[n], elected, r.deadline)
		}
	}
	for n, i := range r.instances("both still run", 30*time.Second, nil) {
		if i.Incarnation != before[n].Incarnation && elected < r.deadline/2 {
			t.Errorf("%s was started again", i.ID)
		}
	}
	before = r.instances("both run", 30*time.Second, nil)
	r.progress()
	var out, errOut strings.Builder
	check := append([]string{"lease", "check", "--authority", r.authority}, r.timings()...)
	if code := execute(t.Context(), append(check, "--lease-mount-limit", "500ms"), strings.NewReader(""), &out, &errOut); code != 0 || strings.Count(out.String(), "alive") != 2 || strings.Contains(out.String(), "NOT") {
		t.Errorf("lease check: exit %d\n%s%s", code, out.String(), errOut.String())
	}

	lost := before[0].Hostname
	acked := func(ordinal int) int {
		raw, _ := os.ReadFile(filepath.Join(r.top, "acks", fmt.Sprintf("acks-records.%d", ordinal)))
		return strings.Count(string(raw), "\n")
	}
	killed = time.Now()
	r.kill(lost)
	dead := acked(before[0].Ordinal)
	devtest.Await(t, "the first record on the other node", r.wait()+20*time.Second, func(context.Context) (bool, string, error) { return acked(before[0].Ordinal) > dead, "", nil })
	took := time.Since(killed)
	r.instances("both run on the other node", 40*time.Second, func(list []client.Instance) bool {
		return list[0].Hostname != lost && list[1].Hostname != lost
	})
	r.progress()
	t.Logf("ZooKeeper without a leader for %v; from the loss of the node to the first record on the other: %v, of which W is %v", elected, took, r.wait())
	if least := r.wait() - 2*time.Second; took < least {
		t.Errorf("the volume was taken over after %v: W is %v", took, r.wait())
	}
	r.outage(z)
	r.audit()
}

// outage is a ZooKeeper that is away for longer than F: the node that is left stops its writers by itself, and everything is there again afterwards.
func (r *remote) outage(z *servertest.ZooKeeper) {
	r.t.Helper()
	began := time.Now()
	for i := range 3 {
		z.Kill(i)
	}
	last, written := began, r.acked()
	for time.Since(last) < 1500*time.Millisecond {
		if n := r.acked(); n != written {
			last, written = time.Now(), n
		}
		if time.Since(began) > r.deadline+10*time.Second {
			r.t.Fatal("the node does not stop its writers")
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.t.Logf("ZooKeeper away: the last record was written %v after, F+S is %v", last.Sub(began), r.deadline+time.Second)
	if late := last.Sub(began); late > r.deadline+time.Second+200*time.Millisecond {
		r.t.Errorf("the node still wrote %v after the authority went away: F+S is %v", late, r.deadline+time.Second)
	}
	for i := range 3 {
		z.Start(i)
	}
	for i := range 3 {
		z.Await(i)
	}
	r.instances("both run again", 40*time.Second, nil)
	r.progress()
}

// TestHeavyConsulRestart: a Consul that is away for less than F costs nobody anything.
func TestHeavyConsulRestart(t *testing.T) {
	heavy.Require(t, heavy.Root, servertest.NeedConsul)
	c := servertest.StartConsul(t, "")
	r := startRemote(t, "consul://"+c.Addr()+"/holdfast/test", 10*time.Second, func(m *embedded.Master) string { return m.URL() })
	r.add()
	before := r.instances("both instances run", 30*time.Second, nil)
	r.progress()
	generations := r.generations()
	away := time.Now()
	c.Kill()
	r.progress() // tasks go on without it
	c.Start()
	took := time.Since(away)
	time.Sleep(3 * time.Second)
	now := r.generations()
	for _, n := range []string{"left", "right"} {
		if now[n] != generations[n] && took < r.deadline/2 {
			t.Errorf("node %s is in lease generation %d, it was in %d: Consul was away for %v, F is %v", n, now[n], generations[n], took, r.deadline)
		}
	}
	for n, i := range r.instances("both still run", 30*time.Second, nil) {
		if i.Incarnation != before[n].Incarnation && took < r.deadline/2 {
			t.Errorf("%s was started again", i.ID)
		}
	}
	r.progress()
	t.Logf("Consul was away for %v, F is %v", took, r.deadline)
	r.audit()
}

package catalog

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/consulconn"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// real is a Consul with a registrar that runs.
type real struct {
	*servertest.Consul
	client *api.Client
	dns    *net.Resolver
	core   *core
	*Registrar
	stop func()
}

func startReal(t testing.TB, more string, change ...func(*Config)) *real {
	t.Helper()
	x := &real{Consul: servertest.StartConsul(t, more), core: newCore()}
	client, err := consulconn.Open(consulconn.Config{Address: "http://" + x.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	x.client = client
	x.dns = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, x.DNS())
	}}
	x.run(t, change...)
	return x
}

// run starts a registrar (again).
func (x *real) run(t testing.TB, change ...func(*Config)) {
	t.Helper()
	if x.stop != nil {
		x.stop()
	}
	client, err := consulconn.Open(consulconn.Config{Address: "http://" + x.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	quick := func(c *Config) {
		c.Resync, c.CallLimit, c.RetryMin, c.RetryMax = 500*time.Millisecond, time.Second, 50*time.Millisecond, 500*time.Millisecond
	}
	x.Registrar = newRegistrar(t, x.core, client, append([]func(*Config){quick}, change...)...)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = x.Run(ctx) }()
	x.stop = func() { cancel(); <-ended }
	t.Cleanup(x.stop)
}

// names gives the addresses of a name, sorted; none for a name that is not there.
func (x *real) addresses(name string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	list, err := x.dns.LookupHost(ctx, name+".service.consul.")
	if err != nil {
		return nil
	}
	slices.Sort(list)
	return list
}

func (x *real) ports(name string) (out []int) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, list, err := x.dns.LookupSRV(ctx, "", "", name+".service.consul.")
	if err != nil {
		return nil
	}
	for _, s := range list {
		out = append(out, int(s.Port))
	}
	slices.Sort(out)
	return out
}

// eventually wants ok within the limit, and tells how long it took.
func eventually(t testing.TB, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// on makes a change that sets the host's address.
func on(address string) func(*state.Instance) {
	return func(i *state.Instance) { i.Run.AgentURL = "http://" + address + ":5051" }
}

func TestHeavyConsulDNS(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	x := startReal(t, "")
	foreign := &api.CatalogRegistration{Node: "theirs", Address: "192.0.2.200", Service: &api.AgentService{ID: "redis", Service: "redis", Port: 6379}}
	if _, err := x.client.Catalog().Register(foreign, nil); err != nil {
		t.Fatal(err)
	}
	c := x.core
	c.app("/prod/db", state.Spec{Ports: []state.Port{{Name: "sql"}, {Name: "http"}}, HealthChecks: []state.HealthCheck{{}}, Labels: map[string]string{"tags": "blue,v2"}})
	healthy, sick := true, false
	for n := range 3 {
		c.runs("/prod/db", n, fmt.Sprintf("h%d.example", n), on(fmt.Sprintf("10.0.0.%d", n)), func(i *state.Instance) { i.Run.Healthy = &healthy })
	}
	all := []string{"10.0.0.0", "10.0.0.1", "10.0.0.2"}
	took := eventually(t, "all are found", 10*time.Second, func() bool { return slices.Equal(x.addresses("prod-db"), all) })
	t.Logf("first registration: %v", took)
	if got := x.ports("instance-1.prod-db"); !slices.Equal(got, []int{31002}) {
		t.Errorf("SRV of instance 1: %v", got)
	}
	if got := x.ports("instance-1.prod-db-http"); !slices.Equal(got, []int{31003}) {
		t.Errorf("SRV of its second port: %v", got)
	}
	if got := x.addresses("blue.prod-db"); !slices.Equal(got, all) {
		t.Errorf("by tag: %v", got)
	}
	c.runs("/prod/db", 0, "h0.example", on("10.0.0.0"), func(i *state.Instance) { i.Run.Healthy = &sick })
	t.Logf("a sick one is out after %v", eventually(t, "the sick one is out", 5*time.Second, func() bool { return slices.Equal(x.addresses("prod-db"), all[1:]) }))
	c.runs("/prod/db", 1, "new.example", on("10.0.0.9"), func(i *state.Instance) { i.Run.Healthy = &healthy })
	t.Logf("a move is seen after %v", eventually(t, "it moved", 5*time.Second, func() bool { return slices.Equal(x.addresses("instance-1.prod-db"), []string{"10.0.0.9"}) }))
	c.set(state.KindAgent, "agent-h2.example", &state.Agent{ID: "agent-h2.example", LostAt: time.Now()})
	c.set(state.KindApp, "/prod/db", &state.App{ID: "/prod/db", Version: "v1", Rev: 2})
	t.Logf("a lost host is out after %v", eventually(t, "the lost one is out", 5*time.Second, func() bool { return x.addresses("instance-2.prod-db") == nil }))
	eventually(t, "the empty node is removed", 5*time.Second, func() bool {
		n, _, err := x.client.Catalog().Node("holdfast-0a1b2c3d-h2-example", nil)
		return err == nil && n == nil
	})
	// Whatever labels hold, Consul takes it and gives it back as it was.
	long := strings.Repeat("ü", 300)
	c.app(state.AppID("/Größe/"+strings.Repeat("long-", 60)), state.Spec{Ports: []state.Port{{Name: "a_b"}, {Name: strings.Repeat("p", 70), Protocol: "udp"}},
		Labels: map[string]string{"tags": "with space, ünï,\x00nul,<&>,\"quoted\"," + long, "SERVICE_TEXT": "<ü&\x01>", "SERVICE_LONG": long, "SERVICE_A.B": "x", "SERVICE_CONSUL-X": "x", "": "tag"}})
	c.runs(state.AppID("/Größe/"+strings.Repeat("long-", 60)), 0, "h1.example")
	x.same(t)
	if s := x.Status(); s.State != StateSynced || s.RefusedCount != 0 {
		t.Errorf("%+v", s)
	}
	x.stop()
	next := newRegistrar(t, c, x.client)
	turn(t, next)
	if s := next.Status(); s.Calls != uint64(2+s.Nodes) {
		t.Errorf("a process that finds everything as it should writes: %+v", s)
	}
	if got := x.addresses("redis"); !slices.Equal(got, []string{"192.0.2.200"}) {
		t.Errorf("a foreign service: %v", got)
	}
}

// same wants Consul to be exactly as the state is, as soon as the registrar says so.
func (x *real) same(t testing.TB) {
	t.Helper()
	eventually(t, "Consul is as the state is", 30*time.Second, func() bool {
		var want *Wanted
		x.core.View(func(s *state.State) { want = Desired(s, cluster) })
		there, err := x.consul.read(t.Context())
		if err != nil || len(there.Services) != len(want.Services) {
			return false
		}
		for k, s := range want.Services {
			if e := there.Services[k]; e == nil || e.Odd || !s.equal(&e.Service) {
				return false
			}
		}
		return true
	})
}

// TestHeavyConsulRepairs edits by hand, kills, restarts and pauses Consul.
func TestHeavyConsulRepairs(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	x := startReal(t, "")
	c := x.core
	c.app("/db", state.Spec{Ports: []state.Port{{}}})
	for n := range 5 {
		c.runs("/db", n, fmt.Sprintf("h%d", n))
	}
	x.same(t)
	theirs := &api.CatalogRegistration{Node: "holdfast-0a1b2c3d-h0", Address: "10.0.0.9", SkipNodeUpdate: true, Service: &api.AgentService{ID: "by-hand", Service: "by-hand", Port: 1}}
	cat := x.client.Catalog()
	key := Key{"holdfast-0a1b2c3d-h3", "holdfast-0a1b2c3d-db.3"}
	for name, edit := range map[string]func() error{
		"service removed": func() error {
			_, err := cat.Deregister(&api.CatalogDeregistration{Node: key.Node, ServiceID: key.ID}, nil)
			return err
		},
		"node removed": func() error { _, err := cat.Deregister(&api.CatalogDeregistration{Node: key.Node}, nil); return err },
		"port changed": func() error {
			_, err := cat.Register(&api.CatalogRegistration{Node: key.Node, Address: "10.0.0.9", SkipNodeUpdate: true, Service: &api.AgentService{ID: key.ID, Service: "db", Port: 1}}, nil)
			return err
		},
		"node renumbered and its mark removed": func() error {
			_, err := cat.Register(&api.CatalogRegistration{Node: key.Node, Address: "203.0.113.1"}, nil)
			return err
		},
	} {
		if err := edit(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		x.same(t)
		n, _, err := cat.Node(key.Node, nil)
		if err != nil || n == nil || n.Node.Address != "10.0.0.9" || n.Node.Meta[metaCluster] != cluster {
			t.Errorf("%s: the node is %+v, %v", name, n, err)
		}
	}
	if _, err := cat.Register(theirs, nil); err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name      string
		down, up  func()
		whileDown bool
	}{{"killed", x.Kill, x.Start, true}, {"paused", x.Pause, x.Continue, true}} {
		end.down()
		c.gone("/db", 0)
		c.runs("/db", 1, "h7")
		await(t, x.Registrar, end.name+": it says so", func(s Status) bool { return s.State == StateFailing })
		t.Logf("%s: %s", end.name, x.Status().Error)
		c.runs("/db", 0, "h8")
		c.gone("/db", 2)
		end.up()
		took := eventually(t, end.name+": repaired", 20*time.Second, func() bool { return x.Status().State == StateSynced })
		t.Logf("%s: repaired %v after its return", end.name, took)
		before, _, err := cat.NodeServiceList("holdfast-0a1b2c3d-h0", nil)
		if err != nil || before == nil || len(before.Services) != 1 || before.Services[0].ID != "by-hand" {
			t.Errorf("%s: somebody's service on our node: %+v, %v", end.name, before, err)
		}
		if _, err := cat.Deregister(&api.CatalogDeregistration{Node: theirs.Node, ServiceID: theirs.Service.ID}, nil); err != nil {
			t.Fatal(err)
		}
		x.same(t)
		if _, err := cat.Register(&api.CatalogRegistration{Node: theirs.Node, Address: theirs.Address, Service: theirs.Service,
			NodeMeta: map[string]string{metaCluster: cluster}}, nil); err != nil {
			t.Fatal(err)
		}
		c.gone("/db", 0)
		c.runs("/db", 2, "h2")
	}
}

// TestHeavyConsulRights runs with ACLs on: a token without rights, one with all that docs/consul.md asks for, and one that may not
// write one of the services.
func TestHeavyConsulRights(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	const master = "00000000-0000-4000-8000-00000000aaaa"
	server := servertest.StartConsul(t, `{"acl":{"enabled":true,"default_policy":"deny","tokens":{"initial_management":"`+master+`"}}}`)
	admin, err := api.NewClient(&api.Config{Address: server.Addr(), Token: master})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "token")
	token := func(name, rules string) {
		t.Helper()
		eventually(t, "the ACL system is up", 20*time.Second, func() bool {
			_, _, err = admin.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
			return err == nil || !strings.Contains(err.Error(), "ACL system must be bootstrapped") && !strings.Contains(err.Error(), "leader")
		})
		if err != nil {
			t.Fatal(err)
		}
		made, _, err := admin.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(made.SecretID+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token("nothing", `key "x" { policy = "read" }`)
	client, err := consulconn.Open(consulconn.Config{Address: server.Addr(), TokenFile: file})
	if err != nil {
		t.Fatal(err)
	}
	c := newCore()
	for _, app := range []state.AppID{"/good", "/bad"} {
		c.app(app, state.Spec{})
		c.runs(app, 0, "h")
	}
	r := newRegistrar(t, c, client, func(c *Config) { c.Resync, c.RetryMax = 300*time.Millisecond, 300*time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	await(t, r, "without rights it says so", func(s Status) bool {
		return (s.State == StateFailing || s.State == StatePartial && s.Services == 0) && s.Class == fault.Denied
	})
	t.Logf("without rights: %+v", r.Status())
	token("one-missing", `node_prefix "holdfast-" { policy = "write" } service_prefix "" { policy = "write" } service "bad" { policy = "read" }`)
	await(t, r, "one is refused, the other is there", func(s Status) bool { return s.State == StatePartial && s.Services == 1 && s.RefusedCount == 1 })
	t.Logf("one is refused: %s", r.Status().Error)
	token("all", `node_prefix "holdfast-" { policy = "write" } service_prefix "" { policy = "write" }`)
	await(t, r, "all is there", func(s Status) bool { return s.State == StateSynced && s.Services == 2 })
	// An app wants a primary: without rights for locks its services are there all the same, without the tag.
	c.primary("/good", c.runs("/good", 0, "h"), 7)
	await(t, r, "the tag waits for rights", func(s Status) bool {
		return s.State == StatePartial && s.Services == 2 && len(s.Refused) == 1 && strings.Contains(s.Refused[0].Error, "lock of the primary")
	})
	t.Logf("without rights for locks: %s", r.Status().Error)
	token("locks", `node_prefix "holdfast-" { policy = "write" } service_prefix "" { policy = "write" } session_prefix "" { policy = "write" } key_prefix "holdfast/" { policy = "write" }`)
	await(t, r, "the tag is given", func(s Status) bool { return s.State == StateSynced })
	token("blind", `key "x" { policy = "write" }`)
	await(t, r, "a token that may not see our entries does not make them gone", func(s Status) bool { return s.State == StateFailing && s.Class == fault.Denied })
	t.Logf("blind: %s", r.Status().Error)
	// A token that is taken away.
	if err := os.WriteFile(file, []byte("00000000-0000-4000-8000-00000000bbbb"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, r, "a token that is not known is told of", func(s Status) bool { return s.State == StateFailing && strings.Contains(s.Error, "403") })
	t.Logf("an unknown token: %s", r.Status().Error)
}

// TestHeavyConsulNoSuchDatacenter asks for a datacenter that does not exist.
func TestHeavyConsulNoSuchDatacenter(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	server := servertest.StartConsul(t, "")
	client, err := consulconn.Open(consulconn.Config{Address: server.Addr(), Datacenter: "mars"})
	if err != nil {
		t.Fatal(err)
	}
	c := newCore()
	c.app("/db", state.Spec{})
	c.runs("/db", 0, "h")
	err = newRegistrar(t, c, client, func(c *Config) { c.Datacenter = "mars" }).turn(t.Context())
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), `no datacenter "mars"`) {
		t.Error(err)
	}
}

// TestHeavyConsulThousand registers 1,000 services of 1,000 apps, changes one, and removes a host.
func TestHeavyConsulThousand(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	x := startReal(t, "", func(c *Config) { c.Resync = time.Minute })
	c := x.core
	c.mu.Lock()
	c.standby = true
	c.mu.Unlock()
	for n := range 1000 {
		app := state.AppID(fmt.Sprintf("/team%d/app-%d", n%10, n))
		c.app(app, state.Spec{Ports: []state.Port{{}}})
		c.runs(app, 0, fmt.Sprintf("h%d", n%20))
	}
	calls := x.Status().Calls
	c.mu.Lock()
	c.standby = false
	c.mu.Unlock()
	began := time.Now()
	await(t, x.Registrar, "all are there", func(s Status) bool { return s.Services == 1000 && s.State == StateSynced })
	t.Logf("1,000 services from nothing: %v, %d calls", time.Since(began), x.Status().Calls-calls)
	x.same(t)
	eventually(t, "it rests", 10*time.Second, func() bool {
		before := x.Status().Calls
		time.Sleep(200 * time.Millisecond)
		return x.Status().Calls == before
	})
	calls = x.Status().Calls
	c.runs("/team7/app-7", 0, "h3", on("10.9.9.9"))
	took := eventually(t, "the change is seen", 5*time.Second, func() bool { return slices.Equal(x.addresses("team7-app-7"), []string{"10.9.9.9"}) })
	t.Logf("one change: %v, %d calls", took, x.Status().Calls-calls)
	if n := x.Status().Calls - calls; n > 2 {
		t.Errorf("%d calls", n)
	}
	// Another process takes over: all is as it is.
	list := func() map[string][]string {
		all, _, err := x.client.Catalog().Services(nil)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := list()
	x.run(t)
	await(t, x.Registrar, "the next process is in", func(s Status) bool { return s.State == StateSynced })
	if !reflect.DeepEqual(before, list()) {
		t.Error("services have changed")
	}
	x.same(t)
}

// BenchmarkConsul measures full synchronisation from nothing and one change, with real Consul: HOLDFAST_HEAVY=1 go test -bench Consul.
func BenchmarkConsul(b *testing.B) {
	heavy.Require(b, servertest.NeedConsul)
	for _, size := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("nothing-%d", size), func(b *testing.B) {
			server := servertest.StartConsul(b, "")
			for b.Loop() {
				b.StopTimer()
				client, err := consulconn.Open(consulconn.Config{Address: server.Addr()})
				if err != nil {
					b.Fatal(err)
				}
				empty := newCore()
				clean := newRegistrar(b, empty, client, func(c *Config) { c.Probation, c.CallLimit = time.Nanosecond, time.Minute })
				turn(b, clean)
				clean.readAt = time.Time{}
				turn(b, clean) // the nodes, too
				r := newRegistrar(b, many(size), client)
				b.StartTimer()
				turn(b, r)
				b.ReportMetric(float64(r.Status().Calls), "calls")
			}
		})
		b.Run(fmt.Sprintf("one-of-%d", size), func(b *testing.B) {
			server := servertest.StartConsul(b, "")
			client, err := consulconn.Open(consulconn.Config{Address: server.Addr()})
			if err != nil {
				b.Fatal(err)
			}
			c := many(size)
			r := newRegistrar(b, c, client)
			turn(b, r)
			before := r.Status().Calls
			n := 0
			for b.Loop() {
				n++
				c.runs("/app0", 0, fmt.Sprintf("h%d", n%2))
				turn(b, r)
			}
			b.ReportMetric(float64(r.Status().Calls-before)/float64(n), "calls/op")
		})
		b.Run(fmt.Sprintf("resync-%d", size), func(b *testing.B) {
			server := servertest.StartConsul(b, "")
			client, err := consulconn.Open(consulconn.Config{Address: server.Addr()})
			if err != nil {
				b.Fatal(err)
			}
			r := newRegistrar(b, many(size), client)
			turn(b, r)
			before, n := r.Status().Calls, 0
			for b.Loop() {
				n++
				r.readAt = time.Time{}
				turn(b, r)
			}
			b.ReportMetric(float64(r.Status().Calls-before)/float64(n), "calls/op")
		})
	}
}

// many is size instances of size/10 apps on 100 hosts.
func many(size int) *core {
	c := newCore()
	for n := range size / 10 {
		app := state.AppID(fmt.Sprintf("/app%d", n))
		c.app(app, state.Spec{Ports: []state.Port{{Name: "http"}}})
		for k := range 10 {
			c.runs(app, k, fmt.Sprintf("h%d", (n+k)%100))
		}
	}
	return c
}

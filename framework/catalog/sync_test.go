package catalog

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func TestDiff(t *testing.T) {
	const node = "holdfast-0a1b2c3d-h"
	svc := func(id, node string, meta ...string) *Service {
		s := &Service{Key: Key{node, "holdfast-0a1b2c3d-" + id}, Name: "x", Address: "1.2.3.4", Status: "passing", Meta: map[string]string{metaCluster: cluster}}
		if len(meta) > 0 {
			s.Meta[metaCluster] = meta[0]
		}
		return s
	}
	entry := func(s *Service) *Entry { return &Entry{Service: *s} }
	foreignID := entry(svc("x", node))
	foreignID.ID = "somebody-elses"
	for _, c := range []struct {
		name  string
		want  []*Service
		there []*Entry
		keep  bool
		plan  string
		taken int
		kept  int
	}{
		{name: "nothing"},
		{name: "new", want: []*Service{svc("a", node)}, plan: "+a@h"},
		{name: "there", want: []*Service{svc("a", node)}, there: []*Entry{entry(svc("a", node))}},
		{name: "changed by hand", want: []*Service{svc("a", node)}, there: []*Entry{{Service: Service{Key: svc("a", node).Key, Name: "y", Meta: map[string]string{metaCluster: cluster}}}}, plan: "+a@h"},
		{name: "odd", want: []*Service{svc("a", node)}, there: []*Entry{{Service: *svc("a", node), Odd: true}}, plan: "+a@h"},
		{name: "its mark removed by hand", want: []*Service{svc("a", node)}, there: []*Entry{{Service: Service{Key: svc("a", node).Key}}}, plan: "+a@h"},
		{name: "gone", there: []*Entry{entry(svc("a", node))}, plan: "-a@h"},
		{name: "gone, but not yet", there: []*Entry{entry(svc("a", node))}, keep: true, kept: 1},
		{name: "another cluster's", there: []*Entry{entry(svc("a", node, "other"))}},
		{name: "another cluster's in the way", want: []*Service{svc("a", node)}, there: []*Entry{entry(svc("a", node, "other"))}, taken: 1},
		{name: "foreign id with our mark", there: []*Entry{foreignID}},
		{name: "our id without a mark", there: []*Entry{{Service: Service{Key: svc("a", node).Key}}}},
		{name: "a move stays together and comes first", want: []*Service{svc("a", node), svc("b", "holdfast-0a1b2c3d-g")}, there: []*Entry{entry(svc("b", node))}, plan: "-b@h +b@g +a@h"},
	} {
		want := &Wanted{Cluster: cluster, Services: map[Key]*Service{}}
		for _, s := range c.want {
			want.Services[s.Key] = s
		}
		there := &Observed{Services: map[Key]*Entry{}}
		for _, e := range c.there {
			there.Services[e.Key] = e
		}
		d := diff(want, there, func(*Entry) bool { return !c.keep })
		var plan []string
		for _, ch := range d.Changes {
			sign := "-"
			if ch.Put != nil {
				sign = "+"
			}
			plan = append(plan, sign+ch.ID[len("holdfast-0a1b2c3d-"):]+"@"+ch.Node[len("holdfast-0a1b2c3d-"):])
		}
		if got := strings.Join(plan, " "); got != c.plan || len(d.Taken) != c.taken || len(d.Kept) != c.kept {
			t.Errorf("%s: %q, taken %v, kept %v", c.name, got, d.Taken, d.Kept)
		}
	}
}

// check wants Consul to be as the state is.
func check(t *testing.T, c *core, f *fake) {
	t.Helper()
	want := Desired(c.s, cluster)
	for k, s := range want.Services {
		if got, ok := f.service(k); !ok || !s.equal(got) {
			t.Errorf("%v: wanted %+v, it is %+v", k, s, got)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, s := range f.svcs {
		if want.Services[k] == nil && f.nodes[k.Node].Meta[metaCluster] == cluster && s.Meta[metaCluster] == cluster && strings.HasPrefix(s.ID, prefix(cluster)) {
			t.Errorf("%v is there", k)
		}
	}
	for name := range want.Nodes {
		if f.nodes[name].Meta[metaCluster] != cluster {
			t.Errorf("node %s: %+v", name, f.nodes[name])
		}
	}
}

func turn(t testing.TB, r *Registrar) {
	t.Helper()
	if err := r.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestChangesCostOneCall(t *testing.T) {
	c := newCore()
	c.app("/db", state.Spec{Ports: []state.Port{{Name: "sql"}, {Name: "http"}}})
	f, client := newFake(t)
	r := newRegistrar(t, c, client)
	for n := range 1000 {
		c.runs("/db", n, fmt.Sprintf("h%d", n%10))
	}
	first := f.took(func() { turn(t, r) })
	t.Logf("%d calls for %d services, at most %d operations in one", first, len(f.svcs), f.most)
	if f.most > maxOps || first > 160 || len(f.svcs) != 3000 {
		t.Errorf("%d services", len(f.svcs))
	}
	check(t, c, f)
	no := false
	for _, step := range []struct {
		name  string
		do    func()
		calls int
	}{
		{"nothing", func() {}, 0},
		{"health", func() { c.runs("/db", 7, "h7", func(i *state.Instance) { i.Run.Healthy = &no }) }, 1},
		{"a move", func() { c.runs("/db", 7, "h8") }, 1},
		{"a move to a new host", func() { c.runs("/db", 7, "new") }, 1},
		{"an end", func() { c.gone("/db", 7) }, 1},
		{"a lost host of 100 instances", func() { c.set(state.KindAgent, "agent-h3", &state.Agent{ID: "agent-h3", LostAt: time.Now()}) }, 5},
	} {
		if got := f.took(func() { step.do(); turn(t, r) }); got > step.calls {
			t.Errorf("%s: %d calls", step.name, got)
		}
		check(t, c, f)
	}
}

// TestNodeRemovedByHand removes a node entry with all that is on it, which the next change finds out.
func TestNodeRemovedByHand(t *testing.T) {
	c := newCore()
	c.app("/db", state.Spec{})
	f, client := newFake(t)
	r := newRegistrar(t, c, client)
	c.runs("/db", 0, "h")
	turn(t, r)
	clear(f.nodes)
	clear(f.svcs)
	clear(f.checks)
	c.runs("/db", 1, "h")
	turn(t, r)
	check(t, c, f)
}

// TestRefusedRemovalHoldsUpNobody has an entry that the token may no longer remove.
func TestRefusedRemovalHoldsUpNobody(t *testing.T) {
	c := newCore()
	f, client := newFake(t)
	r := newRegistrar(t, c, client)
	for _, id := range []state.AppID{"/bad", "/good"} {
		c.app(id, state.Spec{})
		c.runs(id, 0, "h")
	}
	turn(t, r)
	f.refuse = func(op *api.TxnOp) string {
		if op.Service != nil && op.Service.Service.Service == "bad" {
			return "Permission denied"
		}
		return ""
	}
	c.gone("/bad", 0)
	c.runs("/good", 0, "h2")
	turn(t, r)
	if s := r.Status(); s.State != StatePartial || s.RefusedCount != 1 || s.Services != 1 || s.Refused[0].Service != "bad" || len(f.svcs) != 2 {
		t.Errorf("%+v", s)
	}
	if n := f.took(func() { turn(t, r) }); n != 0 {
		t.Errorf("%d calls though nothing is new", n)
	}
	c.runs("/bad", 0, "h") // it is wanted again
	f.refuse = nil
	turn(t, r)
	check(t, c, f)
}

func TestStandbyTouchesNothing(t *testing.T) {
	c := newCore()
	c.standby = true
	f, client := newFake(t)
	r := newRegistrar(t, c, client)
	if n := f.took(func() { turn(t, r) }); n != 0 || r.Status().State != StateStandby {
		t.Errorf("%d calls, %+v", n, r.Status())
	}
}

// TestProbation starts with an empty state on a full catalog, as after a store that was lost: nothing is removed for a while.
func TestProbation(t *testing.T) {
	c := newCore()
	c.app("/db", state.Spec{})
	f, client := newFake(t)
	c.runs("/db", 0, "h")
	c.runs("/db", 1, "h")
	turn(t, newRegistrar(t, c, client))
	c.gone("/db", 0)
	c.runs("/db", 1, "h", func(i *state.Instance) { i.Phase = state.PhaseWaiting })
	r := newRegistrar(t, c, client)
	turn(t, r)
	if len(f.svcs) != 1 {
		t.Errorf("at first %v should be there: the one that is not known", f.svcs)
	}
	r.since = r.since.Add(-time.Hour)
	turn(t, r)
	check(t, c, f)
	r.readAt = time.Time{}
	turn(t, r)
	if len(f.nodes) != 0 {
		t.Errorf("the empty node is there: %v", f.nodes)
	}
}

// TestModel makes random changes to the state and to Consul and wants that it converges, and that nothing foreign is touched.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	ids := []state.AppID{"/a/b", "/a-b", "/a/b/c", "/a-b/c", "/x", "/X"}
	for round := range 30 {
		c := newCore()
		f, client := newFake(t)
		r := newRegistrar(t, c, client, func(c *Config) { c.Probation = time.Nanosecond })
		foreign := plantForeign(f, rng)
		for step := range 30 {
			for range 1 + rng.IntN(5) {
				mutate(c, rng, ids)
			}
			if rng.IntN(4) == 0 {
				vandalize(f, rng)
				r.readAt = time.Time{} // the next full reading is due
			}
			if rng.IntN(6) == 0 { // a call whose answer is lost
				lose(f, rng)
				if r.turn(t.Context()) != nil {
					r.forget()
				}
				f.breaks(nil)
			}
			if rng.IntN(8) == 0 { // another process takes over
				r = newRegistrar(t, c, client, func(c *Config) { c.Probation = time.Nanosecond })
			}
			turn(t, r)
			turn(t, r)
			check(t, c, f)
			for k, s := range foreign {
				if !reflect.DeepEqual(f.svcs[k], s) {
					t.Errorf("foreign %v was %+v, is %+v", k, s, f.svcs[k])
				}
			}
			var m material
			c.View(func(s *state.State) { m = r.build.collect(s) })
			if cached, fresh := r.build.render(m), Desired(c.s, cluster); !reflect.DeepEqual(cached, fresh) {
				t.Errorf("what is kept differs from what is made anew: %v, %v", cached.Services, fresh.Services)
			}
			if t.Failed() {
				t.Fatalf("seed %d, round %d, step %d", seed, round, step)
			}
		}
	}
}

// plantForeign puts entries of others into Consul, some of which look much like ours.
func plantForeign(f *fake, rng *rand.Rand) map[Key]api.AgentService {
	out := map[Key]api.AgentService{}
	add := func(node, id string, nodeMeta, meta map[string]string) {
		f.nodes[node] = api.Node{Node: node, Address: "192.0.2.1", Meta: nodeMeta, ModifyIndex: 1}
		s := api.AgentService{ID: id, Service: "theirs", Meta: meta, Port: rng.IntN(1000)}
		f.svcs[Key{node, id}] = s
		out[Key{node, id}] = s
	}
	ours := map[string]string{metaCluster: cluster}
	add("h1", "redis", nil, nil)
	add("h1", "holdfast-0a1b2c3d-a_b.0", nil, ours)
	add("holdfast-ffffffff-h1", "holdfast-ffffffff-x.0", map[string]string{metaCluster: "ffffffff"}, map[string]string{metaCluster: "ffffffff"})
	add("holdfast-0a1b2c3d-h0", "by-hand", ours, nil)
	add("holdfast-0a1b2c3d-h9", "holdfast-0a1b2c3d-other", ours, map[string]string{metaCluster: "other"})
	return out
}

func mutate(c *core, rng *rand.Rand, ids []state.AppID) {
	app, n, host := ids[rng.IntN(len(ids))], rng.IntN(3), fmt.Sprintf("h%d", rng.IntN(4))
	switch rng.IntN(8) {
	case 0:
		labels := map[string]string{}
		if rng.IntN(2) == 0 {
			labels["consul"] = []string{"false", "true", "a-b", "Shared_Name"}[rng.IntN(4)]
		}
		c.app(app, state.Spec{Labels: labels, Ports: make([]state.Port, rng.IntN(3))})
	case 1:
		c.gone(app, n)
	case 2:
		agent := state.AgentID("agent-" + host)
		a := &state.Agent{ID: agent}
		if rng.IntN(3) == 0 {
			a.LostAt = time.Now()
		}
		c.set(state.KindAgent, string(agent), a)
	case 3:
		c.runs(app, n, host, func(i *state.Instance) { i.Phase = state.PhaseKilling })
	default:
		if c.s.Apps[app] != nil {
			healthy := rng.IntN(2) == 0
			c.runs(app, n, host, func(i *state.Instance) { i.Run.Healthy = &healthy })
		}
	}
}

// vandalize edits our entries by hand.
func vandalize(f *fake, rng *rand.Rand) {
	for k, s := range f.svcs {
		if s.Meta[metaCluster] != cluster || !strings.HasPrefix(k.Node, prefix(cluster)) || !strings.HasPrefix(k.ID, prefix(cluster)) {
			continue
		}
		switch rng.IntN(6) {
		case 0:
			delete(f.svcs, k)
		case 1:
			s.Port++
			f.svcs[k] = s
		case 2:
			s.Tags = append(slices.Clone(s.Tags), "extra")
			f.svcs[k] = s
		case 3:
			delete(f.checks, Key{k.Node, checkID(k.ID)})
		case 4:
			s.Meta = maps.Clone(s.Meta)
			delete(s.Meta, metaTask)
			f.svcs[k] = s
		}
	}
	for name, n := range f.nodes {
		if n.Meta[metaCluster] == cluster && rng.IntN(3) == 0 && name != "holdfast-0a1b2c3d-h0" {
			if rng.IntN(2) == 0 {
				n.Address = "203.0.113.1"
			} else if strings.HasPrefix(name, prefix(cluster)) && !busy(f, name) {
				n.Meta = nil // its mark is gone
			}
			f.nodes[name] = n
		}
	}
}

func busy(f *fake, node string) bool {
	for k := range f.svcs {
		if k.Node == node {
			return true
		}
	}
	return false
}

// lose does a call and loses the answer, or refuses it.
func lose(f *fake, rng *rand.Rand) {
	var n atomic.Int32
	n.Store(rng.Int32N(3))
	lost := rng.IntN(2) == 0
	f.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		if n.Add(-1) >= 0 {
			return false
		}
		if lost && r.URL.Path == "/v1/txn" {
			f.mu.Lock()
			f.txn(&nowhere{}, r)
			f.mu.Unlock()
		}
		http.Error(w, "rpc error", http.StatusInternalServerError)
		return true
	})
}

type nowhere struct{}

func (*nowhere) Header() http.Header         { return http.Header{} }
func (*nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (*nowhere) WriteHeader(int)             {}

// TestConsulInTrouble wants clear words for each kind of trouble, one line in the log for it, and an end of it.
func TestConsulInTrouble(t *testing.T) {
	status := func(code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool { http.Error(w, body, code); return true }
	}
	for _, c := range []struct {
		name   string
		broken func(http.ResponseWriter, *http.Request) bool
		class  fault.Class
		want   string
	}{
		{"403", status(403, "ACL not found"), fault.Denied, "refuses the token"},
		{"429", status(429, "Your IP is issuing too many requests"), fault.Unavailable, "slow down"},
		{"500", status(500, "No cluster leader"), fault.Unavailable, "No cluster leader"},
		{"datacenter", status(500, "No path to datacenter"), fault.Invalid, `no datacenter "mars"`},
		{"namespace", status(400, "Invalid query parameter: \"ns\""), fault.Invalid, "ns"},
		{"never", func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, fault.Unavailable, "no answer"},
		{"nonsense", func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte("<html>")); return true }, fault.Unavailable, ""},
		{"thinned out", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("X-Consul-LastContact", "0") // without it the client reads no other header
			w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
			_, _ = w.Write([]byte("[]"))
			return true
		}, fault.Denied, "may not read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCore()
			k.app("/db", state.Spec{})
			k.runs("/db", 0, "h")
			f, client := newFake(t)
			f.broken = c.broken
			logs, seen := observer.New(zap.InfoLevel)
			r := newRegistrar(t, k, client, func(c *Config) {
				c.Datacenter, c.CallLimit, c.RetryMin, c.RetryMax, c.Log = "mars", 50*time.Millisecond, time.Millisecond, 10*time.Millisecond, zap.New(logs)
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); _ = r.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			await(t, r, "it fails again and again", func(s Status) bool { return s.Failures >= 3 })
			s := r.Status()
			if s.State != StateFailing || s.Class != c.class || !strings.Contains(s.Error, c.want) {
				t.Errorf("%+v", s)
			}
			if n := seen.Len(); n != 1 {
				t.Errorf("%d lines in the log: %v", n, seen.All())
			}
			f.breaks(nil)
			await(t, r, "it works again", func(s Status) bool { return s.State == StateSynced && s.Error == "" && s.Services == 1 })
			check(t, k, f)
			if n := seen.Len(); n != 2 {
				t.Errorf("%d lines in the log: %v", n, seen.All())
			}
		})
	}
}

func await(t testing.TB, r *Registrar, what string, done func(Status) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(r.Status()); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s: %+v", what, r.Status())
		}
	}
}

// TestRefusedServiceHoldsUpNobody has one app that the token may not register, and a node entry that is somebody else's.
func TestRefusedServiceHoldsUpNobody(t *testing.T) {
	c := newCore()
	for _, id := range []state.AppID{"/good", "/bad", "/other"} {
		c.app(id, state.Spec{})
	}
	for n := range 50 {
		c.runs("/good", n, "h1")
	}
	c.runs("/bad", 0, "h1")
	c.runs("/other", 0, "taken")
	c.runs("/other", 1, "lost-mark")
	f, client := newFake(t)
	f.nodes["holdfast-0a1b2c3d-taken"] = api.Node{Node: "holdfast-0a1b2c3d-taken", Address: "x", Meta: map[string]string{metaCluster: "other"}}
	f.nodes["holdfast-0a1b2c3d-lost-mark"] = api.Node{Node: "holdfast-0a1b2c3d-lost-mark", Address: "x"}
	f.refuse = func(op *api.TxnOp) string {
		if op.Service != nil && op.Service.Service.Service == "bad" {
			return "Permission denied: lacks permission 'service:write' on \"bad\""
		}
		return ""
	}
	r := newRegistrar(t, c, client)
	turn(t, r)
	s := r.Status()
	if s.State != StatePartial || s.RefusedCount != 2 || s.Services != 51 || !strings.Contains(s.Error, "service:write") {
		t.Errorf("%+v", s)
	}
	if n := len(f.svcs); n != 51 || f.nodes["holdfast-0a1b2c3d-taken"].Address != "x" || f.nodes["holdfast-0a1b2c3d-lost-mark"].Meta[metaCluster] != cluster {
		t.Errorf("%d services, nodes %v", n, f.nodes)
	}
	if n := f.took(func() { turn(t, r) }); n != 0 {
		t.Errorf("%d calls though nothing is new", n)
	}
	f.refuse = nil
	r.readAt = time.Time{}
	turn(t, r)
	if s := r.Status(); s.RefusedCount != 1 || s.Services != 52 {
		t.Errorf("%+v", s)
	}
}

// BenchmarkDesired measures one change among 10,000 instances, without Consul.
func BenchmarkDesired(b *testing.B) {
	c := newCore()
	for n := range 1000 {
		app := state.AppID(fmt.Sprintf("/app%d", n))
		c.app(app, state.Spec{Ports: []state.Port{{Name: "http"}}})
		for k := range 10 {
			c.runs(app, k, fmt.Sprintf("h%d", (n+k)%100))
		}
	}
	builder := newBuilder(cluster)
	there := &Observed{Nodes: map[string]*Node{}, Services: map[Key]*Entry{}}
	for n := 0; b.Loop(); n++ {
		c.runs("/app7", 3, fmt.Sprintf("h%d", n%2))
		want := builder.render(builder.collect(c.s))
		for _, ch := range diff(want, there, func(*Entry) bool { return true }).Changes {
			if ch.Put == nil {
				delete(there.Services, ch.Key)
			} else {
				there.Services[ch.Key] = &Entry{Service: *ch.Put, wrote: ch.Put}
			}
		}
	}
}

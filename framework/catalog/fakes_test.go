package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/internal/consulconn"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

const cluster = "0a1b2c3d-0000-4000-8000-000000000001"

// core is a framework whose state tests change as they like.
type core struct {
	mu      sync.RWMutex
	s       *state.State
	standby bool
	subs    []chan framework.Notice
}

func newCore() *core { return &core{s: state.New()} }

func (c *core) View(f func(*state.State)) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	f(c.s)
}

func (c *core) Info() framework.Info {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return framework.Info{Elected: !c.standby}
}

func (c *core) Events(ctx context.Context) <-chan framework.Notice {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan framework.Notice, 1024)
	c.subs = append(c.subs, ch)
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.subs = nil
		close(ch)
	})
	return ch
}

// set replaces or removes a value and tells of it.
func (c *core) set(kind state.Kind, id string, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Apply([]state.Write{{Kind: kind, ID: id, Value: value}})
	for _, ch := range c.subs {
		select {
		case ch <- framework.Notice{Type: string(kind), ID: id}:
		default:
		}
	}
}

// app adds an app of one version, "v1".
func (c *core) app(id state.AppID, spec state.Spec) {
	c.set(state.KindDef, state.DefID(id, "v1"), &state.Def{App: id, Version: "v1", Spec: spec})
	c.set(state.KindApp, string(id), &state.App{ID: id, Version: "v1"})
}

// runs makes an instance run on a host, with ports counting from 31000.
func (c *core) runs(app state.AppID, ordinal int, host string, change ...func(*state.Instance)) *state.Instance {
	id := state.NewInstanceID(app, ordinal)
	i := &state.Instance{ID: id, App: app, Ordinal: ordinal, Goal: state.GoalRun, Version: "v1", Phase: state.PhaseRunning, Incarnation: 1,
		Run: &state.Run{Task: state.NewTaskID(id, 1, "abcdef"), Version: "v1", Agent: state.AgentID("agent-" + host), Hostname: host,
			AgentURL: "http://10.0.0.9:5051", Ports: []int{31000 + 2*ordinal, 31001 + 2*ordinal}}}
	for _, f := range change {
		f(i)
	}
	c.set(state.KindInstance, string(id), i)
	return i
}

func (c *core) gone(app state.AppID, ordinal int) {
	c.set(state.KindInstance, string(state.NewInstanceID(app, ordinal)), (*state.Instance)(nil))
}

// fake is a Consul that keeps a catalog: as much of it as Holdfast uses, with Consul's rules.
type fake struct {
	mu     sync.Mutex
	nodes  map[string]api.Node
	svcs   map[Key]api.AgentService
	checks map[Key]api.HealthCheck // by node and check id
	index  uint64
	calls  int
	most   int // operations in one transaction
	writes int // operations done

	refuse func(*api.TxnOp) string                                  // says why an operation is refused
	broken func(w http.ResponseWriter, r *http.Request) (done bool) // answers instead
}

func newFake(t testing.TB) (*fake, *api.Client) {
	t.Helper()
	f := &fake{nodes: map[string]api.Node{}, svcs: map[Key]api.AgentService{}, checks: map[Key]api.HealthCheck{}, index: 10}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	client, err := consulconn.Open(consulconn.Config{Address: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return f, client
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.calls++
	broken := f.broken
	f.mu.Unlock()
	if broken != nil && broken(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out any
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	word, name, _ := strings.Cut(strings.TrimPrefix(path, "catalog/"), "/")
	switch {
	case path == "catalog/nodes":
		list := []api.Node{}
		for _, n := range f.nodes {
			if marked(n, r) {
				list = append(list, n)
			}
		}
		out = list
	case path == "health/state/any":
		list := []api.HealthCheck{}
		for _, c := range f.checks {
			if marked(f.nodes[c.Node], r) {
				list = append(list, c)
			}
		}
		out = list
	case word == "node-services" || word == "node":
		out = f.node(word, name)
	case path == "txn":
		f.txn(w, r)
		return
	default:
		http.Error(w, "not modelled: "+path, http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}

func marked(n api.Node, r *http.Request) bool {
	for _, m := range r.URL.Query()["node-meta"] {
		k, v, _ := strings.Cut(m, ":")
		if n.Meta[k] != v {
			return false
		}
	}
	return true
}

func (f *fake) node(word, name string) any {
	n, ok := f.nodes[name]
	if !ok {
		return nil
	}
	if word == "node" {
		return api.CatalogNode{Node: &n}
	}
	list := api.CatalogNodeServiceList{Node: &n}
	for k, s := range f.svcs {
		if k.Node == name {
			list.Services = append(list.Services, &s)
		}
	}
	return list
}

func (f *fake) txn(w http.ResponseWriter, r *http.Request) {
	var ops api.TxnOps
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.most = max(f.most, len(ops))
	nodes, svcs, checks := maps.Clone(f.nodes), maps.Clone(f.svcs), maps.Clone(f.checks)
	var errs api.TxnErrors
	for at, op := range ops {
		what := ""
		if f.refuse != nil {
			what = f.refuse(op)
		}
		if what == "" {
			what = f.do(op)
		}
		if what != "" {
			errs = append(errs, &api.TxnError{OpIndex: at, What: what})
		}
	}
	if len(errs) > 0 {
		f.nodes, f.svcs, f.checks = nodes, svcs, checks
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(api.TxnResponse{Errors: errs})
		return
	}
	f.writes += len(ops)
	_ = json.NewEncoder(w).Encode(api.TxnResponse{})
}

// do makes one operation and says what is wrong with it.
func (f *fake) do(op *api.TxnOp) string {
	f.index++
	switch {
	case op.Node != nil:
		n := op.Node.Node
		old, there := f.nodes[n.Node]
		switch {
		case op.Node.Verb == api.NodeDeleteCAS && old.ModifyIndex != n.ModifyIndex, op.Node.Verb == api.NodeCAS && there:
			return fmt.Sprintf("node %q: index is stale", n.Node)
		case op.Node.Verb == api.NodeDeleteCAS:
			delete(f.nodes, n.Node)
			maps.DeleteFunc(f.svcs, func(k Key, _ api.AgentService) bool { return k.Node == n.Node })
			maps.DeleteFunc(f.checks, func(k Key, _ api.HealthCheck) bool { return k.Node == n.Node })
		default:
			n.ModifyIndex = f.index
			f.nodes[n.Node] = n
		}
	case op.Service != nil:
		k := Key{op.Service.Node, op.Service.Service.ID}
		if op.Service.Service.Service == "" {
			return "Must provide service name (Service.Service) when service ID is provided"
		}
		if op.Service.Verb == api.ServiceDelete {
			delete(f.svcs, k)
			maps.DeleteFunc(f.checks, func(c Key, h api.HealthCheck) bool { return c.Node == k.Node && h.ServiceID == k.ID })
			return ""
		}
		if _, ok := f.nodes[k.Node]; !ok {
			return "Missing node registration"
		}
		f.svcs[k] = op.Service.Service
	case op.Check != nil:
		c := op.Check.Check
		if _, ok := f.svcs[Key{c.Node, c.ServiceID}]; !ok && c.ServiceID != "" {
			return "Missing service registration"
		}
		f.checks[Key{c.Node, c.CheckID}] = c
	}
	return ""
}

// breaks makes every call be answered by broken first; nil ends that.
func (f *fake) breaks(broken func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = broken
}

// service gives a service as it is seen by those who ask.
func (f *fake) service(k Key) (*Service, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.svcs[k]
	return &Service{Key: k, Name: s.Service, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta, Status: f.checks[Key{k.Node, checkID(k.ID)}].Status}, ok
}

// took tells how many calls f needs.
func (f *fake) took(do func()) int {
	f.mu.Lock()
	before := f.calls
	f.mu.Unlock()
	do()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls - before
}

func newRegistrar(t testing.TB, c *core, client *api.Client, change ...func(*Config)) *Registrar {
	t.Helper()
	config := Config{Core: c, Client: client, Cluster: cluster, Address: "here", Resync: time.Hour}
	for _, f := range change {
		f(&config)
	}
	r, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

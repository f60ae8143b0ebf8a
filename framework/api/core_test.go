package api_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// core is a framework in memory: the real Step on a real State, with a cluster of three agents that does at once whatever it is
// asked. Its clock moves only when it is told to, so that answers can be compared byte by byte.
type core struct {
	mu       sync.Mutex
	s        *state.State
	now      time.Time
	nanos    atomic.Int64
	steps    uint64
	queue    []scheduler.Event
	tasks    map[state.TaskID]scheduler.Launch
	agents   map[state.TaskID]state.AgentID
	launched map[state.TaskID]uint64 // the step of each launch
	offered  int
	revived  bool
	claims   map[state.VolumeUID]*state.Claim
	subs     map[chan framework.Notice]bool
	logs     map[string]string // "task file"
	// holdStart keeps new tasks in staging; down makes Do answer this.
	holdStart bool
	deaf      bool // kills are ignored
	down      error
	info      framework.Info
}

var hosts = []string{"alpha", "beta", "gamma"}

func newCore() *core {
	c := &core{s: state.New(), now: time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC), tasks: map[state.TaskID]scheduler.Launch{}, agents: map[state.TaskID]state.AgentID{}, launched: map[state.TaskID]uint64{},
		claims: map[state.VolumeUID]*state.Claim{}, subs: map[chan framework.Notice]bool{}, logs: map[string]string{},
		info: framework.Info{Name: "holdfast", Version: "test", Cluster: "c1", FrameworkID: "fw-1", Master: "http://master:5050", Leader: "127.0.0.1:8080", Role: "holdfast",
			Hostname: "here", HTTPAddress: "127.0.0.1:8080", Elected: true, FailoverTimeoutSeconds: 604800}}
	c.forward(0)
	var nodes []*state.Node
	for _, h := range hosts {
		nodes = append(nodes, &state.Node{UID: state.NodeUID("node-" + h), Generation: 1, Alive: true, Hostname: h, Agent: state.AgentID("agent-" + h), AgentHostname: h, Grade: "soft",
			Drivers: map[string]state.Driver{"pool": {Name: "pool", Scope: "cluster", Exclusive: true, Ready: true}}})
	}
	c.s.Apply([]state.Write{{Kind: state.KindFramework, Value: &state.Framework{Cluster: "c1"}}})
	for _, e := range []scheduler.Event{scheduler.Loaded{}, scheduler.Subscribed{FrameworkID: "fw-1", Master: "m"}, scheduler.NodesSeen{Nodes: nodes}, scheduler.ClaimsSeen{All: true}} {
		c.run(e)
	}
	return c
}

// offers gives every agent's free resources; the model forgets what is used, which no test here minds.
func (c *core) offers() scheduler.Offers {
	var list []*state.Offer
	for _, h := range hosts {
		if len(c.s.OffersOn(state.AgentID("agent-"+h))) > 0 {
			continue
		}
		c.offered++
		role := c.info.Role
		res := func(name string, n float64) state.Resource {
			return state.Resource{Name: name, Scalar: n, AllocationRole: role}
		}
		list = append(list, &state.Offer{ID: fmt.Sprintf("offer-%d", c.offered), Agent: state.AgentID("agent-" + h), Hostname: h, AgentURL: "http://" + h + ":5051", Role: role, At: c.now,
			Resources: []state.Resource{res("cpus", 8), res("mem", 8192), res("disk", 8192), {Name: "ports", Ranges: []state.Range{{Begin: 31000, End: 31099}}, AllocationRole: role}}})
	}
	return scheduler.Offers{Offers: list}
}

// run steps one event and all that the cluster answers to it, and gives the reply.
func (c *core) run(e scheduler.Event) *scheduler.Reply {
	c.queue, c.revived = append(c.queue, e), false
	var first *scheduler.Reply
	for n := 0; len(c.queue) > 0; n++ {
		if n > 5000 {
			panic(fmt.Sprintf("no end: %T %+v", c.queue[0], c.queue[0]))
		}
		e, c.queue = c.queue[0], c.queue[1:]
		c.steps++
		env := scheduler.Env{Now: c.now, Config: scheduler.Config{Role: c.info.Role, DefaultPolicy: "lease", MinGrade: "soft", DeclineFor: 5 * time.Second,
			HoldFor: 2 * time.Second, KillRetry: 3 * time.Second, ReconcileMin: time.Second, ReconcileMax: 5 * time.Second}}
		binary.BigEndian.PutUint64(env.Entropy[:], c.steps)
		p := scheduler.Step(c.s, e, env)
		for _, n := range framework.Notices(c.s, e, p) {
			c.notify(n)
		}
		c.s.Apply(p.Writes)
		if p.Reply != nil && first == nil {
			first = p.Reply
		}
		for _, call := range p.Calls {
			c.answer(call)
		}
	}
	return first
}

func (c *core) answer(call scheduler.Call) {
	switch k := call.(type) {
	case scheduler.Revive:
		if !c.revived { // once for each thing that happens, or the two would never end
			c.revived = true
			c.queue = append(c.queue, c.offers())
		}
	case scheduler.Accept:
		for _, l := range k.Launches {
			c.tasks[l.Run.Task], c.agents[l.Run.Task], c.launched[l.Run.Task] = l, k.Agent, c.steps
			c.logs[string(l.Run.Task)+" stdout"] = "hello from " + string(l.Run.Task) + "\n"
			if !c.holdStart {
				c.status(l.Run.Task, "TASK_RUNNING")
			}
		}
	case scheduler.Kill:
		if _, ok := c.tasks[k.Task]; ok && !c.deaf {
			c.status(k.Task, "TASK_KILLED")
			delete(c.tasks, k.Task)
		}
	case scheduler.Grant:
		c.claims[k.Volume] = &state.Claim{Volume: k.Volume, Ref: k.Ref, State: state.ClaimHeld, Epoch: k.Epoch, Nonce: k.Nonce, Agent: k.Agent, Node: k.Node, NodeGeneration: 1, Owner: k.Owner, Since: c.now, Policy: k.Policy}
		granted := *c.claims[k.Volume]
		granted.State = state.ClaimGranted
		c.queue = append(c.queue, scheduler.GrantResult{Volume: k.Volume, Epoch: k.Epoch, Nonce: k.Nonce, OK: true, Claim: &granted}, scheduler.ClaimsSeen{Claims: []*state.Claim{c.claims[k.Volume]}})
	case scheduler.CreateVolume:
		c.queue = append(c.queue, scheduler.RequestResult{Op: k.Op, Volume: k.Volume.UID, Node: k.Node, OK: true, Outcome: "created", Scope: "cluster"})
	case scheduler.RemoveVolumeData:
		c.queue = append(c.queue, scheduler.RequestResult{Op: k.Op, Volume: k.Volume.UID, Node: k.Node, OK: true, Outcome: "removed"})
	case scheduler.AskNode:
		c.queue = append(c.queue, nodeAnswers(k.Operation))
	case scheduler.Reconcile:
		for _, t := range k.Tasks {
			if _, ok := c.tasks[t.Task]; !ok {
				c.status(t.Task, "TASK_GONE")
			}
		}
	}
}

func (c *core) status(task state.TaskID, what string) {
	c.queue = append(c.queue, scheduler.Status{Task: task, Agent: c.agents[task], State: what, Source: "SOURCE_EXECUTOR", UUID: []byte(what + string(task)), At: c.now})
	if what == "TASK_RUNNING" {
		return
	}
	for _, uid := range slices.Sorted(maps.Keys(c.claims)) {
		if old := c.claims[uid]; old.Owner == string(task) && old.State != state.ClaimFree {
			free := &state.Claim{Volume: uid, Ref: old.Ref, State: state.ClaimFree, Epoch: old.Epoch, FreedBy: "L3", Since: c.now}
			c.claims[uid] = free
			c.queue = append(c.queue, scheduler.ClaimsSeen{Claims: []*state.Claim{free}})
		}
	}
}

// event lets something happen, and pass moves the clock and ticks.
func (c *core) event(e scheduler.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run(e)
}

func (c *core) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forward(d)
	c.run(scheduler.Tick{})
	c.run(c.offers())
}

func (c *core) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holdStart = false
	for _, t := range slices.Sorted(maps.Keys(c.tasks)) {
		c.status(t, "TASK_RUNNING")
	}
	c.run(scheduler.Tick{})
}

// clock may be called under the lock.
func (c *core) clock() time.Time { return time.Unix(0, c.nanos.Load()).UTC() }

func (c *core) forward(d time.Duration) {
	c.now = c.now.Add(d)
	c.nanos.Store(c.now.UnixNano())
}

func (c *core) View(f func(*state.State)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.s)
}

func (c *core) Do(_ context.Context, e scheduler.Event) (scheduler.Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return scheduler.Reply{}, c.down
	}
	c.forward(time.Second)
	r := c.run(e)
	if r == nil {
		return scheduler.Reply{}, fault.New(fault.Internal, "no reply")
	}
	return *r, r.Err
}

func (c *core) ReadLog(_ context.Context, id state.InstanceID, file string, offset int64) ([]byte, int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.s.Instances[id]
	if i == nil || i.Run == nil {
		return nil, 0, fault.New(fault.NotFound, "instance %s has no run", id)
	}
	text, ok := c.logs[string(i.Run.Task)+" "+file]
	if !ok {
		return nil, 0, fault.New(fault.NotFound, "no file %s", file)
	}
	size := int64(len(text))
	if offset < 0 {
		return nil, size, nil
	}
	from := min(offset, size)
	to := min(from+64<<10, size)
	return []byte(text[from:to]), to, nil
}

func (c *core) Events(ctx context.Context) <-chan framework.Notice {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan framework.Notice, 1024)
	c.subs[ch] = true
	context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drop(ch)
	})
	return ch
}

func (c *core) drop(ch chan framework.Notice) {
	if c.subs[ch] {
		delete(c.subs, ch)
		close(ch)
	}
}

func (c *core) notify(n framework.Notice) {
	for ch := range c.subs {
		select {
		case ch <- n:
		default:
			c.drop(ch)
		}
	}
}

func (c *core) Info() framework.Info { return c.info }

var _ framework.Core = (*core)(nil)

// definitionOf makes the record of an app as the API would.
func definitionOf(text string) (*state.Def, error) {
	a, _, err := marathon.Parse([]byte(text), marathon.Options{Role: "holdfast"})
	if err != nil {
		return nil, err
	}
	a.AssignServicePorts(nil, func(int) bool { return false })
	spec, err := a.Spec()
	return &state.Def{App: state.AppID(a.ID), Version: "2026-05-04T03:02:01.000Z", Spec: spec, Source: a.JSON()}, err
}

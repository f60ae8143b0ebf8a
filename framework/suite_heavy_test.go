package framework_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mesosgo "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/embedded"
	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// The suite: the real framework on the real engine, over each kind of store, while agents, masters, the framework and the store's servers are killed, cut
// off and started again at random, clocks jump, nodes are drained and the cluster is frozen. After every few acts all faults end, and the agents must
// run exactly what the framework believes, and what was ordered. HOLDFAST_SEED repeats a run, HOLDFAST_ROUNDS makes it longer (200 take some minutes).

// switchboard is an agent's way to the master that leads now.
type switchboard struct{ link atomic.Pointer[embedded.Link] }

func (s *switchboard) Register(ctx context.Context, r agent.Registration) (mesosgo.AgentID, error) {
	return s.link.Load().Register(ctx, r)
}
func (s *switchboard) Reregister(ctx context.Context, r agent.Reregistration) error {
	return s.link.Load().Reregister(ctx, r)
}
func (s *switchboard) StatusUpdate(ctx context.Context, f mesosgo.FrameworkID, status mesosgo.TaskStatus, latest mesosgo.TaskState) error {
	return s.link.Load().StatusUpdate(ctx, f, status, latest)
}
func (s *switchboard) Pong(ctx context.Context, id mesosgo.AgentID) error {
	return s.link.Load().Pong(ctx, id)
}

// party is everything that takes part.
type party struct {
	t    *testing.T
	rnd  *rand.Rand
	open func() (store.Backend, error)
	// outage stops the store's servers for a while and starts them again; nil for a file.
	outage func(d time.Duration)

	cfg    embedded.Config
	master *embedded.Master
	served chan struct{}
	end    context.CancelFunc
	boards []*switchboard
	agents []*agent.Agent
	names  []string
	down   []bool
	wire   *cable

	f       *framework.Framework
	halt    func()
	offset  atomic.Int64 // of the framework's clock
	want    int
	version int
	shape   func(*state.Spec) // what else the app is to have
}

func newParty(t *testing.T, seed uint64, agents int) *party {
	p := &party{t: t, rnd: rand.New(rand.NewPCG(seed, 11))}
	p.cfg = embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0",
		Timing: embedded.Timing{Allocation: 20 * time.Millisecond, Heartbeat: 200 * time.Millisecond, AgentLost: 700 * time.Millisecond, AgentReregister: 3 * time.Second}}
	p.startMaster()
	p.cfg.Listen = p.master.Addr()
	p.wire = newCable(t, p.master.Addr())
	for i := range agents {
		name := fmt.Sprintf("agent%d", i)
		b := &switchboard{}
		b.link.Store(p.master.Link(name))
		a, err := agent.New(agent.Config{Dir: t.TempDir(), Hostname: name, Listen: "127.0.0.1:0", Master: b,
			Timing:    agent.Timing{Ping: 100 * time.Millisecond, UpdateRetry: 200 * time.Millisecond},
			Resources: agent.Resources{CPUs: 8, Mem: 1024, Disk: 1024, PortsBegin: uint64(22000 + 100*i), PortsEnd: uint64(22099 + 100*i)}})
		if err == nil {
			err = a.Start(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
		p.boards, p.agents, p.names, p.down = append(p.boards, b), append(p.agents, a), append(p.names, name), append(p.down, false)
	}
	t.Cleanup(func() {
		end, done := context.WithTimeout(context.Background(), 20*time.Second)
		defer done()
		for _, a := range p.agents {
			if err := a.Close(end); err != nil {
				t.Errorf("close agent: %v", err)
			}
		}
		p.stopMaster()
	})
	return p
}

func (p *party) startMaster() {
	var err error
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if p.master, err = embedded.New(p.cfg); err == nil {
			break
		}
		if time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.end, p.served = cancel, make(chan struct{})
	go func(m *embedded.Master, served chan struct{}) { _ = m.Serve(ctx); close(served) }(p.master, p.served)
	for i, b := range p.boards {
		b.link.Store(p.master.Link(p.names[i]))
	}
}

func (p *party) stopMaster() {
	p.end()
	<-p.served
	p.master.Close()
}

// startFramework starts a framework process as main does; the state is where it was.
func (p *party) startFramework() {
	p.t.Helper()
	var back store.Backend
	var st *store.Store
	var err error
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if back, err = p.open(); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			cluster := ""
			if shared, ok := back.(*registers.Backend); ok {
				cluster, err = shared.Cluster(ctx, "11111111-2222-4333-8444-555555555555")
			}
			if err == nil {
				st, err = store.Open(ctx, back, cluster, "suite")
			}
			cancel()
			if err == nil {
				break
			}
			back.Close()
		}
		if time.Now().After(end) {
			p.t.Fatal(err)
		}
	}
	client, err := mesos.New(mesos.Config{Master: p.wire.Addr().String(), MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, Log: zap.NewNop(),
		Info: mesos.Identity{Name: "suite", User: os.Getenv("USER"), Roles: []string{"holdfast"}, FailoverTimeout: time.Hour}.FrameworkInfo()})
	if err != nil {
		p.t.Fatal(err)
	}
	f, err := framework.New(framework.Config{Step: scheduler.Step, Store: st, Master: client, Log: zap.NewNop(), Standby: true, StandbyEvery: 50 * time.Millisecond,
		Nodes: func(emit func(scheduler.Event)) (framework.Nodes, error) { return quietNodes{emit}, nil },
		Now:   func() time.Time { return time.Now().Add(time.Duration(p.offset.Load())) },
		Scheduler: scheduler.Config{Role: "holdfast", DefaultPolicy: "lease", MinGrade: "reset", DeclineFor: time.Second, HoldFor: time.Second,
			KillRetry: 300 * time.Millisecond, ReconcileMin: 50 * time.Millisecond, ReconcileMax: time.Second, BrakeFor: 2 * time.Second}})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	p.f, p.halt = f, func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				p.t.Errorf("framework: %v", err)
			}
			back.Close()
		})
	}
}

// insist repeats a command until it is answered. One whose outcome is unknown may be repeated, because it says how it should be.
func (p *party) insist(c scheduler.Event) {
	p.t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := p.f.Do(ctx, c)
		cancel()
		if err == nil || fault.Is(err, fault.Exists) || fault.Is(err, fault.NotFound) {
			return
		}
		if (!fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Unknown)) || time.Now().After(end) {
			p.t.Fatalf("%T: %v", c, err)
		}
	}
}

// attempt gives a command once, come what may.
func (p *party) attempt(c scheduler.Event) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = p.f.Do(ctx, c)
}

func (p *party) put() scheduler.PutApp {
	p.version++
	e := webApp(fmt.Sprintf("2026-11-21T05:00:00.%03dZ", p.version%1000), p.want)
	e.Create, e.Force = false, true
	d := e.Changes[0].Def
	d.Version = time.Unix(int64(1795000000+p.version), 0).UTC().Format("2006-01-02T15:04:05.000Z")
	d.Spec.Cmd = fmt.Sprintf("exec sleep 1%03d", p.version%1000)
	d.Source = []byte(fmt.Sprintf(`{"n":%d}`, p.version))
	d.Spec.Upgrade = state.Upgrade{MinHealth: []float64{0, .5, 1}[p.rnd.IntN(3)], MaxOver: []float64{0, 1}[p.rnd.IntN(2)]}
	d.Spec.Unreachable = state.Unreachable{Inactive: time.Duration(p.rnd.IntN(3)) * 300 * time.Millisecond}
	d.Spec.Unreachable.Expunge = d.Spec.Unreachable.Inactive + time.Duration(p.rnd.IntN(3))*time.Second
	d.Spec.KillSelection = []string{"YOUNGEST_FIRST", "OLDEST_FIRST"}[p.rnd.IntN(2)]
	if p.shape != nil {
		p.shape(&d.Spec)
	}
	return e
}

// act lets one random thing happen, and says what.
func (p *party) act() string {
	n := p.rnd.IntN(len(p.agents))
	ms := func(most int) time.Duration { return time.Duration(p.rnd.IntN(most)) * time.Millisecond }
	switch p.rnd.IntN(16) {
	case 0:
		p.want = p.rnd.IntN(8)
		p.attempt(scheduler.ScaleApp{App: "/web", Instances: p.want, Force: true})
		return fmt.Sprintf("scale to %d", p.want)
	case 1:
		p.attempt(p.put())
		return "a new version"
	case 2:
		p.attempt(scheduler.RestartApp{App: "/web", Force: true})
		return "restart the app"
	case 3:
		p.wire.Cut(false)
		return "the stream to the master breaks"
	case 4:
		p.wire.Cut(true)
		time.Sleep(ms(1500))
		p.wire.Cut(false)
		return "the framework is cut off from the master for a while"
	case 5, 6:
		p.boards[n].link.Load().Cut()
		time.Sleep(ms(1600))
		if p.rnd.IntN(2) == 0 {
			p.boards[n].link.Load().Heal()
		}
		return "agent " + p.names[n] + " is cut off from the master"
	case 7:
		if !p.down[n] {
			p.agents[n].Stop()
			p.down[n] = true
		}
		return "agent process " + p.names[n] + " is killed"
	case 8:
		if !p.down[n] {
			if err := p.agents[n].Kill(); err != nil {
				p.t.Fatal(err)
			}
			p.down[n] = true
		}
		return "machine " + p.names[n] + " is off"
	case 9:
		p.boot(n)
		return "agent " + p.names[n] + " is started"
	case 10:
		p.stopMaster()
		time.Sleep(ms(1200))
		p.startMaster()
		return "the master is killed and started again"
	case 11:
		p.halt()
		time.Sleep(ms(500))
		p.startFramework()
		return "the framework is stopped and started again"
	case 12:
		if p.outage == nil {
			p.halt()
			p.startFramework()
			return "the framework is stopped and started again"
		}
		p.outage(ms(2500))
		return "the store's servers are killed and started again"
	case 13:
		p.attempt(scheduler.Freeze{Reason: "suite", For: ms(2000)})
		return "freeze"
	case 14:
		p.attempt(scheduler.OrderNode{Node: p.names[n], Want: []string{state.WantCordon, state.WantDrain, ""}[p.rnd.IntN(3)]})
		return "an order for node " + p.names[n]
	default:
		// In a process that runs time goes on as ever; what it wrote is what the next one finds in the future.
		jump := time.Duration(p.rnd.IntN(1200)-600) * time.Second
		p.halt()
		p.offset.Add(int64(jump))
		p.startFramework()
		return fmt.Sprintf("the framework is started again, and the clock has jumped by %s", jump)
	}
}

func (p *party) boot(n int) {
	if !p.down[n] {
		return
	}
	if err := p.agents[n].Start(context.Background()); err != nil {
		p.t.Fatal(err)
	}
	p.down[n] = false
}

// mend ends every fault and every order but the last for the app.
func (p *party) mend() {
	for n := range p.agents {
		p.boot(n)
		p.boards[n].link.Load().Heal()
	}
	p.insist(scheduler.Thaw{})
	var orders []string
	p.f.View(func(s *state.State) {
		for id := range s.Orders {
			orders = append(orders, id)
		}
	})
	for _, id := range orders {
		p.insist(scheduler.OrderNode{Node: id})
	}
	p.insist(scheduler.ScaleApp{App: "/web", Instances: p.want, Force: true})
}

// agree waits until the framework, the agents and what was ordered are one.
func (p *party) agree() {
	p.t.Helper()
	said := ""
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if said = p.disagreement(); said == "" {
			return
		}
	}
	p.t.Fatalf("no agreement: %s", said)
}

func (p *party) disagreement() string {
	var mine, theirs, other []string
	p.f.View(func(s *state.State) {
		a := s.Apps["/web"]
		if a == nil {
			other = append(other, "no app")
			return
		}
		for _, i := range s.InstancesOf("/web") {
			switch {
			case i.Phase != state.PhaseRunning || i.Version != a.Version || i.Run.Version != a.Version || len(i.Away) > 0:
				why := ""
				if w := s.WhyOf(i.ID); w != nil {
					why = w.Summary
				}
				mine = append(mine, fmt.Sprintf("%s is %s (%s, %d away)", i.ID, i.Phase, why, len(i.Away)))
			default:
				mine = append(mine, string(i.Run.Task))
			}
		}
		for _, t := range s.Strange {
			other = append(other, fmt.Sprintf("strange %s %s", t.Task, t.State))
		}
		if len(s.Deployments) > 0 || !s.Session.Connected || s.Hold.Why().Code != "" {
			other = append(other, fmt.Sprintf("%d deployments, connected %v, hold %q", len(s.Deployments), s.Session.Connected, s.Hold.Why().Text))
		}
	})
	for _, a := range p.agents {
		for _, task := range a.Tasks() {
			if task.State == "TASK_RUNNING" || task.State == "TASK_STAGING" || task.State == "TASK_STARTING" {
				theirs = append(theirs, task.ID)
			}
		}
	}
	sort.Strings(mine)
	sort.Strings(theirs)
	if len(mine) == p.want && strings.Join(mine, " ") == strings.Join(theirs, " ") && len(other) == 0 {
		return ""
	}
	return fmt.Sprintf("wanted %d, the framework has %q, the agents run %q, %q", p.want, mine, theirs, other)
}

func suite(t *testing.T, open func() (store.Backend, error), outage func(time.Duration)) {
	newSuite(t, open, outage).run(func() {})
}

func newSuite(t *testing.T, open func() (store.Backend, error), outage func(time.Duration)) *party {
	seed, err := strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("HOLDFAST_SEED=%d", seed)
	p := newParty(t, seed, 4)
	p.open, p.outage, p.want = open, outage, 3
	return p
}

// run breaks things for some rounds; check looks whenever all is as ordered.
func (p *party) run(check func()) {
	t := p.t
	rounds, err := strconv.Atoi(os.Getenv("HOLDFAST_ROUNDS"))
	if err != nil {
		rounds = 12
	}
	t.Logf("HOLDFAST_ROUNDS=%d", rounds)
	p.startFramework()
	t.Cleanup(func() { p.halt() })
	p.insist(p.put())
	p.agree()
	for n := 1; n <= rounds; n++ {
		t.Logf("%3d: %s", n, p.act())
		time.Sleep(time.Duration(p.rnd.IntN(150)) * time.Millisecond)
		if n%4 == 0 || n == rounds {
			p.mend()
			p.agree()
			check()
			t.Logf("     %d instances run as ordered", p.want)
		}
	}
}

func TestHeavySuiteOnAFile(t *testing.T) {
	heavy.Require(t)
	dir := t.TempDir()
	suite(t, func() (store.Backend, error) { return bolt.Open(dir, bolt.Options{}) }, nil)
}

func shared(address string) func() (store.Backend, error) {
	return func() (store.Backend, error) {
		r, err := dial.Open(address, dial.Options{})
		if err != nil {
			return nil, err
		}
		b, err := registers.Open(r, registers.Options{Name: address})
		if err != nil {
			_ = r.Close()
		}
		return b, err
	}
}

func TestHeavySuiteOnZooKeeper(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	suite(t, shared("zk://"+z.Servers()[0]+"/suite"), func(d time.Duration) {
		z.Kill(0)
		time.Sleep(d)
		z.Start(0)
	})
}

func TestHeavySuiteOnConsul(t *testing.T) {
	heavy.Require(t, servertest.NeedConsul)
	c := servertest.StartConsul(t, "")
	suite(t, shared("consul://"+c.Addr()+"/suite"), func(d time.Duration) {
		c.Kill()
		time.Sleep(d)
		c.Start()
	})
}

// TestHeavyNoOfferIsHoarded lets one framework wait for what no agent has, and for a constraint that none meets, while another on the same master
// needs every cpu there is: it gets them, and soon.
func TestHeavyNoOfferIsHoarded(t *testing.T) {
	heavy.Require(t)
	e := newEngine(t, 2)
	greedy := newScheduled(t, t.TempDir(), e.master.URL())
	put := webApp("2026-11-21T05:00:00.000Z", 3)
	put.Changes[0].Def.Spec.CPUs = 100
	other := webApp("2026-11-21T05:00:00.000Z", 3)
	other.Changes[0].Def.App = "/nowhere"
	other.Changes[0].Def.Spec.Constraints = []state.Constraint{{Field: "hostname", Operator: "IS", Value: "nobody", HasValue: true}}
	for _, c := range []scheduler.Event{put, other} {
		if _, err := greedy.Do(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		why := ""
		greedy.View(func(s *state.State) {
			if w := s.WhyOf("nowhere.0"); w != nil {
				why = w.Summary
			}
		})
		if strings.Contains(why, "constraint") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no offer was looked at: %q", why)
		}
	}
	modest := newScheduled(t, t.TempDir(), e.master.URL())
	all := webApp("2026-11-21T05:00:00.000Z", 2)
	all.Changes[0].Def.Spec.CPUs = 4
	began := time.Now()
	if _, err := modest.Do(context.Background(), all); err != nil {
		t.Fatal(err)
	}
	modest.settled(t, e, 2)
	t.Logf("the other framework has all cpus after %s", time.Since(began).Round(time.Millisecond))
}

// TestHeavyMaintenance schedules a maintenance at the master: the framework moves what runs on that agent to the other one, says yes, and places
// nothing there until the schedule is taken back.
func TestHeavyMaintenance(t *testing.T) {
	heavy.Require(t)
	e := newEngine(t, 2)
	f := newScheduled(t, t.TempDir(), e.master.URL())
	if _, err := f.Do(context.Background(), webApp("2026-11-21T05:00:00.000Z", 4)); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 4)
	call := func(body string) string {
		t.Helper()
		resp, err := http.Post(e.master.URL()+"/api/v1", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", body, resp.StatusCode, raw, err)
		}
		return string(raw)
	}
	ip, _, _ := net.SplitHostPort(strings.TrimPrefix(e.agents[0].URL(), "http://"))
	call(fmt.Sprintf(`{"type":"UPDATE_MAINTENANCE_SCHEDULE","update_maintenance_schedule":{"schedule":{"windows":[{"machine_ids":[{"hostname":"agent0","ip":%q}],"unavailability":{"start":{"nanoseconds":%d},"duration":{"nanoseconds":3600000000000}}}]}}}`,
		ip, time.Now().Add(time.Minute).UnixNano()))
	status := ""
	for end := time.Now().Add(20 * time.Second); len(e.agents[0].Tasks()) > 0 && running(e.agents[0]) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("agent0 still runs %v", e.agents[0].Tasks())
		}
	}
	f.settled(t, e, 4)
	for end := time.Now().Add(5 * time.Second); !strings.Contains(status, "ACCEPT"); time.Sleep(20 * time.Millisecond) {
		if status = call(`{"type":"GET_MAINTENANCE_STATUS"}`); time.Now().After(end) {
			t.Fatalf("maintenance status %s", status)
		}
	}
	if _, err := f.Do(context.Background(), scheduler.ScaleApp{App: "/web", Instances: 6, Force: true}); err != nil {
		t.Fatal(err)
	}
	f.settled(t, e, 6)
	if n := running(e.agents[0]); n != 0 {
		t.Errorf("%d tasks were placed on an agent that is about to be maintained", n)
	}
}

// running counts the tasks that run on an agent.
func running(a *agent.Agent) (n int) {
	for _, task := range a.Tasks() {
		if task.State == "TASK_RUNNING" {
			n++
		}
	}
	return n
}

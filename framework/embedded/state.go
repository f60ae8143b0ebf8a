package embedded

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/framework/embedded/allocator"
	"github.com/holdfast-io/holdfast/framework/embedded/maintenance"
	"github.com/holdfast-io/holdfast/framework/embedded/registry"
	"github.com/holdfast-io/holdfast/framework/embedded/resource"
	"github.com/holdfast-io/holdfast/framework/embedded/validate"
	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// Master is the engine's master. Its methods may be called from any goroutine.
type Master struct {
	cfg     Config
	log     *zap.Logger
	timing  Timing
	reg     *registry.Registry
	ln      net.Listener
	server  *http.Server
	id      string
	info    mesos.MasterInfo
	started time.Time

	wake chan struct{} // cycleAt was moved

	// admin orders what is written to the registry; taken before mu, and held over the write.
	admin sync.Mutex

	mu        sync.Mutex
	fws       map[string]*framework
	completed map[string]*framework // removed ones, the newest maxCompleted
	finished  []string              // their ids, oldest first
	agents    map[string]*agentState
	recovered map[string]recoveredAgent // in the registry, not back yet
	lost      map[string]lostAgent      // unreachable
	gone      map[string]time.Time
	offers    map[string]*offer
	links     map[string]*Link
	alloc     *allocator.Allocator
	clock     func() time.Time // by which filters run out; tests move it
	lastTick  time.Time
	cycleAt   time.Time // an allocation is wanted by then, zero when only by the interval
	offerIDs  counter
	upkeep    *maintenance.Planner
	counts    counts
}

// What is remembered of the past: the ids of frameworks that were removed, the last of them with their tasks, and
// the completed tasks of one framework. Agents that are unreachable or gone are forgotten after forgetAgents.
const (
	maxCompleted          = 1000
	maxCompletedWithTasks = 20
	maxCompletedTasks     = 1000
	forgetAgents          = 14 * 24 * time.Hour
)

// counts are what /metrics/snapshot shows beside what can be counted in the state.
type counts struct {
	cycles, offers, tasksLaunched, updates, invalidUpdates, messages, invalidMessages uint64
	lastCycle                                                                         time.Duration
}

type framework struct {
	id    string
	info  mesos.FrameworkInfo
	roles []string

	registered, reregistered, unregistered time.Time

	stream    *wire.Stream // nil while disconnected
	nextBeat  time.Time
	removeAt  time.Time // when the failover timeout is over; zero while connected
	recovered bool      // known from the registry, has not subscribed since

	tasks       map[string]*task
	unreachable map[string]*task
	done        []*task // completed, oldest first
	offers      map[string]*offer
	executors   map[executorKey]*executor
	operations  map[string]*operation
}

func (f *framework) connected() bool { return f.stream != nil }

func (f *framework) partitionAware() bool {
	return validate.HasCapability(&f.info, mesos.FrameworkInfo_Capability_PARTITION_AWARE)
}

type taskKey struct{ framework, task string }

type executorKey struct{ agent, executor string }

type executor struct {
	info      mesos.ExecutorInfo
	resources resource.List
	live      int // tasks not terminal
}

// task is a task of a framework on an agent.
type task struct {
	mesos.Task
	// released says that the task's resources have gone back to the allocator.
	released bool
	// unacked is the newest status of the agent that the framework has not acknowledged.
	unacked *mesos.TaskStatus
	// session is the connection over which the agent was told to run the task, 0 when it was not.
	session uint64
	// kill is asked for again when the agent comes back.
	kill bool
}

func (t *task) key() taskKey { return taskKey{t.FrameworkID.Value, t.TaskID.Value} }

// offer is an outstanding offer. Its resources are in the engine's own format, allocated.
type offer struct {
	id, framework, agent, role string
	resources                  resource.List
	made                       time.Time
}

// operation is an operation with an id whose end the framework has not acknowledged.
type operation struct {
	id        string
	framework string
	agent     string
	info      mesos.Offer_Operation
	status    mesos.OperationStatus
	uuid      []byte
	ended     bool
}

type agentState struct {
	id         string
	info       mesos.AgentInfo // with id; resources as they were before any operation
	total      resource.List
	version    string
	url        string
	link       *Link
	handle     agent.Handle
	connected  bool
	lastSign   time.Time
	registered time.Time
	rereg      time.Time

	deactivated bool
	drain       *mesos.DrainInfo
	drainStart  time.Time

	tasks   map[taskKey]*task
	offers  map[string]*offer
	pending []*pendingOp // operations on resources the agent has not confirmed, oldest first
}

// pendingOp is a conversion that was told to an agent.
type pendingOp struct {
	op    *operation // nil when nobody wants to hear of it
	conv  validate.Conversion
	total resource.List // of the agent, after it
}

func (a *agentState) String() string {
	return fmt.Sprintf("%s at %s (%s)", a.id, a.pid(), a.info.Hostname)
}

// pid is the agent's libprocess address as Mesos writes it.
func (a *agentState) pid() string { return "slave(1)@" + hostOf(a.url) }

type recoveredAgent struct {
	info  mesos.AgentInfo
	until time.Time
	rec   registry.Agent
}

type lostAgent struct {
	info  mesos.AgentInfo
	since time.Time
	rec   registry.Agent
}

// counter hands out numbers of offers. They are never used twice, whatever crashes: a block of them
// is reserved in the registry before the first is used.
type counter struct{ next, end uint64 }

const offerBlock = 100000

// offerID mints the id of an offer; the caller holds mu.
func (m *Master) offerID() (string, error) {
	n, err := m.nextOffer()
	return fmt.Sprintf("%s-O%d", m.id, n), err
}

// nextOffer takes a number; the caller holds mu, which is held over a write once in offerBlock times.
func (m *Master) nextOffer() (uint64, error) {
	c := &m.offerIDs
	if c.next == c.end {
		first, err := m.reg.Reserve("offer", offerBlock)
		if err != nil {
			return 0, fmt.Errorf("number of offer: %w", err)
		}
		c.next, c.end = first, first+offerBlock
	}
	c.next++
	return c.next - 1, nil
}

// recover reads the registry at start.
func (m *Master) recover(now time.Time) error {
	if err := m.loadSchedule(); err != nil {
		return fmt.Errorf("maintenance schedule: %w", err)
	}
	agents, err := m.reg.Agents()
	if err != nil {
		return err
	}
	var stale []string
	for _, a := range agents {
		if a.State != registry.Admitted && now.Sub(a.Since) > forgetAgents {
			stale = append(stale, a.ID)
			continue
		}
		switch a.State {
		case registry.Admitted:
			m.recovered[a.ID] = recoveredAgent{info: a.Info, until: now.Add(m.timing.AgentReregister), rec: a}
		case registry.Unreachable:
			m.lost[a.ID] = lostAgent{info: a.Info, since: a.Since, rec: a}
		case registry.Gone:
			m.gone[a.ID] = a.Since
		}
	}
	if err := m.reg.DeleteAgents(stale...); err != nil {
		return err
	}
	fws, err := m.reg.Frameworks()
	if err != nil {
		return err
	}
	slices.SortFunc(fws, func(a, b registry.Framework) int { return a.Removed.Compare(b.Removed) })
	for _, r := range fws {
		f := newFramework(r.ID, r.Info, r.Registered)
		if !r.Removed.IsZero() {
			f.unregistered = r.Removed
			m.completed[f.id] = f
			m.finished = append(m.finished, f.id)
			continue
		}
		f.recovered = true
		f.removeAt = now.Add(max(failover(&r.Info), m.timing.AgentReregister))
		m.fws[f.id] = f
		m.alloc.SetFramework(f.id, m.allocInfo(f, nil), false)
	}
	return nil
}

func newFramework(id string, info mesos.FrameworkInfo, registered time.Time) *framework {
	info.ID = &mesos.FrameworkID{Value: id}
	return &framework{
		id: id, info: info, roles: validate.Roles(&info), registered: registered, reregistered: registered,
		tasks: map[string]*task{}, unreachable: map[string]*task{}, offers: map[string]*offer{},
		executors: map[executorKey]*executor{}, operations: map[string]*operation{},
	}
}

// Package agent is the agent of the embedded engine: it runs tasks as real processes in Mesos's sandbox layout, mounts
// their volumes by executing dvdcli as Mesos's `docker/volume` isolator does, checks their health, keeps what recovery
// needs on disk, and repeats every status update until it is acknowledged.
//
// Three layers that are processes of their own in Apache Mesos are objects here, and fail apart from each other as there:
//
//   - the executor of a task (type executor) starts, watches, checks and kills the task's processes. It lives as long as
//     this program, so exit codes survive the restart of an agent;
//   - the agent process (from Start to Stop) talks to the master, calls dvdcli, and keeps journals. Stop is kill -9 of it:
//     what it had in flight dies, and Start knows only what is on disk and which executors live;
//   - the machine: Kill is the loss of its power. Every process dies, nothing is unmounted, and the next Start finds a new boot id.
//
// The agent is one half of the engine; link.go is its contract with the master, the other half.
package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/dockervolume"
	"github.com/holdfast-io/holdfast/framework/embedded/journal"
	"github.com/holdfast-io/holdfast/framework/embedded/process"
	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// Version is the Mesos version that an agent claims.
const Version = "1.11.0"

// maxCompleted is how many tasks that are over stay visible, with their sandboxes. Older ones are deleted.
const maxCompleted = 100

// Runtimes.
const (
	RuntimeProcess = "process" // tasks are processes
	RuntimeNone    = "none"    // tasks are only said to run; for benchmarks
)

// Config says what an agent is. The zero values of Timing and Runtime mean their defaults.
type Config struct {
	Dir        string            // state and sandboxes; "" only with RuntimeNone: nothing is kept on disk
	Hostname   string            // as offers show it; default localhost
	Listen     string            // address of the agent's HTTP endpoint, loopback only, e.g. 127.0.0.1:0; "" for none
	Attributes map[string]string // numbers and [ranges] are recognized as Mesos does, all else is text
	Resources  Resources
	Dvdcli     string            // path of the dvdcli program; "" refuses docker volumes
	Env        []string          // added to this program's own environment for dvdcli, e.g. HOLDFAST_ISOLATOR=/run/x.sock
	TaskEnv    map[string]string // environment of every task, below what it sets itself (Mesos's --executor_environment_variables)
	MountRoots []string          // directories below which volumes of any node of this machine are mounted: hidden from tasks (root only)
	Master     Master
	Timing     Timing
	Logger     *zap.Logger
	Runtime    string
}

// Resources are what an agent offers.
type Resources struct {
	CPUs                 float64
	Mem, Disk            float64 // MB
	PortsBegin, PortsEnd uint64  // both included; 0, 0 for none
}

// Agent is one agent. Its methods are safe for concurrent use.
type Agent struct {
	cfg    Config
	log    *zap.Logger
	store  *journal.Store
	table  *process.Table
	mounts bool // tasks get mount namespaces; otherwise links stand for mounts

	life    sync.Mutex // serializes Start, Stop, Kill and Close
	address string     // where the endpoint listened last, so that a restarted agent is found where it was

	// gate is held for reading by whoever acts for the agent process, for writing while that begins or ends.
	gate sync.RWMutex
	up   bool
	peer *peer           // how the master reaches this life of the agent process
	ctx  context.Context // ends with the agent process
	stop context.CancelFunc
	work sync.WaitGroup // goroutines of the agent process

	saving sync.Mutex // held while the identity is written

	mu         sync.Mutex
	id         string
	boot       string
	total      []mesos.Resource
	frameworks map[string]mesos.FrameworkInfo
	tasks      map[taskKey]*container
	completed  []*container
	answers    map[string]*container // statuses of tasks that have no container here, by uuid, until they are acknowledged
	execs      map[string]*executor  // by container id; outlive the agent process
	registered bool
	shut       bool // Shutdown was called: no registration in this life
	volumes    *dockervolume.Isolator
	endpoint   *endpoint
	wake       chan struct{}
}

type taskKey struct{ framework, task string }

// New returns an agent that does nothing before Start. It creates Dir.
func New(cfg Config) (*Agent, error) {
	if cfg.Runtime == "" {
		cfg.Runtime = RuntimeProcess
	}
	switch {
	case cfg.Runtime != RuntimeProcess && cfg.Runtime != RuntimeNone:
		return nil, fmt.Errorf("agent: runtime %q is neither %q nor %q", cfg.Runtime, RuntimeProcess, RuntimeNone)
	case cfg.Dir == "" && cfg.Runtime != RuntimeNone:
		return nil, errors.New("agent: tasks need a directory")
	case cfg.Master == nil:
		return nil, errors.New("agent: no link to a master")
	}
	if cfg.Dir != "" {
		dir, err := filepath.Abs(cfg.Dir)
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		// The processes' marker and /files paths must be the real ones.
		if cfg.Dir, err = filepath.EvalSymlinks(dir); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	if err := checkLoopback(cfg.Listen); err != nil {
		return nil, err
	}
	if cfg.Dvdcli != "" {
		abs, err := filepath.Abs(cfg.Dvdcli)
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		cfg.Dvdcli = abs
	}
	if cfg.Hostname == "" {
		cfg.Hostname = "localhost"
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	cfg.Timing = cfg.Timing.orDefault()
	s, err := journal.Open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Agent{
		cfg: cfg, log: cfg.Logger.With(zap.String("host", cfg.Hostname)), store: s, table: process.NewTable(cfg.Dir), mounts: cfg.Runtime == RuntimeProcess && os.Geteuid() == 0 && process.CanMount(),
		frameworks: map[string]mesos.FrameworkInfo{}, tasks: map[taskKey]*container{}, answers: map[string]*container{},
		execs: map[string]*executor{}, wake: make(chan struct{}, 1),
	}, nil
}

// checkLoopback refuses an address that others than this machine could reach.
func checkLoopback(listen string) error {
	if listen == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("agent: listen address: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("agent: listen address %s is not on the loopback interface; the endpoint has no authentication", listen)
	}
	return nil
}

func (t Timing) orDefault() Timing {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.Ping, time.Second)
	set(&t.UpdateRetry, 10*time.Second)
	set(&t.MountLimit, 120*time.Second)
	set(&t.UnmountMax, 10*time.Minute)
	set(&t.KillGrace, 3*time.Second)
	return t
}

// Start begins the agent process: it recovers what an earlier one left, listens, and registers, or reregisters with the id
// it has. It returns after the first attempt to register, which is repeated until it succeeds. An error means that
// nothing was started: unreadable state, a port in use, or a configuration that does not fit the id this agent has.
func (a *Agent) Start(ctx context.Context) error {
	a.life.Lock()
	defer a.life.Unlock()
	if a.running() {
		return errors.New("agent: is running already")
	}
	if err := a.shareDir(); err != nil {
		return err
	}
	end, err := a.listen()
	if err != nil {
		return err
	}
	rec, err := a.recover()
	if err != nil {
		end.close()
		return err
	}
	a.begin(rec, end)
	tried := make(chan struct{})
	a.work.Add(1)
	go func() { defer a.work.Done(); a.link(a.ctx, tried) }()
	select {
	case <-tried:
	case <-ctx.Done():
	}
	return nil
}

// begin opens the gate for what has been recovered.
func (a *Agent) begin(rec *recovery, end *endpoint) {
	a.gate.Lock()
	defer a.gate.Unlock()
	a.ctx, a.stop = context.WithCancel(context.Background())
	a.mu.Lock()
	a.id, a.boot, a.total = rec.identity.ID, rec.identity.BootID, rec.identity.Total
	a.frameworks, a.tasks, a.completed = rec.identity.Framework, rec.tasks, rec.completed
	a.answers = map[string]*container{}
	a.shut, a.registered, a.volumes, a.endpoint = false, false, rec.volumes, end
	a.mu.Unlock()
	a.up, a.peer = true, &peer{a}
	a.resume(rec)
	end.serve(a)
}

func (a *Agent) running() bool {
	a.gate.RLock()
	defer a.gate.RUnlock()
	return a.up
}

// Stop ends the agent process as kill -9 would: dvdcli calls and downloads in flight die, nothing is said to the master, tasks go
// on (except those of frameworks that do not checkpoint). Start takes up from there.
func (a *Agent) Stop() {
	a.life.Lock()
	defer a.life.Unlock()
	a.end()
	a.mu.Lock()
	var dying []*executor
	for id, e := range a.execs {
		if !e.checkpoint {
			dying = append(dying, e)
			delete(a.execs, id)
		}
	}
	a.mu.Unlock()
	for _, e := range dying {
		e.silence()
		e.destroy()
	}
}

// end closes the gate and waits for everything that acted for the agent process.
func (a *Agent) end() {
	a.gate.Lock()
	if !a.up {
		a.gate.Unlock()
		return
	}
	a.up = false
	a.gate.Unlock()
	a.stop()
	a.work.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endpoint.close()
	a.registered = false
	for _, c := range a.tasks {
		c.close()
	}
	for _, c := range a.completed {
		c.close()
	}
	a.tasks, a.completed, a.volumes = map[taskKey]*container{}, nil, nil
}

// killPatience bounds how long the loss of a machine waits for processes that resist SIGKILL.
const killPatience = 5 * time.Second

// Kill is the loss of the machine: every task process is killed at once, dvdcli is not called, nothing is unmounted (see
// Cleanup for the mounts below Dir), and the boot id changes. The next Start keeps the agent's id, as Mesos does since 1.4, and
// reports the tasks as failed. It returns when the processes are gone, at the latest after five seconds and then with an error.
func (a *Agent) Kill() error {
	a.life.Lock()
	defer a.life.Unlock()
	err := a.store.PowerCycle(uuid.NewString()) // first: whoever starts next must know, wherever this is interrupted
	a.destroyAll()
	a.end()
	dying := a.destroyAll() // what was being launched meanwhile, too
	deadline := time.After(killPatience)
	for _, e := range dying {
		select {
		case <-e.over:
		case <-deadline:
			return errors.Join(err, fmt.Errorf("agent: processes of task %s do not end by SIGKILL", e.task.TaskID.Value))
		}
	}
	a.mu.Lock()
	a.execs = map[string]*executor{}
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("agent: change the boot id: %w", err)
	}
	return nil
}

// destroyAll kills every task's processes and silences their executors.
func (a *Agent) destroyAll() []*executor {
	a.mu.Lock()
	dying := make([]*executor, 0, len(a.execs))
	for _, e := range a.execs {
		dying = append(dying, e)
	}
	a.mu.Unlock()
	for _, e := range dying {
		e.silence()
		go e.destroy()
	}
	return dying
}

// Close shuts the agent down in good order: tasks end by SIGTERM and their grace periods, their volumes are unmounted, what could
// not be told to the master is kept for the next Start, and the directory is not a mount any more. ctx bounds the wait; then the rest
// is killed without unmounting and the error says so.
func (a *Agent) Close(ctx context.Context) error {
	a.life.Lock()
	defer a.life.Unlock()
	var err error
	if a.running() {
		for _, c := range a.allTasks() {
			a.killContainer(c, nil)
		}
		err = a.waitClean(ctx)
		a.end()
	}
	a.mu.Lock()
	rest := a.execs
	a.execs = map[string]*executor{}
	a.mu.Unlock()
	for _, e := range rest {
		e.silence()
		e.destroy()
	}
	for _, e := range rest {
		select {
		case <-e.over:
		case <-time.After(killPatience):
		}
	}
	return errors.Join(err, Cleanup(a.cfg.Dir))
}

// waitClean waits until no task has a process or a volume.
func (a *Agent) waitClean(ctx context.Context) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		dirty := 0
		for _, c := range a.allTasks() {
			if !c.isClean() {
				dirty++
			}
		}
		if dirty == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("agent: %d tasks had not ended with their volumes given back: %w", dirty, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// shutdown kills every task, gives its volumes back and ends the registration for good: the operator has marked this agent gone. A later
// Start (after Stop) registers a new agent. Call it from within act.
func (a *Agent) shutdown() {
	a.mu.Lock()
	a.registered, a.shut, a.id = false, true, ""
	a.mu.Unlock()
	if err := a.store.ForgetIdentity(); err != nil {
		a.log.Error("agent id is not forgotten on disk", zap.Error(err))
	}
	for _, c := range a.allTasks() {
		a.abandon(c)
	}
}

// act runs fn for the agent process, if there is one.
func (a *Agent) act(fn func()) {
	a.gate.RLock()
	defer a.gate.RUnlock()
	if a.up {
		fn()
	}
}

// spawn runs fn as a goroutine of the agent process. Call it from within act or before the gate opens.
func (a *Agent) spawn(fn func(ctx context.Context)) {
	a.work.Add(1)
	ctx := a.ctx
	go func() { defer a.work.Done(); fn(ctx) }()
}

// ID is the agent's id at the master, "" before the first registration.
func (a *Agent) ID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

// Registered says that the master has accepted this agent and has not disowned it since.
func (a *Agent) Registered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.registered
}

// URL is the agent's own HTTP endpoint, "" while it does not listen.
func (a *Agent) URL() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.endpoint.url()
}

// Task is what `holdfast dev agent list` shows of a task.
type Task struct {
	Framework string
	ID        string
	State     string // TASK_RUNNING …
	Container string
	Sandbox   string
	Pid       int // first process, 0 for none
	Healthy   *bool
}

// Tasks lists the tasks that are not over, also while the agent is stopped: then those whose processes run.
func (a *Agent) Tasks() []Task {
	if !a.running() {
		a.mu.Lock()
		defer a.mu.Unlock()
		var out []Task
		for _, e := range a.execs {
			out = append(out, Task{Framework: e.framework, ID: e.task.TaskID.Value, State: "agent down", Container: e.container, Sandbox: e.sandbox, Pid: e.pid()})
		}
		return out
	}
	var out []Task
	for _, c := range a.allTasks() {
		out = append(out, c.view())
	}
	return out
}

func (a *Agent) allTasks() []*container {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*container, 0, len(a.tasks))
	for _, c := range a.tasks {
		out = append(out, c)
	}
	return out
}

// Dir is the agent's directory.
func (a *Agent) Dir() string { return a.cfg.Dir }

func (a *Agent) processes() bool { return a.cfg.Runtime == RuntimeProcess }

func (a *Agent) place(c *container) sandbox.Place {
	p := sandbox.Place{Agent: c.agent, Framework: c.framework, Executor: c.executorID(), Container: c.id}
	if c.group != nil {
		p.Container = c.group.id
	}
	return p
}

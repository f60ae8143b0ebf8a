// Package isolator is the helper on each node: it mounts and unmounts volumes through their drivers, and only while the
// lease authority says that this node holds them. It keeps a journal, so that being killed at any instruction leaks and
// loses nothing, and it gives up what it may no longer have: at the lease's deadline, and when a claim is revoked.
//
// The order of a mount is: I3 (enough lease left), L2 (granted to held), intent in the journal, driver, check of what the driver
// gave, deadline again, journal, answer. The order of the way back is: nobody uses it, flush, driver, nothing mounted any
// more, journal, L3 (held to free). docs/safety.md says why.
//
// Each volume has a queue of its own: operations on one volume run one after another, on different volumes
// side by side, and one that hangs blocks nobody else. An operation goes on when its caller is gone; the same request again
// joins it.
package isolator

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/identity"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/operation"
	"github.com/holdfast-io/holdfast/isolator/queue"
)

// Limits bound how long things may take. Zero values mean the defaults.
type Limits struct {
	Driver     time.Duration // one driver call; 100 s (Mesos kills dvdcli after 120 s)
	UsersMount time.Duration // how long a mount waits for the users of the epoch before; 100 s
	UsersLeave time.Duration // how long an unmount waits for users; 60 s
	Authority  time.Duration // one transition with its repetitions; 10 s
	RetryMin   time.Duration // first repetition of what failed; 1 s, doubling
	RetryMax   time.Duration // longest; 60 s
	Freeze     time.Duration // how long a file system may be frozen for a snapshot; 10 s
	Measure    time.Duration // between two looks how full the mounted volumes are; 30 s
	Audit      time.Duration // between two looks whether what is up is still held; 5 s
	Facts      time.Duration // between two looks at drivers and watchdog; 2 s
	Bin        time.Duration // how long removed volumes stay in the bin; 24 h
}

func (l Limits) withDefaults() Limits {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&l.Driver, 100*time.Second)
	def(&l.UsersMount, 100*time.Second)
	def(&l.UsersLeave, 60*time.Second)
	def(&l.Authority, 10*time.Second)
	def(&l.RetryMin, time.Second)
	def(&l.RetryMax, time.Minute)
	def(&l.Freeze, 10*time.Second)
	def(&l.Measure, 30*time.Second)
	def(&l.Audit, 5*time.Second)
	def(&l.Facts, 2*time.Second)
	def(&l.Bin, 24*time.Hour)
	return l
}

// Fencer finds and stops the users of mounts; *fence.Fence is one.
type Fencer interface {
	Users(ctx context.Context, targets ...fence.Target) (map[string]fence.Usage, error)
	Run(ctx context.Context, targets ...fence.Target) []fence.Report
}

// watchState is what isolator and watchdog process share; *fence.State is one.
type watchState interface {
	SetDeadline(generation uint64, d time.Duration)
	Deadline() (generation uint64, d time.Duration)
	SetMounts(targets []json.RawMessage) error
	Drain()
	Close() error
}

// Options say what a Service works with. Dir, Authority and Drivers are needed.
type Options struct {
	Dir       string // state of this node: uid, journal, mounts
	Authority *lease.Authority
	Drivers   []driver.Driver
	// Resolve makes drivers that are not in Drivers on first use (Docker plugins); nil knows no others.
	Resolve func(name string) (driver.Driver, error)
	// Discover names drivers that Resolve would make and that are installed now; their facts are published too. nil finds none.
	Discover func() []string
	Timings  lease.Timings
	Clock    lease.Clock // the clock of the lease
	BootID   string      // "" reads the kernel's
	Log      *zap.Logger
	Limits   Limits
	Describe
	// SelfPolicy is the policy of claims that this node makes by itself for stock Marathon and for hands on the keyboard.
	SelfPolicy lease.Policy
	// NewNonce and NewUID give strings that never repeat; nil uses random UUIDs (v4, v7).
	NewNonce, NewUID func() string
	Now              func() time.Time // wall clock, for what is shown
	// Watchdog is the argv of the watchdog process, without its state file; nil runs none, and the grade is none.
	Watchdog []string
	// WatchdogKept says that a unit of its own runs the watchdog process on <Dir>/watchdog; Watchdog is nil then.
	WatchdogKept bool
	// WatchdogClock is unix.CLOCK_BOOTTIME or CLOCK_MONOTONIC, the same clock as Clock.
	WatchdogClock int

	// DeadMan is the device that resets this machine when the watchdog process does not feed it, "" for none; DeadManTimeout its time-out in whole seconds, 0
	// for S rounded up. Timings.H must cover it (I4).
	DeadMan        string
	DeadManTimeout time.Duration

	// Repositories are where backups go; nil has none.
	Repositories operation.Repositories

	// Tests put their own in these places.
	fencer Fencer
	state  watchState
}

// Describe is what an operator says of the node.
type Describe struct {
	Hostname   string
	Zone       string
	Region     string
	Attributes map[string]string
	AgentURL   string // endpoint of the Mesos agent beside; "" has none
	// PlayedAgent is that agent's host:port where one machine plays several nodes: tasks of the others are not users then. "" on a
	// real node, where every process counts: an agent may go by several addresses.
	PlayedAgent string
	Version     string
}

// Service is one node's isolator.
type Service struct {
	o       Options
	log     *zap.Logger
	auth    *lease.Authority
	journal *journal.Journal
	state   watchState
	keeper  *lease.Keeper
	fencer  Fencer
	scans   scans
	flushes flushes
	queues  *queue.Queues
	nodeUID string
	started time.Time

	life    context.Context // of all operations; ends with Close
	endLife context.CancelFunc
	ready   chan struct{} // closed when recovery is done
	wg      sync.WaitGroup

	mu       sync.Mutex
	drivers  map[string]driver.Driver
	facts    map[string]driver.Facts
	retries  map[volume.Ref]*retry
	handled  map[string]bool // requests under way, by op
	agent    identity.Agent
	problems map[string]string
	grades   map[volume.Ref]heldGrade
	draining bool
	closed   bool
	cluster  string
	usages   map[volume.Ref]measured      // of what is mounted
	frozen   map[volume.Ref]time.Duration // file systems frozen for a snapshot, and until when

	operations *operation.Operator

	watching sync.Mutex // held while the watchdog's list is made and written
	told     map[volume.Ref]watched
	pending  int // mounts that the watchdog was told of without their place
}

// Open reads the node's state and prepares a Service; Run starts it. Nothing is mounted or unmounted before
// Run.
func Open(o Options) (*Service, error) {
	o.Limits = o.Limits.withDefaults()
	o.fillDefaults()
	if !filepath.IsAbs(o.Dir) {
		return nil, fault.New(fault.Invalid, "isolator directory %q is not an absolute path", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open isolator directory")
	}
	real, err := filepath.EvalSymlinks(o.Dir) // the kernel shows mounts without links
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "open isolator directory")
	}
	o.Dir = real
	j, err := journal.Open(filepath.Join(o.Dir, "journal"))
	if err != nil {
		return nil, err
	}
	s := &Service{o: o, log: o.Log, auth: o.Authority, journal: j, started: o.Now(), ready: make(chan struct{}),
		drivers: map[string]driver.Driver{}, facts: map[string]driver.Facts{}, retries: map[volume.Ref]*retry{},
		handled: map[string]bool{}, problems: map[string]string{}, grades: map[volume.Ref]heldGrade{}, frozen: map[volume.Ref]time.Duration{}, usages: map[volume.Ref]measured{}}
	s.life, s.endLife = context.WithCancel(context.Background())
	s.queues = queue.New(s.life)
	if err := s.prepare(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (o *Options) fillDefaults() {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewNonce == nil {
		o.NewNonce = randomID
	}
	if o.NewUID == nil {
		o.NewUID = timeID
	}
	if o.SelfPolicy.Mode == "" {
		o.SelfPolicy = lease.Policy{Mode: lease.PolicyOperator}
	}
}

func (s *Service) prepare() error {
	var err error
	if s.nodeUID, err = identity.NodeUID(s.o.Dir); err != nil {
		return err
	}
	if s.o.BootID == "" {
		if s.o.BootID, err = identity.KernelBootID(); err != nil {
			return err
		}
	}
	for _, d := range s.o.Drivers {
		s.drivers[d.Name()] = d
	}
	if s.state = s.o.state; s.state == nil {
		state, err := fence.OpenState(filepath.Join(s.o.Dir, "watchdog"), s.o.WatchdogClock)
		if err != nil {
			return err
		}
		s.state = state
	}
	for _, d := range s.journal.Damaged() {
		s.problem("journal "+d.File, d.String()+" (kept aside); volumes are checked against the authority")
	}
	s.thawLeft()
	if err := s.openOperations(); err != nil {
		return err
	}
	return s.prepareLease()
}

// NodeUID gives the node's uid, which is minted at the first start and kept in the directory.
func (s *Service) NodeUID() string { return s.nodeUID }

// MountsDir is where drivers may bind-mount below.
func MountsDir(dir string) string { return filepath.Join(dir, "mounts") }

// Ready is closed once the node is registered and what was left over is dealt with.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Close ends all operations and closes the journal. What is mounted stays mounted; the watchdog goes on.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.endLife()
	if s.operations != nil {
		s.operations.Close()
	}
	s.queues.Close()
	s.wg.Wait()
	if s.state != nil {
		s.state.Close()
	}
	s.journal.Close()
}

// driver gives a driver by name. NotFound when this node has none of that name.
func (s *Service) driver(name string) (driver.Driver, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.drivers[name]; ok {
		return d, nil
	}
	if err := volume.CheckDriver(name); err != nil {
		return nil, err
	}
	if s.o.Resolve == nil {
		return nil, fault.New(fault.NotFound, "this node has no volume driver %s", name)
	}
	d, err := s.o.Resolve(name)
	if err != nil {
		return nil, fault.Op(err, "volume driver %s", name)
	}
	s.drivers[name] = d
	return d, nil
}

// factsOf asks a driver and remembers the answer, which Unmount needs when the driver is away.
func (s *Service) factsOf(ctx context.Context, d driver.Driver) (driver.Facts, error) {
	f, err := d.Facts(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.facts[d.Name()] = f
	} else if old, ok := s.facts[d.Name()]; ok {
		return old, nil
	}
	return f, err
}

// waitReady waits until recovery is done, since before that nobody may mount.
func (s *Service) waitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return fault.New(fault.Unavailable, "the isolator is not ready: %s", s.whyNotReady())
	case <-s.life.Done():
		return fault.New(fault.Unavailable, "the isolator is stopping")
	}
}

// problem shows something to people until it is cleared with an empty text.
func (s *Service) problem(key, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == "" {
		delete(s.problems, key)
		return
	}
	s.problems[key] = text
}

func (s *Service) problemList() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]string, 0, len(s.problems))
	for k, v := range s.problems {
		out = append(out, k+": "+v)
	}
	if err := s.journal.Healthy(); err != nil {
		out = append(out, "journal: "+err.Error()+": nothing is mounted until the isolator is started again")
	}
	sort.Strings(out)
	return out
}

func (s *Service) whyNotReady() string {
	if p := s.problemList(); len(p) > 0 {
		return p[0]
	}
	return "the lease authority has not registered this node yet"
}

// spawn runs f until it returns; Close waits for it. After Close has begun nothing is begun any more, and spawn says so.
func (s *Service) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	go func() { defer s.wg.Done(); f() }()
	return true
}

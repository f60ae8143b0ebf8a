package detect

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Options of a Detector.
type Options struct {
	// Secret is user:password for ZooKeeper's digest authentication; it beats what the address says.
	Secret string
	// SessionTimeout is how soon a ZooKeeper server that hangs is left for another. Default 10 s.
	SessionTimeout time.Duration
	Log            *zap.Logger
}

// Detector knows the leading master. Make it with New, then Run. Leader may be called from anywhere.
type Detector struct {
	at  address
	o   Options
	log *zap.Logger

	mu      sync.Mutex
	leader  *Leader
	problem error
	changed chan struct{} // closed at the next change of leader or problem
}

// New checks the address; whether anything is there shows in Run. The errors are Invalid.
func New(address string, o Options) (*Detector, error) {
	at, err := parse(address)
	if err != nil {
		return nil, err
	}
	if o.Secret != "" {
		var ok bool
		if at.user, at.password, ok = strings.Cut(o.Secret, ":"); !ok || at.user == "" {
			return nil, fault.New(fault.Invalid, "the secret for %s is not user:password", at)
		}
	}
	if o.SessionTimeout <= 0 {
		o.SessionTimeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &Detector{at: at, o: o, log: o.Log, changed: make(chan struct{}),
		problem: fault.New(fault.Unavailable, "ZooKeeper %s has not answered yet", at)}, nil
}

// Leader gives the leading master, nil while none is known; what is wrong, nil when all is well; and a channel that is closed when either
// changes. With a leader and a problem the leader is the last one known.
func (d *Detector) Leader() (leader *Leader, changed <-chan struct{}, problem error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leader, d.changed, d.problem
}

// set takes in what was found. keep leaves the leader as it is.
func (d *Detector) set(leader *Leader, keep bool, problem error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if keep {
		leader = d.leader
	}
	moved := leader != d.leader && !leader.Same(d.leader)
	if !moved && text(problem) == text(d.problem) {
		return
	}
	switch {
	case problem != nil:
		d.log.Warn("ZooKeeper does not tell the leading master", zap.Error(problem), zap.Bool("last known is used", leader != nil))
	case moved:
		d.log.Info("a master leads", zap.String("address", leader.Address), zap.String("hostname", leader.Hostname), zap.String("version", leader.Version))
	default:
		d.log.Info("ZooKeeper answers again; the same master leads")
	}
	d.leader, d.problem = leader, problem
	close(d.changed)
	d.changed = make(chan struct{})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Run follows the election until ctx ends.
func (d *Detector) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := d.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		d.set(nil, true, d.explain(err))
		pause(ctx, time.Second)
	}
}

// reopenAfter is how long a connection may fail until it is made anew, with the servers' names looked up again.
const reopenAfter = 30 * time.Second

// follow reads, and reads again at each change, over one connection. It returns when the connection fails for long.
func (d *Detector) follow(ctx context.Context) error {
	conn, events, err := zk.Connect(d.at.servers, d.o.SessionTimeout, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		return err
	}
	closed := context.AfterFunc(ctx, conn.Close) // ends calls under way
	defer func() {
		if closed() {
			conn.Close()
		}
	}()
	broken := make(chan struct{}, 1)
	go func() {
		for e := range events { // the connection blocks nobody when its events are read
			if e.State == zk.StateDisconnected || e.State == zk.StateExpired {
				select {
				case broken <- struct{}{}:
				default:
				}
			}
		}
	}()
	var watch <-chan zk.Event
	authenticated := d.at.user == ""
	good := time.Now()
	for ctx.Err() == nil {
		if !authenticated {
			err = conn.AddAuth("digest", []byte(d.at.user+":"+d.at.password)) // the library repeats it on each reconnection
			authenticated = err == nil
		}
		if authenticated {
			watch, err = d.look(conn, watch)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			good = time.Now()
			if wait(ctx, watch, broken) {
				watch = nil
			}
			continue
		case !lostConnection(err):
			good = time.Now() // it answers: only not what is needed
		case time.Since(good) > reopenAfter:
			return err
		}
		d.set(nil, true, d.explain(err))
		pause(ctx, time.Second)
	}
	return nil
}

// resync is how often the children are read although no watch has fired.
const resync = 15 * time.Second

// wait waits for the watch (true), or for the next look without one, which comes at once when the connection breaks.
func wait(ctx context.Context, watch <-chan zk.Event, broken <-chan struct{}) bool {
	limit := resync
	if watch == nil {
		limit = 100 * time.Millisecond
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-watch:
		return true
	case <-t.C:
	case <-broken:
	case <-ctx.Done():
	}
	return false
}

// look reads once and sets a watch when there is none. The watch that stands is given back; an error leaves the last leader known.
func (d *Detector) look(conn *zk.Conn, watch <-chan zk.Event) (<-chan zk.Event, error) {
	children, watch, err := d.children(conn, watch)
	if errors.Is(err, zk.ErrNoNode) {
		if watch == nil {
			exists, _, event, err := conn.ExistsW(d.at.path)
			if err != nil || exists { // made meanwhile: the next look finds it
				return nil, err
			}
			watch = event
		}
		d.set(nil, false, fault.New(fault.NotFound, "ZooKeeper %s: there is no such path: no master was ever registered there (is it the path of the masters' --zk?)", d.at))
		return watch, nil
	}
	if err != nil {
		return watch, err
	}
	name := leading(children)
	switch {
	case name == "":
		d.set(nil, false, fault.New(fault.Unavailable, "ZooKeeper %s: no master leads", d.at))
		return watch, nil
	case strings.HasPrefix(name, binaryLabel):
		d.set(nil, false, fault.New(fault.Invalid, "ZooKeeper %s: the leading master (%s) registered in the form of Mesos before 0.24; Mesos 1.4 or later is needed", d.at, name))
		return watch, nil
	}
	data, _, err := conn.Get(d.at.path + "/" + name)
	if errors.Is(err, zk.ErrNoNode) {
		return watch, nil // gone meanwhile, so the watch fires
	}
	if err != nil {
		return watch, err
	}
	leader, err := parseInfo(data)
	if err != nil {
		d.set(nil, false, fault.Op(err, "ZooKeeper %s: what the leading master wrote into %s cannot be read", d.at, name))
		return watch, nil
	}
	d.set(leader, false, nil)
	return watch, nil
}

func (d *Detector) children(conn *zk.Conn, watch <-chan zk.Event) ([]string, <-chan zk.Event, error) {
	if watch != nil { // one watch at a time: the library keeps all that have not fired
		names, _, err := conn.Children(d.at.path)
		return names, watch, err
	}
	names, _, event, err := conn.ChildrenW(d.at.path)
	return names, event, err
}

// lostConnection tells errors of a connection from answers of ZooKeeper.
func lostConnection(err error) bool {
	for _, answer := range []error{zk.ErrNoAuth, zk.ErrAuthFailed, zk.ErrInvalidACL, zk.ErrBadArguments, zk.ErrInvalidPath} {
		if errors.Is(err, answer) {
			return false
		}
	}
	return true
}

// explain says in words what a person has to look at.
func (d *Detector) explain(err error) error {
	switch {
	case errors.Is(err, zk.ErrNoAuth) && d.at.user == "":
		return fault.New(fault.Denied, "ZooKeeper %s: its access list forbids reading: give user:password in --master-secret-file", d.at)
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed):
		return fault.New(fault.Denied, "ZooKeeper %s: its access list forbids user %q with this password to read", d.at, d.at.user)
	}
	return fault.Wrap(fault.Unavailable, err, "ZooKeeper %s does not answer", d.at)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Package embedded is the master of the embedded engine: to frameworks and operators it is an
// Apache Mesos master (v1 scheduler and operator HTTP API, JSON and protobuf, RecordIO event
// streams), made for one machine. Its agents are objects of the package agent below, which the
// `holdfast dev` supervisor makes and connects:
//
//	m, err := embedded.New(embedded.Config{Dir: dir, Listen: "127.0.0.1:0", Logger: log})
//	if err != nil { … }
//	go m.Serve(ctx)                       // until ctx is done
//	link := m.Link("agent-0")             // the wire of one agent, by a name of the supervisor's choice
//	a := agent.New(agent.Config{Master: link, …})
//	link.Cut()                            // pull the cable: nothing passes, in either direction
//	link.Heal()                           // put it back: the agent has to reregister, as after a broken connection
//	link.Hangup()                         // the agent's process died: its connection breaks at once
//	fmt.Println(m.Addr(), m.Agents())
//
// How it is built: all state is in Master, under one mutex that is never held over I/O. Events to
// frameworks go into bounded queues (wire.Stream), messages to agents into a queue per link, so
// nobody slow holds up anybody else. What has to survive a restart (the master's own id, admitted
// agents, frameworks, what has been decided about them) is written to the registry before it is
// told to anyone; a second mutex, taken first, orders those decisions. Tasks come back with their
// agents. One goroutine does what time brings: allocation cycles, heartbeats, lost agents, failover
// timeouts.
//
// Pure parts live below: resource (arithmetic), allocator (who is offered what), validate (Mesos's
// checks in Mesos's words), wire (encoding and streams), registry (the file), view (what /state shows).
// The replay test compares the engine with recorded exchanges of a real Mesos.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/embedded/allocator"
	"github.com/holdfast-io/holdfast/framework/embedded/registry"
)

// Version is the Mesos version the engine plays.
const Version = "1.11.0"

// Config says how a master runs.
type Config struct {
	// Dir keeps the registry; made when it is not there.
	Dir string
	// Listen is host:port; port 0 takes a free one.
	Listen string
	// Hostname is what the master calls itself; default the host of Listen.
	Hostname string
	// Credentials are secrets by principal. Not empty means that every request needs HTTP basic authentication.
	Credentials map[string]string
	Logger      *zap.Logger
	Timing      Timing
}

// Timing are the master's intervals; zero values mean the defaults given.
type Timing struct {
	// Allocation is the time between two allocation cycles, and the least time a filter lasts; default 200 ms.
	Allocation time.Duration
	// Recovered is how soon after resources came back they are offered anew; default 10 ms. Negative: with the next cycle, as Mesos does.
	Recovered time.Duration
	// Heartbeat is the time between two HEARTBEAT events; default 15 s.
	Heartbeat time.Duration
	// Offer is how long an offer stands before it is rescinded; 0 means for ever.
	Offer time.Duration
	// AgentLost is how long after an agent's last sign of life it counts as unreachable; default 4 s.
	AgentLost time.Duration
	// AgentReregister is how long after the master's start agents that it knows may take to come back; default 15 s.
	AgentReregister time.Duration
	// StreamWrite bounds one write to a subscriber; default 10 s.
	StreamWrite time.Duration
}

func orDefault(v *time.Duration, d time.Duration) {
	if *v == 0 {
		*v = d
	}
}

func (t *Timing) defaults() {
	orDefault(&t.Allocation, 200*time.Millisecond)
	orDefault(&t.Recovered, 10*time.Millisecond)
	orDefault(&t.Heartbeat, 15*time.Second)
	orDefault(&t.AgentLost, 4*time.Second)
	orDefault(&t.AgentReregister, 15*time.Second)
	orDefault(&t.StreamWrite, 10*time.Second)
}

// streamQueue is how many events a subscriber may lag behind before it is cut off. A reconciliation of all tasks has to
// fit; somebody who reads nothing at all is cut off sooner, by Timing.StreamWrite.
const streamQueue = 1 << 18

// New opens the registry and the listening socket, but serves nothing yet. The errors say which of them failed.
func New(cfg Config) (*Master, error) {
	cfg.Timing.defaults()
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("engine master: %w", err)
	}
	reg, err := registry.Open(cfg.Dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("engine master: %w", err), ln.Close())
	}
	now := time.Now()
	m := &Master{
		cfg: cfg, log: cfg.Logger, timing: cfg.Timing, reg: reg, ln: ln, id: reg.MasterID(), started: now,
		alloc:     allocator.New(cfg.Timing.Allocation),
		clock:     time.Now,
		fws:       map[string]*framework{},
		completed: map[string]*framework{},
		agents:    map[string]*agentState{},
		recovered: map[string]recoveredAgent{},
		lost:      map[string]lostAgent{},
		gone:      map[string]time.Time{},
		offers:    map[string]*offer{},
		links:     map[string]*Link{},
		wake:      make(chan struct{}, 1),
	}
	m.describe()
	if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() && len(cfg.Credentials) == 0 {
		cfg.Logger.Warn("engine master: listens beyond this machine without credentials: whoever reaches it can run commands here",
			zap.String("address", ln.Addr().String()))
	}
	if err := m.recover(now); err != nil {
		return nil, errors.Join(fmt.Errorf("engine master: %w", err), ln.Close(), reg.Close())
	}
	m.server = &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: zap.NewStdLog(cfg.Logger.Named("http"))}
	return m, nil
}

// describe fills in what the master tells of itself.
func (m *Master) describe() {
	addr := m.ln.Addr().(*net.TCPAddr)
	host := m.cfg.Hostname
	if host == "" {
		host, _, _ = net.SplitHostPort(m.cfg.Listen)
	}
	if host == "" {
		host = addr.IP.String()
	}
	ip := addr.IP.String()
	var ip4 uint32
	if v4 := addr.IP.To4(); v4 != nil {
		ip4 = uint32(v4[0]) | uint32(v4[1])<<8 | uint32(v4[2])<<16 | uint32(v4[3])<<24
	}
	port := uint32(addr.Port)
	m.info = mesos.MasterInfo{
		ID: m.id, IP: ip4, Port: &port, Hostname: &host, Version: str(Version),
		PID:     str("master@" + net.JoinHostPort(ip, strconv.Itoa(addr.Port))),
		Address: &mesos.Address{Hostname: &host, IP: &ip, Port: int32(addr.Port)},
		Capabilities: []mesos.MasterInfo_Capability{
			{Type: mesos.MasterInfo_Capability_AGENT_UPDATE}, {Type: mesos.MasterInfo_Capability_AGENT_DRAINING}},
	}
}

// Addr is the address the master listens on, host:port.
func (m *Master) Addr() string { return m.ln.Addr().String() }

// URL is the master's HTTP address, e.g. http://127.0.0.1:5050.
func (m *Master) URL() string { return (&url.URL{Scheme: "http", Host: m.Addr()}).String() }

// ID is the master's id, the same after every start on the same directory.
func (m *Master) ID() string { return m.id }

// Serve runs the master until ctx is done, then closes it. It returns nil then, and otherwise what went wrong.
func (m *Master) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { m.loop(ctx) })
	failed := make(chan error, 1)
	go func() { failed <- m.server.Serve(m.ln) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	cancel()
	wg.Wait()
	m.Close()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("engine master: %w", err)
	}
	return nil
}

// Close cuts every stream as a process that ends does, and closes socket and registry. Serve does it in the end; only
// a master that was never served needs it.
func (m *Master) Close() {
	_ = m.server.Close()
	_ = m.ln.Close()
	m.admin.Lock()
	defer m.admin.Unlock()
	m.mu.Lock()
	links := make([]*Link, 0, len(m.links))
	for _, l := range m.links {
		links = append(links, l)
	}
	m.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	_ = m.reg.Close()
}

func str(s string) *string { return &s }

func newUUID() []byte {
	id := uuid.New()
	return id[:]
}

package embedded

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
)

// Link is the wire between the master and one agent, by a name the supervisor chose. It implements
// agent.Master for the agent's side. Messages to the agent go through a queue in order; what is
// under way when the connection breaks is lost, as on a network.
type Link struct {
	m       *Master
	key     string
	agentID string // of the agent registered over it; guarded by m.mu

	mu      sync.Mutex
	cut     bool
	handle  agent.Handle // where messages go; nil while there is no connection
	session uint64       // counts connections
	queue   []message
	wake    chan struct{}
	done    chan struct{}
	calling sync.Mutex // held while a message is handed over
}

type message struct {
	to   agent.Handle
	call func(agent.Handle)
}

var _ agent.Master = (*Link)(nil)

// Link returns the wire of that name, made at the first call.
func (m *Master) Link(key string) *Link {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.links[key]
	if l == nil {
		l = &Link{m: m, key: key, wake: make(chan struct{}, 1), done: make(chan struct{})}
		m.links[key] = l
		go l.run()
	}
	return l
}

// Cut pulls the cable: every call of the agent returns agent.ErrCut, and nothing reaches the agent any more,
// from before Cut returns. The master notices only when the agent's signs of life stay away.
func (l *Link) Cut() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.calling.Lock() // a message being handed over gets through; none after it
	defer l.calling.Unlock()
	l.mu.Lock()
	l.queue = nil
	l.mu.Unlock()
}

// Heal undoes Cut. The connection is a new one: the agent has to reregister before anything is sent to it.
func (l *Link) Heal() {
	l.mu.Lock()
	was := l.cut
	l.cut = false
	l.mu.Unlock()
	if was {
		l.Hangup()
	}
}

// Hangup breaks the connection at once, as the end of the agent's process does: its offers are rescinded, and
// it counts as disconnected until it reregisters or is given up.
func (l *Link) Hangup() {
	l.attach(nil)
	l.m.agentDisconnected(l)
}

// IsCut says whether the cable is pulled.
func (l *Link) IsCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// attach makes h the peer; what was queued for another one is dropped.
func (l *Link) attach(h agent.Handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handle != h {
		l.handle, l.queue = h, nil
		l.session++
	}
}

// send queues a message to the peer and returns the session it belongs to; without a connection it is lost.
func (l *Link) send(call func(agent.Handle)) (session uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut || l.handle == nil {
		return 0
	}
	l.queue = append(l.queue, message{l.handle, call})
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return l.session
}

func (l *Link) currentSession() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

func (l *Link) run() {
	for {
		select {
		case <-l.done:
			return
		case <-l.wake:
		}
		for l.deliver() {
		}
	}
}

// deliver hands over the oldest message; false when there is none.
func (l *Link) deliver() bool {
	l.calling.Lock()
	defer l.calling.Unlock()
	l.mu.Lock()
	if len(l.queue) == 0 {
		l.mu.Unlock()
		return false
	}
	msg := l.queue[0]
	l.queue = l.queue[1:]
	ok := !l.cut && l.handle == msg.to
	l.mu.Unlock()
	if ok {
		msg.call(msg.to)
	}
	return true
}

// farewell tells a peer that it is gone for good, ahead of the link's being given up.
func (l *Link) farewell(h agent.Handle) {
	if !l.IsCut() {
		go h.Shutdown()
	}
}

func (l *Link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.queue = true, nil
	select {
	case <-l.done:
	default:
		close(l.done)
	}
}

// Register implements agent.Master.
func (l *Link) Register(ctx context.Context, r agent.Registration) (mesos.AgentID, error) {
	if err := l.usable(ctx); err != nil {
		return mesos.AgentID{}, err
	}
	id, err := l.m.register(l, r)
	if err == nil {
		err = l.usable(ctx) // the answer travels the same wire
	}
	return id, err
}

// Reregister implements agent.Master.
func (l *Link) Reregister(ctx context.Context, r agent.Reregistration) error {
	if err := l.usable(ctx); err != nil {
		return err
	}
	if err := l.m.reregister(l, r); err != nil {
		return err
	}
	return l.usable(ctx)
}

// StatusUpdate implements agent.Master.
func (l *Link) StatusUpdate(ctx context.Context, framework mesos.FrameworkID, status mesos.TaskStatus, latest mesos.TaskState) error {
	if err := l.usable(ctx); err != nil {
		return err
	}
	return l.m.statusUpdate(l, framework.Value, status, latest)
}

// Pong implements agent.Master.
func (l *Link) Pong(ctx context.Context, id mesos.AgentID) error {
	if err := l.usable(ctx); err != nil {
		return err
	}
	return l.m.pong(l, id.Value)
}

func (l *Link) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.IsCut() {
		return agent.ErrCut
	}
	return nil
}

// AgentStatus is one agent as the master sees it.
type AgentStatus struct {
	// Key is the name of the agent's Link; empty when the agent has not been seen since the master's start.
	Key string
	ID  string
	// Hostname and URL are as the agent gave them.
	Hostname, URL string
	// State is registered, disconnected, recovered (known from before the master's start), unreachable or gone.
	State string
	// Cut says that the cable is pulled, which the master itself does not know.
	Cut bool
	// Deactivated says that the agent is not offered (drained, or deactivated by an operator).
	Deactivated bool
	Tasks       int
	Since       time.Time
}

// Agents lists every agent the master knows, by id.
func (m *Master) Agents() []AgentStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []AgentStatus
	for _, a := range m.agents {
		s := AgentStatus{Key: a.link.key, ID: a.id, Hostname: a.info.Hostname, URL: a.url, State: "registered",
			Cut: a.link.IsCut(), Deactivated: a.deactivated, Tasks: len(a.tasks), Since: a.registered}
		if !a.connected {
			s.State = "disconnected"
		}
		out = append(out, s)
	}
	for id, a := range m.recovered {
		out = append(out, AgentStatus{ID: id, Hostname: a.info.Hostname, State: "recovered", Since: a.rec.Since})
	}
	for id, a := range m.lost {
		out = append(out, AgentStatus{ID: id, Hostname: a.info.Hostname, State: "unreachable", Since: a.since})
	}
	for id, t := range m.gone {
		out = append(out, AgentStatus{ID: id, State: "gone", Since: t})
	}
	slices.SortFunc(out, func(a, b AgentStatus) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

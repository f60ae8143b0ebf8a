package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/supervise"
	"github.com/holdfast-io/holdfast/framework/embedded"
	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/internal/fault"
	authority "github.com/holdfast-io/holdfast/isolator/lease/embedded"
)

// The states of a node, as `holdfast dev agent list` shows them.
const (
	nodeUp      = "up"
	nodeStopped = "stopped" // the agent process is gone, tasks and node helper go on
	nodeOff     = "off"     // killed with everything on it
)

// node is one machine of the cluster: an agent, its cable to the master, a node helper in a process of its own, and that one's
// cable to the lease authority. Its methods may be called concurrently; they take turns.
type node struct {
	name     string
	zone     string
	rack     string
	layout   Layout
	log      *zap.Logger
	spawn    *supervise.Spawner
	holdfast string // path of the holdfast program
	pool     string // options of the pool
	backups  string // --backup-config

	agent *agent.Agent
	url   string // of the agent's endpoint
	link  *embedded.Link
	claim *authority.Listener // its way to the authority

	mu       sync.Mutex
	state    string
	isolator *supervise.Child
	boot     string
}

// start boots the node: the agent first, so that the helper finds out its id at once.
func (n *node) start(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nodeUp {
		return fault.New(fault.Conflict, "agent %s is up already", n.name)
	}
	if n.state != nodeStopped {
		if err := n.claim.Heal(); err != nil {
			return fault.Wrap(fault.Unavailable, err, "start agent %s", n.name)
		}
		n.link.Heal()
	}
	if err := n.agent.Start(ctx); err != nil {
		return fault.Wrap(fault.Unavailable, err, "start agent %s", n.name)
	}
	if n.isolator == nil {
		c, err := supervise.Start(&supervise.Child{Name: "isolator-" + n.name, Command: n.isolatorCommand, LogFile: n.layout.Log("isolator-" + n.name),
			Grace: 10 * time.Second, Spawn: n.spawn, Log: n.log})
		if err != nil {
			n.agent.Stop()
			return err
		}
		n.isolator = c
	}
	n.state = nodeUp
	return nil
}

func (n *node) isolatorCommand() *exec.Cmd {
	cmd := exec.Command(n.holdfast, "isolator",
		"--dir", filepath.Join(n.layout.Node(n.name), "isolator"),
		"--socket", n.layout.nodeSocket(n.name),
		"--authority", "unix://"+n.layout.nodeAuthority(n.name),
		"--agent-url", n.url,
		"--pool", strings.TrimSuffix("pool="+n.layout.Pool()+",scope=cluster,"+n.pool, ","), "--drain", "--backup-config", n.backups,
		"--docker-socket", "", // several nodes on one machine: Docker could know one of them only
		"--hostname", n.name, "--zone", n.zone, "--attribute", "rack="+n.rack,
		"--boot-id", n.boot)
	cmd.Env = append(os.Environ(), n.mark())
	return cmd
}

// mark is in the environment of this node's helper and of the watchdog that it starts.
func (n *node) mark() string { return n.layout.mark() + "/" + n.name }

// stop ends the agent process as kill -9 would; tasks and node helper go on.
func (n *node) stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state != nodeUp {
		return fault.New(fault.Conflict, "agent %s is %s, not up", n.name, n.state)
	}
	n.agent.Stop()
	n.link.Hangup()
	n.state = nodeStopped
	return nil
}

// kill is the loss of the machine: its cables are dead, every process on it is killed, and what it had mounted is gone.
// hangup says whether the master notices at once (a closed connection) or only by silence.
func (n *node) kill() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nodeOff {
		return fault.New(fault.Conflict, "agent %s is off already", n.name)
	}
	n.link.Cut()
	n.claim.Cut()
	n.state = nodeOff
	helper := n.isolator
	n.isolator = nil
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if helper != nil {
			helper.Kill()
		}
	}()
	errAgent := n.agent.Kill()
	killed, errHelper := supervise.KillMarked(n.mark(), 5*time.Second) // the helper's watchdog
	<-ended
	supervise.Reap(killed) // after the helper, for which somebody waits, has been reaped
	n.boot = uuid.NewString()
	return errors.Join(fault.Wrap(fault.Internal, errAgent, "kill agent %s", n.name), errHelper, n.clean())
}

// clean takes away what a machine without power has not: mounts and sockets.
func (n *node) clean() error {
	err := errors.Join(agent.Cleanup(n.agent.Dir()), unmountBelow(n.layout.Node(n.name)))
	if rerr := os.Remove(n.layout.nodeSocket(n.name)); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}

// partition cuts the agent from the master, the node helper from the authority, or both.
func (n *node) partition(fromMaster, fromAuthority bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nodeOff {
		return fault.New(fault.Conflict, "agent %s is off", n.name)
	}
	if fromMaster {
		n.link.Cut()
	}
	if fromAuthority {
		n.claim.Cut()
	}
	return nil
}

func (n *node) heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nodeOff {
		return fault.New(fault.Conflict, "agent %s is off: `holdfast dev agent start %s` boots it", n.name, n.name)
	}
	if err := n.claim.Heal(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "heal agent %s", n.name)
	}
	n.link.Heal()
	return nil
}

// crashHelper is kill -9 of the node helper alone; its watchdog and the tasks go on, and it is started again at once.
func (n *node) crashHelper() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isolator == nil {
		return fault.New(fault.Conflict, "agent %s is %s: no helper runs", n.name, n.state)
	}
	return n.isolator.Crash(true)
}

// shutdown stops the node in good order: tasks, their volumes, then the helper.
func (n *node) shutdown(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	switch n.state {
	case nodeOff, "":
	case nodeStopped:
		// Tasks can only be ended in good order by an agent that runs.
		if err := n.agent.Start(ctx); err != nil {
			errs = append(errs, err)
		}
		fallthrough
	default:
		if err := n.agent.Close(ctx); err != nil {
			errs = append(errs, fault.Op(err, "stop agent %s", n.name))
		}
	}
	if n.isolator != nil {
		n.isolator.Stop()
		n.isolator = nil
	}
	// The helper's watchdog stays while anything is managed; after a good stop nothing is.
	if _, err := supervise.KillMarked(n.mark(), 5*time.Second); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, n.clean())
	n.state = nodeOff
	return errors.Join(errs...)
}

// NodeStatus is what `holdfast dev agent list` shows of a node.
type NodeStatus struct {
	Name     string            `json:"name"`
	State    string            `json:"state"` // up, stopped, off
	Agent    string            `json:"agent,omitempty"`
	URL      string            `json:"url,omitempty"`
	Zone     string            `json:"zone"`
	Rack     string            `json:"rack"`
	Cut      []string          `json:"cut,omitempty"` // master, authority
	Tasks    []string          `json:"tasks"`
	Isolator *supervise.Status `json:"isolator,omitempty"`
}

func (n *node) status() NodeStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := NodeStatus{Name: n.name, State: n.state, Agent: n.agent.ID(), URL: n.agent.URL(), Zone: n.zone, Rack: n.rack, Tasks: []string{}}
	if n.link.IsCut() {
		s.Cut = append(s.Cut, "master")
	}
	if n.claim.IsCut() {
		s.Cut = append(s.Cut, "authority")
	}
	if n.state != nodeOff {
		for _, t := range n.agent.Tasks() {
			s.Tasks = append(s.Tasks, fmt.Sprintf("%s (%s)", t.ID, t.State))
		}
	}
	if n.isolator != nil {
		c := n.isolator.Status()
		s.Isolator = &c
	}
	return s
}

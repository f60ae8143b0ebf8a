package dev

import (
	"fmt"
	"hash/fnv"
	"net"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Task ports come in blocks, below the range that the kernel hands out for outgoing connections. Every agent has a block of its
// own for good (a Mesos agent must not change its resources), so that no two agents of any clusters that run on this machine offer the
// same port.
const (
	portsFirst = 10000
	portsBlock = 200
	portBlocks = 110
)

// portBlock is a block that this process has, for as long as the listener is open. The lock is an abstract unix socket: it
// belongs to the network namespace, as ports do, it works across users, and it goes with the process.
type portBlock struct {
	first int
	lock  net.Listener
}

// takePorts takes a free block; where it begins to look depends on who asks, so that clusters that do not run at the same time
// seldom choose the same.
func takePorts(asker string) (*portBlock, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(asker))
	begin := int(h.Sum32() % portBlocks)
	for i := range portBlocks {
		if b, err := lockPorts(portsFirst + (begin+i)%portBlocks*portsBlock); err == nil {
			return b, nil
		}
	}
	return nil, fault.New(fault.Unavailable, "%d agents run on this machine already: no block of task ports is left", portBlocks)
}

// lockPorts takes the block that begins at first.
func lockPorts(first int) (*portBlock, error) {
	lock, err := net.Listen("unix", fmt.Sprintf("@holdfast-dev-ports-%d", first))
	if err != nil {
		return nil, fault.Wrap(fault.Conflict, err, "task ports %d to %d are those of an agent of another cluster that runs now: stop that one first", first, first+portsBlock-1)
	}
	return &portBlock{first: first, lock: lock}, nil
}

// checkPort tells whether the API's port can be had.
func checkPort(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "port %d cannot be had: choose another with --port, or stop what uses it (ss -ltnp 'sport = :%d')", port, port)
	}
	return l.Close()
}

package dev

import (
	"fmt"
	"net"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Task ports come in blocks below the range that the kernel hands out for outgoing connections. A cluster takes one block and
// deals it out to its agents, so that no two agents of any cluster on this machine offer the same port.
const (
	portsFirst = 20000
	portsBlock = 1000
	portBlocks = 12
)

// portBlock is a block that this process has, for as long as the listener is open. The lock is an abstract unix socket: it
// belongs to the network namespace, as ports do, it works across users, and it goes with the process.
type portBlock struct {
	first int
	lock  net.Listener
}

// takePorts takes the preferred block if it can, else the first free one from the top.
func takePorts(preferred int) (*portBlock, error) {
	try := []int{preferred}
	for i := portBlocks - 1; i >= 0; i-- {
		try = append(try, portsFirst+i*portsBlock)
	}
	for _, first := range try {
		if first < portsFirst || (first-portsFirst)%portsBlock != 0 || first >= portsFirst+portBlocks*portsBlock {
			continue
		}
		lock, err := net.Listen("unix", fmt.Sprintf("@holdfast-dev-ports-%d", first))
		if err == nil {
			return &portBlock{first: first, lock: lock}, nil
		}
	}
	return nil, fault.New(fault.Unavailable, "%d clusters run on this machine already: no block of task ports is left", portBlocks)
}

// forAgent gives the inclusive range of agent i of n.
func (b *portBlock) forAgent(i, n int) (first, last int) {
	each := portsBlock / n
	return b.first + i*each, b.first + (i+1)*each - 1
}

// checkPort tells whether the API's port can be had.
func checkPort(port int) error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return fault.Wrap(fault.Conflict, err, "port %d cannot be had: choose another with --port, or stop what uses it (ss -ltnp 'sport = :%d')", port, port)
	}
	return l.Close()
}

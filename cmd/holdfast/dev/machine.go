package dev

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// machine is what an agent is made of, nodes/<agent>/machine.json. It is fixed when the agent is made: a Mesos agent with another
// amount of resources or other attributes would have to be another agent.
type machine struct {
	CPUs  float64 `json:"cpus"`
	MemMB float64 `json:"mem"`
	Disk  float64 `json:"disk"`
	Ports int     `json:"ports"` // first of its block
	Zone  string  `json:"zone"`
	Rack  string  `json:"rack"`
}

// openMachine reads what an agent is made of, or makes it as asked, and takes its ports.
func openMachine(dir string, asked machine) (machine, *portBlock, error) {
	name := filepath.Join(dir, "machine.json")
	raw, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return makeMachine(name, asked)
	}
	if err != nil {
		return machine{}, nil, fault.Wrap(fault.Unavailable, err, "read what the agent is made of")
	}
	var m machine
	if err := json.Unmarshal(raw, &m); err != nil || m.Ports < portsFirst || m.Ports >= portsFirst+portBlocks*portsBlock {
		return machine{}, nil, fault.New(fault.Conflict, "%s is damaged (%v); remove %s to make the agent anew, without its tasks", name, err, dir)
	}
	block, err := lockPorts(m.Ports)
	return m, block, err
}

func makeMachine(name string, m machine) (machine, *portBlock, error) {
	block, err := takePorts(name)
	if err != nil {
		return machine{}, nil, err
	}
	m.Ports = block.first
	raw, err := json.Marshal(m)
	if err == nil {
		err = writeFile(name, append(raw, '\n'))
	}
	if err != nil {
		block.lock.Close()
		return machine{}, nil, fault.Wrap(fault.Unavailable, err, "write what the agent is made of")
	}
	return m, block, nil
}

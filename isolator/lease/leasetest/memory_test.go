package leasetest

import "testing"

func TestMemory(t *testing.T) {
	Registers(t, func(*testing.T) Server { return NewMemory() })
}

func TestTransitions(t *testing.T) {
	Transitions(t, func(*testing.T) Server { return NewMemory() })
}

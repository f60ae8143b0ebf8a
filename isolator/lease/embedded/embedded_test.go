package embedded

import (
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/leasetest"
)

type served struct {
	t        *testing.T
	server   *Server
	listener *Listener
}

func serveAt(t *testing.T, file string) *served {
	t.Helper()
	s, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l, err := s.Listen(filepath.Join(filepath.Dir(file), "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	return &served{t, s, l}
}

func serveNew(t *testing.T) leasetest.Server {
	return serveAt(t, filepath.Join(t.TempDir(), "registers.db"))
}

func (s *served) Client() lease.Registers {
	c, err := Dial("unix://" + s.listener.Path())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestRegisters(t *testing.T) { leasetest.Registers(t, serveNew) }

type owned struct{ *served }

func (o owned) Client() lease.Registers { return o.server.Registers() }

func TestLocalRegisters(t *testing.T) {
	leasetest.Registers(t, func(t *testing.T) leasetest.Server { return owned{serveNew(t).(*served)} })
}

func TestTransitions(t *testing.T) { leasetest.Transitions(t, serveNew) }

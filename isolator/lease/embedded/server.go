// Package embedded is the lease authority of `holdfast dev`: linearizable registers in one bbolt file, served as JSON
// over unix sockets. It plays the part that ZooKeeper or Consul have in a cluster.
package embedded

import (
	"net/http"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Server holds the registers.
type Server struct{}

// Open opens or makes the file.
func Open(path string) (*Server, error) { return nil, fault.New(fault.Internal, "not built yet") }

// Handler serves the registers.
func (s *Server) Handler() http.Handler { return http.NotFoundHandler() }

// Registers gives the registers without a socket, for the process that owns the server.
func (s *Server) Registers() lease.Registers { return nil }

// Close ends every call and closes the file.
func (s *Server) Close() error { return nil }

// Listen serves the registers on a unix socket at path, which only this user can open.
func (s *Server) Listen(path string) (*Listener, error) {
	return nil, fault.New(fault.Internal, "not built yet")
}

// Listener is one node's way to the server. All methods may be called concurrently and again.
type Listener struct{}

// Cut closes the socket and severs every connection, as a pulled cable does.
func (l *Listener) Cut() {}

// Heal opens the socket again.
func (l *Listener) Heal() error { return nil }

// IsCut tells whether it is cut.
func (l *Listener) IsCut() bool { return false }

// Path is the socket's path.
func (l *Listener) Path() string { return "" }

// Close closes it for good.
func (l *Listener) Close() error { return nil }

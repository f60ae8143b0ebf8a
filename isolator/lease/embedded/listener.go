package embedded

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Listener is one way to a Server: a unix socket that can be cut and healed. The supervisor gives each node its own, so that one node
// loses the authority while the others keep it. All methods may be called concurrently and again.
type Listener struct {
	server *Server
	path   string

	mu     sync.Mutex
	http   *http.Server // nil while cut or closed
	socket net.Listener
	closed bool
}

// Listen serves the registers on a unix socket at path, which only this user can open. A socket file that is left from
// before is replaced. Close of the server closes it, too.
func (s *Server) Listen(path string) (*Listener, error) {
	l := &Listener{server: s, path: path}
	if err := l.Heal(); err != nil {
		return nil, err
	}
	s.listeners.Store(l, struct{}{})
	return l, nil
}

// Path is the socket's path.
func (l *Listener) Path() string { return l.path }

// IsCut tells whether it is cut (or closed).
func (l *Listener) IsCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.http == nil
}

// Cut closes the socket and severs every connection in the middle of whatever it carries. Transactions that have
// reached the server may still happen; their callers do not learn of it.
func (l *Listener) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.http != nil {
		_ = l.socket.Close()
		_ = l.http.Close()
		l.http = nil
	}
}

// Heal opens the socket again.
func (l *Listener) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fault.New(fault.Unavailable, "listen on %s: closed", l.path)
	}
	if l.http != nil {
		return nil
	}
	socket, err := listenUnix(l.path)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "listen on %s", l.path)
	}
	l.http = &http.Server{Handler: l.server.Handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	l.socket = socket
	go func(h *http.Server) { _ = h.Serve(socket) }(l.http)
	return nil
}

// Close closes it for good.
func (l *Listener) Close() error {
	l.Cut()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.server.listeners.Delete(l)
	return nil
}

// listenUnix binds under a temporary name and renames, so that the path always is either nothing or a
// socket with the right mode, and a stale file does no harm.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	temporary := path + "~"
	if err := os.Remove(temporary); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // its own name is gone after the rename
	if err = os.Chmod(temporary, 0o600); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(temporary)
		return nil, err
	}
	return &unixListener{UnixListener: l, path: path}, nil
}

type unixListener struct {
	*net.UnixListener
	path string
	once sync.Once
}

// Close removes the path once: by the second call it may be that of the next listener.
func (l *unixListener) Close() (err error) {
	l.once.Do(func() {
		err = l.UnixListener.Close()
		_ = os.Remove(l.path)
	})
	return err
}

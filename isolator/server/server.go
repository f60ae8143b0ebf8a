// Package server is the isolator's socket: HTTP and JSON on a unix socket, as isolator/client describes. Whoever may open the
// socket may mount; its mode and owner decide who that is. Who called is taken from the socket's peer credentials and from /proc.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Options of Listen.
type Options struct {
	Socket string
	Mode   fs.FileMode // of the socket; 0 is 0660
	Group  int         // its group; -1 leaves it
	Log    *zap.Logger
	// Handler answers instead of the isolator's own calls: another face of the same isolator, on a socket of its own.
	Handler http.Handler
	// Remove takes the socket away at the end of Serve: where others look for it, one that nobody answers on holds them up.
	Remove bool
}

// Server serves one isolator.
type Server struct {
	service *isolator.Service
	log     *zap.Logger
	http    *http.Server
	ln      net.Listener
	path    string
	made    fs.FileInfo // the socket, when it is to be removed at the end
}

// Listen opens the socket. A socket that a dead isolator left behind is replaced; one that somebody answers on is Conflict, and
// anything else in its place is left alone.
func Listen(s *isolator.Service, o Options) (*Server, error) {
	if o.Mode == 0 {
		o.Mode = 0o660
	}
	if len(o.Socket) > 107 {
		return nil, fault.New(fault.Invalid, "socket path %s is longer than the kernel's 107 bytes", o.Socket)
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o755); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "listen on %s", o.Socket)
	}
	if err := clearStale(o.Socket); err != nil {
		return nil, err
	}
	ln, err := listen(o)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "listen on %s", o.Socket)
	}
	srv := &Server{service: s, log: o.Log, ln: ln, path: o.Socket}
	srv.http = &http.Server{
		Handler:           o.Handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(o.Log.Named("http")),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peer(c))
		},
	}
	if o.Remove {
		if srv.made, err = os.Lstat(o.Socket); err != nil {
			ln.Close()
			return nil, fault.Wrap(fault.Unavailable, err, "listen on %s", o.Socket)
		}
	}
	if o.Handler == nil {
		srv.http.Handler = srv.routes()
	}
	return srv, nil
}

// listen makes the socket under another name, gives it its mode, and moves it into place, so that it never is there with the wrong one.
func listen(o Options) (net.Listener, error) {
	tmp := filepath.Join(filepath.Dir(o.Socket), "."+strconv.FormatInt(int64(os.Getpid()), 36)) // short: the kernel's limit holds for it too
	_ = os.Remove(tmp)
	ln, err := net.Listen("unix", tmp)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(tmp, o.Mode)
	if err == nil && o.Group >= 0 {
		err = os.Chown(tmp, -1, o.Group)
	}
	if err == nil {
		err = os.Rename(tmp, o.Socket)
	}
	if err != nil {
		ln.Close()
		os.Remove(tmp)
		return nil, err
	}
	return ln, nil
}

func clearStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "listen on %s", path)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fault.New(fault.Conflict, "listen on %s: there is something else that is no socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fault.New(fault.Conflict, "listen on %s: another isolator answers there", path)
	}
	return nil // renaming over it replaces it
}

// Serve answers until ctx ends, then lets calls under way finish for a moment. Their operations go on in the service.
func (s *Server) Serve(ctx context.Context) error {
	defer s.removeSocket()
	done := make(chan error, 1)
	go func() { done <- s.http.Serve(s.ln) }()
	select {
	case err := <-done:
		return fault.Wrap(fault.Internal, err, "serve on %s", s.path)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(stop) != nil {
		s.http.Close()
	}
	return nil
}

// removeSocket removes the socket unless another isolator has put its own in the place.
func (s *Server) removeSocket() {
	if s.made == nil {
		return
	}
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
		_ = os.Remove(s.path)
	}
}

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	post(m, s, "/v1/mount", s.mount)
	post(m, s, "/v1/unmount", s.unmount)
	post(m, s, "/v1/create", s.create)
	post(m, s, "/v1/remove", s.remove)
	post(m, s, "/v1/get", s.get)
	post(m, s, "/v1/path", s.where)
	post(m, s, "/v1/list", s.list)
	post(m, s, "/v1/drain", s.drain)
	m.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.service.Status()) })
	m.HandleFunc("GET /v1/version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"version": s.service.Version()})
	})
	m.HandleFunc("GET /v1/capabilities", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"drivers": s.service.Capabilities()})
	})
	m.HandleFunc("GET /v1/health", func(w http.ResponseWriter, _ *http.Request) {
		h, status := s.service.Health(), http.StatusOK
		if !h.Ready {
			status = http.StatusServiceUnavailable
		}
		answer(w, status, h)
	})
	s.operationRoutes(m)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, fault.New(fault.NotFound, "no such call: %s %.200s", r.Method, r.URL.Path))
	})
	return m
}

// post registers a call with a JSON body.
func post[In any, Out any](m *http.ServeMux, s *Server, path string, f func(ctx context.Context, in In) (Out, error)) {
	m.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := read(w, r, &in); err != nil {
			refuse(w, err)
			return
		}
		out, err := f(r.Context(), in)
		if err != nil {
			p := callerOf(r.Context())
			s.log.Info("call refused", zap.String("call", path), zap.Int("pid", p.PID), zap.Int("uid", p.UID), zap.Error(err))
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, out)
	})
}

// bodyLimit bounds how long a body may take. It is lifted afterwards: the server's own time limit would end the request's context while
// a long mount is under way.
const bodyLimit = 30 * time.Second

func read(w http.ResponseWriter, r *http.Request, in any) error {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyLimit))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, client.MaxBody))
	_ = conn.SetReadDeadline(time.Time{})
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "read the request")
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil {
		return fault.Wrap(fault.Invalid, err, "the request is not what it should be")
	}
	if dec.More() {
		return fault.New(fault.Invalid, "the request is followed by something else")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		refuse(w, fault.Wrap(fault.Internal, err, "encode the answer"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n'))
}

func refuse(w http.ResponseWriter, err error) {
	class := fault.ClassOf(err)
	raw, _ := json.Marshal(map[string]string{"message": err.Error(), "code": string(class)})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(fault.HTTPStatus(class))
	_, _ = w.Write(append(raw, '\n'))
}

type pathAnswer struct {
	Path string `json:"path"`
}

type outcomeAnswer struct {
	Outcome string `json:"outcome"`
}

func (s *Server) mount(ctx context.Context, in client.MountRequest) (pathAnswer, error) {
	if err := checkOwner(in.Owner); err != nil {
		return pathAnswer{}, err
	}
	path, err := s.service.Mount(ctx, isolator.MountRequest{Ref: volume.Ref{Driver: in.Driver, Name: in.Name}, Options: in.Options,
		Owner: in.Owner, ExplicitCreate: in.ExplicitCreate, Caller: callerOf(ctx)})
	return pathAnswer{path}, err
}

func (s *Server) unmount(ctx context.Context, in client.UnmountRequest) (outcomeAnswer, error) {
	if err := checkOwner(in.Owner); err != nil {
		return outcomeAnswer{}, err
	}
	outcome, err := s.service.Unmount(ctx, isolator.UnmountRequest{Ref: volume.Ref{Driver: in.Driver, Name: in.Name}, Owner: in.Owner, Caller: callerOf(ctx)})
	return outcomeAnswer{outcome}, err
}

func (s *Server) create(ctx context.Context, in client.CreateRequest) (client.Volume, error) {
	info, err := s.service.Create(ctx, volume.Ref{Driver: in.Driver, Name: in.Name}, in.Options)
	return wire(in.Driver, info), err
}

func (s *Server) remove(ctx context.Context, in client.RemoveRequest) (struct{}, error) {
	do := s.service.Remove
	if in.Now {
		do = s.service.RemoveNow
	}
	return struct{}{}, do(ctx, volume.Ref{Driver: in.Driver, Name: in.Name})
}

func (s *Server) get(ctx context.Context, in client.VolumeRequest) (client.Volume, error) {
	info, err := s.service.Get(ctx, volume.Ref{Driver: in.Driver, Name: in.Name})
	return wire(in.Driver, info), err
}

func (s *Server) where(ctx context.Context, in client.VolumeRequest) (pathAnswer, error) {
	p, err := s.service.Path(ctx, volume.Ref{Driver: in.Driver, Name: in.Name})
	return pathAnswer{p}, err
}

func (s *Server) list(ctx context.Context, in client.VolumeRequest) (any, error) {
	infos, err := s.service.List(ctx, in.Driver)
	out := make([]client.Volume, 0, len(infos))
	for _, i := range infos {
		out = append(out, wire(in.Driver, i))
	}
	return map[string]any{"volumes": out}, err
}

func wire(driverName string, i driver.Info) client.Volume {
	return client.Volume{Driver: driverName, Name: i.Name, UID: i.UID, Path: i.Path, SizeBytes: int64(i.Size), Created: i.Created,
		Topology: i.Topology, Complaint: i.Complaint}
}

// checkOwner keeps what is written into the journal and shown in lists to one short word.
func checkOwner(owner string) error {
	if len(owner) > 200 || strings.ContainsFunc(owner, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fault.New(fault.Invalid, "owner must be at most 200 characters without white space")
	}
	return nil
}

type peerKey struct{}

// CallerOf gives the process that a request of this server came from, for handlers of Options.Handler.
func CallerOf(ctx context.Context) isolator.Caller { return callerOf(ctx) }

func callerOf(ctx context.Context) isolator.Caller {
	c, _ := ctx.Value(peerKey{}).(isolator.Caller)
	return c
}

// peer reads who is at the other end of a connection. The start time is read at once, while the process is surely there.
func peer(c net.Conn) isolator.Caller {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return isolator.Caller{}
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return isolator.Caller{}
	}
	var cred *unix.Ucred
	_ = raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err != nil || cred == nil {
		return isolator.Caller{}
	}
	return isolator.Caller{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid), Started: startOf(int(cred.Pid))}
}

// userHZ is the clock tick of /proc, which Linux fixes for user space.
const userHZ = 100

// startOf gives when a process started, on CLOCK_BOOTTIME, or 0.
func startOf(pid int) time.Duration {
	if pid <= 0 {
		return 0 // another pid namespace
	}
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	// The command's name may hold anything, so fields are counted after its closing parenthesis: the 22nd is start.
	text := string(raw)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	ticks, err := strconv.ParseUint(fields[19], 10, 63)
	if err != nil {
		return 0
	}
	return time.Duration(ticks) * time.Second / userHZ
}

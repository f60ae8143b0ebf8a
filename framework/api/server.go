package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api/page"
)

// Options of the API. The zero value serves a framework on the loopback address.
type Options struct {
	Log *zap.Logger
	// Hosts are names under which the API may be called, besides localhost and every address given as a number.
	Hosts []string
	// Metrics answers /metrics; nil for none.
	Metrics http.Handler
	// DefaultNetwork is the container network that apps mean when they name none.
	DefaultNetwork string
	// Now is the clock, for versions and texts; time.Now when nil.
	Now func() time.Time
}

// The limits on what one request may cost.
const (
	maxBody       = 8 << 20          // bytes of a request
	maxDefinition = 256 << 10        // bytes of one app as stored: a batch of the store takes 400 KB
	bodyTime      = 30 * time.Second // to send a request's body
	commandTime   = 40 * time.Second // for a command to be committed
	answerTime    = 60 * time.Second // to take an answer
	frameTime     = 10 * time.Second // to take one frame of a stream: slower readers are cut
)

type server struct {
	core framework.Core
	log  *zap.Logger
	opt  Options
	now  func() time.Time
	// writing is held from reading an app to the commit of its change, so that two writers do not work on one old state. It is a channel so
	// that waiting ends with the request.
	writing chan struct{}
}

// New gives the handler of the whole API. Serve gives an http.Server with the time limits it counts on.
func New(core framework.Core, o Options) http.Handler {
	s := &server{core: core, log: o.Log, opt: o, now: o.Now, writing: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	if s.now == nil {
		s.now = time.Now
	}
	r := mux.NewRouter().SkipClean(true)
	s.routesV2(r)
	s.routesV1(r)
	r.HandleFunc("/ping", s.ping).Methods(http.MethodGet, http.MethodHead)
	if o.Metrics != nil {
		r.Handle("/metrics", o.Metrics).Methods(http.MethodGet)
	}
	r.PathPrefix("/ui").Handler(http.RedirectHandler("/", http.StatusFound)).Methods(http.MethodGet)
	r.Handle("/", page.Handler()).Methods(http.MethodGet, http.MethodHead)
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.message(w, r, http.StatusNotFound, "URI not found")
	})
	r.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.message(w, r, http.StatusMethodNotAllowed, "Method Not Allowed")
	})
	return s.guard(r)
}

// Serve gives a server for a handler of New, with limits against clients that are slow on purpose or by accident.
func Serve(h http.Handler, log *zap.Logger) *http.Server {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	if log != nil {
		srv.ErrorLog = zap.NewStdLog(log)
	}
	return srv
}

// lock waits for the turn to change apps.
func (s *server) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case s.writing <- struct{}{}:
		return func() { <-s.writing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

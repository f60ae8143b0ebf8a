package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/page"
	"github.com/holdfast-io/holdfast/framework/api/v1"
	"github.com/holdfast-io/holdfast/framework/api/v2"
	"github.com/holdfast-io/holdfast/framework/marathon/schema"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Options of the API. The zero value serves a framework on the loopback address.
type Options struct {
	Log *zap.Logger
	// Hosts are names under which the API may be called, besides localhost and every address given as a number.
	Hosts []string
	// AnyHost lets every name pass: for a framework that other machines reach anyway, by names of services, proxies and balancers that it cannot know. Writes
	// of pages from other origins are refused all the same.
	AnyHost bool
	// Metrics is what /metrics tells; nil for none.
	Metrics prometheus.Gatherer
	// Origins are those whose pages may read answers ("*": all); none when empty.
	Origins []string
	// Abdicate gives the leadership up, soon; nil when that cannot be asked for.
	Abdicate func()
	// Operator carries operators' words to the lease authority; nil where there is none.
	Operator desk.Operator
	// Consul tells how the registration of services in Consul goes, for GET /v1/consul; nil when there is none.
	Consul func() any
	// DefaultNetwork is the container network that apps mean when they name none.
	DefaultNetwork string
	// Now is the clock, for versions and texts; time.Now when nil.
	Now func() time.Time
	// Patience is how long a node's answer to a question is waited for; 30 s when 0.
	Patience time.Duration
}

type server struct {
	*desk.Desk
	hosts, origins []string
	anyHost        bool
}

// New gives the handler of the whole API. Serve gives an http.Server with the time limits it counts on.
func New(core framework.Core, o Options) http.Handler {
	s := &server{Desk: &desk.Desk{Core: core, Log: o.Log, Now: o.Now, Operator: o.Operator}, origins: o.Origins, anyHost: o.AnyHost}
	for _, h := range o.Hosts {
		s.hosts = append(s.hosts, strings.ToLower(h))
	}
	if s.Log == nil {
		s.Log = zap.NewNop()
	}
	if s.Patience = o.Patience; s.Patience <= 0 {
		s.Patience = 30 * time.Second
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	r := mux.NewRouter().SkipClean(true)
	t := desk.NewTable(r)
	v2.Routes(t, s.Desk, v2.Options{DefaultNetwork: o.DefaultNetwork, Origins: o.Origins, Abdicate: o.Abdicate})
	s.classRoutes(t)
	t.Handle(http.MethodGet, "/v1/schema/app.json", "gives the JSON Schema of apps", func(w http.ResponseWriter, r *http.Request) {
		s.Raw(w, r, http.StatusOK, schema.App)
	})
	v1.Routes(t, s.Desk)
	t.Handle(http.MethodGet, "/ping", "answers pong while the framework serves", s.ping)
	t.Handle(http.MethodGet, "/openapi.json", "gives this document", func(w http.ResponseWriter, r *http.Request) {
		s.Raw(w, r, http.StatusOK, t.OpenAPI(s.Core.Info().Version))
	})
	t.Handle(http.MethodGet, "/v1/consul", "tells what is registered in Consul", func(w http.ResponseWriter, r *http.Request) {
		if o.Consul == nil {
			s.Fail(w, r, fault.New(fault.NotFound, "no services are registered in Consul: the framework was started without --consul"))
			return
		}
		s.JSON(w, r, http.StatusOK, o.Consul())
	})
	if o.Metrics != nil {
		t.Handle(http.MethodGet, "/metrics", "gives metrics in Marathon's form, and in Prometheus's to whoever asks for text", s.metrics(o.Metrics))
		t.Handle(http.MethodGet, "/metrics/prometheus", "gives metrics for Prometheus", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{}).ServeHTTP)
	}
	r.PathPrefix("/ui").Handler(http.RedirectHandler("/", http.StatusFound)).Methods(http.MethodGet)
	t.Handle(http.MethodGet, "/", "is the web page", page.Handler().ServeHTTP)
	r.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Message(w, r, http.StatusNotFound, "URI not found")
	})
	r.MethodNotAllowedHandler = s.otherMethod(r)
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

// ping answers as Marathon does: text unless only JSON will do, and nothing (204) where neither will.
func (s *server) ping(w http.ResponseWriter, r *http.Request) {
	body, kind := "pong", "text/plain; charset=utf-8"
	switch a := strings.ToLower(r.Header.Get("Accept")); {
	case a == "", strings.Contains(a, "*/*"), strings.Contains(a, "text/plain"), strings.Contains(a, "text/*"):
	case strings.Contains(a, "text/html"):
		kind = "text/html; charset=utf-8"
	case strings.Contains(a, "application/json"), strings.Contains(a, "application/*"):
		body, kind = `"pong"`, "application/json"
	default:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write([]byte(body))
}

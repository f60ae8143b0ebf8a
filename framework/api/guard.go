package api

import (
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

var slashes = regexp.MustCompile(`/+`)

// guard is what every request goes through before its handler.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.recovered(w, r)
		h := w.Header()
		h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
		h.Set("Pragma", "no-cache")
		h.Set("Expires", "0")
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-XSS-Protection", "1; mode=block")
		h.Set("X-Content-Type-Options", "nosniff")
		if in := s.Core.Info(); in.Elected && in.Leader != "" {
			scheme := "http://"
			if r.TLS != nil { // the processes of a framework are started alike
				scheme = "https://"
			}
			h.Set("X-Marathon-Leader", scheme+in.Leader)
		}
		s.cors(w, r)
		if !plainPath(r) {
			s.Message(w, r, http.StatusBadRequest, "the path cannot be read")
			return
		}
		if text := s.strange(r); text != "" {
			s.Message(w, r, http.StatusForbidden, text)
			return
		}
		if needsState(r.URL.Path) && !s.loaded() {
			h.Set("Retry-After", "1")
			s.Message(w, r, http.StatusServiceUnavailable, "the framework has not loaded its state yet")
			return
		}
		if r.ContentLength != 0 && !jsonBody(r) {
			s.Message(w, r, http.StatusUnsupportedMediaType, "Unsupported Media Type: send JSON with Content-Type: application/json")
			return
		}
		if r.ContentLength > desk.MaxBody {
			h.Set("Connection", "close")
			s.Message(w, r, http.StatusRequestEntityTooLarge, desk.TooLarge)
			return
		}
		rc := http.NewResponseController(w)
		if r.ContentLength != 0 {
			// readBody takes it away again: it would end the request's context too.
			_ = rc.SetReadDeadline(time.Now().Add(desk.BodyTime))
		}
		_ = rc.SetWriteDeadline(time.Now().Add(desk.AnswerTime + desk.CommandTime))
		r.Body = http.MaxBytesReader(w, r.Body, desk.MaxBody)
		next.ServeHTTP(w, r)
	})
}

// needsState tells whether a request would be answered wrongly (an app that "does not exist") before the state is loaded.
func needsState(path string) bool {
	switch path {
	case "/v1/info", "/v2/info", "/v2/leader":
		return false
	}
	return path == "/ping" || strings.HasPrefix(path, "/v1") || strings.HasPrefix(path, "/v2")
}

// loaded: the record of the framework is always there once the state is.
func (s *server) loaded() (ok bool) {
	s.Core.View(func(st *state.State) { ok = st.Framework != nil })
	return ok
}

// recovered answers 500 for a bug in a handler, and writes it down. Ids and definitions are not in the answer.
func (s *server) recovered(w http.ResponseWriter, r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	s.Log.Error("handler panicked", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
	s.Message(w, r, http.StatusInternalServerError, "internal error; see the framework's log")
}

// plainPath makes all the ways clients write an id's slashes one: %2F, double and trailing ones.
func plainPath(r *http.Request) bool {
	p, err := url.PathUnescape(r.URL.EscapedPath())
	if err != nil || strings.ContainsAny(p, "\x00\r\n") || len(p) > 4096 {
		return false
	}
	p = slashes.ReplaceAllString("/"+p, "/")
	if len(p) > 1 {
		p = strings.TrimSuffix(p, "/")
	}
	r.URL.Path, r.URL.RawPath = p, ""
	return true
}

// strange says what is wrong with a request that a foreign web page may have made: under a host name that is not ours (DNS
// rebinding), or a write from another origin.
func (s *server) strange(r *http.Request) string {
	host := hostname(r.Host)
	if !s.ours(host) {
		return "host name " + desk.Quoted(host) + " is not one of this server's; call it by its address, or start the framework with that name allowed"
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return ""
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return "requests that change something are refused from other origins (" + desk.Quoted(origin) + ")"
		}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
		return "requests that change something are refused from other sites"
	}
	return ""
}

func (s *server) ours(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return s.anyHost || host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil || slices.Contains(s.hosts, host)
}

func hostname(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.Trim(hostport, "[]")
}

// jsonBody tells whether the body says that it is JSON. Without a type it is taken as JSON; what a form of a foreign page can send is not.
func jsonBody(r *http.Request) bool {
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return true
	}
	mt, _, err := mime.ParseMediaType(ct)
	return err == nil && (mt == "application/json" || strings.HasSuffix(mt, "+json"))
}

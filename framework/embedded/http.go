package embedded

import (
	"crypto/subtle"
	"encoding/json"
	"net"
	"net/http"
	"strings"

	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// handler is everything the master serves.
func (m *Master) handler() http.Handler {
	mux := http.NewServeMux()
	both := func(path string, h http.HandlerFunc) {
		mux.HandleFunc(path, h)
		mux.HandleFunc("/master"+path, h)
	}
	both("/api/v1/scheduler", m.serveScheduler)
	both("/api/v1", m.serveOperator)
	both("/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	both("/version", m.get(m.versionJSON))
	both("/state", m.get(m.stateJSON))
	both("/state.json", m.get(m.stateJSON))
	both("/slaves", m.get(m.slavesJSON))
	both("/frameworks", m.get(m.frameworksJSON))
	both("/redirect", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "//"+m.Addr())
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/metrics/snapshot", m.get(m.metricsJSON))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.ownName(r.Host) {
			wire.Refuse(http.StatusForbidden, "Host '%s' is not a name of this master", r.Host).Write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ownName says whether a request was meant for this master. A name that is not known here, though it leads here, is how
// a web page makes a browser on this machine talk to services that trust it (DNS rebinding).
func (m *Master) ownName(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	return host == "localhost" || host == m.info.GetHostname() || net.ParseIP(host) != nil
}

// authenticate checks HTTP basic credentials; principal is nil when none are asked for.
func (m *Master) authenticate(w http.ResponseWriter, r *http.Request, realm string) (principal *string, ok bool) {
	if len(m.cfg.Credentials) == 0 {
		return nil, true
	}
	user, secret, given := r.BasicAuth()
	want, known := m.cfg.Credentials[user]
	if given && subtle.ConstantTimeCompare([]byte(secret), []byte(want)) == 1 && known {
		return &user, true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="`+realm+`"`)
	wire.Refuse(http.StatusUnauthorized, "401 Unauthorized.").Write(w)
	return nil, false
}

// get serves a JSON document.
func (m *Master) get(doc func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, ok := m.authenticate(w, r, "mesos-master-readonly"); !ok {
			return
		}
		if refusal := wire.OnlyMethod(r, http.MethodGet); refusal != nil {
			refusal.Write(w)
			return
		}
		b, err := json.Marshal(doc())
		if err != nil {
			wire.Refuse(http.StatusInternalServerError, "%v", err).Write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b)
	}
}

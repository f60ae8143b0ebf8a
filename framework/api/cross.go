package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"
)

// cors lets pages of other origins read answers, as Marathon does with --access_control_allow_origin. Marathon sends the last of the
// origins it was given; here it is the one that asks, if it is among them.
func (s *server) cors(w http.ResponseWriter, r *http.Request) {
	if len(s.origins) == 0 {
		return
	}
	h, allowed := w.Header(), s.origins[len(s.origins)-1]
	switch origin := r.Header.Get("Origin"); {
	case slices.Contains(s.origins, "*"):
		allowed = "*"
	case slices.Contains(s.origins, origin):
		allowed = origin
	}
	if len(s.origins) > 1 && allowed != "*" {
		h.Add("Vary", "Origin")
	}
	h.Set("Access-Control-Allow-Origin", allowed)
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
	h.Set("Access-Control-Max-Age", "86400")
	var asked []string
	for _, line := range r.Header.Values("Access-Control-Request-Headers") {
		for _, name := range strings.Split(line, ",") {
			if name = strings.TrimSpace(name); name != "" && len(asked) < 50 {
				asked = append(asked, name)
			}
		}
	}
	h.Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
}

// methods are those that a path can be asked with.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// allowed lists what a path can be asked with; nil when there is no such path.
func allowed(router *mux.Router, r *http.Request) (list []string) {
	for _, m := range methods {
		probe := r.Clone(r.Context())
		probe.Method = m
		var match mux.RouteMatch
		if router.Match(probe, &match) && match.MatchErr == nil {
			list = append(list, m)
		}
	}
	if len(list) > 0 {
		list = append(list, http.MethodOptions)
	}
	return list
}

// otherMethod answers what no route does: OPTIONS with what there is, the rest with 405.
func (s *server) otherMethod(router *mux.Router) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", strings.Join(allowed(router, r), ", "))
		if r.Method == http.MethodOptions {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusOK)
			return
		}
		s.Message(w, r, http.StatusMethodNotAllowed, "Method Not Allowed")
	}
}

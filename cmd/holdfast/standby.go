package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/store/registers"
)

// proxied is in requests that a standby passed on, so that two that each take the other for the leader do not play ping-pong.
const proxied = "X-Holdfast-Proxied"

// standby passes requests on to the leader while this process does not lead. Without a leader to be found it lets own answer, which says so.
type standby struct {
	own     http.Handler
	back    *registers.Backend
	cluster string
	leading func() bool
	url     string   // of this process
	hosts   []string // names that this process is called by
	any     bool     // every name is one
	// transport reaches the leader; nil for the usual one.
	transport http.RoundTripper
	log       *zap.Logger
}

func (s *standby) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.leading() || r.Header.Get(proxied) != "" || strings.HasPrefix(r.URL.Path, "/metrics") {
		s.own.ServeHTTP(w, r)
		return
	}
	to := s.leader(r.Context())
	if to == nil {
		s.own.ServeHTTP(w, r)
		return
	}
	mine := s.mine(r.Host)
	proxy := httputil.ReverseProxy{FlushInterval: -1, Transport: s.transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(to)
		p.SetXForwarded()
		p.Out.Header.Set(proxied, s.url)
		if !mine {
			p.Out.Host = p.In.Host // not a name of ours: the leader refuses it, as this process would
			return
		}
		// The leader compares the origin with the host it is called by.
		if o, err := url.Parse(p.In.Header.Get("Origin")); err == nil && o.Host == p.In.Host {
			p.Out.Header.Set("Origin", to.Scheme+"://"+to.Host)
		}
	}, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		s.log.Warn("the leader is not reached", zap.String("leader", to.String()), zap.Error(err))
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": "this framework process stands by, and the leader at " + to.Host + " is not reached"})
	}}
	proxy.ServeHTTP(w, r)
}

// leader gives where the leader is, nil for nowhere else.
func (s *standby) leader(ctx context.Context) *url.URL {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	l, err := s.back.Leader(ctx, s.cluster)
	if err != nil || l.Resigned || l.URL == s.url {
		return nil
	}
	u, err := url.Parse(l.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}
}

// mine tells whether a request's host is one that this process answers to, so that a page of a strange name cannot reach the leader through it.
func (s *standby) mine(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return s.any || host == "localhost" || net.ParseIP(host) != nil || slices.ContainsFunc(s.hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

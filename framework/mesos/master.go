package mesos

import (
	"net"
	"net/url"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

const schedulerPath = "/api/v1/scheduler"

// parseMasters reads --master: `host:port`, several with commas, or http(s) URLs. Each becomes the URL of a scheduler endpoint. scheme is that of
// masters given without one.
func parseMasters(s, scheme string) ([]*url.URL, error) {
	var out []*url.URL
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		u, err := parseMaster(part, scheme)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "no master given: --master host:port, several with commas, a URL, or zk://host:port,…/path")
	}
	return out, nil
}

func parseMaster(s, scheme string) (*url.URL, error) {
	raw, bare := s, !strings.Contains(s, "://")
	if bare {
		raw = scheme + "://" + s
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "master %q is neither host:port nor a URL", redactURL(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(fault.Invalid, "master %q: scheme %q is neither http, https nor zk (and zk:// stands alone)", redactURL(s), u.Scheme)
	case u.Hostname() == "":
		return nil, fault.New(fault.Invalid, "master %q has no host", redactURL(s))
	case u.User != nil:
		return nil, fault.New(fault.Invalid, "master %q: credentials belong in --principal and --secret-file, not in the URL", redactURL(s))
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fault.New(fault.Invalid, "master %q has a query or fragment", s)
	}
	if u.Port() == "" && u.Path == "" && (bare || u.Scheme == "http") {
		u.Host = net.JoinHostPort(u.Hostname(), "5050")
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), schedulerPath) + schedulerPath
	return u, nil
}

// redactURL takes a password out of what is shown.
func redactURL(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	} else {
		scheme += "://"
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = "…@" + rest[i+1:]
	}
	return scheme + rest
}

// redirected gives the endpoint that a master which does not lead points at (`Location: //host:port/…`).
func redirected(from *url.URL, location string) (*url.URL, error) {
	u, err := from.Parse(location)
	if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
		return nil, fault.New(fault.Unavailable, "master %s redirects to %.200q, which is no address", from.Host, location)
	}
	if from.Scheme == "https" && u.Scheme != "https" {
		return nil, fault.New(fault.Unavailable, "master %s redirects from https to %s", from.Host, u.Scheme)
	}
	out := *from
	out.Scheme, out.Host = u.Scheme, u.Host
	return &out, nil
}

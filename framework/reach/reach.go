// Package reach tells where a run is reached.
package reach

import (
	"net/netip"
	"net/url"
	"regexp"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?$`)

// Host is the address of a run's host: a number if one is known, because the name need not be known to those who ask. "" when
// there is nothing usable.
func Host(r *state.Run) string {
	if ip, err := netip.ParseAddr(r.Hostname); err == nil {
		return ip.String()
	}
	if u, err := url.Parse(r.AgentURL); err == nil {
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
			return ip.String()
		}
	}
	if hostName.MatchString(r.Hostname) {
		return r.Hostname
	}
	return ""
}

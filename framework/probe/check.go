package probe

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Check is one check of one run: what to ask, and what to make of the answers.
type Check struct {
	Name     string // of a readiness check
	Index    int    // of a health check in its definition
	Protocol string // HTTP, HTTPS, TCP
	// Address is host:port. Missing says why there is none, "" when there is.
	Address, Missing string
	Path             string
	Interval         time.Duration
	Timeout          time.Duration
	// Of health checks: failures before Until count only after a success; so many in a row (0: any number) and the run is given up.
	Until     time.Time
	Max       int
	Ignore1xx bool
	// Of readiness checks: the answers that mean ready, and whether the last one is kept.
	Ready bool
	Codes []int
	Keep  bool
}

// ChecksOf gives the checks of an instance's run that are the framework's to make: none unless it runs.
func ChecksOf(i *state.Instance, d *state.Def) []Check {
	if i == nil || d == nil || i.Run == nil || i.Phase != state.PhaseRunning || i.Run.Idle || d.Version != i.Run.Version {
		return nil
	}
	var list []Check
	for n := range d.Spec.HealthChecks {
		h := &d.Spec.HealthChecks[n]
		if h.Native() {
			continue
		}
		c := Check{Index: n, Protocol: h.Protocol, Path: h.Path, Interval: h.Interval, Timeout: h.Timeout,
			Max: h.MaxFailures, Ignore1xx: h.Ignore1xx}
		if i.Run.Healthy == nil || !*i.Run.Healthy {
			c.Until = i.Run.StartedAt.Add(h.Grace)
		}
		c.Address, c.Missing = address(i.Run, &d.Spec, h.PortIndex, h.Port)
		list = append(list, c)
	}
	for n := range d.Spec.ReadinessChecks {
		r := &d.Spec.ReadinessChecks[n]
		c := Check{Name: r.Name, Protocol: r.Protocol, Path: r.Path, Interval: r.Interval, Timeout: r.Timeout,
			Ready: true, Codes: slices.Clone(r.Codes), Keep: r.Keep}
		c.Address, c.Missing = address(i.Run, &d.Spec, r.PortIndex, r.Port)
		list = append(list, c)
	}
	return list
}

// address is where a run is asked: a port of its host at the host, a port of the container's own network at the container.
func address(r *state.Run, spec *state.Spec, index *int, port int) (addr, missing string) {
	switch {
	case index != nil && *index < len(r.Ports):
		return join(hostOf(r), r.Ports[*index])
	case index != nil:
		return "", fmt.Sprintf("the task has no port of index %d", *index)
	case port <= 0:
		return "", "the check has no port"
	case spec.Container.Network != "container":
		return join(hostOf(r), port)
	case r.ContainerIP == "":
		return "", "the container's address is not known"
	}
	return join(r.ContainerIP, port)
}

func join(host string, port int) (string, string) {
	if host == "" {
		return "", "the agent's address is not known"
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), ""
}

// hostOf is the address of a run's host: a number where one is known, because the name need not be known here.
func hostOf(r *state.Run) string {
	if u, err := url.Parse(r.AgentURL); err == nil {
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !ip.IsUnspecified() {
			return ip.String()
		}
	}
	return r.Hostname
}

// target is the URL that an HTTP check asks for.
func (c *Check) target() string {
	path := c.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return strings.ToLower(c.Protocol) + "://" + c.Address + path
}

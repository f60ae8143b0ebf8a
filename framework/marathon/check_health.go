package marathon

import (
	"fmt"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// checkHealthChecks holds the rules on the shape of checks.
func (a *App) checkHealthChecks(p *document.Problems) {
	mesos := 0
	for i := range a.HealthChecks {
		h := &a.HealthChecks[i]
		path := fmt.Sprintf("/healthChecks(%d)", i)
		if h.mesos() {
			mesos++
		}
		command := value(h.Protocol, "HTTP") == "COMMAND"
		switch {
		case command && h.Command == nil:
			p.Add(path+"/command", "must not be empty")
		case command && (h.Path != nil || h.Port != nil || h.PortIndex != nil):
			p.Add(path, "COMMAND health checks may not have path, port or portIndex")
		case !command && h.Command != nil:
			p.Add(path, "only COMMAND health checks may have a command")
		case !command && h.Port != nil && h.PortIndex != nil:
			p.Add(path, "health check must specify either a port or a portIndex")
		case value(h.IPProtocol, "IPv4") == "IPv6" && !(h.mesos() && a.Container != nil && a.containerType() == TypeDocker):
			p.Add(path, "IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks")
		}
	}
	if mesos > 1 {
		p.Add("/healthChecks", "AppDefinition can contain at most one Mesos health check")
	}
	if c := a.Check; c != nil {
		if c.Kind == "" {
			p.Add("/check", "must define one of http, tcp or exec")
		}
		if a.Container != nil && a.containerType() == TypeDocker {
			p.Add("/", "AppDefinition must not use 'checks' if using docker")
		}
	}
	if n := len(a.ReadinessChecks); n > 1 {
		p.Add("/readinessChecks/size", fmt.Sprintf("got %d, expected 1 or less", n))
	}
	for i, r := range a.ReadinessChecks {
		if t, n := value(r.TimeoutSeconds, 10), value(r.IntervalSeconds, 30); t >= n {
			p.Add(fmt.Sprintf("/readinessChecks(%d)/timeoutSeconds", i), fmt.Sprintf("got %d, expected less than %d", t, n))
		}
	}
}

// checkHealthPorts: a check's port index must be one of the app's ports.
func (a *App) checkHealthPorts(p *document.Problems) {
	ports := len(a.PortDefinitions)
	if !a.HostNetwork() {
		ports = len(a.Container.PortMappings)
	}
	for i, h := range a.HealthChecks {
		if h.PortIndex != nil && *h.PortIndex >= ports {
			p.Add(fmt.Sprintf("/healthChecks(%d)", i), "Health check port indices must address an element of the ports array or container port mappings.")
		}
	}
	if c := a.Check; c != nil && c.PortIndex != nil && *c.PortIndex >= ports {
		p.Add("/check", "check port index must address an element of the ports array or container port mappings.")
	}
}

func (a *App) checkReadiness(p *document.Problems) {
	names := map[string]bool{}
	for _, d := range a.PortDefinitions {
		names[value(d.Name, "")] = true
	}
	if !a.HostNetwork() {
		for _, m := range a.Container.PortMappings {
			names[value(m.Name, "")] = true
		}
	}
	for i, r := range a.ReadinessChecks {
		if !names[*r.PortName] {
			p.Add(fmt.Sprintf("/readinessChecks(%d)", i), "No port definition reference for portName "+*r.PortName)
		}
	}
}

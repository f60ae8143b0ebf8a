package rule

import (
	"fmt"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// checkHealthChecks holds the rules on the shape of checks.
func checkHealthChecks(p *document.Problems, a *definition.App) {
	mesos := 0 // those with a command do not count: older versions took several
	for i := range a.HealthChecks {
		h := &a.HealthChecks[i]
		path := fmt.Sprintf("/healthChecks(%d)", i)
		command := definition.Or(h.Protocol, "HTTP") == "COMMAND"
		if h.ByMesos() && !command {
			mesos++
		}
		switch {
		case command && h.Command == nil:
			p.Add(path+"/command", "must not be empty")
		case command && (h.Path != nil || h.Port != nil || h.PortIndex != nil):
			p.Add(path, "COMMAND health checks may not have path, port or portIndex")
		case !command && h.Command != nil:
			p.Add(path, "only COMMAND health checks may have a command")
		case !command && h.Port != nil && h.PortIndex != nil:
			p.Add(path, "health check must specify either a port or a portIndex")
		case definition.Or(h.IPProtocol, "IPv4") == "IPv6" && !(h.ByMesos() && a.Container != nil && a.ContainerType() == definition.TypeDocker):
			p.Add(path, "IPv6 can only be used for container type DOCKER and Mesos http/https/tcp health checks")
		}
	}
	if mesos > 1 {
		p.Add("/", "AppDefinition can contain at most one Mesos health check")
	}
	if c := a.Check; c != nil {
		if c.Kind == "" {
			p.Add("/check", "must define one of http, tcp or exec")
		}
		if a.Container != nil && a.ContainerType() == definition.TypeDocker {
			p.Add("/", "AppDefinition must not use 'checks' if using docker")
		}
	}
	if n := len(a.ReadinessChecks); n > 1 {
		p.Add("/readinessChecks/size", fmt.Sprintf("got %d, expected 1 or less", n))
	}
	for i, r := range a.ReadinessChecks {
		if t, n := definition.Or(r.TimeoutSeconds, 10), definition.Or(r.IntervalSeconds, 30); t >= n {
			p.Add(fmt.Sprintf("/readinessChecks(%d)/timeoutSeconds", i), fmt.Sprintf("got %d, expected less than %d", t, n))
		}
	}
}

// checkHealthPorts: a check's port index must be one of the app's ports.
func checkHealthPorts(p *document.Problems, a *definition.App) {
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

func checkReadiness(p *document.Problems, a *definition.App) {
	names := map[string]bool{}
	for _, d := range a.PortDefinitions {
		names[definition.Or(d.Name, "")] = true
	}
	if !a.HostNetwork() {
		for _, m := range a.Container.PortMappings {
			names[definition.Or(m.Name, "")] = true
		}
	}
	for i, r := range a.ReadinessChecks {
		if !names[*r.PortName] {
			p.Add(fmt.Sprintf("/readinessChecks(%d)/portName", i), "No port definition reference for portName "+*r.PortName)
		}
	}
}

package marathon

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
)

// checkOld holds the rules for the forms of older versions, and for what may not stand beside them.
func (a *App) checkOld(p *document.Problems) {
	docker := a.Docker()
	for i, u := range a.OldURIs {
		if !rule.ValidURI(u) {
			p.Add(fmt.Sprintf("/uris(%d)", i), "URI has invalid syntax.")
		}
	}
	if len(a.OldURIs) > 0 && len(a.Fetch) > 0 {
		p.Add("/uris", "may not be set in conjunction with fetch")
	}
	if docker != nil && docker.OldNetwork != nil && len(a.Networks) > 0 {
		p.Add("/", "must not specify both container.docker.network and networks")
	}
	a.checkOldPorts(p)
	if docker == nil {
		return
	}
	if a.Container.PortMappings != nil && docker.OldPortMappings != nil {
		p.Add("/", "cannot specify both portMappings and docker.portMappings")
	}
	names := map[string]bool{}
	for _, m := range docker.OldPortMappings {
		if name := definition.Or(m.Name, ""); name != "" {
			if names[name] {
				p.Add("/container/docker/portMappings", "Port names must be unique.")
				break
			}
			names[name] = true
		}
	}
	if docker.HasCredential {
		p.Add("/container/docker/credential", "must be empty")
	}
	if definition.Or(docker.OldNetwork, "") == "NONE" {
		p.Add("/container/docker/network", "unsupported docker network type NONE")
	}
	if a.ContainerType() == definition.TypeMesos {
		if docker.OldNetwork != nil {
			p.Add("/container/docker/network", "must be empty")
		}
		if len(docker.Parameters) > 0 {
			p.Add("/container/docker/parameters", "must be empty")
		}
		if len(docker.OldPortMappings) > 0 {
			p.Add("/container/docker/portMappings", "must be empty")
		}
	}
}

func (a *App) checkOldPorts(p *document.Problems) {
	if ip := a.OldIPAddress; ip != nil {
		if len(a.Networks) > 0 {
			p.Add("/", "must not specify both networks and ipAddress")
		}
		if a.Container != nil && a.ContainerType() == definition.TypeDocker && ip.Discovery != nil {
			p.Add("/ipAddress", "ipAddress/discovery is not allowed for Docker containers")
		} else if a.Container != nil && len(a.Container.PortMappings) > 0 && len(ip.Discovery) > 0 {
			p.Add("/", "container.portMappings and ipAddress.discovery.ports must not both be set")
		}
		if len(a.OldPorts) > 0 || len(a.PortDefinitions) > 0 {
			p.Add("/", "cannot specify both an IP address and port")
		}
	}
	var seen []int
	for _, n := range a.OldPorts {
		if n != 0 && slices.Contains(seen, n) {
			p.Add("/", "ports must be unique")
			break
		}
		seen = append(seen, n)
	}
	if a.OldPorts != nil && a.PortDefinitions != nil {
		var defs []int
		for _, d := range a.PortDefinitions {
			defs = append(defs, definition.Or(d.Port, 0))
		}
		if !slices.Equal(a.OldPorts, defs) {
			p.Add("/", "cannot specify both ports and port definitions")
		}
	}
}

// migrate turns the old forms into today's; checkOld has passed.
func (a *App) migrate() {
	if a.OldURIs != nil && a.Fetch == nil {
		a.Fetch = []definition.Fetch{}
		for _, u := range a.OldURIs {
			a.Fetch = append(a.Fetch, definition.Fetch{URI: u, Extract: definition.Ptr(isArchive(u))})
		}
	}
	a.migrateNetworks()
	if a.OldPorts != nil && a.PortDefinitions == nil {
		a.PortDefinitions = []definition.PortDefinition{}
		for i, n := range a.OldPorts {
			d := definition.PortDefinition{Port: definition.Ptr(n), Protocol: definition.Ptr("tcp")}
			if i == 0 {
				d.Name = definition.Ptr("default")
			}
			a.PortDefinitions = append(a.PortDefinitions, d)
		}
	}
	a.OldURIs, a.OldPorts, a.OldIPAddress = nil, nil, nil
}

// portsToMappings: on a container network ports of the host mean nothing but their number; mappings are added until there are as many.
func (a *App) portsToMappings() {
	ports := len(a.PortDefinitions)
	if a.HostNetwork() || a.PortDefinitions == nil {
		return
	}
	a.PortDefinitions = nil
	if a.Container == nil || ports == 0 {
		return
	}
	if a.Container.PortMappings == nil { // the default is one
		a.Container.PortMappings = []definition.PortMapping{{ContainerPort: definition.Ptr(0), Name: definition.Ptr("default")}}
	}
	for len(a.Container.PortMappings) < ports {
		a.Container.PortMappings = append(a.Container.PortMappings, definition.PortMapping{})
	}
}

func (a *App) migrateNetworks() {
	docker := a.Docker()
	if docker != nil {
		if docker.OldPortMappings != nil && a.Container.PortMappings == nil {
			a.Container.PortMappings = docker.OldPortMappings
		}
		switch definition.Or(docker.OldNetwork, "") {
		case "BRIDGE":
			a.Networks = []definition.Network{{Mode: definition.Ptr(definition.NetworkBridge)}}
		case "HOST":
			a.Networks = []definition.Network{{Mode: definition.Ptr(definition.NetworkHost)}}
		case "USER":
			a.Networks = []definition.Network{{Mode: definition.Ptr(definition.NetworkContainer)}}
		}
		docker.OldNetwork, docker.OldPortMappings = nil, nil
	}
	ip := a.OldIPAddress
	if ip == nil {
		return
	}
	if a.Bridge() && len(a.Networks) == 1 {
		a.Networks[0].Labels = ip.Labels
	}
	if len(a.Networks) == 0 || !a.Bridge() && !(a.Networks[0].Mode != nil && *a.Networks[0].Mode == definition.NetworkHost) {
		a.Networks = []definition.Network{{Mode: definition.Ptr(definition.NetworkContainer), Name: ip.NetworkName, Labels: ip.Labels}}
	}
	if ip.HasPorts {
		if a.Container == nil {
			a.Container = &definition.Container{Type: definition.Ptr(definition.TypeMesos)}
		}
		if a.Container.PortMappings == nil {
			a.Container.PortMappings = ip.Discovery
		}
	}
}

var archives = []string{".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".tgz", ".tbz2", ".txz", ".zip"}

// isArchive tells whether Mesos's fetcher would unpack what is behind a URI.
func isArchive(uri string) bool {
	name := uri
	if u, err := url.Parse(uri); err == nil && u.Path != "" {
		name = u.Path
	}
	name = path.Base(name)
	return slices.ContainsFunc(archives, func(end string) bool { return strings.HasSuffix(name, end) })
}

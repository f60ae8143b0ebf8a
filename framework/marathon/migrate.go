package marathon

import (
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// checkOld holds the rules for the forms of older versions, and for what may not stand beside them.
func (a *App) checkOld(p *document.Problems) {
	docker := a.Docker()
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
		if a.Container != nil && a.ContainerType() == definition.TypeDocker && len(ip.Discovery) > 0 {
			p.Add("/ipAddress", "ipAddress/discovery is not allowed for Docker containers")
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
	if a.OldPorts != nil && a.PortDefinitions == nil && (a.Networks == nil || a.HostNetwork()) {
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

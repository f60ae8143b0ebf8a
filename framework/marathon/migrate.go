package marathon

import (
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// checkOld holds the rules for the forms of older versions, and for what may not stand beside them.
func (a *App) checkOld(p *document.Problems) {
	docker := a.docker()
	if len(a.oldURIs) > 0 && len(a.Fetch) > 0 {
		p.Add("/uris", "may not be set in conjunction with fetch")
	}
	if docker != nil && docker.oldNetwork != nil && len(a.Networks) > 0 {
		p.Add("/", "must not specify both container.docker.network and networks")
	}
	a.checkOldPorts(p)
	if docker == nil {
		return
	}
	if docker.oldCredential {
		p.Add("/container/docker/credential", "must be empty")
	}
	if value(docker.oldNetwork, "") == "NONE" {
		p.Add("/container/docker/network", "unsupported docker network type NONE")
	}
	if a.containerType() == TypeMesos {
		if docker.oldNetwork != nil {
			p.Add("/container/docker/network", "must be empty")
		}
		if len(docker.Parameters) > 0 {
			p.Add("/container/docker/parameters", "must be empty")
		}
		if len(docker.oldPortMappings) > 0 {
			p.Add("/container/docker/portMappings", "must be empty")
		}
	}
}

func (a *App) checkOldPorts(p *document.Problems) {
	if ip := a.oldIPAddress; ip != nil {
		if len(a.Networks) > 0 {
			p.Add("/", "must not specify both networks and ipAddress")
		}
		if a.Container != nil && a.containerType() == TypeDocker && len(ip.discovery) > 0 {
			p.Add("/ipAddress", "ipAddress/discovery is not allowed for Docker containers")
		}
		if len(a.oldPorts) > 0 || len(a.PortDefinitions) > 0 {
			p.Add("/", "cannot specify both an IP address and port")
		}
	}
	var seen []int
	for _, n := range a.oldPorts {
		if n != 0 && slices.Contains(seen, n) {
			p.Add("/", "ports must be unique")
			break
		}
		seen = append(seen, n)
	}
	if a.oldPorts != nil && a.PortDefinitions != nil {
		var defs []int
		for _, d := range a.PortDefinitions {
			defs = append(defs, value(d.Port, 0))
		}
		if !slices.Equal(a.oldPorts, defs) {
			p.Add("/", "cannot specify both ports and port definitions")
		}
	}
}

func (a *App) docker() *Docker {
	if a.Container == nil {
		return nil
	}
	return a.Container.Docker
}

// migrate turns the old forms into today's; checkOld has passed.
func (a *App) migrate() {
	if a.oldURIs != nil && a.Fetch == nil {
		a.Fetch = []Fetch{}
		for _, u := range a.oldURIs {
			a.Fetch = append(a.Fetch, Fetch{URI: u, Extract: ptr(isArchive(u))})
		}
	}
	a.migrateNetworks()
	if a.oldPorts != nil && a.PortDefinitions == nil && (a.Networks == nil || a.HostNetwork()) {
		a.PortDefinitions = []PortDefinition{}
		for i, n := range a.oldPorts {
			d := PortDefinition{Port: ptr(n), Protocol: ptr("tcp")}
			if i == 0 {
				d.Name = ptr("default")
			}
			a.PortDefinitions = append(a.PortDefinitions, d)
		}
	}
	a.oldURIs, a.oldPorts, a.oldIPAddress = nil, nil, nil
}

func (a *App) migrateNetworks() {
	docker := a.docker()
	if docker != nil {
		if docker.oldPortMappings != nil && a.Container.PortMappings == nil {
			a.Container.PortMappings = docker.oldPortMappings
		}
		switch value(docker.oldNetwork, "") {
		case "BRIDGE":
			a.Networks = []Network{{Mode: ptr(NetworkBridge)}}
		case "HOST":
			a.Networks = []Network{{Mode: ptr(NetworkHost)}}
		case "USER":
			a.Networks = []Network{{Mode: ptr(NetworkContainer)}}
		}
		docker.oldNetwork, docker.oldPortMappings = nil, nil
	}
	ip := a.oldIPAddress
	if ip == nil {
		return
	}
	if len(a.Networks) == 0 || !a.bridge() && !(a.Networks[0].Mode != nil && *a.Networks[0].Mode == NetworkHost) {
		a.Networks = []Network{{Mode: ptr(NetworkContainer), Name: ip.networkName, Labels: ip.labels}}
	}
	if ip.hasPorts {
		if a.Container == nil {
			a.Container = &Container{Type: ptr(TypeMesos)}
		}
		if a.Container.PortMappings == nil {
			a.Container.PortMappings = ip.discovery
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

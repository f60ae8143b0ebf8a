package rule

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// Options are what the rules need to know of the framework.
type Options struct {
	// Role is the framework's role; "*" or no role in an app means it. "" leaves "*".
	Role string
	// Roles are all roles of the framework, Role among them, that an app may name; nil for Role alone.
	Roles []string
	// DefaultNetwork is the container network that is meant when an app names none; "" for none.
	DefaultNetwork string
	// Class looks a class of volumes up; nil for one that does not exist. A nil function knows none.
	Class func(name string) *definition.Class
}

func (o Options) role() string {
	if o.Role == "" {
		return "*"
	}
	return o.Role
}

// MaxInstances bounds one app: a slip of the finger must not make a billion records.
const MaxInstances = 100000

// Given holds the rules on an app as given, old forms migrated, before defaults.
func Given(p *document.Problems, a *definition.App, o Options) {
	checkID(p, a.ID)
	checkCommand(p, a)
	checkContainer(p, a)
	checkVolumes(p, a, o)
	checkEnv(p, a)
	checkRoles(p, a)
	checkNetworks(p, a, o)
	checkPorts(p, a)
	checkConstraints(p, "/constraints", a.Constraints)
	checkHealthChecks(p, a)
	for i, f := range a.Fetch {
		if !ValidURI(f.URI) {
			p.Add(fmt.Sprintf("/fetch(%d)/uri", i), "URI has invalid syntax.")
		}
		if d := definition.Or(f.DestPath, ""); d != "" && (strings.HasPrefix(d, "/") || hasDots(d)) {
			p.Add(fmt.Sprintf("/fetch(%d)/destPath", i), "destPath must be a relative path without '..'")
		}
	}
	if s := a.UnreachableStrategy; s != nil && s.InactiveAfterSeconds > s.ExpungeAfterSeconds {
		p.Add("/unreachableStrategy", fmt.Sprintf("inactiveAfterSeconds (%d) must be less or equal to expungeAfterSeconds, which is %d", s.InactiveAfterSeconds, s.ExpungeAfterSeconds))
	}
	checkResident(p, a)
	if l := a.ResourceLimits; l != nil {
		checkLimit(p, "/resourceLimits/cpus", l.CPUs, definition.Or(a.CPUs, 1))
		checkLimit(p, "/resourceLimits/mem", l.Mem, definition.Or(a.Mem, 128))
	}
	if slices.ContainsFunc(a.Dependencies, func(d string) bool { return AbsoluteID(d) == AbsoluteID(a.ID) }) {
		p.Add("/", "Dependency graph has cyclic dependencies.")
	}
	if definition.Or(a.GPUs, 0) > 0 && a.ContainerType() == definition.TypeDocker && a.Container != nil {
		p.Add("/", "GPU resources only work with the Mesos containerizer")
	}
	if v := a.Labels["DCOS_MIGRATION_API_VERSION"]; v != "" && (v != "v1" || a.Labels["DCOS_PACKAGE_FRAMEWORK_NAME"] == "" || a.Labels["DCOS_MIGRATION_API_PATH"] == "") {
		p.Add("/", "DCOS_PACKAGE_FRAMEWORK_NAME and DCOS_MIGRATION_API_PATH must be defined when using DCOS_MIGRATION_API_VERSION")
	}
}

// ValidURI tells whether a text can be fetched, as far as its syntax goes.
func ValidURI(text string) bool {
	u, err := url.Parse(text)
	return err == nil && !strings.ContainsAny(text, " <>\"{}|\\^`\t\r\n") && u.String() != ""
}

// checkResident holds the rules on what is given for an app with local persistent volumes, or one that says residency.
func checkResident(p *document.Problems, a *definition.App) {
	if !a.Resident() && a.Residency == nil {
		return
	}
	checkNoSurplus(p, a)
	if u := a.UnreachableStrategy; u != nil && !u.Disabled {
		p.Add("/", "unreachableStrategy must be disabled for resident tasks")
	}
}

// checkNoSurplus: a volume cannot be in two tasks at once, so no update may start more than there are.
func checkNoSurplus(p *document.Problems, a *definition.App) {
	if u := a.UpgradeStrategy; u != nil && u.MaximumOverCapacity != 0 {
		p.Add("/upgradeStrategy/maximumOverCapacity", "got "+scalaDouble(u.MaximumOverCapacity)+", expected 0.0")
	}
}

func checkLimit(p *document.Problems, path string, l *definition.Limit, requested float64) {
	if l != nil && !l.Unlimited && l.Value < requested {
		p.Add(path, "resource limit must be greater than or equal to requested resource ("+scalaDouble(requested)+")")
	}
}

const commandRule = "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."

func checkCommand(p *document.Problems, a *definition.App) {
	if a.Cmd != nil && len(*a.Cmd) == 1 {
		p.Add("/cmd", "must not be an empty string")
	}
	if a.Cmd != nil && len(a.Args) > 0 || a.Cmd == nil && len(a.Args) == 0 && a.Container == nil {
		p.Add("/", commandRule)
	}
}

func checkContainer(p *document.Problems, a *definition.App) {
	c := a.Container
	if c == nil {
		return
	}
	docker := a.ContainerType() == definition.TypeDocker
	if docker && c.Docker == nil {
		p.Add("/container/docker", "not defined")
	}
	if d := c.Docker; d != nil {
		switch {
		case d.PullSecret == nil:
		case docker:
			p.Add("/container/docker/pullConfig", "pullConfig is not supported with Docker containerizer")
		case !hasSecret(a, *d.PullSecret):
			p.Add("/container/docker/pullConfig", "pullConfig.secret must refer to an existing secret")
		}
	}
	l := c.LinuxInfo
	if l == nil {
		return
	}
	if docker {
		p.Add("/container/linuxInfo", "must be empty")
	}
	if s := l.Seccomp; s != nil {
		unconfined := definition.Or(s.Unconfined, false)
		if s.ProfileName != nil && unconfined {
			p.Add("/container/linuxInfo/seccomp", "Seccomp unconfined can NOT be true when Profile is defined")
		}
		if s.ProfileName == nil && !unconfined {
			p.Add("/container/linuxInfo/seccomp", "Seccomp unconfined must be true when Profile is NOT defined")
		}
	}
}

func hasSecret(a *definition.App, name string) bool {
	_, ok := a.Secrets[name]
	return ok
}

func checkEnv(p *document.Problems, a *definition.App) {
	for _, k := range slices.Sorted(maps.Keys(a.Env)) {
		v := a.Env[k]
		switch {
		case k == "":
			p.Add("/env/keys", "must not be empty")
		case strings.Contains(k, "="):
			p.Add("/env/"+k, "the name of an environment variable must not contain '='")
		case v.IsSecret && !hasSecret(a, v.Secret):
			p.Add("/env/"+k+"/secret", "references an undefined secret")
		}
	}
	if hasSecret(a, "") {
		p.Add("/secrets/keys", "must not be empty")
	}
}

func checkRoles(p *document.Problems, a *definition.App) {
	if a.AcceptedResourceRoles == nil {
		return
	}
	if len(a.AcceptedResourceRoles) == 0 {
		p.Add("/acceptedResourceRoles", "must not be empty")
	}
	for _, r := range a.AcceptedResourceRoles {
		switch {
		case r == "" || r == "." || r == "..":
			p.Add("/acceptedResourceRoles", fmt.Sprintf("A role name must not be %q.", r))
		case strings.HasPrefix(r, "-"):
			p.Add("/acceptedResourceRoles", "A role name must not start with a '-'.")
		case strings.ContainsAny(r, " \t\n\r\v\f\b/\\"):
			p.Add("/acceptedResourceRoles", `A role name must not include a space (\x20) character.`)
		}
	}
}

func checkNetworks(p *document.Problems, a *definition.App, o Options) {
	modes := map[string]int{}
	names := map[string]bool{}
	var notes []string
	note := func(text string) {
		if !slices.Contains(notes, text) {
			notes = append(notes, text)
			p.Add("/networks", text)
		}
	}
	for _, n := range a.Networks {
		mode := definition.Or(n.Mode, definition.NetworkContainer)
		modes[mode]++
		switch {
		case mode == definition.NetworkHost && (n.Name != nil || len(n.Labels) > 0):
			note("Host networks may not have names or labels")
		case mode == definition.NetworkBridge && n.Name != nil:
			note("Bridge networks may not have names")
		case mode == definition.NetworkContainer && n.Name == nil && o.DefaultNetwork == "":
			note("Network name must be specified when container network is selected.")
		case mode == definition.NetworkContainer:
			name := definition.Or(n.Name, o.DefaultNetwork)
			if names[name] {
				note("Duplicate networks are not allowed")
			}
			names[name] = true
		}
	}
	if len(a.Networks) > 1 && modes[definition.NetworkContainer] != len(a.Networks) {
		p.Add("/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks")
	}
	if modes[definition.NetworkContainer] > 1 && a.Container != nil && a.ContainerType() == definition.TypeDocker {
		p.Add("/", "may only specify a single container network when using the Docker container engine")
	}
	if a.Container != nil && !a.HostNetwork() {
		checkPortMappings(p, a.Container.PortMappings, names, modes[definition.NetworkContainer] > 1)
	}
}

func checkPortMappings(p *document.Problems, mappings []definition.PortMapping, networks map[string]bool, several bool) {
	seen := map[string]bool{}
	for i, m := range mappings {
		path := fmt.Sprintf("/container/portMappings(%d)", i)
		if m.Name != nil && seen[*m.Name] {
			p.Add("/container/portMappings", "Port names must be unique.")
		}
		seen[definition.Or(m.Name, "")] = m.Name != nil
		for j, n := range m.NetworkNames {
			if !networks[n] {
				p.Add(fmt.Sprintf("%s/networkNames(%d)", path, j), "is not one of ("+strings.Join(slices.Sorted(maps.Keys(networks)), ",")+")")
			}
		}
		if several && m.HostPort != nil && len(m.NetworkNames) != 1 {
			p.Add(path, "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined")
		}
	}
}

func checkPorts(p *document.Problems, a *definition.App) {
	if len(a.PortDefinitions) == 0 {
		return
	}
	if !a.HostNetwork() {
		p.Add("/portDefinitions", "portDefinitions are only allowed with host-networking")
		return
	}
	names, ports := map[string]bool{}, map[int]bool{}
	for _, d := range a.PortDefinitions {
		if d.Name != nil && names[*d.Name] {
			p.Add("/portDefinitions", "Port names must be unique.")
		}
		if d.Name != nil {
			names[*d.Name] = true
		}
		if n := definition.Or(d.Port, 0); n != 0 {
			if ports[n] {
				p.Add("/portDefinitions", "Ports must be unique.")
			}
			ports[n] = true
		}
	}
}

// Whole holds the rules on an app with its defaults: what follows from one field for another.
func Whole(p *document.Problems, a *definition.App, o Options) {
	if a.Cmd == nil && len(a.Args) == 0 && a.Image() == "" {
		p.Add("/", commandRule)
	}
	if *a.Instances > MaxInstances {
		p.Add("/instances", fmt.Sprintf("got %d, expected %d or less", *a.Instances, MaxInstances))
	}
	checkBounds(p, a)
	checkRole(p, a, o)
	checkHealthPorts(p, a)
	checkReadiness(p, a)
	checkVolumesWhole(p, a)
	if a.HasExternal() {
		checkNoSurplus(p, a)
	}
	if a.Labels["MARATHON_SINGLE_INSTANCE_APP"] == "true" {
		if *a.Instances > 1 {
			p.Add("/", "Single instance app may only have one instance")
		}
		for name, f := range map[string]float64{"maximumOverCapacity": a.UpgradeStrategy.MaximumOverCapacity, "minimumHealthCapacity": a.UpgradeStrategy.MinimumHealthCapacity} {
			if f != 0 && !p.Has("/upgradeStrategy/"+name) {
				p.Add("/upgradeStrategy/"+name, "got "+scalaDouble(f)+", expected 0.0")
			}
		}
	}
}

// checkBounds: the number of instances lies within minInstances and maxInstances.
func checkBounds(p *document.Problems, a *definition.App) {
	least, most := definition.Or(a.MinInstances, 0), definition.Or(a.MaxInstances, MaxInstances)
	switch n := *a.Instances; {
	case least > most:
		p.Add("/maxInstances", fmt.Sprintf("got %d, expected %d or more (minInstances)", most, least))
	case n < least:
		p.Add("/instances", fmt.Sprintf("got %d, expected %d or more (minInstances)", n, least))
	case n > most && a.MaxInstances != nil:
		p.Add("/instances", fmt.Sprintf("got %d, expected %d or less (maxInstances)", n, most))
	}
}

func checkRole(p *document.Problems, a *definition.App, o Options) {
	roles := o.Roles
	if len(roles) == 0 {
		roles = []string{o.role()}
	}
	if *a.Role != "*" && !slices.Contains(roles, *a.Role) {
		p.Add("/role", fmt.Sprintf("got %s, expected one of: [*, %s]", definition.Short(*a.Role), strings.Join(roles, ", ")))
	}
	for _, r := range a.AcceptedResourceRoles {
		if r != "*" && r != *a.Role && !p.Has("/acceptedResourceRoles") {
			p.Add("/acceptedResourceRoles", "acceptedResourceRoles can only contain * and "+*a.Role)
		}
	}
	if a.Resident() && a.AcceptedResourceRoles != nil && !slices.Equal(a.AcceptedResourceRoles, []string{"*"}) {
		p.Add("/acceptedResourceRoles", "A resident app must have `acceptedResourceRoles = [\"*\"]`.")
	}
}

// scalaDouble prints a number as Marathon's texts have it: 1.0, 0.5.
func scalaDouble(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

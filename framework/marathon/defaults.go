package marathon

import (
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
)

// setDefaults fills in what was not given, as Marathon does after the rules have passed. It returns warnings about
// what was given but means nothing there.
func (a *App) setDefaults(o Options) (warnings []string) {
	a.ID = rule.AbsoluteID(a.ID)
	for i := range a.Dependencies {
		a.Dependencies[i] = rule.AbsoluteID(a.Dependencies[i])
	}
	set(&a.BackoffFactor, 1.15)
	set(&a.BackoffSeconds, 1)
	set(&a.CPUs, 1)
	set(&a.Disk, 0)
	set(&a.Executor, "")
	set(&a.GPUs, 0)
	set(&a.Instances, 1)
	set(&a.MaxLaunchDelaySeconds, 300)
	set(&a.Mem, 128)
	set(&a.KillSelection, "YOUNGEST_FIRST")
	if a.Role == nil || *a.Role == "*" && o.Role != "" {
		a.Role = definition.Ptr(orStar(o.Role))
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	for i := range a.Fetch {
		f := &a.Fetch[i]
		set(&f.Extract, true)
		set(&f.Executable, false)
		set(&f.Cache, false)
	}
	a.defaultStrategies()
	a.defaultContainer()
	warnings = a.defaultPorts(o)
	for i := range a.HealthChecks {
		healthDefaults(&a.HealthChecks[i])
	}
	for i := range a.ReadinessChecks {
		readinessDefaults(&a.ReadinessChecks[i])
	}
	if a.Check != nil {
		set(&a.Check.IntervalSeconds, 60)
		set(&a.Check.TimeoutSeconds, 20)
		set(&a.Check.DelaySeconds, 15)
	}
	return warnings
}

func orStar(role string) string {
	if role == "" {
		return "*"
	}
	return role
}

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}

func (a *App) defaultStrategies() {
	if a.UpgradeStrategy == nil {
		a.UpgradeStrategy = &definition.UpgradeStrategy{MaximumOverCapacity: 1, MinimumHealthCapacity: 1}
		if a.Resident() || a.HasExternal() {
			a.UpgradeStrategy = &definition.UpgradeStrategy{MinimumHealthCapacity: 0.5}
		}
	}
	if a.UnreachableStrategy == nil {
		a.UnreachableStrategy = &definition.UnreachableStrategy{Disabled: a.Resident()}
	}
	if a.Resident() && a.Residency == nil {
		a.Residency = &definition.Residency{}
	}
	if a.Residency != nil {
		set(&a.Residency.RelaunchEscalationTimeoutSeconds, 3600)
		set(&a.Residency.TaskLostBehavior, "WAIT_FOREVER")
	}
}

func (a *App) defaultContainer() {
	if len(a.Networks) == 0 {
		a.Networks = []definition.Network{{Mode: definition.Ptr(definition.NetworkHost)}}
	}
	for i := range a.Networks {
		set(&a.Networks[i].Mode, definition.NetworkContainer)
	}
	if a.Container == nil && !a.HostNetwork() {
		a.Container = &definition.Container{Type: definition.Ptr(definition.TypeMesos)}
	}
	c := a.Container
	if c == nil {
		return
	}
	set(&c.Type, definition.TypeDocker)
	if c.Docker != nil {
		set(&c.Docker.ForcePullImage, false)
		if *c.Type == definition.TypeDocker {
			set(&c.Docker.Privileged, false)
		}
	}
	for i := range c.Volumes {
		v := &c.Volumes[i]
		if v.Persistent != nil {
			kind := "root"
			if v.Persistent.ProfileName != nil {
				kind = "mount"
			}
			set(&v.Persistent.Type, kind)
		}
		if v.External != nil && v.External.CSI == nil {
			set(&v.External.Shared, rule.Shared(v))
		}
	}
}

// defaultPorts fills in portDefinitions on the host network and portMappings on others, and drops what belongs to the other one.
func (a *App) defaultPorts(o Options) (warnings []string) {
	if a.HostNetwork() {
		if a.Container != nil && len(a.Container.PortMappings) > 0 {
			warnings = append(warnings, "container.portMappings mean nothing on the host network and are dropped; give a network of mode container/bridge or container, or use portDefinitions")
		}
		if a.Container != nil {
			a.Container.PortMappings = nil
		}
		if a.PortDefinitions == nil {
			a.PortDefinitions = []definition.PortDefinition{{Name: definition.Ptr("default")}}
		}
		for i := range a.PortDefinitions {
			set(&a.PortDefinitions[i].Port, 0)
			set(&a.PortDefinitions[i].Protocol, "tcp")
		}
		set(&a.RequirePorts, false)
		return warnings
	}
	a.PortDefinitions = nil
	if definition.Or(a.RequirePorts, false) {
		warnings = append(warnings, "requirePorts means something on the host network only")
	}
	a.RequirePorts = definition.Ptr(false)
	for i := range a.Networks {
		if n := &a.Networks[i]; *n.Mode == definition.NetworkContainer && n.Name == nil && o.DefaultNetwork != "" {
			n.Name = definition.Ptr(o.DefaultNetwork)
		}
	}
	if a.Container.PortMappings == nil {
		a.Container.PortMappings = []definition.PortMapping{{Name: definition.Ptr("default")}}
	}
	for i := range a.Container.PortMappings {
		m := &a.Container.PortMappings[i]
		set(&m.ContainerPort, 0)
		set(&m.ServicePort, 0)
		set(&m.Protocol, "tcp")
		if a.Bridge() {
			set(&m.HostPort, 0)
		}
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
	}
	return warnings
}

func healthDefaults(h *definition.HealthCheck) {
	set(&h.Protocol, "HTTP")
	set(&h.GracePeriodSeconds, 300)
	set(&h.IntervalSeconds, 60)
	set(&h.TimeoutSeconds, 20)
	set(&h.DelaySeconds, 15)
	set(&h.MaxConsecutiveFailures, 3)
	if *h.Protocol != "COMMAND" {
		if h.Port == nil {
			set(&h.PortIndex, 0)
		}
		set(&h.IPProtocol, "IPv4")
	}
	if h.OverHTTP() {
		set(&h.Path, "/")
	}
	if *h.Protocol == "HTTP" || *h.Protocol == "HTTPS" {
		set(&h.IgnoreHTTP1xx, false)
	}
}

func readinessDefaults(c *definition.ReadinessCheck) {
	set(&c.Name, "readinessCheck")
	set(&c.Protocol, "HTTP")
	set(&c.Path, "/")
	set(&c.PortName, "http-api")
	set(&c.IntervalSeconds, 30)
	set(&c.TimeoutSeconds, 10)
	set(&c.PreserveLastResponse, false)
	if len(c.ReadyCodes) == 0 {
		c.ReadyCodes = []int{200}
	}
}

// The range of service ports, [first, end).
const (
	servicePortFirst = 10000
	servicePortEnd   = 20000
)

// AssignServicePorts gives a cluster-unique number to each service port that is 0: the one the old version of the
// app had at that place, else the lowest that is not taken. It says false when all are taken.
func (a *App) AssignServicePorts(old *App, taken func(port int) bool) bool {
	mine := a.servicePorts()
	var before []*int
	if old != nil {
		before = old.servicePorts()
	}
	used := map[int]bool{}
	for _, p := range mine {
		used[*p] = true
	}
	next := servicePortFirst
	for i, p := range mine {
		if *p != 0 {
			continue
		}
		if i < len(before) && *before[i] != 0 && !used[*before[i]] {
			*p = *before[i]
			used[*p] = true
			continue
		}
		for next < servicePortEnd && (used[next] || taken(next)) {
			next++
		}
		if next >= servicePortEnd {
			return false
		}
		*p = next
		used[next] = true
	}
	return true
}

// ServicePorts are the service ports, in order.
func (a *App) ServicePorts() []int {
	out := []int{}
	for _, p := range a.servicePorts() {
		out = append(out, *p)
	}
	return out
}

func (a *App) servicePorts() []*int {
	var out []*int
	if a.HostNetwork() {
		if definition.Or(a.RequirePorts, false) {
			return nil // the numbers are host ports then
		}
		for i := range a.PortDefinitions {
			out = append(out, a.PortDefinitions[i].Port)
		}
		return out
	}
	for i := range a.Container.PortMappings {
		out = append(out, a.Container.PortMappings[i].ServicePort)
	}
	return out
}

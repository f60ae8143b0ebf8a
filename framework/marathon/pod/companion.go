package pod

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// complete makes the companion: an app with what the pod has in common with apps. It is checked as one, what is wrong is said of the pod's own
// fields, and its defaults are the pod's.
func (p *Pod) complete(v *document.Value, o marathon.Options) (warnings []string, err error) {
	p.defaultPorts()
	doc, paths := p.companion(v)
	a, warnings, err := marathon.Read(doc, o)
	for i := range warnings {
		warnings[i] = paths.Replace(warnings[i])
	}
	if err == nil {
		err = a.Unsupported()
	}
	if err != nil {
		return warnings, inPod(err, paths)
	}
	p.app = a
	p.ID, p.Role = a.ID, definition.Or(a.Role, "")
	p.Networks = nil
	for _, n := range a.Networks {
		p.Networks = append(p.Networks, Network{Name: definition.Or(n.Name, ""), Mode: *n.Mode, Labels: n.Labels})
	}
	s := &p.Scheduling
	s.Backoff = Backoff{Backoff: *a.BackoffSeconds, BackoffFactor: *a.BackoffFactor, MaxLaunchDelay: *a.MaxLaunchDelaySeconds}
	s.Upgrade = Upgrade{MinimumHealthCapacity: a.UpgradeStrategy.MinimumHealthCapacity, MaximumOverCapacity: a.UpgradeStrategy.MaximumOverCapacity}
	s.KillSelection = *a.KillSelection
	s.Placement.AcceptedResourceRoles = append([]string{}, a.AcceptedResourceRoles...)
	if s.Placement.Constraints == nil {
		s.Placement.Constraints = []Constraint{}
	}
	s.UnreachableStrategy = document.Marshal(map[string]int{"inactiveAfterSeconds": a.UnreachableStrategy.InactiveAfterSeconds, "expungeAfterSeconds": a.UnreachableStrategy.ExpungeAfterSeconds})
	if a.UnreachableStrategy.Disabled {
		s.UnreachableStrategy = []byte(`"disabled"`)
	}
	return warnings, nil
}

// defaultPorts: without a container network every endpoint has a host port.
func (p *Pod) defaultPorts() {
	if slices.ContainsFunc(p.Networks, func(n Network) bool { return n.Mode == definition.NetworkContainer }) {
		return
	}
	for i := range p.Containers {
		for j := range p.Containers[i].Endpoints {
			if e := &p.Containers[i].Endpoints[j]; e.HostPort == nil {
				e.HostPort = definition.Ptr(0)
			}
		}
	}
}

// inPod says of the pod's fields what was said of the companion's.
func inPod(err error, paths *strings.Replacer) error {
	var e *fault.Error
	if !errors.As(err, &e) || len(e.Details) == 0 {
		return err
	}
	var list []fault.Detail
	for _, d := range e.Details {
		list = append(list, fault.Detail{Path: paths.Replace(d.Path), Errors: d.Errors})
	}
	return fault.WithDetails(fault.Invalid, messageRules, list...)
}

type object struct{ *document.Value }

func newObject() object {
	return object{&document.Value{Kind: document.Object, Fields: map[string]*document.Value{}}}
}

func (o object) put(name string, v any) {
	x, err := document.Parse(document.Marshal(v))
	if err != nil {
		panic(err) // what was marshalled parses
	}
	o.Set(name, x)
}

func field(v *document.Value, names ...string) *document.Value {
	for _, n := range names {
		if v == nil || v.Kind != document.Object {
			return nil
		}
		v = v.Fields[n]
	}
	return v
}

// companion builds the app, and how its paths are called in the pod.
func (p *Pod) companion(v *document.Value) (*document.Value, *strings.Replacer) {
	var paths []string
	a := newObject()
	cpus, mem, disk := p.sum()
	a.put("id", p.ID)
	a.put("cmd", "a pod")
	a.put("cpus", cpus)
	a.put("mem", mem)
	a.put("disk", disk)
	a.put("instances", p.Scaling.Instances)
	if p.Labels != nil {
		a.put("labels", p.Labels)
	}
	env := map[string]string{}
	for _, c := range p.Containers {
		for k := range c.Environment {
			env[k] = ""
		}
	}
	for k := range p.Environment {
		env[k] = ""
	}
	a.put("env", env)
	if p.User != "" {
		a.put("user", p.User)
	}
	if p.Role != "" {
		a.put("role", p.Role)
	}
	copyTo := func(name, path string, from ...string) {
		if x := field(v, from...); x != nil && (x.Kind != document.Array || len(x.List) > 0) { // an empty list, as it is printed, is none
			a.Set(name, x)
		}
		paths = append(paths, "/"+name, path)
	}
	copyTo("networks", "/networks", "networks")
	copyTo("backoffSeconds", "/scheduling/backoff/backoff", "scheduling", "backoff", "backoff")
	copyTo("backoffFactor", "/scheduling/backoff/backoffFactor", "scheduling", "backoff", "backoffFactor")
	copyTo("maxLaunchDelaySeconds", "/scheduling/backoff/maxLaunchDelay", "scheduling", "backoff", "maxLaunchDelay")
	copyTo("unreachableStrategy", "/scheduling/unreachableStrategy", "scheduling", "unreachableStrategy")
	copyTo("killSelection", "/scheduling/killSelection", "scheduling", "killSelection")
	copyTo("acceptedResourceRoles", "/scheduling/placement/acceptedResourceRoles", "scheduling", "placement", "acceptedResourceRoles")
	for _, ours := range []string{"order", "partition", "minInstances", "maxInstances"} {
		copyTo(ours, "/scheduling/"+ours, "scheduling", ours)
	}
	if u := field(v, "scheduling", "upgrade"); u != nil && u.Kind == document.Object {
		both := newObject()
		most := 1.0
		if slices.ContainsFunc(p.Volumes, func(v Volume) bool { return v.External != nil }) {
			most = 0
		}
		both.put("minimumHealthCapacity", 1.0)
		both.put("maximumOverCapacity", most)
		for k, x := range u.Fields {
			both.Set(k, x)
		}
		a.Set("upgradeStrategy", both.Value)
	}
	paths = append(paths, "/upgradeStrategy", "/scheduling/upgrade")
	if list := p.Scheduling.Placement.Constraints; len(list) > 0 {
		out := [][]string{}
		for _, c := range list {
			one := []string{c.FieldName, c.Operator}
			if c.Value != nil {
				one = append(one, *c.Value)
			}
			out = append(out, one)
		}
		a.put("constraints", out)
	}
	paths = append(paths, "/constraints", "/scheduling/placement/constraints", "/instances", "/scaling/instances")
	paths = append(paths, p.companionContainer(a)...)
	return a.Value, strings.NewReplacer(paths...)
}

// companionContainer adds ports and volumes.
func (p *Pod) companionContainer(a object) (paths []string) {
	host := p.host()
	c := newObject()
	c.put("type", "MESOS")
	ports := []*document.Value{}
	list := "/container/portMappings"
	if host {
		list = "/portDefinitions"
	}
	p.eachEndpoint(func(i, j int, e *Endpoint) {
		o := newObject()
		o.put("name", e.Name)
		protocol := slices.Clone(e.Protocol)
		slices.Sort(protocol)
		slices.Reverse(protocol) // udp,tcp
		if len(protocol) > 0 {
			o.put("protocol", strings.Join(protocol, ","))
		}
		if e.Labels != nil {
			o.put("labels", e.Labels)
		}
		if host {
			o.put("port", definition.Or(e.HostPort, 0))
		} else {
			o.put("containerPort", *e.ContainerPort)
			if e.HostPort != nil {
				o.put("hostPort", *e.HostPort)
			}
		}
		paths = append(paths, fmt.Sprintf("%s(%d)", list, len(ports)), fmt.Sprintf("/containers(%d)/endpoints(%d)", i, j))
		ports = append(ports, o.Value)
	})
	all := &document.Value{Kind: document.Array, List: ports}
	if host {
		a.Set("portDefinitions", all)
	} else {
		c.Set("portMappings", all)
	}
	volumes := &document.Value{Kind: document.Array}
	for i, v := range p.Volumes {
		o := newObject()
		o.put("containerPath", v.Name)
		o.put("mode", "RW")
		if p.onlyRead(v.Name) {
			o.put("mode", "RO")
		}
		switch {
		case v.External != nil:
			o.put("external", v.External)
		case v.Host != "":
			o.put("hostPath", v.Host)
		default:
			continue
		}
		at := fmt.Sprintf("/container/volumes(%d)", len(volumes.List))
		paths = append(paths, at+"/hostPath", fmt.Sprintf("/volumes(%d)/host", i), at+"/containerPath", fmt.Sprintf("/volumes(%d)/name", i), at, fmt.Sprintf("/volumes(%d)", i))
		volumes.List = append(volumes.List, o.Value)
	}
	c.Set("volumes", volumes)
	a.Set("container", c.Value)
	return paths
}

func (p *Pod) host() bool {
	return len(p.Networks) == 0 || p.Networks[0].Mode == definition.NetworkHost
}

func (p *Pod) eachEndpoint(f func(i, j int, e *Endpoint)) {
	for i := range p.Containers {
		for j := range p.Containers[i].Endpoints {
			f(i, j, &p.Containers[i].Endpoints[j])
		}
	}
}

// onlyRead tells whether every container mounts a volume read-only.
func (p *Pod) onlyRead(volume string) bool {
	for _, c := range p.Containers {
		for _, m := range c.VolumeMounts {
			if m.Name == volume && !definition.Or(m.ReadOnly, false) {
				return false
			}
		}
	}
	return true
}

// sum is what an instance takes altogether, in whole thousandths.
func (p *Pod) sum() (cpus, mem, disk float64) {
	all := []Resources{p.ExecutorResources}
	for _, c := range p.Containers {
		all = append(all, c.Resources)
	}
	for _, r := range all {
		cpus, mem, disk = cpus+milli(r.CPUs), mem+milli(r.Mem), disk+milli(r.Disk)
	}
	return cpus / 1000, mem / 1000, disk / 1000
}

func milli(f float64) float64 { return math.Round(f * 1000) }

// Instances are how many are wanted.
func (p *Pod) Instances() int { return p.Scaling.Instances }

// Spec converts a pod that Read gave to what the scheduler works on.
func (p *Pod) Spec() (state.Spec, error) {
	s, err := p.app.Spec()
	if err != nil {
		return s, err
	}
	s.Cmd, s.Env, s.User = "", nil, ""
	s.PodExecutor = &state.PodExecutor{CPUs: p.ExecutorResources.CPUs, MemMB: p.ExecutorResources.Mem, DiskMB: p.ExecutorResources.Disk}
	named := map[string]int{}
	for i, port := range s.Ports {
		named[port.Name] = i
		s.RequirePort = s.RequirePort || port.Want != 0
	}
	inside := map[string]int{} // endpoints without a host port
	p.eachEndpoint(func(_, _ int, e *Endpoint) {
		if _, outside := named[e.Name]; !outside {
			inside[e.Name] = definition.Or(e.ContainerPort, 0)
		}
	})
	for i := range p.Containers {
		s.Containers = append(s.Containers, p.container(&p.Containers[i], named, inside))
	}
	return s, nil
}

func (p *Pod) container(c *Container, named, inside map[string]int) state.PodContainer {
	out := state.PodContainer{Name: c.Name, CPUs: c.Resources.CPUs, MemMB: c.Resources.Mem, DiskMB: c.Resources.Disk, User: c.User, Labels: c.Labels, Env: map[string]string{}}
	if out.User == "" {
		out.User = p.User
	}
	if c.Exec != nil {
		out.Cmd, out.Args = c.Exec.Command.Shell, c.Exec.Command.Argv
	}
	if c.Image != nil {
		out.Image, out.ForcePull = c.Image.ID, definition.Or(c.Image.ForcePull, false)
	}
	for name, port := range inside {
		key := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		out.Env["ENDPOINT_"+key], out.Env["EP_CONTAINER_"+key] = fmt.Sprint(port), fmt.Sprint(port)
	}
	for _, m := range []map[string]string{p.Environment, c.Environment} {
		for k, v := range m {
			out.Env[k] = v
		}
	}
	for _, e := range c.Endpoints {
		if i, ok := named[e.Name]; ok {
			out.Ports = append(out.Ports, i)
		}
	}
	for _, f := range c.Artifacts {
		out.Fetch = append(out.Fetch, state.Fetch{URI: f.URI, Extract: f.Extract, Executable: f.Executable, Cache: f.Cache, DestPath: f.DestPath})
	}
	for _, m := range c.VolumeMounts {
		shared := slices.ContainsFunc(p.Volumes, func(v Volume) bool { return v.Name == m.Name && v.Host == "" && v.External == nil })
		out.Mounts = append(out.Mounts, state.PodMount{Volume: m.Name, Path: m.MountPath, ReadOnly: definition.Or(m.ReadOnly, false), Shared: shared})
	}
	if c.Lifecycle != nil {
		out.KillGrace = time.Duration(c.Lifecycle.KillGracePeriodSeconds * float64(time.Second))
	}
	out.Health = healthOf(c.HealthCheck, named, inside)
	return out
}

func healthOf(h *HealthCheck, named, inside map[string]int) *state.HealthCheck {
	if h == nil {
		return nil
	}
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	out := &state.HealthCheck{Grace: seconds(h.GracePeriodSeconds), Interval: seconds(h.IntervalSeconds), Timeout: seconds(h.TimeoutSeconds), Delay: seconds(h.DelaySeconds), MaxFailures: h.MaxConsecutiveFailures}
	endpoint := ""
	switch {
	case h.Exec != nil:
		out.Protocol, out.Command = "COMMAND", h.Exec.Command.Shell
		return out
	case h.TCP != nil:
		out.Protocol, endpoint = "MESOS_TCP", h.TCP.Endpoint
	default:
		out.Protocol, out.Path, endpoint = "MESOS_HTTP", h.HTTP.Path, h.HTTP.Endpoint
		if h.HTTP.Scheme == "HTTPS" {
			out.Protocol = "MESOS_HTTPS"
		}
	}
	if i, ok := named[endpoint]; ok {
		out.PortIndex = &i
	} else {
		out.Port = inside[endpoint]
	}
	return out
}

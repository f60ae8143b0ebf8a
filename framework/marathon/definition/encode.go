package definition

import (
	"bytes"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

// object prints a JSON object field by field, in the order of the calls.
type object struct{ buf bytes.Buffer }

func (o *object) raw(name string, json []byte) {
	if o.buf.Len() == 0 {
		o.buf.WriteByte('{')
	} else {
		o.buf.WriteByte(',')
	}
	o.buf.Write(document.Quote(name))
	o.buf.WriteByte(':')
	o.buf.Write(json)
}

func (o *object) put(name string, v any) { o.raw(name, document.Marshal(v)) }

func (o *object) end() []byte {
	if o.buf.Len() == 0 {
		return []byte("{}")
	}
	o.buf.WriteByte('}')
	return o.buf.Bytes()
}

// opt prints a field that was given or has a default.
func opt[T any](o *object, name string, p *T) {
	if p != nil {
		o.put(name, *p)
	}
}

// some prints a list or map that is not empty.
func someList[T any](o *object, name string, l []T) {
	if len(l) > 0 {
		o.put(name, l)
	}
}

func someMap[V any](o *object, name string, m map[string]V) {
	if len(m) > 0 {
		o.put(name, m)
	}
}

func list[T any](items []T, print func(*T) []byte) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(print(&items[i]))
	}
	b.WriteByte(']')
	return b.Bytes()
}

// JSON prints an app as Marathon does: its order, its omissions, without version, counts and tasks.
func (a *App) JSON() []byte {
	o := &object{}
	o.put("id", a.ID)
	someList(o, "acceptedResourceRoles", a.AcceptedResourceRoles)
	someList(o, "args", a.Args)
	opt(o, "backoffFactor", a.BackoffFactor)
	opt(o, "backoffSeconds", a.BackoffSeconds)
	opt(o, "cmd", a.Cmd)
	someList(o, "constraints", a.Constraints)
	if a.Container != nil {
		o.raw("container", a.Container.json(a.HostNetwork()))
	}
	opt(o, "cpus", a.CPUs)
	someList(o, "dependencies", a.Dependencies)
	opt(o, "disk", a.Disk)
	if len(a.Env) > 0 {
		o.raw("env", envJSON(a.Env))
	}
	opt(o, "executor", a.Executor)
	a.jsonResources(o)
	if len(a.Fetch) > 0 {
		o.raw("fetch", list(a.Fetch, (*Fetch).json))
	}
	opt(o, "gpus", a.GPUs)
	if len(a.HealthChecks) > 0 {
		o.raw("healthChecks", list(a.HealthChecks, (*HealthCheck).json))
	}
	if a.Check != nil {
		o.raw("check", a.Check.json())
	}
	opt(o, "instances", a.Instances)
	o.put("labels", a.Labels)
	opt(o, "maxLaunchDelaySeconds", a.MaxLaunchDelaySeconds)
	opt(o, "mem", a.Mem)
	o.raw("networks", list(a.Networks, (*Network).json))
	if a.PortDefinitions != nil {
		o.raw("portDefinitions", list(a.PortDefinitions, (*PortDefinition).json))
	}
	if len(a.ReadinessChecks) > 0 {
		o.raw("readinessChecks", list(a.ReadinessChecks, (*ReadinessCheck).json))
	}
	if r := a.Residency; r != nil {
		in := &object{}
		opt(in, "relaunchEscalationTimeoutSeconds", r.RelaunchEscalationTimeoutSeconds)
		opt(in, "taskLostBehavior", r.TaskLostBehavior)
		o.raw("residency", in.end())
	}
	opt(o, "requirePorts", a.RequirePorts)
	a.jsonTail(o)
	return o.end()
}

func (a *App) jsonResources(o *object) {
	if e := a.ExecutorResources; e != nil {
		in := &object{}
		opt(in, "cpus", e.CPUs)
		opt(in, "mem", e.Mem)
		opt(in, "disk", e.Disk)
		o.raw("executorResources", in.end())
	}
	if l := a.ResourceLimits; l != nil {
		in := &object{}
		l.CPUs.json(in, "cpus")
		l.Mem.json(in, "mem")
		o.raw("resourceLimits", in.end())
	}
}

func (l *Limit) json(o *object, name string) {
	switch {
	case l == nil:
	case l.Unlimited:
		o.put(name, "unlimited")
	default:
		o.put(name, l.Value)
	}
}

func (a *App) jsonTail(o *object) {
	if len(a.Secrets) > 0 {
		in := &object{}
		for _, k := range slices.Sorted(maps.Keys(a.Secrets)) {
			in.put(k, map[string]string{"source": a.Secrets[k]})
		}
		o.raw("secrets", in.end())
	}
	opt(o, "taskKillGracePeriodSeconds", a.TaskKillGracePeriodSeconds)
	opt(o, "tty", a.TTY)
	if u := a.UpgradeStrategy; u != nil {
		in := &object{}
		in.put("maximumOverCapacity", u.MaximumOverCapacity)
		in.put("minimumHealthCapacity", u.MinimumHealthCapacity)
		o.raw("upgradeStrategy", in.end())
	}
	opt(o, "user", a.User)
	opt(o, "killSelection", a.KillSelection)
	if u := a.UnreachableStrategy; u != nil && u.Disabled {
		o.put("unreachableStrategy", "disabled")
	} else if u != nil {
		in := &object{}
		in.put("inactiveAfterSeconds", u.InactiveAfterSeconds)
		in.put("expungeAfterSeconds", u.ExpungeAfterSeconds)
		o.raw("unreachableStrategy", in.end())
	}
	opt(o, "role", a.Role)
	opt(o, "unprotected", a.Unprotected)
	opt(o, "order", a.Order)
	opt(o, "partition", a.Partition)
	opt(o, "minInstances", a.MinInstances)
	opt(o, "maxInstances", a.MaxInstances)
	opt(o, "drainSeconds", a.DrainSeconds)
	opt(o, "primary", a.Primary)
}

func envJSON(env map[string]EnvValue) []byte {
	o := &object{}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if v := env[k]; v.IsSecret {
			o.put(k, map[string]string{"secret": v.Secret})
		} else {
			o.put(k, v.Text)
		}
	}
	return o.end()
}

func (f *Fetch) json() []byte {
	o := &object{}
	o.put("uri", f.URI)
	opt(o, "extract", f.Extract)
	opt(o, "executable", f.Executable)
	opt(o, "cache", f.Cache)
	opt(o, "destPath", f.DestPath)
	return o.end()
}

func (n *Network) json() []byte {
	o := &object{}
	opt(o, "name", n.Name)
	opt(o, "mode", n.Mode)
	someMap(o, "labels", n.Labels)
	return o.end()
}

func (d *PortDefinition) json() []byte {
	o := &object{}
	opt(o, "port", d.Port)
	someMap(o, "labels", d.Labels)
	opt(o, "name", d.Name)
	opt(o, "protocol", d.Protocol)
	return o.end()
}

func (m *PortMapping) json() []byte {
	o := &object{}
	opt(o, "containerPort", m.ContainerPort)
	opt(o, "hostPort", m.HostPort)
	if m.Labels != nil {
		o.put("labels", m.Labels)
	}
	opt(o, "name", m.Name)
	opt(o, "protocol", m.Protocol)
	opt(o, "servicePort", m.ServicePort)
	someList(o, "networkNames", m.NetworkNames)
	return o.end()
}

func (h *HealthCheck) json() []byte {
	o := &object{}
	if h.Command != nil {
		o.put("command", map[string]string{"value": *h.Command})
	}
	opt(o, "gracePeriodSeconds", h.GracePeriodSeconds)
	opt(o, "ignoreHttp1xx", h.IgnoreHTTP1xx)
	opt(o, "intervalSeconds", h.IntervalSeconds)
	opt(o, "ipProtocol", h.IPProtocol)
	opt(o, "maxConsecutiveFailures", h.MaxConsecutiveFailures)
	opt(o, "path", h.Path)
	opt(o, "port", h.Port)
	opt(o, "portIndex", h.PortIndex)
	opt(o, "protocol", h.Protocol)
	opt(o, "timeoutSeconds", h.TimeoutSeconds)
	opt(o, "delaySeconds", h.DelaySeconds)
	return o.end()
}

func (c *Check) json() []byte {
	in := &object{}
	if c.Command != nil {
		in.put("command", map[string]string{"shell": *c.Command})
	}
	opt(in, "portIndex", c.PortIndex)
	opt(in, "port", c.Port)
	opt(in, "path", c.Path)
	opt(in, "scheme", c.Scheme)
	o := &object{}
	if c.Kind != "" {
		o.raw(c.Kind, in.end())
	}
	opt(o, "intervalSeconds", c.IntervalSeconds)
	opt(o, "timeoutSeconds", c.TimeoutSeconds)
	opt(o, "delaySeconds", c.DelaySeconds)
	return o.end()
}

func (r *ReadinessCheck) json() []byte {
	o := &object{}
	opt(o, "name", r.Name)
	opt(o, "protocol", r.Protocol)
	opt(o, "path", r.Path)
	opt(o, "portName", r.PortName)
	opt(o, "intervalSeconds", r.IntervalSeconds)
	opt(o, "timeoutSeconds", r.TimeoutSeconds)
	o.put("httpStatusCodesForReady", r.ReadyCodes)
	opt(o, "preserveLastResponse", r.PreserveLastResponse)
	return o.end()
}

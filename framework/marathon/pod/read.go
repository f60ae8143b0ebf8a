package pod

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
)

const (
	messageShape = "Invalid JSON"
	messageRules = "Object is not valid"

	maxPort = 65535
	maxInt  = 1<<31 - 1
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// Read reads a pod. JSON that is no pod is fault.Invalid with its paths.
func Read(v *document.Value, o marathon.Options) (*Pod, []string, error) {
	run := &document.Run{}
	d := &decoder{run: run}
	p := d.pod(run.Read(v))
	if err := run.Problems.Err(messageShape); err != nil {
		return nil, run.Warnings, err
	}
	d.check(p)
	if err := d.rules.Err(messageRules); err != nil {
		return nil, run.Warnings, err
	}
	more, err := p.complete(v, o)
	return p, append(run.Warnings, more...), err
}

// decoder notes what is wrong: shapes in run, rules in rules.
type decoder struct {
	run   *document.Run
	rules document.Problems
}

func (d *decoder) no(r *document.Reader, name, what string) {
	if r.Has(name) {
		d.rules.Add(r.Path(name), what+" not supported by this version of Holdfast")
	}
}

func str(p *string) string { return definition.Or(p, "") }

func (d *decoder) pod(r *document.Reader) *Pod {
	r.Require("id", "containers")
	p := &Pod{ID: str(r.StrLen("id", 1, -1)), Labels: r.StrMap("labels"), User: str(r.Str("user")), Environment: d.env(r),
		ExecutorResources: Resources{CPUs: .1, Mem: 32, Disk: 10}, Scaling: Scaling{Kind: "fixed", Instances: 1}, Role: str(r.Str("role"))}
	r.Str("version") // a new one is made
	r.Each("containers", func(c *document.Reader) { p.Containers = append(p.Containers, d.container(c)) })
	r.Each("volumes", func(c *document.Reader) { p.Volumes = append(p.Volumes, d.volume(c)) })
	r.Each("networks", func(c *document.Reader) {
		p.Networks = append(p.Networks, Network{Name: str(c.StrLen("name", 1, -1)), Mode: definition.Or(c.Enum("mode", definition.NetworkContainer, definition.NetworkBridge, definition.NetworkHost), definition.NetworkContainer), Labels: c.StrMap("labels")})
	})
	if s := r.Obj("scaling"); s.Present() {
		p.Scaling.Kind = definition.Or(s.Enum("kind", "fixed"), "fixed")
		p.Scaling.Instances = definition.Or(s.Int("instances", 0, rule.MaxInstances), 1)
		s.Has("maxInstances")
		s.Close()
	}
	d.scheduling(r.Obj("scheduling"), p)
	if x := r.Obj("executorResources"); x.Present() {
		p.ExecutorResources = d.resources(x, p.ExecutorResources)
	}
	d.no(r, "secrets", "secrets are")
	d.no(r, "linuxInfo", "seccomp and IPC settings (linuxInfo) are")
	d.no(r, "legacySharedCgroups", "shared cgroups are")
	r.Close()
	return p
}

func (d *decoder) env(r *document.Reader) map[string]string {
	out := map[string]string{}
	given := r.Members("environment", func(key, path string, v *document.Value) {
		switch v.Kind {
		case document.String:
			out[key] = v.Text
		case document.Object:
			d.rules.Add(path, "secrets are not supported by this version of Holdfast")
		default:
			r.Note(path, "error.expected.jsobject")
		}
	})
	if !given {
		return nil
	}
	return out
}

func (d *decoder) resources(r *document.Reader, def Resources) Resources {
	out := Resources{CPUs: definition.Or(r.Num("cpus", 0), def.CPUs), Mem: definition.Or(r.Num("mem", 0), def.Mem), Disk: definition.Or(r.Num("disk", 0), def.Disk),
		GPUs: definition.Or(r.Int("gpus", 0, maxInt), 0)}
	if out.GPUs > 0 {
		d.rules.Add(r.Path("gpus"), "GPUs are not supported by this version of Holdfast")
	}
	r.Close()
	return out
}

func (d *decoder) container(r *document.Reader) Container {
	r.Require("name", "resources")
	c := Container{Name: str(r.StrLen("name", 1, 63)), User: str(r.Str("user")), Environment: d.env(r), Labels: r.StrMap("labels")}
	if x := r.Obj("exec"); x.Present() {
		x.Require("command")
		c.Exec = &Exec{Command: d.command(x.Obj("command")), OverrideEntrypoint: x.Flag("overrideEntrypoint")}
		x.Close()
	}
	if x := r.Obj("resources"); x.Present() {
		x.Require("cpus", "mem")
		c.Resources = d.resources(x, Resources{})
	}
	r.Each("endpoints", func(e *document.Reader) {
		e.Require("name")
		c.Endpoints = append(c.Endpoints, Endpoint{Name: str(e.StrLen("name", 1, 63)), ContainerPort: e.Int("containerPort", 0, maxPort), HostPort: e.Int("hostPort", 0, maxPort),
			Protocol: e.Strs("protocol"), Labels: e.StrMap("labels")})
		d.no(e, "networkNames", "endpoints of particular networks are")
	})
	if x := r.Obj("image"); x.Present() {
		x.Require("kind", "id")
		c.Image = &Image{Kind: definition.Or(x.Enum("kind", "DOCKER", "APPC"), "DOCKER"), ID: str(x.StrLen("id", 1, 1024)), ForcePull: x.Flag("forcePull")}
		if c.Image.Kind == "APPC" {
			d.rules.Add(x.Path("kind"), "AppC images are not supported by this version of Holdfast")
		}
		d.no(x, "pullConfig", "secrets are")
		x.Has("labels")
		x.Close()
	}
	if x := r.Obj("healthCheck"); x.Present() {
		c.HealthCheck = d.healthCheck(x)
	}
	r.Each("volumeMounts", func(m *document.Reader) {
		m.Require("name", "mountPath")
		c.VolumeMounts = append(c.VolumeMounts, VolumeMount{Name: str(m.StrLen("name", 1, 63)), MountPath: str(m.StrLen("mountPath", 1, 1024)), ReadOnly: m.Flag("readOnly")})
	})
	r.Each("artifacts", func(f *document.Reader) {
		f.Require("uri")
		c.Artifacts = append(c.Artifacts, Artifact{URI: str(f.StrLen("uri", 1, 1024)), Extract: definition.Or(f.Flag("extract"), true), Executable: definition.Or(f.Flag("executable"), false),
			Cache: definition.Or(f.Flag("cache"), false), DestPath: str(f.StrLen("destPath", 1, 1024))})
	})
	if x := r.Obj("lifecycle"); x.Present() {
		if n := x.Num("killGracePeriodSeconds", 0); n != nil {
			c.Lifecycle = &Lifecycle{KillGracePeriodSeconds: *n}
		}
		x.Close()
	}
	if definition.Or(r.Flag("tty"), false) {
		d.rules.Add(r.Path("tty"), "terminals (tty) are not supported by this version of Holdfast")
	}
	d.no(r, "linuxInfo", "seccomp and IPC settings (linuxInfo) are")
	d.no(r, "resourceLimits", "resource limits are")
	return c
}

func (d *decoder) command(r *document.Reader) Command {
	c := Command{Shell: str(r.StrLen("shell", 1, -1)), Argv: r.Strs("argv")}
	if r.Present() && (c.Shell == "") == (len(c.Argv) == 0) {
		d.rules.Add(strings.TrimSuffix(r.Path(""), "/"), "one of shell and argv must be given")
	}
	r.Close()
	return c
}

func (d *decoder) healthCheck(r *document.Reader) *HealthCheck {
	h := &HealthCheck{GracePeriodSeconds: definition.Or(r.Int("gracePeriodSeconds", 0, maxInt), 300), IntervalSeconds: definition.Or(r.Int("intervalSeconds", 0, maxInt), 60),
		MaxConsecutiveFailures: definition.Or(r.Int("maxConsecutiveFailures", 0, maxInt), 3), TimeoutSeconds: definition.Or(r.Int("timeoutSeconds", 0, maxInt), 20),
		DelaySeconds: definition.Or(r.Int("delaySeconds", 0, maxInt), 15)}
	n := 0
	if x := r.Obj("http"); x.Present() {
		n++
		x.Require("endpoint")
		h.HTTP = &HTTPCheck{Endpoint: str(x.Str("endpoint")), Path: str(x.StrLen("path", 1, 1024)), Scheme: str(x.Enum("scheme", "HTTP", "HTTPS"))}
		x.Close()
	}
	if x := r.Obj("tcp"); x.Present() {
		n++
		x.Require("endpoint")
		h.TCP = &TCPCheck{Endpoint: str(x.Str("endpoint"))}
		x.Close()
	}
	if x := r.Obj("exec"); x.Present() {
		n++
		x.Require("command")
		h.Exec = &ExecCheck{Command: d.command(x.Obj("command"))}
		if len(h.Exec.Command.Argv) > 0 {
			d.rules.Add(x.Path("command"), "a health check's argv is not supported by this version of Holdfast, only shell")
		}
		x.Close()
	}
	at := strings.TrimSuffix(r.Path(""), "/")
	if n != 1 {
		d.rules.Add(at, "Only one of http, tcp, or command may be specified")
	}
	if h.TimeoutSeconds >= h.IntervalSeconds {
		d.rules.Add(at+"/timeoutSeconds", fmt.Sprintf("got %d, expected less than %d", h.TimeoutSeconds, h.IntervalSeconds))
	}
	r.Close()
	return h
}

func (d *decoder) volume(r *document.Reader) Volume {
	r.Require("name")
	v := Volume{Name: str(r.StrLen("name", 1, 63)), Host: str(r.StrLen("host", 1, -1))}
	if x := r.Value("external"); x != nil {
		v.External = []byte(x.Compact())
		if v.Host != "" {
			d.rules.Add(r.Path("external"), "not allowed together with host")
		}
	}
	d.no(r, "persistent", "local persistent volumes in pods are")
	d.no(r, "secret", "secrets are")
	return v
}

func (d *decoder) scheduling(r *document.Reader, p *Pod) {
	if x := r.Obj("placement"); x.Present() {
		x.Each("constraints", func(c *document.Reader) {
			c.Require("fieldName", "operator")
			p.Scheduling.Placement.Constraints = append(p.Scheduling.Placement.Constraints, Constraint{FieldName: str(c.Str("fieldName")), Operator: str(c.Str("operator")), Value: c.Str("value")})
		})
		x.Strs("acceptedResourceRoles")
		x.Close()
	}
	for name, fields := range map[string][]string{"backoff": {"backoff", "backoffFactor", "maxLaunchDelay"}, "upgrade": {"minimumHealthCapacity", "maximumOverCapacity"}} {
		if x := r.Obj(name); x.Present() {
			for _, f := range fields {
				x.Num(f, 0)
			}
			x.Close()
		}
	}
	for _, f := range []string{"killSelection", "unreachableStrategy", "order", "partition", "minInstances", "maxInstances"} {
		r.Has(f)
	}
	r.Close()
}

// check holds Marathon's rules on what an app does not have.
func (d *decoder) check(p *Pod) {
	no := d.rules.Add
	if len(p.Containers) == 0 {
		no("/containers", "must not be empty")
	}
	host := len(p.Networks) == 0 || slices.ContainsFunc(p.Networks, func(n Network) bool { return n.Mode == definition.NetworkHost })
	if p.ExecutorResources.CPUs < .01 || p.ExecutorResources.Mem < 32 {
		no("/executorResources", "Mesos's default executor needs at least 0.01 cpus and 32 MiB of mem")
	}
	if p.ExecutorResources.Disk <= 0 {
		no("/executorResources/disk", "Mesos's default executor needs some disk")
	}
	volumes, containers, endpoints, inside, outside := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[int]bool{}, map[int]bool{}
	twice := func(seen map[int]bool, p *int) bool {
		again := p != nil && *p != 0 && seen[*p]
		if p != nil {
			seen[*p] = true
		}
		return again
	}
	for i, v := range p.Volumes {
		at := fmt.Sprintf("/volumes(%d)", i)
		d.name(at+"/name", v.Name)
		if volumes[v.Name] {
			no("/volumes", "volume names are unique")
		}
		volumes[v.Name] = true
		if !slices.ContainsFunc(p.Containers, func(c Container) bool {
			return slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return m.Name == v.Name })
		}) {
			no(at, "volume must be referenced by at least one container")
		}
	}
	for i, c := range p.Containers {
		at := fmt.Sprintf("/containers(%d)", i)
		d.name(at+"/name", c.Name)
		if containers[c.Name] {
			no("/containers", "container names are unique")
		}
		containers[c.Name] = true
		if c.Exec == nil && c.Image == nil {
			no(at, "a container needs exec, image, or both")
		}
		if l := c.Lifecycle; l != nil && (l.KillGracePeriodSeconds <= 0 || l.KillGracePeriodSeconds > 86400) {
			no(at+"/lifecycle/killGracePeriodSeconds", "must be greater than 0, and at most 86400")
		}
		own := map[string]bool{}
		for j, e := range c.Endpoints {
			d.endpoint(fmt.Sprintf("%s/endpoints(%d)", at, j), &e, p.Networks, host)
			if endpoints[e.Name] {
				no("/", "Endpoint names are unique")
			}
			endpoints[e.Name], own[e.Name] = true, true
			if twice(inside, e.ContainerPort) {
				no("/", "Container ports are unique")
			}
			if twice(outside, e.HostPort) {
				no("/", "Host ports are unique")
			}
		}
		for name, of := range map[string]string{"http": httpEndpoint(c.HealthCheck), "tcp": tcpEndpoint(c.HealthCheck)} {
			if of != "" && !own[of] {
				no(at+"/healthCheck/"+name+"/endpoint", "contained in the container endpoints")
			}
		}
		paths := map[string]bool{}
		for j, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				no(fmt.Sprintf("%s/volumeMounts(%d)/name", at, j), "Referenced Volume in VolumeMount should exist")
			}
			if slices.Contains(strings.Split(m.MountPath, "/"), "..") || paths[m.MountPath] {
				no(fmt.Sprintf("%s/volumeMounts(%d)/mountPath", at, j), "must be a path of its own, without '..'")
			}
			paths[m.MountPath] = true
		}
		for j, f := range c.Artifacts {
			if !rule.ValidURI(f.URI) {
				no(fmt.Sprintf("%s/artifacts(%d)/uri", at, j), "URI has invalid syntax.")
			}
			if strings.HasPrefix(f.DestPath, "/") || slices.Contains(strings.Split(f.DestPath, "/"), "..") {
				no(fmt.Sprintf("%s/artifacts(%d)/destPath", at, j), "destPath must be a relative path without '..'")
			}
		}
	}
}

func httpEndpoint(h *HealthCheck) string {
	if h == nil || h.HTTP == nil {
		return ""
	}
	return h.HTTP.Endpoint
}

func tcpEndpoint(h *HealthCheck) string {
	if h == nil || h.TCP == nil {
		return ""
	}
	return h.TCP.Endpoint
}

func (d *decoder) name(at, s string) {
	if !namePattern.MatchString(s) {
		d.rules.Add(at, "must fully match regular expression '"+namePattern.String()+"'")
	}
}

func (d *decoder) endpoint(at string, e *Endpoint, networks []Network, host bool) {
	no := d.rules.Add
	d.name(at+"/name", e.Name)
	switch {
	case host && len(networks) > 0 && e.HostPort == nil:
		no(at+"/hostPort", "is required when using host-mode networking")
	case host && e.ContainerPort != nil:
		no(at+"/containerPort", "is not allowed when using host-mode networking")
	case !host && definition.Or(e.ContainerPort, 0) == 0:
		no(at+"/containerPort", "is required when using container-mode networking")
	}
	seen := map[string]bool{}
	for _, p := range e.Protocol {
		if p != "tcp" && p != "udp" {
			no(at+"/protocol", "must be one of tcp and udp")
		}
		if seen[p] {
			no(at+"/protocol", "Duplicate protocols within the same endpoint are not allowed")
		}
		seen[p] = true
	}
}

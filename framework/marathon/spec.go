package marathon

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Spec converts an app that went through Read (or Apply) and Unsupported to what the scheduler works on. Constraints with
// lower-case operators, which Marathon accepts and then chokes on, are taken as meant.
func (a *App) Spec() (state.Spec, error) {
	s := state.Spec{
		Cmd: definition.Or(a.Cmd, ""), Args: a.Args, User: definition.Or(a.User, ""),
		Env: map[string]string{}, Labels: a.Labels,
		CPUs: *a.CPUs, MemMB: *a.Mem, DiskMB: *a.Disk, GPUs: *a.GPUs,
		AcceptedRoles: a.AcceptedResourceRoles,
		RequirePort:   *a.RequirePorts,
		KillGrace:     seconds(definition.Or(a.TaskKillGracePeriodSeconds, 0)),
		Backoff:       state.Backoff{Base: seconds(*a.BackoffSeconds), Factor: *a.BackoffFactor, Max: seconds(*a.MaxLaunchDelaySeconds)},
		Upgrade:       state.Upgrade{MaxOver: a.UpgradeStrategy.MaximumOverCapacity, MinHealth: a.UpgradeStrategy.MinimumHealthCapacity},
		KillSelection: *a.KillSelection,
		Executor:      *a.Executor,
		Unprotected:   definition.Or(a.Unprotected, false),
	}
	if r := a.Residency; r != nil {
		s.Residency = &state.Residency{Relaunch: definition.Or(r.TaskLostBehavior, "") == "RELAUNCH_AFTER_TIMEOUT", Escalation: seconds(definition.Or(r.RelaunchEscalationTimeoutSeconds, 3600))}
	}
	s.Unreachable = state.Unreachable{Disabled: a.UnreachableStrategy.Disabled,
		Inactive: seconds(a.UnreachableStrategy.InactiveAfterSeconds), Expunge: seconds(a.UnreachableStrategy.ExpungeAfterSeconds)}
	for k, v := range a.Env {
		if v.IsSecret {
			if s.EnvSecrets == nil {
				s.EnvSecrets = map[string]string{}
			}
			s.EnvSecrets[k] = a.Secrets[v.Secret]
			continue
		}
		s.Env[k] = v.Text
	}
	for _, f := range a.Fetch {
		s.Fetch = append(s.Fetch, state.Fetch{URI: f.URI, Extract: *f.Extract, Executable: *f.Executable, Cache: *f.Cache, DestPath: definition.Or(f.DestPath, "")})
	}
	for _, c := range a.Constraints {
		out := state.Constraint{Field: c[0], Operator: strings.ToUpper(c[1])}
		if len(c) == 3 {
			out.Value, out.HasValue = c[2], true
		}
		s.Constraints = append(s.Constraints, out)
	}
	for _, d := range a.Dependencies {
		s.Dependencies = append(s.Dependencies, state.AppID(rule.AbsoluteID(d)))
	}
	s.TTY = definition.Or(a.TTY, false)
	a.specContainer(&s)
	ports := a.specPorts(&s)
	for i := range a.HealthChecks {
		s.HealthChecks = append(s.HealthChecks, healthSpec(&a.HealthChecks[i], ports))
	}
	for i := range a.ReadinessChecks {
		s.ReadinessChecks = append(s.ReadinessChecks, a.readinessSpec(&a.ReadinessChecks[i], ports))
	}
	s.Rollout = state.Rollout{Serial: definition.Or(a.Order, "") == definition.OrderSerial, Partition: definition.Or(a.Partition, 0),
		Min: definition.Or(a.MinInstances, 0), Max: definition.Or(a.MaxInstances, 0)}
	s.Primary = definition.Or(a.Primary, false)
	if a.DrainSeconds != nil {
		drain := seconds(*a.DrainSeconds)
		s.Drain = &drain
	}
	return s, a.specVolumes(&s)
}

// seconds is bounded so that a duration cannot overflow.
func seconds(n int) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int(time.Second))) * time.Second
}

func (a *App) specContainer(s *state.Spec) {
	n := a.Networks[0]
	s.Container.Network = *n.Mode
	s.Container.NetName = definition.Or(n.Name, "")
	s.Container.NetLabels = n.Labels
	c := a.Container
	if c == nil {
		return
	}
	s.Container.Type = *c.Type
	if l := c.LinuxInfo; l != nil && l.Seccomp != nil {
		s.Container.Seccomp = &state.Seccomp{Profile: definition.Or(l.Seccomp.ProfileName, ""), Unconfined: definition.Or(l.Seccomp.Unconfined, false)}
	}
	if d := c.Docker; d != nil {
		s.Container.Image = definition.Or(d.Image, "")
		if d.PullSecret != nil {
			s.Container.PullSecret = a.Secrets[*d.PullSecret]
		}
		s.Container.ForcePull = definition.Or(d.ForcePullImage, false)
		s.Container.Privileged = definition.Or(d.Privileged, false)
		for _, p := range d.Parameters {
			s.Container.Parameters = append(s.Container.Parameters, state.Pair{Key: p.Key, Value: p.Value})
		}
	}
}

// specPorts converts what needs a host port. The answer maps the app's port indexes to those of Spec.Ports; an index below
// zero is -1-n for a mapping without host port, whose container port is n.
func (a *App) specPorts(s *state.Spec) []int {
	var index []int
	if a.HostNetwork() {
		for i, d := range a.PortDefinitions {
			s.Ports = append(s.Ports, state.Port{Want: *d.Port, Name: definition.Or(d.Name, ""), Protocol: *d.Protocol, Labels: d.Labels})
			index = append(index, i)
		}
		return index
	}
	for _, m := range a.Container.PortMappings {
		if m.HostPort == nil {
			index = append(index, -1-*m.ContainerPort)
			continue
		}
		// A host port in a mapping is always meant, unlike the port of a portDefinition.
		s.RequirePort = s.RequirePort || *m.HostPort != 0
		index = append(index, len(s.Ports))
		s.Ports = append(s.Ports, state.Port{Want: *m.HostPort, Name: definition.Or(m.Name, ""), Protocol: *m.Protocol, Labels: m.Labels, ContainerPort: *m.ContainerPort})
	}
	return index
}

func healthSpec(h *definition.HealthCheck, ports []int) state.HealthCheck {
	out := state.HealthCheck{
		Protocol: *h.Protocol, Path: definition.Or(h.Path, ""), Port: definition.Or(h.Port, 0), Command: definition.Or(h.Command, ""),
		Grace: seconds(*h.GracePeriodSeconds), Interval: seconds(*h.IntervalSeconds), Timeout: seconds(*h.TimeoutSeconds),
		Delay: seconds(*h.DelaySeconds), MaxFailures: *h.MaxConsecutiveFailures, Ignore1xx: definition.Or(h.IgnoreHTTP1xx, false),
	}
	if h.PortIndex != nil && *h.PortIndex < len(ports) {
		if i := ports[*h.PortIndex]; i >= 0 {
			out.PortIndex = &i
		} else {
			out.Port = -1 - i
		}
	}
	return out
}

func persistentMount(m state.Mount, p *definition.Persistent) state.Mount {
	m.Kind, m.SizeMB, m.DiskType = state.MountPersistent, int64(p.Size), definition.Or(p.Type, "root")
	m.MaxSizeMB, m.Profile = int64(definition.Or(p.MaxSize, 0)), definition.Or(p.ProfileName, "")
	for _, c := range p.Constraints {
		m.DiskConstraints = append(m.DiskConstraints, state.Constraint{Field: c[0], Operator: strings.ToUpper(c[1]), Value: c[2], HasValue: true})
	}
	return m
}

// readinessSpec finds the port that a readiness check names.
func (a *App) readinessSpec(r *definition.ReadinessCheck, ports []int) state.ReadinessCheck {
	out := state.ReadinessCheck{Name: *r.Name, Protocol: *r.Protocol, Path: *r.Path, Interval: seconds(*r.IntervalSeconds), Timeout: seconds(*r.TimeoutSeconds),
		Codes: r.ReadyCodes, Keep: *r.PreserveLastResponse}
	var names []string
	if a.HostNetwork() {
		for _, d := range a.PortDefinitions {
			names = append(names, definition.Or(d.Name, ""))
		}
	} else {
		for _, m := range a.Container.PortMappings {
			names = append(names, definition.Or(m.Name, ""))
		}
	}
	if at := slices.Index(names, *r.PortName); at >= 0 && at < len(ports) {
		if i := ports[at]; i >= 0 {
			out.PortIndex = &i
		} else {
			out.Port = -1 - i
		}
	}
	return out
}

func (a *App) specVolumes(s *state.Spec) error {
	for _, v := range a.Volumes() {
		m := state.Mount{ContainerPath: v.ContainerPath, ReadOnly: v.Mode == "RO"}
		switch {
		case v.HostPath != nil:
			m.Kind, m.HostPath = state.MountHost, *v.HostPath
		case v.Secret != nil:
			m.Kind, m.Secret, m.ReadOnly = state.MountSecret, a.Secrets[*v.Secret], true
		case v.Persistent != nil:
			m = persistentMount(m, v.Persistent)
		case v.External != nil:
			e := v.External
			m.Kind, m.Driver, m.Pattern = state.MountExternal, rule.Driver(e), *e.Name
			m.Options, m.Shared, m.Class = rule.DriverOptions(e), rule.Shared(&v), definition.Or(e.Class, "")
			m.Encrypt = rule.Encrypt(e)
			size := e.Size
			if size == "" {
				size = e.Options["dvdi/size"]
			}
			if c := e.FromClass; c != nil {
				m.Policy, m.Zones, m.DeleteOnRemove = c.Policy, c.Zones, c.Delete
				if size == "" {
					m.Size = volume.Bytes(c.Size)
				}
			}
			if r := e.Retain; r != nil {
				m.DeleteOnScaleDown = definition.Or(r.OnScaleDown, "keep") == "delete"
				if r.OnDelete != nil {
					m.DeleteOnRemove = *r.OnDelete == "delete"
				}
			}
			if e.Snapshot != nil {
				m.From = &state.MountSource{Volume: e.Snapshot.Volume, Snapshot: e.Snapshot.Name}
			}
			if size != "" {
				b, err := volume.ParseSize(size)
				if err != nil {
					return fault.Op(err, "convert app %s: volume %s", a.ID, *e.Name)
				}
				m.Size = b
			}
		default:
			return fault.New(fault.Internal, "convert app %s: a volume of a kind that cannot run", a.ID)
		}
		s.Volumes = append(s.Volumes, m)
	}
	return nil
}

package task

import (
	"slices"
	"sort"
	"strings"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Encoder makes calls, and the TaskInfos in them, by the framework's settings that every task carries.
type Encoder struct {
	// EnvPrefix stands before HOST and the PORT variables (Marathon's --env_vars_prefix).
	EnvPrefix string
	// API is the framework's URL, for HOLDFAST_API; "" leaves it out.
	API string
	// BridgeName is the CNI network for container/bridge with the Mesos containerizer (Marathon's --mesos_bridge_name). Default "mesos-bridge".
	BridgeName string
}

// TaskInfo makes the TaskInfo of one launch. An error is fault.Invalid: the definition asks for what cannot be encoded.
func (e *Encoder) TaskInfo(l *scheduler.Launch, agent state.AgentID) (*mesos.TaskInfo, error) {
	if l.Instance == nil || l.Run == nil || l.Def == nil {
		return nil, fault.New(fault.Internal, "launch without instance, run or definition")
	}
	spec := &l.Def.Spec
	if spec.Executor != "" && spec.Executor != "//cmd" {
		return nil, fault.New(fault.Invalid, "app %s: executor %q is not supported, only the command executor", l.Def.App, spec.Executor)
	}
	info := &mesos.TaskInfo{
		Name:    reversedName(l.Def.App),
		TaskID:  mesos.TaskID{Value: string(l.Run.Task)},
		AgentID: mesos.AgentID{Value: string(agent)},
		Labels:  labels(spec.Labels),
	}
	for i := range l.Resources {
		r, err := encodeResource(&l.Resources[i])
		if err != nil {
			return nil, err
		}
		info.Resources = append(info.Resources, *r)
	}
	info.Command = e.command(l)
	var err error
	if info.Container, err = e.container(l); err != nil {
		return nil, err
	}
	if info.HealthCheck, err = healthCheck(l); err != nil {
		return nil, err
	}
	if spec.KillGrace > 0 {
		info.KillPolicy = killPolicy(spec.KillGrace)
	}
	info.Discovery = discovery(l, info.Name)
	return info, nil
}

// reversedName is Marathon's task name: "/a/b" is "b.a".
func reversedName(app state.AppID) string {
	parts := strings.Split(strings.Trim(string(app), "/"), "/")
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".")
}

func labels(m map[string]string) *mesos.Labels {
	if len(m) == 0 {
		return nil
	}
	out := &mesos.Labels{}
	for _, k := range sortedKeys(m) {
		out.Labels = append(out.Labels, mesos.Label{Key: k, Value: ptr(m[k])})
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (e *Encoder) command(l *scheduler.Launch) *mesos.CommandInfo {
	spec := &l.Def.Spec
	cmd := &mesos.CommandInfo{Environment: e.environment(l)}
	switch {
	case spec.Cmd != "":
		cmd.Shell, cmd.Value = ptr(true), ptr(spec.Cmd)
	default:
		cmd.Shell, cmd.Arguments = ptr(false), spec.Args
		// Without an image there is no entry point: the first argument is the program.
		if spec.Container.Image == "" && len(spec.Args) > 0 {
			cmd.Value = ptr(spec.Args[0])
		}
	}
	if spec.User != "" {
		cmd.User = ptr(spec.User)
	}
	cmd.URIs = fetched(spec.Fetch)
	return cmd
}

// fetched gives what Mesos's fetcher brings into the sandbox.
func fetched(list []state.Fetch) (out []mesos.CommandInfo_URI) {
	for _, f := range list {
		u := mesos.CommandInfo_URI{Value: f.URI, Extract: ptr(f.Extract), Executable: ptr(f.Executable), Cache: ptr(f.Cache)}
		if f.DestPath != "" {
			u.OutputFile = ptr(f.DestPath)
		}
		out = append(out, u)
	}
	return out
}

// encodeResource gives back what was offered, less what is not taken. Reservations and everything that the scheduler has no
// field for come from the offered bytes.
func encodeResource(r *state.Resource) (*mesos.Resource, error) {
	out := &mesos.Resource{}
	if len(r.Raw) > 0 {
		if err := out.Unmarshal(r.Raw); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "resource %s as offered", r.Name)
		}
	}
	out.Name = r.Name
	out.Scalar, out.Ranges, out.Set = nil, nil, nil
	if len(r.Ranges) > 0 {
		out.Type = mesos.RANGES.Enum()
		out.Ranges = &mesos.Value_Ranges{}
		for _, g := range r.Ranges {
			out.Ranges.Range = append(out.Ranges.Range, mesos.Value_Range{Begin: g.Begin, End: g.End})
		}
	} else {
		out.Type = mesos.SCALAR.Enum()
		out.Scalar = &mesos.Value_Scalar{Value: r.Scalar}
	}
	if r.AllocationRole != "" {
		out.AllocationInfo = &mesos.Resource_AllocationInfo{Role: ptr(r.AllocationRole)}
	}
	out.Reservations = encodeStack(out.Reservations, r.Reservations)
	out.Disk = encodeDisk(out.Disk, r.Disk)
	if !r.Shared {
		out.Shared = nil
	}
	return out, nil
}

func encodeReservation(v state.Reservation) mesos.Resource_ReservationInfo {
	kind := mesos.Resource_ReservationInfo_STATIC
	if v.Dynamic {
		kind = mesos.Resource_ReservationInfo_DYNAMIC
	}
	out := mesos.Resource_ReservationInfo{Type: &kind, Role: ptr(v.Role), Labels: labels(v.Labels)}
	if v.Principal != "" {
		out.Principal = ptr(v.Principal)
	}
	return out
}

// healthCheck maps the app's one check that is Mesos's own (COMMAND, MESOS_…), which the task's executor runs. HTTP, HTTPS and TCP are
// asked by the framework, as Marathon does.
func healthCheck(l *scheduler.Launch) (*mesos.HealthCheck, error) {
	at := slices.IndexFunc(l.Def.Spec.HealthChecks, func(h state.HealthCheck) bool { return h.Native() })
	if at < 0 {
		return nil, nil
	}
	h := &l.Def.Spec.HealthChecks[at]
	out := &mesos.HealthCheck{
		DelaySeconds:        seconds(h.Delay),
		IntervalSeconds:     seconds(h.Interval),
		TimeoutSeconds:      seconds(h.Timeout),
		GracePeriodSeconds:  seconds(h.Grace),
		ConsecutiveFailures: ptr(uint32(max(h.MaxFailures, 0))),
	}
	kind := strings.TrimPrefix(h.Protocol, "MESOS_")
	if kind == "COMMAND" {
		out.Type = mesos.HealthCheck_COMMAND
		out.Command = &mesos.CommandInfo{Shell: ptr(true), Value: ptr(h.Command)}
		return out, nil
	}
	port, err := checkPort(l, h)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "HTTP", "HTTPS":
		out.Type = mesos.HealthCheck_HTTP
		out.HTTP = &mesos.HealthCheck_HTTPCheckInfo{Scheme: ptr(strings.ToLower(kind)), Port: port}
		if h.Path != "" {
			out.HTTP.Path = ptr(h.Path)
		}
	case "TCP":
		out.Type = mesos.HealthCheck_TCP
		out.TCP = &mesos.HealthCheck_TCPCheckInfo{Port: port}
	default:
		return nil, fault.New(fault.Invalid, "app %s: health check protocol %q is not known", l.Def.App, h.Protocol)
	}
	return out, nil
}

// checkPort is the port as seen from inside the container, where Mesos checks.
func checkPort(l *scheduler.Launch, h *state.HealthCheck) (uint32, error) {
	if h.Port > 0 {
		return uint32(h.Port), nil
	}
	i := 0
	if h.PortIndex != nil {
		i = *h.PortIndex
	}
	ports := l.Def.Spec.Ports
	if i < 0 || i >= len(ports) {
		return 0, fault.New(fault.Invalid, "app %s: health check of port index %d, but there are %d ports", l.Def.App, i, len(ports))
	}
	if n := l.Def.Spec.Container.Network; n != "" && n != "host" && ports[i].ContainerPort > 0 {
		return uint32(ports[i].ContainerPort), nil
	}
	if i >= len(l.Run.Ports) || l.Run.Ports[i] <= 0 {
		return 0, fault.New(fault.Invalid, "app %s: health check of port index %d, which has no host port", l.Def.App, i)
	}
	return uint32(l.Run.Ports[i]), nil
}

func seconds(d time.Duration) *float64 { return ptr(d.Seconds()) }

// discovery is what DNS and load balancers of others read: the app's name and its ports.
func discovery(l *scheduler.Launch, name string) *mesos.DiscoveryInfo {
	out := &mesos.DiscoveryInfo{Visibility: mesos.FRAMEWORK, Name: ptr(name)}
	scope := "host"
	if n := l.Def.Spec.Container.Network; n == "container" {
		scope = "container"
	}
	ports := &mesos.Ports{}
	for i, p := range l.Def.Spec.Ports {
		number := 0
		if i < len(l.Run.Ports) {
			number = l.Run.Ports[i]
		}
		if number == 0 {
			number = p.ContainerPort
		}
		if number == 0 {
			continue
		}
		all := map[string]string{"network-scope": scope}
		for k, v := range p.Labels {
			all[k] = v
		}
		for proto := range strings.SplitSeq(p.Protocol, ",") {
			port := mesos.Port{Number: uint32(number), Labels: labels(all)}
			if p.Name != "" {
				port.Name = ptr(p.Name)
			}
			if proto != "" {
				port.Protocol = ptr(proto)
			}
			ports.Ports = append(ports.Ports, port)
		}
	}
	if len(ports.Ports) > 0 {
		out.Ports = ports
	}
	return out
}

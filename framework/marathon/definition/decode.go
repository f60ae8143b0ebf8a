package definition

import (
	"math"
	"regexp"
	"strconv"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
)

const (
	// Segment is the shape of one element of an app id.
	Segment  = `(([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])`
	maxInt   = math.MaxInt32
	maxLong  = 1 << 53
	maxPort  = 65535
	noBounds = -1
)

var (
	pathShape     = regexp.MustCompile(`^/?((\.\.|\.|` + Segment + `)?(/|$))*$`)
	executorShape = regexp.MustCompile(`^(//cmd|(/?[^/]+(/[^/]+)*)|)$`)
	portName      = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
)

// Decode reads the shape of an app: types, bounds, required fields. What is wrong is noted in run. whole says that an id is required.
func Decode(run *document.Run, v *document.Value, whole bool) *App {
	r := run.Read(v)
	a := &App{}
	if whole {
		r.Require("id")
	}
	a.ID = Or(r.StrLike("id", pathShape), "")
	a.AcceptedResourceRoles = r.Strs("acceptedResourceRoles")
	a.Args = r.Strs("args")
	a.BackoffFactor = r.Num("backoffFactor", 1)
	a.BackoffSeconds = r.Int("backoffSeconds", 0, maxInt)
	a.Cmd = r.StrLen("cmd", 1, noBounds)
	a.Constraints = decodeConstraints(r, "constraints")
	if r.Has("container") {
		a.Container = decodeContainer(r.Obj("container"))
	}
	a.CPUs = r.Num("cpus", 0)
	a.Dependencies = decodeIDs(r, "dependencies")
	a.Disk = r.Num("disk", 0)
	a.Env = decodeEnv(r)
	a.Executor = r.StrLike("executor", executorShape)
	decodeResources(r, a)
	a.Fetch = decodeFetch(r)
	a.HealthChecks = decodeHealthChecks(r)
	if r.Has("check") {
		a.Check = decodeCheck(r.Obj("check"))
	}
	a.Instances = r.Int("instances", 0, maxInt)
	a.Labels = r.StrMap("labels")
	a.MaxLaunchDelaySeconds = r.Int("maxLaunchDelaySeconds", 0, maxInt)
	a.Mem = r.Num("mem", 0)
	a.Networks = decodeNetworks(r)
	a.PortDefinitions = decodePortDefinitions(r)
	a.ReadinessChecks = decodeReadinessChecks(r)
	if r.Has("residency") {
		a.Residency = decodeResidency(r.Obj("residency"))
	}
	a.RequirePorts = r.Flag("requirePorts")
	a.Role = r.Str("role")
	a.Secrets = decodeSecrets(r)
	a.TaskKillGracePeriodSeconds = r.Int("taskKillGracePeriodSeconds", 0, maxInt)
	a.TTY = r.Flag("tty")
	a.UpgradeStrategy = decodeUpgradeStrategy(r)
	a.User = r.Str("user")
	a.KillSelection = r.Enum("killSelection", "YOUNGEST_FIRST", "OLDEST_FIRST")
	a.UnreachableStrategy = decodeUnreachableStrategy(r)
	a.Unprotected = r.Flag("unprotected")
	a.Order = r.Enum("order", OrderSerial, OrderParallel)
	a.Partition = r.Int("partition", 0, maxInt)
	a.MinInstances = r.Int("minInstances", 0, maxInt)
	a.MaxInstances = r.Int("maxInstances", 1, maxInt)
	a.DrainSeconds = r.Int("drainSeconds", 0, 3600)
	a.Primary = r.Flag("primary")
	a.Version = r.Str("version")
	a.OldPorts = r.Ints("ports", 0, maxPort)
	a.OldURIs = r.Strs("uris")
	if r.Has("ipAddress") {
		a.OldIPAddress = decodeIPAddress(r.Obj("ipAddress"))
	}
	// What an answer of the API holds besides the definition may come back in; it says nothing.
	for _, name := range []string{"versionInfo", "tasks", "deployments", "tasksStaged", "tasksRunning", "tasksHealthy", "tasksUnhealthy",
		"lastTaskFailure", "taskStats", "tasksStats", "readinessCheckResults", "storeUrls"} {
		r.Has(name)
	}
	r.Close()
	return a
}

func decodeResources(r *document.Reader, a *App) {
	a.GPUs = r.Int("gpus", 0, maxInt)
	if r.Has("executorResources") {
		o := r.Obj("executorResources")
		a.ExecutorResources = &ExecutorResources{CPUs: o.Num("cpus", 0.1), Mem: o.Num("mem", 32), Disk: o.Num("disk", 10)}
		o.Close()
	}
	if r.Has("resourceLimits") {
		o := r.Obj("resourceLimits")
		a.ResourceLimits = &ResourceLimits{CPUs: decodeLimit(o, "cpus"), Mem: decodeLimit(o, "mem")}
		o.Close()
	}
}

func decodeLimit(r *document.Reader, name string) *Limit {
	v := r.Value(name)
	switch {
	case v == nil:
		return nil
	case v.Kind == document.String && v.Text == "unlimited":
		return &Limit{Unlimited: true}
	case v.Kind == document.Number:
		if n := r.Num(name, 0); n != nil {
			return &Limit{Value: *n}
		}
		return nil
	}
	text := v.Compact()
	if v.Kind == document.String {
		text = v.Text
	}
	r.Problem(name, "'"+Short(text)+"' is an invalid resource limit. It must be 'unlimited' or a number")
	return nil
}

// Short keeps an error text readable when somebody sends megabytes.
func Short(s string) string {
	if len(s) > 100 {
		return strconv.QuoteToASCII(s[:100]) + "…"
	}
	return s
}

func decodeIDs(r *document.Reader, name string) []string {
	out := []string{}
	given := r.Items(name, func(path string, v *document.Value) {
		switch {
		case v.Kind != document.String:
			r.Note(path, "error.expected.jsstring")
		case !pathShape.MatchString(v.Text):
			r.Note(path, "error.pattern")
		default:
			out = append(out, v.Text)
		}
	})
	if !given {
		return nil
	}
	return out
}

func decodeConstraints(r *document.Reader, name string) [][]string {
	out := [][]string{}
	given := r.Items(name, func(path string, v *document.Value) {
		if v.Kind != document.Array {
			r.Note(path, "error.expected.jsarray")
			return
		}
		one := []string{}
		for i, item := range v.List {
			if item.Kind != document.String {
				r.Note(path+"("+strconv.Itoa(i)+")", "error.expected.jsstring")
				continue
			}
			one = append(one, item.Text)
		}
		out = append(out, one)
	})
	if !given {
		return nil
	}
	return out
}

func decodeEnv(r *document.Reader) map[string]EnvValue {
	out := map[string]EnvValue{}
	given := r.Members("env", func(key, path string, v *document.Value) {
		switch v.Kind {
		case document.String:
			out[key] = EnvValue{Text: v.Text}
		case document.Object:
			o := r.Nested(path, v)
			o.Require("secret")
			out[key] = EnvValue{Secret: Or(o.StrLen("secret", 1, noBounds), ""), IsSecret: true}
			o.Close()
		default:
			r.Note(path, "error.expected.jsobject")
		}
	})
	if !given {
		return nil
	}
	return out
}

func decodeSecrets(r *document.Reader) map[string]string {
	out := map[string]string{}
	given := r.Members("secrets", func(key, path string, v *document.Value) {
		if v.Kind != document.Object {
			r.Note(path, "error.expected.jsobject")
			return
		}
		o := r.Nested(path, v)
		o.Require("source")
		out[key] = Or(o.StrLen("source", 1, noBounds), "")
		o.Close()
	})
	if !given {
		return nil
	}
	return out
}

func decodeFetch(r *document.Reader) []Fetch {
	out := []Fetch{}
	given := r.Each("fetch", func(o *document.Reader) {
		o.Require("uri")
		out = append(out, Fetch{URI: Or(o.StrLen("uri", 1, 1024), ""), Extract: o.Flag("extract"), Executable: o.Flag("executable"),
			Cache: o.Flag("cache"), DestPath: o.Str("destPath")})
		o.Has("outputFile") // an older name that HEAD ignores
	})
	if !given {
		return nil
	}
	return out
}

func decodeNetworks(r *document.Reader) []Network {
	out := []Network{}
	given := r.Each("networks", func(o *document.Reader) {
		out = append(out, Network{Mode: o.Enum("mode", NetworkContainer, NetworkBridge, NetworkHost), Name: o.StrLen("name", 1, noBounds), Labels: o.StrMap("labels")})
	})
	if !given {
		return nil
	}
	return out
}

func decodePortDefinitions(r *document.Reader) []PortDefinition {
	out := []PortDefinition{}
	given := r.Each("portDefinitions", func(o *document.Reader) {
		out = append(out, PortDefinition{Port: o.Int("port", 0, maxPort), Name: o.StrLike("name", portName), Protocol: protocol(o), Labels: o.StrMap("labels")})
	})
	if !given {
		return nil
	}
	return out
}

func protocol(o *document.Reader) *string {
	return o.Enum("protocol", "tcp", "udp", "udp,tcp")
}

func decodePortMappings(r *document.Reader) []PortMapping {
	out := []PortMapping{}
	given := r.Each("portMappings", func(o *document.Reader) {
		out = append(out, PortMapping{ContainerPort: o.Int("containerPort", 0, maxPort), HostPort: o.Int("hostPort", 0, maxPort),
			ServicePort: o.Int("servicePort", 0, maxPort), Protocol: protocol(o), Name: o.StrLike("name", portName),
			Labels: o.StrMap("labels"), NetworkNames: o.Strs("networkNames")})
	})
	if !given {
		return nil
	}
	return out
}

func decodeIPAddress(r *document.Reader) *IPAddress {
	out := &IPAddress{NetworkName: r.StrLen("networkName", 1, noBounds), Labels: r.StrMap("labels"), Groups: r.Strs("groups")}
	if r.Has("discovery") {
		d := r.Obj("discovery")
		out.Discovery = []PortMapping{}
		out.HasPorts = d.Each("ports", func(o *document.Reader) {
			o.Require("number", "name")
			out.Discovery = append(out.Discovery, PortMapping{ContainerPort: o.Int("number", 0, maxPort), Name: o.StrLike("name", portName), Protocol: o.Enum("protocol", "tcp", "udp"), Labels: o.StrMap("labels")})
		})
		d.Close()
	}
	r.Close()
	return out
}

func decodeContainer(r *document.Reader) *Container {
	c := &Container{Type: r.Enum("type", TypeMesos, TypeDocker), PortMappings: decodePortMappings(r)}
	if r.Has("docker") {
		c.Docker = decodeDocker(r.Obj("docker"))
	}
	if r.Has("linuxInfo") {
		c.LinuxInfo = decodeLinuxInfo(r.Obj("linuxInfo"))
	}
	c.Volumes = []Volume{}
	if !r.Each("volumes", func(o *document.Reader) { c.Volumes = append(c.Volumes, decodeVolume(o)) }) {
		c.Volumes = nil
	}
	r.Close()
	return c
}

func decodeDocker(r *document.Reader) *Docker {
	d := &Docker{Image: r.StrLen("image", 1, noBounds), ForcePullImage: r.Flag("forcePullImage"), Privileged: r.Flag("privileged"),
		OldNetwork: r.Enum("network", "BRIDGE", "HOST", "NONE", "USER"), OldPortMappings: decodePortMappings(r), HasCredential: r.Has("credential")}
	r.Require("image")
	d.Parameters = []Parameter{}
	given := r.Each("parameters", func(o *document.Reader) {
		o.Require("key", "value")
		d.Parameters = append(d.Parameters, Parameter{Key: Or(o.StrLen("key", 1, noBounds), ""), Value: Or(o.StrLen("value", 1, noBounds), "")})
	})
	if !given {
		d.Parameters = nil
	}
	if r.Has("pullConfig") {
		o := r.Obj("pullConfig")
		o.Require("secret")
		d.PullSecret = o.Str("secret")
		o.Close()
	}
	r.Close()
	return d
}

func decodeLinuxInfo(r *document.Reader) *LinuxInfo {
	l := &LinuxInfo{}
	if r.Has("seccomp") {
		o := r.Obj("seccomp")
		l.Seccomp = &Seccomp{ProfileName: o.Str("profileName"), Unconfined: o.Flag("unconfined")}
		o.Close()
	}
	if r.Has("ipcInfo") {
		o := r.Obj("ipcInfo")
		o.Require("mode")
		l.IPC = &IPC{Mode: Or(o.Enum("mode", "PRIVATE", "SHARE_PARENT"), ""), ShmSize: o.Int("shmSize", 0, maxInt)}
		o.Close()
	}
	r.Close()
	return l
}

func decodeResidency(r *document.Reader) *Residency {
	out := &Residency{RelaunchEscalationTimeoutSeconds: r.Int("relaunchEscalationTimeoutSeconds", 0, maxLong),
		TaskLostBehavior: r.Enum("taskLostBehavior", "WAIT_FOREVER", "RELAUNCH_AFTER_TIMEOUT")}
	r.Close()
	return out
}

func decodeUpgradeStrategy(r *document.Reader) *UpgradeStrategy {
	if !r.Has("upgradeStrategy") {
		return nil
	}
	o := r.Obj("upgradeStrategy")
	o.Require("maximumOverCapacity", "minimumHealthCapacity")
	out := &UpgradeStrategy{MaximumOverCapacity: fraction(o, "maximumOverCapacity"), MinimumHealthCapacity: fraction(o, "minimumHealthCapacity")}
	o.Close()
	return out
}

func fraction(r *document.Reader, name string) float64 {
	f := r.Num(name, 0)
	if f != nil && *f > 1 {
		r.Problem(name, "error.max")
	}
	return Or(f, 0)
}

func decodeUnreachableStrategy(r *document.Reader) *UnreachableStrategy {
	v := r.Value("unreachableStrategy")
	switch {
	case v == nil:
		return nil
	case v.Kind == document.String && v.Text == "disabled":
		return &UnreachableStrategy{Disabled: true}
	case v.Kind == document.String:
		r.Problem("unreachableStrategy", "error.unknown.enum.literal")
		return nil
	}
	o := r.Obj("unreachableStrategy")
	out := &UnreachableStrategy{InactiveAfterSeconds: Or(o.Int("inactiveAfterSeconds", 0, maxLong), 0), ExpungeAfterSeconds: Or(o.Int("expungeAfterSeconds", 0, maxLong), 0)}
	o.Close()
	return out
}

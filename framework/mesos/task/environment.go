package task

import (
	"math"
	"strconv"
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// environment is Marathon's set, then ours, then the app's own, which wins:
//
//	HOLDFAST_APP_ID          /prod/db
//	HOLDFAST_INSTANCE        the instance's number, 2
//	HOLDFAST_INCARNATION     how many launches the instance has had, this one included
//	HOLDFAST_VOLUME_<PATH>   the name of the volume at a container path; PATH upper case, all but letters and digits as _
//	HOLDFAST_API             URL of the framework
func (e *Encoder) environment(l *scheduler.Launch) *mesos.Environment {
	spec, env := &l.Def.Spec, map[string]string{}
	env["MESOS_TASK_ID"] = string(l.Run.Task)
	env["MARATHON_APP_ID"] = string(l.Def.App)
	env["MARATHON_APP_VERSION"] = l.Def.Version
	if spec.Container.Type == "DOCKER" {
		env["MARATHON_APP_DOCKER_IMAGE"] = spec.Container.Image
	}
	env["MARATHON_APP_RESOURCE_CPUS"] = jvmDouble(spec.CPUs)
	env["MARATHON_APP_RESOURCE_MEM"] = jvmDouble(spec.MemMB)
	env["MARATHON_APP_RESOURCE_DISK"] = jvmDouble(spec.DiskMB)
	env["MARATHON_APP_RESOURCE_GPUS"] = strconv.Itoa(spec.GPUs)
	env["MARATHON_APP_ENFORCE_GROUP_ROLE"] = "FALSE"
	labelVariables(env, spec.Labels)

	env[e.EnvPrefix+"HOST"] = l.Run.Hostname
	e.portVariables(env, spec.Ports, l.Run.Ports)

	env["HOLDFAST_APP_ID"] = string(l.Def.App)
	env["HOLDFAST_INSTANCE"] = strconv.Itoa(l.Instance.Ordinal)
	incarnation := l.Instance.Incarnation
	if _, n, ok := state.ParseTaskID(l.Run.Task); ok {
		incarnation = n
	}
	env["HOLDFAST_INCARNATION"] = strconv.FormatUint(incarnation, 10)
	for i := range l.Volumes {
		if key := variable(strings.Trim(l.Volumes[i].ContainerPath, "/")); key != "" {
			env["HOLDFAST_VOLUME_"+key] = l.Volumes[i].Ref.Name
		}
	}
	if e.API != "" {
		env["HOLDFAST_API"] = e.API
	}
	for k, v := range spec.Env {
		env[k] = v
	}
	for k := range spec.EnvSecrets {
		env[k] = ""
	}
	out := &mesos.Environment{}
	for _, k := range sortedKeys(env) {
		if source := spec.EnvSecrets[k]; source != "" {
			out.Variables = append(out.Variables, mesos.Environment_Variable{Name: k, Type: mesos.Environment_Variable_SECRET.Enum(), Secret: secret(source)})
			continue
		}
		out.Variables = append(out.Variables, mesos.Environment_Variable{Name: k, Value: ptr(env[k])})
	}
	return out
}

// labelVariables are Marathon's; labels too long to be sensible in an environment are left out, as there.
func labelVariables(env map[string]string, all map[string]string) {
	var keys []string
	for _, k := range sortedKeys(all) {
		if len(k) >= 493 || len(all[k]) >= 512 {
			continue
		}
		name := variable(k)
		keys = append(keys, name)
		env["MARATHON_APP_LABEL_"+name] = all[k]
	}
	env["MARATHON_APP_LABELS"] = strings.Join(keys, " ")
}

// variable makes the name of an environment variable: runs of anything but letters, digits and _ become one _.
func variable(s string) string {
	var b strings.Builder
	gap := false
	for _, r := range s {
		if r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			if gap {
				b.WriteByte('_')
				gap = false
			}
			b.WriteRune(r)
			continue
		}
		gap = true
	}
	if gap {
		b.WriteByte('_')
	}
	return strings.ToUpper(b.String())
}

func (e *Encoder) portVariables(env map[string]string, ports []state.Port, host []int) {
	var all []string
	for i, p := range ports {
		n := 0
		if i < len(host) {
			n = host[i]
		}
		if n == 0 {
			n = p.ContainerPort
		}
		if n == 0 {
			continue
		}
		value := strconv.Itoa(n)
		all = append(all, value)
		env[e.EnvPrefix+"PORT"+strconv.Itoa(i)] = value
		asked := p.Want
		if p.ContainerPort > 0 {
			asked = p.ContainerPort
		}
		if asked == 0 {
			asked = n
		}
		env[e.EnvPrefix+"PORT_"+strconv.Itoa(asked)] = value
		if p.Name != "" {
			env[e.EnvPrefix+"PORT_"+strings.ToUpper(p.Name)] = value
		}
	}
	if len(all) > 0 {
		env[e.EnvPrefix+"PORT"] = all[0]
		env[e.EnvPrefix+"PORTS"] = strings.Join(all, ",")
	}
}

// jvmDouble prints a number as the JVM does, for programs that read Marathon's variables: 1.0, 0.5, 1.0E7.
func jvmDouble(f float64) string {
	abs := math.Abs(f)
	if abs != 0 && (abs >= 1e7 || abs < 1e-3) {
		s := strconv.FormatFloat(f, 'E', -1, 64)
		mantissa, exp, _ := strings.Cut(s, "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exp)
		return mantissa + "E" + strconv.Itoa(n)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

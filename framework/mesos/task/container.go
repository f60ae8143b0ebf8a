package task

import (
	"strings"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// container makes the ContainerInfo, nil when the task needs none.
func (e *Encoder) container(l *scheduler.Launch) (*mesos.ContainerInfo, error) {
	c := &l.Def.Spec.Container
	volumes, err := taskVolumes(l, c.Type == "DOCKER")
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case "DOCKER":
		return e.docker(l, volumes)
	case "", "MESOS":
		if c.Type == "" && len(volumes) == 0 && hostNetwork(c) && !l.Def.Spec.TTY {
			return nil, nil
		}
		return e.mesosContainer(l, volumes), nil
	}
	return nil, fault.New(fault.Invalid, "app %s: container type %q is not known", l.Def.App, c.Type)
}

func hostNetwork(c *state.Container) bool { return c.Network == "" || c.Network == "host" }

func (e *Encoder) mesosContainer(l *scheduler.Launch, volumes []mesos.Volume) *mesos.ContainerInfo {
	c := &l.Def.Spec.Container
	out := &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: volumes}
	if c.Image != "" {
		out.Mesos = &mesos.ContainerInfo_MesosInfo{Image: &mesos.Image{
			Type: mesos.Image_DOCKER.Enum(), Docker: &mesos.Image_Docker{Name: c.Image}, Cached: ptr(!c.ForcePull)}}
		if c.PullSecret != "" {
			out.Mesos.Image.Docker.Config = secret(c.PullSecret)
		}
	}
	if s := c.Seccomp; s != nil {
		info := &mesos.SeccompInfo{}
		if s.Unconfined {
			info.Unconfined = ptr(true)
		}
		if s.Profile != "" {
			info.ProfileName = ptr(s.Profile)
		}
		out.LinuxInfo = &mesos.LinuxInfo{Seccomp: info}
	}
	if l.Def.Spec.TTY {
		out.TTYInfo = &mesos.TTYInfo{}
	}
	if hostNetwork(c) {
		return out
	}
	n := mesos.NetworkInfo{IPAddresses: []mesos.NetworkInfo_IPAddress{{}}, Labels: labels(c.NetLabels)}
	switch {
	case c.NetName != "":
		n.Name = ptr(c.NetName)
	case c.Network == "container/bridge":
		name := e.BridgeName
		if name == "" {
			name = "mesos-bridge"
		}
		n.Name = ptr(name)
	}
	eachMapping(l, func(host, inside int, proto string) {
		n.PortMappings = append(n.PortMappings, mesos.NetworkInfo_PortMapping{HostPort: uint32(host), ContainerPort: uint32(inside), Protocol: ptr(proto)})
	})
	out.NetworkInfos = []mesos.NetworkInfo{n}
	return out
}

// secret refers to what an agent's secret resolver knows by that name.
func secret(source string) *mesos.Secret {
	return &mesos.Secret{Type: mesos.Secret_REFERENCE, Reference: &mesos.Secret_Reference{Name: source}}
}

func (e *Encoder) docker(l *scheduler.Launch, volumes []mesos.Volume) (*mesos.ContainerInfo, error) {
	c := &l.Def.Spec.Container
	if c.Image == "" {
		return nil, fault.New(fault.Invalid, "app %s: a DOCKER container needs an image", l.Def.App)
	}
	d := &mesos.ContainerInfo_DockerInfo{Image: c.Image, Privileged: ptr(c.Privileged), ForcePullImage: ptr(c.ForcePull)}
	for _, p := range c.Parameters {
		d.Parameters = append(d.Parameters, mesos.Parameter{Key: p.Key, Value: p.Value})
	}
	d.Parameters = append(d.Parameters, mesos.Parameter{Key: "label", Value: "MESOS_TASK_ID=" + string(l.Run.Task)})
	out := &mesos.ContainerInfo{Type: mesos.ContainerInfo_DOCKER.Enum(), Docker: d, Volumes: volumes}
	switch c.Network {
	case "", "host":
		d.Network = mesos.ContainerInfo_DockerInfo_HOST.Enum()
		return out, nil
	case "container/bridge":
		d.Network = mesos.ContainerInfo_DockerInfo_BRIDGE.Enum()
	case "container":
		d.Network = mesos.ContainerInfo_DockerInfo_USER.Enum()
		out.NetworkInfos = []mesos.NetworkInfo{{Name: ptr(c.NetName), Labels: labels(c.NetLabels)}}
	default:
		return nil, fault.New(fault.Invalid, "app %s: network mode %q is not known", l.Def.App, c.Network)
	}
	eachMapping(l, func(host, inside int, proto string) {
		d.PortMappings = append(d.PortMappings, mesos.ContainerInfo_DockerInfo_PortMapping{HostPort: uint32(host), ContainerPort: uint32(inside), Protocol: ptr(proto)})
	})
	return out, nil
}

// eachMapping gives every port mapping that has a host port; container port 0 means the same as outside.
func eachMapping(l *scheduler.Launch, f func(host, inside int, proto string)) {
	for i, p := range l.Def.Spec.Ports {
		if i >= len(l.Run.Ports) || l.Run.Ports[i] <= 0 {
			continue
		}
		inside := p.ContainerPort
		if inside == 0 {
			inside = l.Run.Ports[i]
		}
		for proto := range strings.SplitSeq(p.Protocol, ",") {
			if proto == "" {
				proto = "tcp"
			}
			f(l.Run.Ports[i], inside, proto)
		}
	}
}

// taskVolumes gives external and host volumes in the order of the app. docker says that Docker mounts them.
func taskVolumes(l *scheduler.Launch, docker bool) ([]mesos.Volume, error) {
	external := make(map[string]*scheduler.TaskVolume, len(l.Volumes))
	for i := range l.Volumes {
		external[l.Volumes[i].ContainerPath] = &l.Volumes[i]
	}
	var out []mesos.Volume
	for _, m := range l.Def.Spec.Volumes {
		switch m.Kind {
		case state.MountExternal:
			v := external[m.ContainerPath]
			if v == nil {
				return nil, fault.New(fault.Internal, "launch of %s has no volume for %q", l.Run.Task, m.ContainerPath)
			}
			delete(external, m.ContainerPath)
			out = append(out, dockerVolume(v, docker))
		case state.MountHost:
			out = append(out, mesos.Volume{ContainerPath: m.ContainerPath, HostPath: ptr(m.HostPath), Mode: mode(m.ReadOnly)})
		case state.MountSecret:
			out = append(out, mesos.Volume{ContainerPath: m.ContainerPath, Mode: mode(true), Source: &mesos.Volume_Source{Type: mesos.Volume_Source_SECRET, Secret: secret(m.Secret)}})
		case state.MountPersistent: // it is among the task's resources, and Mesos takes it from there
		default:
			return nil, fault.New(fault.Invalid, "app %s: volumes of kind %q cannot be launched by this version", l.Def.App, m.Kind)
		}
	}
	if len(external) > 0 {
		return nil, fault.New(fault.Internal, "launch of %s has volumes that its definition does not know", l.Run.Task)
	}
	return out, nil
}

// dockerPlugin is the isolator's name among Docker's volume plugins.
const dockerPlugin = "holdfast"

// dockerVolume asks for a volume. Docker would ask the driver's own plugin, past the isolator and its claims, and takes one driver for all
// volumes of a container (Mesos says "Only one volume driver is supported"): it is given the isolator's, and the driver in the name.
func dockerVolume(v *scheduler.TaskVolume, docker bool) mesos.Volume {
	d := &mesos.Volume_Source_DockerVolume{Driver: ptr(v.Ref.Driver), Name: v.Ref.Name}
	if docker && v.Managed {
		d.Driver, d.Name = ptr(dockerPlugin), v.Ref.String()
	}
	if len(v.Options) > 0 {
		d.DriverOptions = &mesos.Parameters{}
		for _, k := range sortedKeys(v.Options) {
			d.DriverOptions.Parameter = append(d.DriverOptions.Parameter, mesos.Parameter{Key: k, Value: v.Options[k]})
		}
	}
	return mesos.Volume{ContainerPath: v.ContainerPath, Mode: mode(v.ReadOnly),
		Source: &mesos.Volume_Source{Type: mesos.Volume_Source_DOCKER_VOLUME, DockerVolume: d}}
}

func mode(readOnly bool) *mesos.Volume_Mode {
	if readOnly {
		return mesos.RO.Enum()
	}
	return mesos.RW.Enum()
}

package definition

func (c *Container) json(hostNetwork bool) []byte {
	o := &object{}
	opt(o, "type", c.Type)
	if c.Docker != nil {
		o.raw("docker", c.Docker.json(Or(c.Type, TypeDocker) == TypeDocker))
	}
	if c.LinuxInfo != nil {
		o.raw("linuxInfo", c.LinuxInfo.json())
	}
	o.raw("volumes", list(c.Volumes, (*Volume).json))
	if !hostNetwork {
		o.raw("portMappings", list(c.PortMappings, (*PortMapping).json))
	}
	return o.end()
}

func (d *Docker) json(docker bool) []byte {
	o := &object{}
	opt(o, "forcePullImage", d.ForcePullImage)
	opt(o, "image", d.Image)
	if docker {
		params := make([]map[string]string, 0, len(d.Parameters))
		for _, p := range d.Parameters {
			params = append(params, map[string]string{"key": p.Key, "value": p.Value})
		}
		o.put("parameters", params)
	}
	opt(o, "privileged", d.Privileged)
	if d.PullSecret != nil {
		o.put("pullConfig", map[string]string{"secret": *d.PullSecret})
	}
	return o.end()
}

func (l *LinuxInfo) json() []byte {
	o := &object{}
	if s := l.Seccomp; s != nil {
		in := &object{}
		opt(in, "profileName", s.ProfileName)
		opt(in, "unconfined", s.Unconfined)
		o.raw("seccomp", in.end())
	}
	if i := l.IPC; i != nil {
		in := &object{}
		in.put("mode", i.Mode)
		opt(in, "shmSize", i.ShmSize)
		o.raw("ipcInfo", in.end())
	}
	return o.end()
}

func (v *Volume) json() []byte {
	o := &object{}
	o.put("containerPath", v.ContainerPath)
	switch {
	case v.Persistent != nil:
		o.raw("persistent", v.Persistent.json())
	case v.External != nil:
		o.raw("external", v.External.json())
	case v.Secret != nil:
		o.put("secret", *v.Secret)
	case v.HostPath != nil:
		o.put("hostPath", *v.HostPath)
	}
	if v.Mode != "" {
		o.put("mode", v.Mode)
	}
	return o.end()
}

func (p *Persistent) json() []byte {
	o := &object{}
	opt(o, "type", p.Type)
	o.put("size", p.Size)
	opt(o, "maxSize", p.MaxSize)
	opt(o, "profileName", p.ProfileName)
	if p.Constraints == nil {
		o.raw("constraints", []byte("[]"))
	} else {
		o.put("constraints", p.Constraints)
	}
	return o.end()
}

func (e *External) json() []byte {
	o := &object{}
	switch {
	case e.Size == "":
	case e.SizeText:
		o.put("size", e.Size)
	default:
		o.raw("size", []byte(e.Size))
	}
	opt(o, "name", e.Name)
	opt(o, "provider", e.Provider)
	if e.CSI != nil {
		o.raw("options", e.CSI.json())
	} else {
		someMap(o, "options", e.Options)
	}
	opt(o, "shared", e.Shared)
	opt(o, "class", e.Class)
	opt(o, "accessMode", e.AccessMode)
	opt(o, "encrypt", e.Encrypt)
	if e.Snapshot != nil {
		in := &object{}
		in.put("volume", e.Snapshot.Volume)
		in.put("name", e.Snapshot.Name)
		o.raw("snapshot", in.end())
	}
	if e.Clone != nil {
		o.put("clone", map[string]string{"volume": *e.Clone})
	}
	if e.Retain != nil {
		in := &object{}
		opt(in, "onScaleDown", e.Retain.OnScaleDown)
		opt(in, "onDelete", e.Retain.OnDelete)
		o.raw("retain", in.end())
	}
	return o.end()
}

func (c *CSI) json() []byte {
	in := &object{}
	in.put("accessMode", c.AccessMode)
	in.put("accessType", c.AccessType)
	opt(in, "fsType", c.FSType)
	someList(in, "mountFlags", c.MountFlags)
	o := &object{}
	o.put("pluginName", c.PluginName)
	o.raw("capability", in.end())
	someMap(o, "nodeStageSecret", c.NodeStageSecret)
	someMap(o, "nodePublishSecret", c.NodePublishSecret)
	someMap(o, "volumeContext", c.VolumeContext)
	return o.end()
}

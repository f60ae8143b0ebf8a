package validate

import (
	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func command(c *mesos.CommandInfo) error {
	for _, v := range c.GetEnvironment().GetVariables() {
		secret := v.GetType() == mesos.Environment_Variable_SECRET
		switch {
		case secret && v.Secret == nil:
			return invalidf("Environment variable '%s' of type 'SECRET' must have a secret set", v.Name)
		case secret && v.Value != nil:
			return invalidf("Environment variable '%s' of type 'SECRET' must not have a value set", v.Name)
		case !secret && v.Value == nil:
			return invalidf("Environment variable '%s' of type 'VALUE' must have a value set", v.Name)
		case !secret && v.Secret != nil:
			return invalidf("Environment variable '%s' of type 'VALUE' must not have a secret set", v.Name)
		}
	}
	return nil
}

func container(c *mesos.ContainerInfo) error {
	for i := range c.Volumes {
		if err := volume(&c.Volumes[i]); err != nil {
			return invalidf("Invalid volume: %v", err)
		}
	}
	if c.GetType() != mesos.ContainerInfo_DOCKER {
		return nil
	}
	if c.Docker == nil {
		return invalidf("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo")
	}
	for _, p := range c.Docker.Parameters {
		if p.Key == "name" {
			return invalidf("Parameter in DockerInfo must not be 'name'")
		}
	}
	return nil
}

func volume(v *mesos.Volume) error {
	n := 0
	for _, set := range []bool{v.HostPath != nil, v.Image != nil, v.Source != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return invalidf("Only one of them should be set: 'host_path', 'image' and 'source'")
	}
	s := v.Source
	if s == nil {
		return nil
	}
	switch s.Type {
	case mesos.Volume_Source_DOCKER_VOLUME:
		if s.DockerVolume == nil {
			return invalidf("'source.docker_volume' is not set for DOCKER_VOLUME volume")
		}
	case mesos.Volume_Source_HOST_PATH:
		if s.HostPath == nil {
			return invalidf("'source.host_path' is not set for HOST_PATH volume")
		}
	case mesos.Volume_Source_SANDBOX_PATH:
		if s.SandboxPath == nil {
			return invalidf("'source.sandbox_path' is not set for SANDBOX_PATH volume")
		}
	case mesos.Volume_Source_SECRET:
		if s.Secret == nil {
			return invalidf("'source.secret' is not set for SECRET volume")
		}
	default:
		return invalidf("'source.type' is unknown")
	}
	return nil
}

func healthCheck(h *mesos.HealthCheck) error {
	if h == nil {
		return nil
	}
	switch h.Type {
	case mesos.HealthCheck_COMMAND:
		if h.Command == nil {
			return invalidf("Expecting 'command' to be set for COMMAND health check")
		}
		if h.Command.Value == nil {
			what := "Executable path"
			if h.Command.GetShell() {
				what = "Shell command"
			}
			return invalidf("%s must be specified for COMMAND health check", what)
		}
	case mesos.HealthCheck_HTTP:
		if h.HTTP == nil {
			return invalidf("Expecting 'http' to be set for HTTP health check")
		}
		if s := h.HTTP.Scheme; s != nil && *s != "http" && *s != "https" {
			return invalidf("Unsupported HTTP health check scheme: '%s'", *s)
		}
		if p := h.HTTP.Path; p != nil && (*p == "" || (*p)[0] != '/') {
			return invalidf("The path '%s' of HTTP health check must start with '/'", *p)
		}
	case mesos.HealthCheck_TCP:
		if h.TCP == nil {
			return invalidf("Expecting 'tcp' to be set for TCP health check")
		}
	default:
		return invalidf("HealthCheck must specify 'type'")
	}
	switch {
	case h.GetDelaySeconds() < 0:
		return invalidf("Expecting 'delay_seconds' to be non-negative")
	case h.GetGracePeriodSeconds() < 0:
		return invalidf("Expecting 'grace_period_seconds' to be non-negative")
	case h.GetIntervalSeconds() < 0:
		return invalidf("Expecting 'interval_seconds' to be non-negative")
	case h.GetTimeoutSeconds() < 0:
		return invalidf("Expecting 'timeout_seconds' to be non-negative")
	}
	return nil
}

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/dockervolume"
	"github.com/holdfast-io/holdfast/framework/embedded/process"
	"github.com/holdfast-io/holdfast/framework/embedded/sandbox"
)

// place at which a task sees something, before it is mounted or linked.
type attachment struct {
	source   string // absolute host path; "" until dvdcli has said
	path     string // container path, clean
	absolute bool
	readOnly bool
	docker   int // index of the docker volume, or -1
}

// mountVolumes brings every volume of a task into its view: by dvdcli and then, as root, by a mount namespace; otherwise by links.
func (a *Agent) mountVolumes(ctx context.Context, c *container, user *syscall.Credential) (*process.Mounts, error) {
	places, docker, err := a.attachments(c, user)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	volumes := a.volumes
	a.mu.Unlock()
	if volumes == nil {
		return nil, errors.New("the agent has stopped")
	}
	points, err := volumes.Prepare(ctx, c.id, docker)
	if err != nil {
		return nil, err
	}
	for i := range places {
		if n := places[i].docker; n >= 0 {
			places[i].source = points[n]
		}
	}
	if !a.mounts {
		return nil, link(c.sandbox, places)
	}
	m := &process.Mounts{Sandbox: c.sandbox, Hide: a.cfg.MountRoots}
	for _, p := range places {
		m.Binds = append(m.Binds, process.Bind{Source: p.source, Target: p.path, ReadOnly: p.readOnly})
	}
	return m, nil
}

// link stands for mounting when this program may not: it cannot enforce read-only, and cannot shadow a host directory.
func link(dir string, places []attachment) error {
	for _, p := range places {
		if p.absolute {
			return fmt.Errorf("absolute container path '%s' needs an agent that may mount: one that runs as root", p.path)
		}
		if err := sandbox.Link(dir, p.path, p.source); err != nil {
			return err
		}
	}
	return nil
}

// attachments reads what a task wants to see where. Everything in it comes from outside.
func (a *Agent) attachments(c *container, user *syscall.Credential) (places []attachment, docker []dockervolume.Volume, err error) {
	if c.task.Container != nil {
		for _, v := range c.task.Container.Volumes {
			p, d, err := a.attachment(c, v, user)
			if err != nil {
				return nil, nil, err
			}
			p.docker = -1
			if d != nil {
				p.docker = len(docker)
				docker = append(docker, *d)
			}
			places = append(places, p)
		}
	}
	for _, r := range c.task.Resources {
		if r.Disk == nil || r.Disk.Persistence == nil {
			continue
		}
		p, err := a.persistent(r, user)
		if err != nil {
			return nil, nil, err
		}
		places = append(places, p)
	}
	seen := map[string]bool{}
	for _, p := range places {
		if seen[p.path] {
			return nil, nil, fmt.Errorf("container path '%s' is used twice", p.path)
		}
		seen[p.path] = true
	}
	return places, docker, nil
}

func (a *Agent) attachment(c *container, v mesos.Volume, user *syscall.Credential) (p attachment, d *dockervolume.Volume, err error) {
	if p, err = a.target(v.ContainerPath, v.Mode); err != nil {
		return p, nil, err
	}
	switch {
	case v.Image != nil:
		return p, nil, errors.New("image volumes are not part of the embedded engine")
	case v.HostPath != nil:
		p.source, err = hostPath(c.sandbox, *v.HostPath, user)
	case v.Source == nil:
		return p, nil, fmt.Errorf("volume at container path '%s' has no source", v.ContainerPath)
	case v.Source.Type == mesos.Volume_Source_DOCKER_VOLUME && v.Source.DockerVolume != nil:
		d = &dockervolume.Volume{Driver: v.Source.DockerVolume.GetDriver(), Name: v.Source.DockerVolume.Name}
		if o := v.Source.DockerVolume.DriverOptions; o != nil {
			for _, kv := range o.Parameter {
				d.Options = append(d.Options, dockervolume.Option{Key: kv.Key, Value: kv.Value})
			}
		}
	case v.Source.Type == mesos.Volume_Source_HOST_PATH && v.Source.HostPath != nil:
		p.source, err = hostPath(c.sandbox, v.Source.HostPath.Path, user)
	case v.Source.Type == mesos.Volume_Source_SANDBOX_PATH && v.Source.SandboxPath != nil:
		if v.Source.SandboxPath.Type == mesos.Volume_Source_SandboxPath_PARENT {
			inner, volume, err := a.parent(c, v.Source.SandboxPath.Path, user)
			p.source, p.readOnly = inner.source, p.readOnly || inner.readOnly
			return p, volume, err
		}
		p.source, err = sandbox.Subdirectory(c.sandbox, v.Source.SandboxPath.Path, user)
	default:
		return p, nil, fmt.Errorf("volume source %s is not part of the embedded engine", v.Source.Type)
	}
	return p, d, err
}

// target checks where a volume is to appear.
func (a *Agent) target(path string, mode *mesos.Volume_Mode) (attachment, error) {
	clean, absolute, err := sandbox.ContainerPath(path)
	if err != nil {
		return attachment{}, err
	}
	if absolute {
		for _, no := range []string{"/proc", "/sys", "/dev", a.cfg.Dir} {
			if process.Under(clean, no) || process.Under(no, clean) {
				return attachment{}, fmt.Errorf("container path '%s' would hide '%s'", clean, no)
			}
		}
		if _, err := os.Stat(clean); err != nil {
			//lint:ignore ST1005 Mesos's own text
			return attachment{}, fmt.Errorf("Absolute container path '%s' does not exist", clean)
		}
	}
	return attachment{path: clean, absolute: absolute, readOnly: mode != nil && *mode == mesos.RO, docker: -1}, nil
}

// hostPath is an existing absolute path of the machine, or a directory of the sandbox.
func hostPath(dir, path string, user *syscall.Credential) (string, error) {
	if !filepath.IsAbs(path) {
		return sandbox.Subdirectory(dir, path, user)
	}
	if strings.ContainsRune(path, 0) {
		return "", errors.New("host path holds a NUL")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("host path '%s' does not exist", path)
	}
	return filepath.Clean(path), nil
}

// persistent is where a task sees a persistent volume of its resources.
func (a *Agent) persistent(r mesos.Resource, user *syscall.Credential) (attachment, error) {
	if r.Disk.Volume == nil {
		return attachment{}, fmt.Errorf("persistent volume '%s' has no container path", r.Disk.Persistence.ID)
	}
	p, err := a.target(r.Disk.Volume.ContainerPath, r.Disk.Volume.Mode)
	if err != nil {
		return p, err
	}
	if p.source, err = sandbox.PersistentVolume(a.cfg.Dir, reservedFor(r), r.Disk.Persistence.ID); err != nil {
		return p, err
	}
	if _, err := os.Stat(p.source); err != nil {
		return p, fmt.Errorf("persistent volume '%s' is not on this agent", r.Disk.Persistence.ID)
	}
	if user != nil {
		if err := os.Lchown(p.source, int(user.Uid), int(user.Gid)); err != nil {
			return p, fmt.Errorf("give persistent volume '%s' to uid %d: %w", r.Disk.Persistence.ID, user.Uid, err)
		}
	}
	return p, nil
}

// reservedFor is the role that a resource is reserved for, "*" for none.
func reservedFor(r mesos.Resource) string {
	if n := len(r.Reservations); n > 0 && r.Reservations[n-1].Role != nil {
		return *r.Reservations[n-1].Role
	}
	if r.Role != nil && *r.Role != "" {
		return *r.Role
	}
	return "*"
}

func (a *Agent) volumeCheckpoints() string {
	if a.cfg.Dir == "" {
		return ""
	}
	return filepath.Join(a.cfg.Dir, "run", "isolators", "docker", "volume")
}

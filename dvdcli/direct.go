package main

import (
	"cmp"
	"context"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
)

// mountID is what the plugin knows our mounts by. The old dvdcli gave none; one for the host lets plugins that count by id tell
// us from Docker's containers.
const mountID = "dvdcli"

// patience is how long a plugin that is being started again is waited for, as Docker does.
const patience = 15 * time.Second

// direct speaks to the Docker volume plugin itself, as the old dvdcli did, with one difference: it creates only when the
// plugin has said that the volume does not exist, never after any other error.
type direct struct{ d driver.Driver }

func newDirect(e environ, c command) (backend, error) {
	if c.driver == "" {
		return nil, fault.New(fault.Invalid, "no isolator is installed on this node, so --volumedriver must say which plugin to ask")
	}
	dirs := docker.Dirs{Sockets: e.sockets, Specs: e.specs}
	d, err := docker.New(docker.Options{Name: c.driver, Dirs: dirs, Patience: patience})
	if err != nil {
		return nil, err
	}
	return &direct{d}, nil
}

func (t *direct) mount(ctx context.Context, c command) (string, error) {
	if err := volume.CheckOptions(c.options); err != nil {
		return "", err
	}
	_, err := t.d.Get(ctx, c.name)
	switch {
	case fault.Is(err, fault.NotFound) && !c.explicitCreate:
		if err := t.create(ctx, c); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	}
	return t.d.Mount(ctx, driver.MountSpec{Name: c.name, ID: mountID, Options: c.options})
}

func (t *direct) unmount(ctx context.Context, c command) error {
	if _, err := t.d.Get(ctx, c.name); err != nil {
		return err
	}
	return t.d.Unmount(ctx, c.name, cmp.Or(c.owner, mountID))
}

func (t *direct) create(ctx context.Context, c command) error {
	if err := volume.CheckOptions(c.options); err != nil {
		return err
	}
	_, err := t.d.Create(ctx, driver.Spec{Name: c.name, Options: c.options})
	return err
}

func (t *direct) remove(ctx context.Context, c command) error {
	if _, err := t.d.Get(ctx, c.name); err != nil {
		return err
	}
	return t.d.Remove(ctx, c.name, "")
}

func (t *direct) path(ctx context.Context, c command) (string, error) {
	if _, err := t.d.Get(ctx, c.name); err != nil {
		return "", err
	}
	return t.d.Path(ctx, c.name)
}

func (t *direct) get(ctx context.Context, c command) (client.Volume, error) {
	i, err := t.d.Get(ctx, c.name)
	return client.Volume{Driver: c.driver, Name: i.Name, Path: i.Path, Created: i.Created}, err
}

func (t *direct) list(ctx context.Context, _ command) ([]string, error) {
	all, err := t.d.List(ctx)
	var names []string
	for _, v := range all {
		names = append(names, v.Name)
	}
	return names, err
}

func (t *direct) capabilities(ctx context.Context, c command) ([]client.Capability, error) {
	f, err := t.d.Facts(ctx)
	if err != nil {
		return nil, err
	}
	return []client.Capability{{Driver: c.driver, Scope: f.Scope, FlushOnUnmount: f.FlushOnUnmount, SelfAttach: f.SelfAttach, Exclusive: f.Exclusive,
		MultiAttach: f.MultiAttach, AttachLimit: f.AttachLimit, Verify: f.Verify, Ready: true}}, nil
}

func (t *direct) status(context.Context, command) ([]client.VolumeStatus, error) {
	return nil, fault.New(fault.Unavailable, "status: no isolator is installed on this node, and plugins do not say who has mounted what")
}

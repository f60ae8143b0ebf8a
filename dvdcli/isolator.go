package main

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
)

// throughIsolator has the isolator of this node do the work.
type throughIsolator struct {
	client *client.Client
	socket string
}

// answers tells whether somebody listens on the socket.
func (t *throughIsolator) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := t.client.Version(ctx)
	return !errors.Is(err, client.ErrNotRunning)
}

// call waits for an isolator that is being restarted. What may be repeated is repeated when the connection broke: the isolator
// joins a repetition to the operation that goes on.
func (t *throughIsolator) call(ctx context.Context, repeatable bool, f func() error) error {
	begun := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		gone := errors.Is(err, client.ErrNotRunning)
		broken := repeatable && client.IsBroken(err)
		if err == nil || !(gone || broken) || ctx.Err() != nil {
			return err
		}
		if time.Since(begun) > waitForIsolator {
			return fault.Op(err, "waited %s for the isolator", waitForIsolator)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func (t *throughIsolator) mount(ctx context.Context, c command) (path string, err error) {
	err = t.call(ctx, true, func() error {
		path, err = t.client.Mount(ctx, client.MountRequest{Driver: c.driver, Name: c.name, Options: c.options, ExplicitCreate: c.explicitCreate})
		return err
	})
	return path, err
}

func (t *throughIsolator) unmount(ctx context.Context, c command) error {
	return t.call(ctx, true, func() error {
		_, err := t.client.Unmount(ctx, client.UnmountRequest{Driver: c.driver, Name: c.name, Owner: c.owner})
		return err
	})
}

func (t *throughIsolator) create(ctx context.Context, c command) error {
	return t.call(ctx, false, func() error {
		_, err := t.client.Create(ctx, client.CreateRequest{Driver: c.driver, Name: c.name, Options: c.options})
		return err
	})
}

// remove says of a volume that was not there what the old one said, after the isolator has ended what it knew of it.
func (t *throughIsolator) remove(ctx context.Context, c command) error {
	_, absent := t.get(ctx, c)
	err := t.call(ctx, false, func() error {
		do := t.client.Remove
		if c.now {
			do = t.client.RemoveNow
		}
		return do(ctx, client.VolumeRequest{Driver: c.driver, Name: c.name})
	})
	if err == nil && fault.Is(absent, fault.NotFound) {
		return absent
	}
	return err
}

func (t *throughIsolator) path(ctx context.Context, c command) (path string, err error) {
	err = t.call(ctx, true, func() error {
		path, err = t.client.Path(ctx, client.VolumeRequest{Driver: c.driver, Name: c.name})
		return err
	})
	return path, err
}

func (t *throughIsolator) get(ctx context.Context, c command) (v client.Volume, err error) {
	err = t.call(ctx, true, func() error {
		v, err = t.client.Get(ctx, client.VolumeRequest{Driver: c.driver, Name: c.name})
		return err
	})
	return v, err
}

func (t *throughIsolator) list(ctx context.Context, c command) (names []string, err error) {
	err = t.call(ctx, true, func() error {
		all, err := t.client.List(ctx, c.driver)
		names = nil
		for _, v := range all {
			names = append(names, v.Name)
		}
		return err
	})
	return names, err
}

func (t *throughIsolator) capabilities(ctx context.Context, c command) (out []client.Capability, err error) {
	err = t.call(ctx, true, func() error {
		all, err := t.client.Capabilities(ctx)
		out = nil
		for _, d := range all {
			if c.driver == "" || d.Driver == c.driver {
				out = append(out, d)
			}
		}
		return err
	})
	if err == nil && c.driver != "" && len(out) == 0 {
		err = fault.New(fault.NotFound, "this node has no volume driver %s", c.driver)
	}
	return out, err
}

func (t *throughIsolator) status(ctx context.Context, _ command) (out []client.VolumeStatus, err error) {
	err = t.call(ctx, true, func() error {
		st, err := t.client.Status(ctx)
		out = st.Volumes
		return err
	})
	return out, err
}

package csi

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// Mount attaches, stages and publishes a volume, as far as the plugin wants these steps. After an error the ledger keeps what was begun, for
// Unmount to undo or Mount to repeat.
func (d *Driver) Mount(ctx context.Context, m driver.MountSpec) (string, error) {
	err := d.do(ctx, "mount", m.Name, func() error {
		s, err := d.session(ctx)
		if err != nil {
			return err
		}
		e, done, err := d.begun(ctx, s, m)
		if err != nil || done {
			return err
		}
		r, recorded, err := d.find(ctx, s, m.Name)
		if err == nil && !recorded {
			err = d.foreign(s, &r, m)
		}
		if err != nil {
			return err
		}
		if err := d.mayMount(s, r, m); err != nil {
			return err
		}
		if err := d.growBefore(ctx, s, &r); err != nil {
			return err
		}
		e.V, e.Name, e.ID, e.UID, e.MountID, e.Boot, e.NodeID, e.Wish, e.Context = 1, m.Name, r.ID, m.UID, m.ID, d.o.BootID, s.NodeID, r.Wish, r.Context
		if err := d.steps.Up(ctx, s, &e); err != nil {
			return err
		}
		d.growAfter(ctx, s, &r, e)
		return nil
	})
	if err != nil {
		return "", err
	}
	return d.WillMountAt(m.Name), nil
}

// session is one with a plugin that serves this node.
func (d *Driver) session(ctx context.Context) (*csiwire.Session, error) {
	s, err := d.plugin.Session(ctx)
	if err == nil && !s.HasNode {
		return nil, fault.New(fault.Invalid, "plugin %s at %s has no node service: it mounts nothing", s.Name, d.o.Endpoint)
	}
	return s, err
}

// foreign reads from the mount's own options how a volume is used that somebody else has made. What is not ours of them is its volume context, as an
// administrator gives it who has a plugin that creates nothing.
func (d *Driver) foreign(s *csiwire.Session, r *csibook.Volume, m driver.MountSpec) error {
	w, err := csibook.ParseWish(0, m.Options, d.o.FSType)
	if err != nil {
		return err
	}
	if r.Context == nil {
		r.Context = w.Parameters
	}
	w.Parameters = nil
	r.Wish = w
	return r.Wish.Choose(s.SingleWriter(), m.Shared)
}

// begun looks at what the ledger has of the volume: done when it is mounted for the same id; what was left of another id is undone first.
func (d *Driver) begun(ctx context.Context, s *csiwire.Session, m driver.MountSpec) (e csistage.Entry, done bool, err error) {
	e, ok, err := d.steps.Entry(m.Name)
	if err != nil || !ok {
		return csistage.Entry{}, false, err
	}
	at, err := d.o.isMount(d.WillMountAt(m.Name))
	if err != nil {
		return e, false, err
	}
	same := e.MountID == m.ID && e.Boot == d.o.BootID && e.NodeID == s.NodeID
	switch {
	case same && e.Mounted && at:
		if m.UID != "" && e.UID != "" && e.UID != m.UID {
			return e, false, fault.New(fault.Conflict, "it is mounted as the one with uid %s", e.UID)
		}
		return e, true, nil
	case same:
		return e, false, nil
	case at && e.Boot == d.o.BootID:
		return e, false, fault.New(fault.Conflict, "it is mounted here for %s", e.MountID)
	}
	return csistage.Entry{}, false, d.steps.Down(ctx, s, &e)
}

func (d *Driver) mayMount(s *csiwire.Session, r csibook.Volume, m driver.MountSpec) error {
	switch {
	case r.State == csibook.Deleting:
		return fault.New(fault.Conflict, "it is being removed")
	case m.UID != "" && d.soleBook(s) && r.UID != m.UID:
		return fault.New(fault.Conflict, "the volume there has uid %q, not %s", r.UID, m.UID)
	case !s.Reaches(r.Topology):
		return fault.New(fault.Conflict, "it cannot be reached from this node: it is at %v, the node at %v", r.Topology, s.Topology)
	}
	return nil
}

// Unmount undoes what the ledger says was begun for that id.
func (d *Driver) Unmount(ctx context.Context, name, id string) error {
	return d.do(ctx, "unmount", name, func() error {
		e, ok, err := d.steps.Entry(name)
		if err != nil {
			return err
		}
		if !ok {
			if e, ok, err = d.unwritten(name); err != nil || !ok {
				return err
			}
		} else if e.MountID != id {
			return nil // what is up belongs to another
		}
		s, err := d.session(ctx)
		if err != nil {
			return err
		}
		return d.steps.Down(ctx, s, &e)
	})
}

// unwritten makes up the ledger of a volume that is mounted without one: somebody has lost this node's state. Nothing mounted is the usual case.
func (d *Driver) unwritten(name string) (csistage.Entry, bool, error) {
	at, err := d.o.isMount(d.WillMountAt(name))
	if err != nil || !at {
		return csistage.Entry{}, false, err
	}
	r, ok, err := d.record(name)
	if err != nil {
		return csistage.Entry{}, false, err
	}
	id := r.ID
	if !ok && d.o.IDsAreNames {
		id = name
	}
	if id == "" {
		return csistage.Entry{}, false, fault.New(fault.Unknown, "something is mounted at %s, of which neither ledger nor records say anything", d.WillMountAt(name))
	}
	return csistage.Entry{V: 1, Name: name, ID: id, Boot: d.o.BootID, Attach: true, Stage: true, Publish: true}, true, nil
}

// Path gives the mount point while something is mounted there.
func (d *Driver) Path(_ context.Context, name string) (string, error) {
	if err := volume.CheckName(name); err != nil {
		return "", err
	}
	return d.pathOf(name)
}

func (d *Driver) pathOf(name string) (string, error) {
	at, err := d.o.isMount(d.WillMountAt(name))
	if err != nil || !at {
		return "", err
	}
	return d.WillMountAt(name), nil
}

// unfinished is how long a ledger entry without a mount may wait for whoever began it.
const unfinished = time.Minute

// Sweep undoes what an earlier boot, or a mount that nobody came back to, has left attached or staged.
func (d *Driver) Sweep(ctx context.Context, _ time.Time) error {
	names, err := d.steps.Ledger.All()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, d.do(ctx, "sweep", name, func() error { return d.sweep(ctx, name) }))
	}
	return errors.Join(errs...)
}

func (d *Driver) sweep(ctx context.Context, name string) error {
	e, ok, err := d.steps.Entry(name)
	if err != nil || !ok {
		return err
	}
	at, err := d.o.isMount(d.WillMountAt(name))
	if err != nil || at || (e.Boot == d.o.BootID && time.Since(e.At) < unfinished) {
		return err
	}
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	d.o.Log.Info("csi: undoing what was left", zap.String("driver", d.o.Name), zap.String("volume", name), zap.Bool("attached", e.Attach), zap.Bool("staged", e.Stage))
	return d.steps.Down(ctx, s, &e)
}

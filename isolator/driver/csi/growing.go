package csi

import (
	"context"
	"errors"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// Grow has the controller make the volume larger, and the node what lies on it. What is not possible now is recorded, and done by the next Mount.
func (d *Driver) Grow(ctx context.Context, name, uid string, size volume.Bytes) (driver.Growth, error) {
	var g driver.Growth
	err := d.do(ctx, "grow", name, func() error {
		s, err := d.plugin.Session(ctx)
		if err != nil {
			return err
		}
		if s.Grows() == "" {
			return fault.New(fault.Invalid, "plugin %s expands no volumes", s.Name)
		}
		r, err := d.source(ctx, s, name, uid)
		if err != nil {
			return err
		}
		if int64(size) < r.Capacity {
			return fault.New(fault.Invalid, "it has %s; a volume cannot be made smaller (asked for %s)", volume.Bytes(r.Capacity), size)
		}
		e, up, err := d.steps.Entry(name)
		if err != nil {
			return err
		}
		if err := d.growVolume(ctx, s, &r, int64(size), up); err != nil {
			return err
		}
		if up && e.Mounted && r.Grow == 0 {
			if err := d.growFS(ctx, s, &r, e); err != nil {
				return err
			}
		}
		g = growth(r)
		return nil
	})
	return g, err
}

// growth says what became of it.
func growth(r csibook.Volume) driver.Growth {
	switch {
	case r.Grow > 0:
		return driver.Growth{Size: volume.Bytes(r.Capacity), Pending: volume.Bytes(r.Grow), Because: r.Because}
	case r.GrowFS > 0:
		return driver.Growth{Size: volume.Bytes(r.FS), Pending: volume.Bytes(r.GrowFS), Because: "the storage has grown; the file system on it does so when it is mounted"}
	}
	return driver.Growth{Size: volume.Bytes(r.Capacity)}
}

// growVolume has the controller do its part. Where that is impossible while the volume is in use, the wish is recorded.
func (d *Driver) growVolume(ctx context.Context, s *csiwire.Session, r *csibook.Volume, size int64, up bool) error {
	if size == r.Capacity && size == r.Granted && r.Grow == 0 {
		return nil
	}
	r.Grow, r.Because = size, ""
	if up && s.ControllerGrows() && s.Offline && !s.Online {
		r.Because = "the plugin expands only what is not attached; the next mount brings it"
		return d.names.Put(r.Name, *r)
	}
	if !s.ControllerGrows() {
		if r.Grow = 0; size > r.Granted {
			r.GrowLater(size)
		}
		return d.names.Put(r.Name, *r)
	}
	if err := d.names.Put(r.Name, *r); err != nil {
		return err
	}
	csistage.CrashAt("grow.intent")
	q := &spec.ControllerExpandVolumeRequest{VolumeId: r.ID, CapacityRange: &spec.CapacityRange{RequiredBytes: size}, VolumeCapability: r.Wish.Capability()}
	resp, err := csiwire.Ask(ctx, d.plugin, d.o.CallLimit, "ControllerExpandVolume", q, s.Controller.ControllerExpandVolume, csiwire.ControllerExpand,
		func(q *spec.ControllerExpandVolumeRequest, m map[string]string) { q.Secrets = m })
	var word *csiwire.Said
	switch {
	case errors.As(err, &word) && fault.Is(err, fault.Conflict):
		r.Because = word.Error() // it is in use somewhere: the wish stays
		return d.names.Put(r.Name, *r)
	case errors.As(err, &word) && !fault.Is(err, fault.Unknown):
		r.Grow = 0
		return errors.Join(err, d.names.Put(r.Name, *r))
	case err != nil:
		return err
	}
	csistage.CrashAt("grow.plugin")
	if got := resp.GetCapacityBytes(); got < size {
		return fault.New(fault.Unknown, "ControllerExpandVolume: the plugin says that it has %d bytes now, asked for were %d", got, size)
	}
	if r.Grow = 0; resp.GetNodeExpansionRequired() {
		r.GrowLater(resp.GetCapacityBytes())
	}
	r.Capacity, r.Granted = resp.GetCapacityBytes(), resp.GetCapacityBytes()
	err = d.names.Put(r.Name, *r)
	csistage.CrashAt("grow.done")
	return err
}

// growFS has the node do its part, on a volume that is mounted.
func (d *Driver) growFS(ctx context.Context, s *csiwire.Session, r *csibook.Volume, e csistage.Entry) error {
	if r.GrowFS == 0 {
		return nil
	}
	if !s.NodeGrows() {
		return fault.New(fault.Conflict, "the plugin wants its node service to expand it, and that cannot")
	}
	if err := d.steps.Expand(ctx, s, e, r.GrowFS); err != nil {
		return err
	}
	r.Granted = max(r.Granted, r.GrowFS)
	r.GrowFS, r.FS = 0, 0
	return d.names.Put(r.Name, *r)
}

// growBefore carries out a recorded wish before the volume is attached. A refusal leaves the volume as it was, which is no reason not to mount it; an
// outcome that is not known is one.
func (d *Driver) growBefore(ctx context.Context, s *csiwire.Session, r *csibook.Volume) error {
	if r.Grow == 0 || r.State != csibook.There {
		return nil
	}
	err := d.growVolume(ctx, s, r, r.Grow, false)
	if fault.Is(err, fault.Unknown) {
		return err
	}
	if err != nil {
		d.o.Log.Warn("csi: a volume cannot grow", zap.String("driver", d.o.Name), zap.String("volume", r.Name), zap.Error(err))
	}
	return nil
}

// growAfter has the node grow the file system of a volume that is up now. If it cannot, the mount is good all the same, and the next one tries again.
// So does the controller where it grows only what is attached.
func (d *Driver) growAfter(ctx context.Context, s *csiwire.Session, r *csibook.Volume, e csistage.Entry) {
	var err error
	if r.Grow > 0 && (s.Online || !s.Offline) {
		err = d.growVolume(ctx, s, r, r.Grow, true)
	}
	if err == nil {
		err = d.growFS(ctx, s, r, e)
	}
	if err != nil {
		d.o.Log.Warn("csi: a mounted volume has not grown", zap.String("driver", d.o.Name), zap.String("volume", r.Name), zap.Error(err))
	}
}

package csiplugin

import (
	"context"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// ControllerExpandVolume makes a volume larger. On the node that has it staged the pool does all of it, so that nothing is left for NodeExpandVolume.
func (p *Plugin) ControllerExpandVolume(ctx context.Context, q *spec.ControllerExpandVolumeRequest) (*spec.ControllerExpandVolumeResponse, error) {
	g, err := p.grow(ctx, q.GetVolumeId(), q.GetCapacityRange(), true)
	if err != nil {
		return nil, err
	}
	// What a size that nothing enforces allows is as much as was asked for.
	return &spec.ControllerExpandVolumeResponse{CapacityBytes: max(int64(g.Size), int64(g.Pending), q.GetCapacityRange().GetRequiredBytes()), NodeExpansionRequired: g.Pending > 0}, nil
}

// NodeExpandVolume ends what the controller left, which it did not unless the volume was mounted where its file system cannot grow.
func (p *Plugin) NodeExpandVolume(ctx context.Context, q *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	if err := id(q.GetVolumeId()); err != nil {
		return nil, err
	}
	if q.GetVolumePath() == "" {
		return nil, invalid("volume_path is missing")
	}
	info, err := p.pool.Get(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := place("volume_path", q.GetVolumePath()); err != nil {
		return nil, err
	}
	if at, err := mount.Is(q.GetVolumePath()); err != nil || !at {
		if err == nil {
			err = status.Errorf(codes.NotFound, "volume %s is not mounted at %.200q", q.GetVolumeId(), q.GetVolumePath())
		}
		return nil, err
	}
	if q.GetCapacityRange() == nil {
		return &spec.NodeExpandVolumeResponse{CapacityBytes: int64(info.Size)}, nil
	}
	g, err := p.grow(ctx, q.GetVolumeId(), q.GetCapacityRange(), false)
	if err != nil {
		return nil, err
	}
	if g.Pending > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s grows to %s when it is staged next: %s", q.GetVolumeId(), g.Pending, g.Because)
	}
	return &spec.NodeExpandVolumeResponse{CapacityBytes: max(int64(g.Size), q.GetCapacityRange().GetRequiredBytes())}, nil
}

func (p *Plugin) grow(ctx context.Context, name string, r *spec.CapacityRange, controller bool) (driver.Growth, error) {
	none := driver.Growth{}
	if err := id(name); err != nil {
		return none, err
	}
	if p.facts.Grows == "" {
		return none, status.Error(codes.Unimplemented, "volumes of this pool do not grow")
	}
	switch {
	case r == nil:
		return none, invalid("capacity_range is missing")
	case r.GetRequiredBytes() < 0 || r.GetLimitBytes() < 0 || (r.GetLimitBytes() > 0 && r.GetRequiredBytes() > r.GetLimitBytes()):
		return none, status.Errorf(codes.OutOfRange, "capacity of %d to %d bytes", r.GetRequiredBytes(), r.GetLimitBytes())
	}
	release, err := p.locks.take(ctx, name)
	if err != nil {
		return none, err
	}
	defer release()
	info, err := p.pool.Get(ctx, name)
	if err != nil {
		return none, err
	}
	if r.GetLimitBytes() > 0 && int64(info.Size) > r.GetLimitBytes() {
		return none, status.Errorf(codes.OutOfRange, "volume %s has %s already", name, info.Size)
	}
	want := max(volume.Bytes(r.GetRequiredBytes()), info.Size)
	if controller && p.facts.Grows == driver.GrowsOffline && want > info.Size {
		if at, err := p.mountsOf(ctx, name); err != nil || len(at) > 0 {
			if err == nil {
				err = status.Errorf(codes.FailedPrecondition, "volume %s is mounted at %s, and its file system grows only while it is not", name, at[0])
			}
			return none, err
		}
	}
	g, err := p.pool.Grow(ctx, name, "", want)
	switch {
	case fault.Is(err, fault.Unavailable):
		return none, status.Error(codes.ResourceExhausted, err.Error())
	case fault.Is(err, fault.Invalid):
		return none, status.Error(codes.OutOfRange, err.Error())
	}
	return g, err
}

package csi

import (
	"context"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// Usage asks the node service how full a volume is, which it knows of what is mounted here.
func (d *Driver) Usage(ctx context.Context, name string) (driver.Usage, error) {
	var u driver.Usage
	err := d.do(ctx, "usage of", name, func() error {
		s, err := d.plugin.Session(ctx)
		if err != nil {
			return err
		}
		at, err := d.o.isMount(d.WillMountAt(name))
		if err != nil {
			return err
		}
		e, up, err := d.steps.Entry(name)
		if err != nil {
			return err
		}
		if !at || !up { // what is mounted need not be looked for
			r, _, err := d.find(ctx, s, name)
			if err != nil {
				return err
			}
			e.ID = r.ID
		}
		switch {
		case !s.HasNode || !s.CanNode(spec.NodeServiceCapability_RPC_GET_VOLUME_STATS):
			return fault.New(fault.Invalid, "plugin %s does not say how full its volumes are", s.Name)
		case !at:
			return fault.New(fault.Unavailable, "the plugin knows it only of what is mounted, and it is not mounted on this node")
		}
		q := &spec.NodeGetVolumeStatsRequest{VolumeId: e.ID, VolumePath: d.WillMountAt(name)}
		if s.CanNode(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
			q.StagingTargetPath = d.steps.StagingAt(name)
		}
		resp, err := csiwire.Ask(ctx, d.plugin, d.o.LookLimit, "NodeGetVolumeStats", q, s.Node.NodeGetVolumeStats, "", nil)
		if err != nil {
			return notAbsent(err)
		}
		u, err = csiwire.Usage(resp)
		return err
	})
	return u, err
}

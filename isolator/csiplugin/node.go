package csiplugin

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// NodeGetInfo gives the node's id, and its topology where volumes are bound to it.
func (p *Plugin) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	r := &spec.NodeGetInfoResponse{NodeId: p.o.NodeID}
	if p.local {
		r.AccessibleTopology = p.topology()
	}
	return r, nil
}

// NodeGetCapabilities names what the node can do.
func (p *Plugin) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	var out []*spec.NodeServiceCapability
	for _, t := range []spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		spec.NodeServiceCapability_RPC_GET_VOLUME_STATS, spec.NodeServiceCapability_RPC_VOLUME_CONDITION} {
		out = append(out, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: t}}})
	}
	return &spec.NodeGetCapabilitiesResponse{Capabilities: out}, nil
}

// place checks a path that a caller gave for a mount.
func place(what, path string) error {
	switch {
	case path == "":
		return invalid("%s is missing", what)
	case len(path) > 4096 || !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsAny(path, "\n\r\x00"):
		return invalid("%s %.80q is not a clean absolute path", what, path)
	}
	return nil
}

// data gives a volume's data directory. Its label was checked.
func (p *Plugin) data(ctx context.Context, name string) (string, error) {
	return p.pool.Mount(ctx, driver.MountSpec{Name: name, ID: "csi"}) // opened without mounts, the pool answers with the directory
}

// NodeStageVolume binds the volume's data to the staging path.
func (p *Plugin) NodeStageVolume(ctx context.Context, q *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	release, err := p.begin(ctx, q.GetVolumeId(), "staging_target_path", q.GetStagingTargetPath(), q.GetVolumeCapability(), true)
	if err != nil {
		return nil, err
	}
	defer release()
	data, err := p.data(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &spec.NodeStageVolumeResponse{}, bind(ctx, data, q.GetStagingTargetPath(), false)
}

// begin checks what a call on the node gives and takes the volume's turn.
func (p *Plugin) begin(ctx context.Context, volumeID, what, path string, c *spec.VolumeCapability, needsCapability bool) (release func(), err error) {
	if err := id(volumeID); err != nil {
		return nil, err
	}
	if err := place(what, path); err != nil {
		return nil, err
	}
	if needsCapability {
		if c == nil {
			return nil, invalid("volume capability is missing")
		}
		if why := p.cannot(c); why != "" {
			return nil, invalid("%s", why)
		}
	}
	return p.locks.take(ctx, volumeID)
}

// bind makes data appear at target, once.
func bind(ctx context.Context, data, target string, readOnly bool) error {
	if err := os.Mkdir(target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fault.Wrap(fault.Unknown, err, "make %s", target)
	}
	if fi, err := os.Lstat(target); err != nil || !fi.IsDir() {
		return invalid("%s is not a directory", target)
	}
	at, err := mount.Is(target)
	if err != nil {
		return err
	}
	if at {
		return mount.Within(ctx, "look at "+target, func() error {
			same, err := mount.SameDir(data, target)
			if err == nil && !same {
				return status.Errorf(codes.AlreadyExists, "something else is mounted at %s", target)
			}
			return err
		})
	}
	if err := mount.Bind(ctx, data, target); err != nil || !readOnly {
		return err
	}
	return mount.Within(ctx, "set read-only "+target, func() error {
		err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, "")
		return fault.Wrap(fault.Unknown, err, "set read-only %s", target)
	})
}

// NodeUnstageVolume takes the staging mount away, when nothing is published from it any more.
func (p *Plugin) NodeUnstageVolume(ctx context.Context, q *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	release, err := p.begin(ctx, q.GetVolumeId(), "staging_target_path", q.GetStagingTargetPath(), nil, false)
	if err != nil {
		return nil, err
	}
	defer release()
	return &spec.NodeUnstageVolumeResponse{}, unbind(ctx, p.dir, q.GetStagingTargetPath(), false)
}

// unbind syncs the pool and removes every mount at a place; nothing mounted there is fine.
func unbind(ctx context.Context, pool, target string, andDirectory bool) error {
	for range 16 { // a crash at a bad time may have left one mount on top of another
		at, err := mount.Is(target)
		if err != nil {
			return err
		}
		if !at {
			if andDirectory {
				_ = os.Remove(target)
			}
			return nil
		}
		if err := mount.Within(ctx, "sync "+pool, func() error { return mount.Sync(pool) }); err != nil {
			return err
		}
		if err := mount.Unmount(ctx, target); err != nil {
			return err
		}
	}
	return fault.New(fault.Unknown, "%s is still a mount point", target)
}

// NodePublishVolume binds the staged volume to the target.
func (p *Plugin) NodePublishVolume(ctx context.Context, q *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	release, err := p.begin(ctx, q.GetVolumeId(), "target_path", q.GetTargetPath(), q.GetVolumeCapability(), true)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := place("staging_target_path", q.GetStagingTargetPath()); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	data, err := p.data(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	staged, err := mount.Is(q.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	if !staged {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not staged at %s", q.GetVolumeId(), q.GetStagingTargetPath())
	}
	err = mount.Within(ctx, "look at the stage", func() error {
		same, err := mount.SameDir(data, q.GetStagingTargetPath())
		if err == nil && !same {
			return status.Errorf(codes.FailedPrecondition, "another volume is staged at %s", q.GetStagingTargetPath())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	readOnly := q.GetReadonly() || strings.HasSuffix(q.GetVolumeCapability().GetAccessMode().GetMode().String(), "READER_ONLY")
	return &spec.NodePublishVolumeResponse{}, bind(ctx, q.GetStagingTargetPath(), q.GetTargetPath(), readOnly)
}

// NodeUnpublishVolume takes a published mount and its directory away.
func (p *Plugin) NodeUnpublishVolume(ctx context.Context, q *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	release, err := p.begin(ctx, q.GetVolumeId(), "target_path", q.GetTargetPath(), nil, false)
	if err != nil {
		return nil, err
	}
	defer release()
	return &spec.NodeUnpublishVolumeResponse{}, unbind(ctx, p.dir, q.GetTargetPath(), true)
}

// NodeGetVolumeStats gives the figures of the pool's file system, which all its volumes share.
func (p *Plugin) NodeGetVolumeStats(ctx context.Context, q *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	if err := id(q.GetVolumeId()); err != nil {
		return nil, err
	}
	if q.GetVolumePath() == "" {
		return nil, invalid("volume_path is missing")
	}
	if _, err := p.pool.Get(ctx, q.GetVolumeId()); err != nil {
		return nil, err
	}
	at, err := false, error(nil)
	if place("volume_path", q.GetVolumePath()) == nil { // nothing is mounted at what is no path
		at, err = mount.Is(q.GetVolumePath())
	}
	if err != nil {
		return nil, err
	}
	if !at {
		return nil, status.Errorf(codes.NotFound, "volume %s is not mounted at %.200q", q.GetVolumeId(), q.GetVolumePath())
	}
	var st unix.Statfs_t
	err = mount.Within(ctx, "figures of "+q.GetVolumePath(), func() error {
		return fault.Wrap(fault.Unknown, unix.Statfs(q.GetVolumePath(), &st), "figures of %s", q.GetVolumePath())
	})
	if err != nil {
		return nil, err
	}
	return &spec.NodeGetVolumeStatsResponse{VolumeCondition: healthy(), Usage: []*spec.VolumeUsage{
		{Unit: spec.VolumeUsage_BYTES, Total: int64(st.Blocks) * st.Bsize, Available: int64(st.Bavail) * st.Bsize, Used: int64(st.Blocks-st.Bfree) * st.Bsize},
		{Unit: spec.VolumeUsage_INODES, Total: int64(st.Files), Available: int64(st.Ffree), Used: int64(st.Files - st.Ffree)},
	}}, nil
}

// mountsOf gives the places on this node where a volume's data is mounted, by mountinfo alone.
func (p *Plugin) mountsOf(ctx context.Context, name string) (places []string, err error) {
	err = mount.Within(ctx, "look for mounts", func() error {
		all, err := mount.Under("/")
		if err != nil {
			return err
		}
		dir := filepath.Join(p.dir, name)
		var on mount.Mount // the one that the pool lies on: the deepest, and of these the last
		for _, m := range all {
			if (m.Point == "/" || dir == m.Point || strings.HasPrefix(dir, m.Point+"/")) && len(m.Point) >= len(on.Point) {
				on = m
			}
		}
		root := filepath.Join(on.Root, strings.TrimPrefix(dir, on.Point))
		for _, m := range all {
			if m.Major == on.Major && m.Minor == on.Minor && strings.HasPrefix(m.Root, root+"/") {
				places = append(places, m.Point)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return places, nil
}

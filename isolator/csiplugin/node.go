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
	types := []spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, spec.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		spec.NodeServiceCapability_RPC_VOLUME_CONDITION, spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER}
	if p.facts.Grows != "" {
		types = append(types, spec.NodeServiceCapability_RPC_EXPAND_VOLUME)
	}
	var out []*spec.NodeServiceCapability
	for _, t := range types {
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

// data has the pool show a volume and gives the place: a directory's own, where the back end mounts nothing. Its label was checked.
func (p *Plugin) data(ctx context.Context, name string) (string, error) {
	return p.pool.Mount(ctx, driver.MountSpec{Name: name, ID: "csi"})
}

// shown gives the place of a volume that data has shown.
func (p *Plugin) shown(ctx context.Context, name string) (string, error) {
	path, err := p.pool.Path(ctx, name)
	if err == nil && path == "" {
		return "", status.Errorf(codes.FailedPrecondition, "volume %s is not staged", name)
	}
	return path, err
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
	if err := unbind(ctx, p.dir, q.GetStagingTargetPath(), false); err != nil {
		return nil, err
	}
	if at, err := p.mountsOf(ctx, q.GetVolumeId()); err != nil || len(at) > 0 {
		return &spec.NodeUnstageVolumeResponse{}, err // staged or published elsewhere too
	}
	if err := p.pool.Unmount(ctx, q.GetVolumeId(), "csi"); err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	return &spec.NodeUnstageVolumeResponse{}, nil
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
	data, err := p.shown(ctx, q.GetVolumeId())
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
	if err := p.soleTarget(ctx, q); err != nil {
		return nil, err
	}
	readOnly := q.GetReadonly() || strings.HasSuffix(q.GetVolumeCapability().GetAccessMode().GetMode().String(), "READER_ONLY")
	return &spec.NodePublishVolumeResponse{}, bind(ctx, q.GetStagingTargetPath(), q.GetTargetPath(), readOnly)
}

// soleTarget refuses a second target of a volume whose access mode allows one only.
func (p *Plugin) soleTarget(ctx context.Context, q *spec.NodePublishVolumeRequest) error {
	if q.GetVolumeCapability().GetAccessMode().GetMode() != spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		return nil
	}
	at, err := p.mountsOf(ctx, q.GetVolumeId())
	if err != nil {
		return err
	}
	for _, m := range at {
		if m != q.GetStagingTargetPath() && m != q.GetTargetPath() {
			return status.Errorf(codes.FailedPrecondition, "volume %s has one writer only and is published at %s", q.GetVolumeId(), m)
		}
	}
	return nil
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

// NodeGetVolumeStats gives what the pool has measured of a volume that is mounted.
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
	u, err := p.pool.Usage(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	inodes := &spec.VolumeUsage{Unit: spec.VolumeUsage_INODES, Total: int64(u.Inodes), Used: int64(u.InodesUsed)}
	if inodes.Total > inodes.Used {
		inodes.Available = inodes.Total - inodes.Used
	}
	bytes := &spec.VolumeUsage{Unit: spec.VolumeUsage_BYTES, Total: int64(u.Size), Available: int64(u.Available), Used: int64(u.Used)}
	if bytes.Total == 0 { // nothing but the pool's room limits it
		bytes.Total = bytes.Used + bytes.Available
	}
	return &spec.NodeGetVolumeStatsResponse{VolumeCondition: healthy(), Usage: []*spec.VolumeUsage{bytes, inodes}}, nil
}

// mountsOf gives the places on this node, but the pool's own, where a volume's data is mounted, by mountinfo alone.
func (p *Plugin) mountsOf(ctx context.Context, name string) (places []string, err error) {
	own := ""
	if p.o.Mounts != "" {
		own = p.pool.WillMountAt(name)
	}
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
		root := filepath.Join(on.Root, strings.TrimPrefix(dir, on.Point)) + "/"
		for _, m := range all {
			if m.Point == own && own != "" { // what the pool has shown has this device, and this root or one below
				on, root = m, m.Root
			}
		}
		for _, m := range all {
			if m.Point != own && m.Major == on.Major && m.Minor == on.Minor && (m.Root == root || strings.HasPrefix(m.Root, strings.TrimSuffix(root, "/")+"/")) {
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

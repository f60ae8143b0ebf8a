package csiplugin

import (
	"context"
	"sort"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// ControllerGetCapabilities names what the controller can do.
func (p *Plugin) ControllerGetCapabilities(context.Context, *spec.ControllerGetCapabilitiesRequest) (*spec.ControllerGetCapabilitiesResponse, error) {
	types := []spec.ControllerServiceCapability_RPC_Type{
		spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, spec.ControllerServiceCapability_RPC_LIST_VOLUMES,
		spec.ControllerServiceCapability_RPC_GET_CAPACITY, spec.ControllerServiceCapability_RPC_GET_VOLUME,
		spec.ControllerServiceCapability_RPC_VOLUME_CONDITION, spec.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if p.facts.Grows != "" {
		types = append(types, spec.ControllerServiceCapability_RPC_EXPAND_VOLUME)
	}
	if p.facts.Snapshots {
		types = append(types, spec.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, spec.ControllerServiceCapability_RPC_LIST_SNAPSHOTS)
	}
	if p.facts.Clones {
		types = append(types, spec.ControllerServiceCapability_RPC_CLONE_VOLUME)
	}
	var out []*spec.ControllerServiceCapability
	for _, t := range types {
		out = append(out, &spec.ControllerServiceCapability{Type: &spec.ControllerServiceCapability_Rpc{Rpc: &spec.ControllerServiceCapability_RPC{Type: t}}})
	}
	return &spec.ControllerGetCapabilitiesResponse{Capabilities: out}, nil
}

// CreateVolume makes a volume of the name, empty or as a copy; one of that name that fits the wish is the answer too. The parameters owner and mode are
// those of the pool driver. Size is recorded, and not enforced by directories.
func (p *Plugin) CreateVolume(ctx context.Context, q *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	want, err := p.wish(q)
	if err != nil {
		return nil, err
	}
	release, err := p.locks.take(ctx, want.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	if want.Source != nil && want.Source.Snapshot == "" {
		releaseSource, err := p.locks.take(ctx, want.Source.Volume)
		if err != nil {
			return nil, err
		}
		defer releaseSource()
	}
	made, err := p.pool.Get(ctx, want.Name)
	switch {
	case fault.Is(err, fault.NotFound):
		made, err = p.pool.Create(ctx, want)
	case err == nil && !fits(made.Size, q.GetCapacityRange()):
		return nil, status.Errorf(codes.AlreadyExists, "volume %s exists with %s", want.Name, made.Size)
	case err == nil && copyOf(made.Cluster) != copyOf(want.Cluster):
		return nil, status.Errorf(codes.AlreadyExists, "volume %s exists, and is no copy of what was asked for", want.Name)
	}
	if err != nil {
		if fault.Is(err, fault.Unavailable) { // the pool is full
			return nil, status.Error(codes.ResourceExhausted, err.Error())
		}
		return nil, err
	}
	v := p.volume(made)
	v.ContentSource = q.GetVolumeContentSource()
	return &spec.CreateVolumeResponse{Volume: v}, nil
}

// wish checks a creation.
func (p *Plugin) wish(q *spec.CreateVolumeRequest) (driver.Spec, error) {
	s := driver.Spec{Name: q.GetName()}
	if err := volume.CheckName(s.Name); err != nil {
		return s, err
	}
	if len(q.GetVolumeCapabilities()) == 0 {
		return s, invalid("volume capabilities are missing")
	}
	for _, c := range q.GetVolumeCapabilities() {
		if why := p.cannot(c); why != "" {
			return s, invalid("%s", why)
		}
	}
	if err := p.copied(&s, q.GetVolumeContentSource()); err != nil {
		return s, err
	}
	if !p.reachable(q.GetAccessibilityRequirements()) {
		return s, status.Errorf(codes.ResourceExhausted, "volumes of this pool are only at node %s", p.o.NodeID)
	}
	for k, v := range q.GetParameters() {
		switch k {
		case "owner":
			s.Owner = v
		case "mode":
			s.Mode = v
		default:
			return s, invalid("parameter %q is not known; there are owner and mode", k)
		}
	}
	r := q.GetCapacityRange()
	if r.GetRequiredBytes() < 0 || r.GetLimitBytes() < 0 || (r.GetLimitBytes() > 0 && r.GetRequiredBytes() > r.GetLimitBytes()) {
		return s, status.Errorf(codes.OutOfRange, "capacity of %d to %d bytes", r.GetRequiredBytes(), r.GetLimitBytes())
	}
	if s.Size = volume.Bytes(r.GetRequiredBytes()); s.Size == 0 && s.Source == nil {
		s.Size = volume.Bytes(r.GetLimitBytes())
	}
	return s, nil
}

// copyPrefix begins the word, in a label's place for the cluster, by which a copy remembers what it was made from: whoever asks for a copy of the name again
// must not be given an empty volume for it.
const copyPrefix = "csi:copy-of:"

func copyOf(cluster string) string {
	from, _ := strings.CutPrefix(cluster, copyPrefix)
	return from
}

// copied reads what a volume is to be a copy of.
func (p *Plugin) copied(s *driver.Spec, from *spec.VolumeContentSource) error {
	if from == nil {
		return nil
	}
	if !p.facts.Clones {
		return invalid("volumes of this pool cannot be made from a snapshot or another volume")
	}
	switch t := from.GetType().(type) {
	case *spec.VolumeContentSource_Volume:
		if err := id(t.Volume.GetVolumeId()); err != nil {
			return err
		}
		s.Source = &driver.Source{Volume: t.Volume.GetVolumeId()}
	case *spec.VolumeContentSource_Snapshot:
		vol, snapshot, err := splitSnapshot(t.Snapshot.GetSnapshotId())
		if err != nil {
			return err
		}
		s.Source = &driver.Source{Volume: vol, Snapshot: snapshot}
	default:
		return invalid("the volume content source is neither a snapshot nor a volume")
	}
	s.Cluster = copyPrefix + snapshotID(s.Source.Volume, s.Source.Snapshot)
	return nil
}

func fits(size volume.Bytes, r *spec.CapacityRange) bool {
	return int64(size) >= r.GetRequiredBytes() && (r.GetLimitBytes() == 0 || int64(size) <= r.GetLimitBytes())
}

// reachable tells whether a volume here meets a wish for topology.
func (p *Plugin) reachable(r *spec.TopologyRequirement) bool {
	all := append(r.GetRequisite(), r.GetPreferred()...)
	if len(r.GetRequisite()) > 0 {
		all = r.GetRequisite()
	}
	if !p.local || len(all) == 0 {
		return true
	}
	for _, t := range all {
		if t.GetSegments()[TopologyKey] == p.o.NodeID {
			return true
		}
	}
	return false
}

func (p *Plugin) topology() *spec.Topology {
	return &spec.Topology{Segments: map[string]string{TopologyKey: p.o.NodeID}}
}

func (p *Plugin) volume(i driver.Info) *spec.Volume {
	v := &spec.Volume{VolumeId: i.Name, CapacityBytes: int64(i.Size), VolumeContext: map[string]string{"name": i.Name}}
	if p.local {
		v.AccessibleTopology = []*spec.Topology{p.topology()}
	}
	return v
}

// cannot says why a capability cannot be had, "" when it can.
func (p *Plugin) cannot(c *spec.VolumeCapability) string {
	switch m := c.GetAccessMode().GetMode(); {
	case c.GetBlock() != nil:
		return "raw block volumes are not served"
	case c.GetMount() == nil:
		return "the access type is missing"
	case c.GetMount().GetFsType() != "":
		return "the pool has the file system that it has: fs_type cannot be chosen"
	case len(c.GetMount().GetMountFlags()) > 0:
		return "mount flags are not served"
	case m == spec.VolumeCapability_AccessMode_UNKNOWN:
		return "the access mode is missing"
	case p.local && strings.HasPrefix(m.String(), "MULTI_NODE"):
		return "volumes of this pool are on one node only"
	}
	return ""
}

// id checks a volume id. What cannot be an id of ours does not exist.
func id(s string) error {
	if s == "" {
		return invalid("volume id is missing")
	}
	if volume.CheckName(s) != nil {
		return status.Errorf(codes.NotFound, "volume %.80q does not exist", s)
	}
	return nil
}

// DeleteVolume moves a volume to the pool's bin, unless it is staged or published on this node.
func (p *Plugin) DeleteVolume(ctx context.Context, q *spec.DeleteVolumeRequest) (*spec.DeleteVolumeResponse, error) {
	done := &spec.DeleteVolumeResponse{}
	if err := id(q.GetVolumeId()); err != nil {
		if status.Code(err) == codes.NotFound {
			return done, nil
		}
		return nil, err
	}
	release, err := p.locks.take(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer release()
	at, err := p.mountsOf(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if len(at) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is mounted at %s", q.GetVolumeId(), strings.Join(at, ", "))
	}
	if err := p.pool.Remove(ctx, q.GetVolumeId(), ""); err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	return done, nil
}

// ValidateVolumeCapabilities says whether an existing volume can be used in these ways.
func (p *Plugin) ValidateVolumeCapabilities(ctx context.Context, q *spec.ValidateVolumeCapabilitiesRequest) (*spec.ValidateVolumeCapabilitiesResponse, error) {
	if err := id(q.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(q.GetVolumeCapabilities()) == 0 {
		return nil, invalid("volume capabilities are missing")
	}
	if _, err := p.pool.Get(ctx, q.GetVolumeId()); err != nil {
		return nil, err
	}
	for _, c := range q.GetVolumeCapabilities() {
		if why := p.cannot(c); why != "" {
			return &spec.ValidateVolumeCapabilitiesResponse{Message: why}, nil
		}
	}
	return &spec.ValidateVolumeCapabilitiesResponse{Confirmed: &spec.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: q.GetVolumeContext(), VolumeCapabilities: q.GetVolumeCapabilities(), Parameters: q.GetParameters()}}, nil
}

const pagePrefix = "after:"

// page reads the token of a page: the last id of the one before.
func page(token string) (after string, err error) {
	after, ok := strings.CutPrefix(token, pagePrefix)
	if token != "" && !ok {
		return "", status.Errorf(codes.Aborted, "starting_token %.80q is not one of this plugin", token)
	}
	return after, nil
}

// ListVolumes lists by name; the token of the next page is the last name of this one, so that volumes that come and go between pages shift nothing.
func (p *Plugin) ListVolumes(ctx context.Context, q *spec.ListVolumesRequest) (*spec.ListVolumesResponse, error) {
	if q.GetMaxEntries() < 0 {
		return nil, invalid("max_entries is %d", q.GetMaxEntries())
	}
	after, err := page(q.GetStartingToken())
	if err != nil {
		return nil, err
	}
	all, err := p.pool.List(ctx)
	if err != nil {
		return nil, err
	}
	all = all[sort.Search(len(all), func(i int) bool { return all[i].Name > after }):]
	resp := &spec.ListVolumesResponse{}
	if n := int(q.GetMaxEntries()); n > 0 && n < len(all) {
		all = all[:n]
		resp.NextToken = pagePrefix + all[n-1].Name
	}
	for _, i := range all {
		resp.Entries = append(resp.Entries, &spec.ListVolumesResponse_Entry{Volume: p.volume(i),
			Status: &spec.ListVolumesResponse_VolumeStatus{VolumeCondition: healthy()}})
	}
	return resp, nil
}

// ControllerGetVolume gives one volume.
func (p *Plugin) ControllerGetVolume(ctx context.Context, q *spec.ControllerGetVolumeRequest) (*spec.ControllerGetVolumeResponse, error) {
	if err := id(q.GetVolumeId()); err != nil {
		return nil, err
	}
	i, err := p.pool.Get(ctx, q.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &spec.ControllerGetVolumeResponse{Volume: p.volume(i), Status: &spec.ControllerGetVolumeResponse_VolumeStatus{VolumeCondition: healthy()}}, nil
}

// healthy is the condition of a volume whose label could be read.
func healthy() *spec.VolumeCondition {
	return &spec.VolumeCondition{Message: "its label and directory are there"}
}

// GetCapacity gives what is free on the pool's file system.
func (p *Plugin) GetCapacity(ctx context.Context, q *spec.GetCapacityRequest) (*spec.GetCapacityResponse, error) {
	for _, c := range q.GetVolumeCapabilities() {
		if p.cannot(c) != "" {
			return &spec.GetCapacityResponse{}, nil
		}
	}
	if p.local && q.GetAccessibleTopology() != nil && q.GetAccessibleTopology().GetSegments()[TopologyKey] != p.o.NodeID {
		return &spec.GetCapacityResponse{}, nil
	}
	var st unix.Statfs_t
	err := mount.Within(ctx, "capacity of the pool", func() error {
		return fault.Wrap(fault.Unavailable, unix.Statfs(p.dir, &st), "pool %s", p.dir)
	})
	if err != nil {
		return nil, err
	}
	return &spec.GetCapacityResponse{AvailableCapacity: int64(st.Bavail) * st.Bsize}, nil
}

package csi

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/isolator/driver"
)

// fake is a CSI plugin with the manners of Kubernetes's host-path driver (../../../shared/components.md): ids of its own, publish before stage is
// FailedPrecondition, unstage while published is Internal, it deletes what is published, and says abnormal after a good publish. Its mounts are
// symbolic links to its directories, so that tests need no root and a killed process leaves them as it would leave mounts.
type fake struct {
	spec.UnimplementedIdentityServer
	spec.UnimplementedControllerServer
	spec.UnimplementedNodeServer

	dir      string
	endpoint string
	server   *grpc.Server

	mu                                  *sync.Mutex
	volumes                             map[string]*fakeVolume // by id
	calls                               []string
	seen                                []any // requests
	control                             []spec.ControllerServiceCapability_RPC_Type
	nodal                               []spec.NodeServiceCapability_RPC_Type
	noController, noNode, online, quiet bool
	snapshots                           map[string]*spec.Snapshot // by id
	unready                             int                       // how many looks at a new snapshot find it not ready
	grown                               map[string]int64          // file systems, by volume id
	idName                              bool                      // ids are names
	local                               bool                      // with topology
	// before and after may spoil a call: before it has an effect, after it had.
	before, after func(method string) error
	reply         map[string]any // answers instead of the real ones
	staged        map[string]string
	published     map[string]string
	attached      map[string]string
}

type fakeVolume struct {
	id, name string
	size     int64
	source   *spec.VolumeContentSource
}

func newFake(t *testing.T) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fake{mu: &sync.Mutex{}, dir: dir, endpoint: "unix://" + filepath.Join(dir, "csi.sock"), volumes: map[string]*fakeVolume{}, local: true,
		staged: map[string]string{}, published: map[string]string{}, attached: map[string]string{}, reply: map[string]any{},
		control: []spec.ControllerServiceCapability_RPC_Type{1, 2, 3, 5, 6, 7, 9, 12, 11}, nodal: []spec.NodeServiceCapability_RPC_Type{1, 2, 3, 4},
		snapshots: map[string]*spec.Snapshot{}, grown: map[string]int64{}}
	f.start(t)
	t.Cleanup(func() { f.server.Stop() })
	return f
}

func (f *fake) start(t *testing.T) {
	t.Helper()
	f.serve(t, f.intercept)
}

// serve listens, and lets intercept answer.
func (f *fake) serve(t *testing.T, intercept grpc.UnaryServerInterceptor) {
	t.Helper()
	os.Remove(filepath.Join(f.dir, "csi.sock"))
	l, err := net.Listen("unix", filepath.Join(f.dir, "csi.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it may be closed after the next one listens
	f.server = grpc.NewServer(grpc.UnaryInterceptor(intercept))
	spec.RegisterIdentityServer(f.server, f)
	if !f.noController {
		spec.RegisterControllerServer(f.server, f)
	}
	if !f.noNode {
		spec.RegisterNodeServer(f.server, f)
	}
	go f.server.Serve(l)
}

// isLink is the isMount of tests: a link is a mount.
func isLink(path string) (bool, error) {
	fi, err := os.Lstat(path)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if fi.IsDir() { // a staging directory that the plugin has not replaced
		_, err := os.Readlink(filepath.Join(path, "staged"))
		return err == nil, nil
	}
	return true, nil
}

func (f *fake) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	method := filepath.Base(info.FullMethod)
	f.mu.Lock()
	f.calls, f.seen = append(f.calls, method), append(f.seen, req)
	before, after, answer := f.before, f.after, f.reply[method]
	f.mu.Unlock()
	if before != nil {
		if err := before(method); err != nil {
			return nil, err
		}
	}
	if answer != nil {
		return answer, nil
	}
	f.mu.Lock()
	resp, err := h(ctx, req)
	f.mu.Unlock()
	if err == nil && after != nil {
		err = after(method)
	}
	return resp, err
}

// spoil changes the fake while it runs.
func (f *fake) spoil(before, after func(string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *fake) count(method string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == method {
			n++
		}
	}
	return n
}

// made tells how many volumes there are.
func (f *fake) made() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.volumes)
}

// lastRequest gives what was asked for last.
func (f *fake) lastRequest() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[len(f.seen)-1]
}

// left tells what is still attached, staged or published.
func (f *fake) left() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(len(f.attached), len(f.staged), len(f.published))
}

func (f *fake) GetPluginInfo(context.Context, *spec.GetPluginInfoRequest) (*spec.GetPluginInfoResponse, error) {
	return &spec.GetPluginInfoResponse{Name: "fake.csi.test", VendorVersion: "1"}, nil
}

func (f *fake) GetPluginCapabilities(context.Context, *spec.GetPluginCapabilitiesRequest) (*spec.GetPluginCapabilitiesResponse, error) {
	r := &spec.GetPluginCapabilitiesResponse{}
	for _, c := range []spec.PluginCapability_Service_Type{1, 2} {
		if c == 1 && !f.noController || c == 2 && f.local {
			r.Capabilities = append(r.Capabilities, &spec.PluginCapability{Type: &spec.PluginCapability_Service_{Service: &spec.PluginCapability_Service{Type: c}}})
		}
	}
	if f.quiet {
		return r, nil
	}
	way := spec.PluginCapability_VolumeExpansion_OFFLINE
	if f.online {
		way = spec.PluginCapability_VolumeExpansion_ONLINE
	}
	r.Capabilities = append(r.Capabilities, &spec.PluginCapability{Type: &spec.PluginCapability_VolumeExpansion_{VolumeExpansion: &spec.PluginCapability_VolumeExpansion{Type: way}}})
	return r, nil
}

func (f *fake) Probe(context.Context, *spec.ProbeRequest) (*spec.ProbeResponse, error) {
	return &spec.ProbeResponse{}, nil
}

func (f *fake) ControllerGetCapabilities(context.Context, *spec.ControllerGetCapabilitiesRequest) (*spec.ControllerGetCapabilitiesResponse, error) {
	r := &spec.ControllerGetCapabilitiesResponse{}
	for _, c := range f.control {
		r.Capabilities = append(r.Capabilities, &spec.ControllerServiceCapability{Type: &spec.ControllerServiceCapability_Rpc{Rpc: &spec.ControllerServiceCapability_RPC{Type: c}}})
	}
	return r, nil
}

func (f *fake) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	r := &spec.NodeGetCapabilitiesResponse{}
	for _, c := range f.nodal {
		r.Capabilities = append(r.Capabilities, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}}})
	}
	return r, nil
}

func (f *fake) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: "fake-node", MaxVolumesPerNode: 7, AccessibleTopology: &spec.Topology{Segments: map[string]string{"node": "fake-node"}}}, nil
}

func (f *fake) CreateVolume(_ context.Context, q *spec.CreateVolumeRequest) (*spec.CreateVolumeResponse, error) {
	for _, v := range f.volumes {
		if v.name == q.Name {
			if v.size != q.GetCapacityRange().GetRequiredBytes() {
				return nil, status.Error(codes.AlreadyExists, "another size")
			}
			return &spec.CreateVolumeResponse{Volume: f.wire(v)}, nil
		}
	}
	v := &fakeVolume{id: uuid.NewString(), name: q.Name, size: q.GetCapacityRange().GetRequiredBytes()}
	if f.idName {
		v.id = v.name
	}
	if err := os.Mkdir(f.data(v.id), 0o755); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if src := q.GetVolumeContentSource(); src != nil {
		from := src.GetVolume().GetVolumeId()
		if snap := f.snapshots[src.GetSnapshot().GetSnapshotId()]; snap != nil {
			from = "snap-" + snap.SnapshotId
		} else if f.volumes[from] == nil {
			return nil, status.Error(codes.NotFound, "no such source")
		}
		if err := os.CopyFS(f.data(v.id), os.DirFS(f.data(from))); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		v.source = src
	}
	f.volumes[v.id] = v
	return &spec.CreateVolumeResponse{Volume: f.wire(v)}, nil
}

func (f *fake) data(id string) string { return filepath.Join(f.dir, "volume-"+id) }

func (f *fake) wire(v *fakeVolume) *spec.Volume {
	w := &spec.Volume{VolumeId: v.id, CapacityBytes: v.size, VolumeContext: map[string]string{"of": v.name}, ContentSource: v.source}
	if f.local {
		w.AccessibleTopology = []*spec.Topology{{Segments: map[string]string{"node": "fake-node"}}}
	}
	return w
}

func (f *fake) DeleteVolume(_ context.Context, q *spec.DeleteVolumeRequest) (*spec.DeleteVolumeResponse, error) {
	delete(f.volumes, q.VolumeId)
	os.RemoveAll(f.data(q.VolumeId))
	return &spec.DeleteVolumeResponse{}, nil
}

func (f *fake) known(id string) error {
	if f.volumes[id] == nil {
		return status.Error(codes.NotFound, "no volume "+id)
	}
	return nil
}

func (f *fake) ControllerGetVolume(_ context.Context, q *spec.ControllerGetVolumeRequest) (*spec.ControllerGetVolumeResponse, error) {
	if err := f.known(q.VolumeId); err != nil {
		return nil, err
	}
	return &spec.ControllerGetVolumeResponse{Volume: f.wire(f.volumes[q.VolumeId]), Status: &spec.ControllerGetVolumeResponse_VolumeStatus{}}, nil
}

func (f *fake) ValidateVolumeCapabilities(_ context.Context, q *spec.ValidateVolumeCapabilitiesRequest) (*spec.ValidateVolumeCapabilitiesResponse, error) {
	return &spec.ValidateVolumeCapabilitiesResponse{}, f.known(q.VolumeId)
}

// ListVolumes gives one volume per page.
func (f *fake) ListVolumes(_ context.Context, q *spec.ListVolumesRequest) (*spec.ListVolumesResponse, error) {
	ids := slices.Sorted(maps.Keys(f.volumes))
	r := &spec.ListVolumesResponse{}
	for i, id := range ids {
		if id > q.StartingToken {
			r.Entries = append(r.Entries, &spec.ListVolumesResponse_Entry{Volume: f.wire(f.volumes[id])})
			if i+1 < len(ids) {
				r.NextToken = id
			}
			break
		}
	}
	return r, nil
}

func (f *fake) ControllerPublishVolume(_ context.Context, q *spec.ControllerPublishVolumeRequest) (*spec.ControllerPublishVolumeResponse, error) {
	if err := f.known(q.VolumeId); err != nil {
		return nil, err
	}
	f.attached[q.VolumeId] = q.NodeId
	return &spec.ControllerPublishVolumeResponse{PublishContext: map[string]string{"device": "/dev/x"}}, nil
}

func (f *fake) ControllerUnpublishVolume(_ context.Context, q *spec.ControllerUnpublishVolumeRequest) (*spec.ControllerUnpublishVolumeResponse, error) {
	if f.staged[q.VolumeId] != "" {
		return nil, status.Error(codes.FailedPrecondition, "still staged")
	}
	delete(f.attached, q.VolumeId)
	return &spec.ControllerUnpublishVolumeResponse{}, nil
}

func (f *fake) NodeStageVolume(_ context.Context, q *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	if err := f.known(q.VolumeId); err != nil {
		return nil, err
	}
	if f.attached[q.VolumeId] != "fake-node" || q.PublishContext["device"] == "" || q.VolumeContext["of"] == "" {
		return nil, status.Error(codes.InvalidArgument, "not attached, or a context is missing")
	}
	if err := os.Symlink(f.data(q.VolumeId), filepath.Join(q.StagingTargetPath, "staged")); err != nil && !os.IsExist(err) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	f.staged[q.VolumeId] = q.StagingTargetPath
	return &spec.NodeStageVolumeResponse{}, nil
}

func (f *fake) NodeUnstageVolume(_ context.Context, q *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	if f.published[q.VolumeId] != "" {
		return nil, status.Error(codes.Internal, "still published")
	}
	os.Remove(filepath.Join(q.StagingTargetPath, "staged"))
	delete(f.staged, q.VolumeId)
	return &spec.NodeUnstageVolumeResponse{}, nil
}

func (f *fake) NodePublishVolume(_ context.Context, q *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	if slices.Contains(f.nodal, spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) && f.staged[q.VolumeId] == "" || f.staged[q.VolumeId] != q.StagingTargetPath {
		return nil, status.Error(codes.FailedPrecondition, "not staged")
	}
	if err := os.Symlink(f.data(q.VolumeId), q.TargetPath); err != nil && !os.IsExist(err) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	f.published[q.VolumeId] = q.TargetPath
	return &spec.NodePublishVolumeResponse{}, nil
}

func (f *fake) NodeUnpublishVolume(_ context.Context, q *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	os.Remove(q.TargetPath)
	delete(f.published, q.VolumeId)
	return &spec.NodeUnpublishVolumeResponse{}, nil
}

func (f *fake) NodeGetVolumeStats(_ context.Context, q *spec.NodeGetVolumeStatsRequest) (*spec.NodeGetVolumeStatsResponse, error) {
	if _, err := os.Lstat(q.VolumePath); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	return &spec.NodeGetVolumeStatsResponse{Usage: []*spec.VolumeUsage{{Unit: 1, Total: 100, Used: 40, Available: 60}, {Unit: 2, Total: 9, Used: 4}}, VolumeCondition: &spec.VolumeCondition{Abnormal: true, Message: "just so"}}, nil
}

func (f *fake) ControllerExpandVolume(_ context.Context, q *spec.ControllerExpandVolumeRequest) (*spec.ControllerExpandVolumeResponse, error) {
	v := f.volumes[q.VolumeId]
	switch n := q.GetCapacityRange().GetRequiredBytes(); {
	case v == nil:
		return nil, status.Error(codes.NotFound, "no volume")
	case !f.online && f.attached[q.VolumeId] != "":
		return nil, status.Error(codes.FailedPrecondition, "it is attached")
	case n > 1<<40:
		return nil, status.Error(codes.OutOfRange, "too large")
	default:
		v.size = max(v.size, n)
	}
	return &spec.ControllerExpandVolumeResponse{CapacityBytes: v.size, NodeExpansionRequired: true}, nil
}

func (f *fake) NodeExpandVolume(_ context.Context, q *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	if f.published[q.VolumeId] != q.VolumePath || f.staged[q.VolumeId] != q.StagingTargetPath {
		return nil, status.Error(codes.FailedPrecondition, "not published there")
	}
	f.grown[q.VolumeId] = q.GetCapacityRange().GetRequiredBytes()
	return &spec.NodeExpandVolumeResponse{}, nil
}

func (f *fake) CreateSnapshot(_ context.Context, q *spec.CreateSnapshotRequest) (*spec.CreateSnapshotResponse, error) {
	id := "id-" + q.Name
	if s := f.snapshots[id]; s != nil {
		if s.SourceVolumeId != q.SourceVolumeId {
			return nil, status.Error(codes.AlreadyExists, "of another volume")
		}
		return &spec.CreateSnapshotResponse{Snapshot: f.look(s)}, nil
	}
	if err := f.known(q.SourceVolumeId); err != nil {
		return nil, err
	}
	if err := os.CopyFS(f.data("snap-"+id), os.DirFS(f.data(q.SourceVolumeId))); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	f.snapshots[id] = &spec.Snapshot{SnapshotId: id, SourceVolumeId: q.SourceVolumeId, SizeBytes: f.volumes[q.SourceVolumeId].size, CreationTime: timestamppb.Now(), ReadyToUse: f.unready == 0}
	return &spec.CreateSnapshotResponse{Snapshot: proto.Clone(f.snapshots[id]).(*spec.Snapshot)}, nil
}

// look gives a snapshot, which gets ready after enough looks.
func (f *fake) look(s *spec.Snapshot) *spec.Snapshot {
	if f.unready--; f.unready <= 0 {
		s.ReadyToUse = true
	}
	return proto.Clone(s).(*spec.Snapshot)
}

func (f *fake) DeleteSnapshot(_ context.Context, q *spec.DeleteSnapshotRequest) (*spec.DeleteSnapshotResponse, error) {
	delete(f.snapshots, q.SnapshotId)
	return &spec.DeleteSnapshotResponse{}, os.RemoveAll(f.data("snap-" + q.SnapshotId))
}

// ListSnapshots gives one snapshot per page.
func (f *fake) ListSnapshots(_ context.Context, q *spec.ListSnapshotsRequest) (*spec.ListSnapshotsResponse, error) {
	r := &spec.ListSnapshotsResponse{}
	for _, id := range slices.Sorted(maps.Keys(f.snapshots)) {
		if id <= q.StartingToken || q.SnapshotId != "" && q.SnapshotId != id {
			continue
		}
		if len(r.Entries) == 1 {
			r.NextToken = r.Entries[0].Snapshot.SnapshotId
			break
		}
		r.Entries = append(r.Entries, &spec.ListSnapshotsResponse_Entry{Snapshot: f.look(f.snapshots[id])})
	}
	return r, nil
}

// restart starts the fake anew after change.
func (f *fake) restart(t *testing.T, change func()) {
	t.Helper()
	f.server.Stop()
	change()
	f.start(t)
}

// open makes a driver of the fake; change may alter its options.
func (f *fake) open(t *testing.T, dir string, change func(*Options)) *Driver {
	t.Helper()
	o := Options{Name: "csi/fake", Endpoint: f.endpoint, Dir: filepath.Join(dir, "state"), Mounts: filepath.Join(dir, "mounts"), Node: "n1",
		BootID: "boot-1", LookLimit: 2 * time.Second, CallLimit: 2 * time.Second, isMount: isLink}
	if change != nil {
		change(&o)
	}
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func spec1(name string) driver.Spec { return driver.Spec{Name: name, UID: "uid-" + name} }

package csiplugin

import (
	"context"
	"sort"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// snapshotID makes the id of a snapshot. Without one it is the volume's.
func snapshotID(vol, snapshot string) string {
	if snapshot == "" {
		return vol
	}
	return vol + "@" + snapshot
}

// splitSnapshot reads an id. What cannot be one of ours does not exist.
func splitSnapshot(s string) (vol, snapshot string, err error) {
	vol, snapshot, ok := strings.Cut(s, "@")
	switch {
	case s == "":
		return "", "", invalid("snapshot id is missing")
	case !ok || volume.CheckName(vol) != nil || volume.CheckName(snapshot) != nil:
		return "", "", status.Errorf(codes.NotFound, "snapshot %.80q does not exist", s)
	}
	return vol, snapshot, nil
}

func (p *Plugin) snapshot(i driver.SnapshotInfo) *spec.Snapshot {
	return &spec.Snapshot{SnapshotId: snapshotID(i.Volume, i.Name), SourceVolumeId: i.Volume, SizeBytes: int64(i.Size), CreationTime: timestamppb.New(i.Created), ReadyToUse: i.Ready}
}

func (p *Plugin) takesSnapshots() error {
	if !p.facts.Snapshots {
		return status.Error(codes.Unimplemented, "this pool takes no snapshots")
	}
	return nil
}

// CreateSnapshot keeps a volume's content of now. All volumes' snapshots share one set of names. It is as consistent as the disk of a machine whose power failed;
// whoever wants less to be lost freezes the file system around it.
func (p *Plugin) CreateSnapshot(ctx context.Context, q *spec.CreateSnapshotRequest) (*spec.CreateSnapshotResponse, error) {
	if err := p.takesSnapshots(); err != nil {
		return nil, err
	}
	switch {
	case q.GetName() == "":
		return nil, invalid("the snapshot's name is missing")
	case volume.CheckName(q.GetName()) != nil:
		return nil, volume.CheckName(q.GetName())
	case len(q.GetParameters()) > 0:
		return nil, invalid("snapshots have no parameters")
	}
	if err := id(q.GetSourceVolumeId()); err != nil {
		return nil, err
	}
	for _, key := range []string{"@" + q.GetName(), q.GetSourceVolumeId()} {
		release, err := p.locks.take(ctx, key)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	all, err := p.pool.Snapshots(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		switch {
		case i.Name != q.GetName():
		case i.Volume != q.GetSourceVolumeId():
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %s exists, of volume %s", i.Name, i.Volume)
		default:
			return &spec.CreateSnapshotResponse{Snapshot: p.snapshot(i)}, nil
		}
	}
	made, err := p.pool.Snapshot(ctx, q.GetSourceVolumeId(), "", q.GetName())
	if fault.Is(err, fault.Unavailable) {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	if err != nil {
		return nil, err
	}
	return &spec.CreateSnapshotResponse{Snapshot: p.snapshot(made)}, nil
}

// DeleteSnapshot deletes one for good.
func (p *Plugin) DeleteSnapshot(ctx context.Context, q *spec.DeleteSnapshotRequest) (*spec.DeleteSnapshotResponse, error) {
	if err := p.takesSnapshots(); err != nil {
		return nil, err
	}
	done := &spec.DeleteSnapshotResponse{}
	vol, snapshot, err := splitSnapshot(q.GetSnapshotId())
	if status.Code(err) == codes.NotFound {
		return done, nil
	}
	if err != nil {
		return nil, err
	}
	release, err := p.locks.take(ctx, "@"+snapshot)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := p.pool.RemoveSnapshot(ctx, vol, snapshot); err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	return done, nil
}

// ListSnapshots lists by id, as ListVolumes does; a filter for what does not exist finds nothing.
func (p *Plugin) ListSnapshots(ctx context.Context, q *spec.ListSnapshotsRequest) (*spec.ListSnapshotsResponse, error) {
	if err := p.takesSnapshots(); err != nil {
		return nil, err
	}
	if q.GetMaxEntries() < 0 {
		return nil, invalid("max_entries is %d", q.GetMaxEntries())
	}
	after, err := page(q.GetStartingToken())
	if err != nil {
		return nil, err
	}
	all, err := p.pool.Snapshots(ctx, "")
	if err != nil {
		return nil, err
	}
	sort.Slice(all, func(i, j int) bool {
		return snapshotID(all[i].Volume, all[i].Name) < snapshotID(all[j].Volume, all[j].Name)
	})
	resp := &spec.ListSnapshotsResponse{}
	for _, i := range all {
		s := p.snapshot(i)
		if s.SnapshotId <= after || (q.GetSnapshotId() != "" && q.GetSnapshotId() != s.SnapshotId) ||
			(q.GetSourceVolumeId() != "" && q.GetSourceVolumeId() != s.SourceVolumeId) {
			continue
		}
		if n := int(q.GetMaxEntries()); n > 0 && len(resp.Entries) == n {
			resp.NextToken = pagePrefix + resp.Entries[n-1].Snapshot.SnapshotId
			break
		}
		resp.Entries = append(resp.Entries, &spec.ListSnapshotsResponse_Entry{Snapshot: s})
	}
	return resp, nil
}

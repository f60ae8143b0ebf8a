package csi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// Snapshot has the plugin cut a snapshot. It returns as soon as the content is fixed, so that the file system need not stay frozen: Ready may still be false,
// and Snapshots says when that is over.
func (d *Driver) Snapshot(ctx context.Context, name, uid, snapshot string) (driver.SnapshotInfo, error) {
	var info driver.SnapshotInfo
	err := d.doSnapshot(ctx, "snapshot", name, snapshot, func(s *csiwire.Session) error {
		r, found, err := d.findSnapshot(ctx, s, name, snapshot)
		if err != nil {
			return err
		}
		if found {
			info = r.Info()
			switch {
			case r.State == csibook.Deleting:
				return fault.New(fault.Conflict, "it is being removed")
			case uid != "" && r.UID != "" && r.UID != uid:
				return fault.New(fault.Exists, "there is one of the volume that had the name before, with uid %s", r.UID)
			}
			return nil
		}
		v, err := d.source(ctx, s, name, uid)
		if err != nil {
			return err
		}
		r = csibook.Snapshot{V: 1, Volume: name, UID: v.UID, Name: snapshot, State: csibook.Creating, Source: v.ID, Called: called(v, snapshot), Created: time.Now().UTC(), Node: d.o.Node}
		if r.UID == "" {
			r.UID = uid
		}
		if err := d.snapshots.Add(r.Key(), r); err != nil {
			return err
		}
		csistage.CrashAt("snapshot.intent")
		err = d.cut(ctx, s, &r)
		csistage.CrashAt("snapshot.done")
		info = r.Info()
		return err
	})
	if err != nil {
		return driver.SnapshotInfo{}, err
	}
	return info, nil
}

// doSnapshot checks both names, takes the volume's turn and opens a session with a plugin that makes snapshots.
func (d *Driver) doSnapshot(ctx context.Context, verb, name, snapshot string, f func(s *csiwire.Session) error) error {
	if err := volume.CheckName(snapshot); err != nil {
		return fault.Op(err, "snapshot")
	}
	return d.do(ctx, verb+" "+snapshot+" of", name, func() error {
		s, err := d.plugin.Session(ctx)
		if err != nil {
			return err
		}
		if !s.Can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
			return fault.New(fault.Invalid, "plugin %s makes no snapshots", s.Name)
		}
		return f(s)
	})
}

// source finds a volume that is to be copied.
func (d *Driver) source(ctx context.Context, s *csiwire.Session, name, uid string) (csibook.Volume, error) {
	v, _, err := d.find(ctx, s, name)
	switch {
	case err != nil:
		return v, err
	case v.State == csibook.Deleting:
		return v, fault.New(fault.Conflict, "volume %s is being removed", name)
	case uid != "" && d.soleBook(s) && v.UID != uid:
		return v, fault.New(fault.Conflict, "volume %s has uid %q, not %s", name, v.UID, uid)
	}
	return v, nil
}

// called makes the name of a snapshot towards the plugin, whose snapshots of all volumes share one set of names: readable, unlike that of any other
// volume's or namesake's, and within CSI's length.
func called(v csibook.Volume, snapshot string) string {
	sum := sha256.Sum256([]byte(v.ID + "\x00" + v.UID + "\x00" + snapshot))
	word := v.Name + "-" + snapshot
	if len(word) > maxName-17 {
		word = word[:maxName-17]
	}
	return fmt.Sprintf("%s-%x", word, sum[:8])
}

// cut calls CreateSnapshot for a wish that is recorded, for the first time or again: the plugin goes by the name. A refusal ends the wish.
func (d *Driver) cut(ctx context.Context, s *csiwire.Session, r *csibook.Snapshot) error {
	resp, err := csiwire.Ask(ctx, d.plugin, d.o.CallLimit, "CreateSnapshot", &spec.CreateSnapshotRequest{SourceVolumeId: r.Source, Name: r.Called},
		s.Controller.CreateSnapshot, csiwire.Snapshot, func(q *spec.CreateSnapshotRequest, m map[string]string) { q.Secrets = m })
	var word *csiwire.Said
	if errors.As(err, &word) && !fault.Is(err, fault.Unknown) && r.State == csibook.Creating {
		return errors.Join(err, d.snapshots.Remove(r.Key()))
	}
	if err == nil {
		csistage.CrashAt("snapshot.plugin")
		err = fault.Op(r.Match(resp.GetSnapshot()), "CreateSnapshot")
	}
	if err != nil {
		return err
	}
	return d.snapshots.Put(r.Key(), *r)
}

// findSnapshot reads a record; one that was begun is finished first, and one that was not ready is asked for again.
func (d *Driver) findSnapshot(ctx context.Context, s *csiwire.Session, name, snapshot string) (csibook.Snapshot, bool, error) {
	r, ok, err := d.snapshotRecord(name + "@" + snapshot)
	if err != nil || !ok {
		return r, false, err
	}
	return r, true, d.refresh(ctx, s, &r)
}

func (d *Driver) snapshotRecord(key string) (csibook.Snapshot, bool, error) {
	r, ok, err := d.snapshots.Get(key)
	if err == nil && ok && (r.V != 1 || r.Key() != key || r.Source == "" || (r.State != csibook.Creating && r.ID == "")) {
		err = fault.New(fault.Conflict, "record %s is not one of snapshot %s", d.snapshots.Path(key), key)
	}
	return r, ok, err
}

// refresh brings a record up to date that is not final yet.
func (d *Driver) refresh(ctx context.Context, s *csiwire.Session, r *csibook.Snapshot) error {
	switch {
	case r.State == csibook.Creating:
		return d.cut(ctx, s, r)
	case r.State == csibook.Deleting || r.Ready:
		return nil
	case !s.Can(spec.ControllerServiceCapability_RPC_LIST_SNAPSHOTS):
		return d.cut(ctx, s, r) // the other way that CSI gives to ask
	}
	all, err := d.listSnapshots(ctx, s, r.ID)
	if err != nil {
		return err
	}
	found, ok := all[r.ID]
	if !ok {
		return fault.New(fault.NotFound, "the plugin lists no snapshot %s any more", r.ID)
	}
	if err := r.Match(found); err != nil {
		return fault.Op(err, "ListSnapshots")
	}
	return d.snapshots.Put(r.Key(), *r)
}

// RemoveSnapshot has the plugin delete it.
func (d *Driver) RemoveSnapshot(ctx context.Context, name, snapshot string) error {
	return d.doSnapshot(ctx, "remove snapshot", name, snapshot, func(s *csiwire.Session) error {
		r, ok, err := d.snapshotRecord(name + "@" + snapshot)
		if err == nil && !ok {
			err = fault.New(fault.NotFound, "there is no such snapshot: nothing is recorded of it in %s", d.snapshots.Dir)
		}
		if err == nil && r.State == csibook.Creating {
			err = d.cut(ctx, s, &r) // only so is its id to be had
		}
		if err != nil {
			return err
		}
		r.State = csibook.Deleting
		if err := d.snapshots.Put(r.Key(), r); err != nil {
			return err
		}
		csistage.CrashAt("unsnapshot.intent")
		_, err = csiwire.Ask(ctx, d.plugin, d.o.CallLimit, "DeleteSnapshot", &spec.DeleteSnapshotRequest{SnapshotId: r.ID}, s.Controller.DeleteSnapshot, csiwire.Snapshot,
			func(q *spec.DeleteSnapshotRequest, m map[string]string) { q.Secrets = m })
		switch {
		case fault.Is(err, fault.NotFound):
		case err != nil && fault.Is(err, fault.Unknown):
			return err
		case err != nil: // refused: it is in use
			r.State = csibook.There
			return errors.Join(err, d.snapshots.Put(r.Key(), r))
		}
		csistage.CrashAt("unsnapshot.plugin")
		err = d.snapshots.Remove(r.Key())
		csistage.CrashAt("unsnapshot.done")
		return err
	})
}

// Snapshots lists what is recorded, without what the plugin no longer lists. Those that were not ready are asked for again; one of which that
// fails is shown as it was.
func (d *Driver) Snapshots(ctx context.Context, name string) ([]driver.SnapshotInfo, error) {
	if name != "" {
		if err := volume.CheckName(name); err != nil {
			return nil, err
		}
	}
	out, err := d.allSnapshots(ctx, name)
	return out, fault.Op(err, "list snapshots of %s", d.o.Name)
}

func (d *Driver) allSnapshots(ctx context.Context, name string) ([]driver.SnapshotInfo, error) {
	s, err := d.plugin.Session(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := d.snapshots.All()
	if err != nil {
		return nil, err
	}
	var known map[string]*spec.Snapshot
	canList := s.Can(spec.ControllerServiceCapability_RPC_LIST_SNAPSHOTS)
	if canList && len(keys) > 0 {
		if known, err = d.listSnapshots(ctx, s, ""); err != nil {
			return nil, err
		}
	}
	var out []driver.SnapshotInfo
	for _, key := range keys {
		if v, _, _ := strings.Cut(key, "@"); name != "" && v != name {
			continue
		}
		r, ok, err := d.snapshotRecord(key)
		if err != nil {
			return nil, err
		}
		found, listed := known[r.ID]
		if !ok || r.State == csibook.Creating || (canList && !listed) {
			continue
		}
		if canList {
			if err := r.Match(found); err != nil {
				return nil, fault.Op(err, "ListSnapshots")
			}
		} else if !r.Ready {
			_ = d.refresh(ctx, s, &r)
		}
		out = append(out, r.Info())
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Volume < out[j].Volume || (out[i].Volume == out[j].Volume && out[i].Name < out[j].Name)
	})
	return out, nil
}

// listSnapshots gives the plugin's snapshots by id, or the one of an id.
func (d *Driver) listSnapshots(ctx context.Context, s *csiwire.Session, id string) (map[string]*spec.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.LookLimit)
	defer cancel()
	out, token := map[string]*spec.Snapshot{}, ""
	for range maxPages {
		resp, err := csiwire.Ask(ctx, d.plugin, d.o.LookLimit, "ListSnapshots", &spec.ListSnapshotsRequest{SnapshotId: id, StartingToken: token}, s.Controller.ListSnapshots, csiwire.Snapshot,
			func(q *spec.ListSnapshotsRequest, m map[string]string) { q.Secrets = m })
		if err != nil {
			return nil, notAbsent(err)
		}
		for _, e := range resp.GetEntries() {
			if err := csiwire.CheckText("snapshot id", e.GetSnapshot().GetSnapshotId(), csiwire.MaxID); err != nil {
				return nil, fault.Op(err, "ListSnapshots")
			}
			if out[e.GetSnapshot().GetSnapshotId()] = e.GetSnapshot(); len(out) > maxVolumes {
				return nil, fault.New(fault.Unknown, "ListSnapshots: more than %d snapshots", maxVolumes)
			}
		}
		if token = resp.GetNextToken(); token == "" {
			return out, nil
		}
	}
	return nil, fault.New(fault.Unknown, "ListSnapshots: more than %d pages", maxPages)
}

// noneBegun refuses the removal of a volume of which a snapshot has been begun and nobody knows whether it is there: without the volume nobody could
// find out.
func (d *Driver) noneBegun(name string) error {
	keys, err := d.snapshots.All()
	if err != nil {
		return err
	}
	for _, key := range keys {
		if v, snapshot, _ := strings.Cut(key, "@"); v == name {
			r, ok, err := d.snapshotRecord(key)
			if err != nil {
				return err
			}
			if ok && r.State == csibook.Creating {
				return fault.New(fault.Conflict, "its snapshot %s has been begun and its end is not known; take it again, or remove it, first", snapshot)
			}
		}
	}
	return nil
}

// readyPause is how long to wait between two looks at a snapshot that is not ready.
const readyPause = 500 * time.Millisecond

// copyOf settles what a new volume begins as a copy of. A snapshot that is not ready is waited for as long as ctx lasts.
func (d *Driver) copyOf(ctx context.Context, s *csiwire.Session, from driver.Source, want *csibook.Wish) error {
	if from.Snapshot == "" {
		if !s.Can(spec.ControllerServiceCapability_RPC_CLONE_VOLUME) {
			return fault.New(fault.Invalid, "plugin %s copies no volumes, only snapshots", s.Name)
		}
		v, err := d.source(ctx, s, from.Volume, from.UID)
		if err != nil {
			return fault.Op(err, "what it should be a copy of")
		}
		want.Source = &csibook.Source{Volume: v.ID}
		return want.Enough(v.Capacity)
	}
	if !s.Can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT) {
		return fault.New(fault.Invalid, "plugin %s makes no snapshots", s.Name)
	}
	for {
		r, found, err := d.findSnapshot(ctx, s, from.Volume, from.Snapshot)
		switch {
		case err != nil:
			return fault.Op(err, "what it should be a copy of")
		case !found:
			return fault.New(fault.NotFound, "volume %s has no snapshot %s", from.Volume, from.Snapshot)
		case r.State == csibook.Deleting:
			return fault.New(fault.Conflict, "snapshot %s of volume %s is being removed", from.Snapshot, from.Volume)
		case from.UID != "" && r.UID != "" && r.UID != from.UID:
			return fault.New(fault.Conflict, "snapshot %s is of a volume %s with uid %s, not %s", from.Snapshot, from.Volume, r.UID, from.UID)
		case r.Ready:
			want.Source = &csibook.Source{Volume: r.Source, Snapshot: r.ID}
			return want.Enough(r.Size)
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "snapshot %s of volume %s is not ready yet", from.Snapshot, from.Volume)
		case <-time.After(readyPause):
		}
	}
}

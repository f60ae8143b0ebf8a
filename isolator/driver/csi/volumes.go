package csi

import (
	"context"
	"errors"
	"sort"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/csistage"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// maxName is the longest name that CreateVolume takes.
const maxName = 128

// Get looks the name up in the records and asks the plugin whether the volume of that id exists.
func (d *Driver) Get(ctx context.Context, name string) (driver.Info, error) {
	var info driver.Info
	err := d.do(ctx, "get", name, func() error {
		s, err := d.plugin.Session(ctx)
		if err != nil {
			return err
		}
		r, _, err := d.find(ctx, s, name)
		if err != nil {
			return err
		}
		info = r.Info()
		info.Path, err = d.pathOf(name)
		return err
	})
	if err != nil {
		return driver.Info{}, err
	}
	return info, nil
}

// find gives what there is of that name; recorded says whether that has a record. NotFound only on the plugin's word, or that of a book
// that is known to be the only one. A creation that a former process of this node began is finished first.
func (d *Driver) find(ctx context.Context, s *csiwire.Session, name string) (r csibook.Volume, recorded bool, err error) {
	r, recorded, err = d.record(name)
	switch {
	case err != nil:
		return r, false, err
	case !recorded && d.o.IDsAreNames:
		r = csibook.Volume{V: 1, Name: name, State: csibook.There, ID: name, Wish: csibook.Wish{FSType: d.o.FSType}}
		if err := r.Wish.Choose(s.SingleWriter(), false); err != nil {
			return r, false, err
		}
		err = d.exists(ctx, s, &r)
		return r, false, err
	case !recorded && d.soleBook(s):
		return r, false, fault.New(fault.NotFound, "volume %s does not exist: nothing is recorded of it in %s", name, d.names.Dir)
	case !recorded:
		return r, false, fault.New(fault.Unknown, "this node has no record of volume %s, and cannot ask the plugin for it by name: give --csi names=DIR (a directory that all nodes see) or ids=name", name)
	case r.State == csibook.Creating && r.Node != d.o.Node:
		return r, true, fault.New(fault.Unknown, "node %s has begun to create it", r.Node)
	case r.State == csibook.Creating:
		return r, true, d.finish(ctx, s, &r)
	}
	err = d.exists(ctx, s, &r)
	return r, true, err
}

// record reads a record and checks that it is of that volume.
func (d *Driver) record(name string) (csibook.Volume, bool, error) {
	r, ok, err := d.names.Get(name)
	if err == nil && ok && (r.V != 1 || r.Name != name || (r.State != csibook.Creating && r.ID == "")) {
		err = fault.New(fault.Conflict, "record %s is not one of volume %s", d.names.Path(name), name)
	}
	return r, ok, err
}

// exists asks the plugin for a volume by its id and refreshes the record: by ControllerGetVolume, else by the whole list, else by
// ValidateVolumeCapabilities, which every controller has. A plugin without a controller cannot be asked: its volumes are there by the operator's
// word, ids=name, and a mount of one that is not fails.
func (d *Driver) exists(ctx context.Context, s *csiwire.Session, r *csibook.Volume) error {
	err := d.ask(ctx, s, r)
	if err == nil && !s.ControllerGrows() { // what only a node made larger the controller may not know
		r.Capacity = max(r.Capacity, r.Granted)
	}
	return err
}

func (d *Driver) ask(ctx context.Context, s *csiwire.Session, r *csibook.Volume) error {
	switch {
	case s.Can(spec.ControllerServiceCapability_RPC_GET_VOLUME):
		resp, err := csiwire.Ask(ctx, d.plugin, d.o.LookLimit, "ControllerGetVolume", &spec.ControllerGetVolumeRequest{VolumeId: r.ID}, s.Controller.ControllerGetVolume, "", nil)
		if err != nil {
			return err
		}
		return r.Match(resp.GetVolume(), resp.GetStatus().GetVolumeCondition())
	case s.Can(spec.ControllerServiceCapability_RPC_LIST_VOLUMES):
		all, err := d.listAll(ctx, s)
		if err != nil {
			return err
		}
		if v, ok := all[r.ID]; ok {
			return r.Match(v.GetVolume(), v.GetStatus().GetVolumeCondition())
		}
		return fault.New(fault.NotFound, "the plugin lists no volume %s (id %s)", r.Name, r.ID)
	case s.HasController:
		q := &spec.ValidateVolumeCapabilitiesRequest{VolumeId: r.ID, VolumeContext: r.Context, VolumeCapabilities: []*spec.VolumeCapability{r.Wish.Capability()}}
		_, err := csiwire.Ask(ctx, d.plugin, d.o.LookLimit, "ValidateVolumeCapabilities", q, s.Controller.ValidateVolumeCapabilities, csiwire.Provision,
			func(q *spec.ValidateVolumeCapabilitiesRequest, m map[string]string) { q.Secrets = m })
		return err
	case d.o.IDsAreNames:
		return nil
	}
	return fault.New(fault.Unknown, "plugin %s has no controller service that could say whether volume %s exists; give --csi ids=name if its volumes' ids are names", s.Name, r.Name)
}

// Create records the wish, has the plugin make the volume, and records what it gave.
func (d *Driver) Create(ctx context.Context, w driver.Spec) (driver.Info, error) {
	var info driver.Info
	err := d.do(ctx, "create", w.Name, func() (err error) {
		info, err = d.create(ctx, w)
		return err
	})
	return info, err
}

func (d *Driver) create(ctx context.Context, w driver.Spec) (driver.Info, error) {
	none := driver.Info{}
	if w.Owner != "" || w.Mode != "" {
		return none, fault.New(fault.Invalid, "a CSI plugin cannot set owner and mode")
	}
	if len(w.Name) > maxName {
		return none, fault.New(fault.Invalid, "a name of %d bytes is longer than the %d that CSI allows", len(w.Name), maxName)
	}
	want, err := csibook.ParseWish(w.Size, w.Options, d.o.FSType)
	if err != nil {
		return none, err
	}
	s, err := d.plugin.Session(ctx)
	if err != nil {
		return none, err
	}
	if !s.Can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) {
		return none, fault.New(fault.Invalid, "plugin %s does not create volumes", s.Name)
	}
	if err := want.Choose(s.SingleWriter(), w.Shared); err != nil {
		return none, err
	}
	r, recorded, err := d.find(ctx, s, w.Name)
	switch {
	case err == nil:
		return d.sameAgain(r, w)
	case recorded && r.State == csibook.Creating && w.UID != "" && r.UID == w.UID:
		// The same wish of another node, which did not get its answer.
		err := d.finish(ctx, s, &r)
		return r.Info(), err
	case recorded && r.State == csibook.Creating && r.Node != d.o.Node:
		return none, fault.Wrap(fault.Exists, err, "")
	case !fault.Is(err, fault.NotFound):
		return none, err
	case recorded:
		if err := d.names.Remove(w.Name); err != nil {
			return none, err
		}
	}
	if w.Source != nil {
		if err := d.copyOf(ctx, s, *w.Source, &want); err != nil {
			return none, err
		}
	}
	r = csibook.Volume{V: 1, Name: w.Name, UID: w.UID, Cluster: w.Cluster, State: csibook.Creating, Wish: want, Created: time.Now().UTC(), Node: d.o.Node}
	if err := d.names.Add(w.Name, r); err != nil {
		return none, err
	}
	csistage.CrashAt("create.intent")
	if err := d.finish(ctx, s, &r); err != nil {
		return none, err
	}
	csistage.CrashAt("create.done")
	return r.Info(), nil
}

// sameAgain answers the wish for a volume that exists.
func (d *Driver) sameAgain(r csibook.Volume, w driver.Spec) (driver.Info, error) {
	switch {
	case r.State == csibook.Deleting:
		return driver.Info{}, fault.New(fault.Conflict, "it is being removed")
	case w.UID != "" && r.UID == w.UID:
		return r.Info(), nil
	}
	return driver.Info{}, fault.New(fault.Exists, "it exists with uid %q", r.UID)
}

// finish calls CreateVolume for a wish that is recorded, for the first time or again: the plugin goes by the name and makes only one. A refusal ends
// the wish; a lost reply leaves it for the next call.
func (d *Driver) finish(ctx context.Context, s *csiwire.Session, r *csibook.Volume) error {
	q := &spec.CreateVolumeRequest{Name: r.Name, VolumeCapabilities: []*spec.VolumeCapability{r.Wish.Capability()}, Parameters: r.Wish.Parameters}
	if r.Wish.Size > 0 {
		q.CapacityRange = &spec.CapacityRange{RequiredBytes: int64(r.Wish.Size)}
	}
	if src := r.Wish.Source; src != nil && src.Snapshot != "" {
		q.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: src.Snapshot}}}
	} else if src != nil {
		q.VolumeContentSource = &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: src.Volume}}}
	}
	if s.Constrained && len(s.Topology) > 0 {
		here := []*spec.Topology{{Segments: s.Topology}}
		q.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: here, Preferred: here}
	}
	resp, err := csiwire.Ask(ctx, d.plugin, d.o.CallLimit, "CreateVolume", q, s.Controller.CreateVolume, csiwire.Provision,
		func(q *spec.CreateVolumeRequest, m map[string]string) { q.Secrets = m })
	var word *csiwire.Said
	if errors.As(err, &word) && !fault.Is(err, fault.Unknown) {
		if rerr := d.names.Remove(r.Name); rerr != nil {
			return fault.Wrap(fault.Unknown, err, "the record of it stays (%v)", rerr)
		}
		if fault.Is(err, fault.NotFound) { // of a source, not of the volume
			return fault.Wrap(fault.Invalid, err, "")
		}
	}
	if err != nil {
		return err
	}
	csistage.CrashAt("create.plugin")
	return d.made(s, r, resp.GetVolume())
}

// made checks and records the volume that CreateVolume gave.
func (d *Driver) made(s *csiwire.Session, r *csibook.Volume, v *spec.Volume) error {
	accessible, err := csiwire.CheckVolume(v)
	if err == nil {
		if err := r.Wish.Source.Same(v.GetContentSource()); err != nil {
			return errors.Join(fault.Op(err, "CreateVolume"), d.names.Remove(r.Name))
		}
	}
	if err == nil {
		err = csiwire.CheckSize(v.GetCapacityBytes(), r.Wish.Size)
	}
	if err == nil && d.o.IDsAreNames && v.GetVolumeId() != r.Name {
		err = fault.New(fault.Unknown, "the plugin calls it %q: its ids are not names; leave out ids=name", v.GetVolumeId())
	}
	if err == nil {
		err = d.checkUnique(r.Name, v.GetVolumeId())
	}
	if err != nil {
		return fault.Op(err, "CreateVolume")
	}
	r.ID, r.State = v.GetVolumeId(), csibook.There
	r.Take(v, accessible)
	r.Granted = r.Capacity
	if src := r.Wish.Source; src != nil && src.Size > 0 && s.NodeGrows() {
		r.GrowFS, r.FS = r.Capacity, src.Size // the file system is as large as the one it was copied from
	}
	if !d.soleBook(s) {
		r.UID, r.Cluster = "", "" // others may remove and make it again without this book's knowing
	}
	return d.names.Put(r.Name, *r)
}

// checkUnique refuses an id that another volume has: two names for one storage would be mounted twice.
func (d *Driver) checkUnique(name, id string) error {
	names, err := d.names.All()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == name {
			continue
		}
		if other, ok, err := d.names.Get(n); err != nil {
			return err
		} else if ok && other.ID == id {
			return fault.New(fault.Conflict, "the plugin gave id %q, which is that of volume %s", id, n)
		}
	}
	return nil
}

// Remove has the plugin delete the volume, if nothing of it is left on this node: there are plugins that delete what is in use.
func (d *Driver) Remove(ctx context.Context, name, uid string) error {
	return d.do(ctx, "remove", name, func() error {
		if _, ok, err := d.steps.Entry(name); err != nil || ok {
			if err == nil {
				err = fault.New(fault.Conflict, "it is mounted on this node, or its unmount has not ended")
			}
			return err
		}
		s, err := d.plugin.Session(ctx)
		if err != nil {
			return err
		}
		r, recorded, err := d.find(ctx, s, name)
		if fault.Is(err, fault.NotFound) && recorded {
			return errors.Join(err, d.names.Remove(name))
		}
		if err != nil {
			return err
		}
		if uid != "" && d.soleBook(s) && r.UID != uid {
			return fault.New(fault.Conflict, "it has uid %q, not %s", r.UID, uid)
		}
		if !s.Can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) {
			return fault.New(fault.Invalid, "plugin %s does not delete volumes", s.Name)
		}
		if err := d.noneBegun(name); err != nil {
			return err
		}
		return d.remove(ctx, s, r, recorded)
	})
}

func (d *Driver) remove(ctx context.Context, s *csiwire.Session, r csibook.Volume, recorded bool) error {
	if recorded {
		r.State = csibook.Deleting
		if err := d.names.Put(r.Name, r); err != nil {
			return err
		}
	}
	csistage.CrashAt("remove.intent")
	_, err := csiwire.Ask(ctx, d.plugin, d.o.CallLimit, "DeleteVolume", &spec.DeleteVolumeRequest{VolumeId: r.ID}, s.Controller.DeleteVolume, csiwire.Provision,
		func(q *spec.DeleteVolumeRequest, m map[string]string) { q.Secrets = m })
	if fault.Is(err, fault.NotFound) {
		err = nil
	}
	if err != nil {
		if recorded && !fault.Is(err, fault.Unknown) {
			r.State = csibook.There
			if perr := d.names.Put(r.Name, r); perr != nil {
				return fault.Op(err, "its record still says that it is being removed (%v)", perr)
			}
		}
		return err
	}
	csistage.CrashAt("remove.plugin")
	if err := d.names.Remove(r.Name); err != nil {
		return err
	}
	csistage.CrashAt("remove.done")
	return nil
}

// Adopt records an existing volume under a new uid.
func (d *Driver) Adopt(ctx context.Context, name, uid, cluster string) (driver.Info, error) {
	var info driver.Info
	err := d.do(ctx, "adopt", name, func() error {
		s, err := d.plugin.Session(ctx)
		if err != nil {
			return err
		}
		r, _, err := d.find(ctx, s, name)
		if err != nil {
			return err
		}
		if r.State != csibook.There {
			return fault.New(fault.Conflict, "it is being removed")
		}
		if d.soleBook(s) && r.UID != uid {
			r.UID, r.Cluster = uid, cluster
			if err := d.names.Put(name, r); err != nil {
				return err
			}
		}
		info = r.Info()
		return nil
	})
	return info, err
}

// List names the volumes: what the plugin lists where its ids are names, otherwise what is recorded, without what the plugin no longer lists.
func (d *Driver) List(ctx context.Context) ([]driver.Info, error) {
	s, err := d.plugin.Session(ctx)
	if err != nil {
		return nil, fault.Op(err, "list volumes of %s", d.o.Name)
	}
	canList := s.Can(spec.ControllerServiceCapability_RPC_LIST_VOLUMES)
	switch {
	case d.o.IDsAreNames && !canList:
		return nil, fault.New(fault.Invalid, "list volumes of %s: the plugin cannot list", d.o.Name)
	case !d.o.IDsAreNames && !d.soleBook(s):
		return nil, fault.New(fault.Invalid, "list volumes of %s: other nodes' volumes are not recorded here; give --csi names=DIR or ids=name", d.o.Name)
	}
	var known map[string]*spec.ListVolumesResponse_Entry
	if canList {
		if known, err = d.listAll(ctx, s); err != nil {
			return nil, fault.Op(err, "list volumes of %s", d.o.Name)
		}
	}
	var out []driver.Info
	names, err := d.names.All()
	if err != nil {
		return nil, fault.Op(err, "list volumes of %s", d.o.Name)
	}
	recorded := map[string]bool{}
	for _, n := range names {
		r, ok, err := d.record(n)
		_, listed := known[r.ID]
		if err == nil && ok && r.State != csibook.Creating && (listed || !canList) {
			recorded[n] = true
			if e, ok := known[r.ID]; ok {
				if err := r.Match(e.GetVolume(), e.GetStatus().GetVolumeCondition()); err != nil {
					return nil, fault.Op(err, "list volumes of %s", d.o.Name)
				}
			}
			out = append(out, r.Info())
		}
	}
	if d.o.IDsAreNames {
		for id, v := range known {
			if volume.CheckName(id) == nil && !recorded[id] {
				out = append(out, driver.Info{Name: id, Size: volume.Bytes(v.GetVolume().GetCapacityBytes())})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

const (
	maxVolumes = 100_000
	maxPages   = 10_000
)

// listAll gives all volumes of the plugin by id. A list that does not end, or says a thing twice, is no list.
func (d *Driver) listAll(ctx context.Context, s *csiwire.Session) (map[string]*spec.ListVolumesResponse_Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.LookLimit)
	defer cancel()
	out, token := map[string]*spec.ListVolumesResponse_Entry{}, ""
	for range maxPages {
		resp, err := csiwire.Ask(ctx, d.plugin, d.o.LookLimit, "ListVolumes", &spec.ListVolumesRequest{StartingToken: token}, s.Controller.ListVolumes, "", nil)
		if err != nil {
			return nil, notAbsent(err)
		}
		for _, e := range resp.GetEntries() {
			if _, err := csiwire.CheckVolume(e.GetVolume()); err != nil {
				return nil, fault.Op(err, "ListVolumes")
			}
			if out[e.GetVolume().GetVolumeId()] = e; len(out) > maxVolumes {
				return nil, fault.New(fault.Unknown, "ListVolumes: more than %d volumes", maxVolumes)
			}
		}
		if token = resp.GetNextToken(); token == "" {
			return out, nil
		}
	}
	return nil, fault.New(fault.Unknown, "ListVolumes: more than %d pages", maxPages)
}

// notAbsent keeps a failure to list from being taken for the absence of a volume.
func notAbsent(err error) error {
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.Unknown, err, "")
	}
	return err
}

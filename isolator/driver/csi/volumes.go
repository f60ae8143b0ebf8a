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
)

// maxName is the longest name that CreateVolume takes.
const maxName = 128

// The states of a record.
const (
	creating = "creating" // CreateVolume is about to be called, or was and nobody knows what it did
	there    = "there"
	deleting = "deleting"
)

// record is what is known of a volume beside the plugin.
type record struct {
	V        int                 `json:"v"`
	Name     string              `json:"name"`
	UID      string              `json:"uid,omitempty"`
	Cluster  string              `json:"cluster,omitempty"`
	State    string              `json:"state"`
	ID       string              `json:"id,omitempty"`
	Wish     wish                `json:"wish"`
	Capacity int64               `json:"capacity,omitempty"`
	Context  map[string]string   `json:"context,omitempty"`
	Topology []map[string]string `json:"topology,omitempty"`
	Created  time.Time           `json:"created,omitzero"`
	Node     string              `json:"node,omitempty"` // uid of the node that made it
}

func (r record) info() driver.Info {
	return driver.Info{Name: r.Name, UID: r.UID, Cluster: r.Cluster, Size: volume.Bytes(r.Capacity), Created: r.Created}
}

// take keeps what a reply says of the volume.
func (r *record) take(v *spec.Volume, accessible []map[string]string) {
	r.Capacity, r.Topology = v.GetCapacityBytes(), accessible
	if v.GetVolumeContext() != nil {
		r.Context = v.GetVolumeContext()
	}
}

// Get looks the name up in the records and asks the plugin whether the volume of that id exists.
func (d *Driver) Get(ctx context.Context, name string) (driver.Info, error) {
	var info driver.Info
	err := d.do(ctx, "get", name, func() error {
		s, err := d.plugin.session(ctx)
		if err != nil {
			return err
		}
		r, _, err := d.find(ctx, s, name)
		if err != nil {
			return err
		}
		info = r.info()
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
func (d *Driver) find(ctx context.Context, s *session, name string) (r record, recorded bool, err error) {
	r, recorded, err = d.record(name)
	switch {
	case err != nil:
		return r, false, err
	case !recorded && d.o.IDsAreNames:
		w, _ := parseWish(0, nil, d.o.FSType)
		r = record{V: 1, Name: name, State: there, ID: name, Wish: w}
		err = d.exists(ctx, s, &r)
		return r, false, err
	case !recorded && d.soleBook(s):
		return r, false, fault.New(fault.NotFound, "volume %s does not exist: nothing is recorded of it in %s", name, d.names.dir)
	case !recorded:
		return r, false, fault.New(fault.Unknown, "this node has no record of volume %s, and cannot ask the plugin for it by name: give --csi names=DIR (a directory that all nodes see) or ids=name", name)
	case r.State == creating && r.Node != d.o.Node:
		return r, true, fault.New(fault.Unknown, "node %s has begun to create it", r.Node)
	case r.State == creating:
		return r, true, d.finish(ctx, s, &r)
	}
	err = d.exists(ctx, s, &r)
	return r, true, err
}

// record reads a record and checks that it is of that volume.
func (d *Driver) record(name string) (record, bool, error) {
	r, ok, err := d.names.get(name)
	if err == nil && ok && (r.V != 1 || r.Name != name || (r.State != creating && r.ID == "")) {
		err = fault.New(fault.Conflict, "record %s is not one of volume %s", d.names.path(name), name)
	}
	return r, ok, err
}

// exists asks the plugin for a volume by its id and refreshes the record: by ControllerGetVolume, else by the whole list, else by
// ValidateVolumeCapabilities, which every controller has.
func (d *Driver) exists(ctx context.Context, s *session, r *record) error {
	switch {
	case s.can(spec.ControllerServiceCapability_RPC_GET_VOLUME):
		resp, err := ask(ctx, d.plugin, d.o.LookLimit, "ControllerGetVolume", &spec.ControllerGetVolumeRequest{VolumeId: r.ID}, s.controller.ControllerGetVolume, nil)
		if err != nil {
			return err
		}
		return r.match(resp.GetVolume())
	case s.can(spec.ControllerServiceCapability_RPC_LIST_VOLUMES):
		all, err := d.listAll(ctx, s)
		if err != nil {
			return err
		}
		if v, ok := all[r.ID]; ok {
			return r.match(v)
		}
		return fault.New(fault.NotFound, "the plugin lists no volume %s (id %s)", r.Name, r.ID)
	case s.can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME):
		_, err := ask(ctx, d.plugin, d.o.LookLimit, "ValidateVolumeCapabilities", &spec.ValidateVolumeCapabilitiesRequest{VolumeId: r.ID, VolumeContext: r.Context,
			VolumeCapabilities: []*spec.VolumeCapability{r.Wish.capability()}}, s.controller.ValidateVolumeCapabilities,
			func(q *spec.ValidateVolumeCapabilitiesRequest, m map[string]string) { q.Secrets = m })
		return err
	}
	return fault.New(fault.Unknown, "plugin %s has no controller service that could say whether volume %s exists", s.name, r.Name)
}

// match takes a volume that the plugin gave for this record's, if it is.
func (r *record) match(v *spec.Volume) error {
	accessible, err := checkVolume(v)
	if err != nil {
		return err
	}
	if v.GetVolumeId() != r.ID {
		return fault.New(fault.Unknown, "the plugin answered about volume id %.80q instead of %q", v.GetVolumeId(), r.ID)
	}
	r.take(v, accessible)
	return nil
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
	if w.Source != nil {
		return none, fault.New(fault.Invalid, "clones by CSI are not there yet")
	}
	if w.Owner != "" || w.Mode != "" {
		return none, fault.New(fault.Invalid, "a CSI plugin cannot set owner and mode")
	}
	if len(w.Name) > maxName {
		return none, fault.New(fault.Invalid, "a name of %d bytes is longer than the %d that CSI allows", len(w.Name), maxName)
	}
	want, err := parseWish(w.Size, w.Options, d.o.FSType)
	if err != nil {
		return none, err
	}
	s, err := d.plugin.session(ctx)
	if err != nil {
		return none, err
	}
	if !s.can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) {
		return none, fault.New(fault.Invalid, "plugin %s does not create volumes", s.name)
	}
	r, recorded, err := d.find(ctx, s, w.Name)
	switch {
	case err == nil:
		return d.sameAgain(r, w)
	case recorded && r.State == creating && w.UID != "" && r.UID == w.UID:
		// The same wish of another node, which did not get its answer.
		err := d.finish(ctx, s, &r)
		return r.info(), err
	case recorded && r.State == creating && r.Node != d.o.Node:
		return none, fault.Wrap(fault.Exists, err, "")
	case !fault.Is(err, fault.NotFound):
		return none, err
	case recorded:
		if err := d.names.remove(w.Name); err != nil {
			return none, err
		}
	}
	r = record{V: 1, Name: w.Name, UID: w.UID, Cluster: w.Cluster, State: creating, Wish: want, Created: time.Now().UTC(), Node: d.o.Node}
	if err := d.names.add(w.Name, r); err != nil {
		return none, err
	}
	crashAt("create.intent")
	if err := d.finish(ctx, s, &r); err != nil {
		return none, err
	}
	crashAt("create.done")
	return r.info(), nil
}

// sameAgain answers the wish for a volume that exists.
func (d *Driver) sameAgain(r record, w driver.Spec) (driver.Info, error) {
	switch {
	case r.State == deleting:
		return driver.Info{}, fault.New(fault.Conflict, "it is being removed")
	case w.UID != "" && r.UID == w.UID:
		return r.info(), nil
	}
	return driver.Info{}, fault.New(fault.Exists, "it exists with uid %q", r.UID)
}

// finish calls CreateVolume for a wish that is recorded, for the first time or again: the plugin goes by the name and makes only one. A refusal ends
// the wish; a lost reply leaves it for the next call.
func (d *Driver) finish(ctx context.Context, s *session, r *record) error {
	q := &spec.CreateVolumeRequest{Name: r.Name, VolumeCapabilities: []*spec.VolumeCapability{r.Wish.capability()}, Parameters: r.Wish.Parameters}
	if r.Wish.Size > 0 {
		q.CapacityRange = &spec.CapacityRange{RequiredBytes: int64(r.Wish.Size)}
	}
	if s.constrained && len(s.topology) > 0 {
		here := []*spec.Topology{{Segments: s.topology}}
		q.AccessibilityRequirements = &spec.TopologyRequirement{Requisite: here, Preferred: here}
	}
	resp, err := ask(ctx, d.plugin, d.o.CallLimit, "CreateVolume", q, s.controller.CreateVolume,
		func(q *spec.CreateVolumeRequest, m map[string]string) { q.Secrets = m })
	var word *said
	if errors.As(err, &word) && !fault.Is(err, fault.Unknown) {
		if rerr := d.names.remove(r.Name); rerr != nil {
			return fault.Wrap(fault.Unknown, err, "the record of it stays (%v)", rerr)
		}
		if fault.Is(err, fault.NotFound) { // of a source, not of the volume
			return fault.Wrap(fault.Invalid, err, "")
		}
	}
	if err != nil {
		return err
	}
	crashAt("create.plugin")
	return d.made(s, r, resp.GetVolume())
}

// made checks and records the volume that CreateVolume gave.
func (d *Driver) made(s *session, r *record, v *spec.Volume) error {
	accessible, err := checkVolume(v)
	if err == nil {
		err = checkSize(v.GetCapacityBytes(), r.Wish.Size)
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
	r.ID, r.State = v.GetVolumeId(), there
	r.take(v, accessible)
	if !d.soleBook(s) {
		r.UID, r.Cluster = "", "" // others may remove and make it again without this book's knowing
	}
	return d.names.put(r.Name, *r)
}

// checkUnique refuses an id that another volume has: two names for one storage would be mounted twice.
func (d *Driver) checkUnique(name, id string) error {
	names, err := d.names.all()
	if err != nil {
		return err
	}
	for _, n := range names {
		if n == name {
			continue
		}
		if other, ok, err := d.names.get(n); err != nil {
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
		if _, ok, err := d.ledger.get(name); err != nil || ok {
			if err == nil {
				err = fault.New(fault.Conflict, "it is mounted on this node, or its unmount has not ended")
			}
			return err
		}
		s, err := d.plugin.session(ctx)
		if err != nil {
			return err
		}
		r, recorded, err := d.find(ctx, s, name)
		if fault.Is(err, fault.NotFound) && recorded {
			return errors.Join(err, d.names.remove(name))
		}
		if err != nil {
			return err
		}
		if uid != "" && d.soleBook(s) && r.UID != uid {
			return fault.New(fault.Conflict, "it has uid %q, not %s", r.UID, uid)
		}
		if !s.can(spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME) {
			return fault.New(fault.Invalid, "plugin %s does not delete volumes", s.name)
		}
		return d.remove(ctx, s, r, recorded)
	})
}

func (d *Driver) remove(ctx context.Context, s *session, r record, recorded bool) error {
	if recorded {
		r.State = deleting
		if err := d.names.put(r.Name, r); err != nil {
			return err
		}
	}
	crashAt("remove.intent")
	_, err := ask(ctx, d.plugin, d.o.CallLimit, "DeleteVolume", &spec.DeleteVolumeRequest{VolumeId: r.ID}, s.controller.DeleteVolume,
		func(q *spec.DeleteVolumeRequest, m map[string]string) { q.Secrets = m })
	if fault.Is(err, fault.NotFound) {
		err = nil
	}
	if err != nil {
		if recorded && !fault.Is(err, fault.Unknown) {
			r.State = there
			if perr := d.names.put(r.Name, r); perr != nil {
				return fault.Op(err, "its record still says that it is being removed (%v)", perr)
			}
		}
		return err
	}
	crashAt("remove.plugin")
	if err := d.names.remove(r.Name); err != nil {
		return err
	}
	crashAt("remove.done")
	return nil
}

// Adopt records an existing volume under a new uid.
func (d *Driver) Adopt(ctx context.Context, name, uid, cluster string) (driver.Info, error) {
	var info driver.Info
	err := d.do(ctx, "adopt", name, func() error {
		s, err := d.plugin.session(ctx)
		if err != nil {
			return err
		}
		r, _, err := d.find(ctx, s, name)
		if err != nil {
			return err
		}
		if r.State != there {
			return fault.New(fault.Conflict, "it is being removed")
		}
		if d.soleBook(s) && r.UID != uid {
			r.UID, r.Cluster = uid, cluster
			if err := d.names.put(name, r); err != nil {
				return err
			}
		}
		info = r.info()
		return nil
	})
	return info, err
}

// List names the volumes: what the plugin lists where its ids are names, otherwise what is recorded, without what the plugin no longer lists.
func (d *Driver) List(ctx context.Context) ([]driver.Info, error) {
	s, err := d.plugin.session(ctx)
	if err != nil {
		return nil, fault.Op(err, "list volumes of %s", d.o.Name)
	}
	canList := s.can(spec.ControllerServiceCapability_RPC_LIST_VOLUMES)
	switch {
	case d.o.IDsAreNames && !canList:
		return nil, fault.New(fault.Invalid, "list volumes of %s: the plugin cannot list", d.o.Name)
	case !d.o.IDsAreNames && !d.soleBook(s):
		return nil, fault.New(fault.Invalid, "list volumes of %s: other nodes' volumes are not recorded here; give --csi names=DIR or ids=name", d.o.Name)
	}
	var known map[string]*spec.Volume
	if canList {
		if known, err = d.listAll(ctx, s); err != nil {
			return nil, fault.Op(err, "list volumes of %s", d.o.Name)
		}
	}
	var out []driver.Info
	names, err := d.names.all()
	if err != nil {
		return nil, fault.Op(err, "list volumes of %s", d.o.Name)
	}
	recorded := map[string]bool{}
	for _, n := range names {
		r, ok, err := d.record(n)
		_, listed := known[r.ID]
		if err == nil && ok && r.State != creating && (listed || !canList) {
			recorded[n] = true
			out = append(out, r.info())
		}
	}
	if d.o.IDsAreNames {
		for id, v := range known {
			if volume.CheckName(id) == nil && !recorded[id] {
				out = append(out, driver.Info{Name: id, Size: volume.Bytes(v.GetCapacityBytes())})
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
func (d *Driver) listAll(ctx context.Context, s *session) (map[string]*spec.Volume, error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.LookLimit)
	defer cancel()
	out, token := map[string]*spec.Volume{}, ""
	for range maxPages {
		resp, err := ask(ctx, d.plugin, d.o.LookLimit, "ListVolumes", &spec.ListVolumesRequest{StartingToken: token}, s.controller.ListVolumes, nil)
		if err != nil {
			return nil, notAbsent(err)
		}
		for _, e := range resp.GetEntries() {
			if _, err := checkVolume(e.GetVolume()); err != nil {
				return nil, fault.Op(err, "ListVolumes")
			}
			if out[e.GetVolume().GetVolumeId()] = e.GetVolume(); len(out) > maxVolumes {
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

// Condition gives what the plugin says of a volume's health; known is false when it says nothing. Plugins say abnormal also right after a good
// mount, so it is a word for people and stops nothing.
func (d *Driver) Condition(ctx context.Context, name string) (abnormal bool, message string, known bool, err error) {
	err = d.do(ctx, "condition of", name, func() error {
		s, err := d.plugin.session(ctx)
		if err != nil {
			return err
		}
		r, _, err := d.find(ctx, s, name)
		if err != nil {
			return err
		}
		c, err := d.condition(ctx, s, r)
		if c != nil {
			abnormal, message, known = c.GetAbnormal(), clean(c.GetMessage()), true
		}
		return err
	})
	return abnormal, message, known, err
}

func (d *Driver) condition(ctx context.Context, s *session, r record) (*spec.VolumeCondition, error) {
	at, err := d.o.isMount(d.WillMountAt(r.Name))
	if err != nil {
		return nil, err
	}
	switch {
	case at && s.nodal[spec.NodeServiceCapability_RPC_VOLUME_CONDITION] && s.nodal[spec.NodeServiceCapability_RPC_GET_VOLUME_STATS]:
		resp, err := ask(ctx, d.plugin, d.o.LookLimit, "NodeGetVolumeStats",
			&spec.NodeGetVolumeStatsRequest{VolumeId: r.ID, VolumePath: d.WillMountAt(r.Name)}, s.node.NodeGetVolumeStats, nil)
		return resp.GetVolumeCondition(), err
	case s.can(spec.ControllerServiceCapability_RPC_VOLUME_CONDITION, spec.ControllerServiceCapability_RPC_GET_VOLUME):
		resp, err := ask(ctx, d.plugin, d.o.LookLimit, "ControllerGetVolume", &spec.ControllerGetVolumeRequest{VolumeId: r.ID}, s.controller.ControllerGetVolume, nil)
		return resp.GetStatus().GetVolumeCondition(), err
	}
	return nil, nil
}

package csi

import (
	"context"
	"errors"
	"os"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// entry is the ledger's word on one volume on this node. Attach, Stage and Publish say what has been begun and must be undone; each is
// written before its call is made, and taken back after the call that undoes it.
type entry struct {
	V              int               `json:"v"`
	Name           string            `json:"name"`
	ID             string            `json:"id"`
	UID            string            `json:"uid,omitempty"`
	MountID        string            `json:"mountId"`
	Boot           string            `json:"boot"`
	NodeID         string            `json:"nodeId"` // the plugin's id of this node
	Wish           wish              `json:"wish"`
	Context        map[string]string `json:"context,omitempty"`
	PublishContext map[string]string `json:"publishContext,omitempty"`
	Attach         bool              `json:"attach,omitempty"`
	Stage          bool              `json:"stage,omitempty"`
	Publish        bool              `json:"publish,omitempty"`
	Mounted        bool              `json:"mounted,omitempty"` // all of it was done and seen
	At             time.Time         `json:"at"`
}

// Mount attaches, stages and publishes a volume, as far as the plugin wants these steps. After an error the ledger keeps what was begun, for
// Unmount to undo or Mount to repeat.
func (d *Driver) Mount(ctx context.Context, m driver.MountSpec) (string, error) {
	err := d.do(ctx, "mount", m.Name, func() error {
		s, err := d.plugin.session(ctx)
		if err != nil {
			return err
		}
		e, done, err := d.begun(ctx, s, m)
		if err != nil || done {
			return err
		}
		r, recorded, err := d.find(ctx, s, m.Name)
		if err == nil && !recorded { // somebody else made it: the mount's own options say how it is used
			r.Wish, err = parseWish(0, m.Options, d.o.FSType)
		}
		if err != nil {
			return err
		}
		if err := d.mayMount(s, r, m); err != nil {
			return err
		}
		e.V, e.Name, e.ID, e.UID, e.MountID, e.Boot, e.NodeID, e.Wish, e.Context = 1, m.Name, r.ID, m.UID, m.ID, d.o.BootID, s.nodeID, r.Wish, r.Context
		return d.up(ctx, s, &e)
	})
	if err != nil {
		return "", err
	}
	return d.WillMountAt(m.Name), nil
}

// begun looks at what the ledger has of the volume: done when it is mounted for the same id; what was left of another id is undone first.
func (d *Driver) begun(ctx context.Context, s *session, m driver.MountSpec) (e entry, done bool, err error) {
	e, ok, err := d.entry(m.Name)
	if err != nil || !ok {
		return entry{}, false, err
	}
	at, err := d.o.isMount(d.WillMountAt(m.Name))
	if err != nil {
		return e, false, err
	}
	same := e.MountID == m.ID && e.Boot == d.o.BootID && e.NodeID == s.nodeID
	switch {
	case same && e.Mounted && at:
		if m.UID != "" && e.UID != "" && e.UID != m.UID {
			return e, false, fault.New(fault.Conflict, "it is mounted as the one with uid %s", e.UID)
		}
		return e, true, nil
	case same:
		return e, false, nil
	case at && e.Boot == d.o.BootID:
		return e, false, fault.New(fault.Conflict, "it is mounted here for %s", e.MountID)
	}
	return entry{}, false, d.down(ctx, s, &e)
}

func (d *Driver) entry(name string) (entry, bool, error) {
	e, ok, err := d.ledger.get(name)
	if err == nil && ok && (e.V != 1 || e.Name != name || e.ID == "") {
		err = fault.New(fault.Conflict, "ledger %s is not of volume %s", d.ledger.path(name), name)
	}
	return e, ok, err
}

func (d *Driver) mayMount(s *session, r record, m driver.MountSpec) error {
	switch {
	case r.State == deleting:
		return fault.New(fault.Conflict, "it is being removed")
	case m.UID != "" && d.soleBook(s) && r.UID != m.UID:
		return fault.New(fault.Conflict, "the volume there has uid %q, not %s", r.UID, m.UID)
	case !s.reaches(r.Topology):
		return fault.New(fault.Conflict, "it cannot be reached from this node: it is at %v, the node at %v", r.Topology, s.topology)
	}
	return nil
}

// note writes the ledger before what it says is begun.
func (d *Driver) note(e *entry) error {
	e.At = time.Now().UTC()
	return d.ledger.put(e.Name, *e)
}

// up does all steps. Each may have been done before.
func (d *Driver) up(ctx context.Context, s *session, e *entry) error {
	e.Mounted = false
	if s.can(spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) {
		if err := d.attach(ctx, s, e); err != nil {
			return err
		}
	}
	if s.nodal[spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		if err := d.stage(ctx, s, e); err != nil {
			return err
		}
	}
	err := d.publish(ctx, s, e)
	var word *said
	if e.Stage && errors.As(err, &word) && fault.Is(err, fault.Conflict) {
		// A plugin that was started again may have forgotten the stage that was just there.
		if err = d.stage(ctx, s, e); err == nil {
			err = d.publish(ctx, s, e)
		}
	}
	if err != nil {
		return err
	}
	e.Mounted = true
	return d.note(e)
}

func (d *Driver) attach(ctx context.Context, s *session, e *entry) error {
	e.Attach = true
	if err := d.note(e); err != nil {
		return err
	}
	crashAt("mount.attach")
	resp, err := ask(ctx, d.plugin, d.o.CallLimit, "ControllerPublishVolume", &spec.ControllerPublishVolumeRequest{VolumeId: e.ID, NodeId: e.NodeID,
		VolumeCapability: e.Wish.capability(), VolumeContext: e.Context}, s.controller.ControllerPublishVolume,
		func(q *spec.ControllerPublishVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	crashAt("mount.attached")
	e.PublishContext = resp.GetPublishContext()
	return fault.Op(checkContext("publish context", e.PublishContext), "ControllerPublishVolume")
}

func (d *Driver) stage(ctx context.Context, s *session, e *entry) error {
	e.Stage = true
	if err := d.note(e); err != nil {
		return err
	}
	if err := os.Mkdir(d.stagingAt(e.Name), 0o750); err != nil && !os.IsExist(err) {
		return fault.Wrap(fault.Unavailable, err, "make its staging directory")
	}
	crashAt("mount.stage")
	_, err := ask(ctx, d.plugin, d.o.CallLimit, "NodeStageVolume", &spec.NodeStageVolumeRequest{VolumeId: e.ID, PublishContext: e.PublishContext,
		StagingTargetPath: d.stagingAt(e.Name), VolumeCapability: e.Wish.capability(), VolumeContext: e.Context}, s.node.NodeStageVolume,
		func(q *spec.NodeStageVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	crashAt("mount.staged")
	return nil
}

func (d *Driver) publish(ctx context.Context, s *session, e *entry) error {
	e.Publish = true
	if err := d.note(e); err != nil {
		return err
	}
	crashAt("mount.publish")
	q := &spec.NodePublishVolumeRequest{VolumeId: e.ID, PublishContext: e.PublishContext, TargetPath: d.WillMountAt(e.Name),
		VolumeCapability: e.Wish.capability(), VolumeContext: e.Context, Readonly: e.Wish.readOnly()}
	if e.Stage {
		q.StagingTargetPath = d.stagingAt(e.Name)
	}
	_, err := ask(ctx, d.plugin, d.o.CallLimit, "NodePublishVolume", q, s.node.NodePublishVolume,
		func(q *spec.NodePublishVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	crashAt("mount.published")
	at, err := d.o.isMount(q.TargetPath)
	if err == nil && !at {
		// What a task wrote there would be on the node's own disk.
		err = fault.New(fault.Unknown, "NodePublishVolume: the plugin says that it is done, but nothing is mounted at %s", q.TargetPath)
	}
	return err
}

// Unmount undoes what the ledger says was begun for that id.
func (d *Driver) Unmount(ctx context.Context, name, id string) error {
	return d.do(ctx, "unmount", name, func() error {
		e, ok, err := d.entry(name)
		if err != nil {
			return err
		}
		if !ok {
			if e, ok, err = d.unwritten(name); err != nil || !ok {
				return err
			}
		} else if e.MountID != id {
			return nil // what is up belongs to another
		}
		s, err := d.plugin.session(ctx)
		if err != nil {
			return err
		}
		return d.down(ctx, s, &e)
	})
}

// unwritten makes up the ledger of a volume that is mounted without one: somebody has lost this node's state. Nothing mounted is the usual case.
func (d *Driver) unwritten(name string) (entry, bool, error) {
	at, err := d.o.isMount(d.WillMountAt(name))
	if err != nil || !at {
		return entry{}, false, err
	}
	r, ok, err := d.record(name)
	if err != nil {
		return entry{}, false, err
	}
	id := r.ID
	if !ok && d.o.IDsAreNames {
		id = name
	}
	if id == "" {
		return entry{}, false, fault.New(fault.Unknown, "something is mounted at %s, of which neither ledger nor records say anything", d.WillMountAt(name))
	}
	return entry{V: 1, Name: name, ID: id, Boot: d.o.BootID, Attach: true, Stage: true, Publish: true}, true, nil
}

// down undoes in the order that plugins insist on: unpublish, unstage, detach. After each call mountinfo is asked too.
func (d *Driver) down(ctx context.Context, s *session, e *entry) error {
	e.Mounted = false
	if e.Publish {
		if err := d.unpublish(ctx, s, e); err != nil {
			return err
		}
	}
	if e.Stage && s.nodal[spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		if err := d.unstage(ctx, s, e); err != nil {
			return err
		}
	}
	if e.Attach && s.can(spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) {
		if err := d.detach(ctx, s, e); err != nil {
			return err
		}
	}
	if err := d.ledger.remove(e.Name); err != nil {
		return err
	}
	crashAt("unmount.done")
	return nil
}

func (d *Driver) unpublish(ctx context.Context, s *session, e *entry) error {
	target := d.WillMountAt(e.Name)
	_, err := ask(ctx, d.plugin, d.o.CallLimit, "NodeUnpublishVolume", &spec.NodeUnpublishVolumeRequest{VolumeId: e.ID, TargetPath: target}, s.node.NodeUnpublishVolume, nil)
	if err := d.undone("NodeUnpublishVolume", err, target); err != nil {
		return err
	}
	crashAt("unmount.unpublished")
	e.Publish = false
	return d.note(e)
}

func (d *Driver) unstage(ctx context.Context, s *session, e *entry) error {
	crashAt("unmount.unstage")
	staging := d.stagingAt(e.Name)
	_, err := ask(ctx, d.plugin, d.o.CallLimit, "NodeUnstageVolume", &spec.NodeUnstageVolumeRequest{VolumeId: e.ID, StagingTargetPath: staging}, s.node.NodeUnstageVolume, nil)
	if err := d.undone("NodeUnstageVolume", err, staging); err != nil {
		return err
	}
	crashAt("unmount.unstaged")
	e.Stage = false
	return d.note(e)
}

func (d *Driver) detach(ctx context.Context, s *session, e *entry) error {
	crashAt("unmount.detach")
	node := e.NodeID
	if node == "" {
		node = s.nodeID
	}
	_, err := ask(ctx, d.plugin, d.o.CallLimit, "ControllerUnpublishVolume", &spec.ControllerUnpublishVolumeRequest{VolumeId: e.ID, NodeId: node},
		s.controller.ControllerUnpublishVolume, func(q *spec.ControllerUnpublishVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	crashAt("unmount.detached")
	return nil
}

// undone judges the end of a mount: a plugin that knows no such volume, as one that was started again may, is believed only as far as
// mountinfo agrees, and so is one that says that it is done.
func (d *Driver) undone(method string, err error, path string) error {
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	at, merr := d.o.isMount(path)
	switch {
	case merr != nil:
		return merr
	case at && err != nil:
		return fault.Wrap(fault.Unknown, err, "%s is still a mount point", path)
	case at:
		return fault.New(fault.Unknown, "%s: the plugin says that it is done, but %s is still a mount point", method, path)
	}
	_ = os.Remove(path) // an empty directory, if the plugin has left it
	return nil
}

// Path gives the mount point while something is mounted there.
func (d *Driver) Path(_ context.Context, name string) (string, error) {
	if err := volume.CheckName(name); err != nil {
		return "", err
	}
	return d.pathOf(name)
}

func (d *Driver) pathOf(name string) (string, error) {
	at, err := d.o.isMount(d.WillMountAt(name))
	if err != nil || !at {
		return "", err
	}
	return d.WillMountAt(name), nil
}

// unfinished is how long a ledger entry without a mount may wait for whoever began it.
const unfinished = time.Minute

// Sweep undoes what an earlier boot, or a mount that nobody came back to, has left attached or staged.
func (d *Driver) Sweep(ctx context.Context, _ time.Time) error {
	names, err := d.ledger.all()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, d.do(ctx, "sweep", name, func() error { return d.sweep(ctx, name) }))
	}
	return errors.Join(errs...)
}

func (d *Driver) sweep(ctx context.Context, name string) error {
	e, ok, err := d.entry(name)
	if err != nil || !ok {
		return err
	}
	at, err := d.o.isMount(d.WillMountAt(name))
	if err != nil || at || (e.Boot == d.o.BootID && time.Since(e.At) < unfinished) {
		return err
	}
	s, err := d.plugin.session(ctx)
	if err != nil {
		return err
	}
	d.o.Log.Info("csi: undoing what was left", zap.String("driver", d.o.Name), zap.String("volume", name), zap.Bool("attached", e.Attach), zap.Bool("staged", e.Stage))
	return d.down(ctx, s, &e)
}

// Package csistage takes a CSI volume through the steps that make it appear on this node (attach, stage, publish) and back, with a ledger: how far
// the mount of a volume has been begun is written and synced before each step, and taken back after the call that undoes it. After a kill
// or a lost reply the calls that the ledger names are made again, which CSI requires to be harmless; nothing is taken for undone before the plugin and
// mountinfo both say so.
package csistage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver/csibook"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// Entry is the ledger's word on one volume on this node. Attach, Stage and Publish say what has been begun and must be undone.
type Entry struct {
	V              int               `json:"v"`
	Name           string            `json:"name"`
	ID             string            `json:"id"`
	UID            string            `json:"uid,omitempty"`
	MountID        string            `json:"mountId"`
	Boot           string            `json:"boot"`
	NodeID         string            `json:"nodeId"` // the plugin's id of this node
	Wish           csibook.Wish      `json:"wish"`
	Context        map[string]string `json:"context,omitempty"`
	PublishContext map[string]string `json:"publishContext,omitempty"`
	Attach         bool              `json:"attach,omitempty"`
	Stage          bool              `json:"stage,omitempty"`
	Publish        bool              `json:"publish,omitempty"`
	Mounted        bool              `json:"mounted,omitempty"` // all of it was done and seen
	At             time.Time         `json:"at"`
}

// Steps does and undoes. Its caller orders the operations on one volume.
type Steps struct {
	Plugin  *csiwire.Plugin
	Limit   time.Duration // of one call
	Ledger  csibook.Store[Entry]
	Staging string                          // directory of the staging mounts
	Target  func(name string) string        // where a volume is published
	IsMount func(path string) (bool, error) // whether something is mounted there
}

// Entry reads the ledger of a volume; ok is false when nothing has been begun.
func (t *Steps) Entry(name string) (Entry, bool, error) {
	e, ok, err := t.Ledger.Get(name)
	if err == nil && ok && (e.V != 1 || e.Name != name || e.ID == "") {
		err = fault.New(fault.Conflict, "ledger %s is not of volume %s", t.Ledger.Path(name), name)
	}
	return e, ok, err
}

// StagingAt gives the path where a volume is staged.
func (t *Steps) StagingAt(name string) string { return filepath.Join(t.Staging, name) }

// note writes the ledger before what it says is begun.
func (t *Steps) note(e *Entry) error {
	e.At = time.Now().UTC()
	return t.Ledger.Put(e.Name, *e)
}

// Up does all steps that the plugin has. Each may have been done before. After an error the ledger keeps what was begun.
func (t *Steps) Up(ctx context.Context, s *csiwire.Session, e *Entry) error {
	e.Mounted = false
	if s.Can(spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) {
		if err := t.attach(ctx, s, e); err != nil {
			return err
		}
	}
	if s.CanNode(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		if err := t.stage(ctx, s, e); err != nil {
			return err
		}
	}
	err := t.publish(ctx, s, e)
	var word *csiwire.Said
	if e.Stage && errors.As(err, &word) && fault.Is(err, fault.Conflict) {
		// A plugin that was started again may have forgotten the stage that was just there.
		if err = t.stage(ctx, s, e); err == nil {
			err = t.publish(ctx, s, e)
		}
	}
	if err != nil {
		return err
	}
	e.Mounted = true
	return t.note(e)
}

func (t *Steps) attach(ctx context.Context, s *csiwire.Session, e *Entry) error {
	e.Attach = true
	if err := t.note(e); err != nil {
		return err
	}
	CrashAt("mount.attach")
	q := &spec.ControllerPublishVolumeRequest{VolumeId: e.ID, NodeId: e.NodeID, VolumeCapability: e.Wish.Capability(), VolumeContext: e.Context,
		Readonly: e.Wish.ReadOnly() && s.Can(spec.ControllerServiceCapability_RPC_PUBLISH_READONLY)}
	resp, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "ControllerPublishVolume", q, s.Controller.ControllerPublishVolume, csiwire.Attach,
		func(q *spec.ControllerPublishVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	CrashAt("mount.attached")
	e.PublishContext = resp.GetPublishContext()
	return fault.Op(csiwire.CheckContext("publish context", e.PublishContext), "ControllerPublishVolume")
}

func (t *Steps) stage(ctx context.Context, s *csiwire.Session, e *Entry) error {
	e.Stage = true
	if err := t.note(e); err != nil {
		return err
	}
	if err := os.Mkdir(t.StagingAt(e.Name), 0o750); err != nil && !os.IsExist(err) {
		return fault.Wrap(fault.Unavailable, err, "make its staging directory")
	}
	CrashAt("mount.stage")
	_, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "NodeStageVolume", &spec.NodeStageVolumeRequest{VolumeId: e.ID, PublishContext: e.PublishContext,
		StagingTargetPath: t.StagingAt(e.Name), VolumeCapability: e.Wish.Capability(), VolumeContext: e.Context}, s.Node.NodeStageVolume, csiwire.NodeStage,
		func(q *spec.NodeStageVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	CrashAt("mount.staged")
	return nil
}

func (t *Steps) publish(ctx context.Context, s *csiwire.Session, e *Entry) error {
	e.Publish = true
	if err := t.note(e); err != nil {
		return err
	}
	CrashAt("mount.publish")
	q := &spec.NodePublishVolumeRequest{VolumeId: e.ID, PublishContext: e.PublishContext, TargetPath: t.Target(e.Name),
		VolumeCapability: e.Wish.Capability(), VolumeContext: e.Context, Readonly: e.Wish.ReadOnly()}
	if e.Stage {
		q.StagingTargetPath = t.StagingAt(e.Name)
	}
	_, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "NodePublishVolume", q, s.Node.NodePublishVolume, csiwire.NodePublish,
		func(q *spec.NodePublishVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	CrashAt("mount.published")
	at, err := t.IsMount(q.TargetPath)
	if err == nil && !at {
		// What a task wrote there would be on the node's own disk.
		err = fault.New(fault.Unknown, "NodePublishVolume: the plugin says that it is done, but nothing is mounted at %s", q.TargetPath)
	}
	return err
}

// Down undoes in the order that plugins insist on: unpublish, unstage, detach. After each call mountinfo is asked too.
func (t *Steps) Down(ctx context.Context, s *csiwire.Session, e *Entry) error {
	e.Mounted = false
	if e.Publish {
		if err := t.unpublish(ctx, s, e); err != nil {
			return err
		}
	}
	if e.Stage && s.CanNode(spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		if err := t.unstage(ctx, s, e); err != nil {
			return err
		}
	}
	if e.Attach && s.Can(spec.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME) {
		if err := t.detach(ctx, s, e); err != nil {
			return err
		}
	}
	if err := t.Ledger.Remove(e.Name); err != nil {
		return err
	}
	CrashAt("unmount.done")
	return nil
}

func (t *Steps) unpublish(ctx context.Context, s *csiwire.Session, e *Entry) error {
	target := t.Target(e.Name)
	_, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "NodeUnpublishVolume", &spec.NodeUnpublishVolumeRequest{VolumeId: e.ID, TargetPath: target}, s.Node.NodeUnpublishVolume, "", nil)
	if err := t.undone("NodeUnpublishVolume", err, target); err != nil {
		return err
	}
	CrashAt("unmount.unpublished")
	e.Publish = false
	return t.note(e)
}

func (t *Steps) unstage(ctx context.Context, s *csiwire.Session, e *Entry) error {
	CrashAt("unmount.unstage")
	staging := t.StagingAt(e.Name)
	_, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "NodeUnstageVolume", &spec.NodeUnstageVolumeRequest{VolumeId: e.ID, StagingTargetPath: staging}, s.Node.NodeUnstageVolume, "", nil)
	if err := t.undone("NodeUnstageVolume", err, staging); err != nil {
		return err
	}
	CrashAt("unmount.unstaged")
	e.Stage = false
	return t.note(e)
}

func (t *Steps) detach(ctx context.Context, s *csiwire.Session, e *Entry) error {
	CrashAt("unmount.detach")
	node := e.NodeID
	if node == "" {
		node = s.NodeID
	}
	_, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "ControllerUnpublishVolume", &spec.ControllerUnpublishVolumeRequest{VolumeId: e.ID, NodeId: node},
		s.Controller.ControllerUnpublishVolume, csiwire.Attach, func(q *spec.ControllerUnpublishVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	CrashAt("unmount.detached")
	return nil
}

// undone judges the end of a mount: a plugin that knows no such volume, as one that was started again may, is believed only as far as
// mountinfo agrees, and so is one that says that it is done.
func (t *Steps) undone(method string, err error, path string) error {
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	at, merr := t.IsMount(path)
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

// Expand has the node grow what lies on a volume that is up: size is what the volume has.
func (t *Steps) Expand(ctx context.Context, s *csiwire.Session, e Entry, size int64) error {
	q := &spec.NodeExpandVolumeRequest{VolumeId: e.ID, VolumePath: t.Target(e.Name), CapacityRange: &spec.CapacityRange{RequiredBytes: size}, VolumeCapability: e.Wish.Capability()}
	if e.Stage {
		q.StagingTargetPath = t.StagingAt(e.Name)
	}
	resp, err := csiwire.Ask(ctx, t.Plugin, t.Limit, "NodeExpandVolume", q, s.Node.NodeExpandVolume, csiwire.NodeExpand,
		func(q *spec.NodeExpandVolumeRequest, m map[string]string) { q.Secrets = m })
	if err != nil {
		return err
	}
	if got := resp.GetCapacityBytes(); got < 0 || got > 0 && got < size {
		return fault.New(fault.Unknown, "NodeExpandVolume: the plugin says that it has %d bytes now, asked for were %d", got, size)
	}
	return nil
}

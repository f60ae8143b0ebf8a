package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Pauses between attempts to create or remove a volume.
const (
	volumeRetryMin  = time.Second
	volumeRetryMax  = time.Minute
	volumeRetrySlow = time.Minute      // after a refusal that repeating will hardly change
	requestRetry    = 30 * time.Second // a request without an answer is made again, under the same id
)

// refOf is the volume that an instance's mount means.
func refOf(m *state.Mount, ordinal int) volume.Ref {
	return volume.Ref{Driver: m.Driver, Name: volume.NameFor(m.Pattern, ordinal, m.Shared)}
}

// volumesFor gives the volumes of an instance's next run in the order of its external mounts; nil where none is recorded.
func (w *work) volumesFor(i *state.Instance) []*state.Volume {
	spec := w.spec(i.App, i.Version)
	var list []*state.Volume
	for n := range spec.Volumes {
		if m := &spec.Volumes[n]; m.Kind == state.MountExternal {
			list = append(list, w.volumeByRef(refOf(m, i.Ordinal)))
		}
	}
	return list
}

// recordVolumes sees to it that each volume of an instance is recorded. One that was there before, from an earlier life of the
// instance, is found by its name.
func (w *work) recordVolumes(i *state.Instance) {
	spec := w.spec(i.App, i.Version)
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountExternal {
			continue
		}
		ref := refOf(m, i.Ordinal)
		if v := w.volumeByRef(ref); v != nil {
			w.fillAdopted(v, m, spec.User)
			w.takeUnowned(w.volumeByRef(ref), i, m)
			continue
		}
		v := &state.Volume{
			UID: state.VolumeUID(w.uuid7()), Ref: ref, App: i.App, Instance: i.ID, Size: m.Size, Options: maps.Clone(m.Options), Encrypt: m.Encrypt,
			Class: m.Class, Shared: m.Shared, User: spec.User, Policy: m.Policy, Source: w.sourceOf(m, i.Ordinal), Phase: state.VolumePlanned, CreatedAt: w.now,
		}
		if m.Shared {
			v.Instance = ""
		}
		if v.Policy == "" {
			v.Policy = w.env.Config.DefaultPolicy
		}
		w.putVolume(v)
	}
}

// takeUnowned gives a volume that belongs to no app (a clone, a restored one) to the first that names it.
func (w *work) takeUnowned(v *state.Volume, i *state.Instance, m *state.Mount) {
	if v.App != "" || v.Shared != m.Shared || v.Phase == state.VolumeRemoving {
		return
	}
	c := *v
	c.App, c.Instance = i.App, i.ID
	if m.Shared {
		c.Instance = ""
	}
	if m.Policy != "" {
		c.Policy = m.Policy
	}
	w.putVolume(&c)
}

// volumeState tells what keeps a volume from being used: code "" and text "" when it can be; create when it is to be created first.
func (w *work) volumeState(v *state.Volume) (create bool, text string, until time.Time) {
	switch {
	case v == nil:
		return false, "not recorded yet", until
	case v.Phase == state.VolumeReady:
		return false, "", until
	case v.Phase == state.VolumeCreating && v.MadeBy != "":
		return false, fmt.Sprintf("volume %s is being made by operation %s", v.Ref, v.MadeBy), until
	case v.Phase == state.VolumeCreating:
		return false, fmt.Sprintf("volume %s is being created on node %s", v.Ref, w.nodeName(v.Node)), until
	case v.Phase == state.VolumeRemoving:
		return false, fmt.Sprintf("volume %s is being removed", v.Ref), until
	case v.RetryAt.After(w.now):
		return false, fmt.Sprintf("volume %s could not be created: %s", v.Ref, v.Error), v.RetryAt
	}
	return true, "", until
}

// create asks a node to create or adopt a volume. The request's id is committed before the request is made.
func (w *work) create(v *state.Volume, node state.NodeUID) {
	c := *v
	c.Phase, c.Node, c.Op, c.RetryAt = state.VolumeCreating, node, w.uuid(), w.now.Add(requestRetry)
	c.Attempts++
	w.putVolume(&c)
	w.authority(CreateVolume{Op: c.Op, Node: node, Volume: &c})
}

func (w *work) requestResult(e RequestResult) {
	// The request's record goes after the commit of what it came to; one that nobody waits for any more goes too.
	w.authority(ForgetRequest{Op: e.Op, Node: e.Node})
	if w.operationResult(e) {
		return
	}
	v := w.volumeByOp(e.Op)
	if v == nil || v.UID != e.Volume {
		return
	}
	if v.Phase == state.VolumeRemoving {
		w.removeResult(v, e)
		return
	}
	c := *v
	c.Op, c.RetryAt = "", time.Time{}
	switch {
	case e.OK:
		c.Phase, c.Adopted, c.Scope, c.Error, c.Attempts = state.VolumeReady, e.Outcome == "adopted", e.Scope, "", 0
		if e.Node != "" {
			c.Node = e.Node
		}
		if e.Scope != "node" && e.Scope != "zone" {
			c.Node = ""
		}
	case e.Gone:
		// Whether it was created is unknown: the next node looks first.
		c.Phase = state.VolumePlanned
		c.Error = fmt.Sprintf("node %s went away before it answered", w.nodeName(v.Node))
	case slices.Contains([]fault.Class{fault.Invalid, fault.Conflict, fault.Exists, fault.Denied}, fault.Class(e.Class)):
		c.Phase, c.Error, c.RetryAt = state.VolumeFailed, e.Error, w.now.Add(volumeRetrySlow)
	default:
		c.Phase, c.Error = state.VolumePlanned, e.Error
		c.RetryAt = w.now.Add(min(volumeRetryMin<<min(v.Attempts, 10), volumeRetryMax))
	}
	w.putVolume(&c)
	w.touchUsers(&c)
}

// touchUsers looks again at the instances that wait for a volume.
func (w *work) touchUsers(v *state.Volume) {
	if !v.Shared {
		w.instances.add(v.Instance)
		return
	}
	for _, app := range w.sharers(v) {
		for _, i := range w.s.InstancesOf(app) {
			if i.Phase == state.PhasePreparing || i.Phase == state.PhaseWaiting {
				w.instances.add(i.ID)
			}
		}
	}
}

// sharers gives the apps that use a shared volume, sorted. It costs as much as there are apps; shared volumes change seldom.
func (w *work) sharers(v *state.Volume) (apps []state.AppID) {
	for _, id := range sortedKeys(w.s.Apps) {
		a := w.app(id)
		if a == nil || a.Removed {
			continue
		}
		if slices.ContainsFunc(w.versionsOf(a), func(version string) bool {
			return slices.ContainsFunc(externals(w.spec(id, version)), func(m *state.Mount) bool { return m.Shared && refOf(m, 0) == v.Ref })
		}) {
			apps = append(apps, id)
		}
	}
	return apps
}

// versionsOf gives the definitions that an app wants, and those that its instances still have.
func (w *work) versionsOf(a *state.App) []string {
	list := []string{a.Version}
	if a.Base != "" {
		list = append(list, a.Base)
	}
	st := w.statsOf(a.ID)
	list = append(list, sortedKeys(st.Versions)...)
	if st.Paused+st.Stopping > 0 {
		for _, i := range w.instancesOf(a.ID) {
			list = append(list, i.Version)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// ask makes the request that a volume waits for, again. Asking twice is asking once: its id is the same.
func (w *work) ask(v *state.Volume) {
	if v.Phase == state.VolumeRemoving {
		w.authority(RemoveVolumeData{Op: v.Op, Node: v.Node, Volume: v})
		return
	}
	w.authority(CreateVolume{Op: v.Op, Node: v.Node, Volume: v})
}

// volumeDue: the pause after a failed attempt is over, or a request is without an answer.
func (w *work) volumeDue(v *state.Volume) {
	if v == nil {
		return
	}
	c := *v
	if c.Op != "" {
		c.RetryAt = w.now.Add(requestRetry)
		w.putVolume(&c)
		w.ask(&c)
		return
	}
	c.RetryAt = time.Time{}
	w.putVolume(&c)
	if c.Phase == state.VolumeRemoving {
		w.tryRemove(&c)
		return
	}
	w.touchUsers(&c)
}

// beginRemove commits the intent that a person had to delete a volume and its data.
func (w *work) beginRemove(v *state.Volume) {
	if v.Phase == state.VolumePlanned && v.Attempts == 0 {
		w.remove(state.KindVolume, string(v.UID)) // nobody was ever asked to create it
		return
	}
	if v.Phase == state.VolumeCreating && v.Op != "" {
		w.authority(ForgetRequest{Op: v.Op, Node: v.Node})
	}
	c := *v
	c.Phase, c.Op, c.RetryAt, c.Error, c.Attempts = state.VolumeRemoving, "", time.Time{}, "", 0
	w.putVolume(&c)
	w.tryRemove(&c)
}

// tryRemove asks a node to delete the data, once the claim is free.
func (w *work) tryRemove(v *state.Volume) {
	if v.Op != "" || v.RetryAt.After(w.now) {
		return
	}
	c := *v
	switch cl := w.claim(v.UID); {
	case !w.session().AuthoritySeen:
		c.Error, c.RetryAt = "the lease authority was not read yet", w.now.Add(volumeRetryMin)
	case cl != nil && cl.State == state.ClaimGranted:
		w.authority(CancelGrant{Volume: v.UID, Epoch: cl.Epoch, Nonce: cl.Nonce})
		c.Error, c.RetryAt = "its claim is granted and being cancelled", w.now.Add(claimRetry)
	case cl != nil && cl.State == state.ClaimHeld:
		c.Error = fmt.Sprintf("its claim is held by node %s", w.nodeName(cl.Node)) // ClaimsSeen brings us back
	default:
		node := w.nodeFor(v)
		if node == "" {
			c.Error, c.RetryAt = fmt.Sprintf("no node with driver %s is there to remove it", v.Ref.Driver), w.now.Add(claimRetry)
			break
		}
		c.Node, c.Op, c.Error, c.RetryAt = node, w.uuid(), "", w.now.Add(requestRetry)
		c.Attempts++
		w.authority(RemoveVolumeData{Op: c.Op, Node: node, Volume: &c})
	}
	w.putVolume(&c)
}

func (w *work) removeResult(v *state.Volume, e RequestResult) {
	if e.OK {
		w.remove(state.KindVolume, string(v.UID))
		w.touchUsers(v)
		return
	}
	c := *v
	c.Op, c.Error = "", e.Error
	c.RetryAt = w.now.Add(min(volumeRetryMin<<min(v.Attempts, 10), volumeRetryMax))
	w.putVolume(&c)
}

// nodeFor picks a node that can reach a volume: the one it is pinned to, else the first by host name.
func (w *work) nodeFor(v *state.Volume) state.NodeUID {
	var best *state.Node
	for _, uid := range sortedKeys(w.s.Nodes) {
		n := w.node(uid)
		if n == nil || !n.Alive || !n.Drivers[v.Ref.Driver].Ready || w.pinned(v, n) != "" {
			continue
		}
		if best == nil || n.Hostname < best.Hostname {
			best = n
		}
	}
	if best == nil {
		return ""
	}
	return best.UID
}

// pinned says why a volume cannot be used on a node, "" when it can: some volumes exist on one node or in one zone only.
func (w *work) pinned(v *state.Volume, n *state.Node) string {
	if v.Node == "" || v.Node == n.UID {
		return ""
	}
	switch v.Scope {
	case "node":
		return fmt.Sprintf("volume %s is on node %s only", v.Ref, w.nodeName(v.Node))
	case "zone":
		if home := w.node(v.Node); home != nil && home.Zone != n.Zone {
			return fmt.Sprintf("volume %s is in zone %q only", v.Ref, home.Zone)
		}
	}
	return ""
}

func (w *work) nodeName(uid state.NodeUID) string {
	if n := w.node(uid); n != nil && n.Hostname != "" {
		return n.Hostname
	}
	return string(uid)
}

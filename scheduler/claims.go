package scheduler

import (
	"reflect"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// nodesSeen takes the new picture of the nodes. A node's death frees nothing here: its claims become free one by one.
func (w *work) nodesSeen(e NodesSeen) {
	seen := map[state.NodeUID]bool{}
	changed := !w.session().NodesSeen || w.session().AuthorityLost != ""
	for _, n := range e.Nodes {
		seen[n.UID] = true
		if old := w.s.Nodes[n.UID]; old == nil || standing(old) != standing(n) {
			changed = true
			w.touchNode(n)
		}
		if !reflect.DeepEqual(w.s.Nodes[n.UID], n) {
			w.put(state.KindNode, string(n.UID), n)
		}
	}
	for _, uid := range sortedKeys(w.s.Nodes) {
		if !seen[uid] {
			changed = true
			w.remove(state.KindNode, string(uid))
		}
	}
	w.setSession(func(s *state.Session) {
		s.NodesSeen, s.AuthorityLost = true, ""
		s.AuthoritySeen = s.ClaimsSeen
	})
	if changed {
		w.vanishing = true
		w.placeable, w.newcomer = true, w.newcomer || w.waitingCount() > 0
	}
}

// standing is what of a node decides, or is told to people.
func standing(n *state.Node) any {
	return struct {
		agent           state.AgentID
		generation      uint64
		alive, draining bool
		suspect, freeBy time.Time
		kept            string
		drivers         int
	}{n.Agent, n.Generation, n.Alive, n.Draining, n.SuspectSince, n.FreeBy, n.Kept, drivers(n)}
}

// touchNode looks again at the instances on a node's agent, and at those whose volumes it holds.
func (w *work) touchNode(n *state.Node) {
	for _, id := range w.s.InstancesOn(n.Agent) {
		w.instances.add(id)
	}
	for _, uid := range w.s.ClaimsAt(n.UID) {
		if v := w.volume(uid); v != nil {
			w.instances.add(v.Instance)
		}
	}
}

// drivers tells how many drivers of a node are ready; more is told by their own fields.
func drivers(n *state.Node) (ready int) {
	for _, d := range n.Drivers {
		if d.Ready {
			ready++
		}
	}
	return ready
}

func (w *work) claimsSeen(e ClaimsSeen) {
	first := e.All && !w.session().ClaimsSeen
	if e.All {
		seen := map[state.VolumeUID]bool{}
		for _, c := range e.Claims {
			seen[c.Volume] = true
		}
		for _, uid := range sortedKeys(w.s.Claims) {
			if !seen[uid] {
				w.removeClaim(uid)
			}
		}
		w.setSession(func(s *state.Session) {
			s.ClaimsSeen, s.AuthorityLost = true, ""
			s.AuthoritySeen = s.NodesSeen
		})
	}
	for _, c := range e.Claims {
		w.claimSeen(c)
	}
	if first {
		w.placeable, w.newcomer = true, true
	}
}

// claimSeen draws the conclusions from one claim record. "Free" is final for its epoch: an epoch is granted once.
func (w *work) claimSeen(c *state.Claim) {
	if old := w.claim(c.Volume); old != nil && *old == *c {
		return
	}
	w.putClaim(c)
	v := w.volume(c.Volume)
	if v == nil {
		return
	}
	if v.Phase == state.VolumeRemoving {
		if c.State == state.ClaimGranted && v.Op != "" {
			// A grant that was called off arrived late. Nobody was told its nonce.
			w.authority(CancelGrant{Volume: c.Volume, Epoch: c.Epoch, Nonce: c.Nonce})
		}
		w.tryRemove(v)
		return
	}
	i := w.instance(v.Instance)
	if i == nil {
		if c.State == state.ClaimGranted {
			w.authority(CancelGrant{Volume: c.Volume, Epoch: c.Epoch, Nonce: c.Nonce})
		}
		return
	}
	mine := false
	if i.Run != nil {
		i, mine = w.noteClaim(i, c)
	}
	if c.State == state.ClaimGranted && !mine {
		w.authority(CancelGrant{Volume: c.Volume, Epoch: c.Epoch, Nonce: c.Nonce})
	}
	w.instances.add(i.ID)
}

// noteClaim marks the run's grant as freed where the claim says so. mine tells whether the claim is the run's.
func (w *work) noteClaim(i *state.Instance, c *state.Claim) (now *state.Instance, mine bool) {
	for n, g := range i.Run.Claims {
		if g.Volume != c.Volume {
			continue
		}
		mine = c.Epoch == g.Epoch && c.Nonce == g.Nonce
		freed := c.Epoch > g.Epoch || (c.Epoch == g.Epoch && c.State == state.ClaimFree)
		if freed && !g.Freed && i.Phase != state.PhaseGranting {
			i = w.edit(i)
			i.Run.Claims[n].Freed = true
			w.putInstance(i)
		}
		return i, mine
	}
	return i, false
}

// cancelLeftovers cancels grants of an earlier run of a waiting instance. It tells whether there were any.
func (w *work) cancelLeftovers(i *state.Instance) (any bool) {
	for _, v := range w.volumesFor(i) {
		if v == nil || v.Shared {
			continue
		}
		if c := w.claim(v.UID); c != nil && c.State == state.ClaimGranted {
			w.authority(CancelGrant{Volume: v.UID, Epoch: c.Epoch, Nonce: c.Nonce})
			any = true
		}
	}
	return any
}

// grantResult: L1 was done, or refused.
func (w *work) grantResult(e GrantResult) {
	if e.Claim != nil && !older(e.Claim, w.claim(e.Volume)) {
		w.claimSeen(e.Claim) // it may have been overtaken by a ClaimsSeen
	}
	v := w.volume(e.Volume)
	var i *state.Instance
	if v != nil {
		i = w.instance(v.Instance)
	}
	at := -1
	if i != nil && i.Phase == state.PhaseGranting {
		for n, g := range i.Run.Claims {
			if g.Volume == e.Volume && g.Epoch == e.Epoch && g.Nonce == e.Nonce {
				at = n
			}
		}
	}
	switch {
	case at < 0:
		if e.OK && !w.launchedWith(i, e) {
			w.authority(CancelGrant{Volume: e.Volume, Epoch: e.Epoch, Nonce: e.Nonce})
		}
	case e.OK:
		c := w.edit(i)
		c.Run.Claims[at].Done = true
		w.putInstance(c)
		if old := w.claim(e.Volume); e.Claim == nil && (old == nil || old.Epoch < e.Epoch) {
			w.putClaim(&state.Claim{Volume: v.UID, Ref: v.Ref, State: state.ClaimGranted, Epoch: e.Epoch, Nonce: e.Nonce,
				Agent: c.Run.Agent, Node: c.Run.Node, Policy: v.Policy, Owner: string(c.Run.Task), Since: w.now})
		}
	default:
		w.cancelGranting(i, refusedPause)
	}
}

// launchedWith tells whether the result is a repetition about a grant in use.
func (w *work) launchedWith(i *state.Instance, e GrantResult) bool {
	if i == nil || i.Run == nil || i.Phase == state.PhaseGranting {
		return false
	}
	for _, g := range i.Run.Claims {
		if g.Volume == e.Volume && g.Epoch == e.Epoch && g.Nonce == e.Nonce {
			return true
		}
	}
	return false
}

// cancelGranting calls a launch off before it began: its grants are cancelled (L5), granted or not, because one that is under way may
// still arrive; the instance waits again.
func (w *work) cancelGranting(i *state.Instance, pause time.Duration) {
	for _, g := range i.Run.Claims {
		w.authority(CancelGrant{Volume: g.Volume, Epoch: g.Epoch, Nonce: g.Nonce})
	}
	c := w.edit(i)
	c.Run = nil
	if pause > 0 {
		c.BackoffUntil = w.now.Add(pause)
	}
	w.setPhase(c, state.PhaseWaiting)
	w.putInstance(c)
	w.instances.add(c.ID)
}

// nextEpoch is larger than every epoch that was ever asked for or seen.
func (w *work) nextEpoch(v *state.Volume) volume.Epoch {
	e := v.Epoch
	if c := w.claim(v.UID); c != nil {
		e = max(e, c.Epoch)
	}
	return e + 1
}

// older tells whether a record of a claim is older than another. Within one epoch a claim is granted, then held, then free.
func older(c, than *state.Claim) bool {
	rank := map[string]int{state.ClaimGranted: 1, state.ClaimHeld: 2, state.ClaimFree: 3}
	return than != nil && (c.Epoch < than.Epoch || (c.Epoch == than.Epoch && rank[c.State] < rank[than.State]))
}

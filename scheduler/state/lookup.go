package state

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// The lookups below cost what they return. Slices that come back are the index itself: read them under the lock, and change or keep none
// of them.

// InstancesOf gives the instances of an app, sorted by ordinal.
func (s *State) InstancesOf(app AppID) []*Instance {
	if a := s.index.apps[app]; a != nil {
		return a.instances
	}
	return nil
}

var noStats = NewStats()

// StatsOf counts the instances of an app. The result is shared: Clone it to change it.
func (s *State) StatsOf(app AppID) *Stats {
	if a := s.index.apps[app]; a != nil {
		return a.stats
	}
	return noStats
}

// InstanceByTask gives the instance whose current run has this task id, nil if none.
func (s *State) InstanceByTask(t TaskID) *Instance { return s.Instances[s.index.tasks[t]] }

// InstanceByAway gives the instance that has this task as one of its runs that are away, nil if none.
func (s *State) InstanceByAway(t TaskID) *Instance { return s.Instances[s.index.away[t]] }

// AgentsOf counts the instances of an app that have, or may have, a task, by agent.
func (s *State) AgentsOf(app AppID) map[AgentID]int {
	if a := s.index.apps[app]; a != nil {
		return a.agents
	}
	return nil
}

// InstancesOn gives the ids of the instances that have, or may have, a task on an agent, sorted.
func (s *State) InstancesOn(agent AgentID) []InstanceID { return sortedSet(s.index.onAgent[agent]) }

// CountOn is how many InstancesOn gives.
func (s *State) CountOn(agent AgentID) int { return len(s.index.onAgent[agent]) }

// GrantingOn gives those of InstancesOn whose grants are under way.
func (s *State) GrantingOn(agent AgentID) []InstanceID { return sortedSet(s.index.granting[agent]) }

func sortedSet(set map[InstanceID]bool) []InstanceID {
	list := make([]InstanceID, 0, len(set))
	for id := range set {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// Waiting gives the instances of a group that look for an offer, sorted by ordinal.
func (s *State) Waiting(g Group) []*Instance { return s.index.waiting[g] }

// WaitingGroups calls f for each group that has waiting instances, in no order.
func (s *State) WaitingGroups(f func(Group, []*Instance)) {
	for g, list := range s.index.waiting {
		f(g, list)
	}
}

// WaitingCount and PreparingCount tell how many instances look for an offer, and how many wait for volumes being created.
func (s *State) WaitingCount() int { return s.index.nwaiting }

// PreparingCount tells how many instances wait for volumes that are being created.
func (s *State) PreparingCount() int { return s.index.prepares }

// VolumesOf gives the volumes recorded for an app, those of instances scaled away included, sorted by uid (age).
func (s *State) VolumesOf(app AppID) []*Volume { return s.volumes(s.index.volApp[app]) }

// VolumesOfInstance gives the volumes that belong to one instance, shared ones not included, sorted by uid.
func (s *State) VolumesOfInstance(id InstanceID) []*Volume { return s.volumes(s.index.volInst[id]) }

func (s *State) volumes(uids []VolumeUID) []*Volume {
	list := make([]*Volume, 0, len(uids))
	for _, uid := range uids {
		list = append(list, s.Volumes[uid])
	}
	return list
}

// VolumeByRef gives the volume of a driver and name, nil if none is recorded.
func (s *State) VolumeByRef(r volume.Ref) *Volume { return s.Volumes[s.index.volRef[r]] }

// VolumeByOp gives the volume that a request under way is about, nil if none.
func (s *State) VolumeByOp(op string) *Volume { return s.Volumes[s.index.volOp[op]] }

// NodeOf gives the node beside an agent, nil if none is known.
func (s *State) NodeOf(agent AgentID) *Node { return s.Nodes[s.index.nodeOf[agent]] }

// LostAgents counts the agents that are known to be lost.
func (s *State) LostAgents() int { return s.index.nlost }

// OrderFor gives the order for an agent, or for the node beside it; nil when there is none.
func (s *State) OrderFor(agent AgentID) *NodeOrder {
	if len(s.Orders) == 0 {
		return nil
	}
	if n := s.NodeOf(agent); n != nil {
		if o := s.Orders[string(n.UID)]; o != nil {
			return o
		}
	}
	return s.Orders[string(agent)]
}

// AwayNodes counts the nodes that are dead or suspect.
func (s *State) AwayNodes() int { return s.index.naway }

// Attached counts the granted and held claims of a driver's volumes at a node.
func (s *State) Attached(node NodeUID, driver string) int { return s.index.attached[node][driver] }

// ClaimsAt gives the volumes whose claim is granted to or held by a node, sorted by uid.
func (s *State) ClaimsAt(node NodeUID) []VolumeUID {
	list := make([]VolumeUID, 0, len(s.index.claimsAt[node]))
	for uid := range s.index.claimsAt[node] {
		list = append(list, uid)
	}
	slices.Sort(list)
	return list
}

// OffersOn gives the ids of the offers that are held of an agent, sorted.
func (s *State) OffersOn(agent AgentID) []string { return s.index.offersOn[agent] }

// DefOf gives the definition that an app wants, nil if the app is not known.
func (s *State) DefOf(app AppID) *Def {
	if a := s.Apps[app]; a != nil {
		return s.Defs[app][a.Version]
	}
	return nil
}

// Def gives one version of an app's definition, nil if it is not known.
func (s *State) Def(app AppID, version string) *Def { return s.Defs[app][version] }

// WhyOf tells what an instance waits for: its own entry, with what holds for all of its group or for everybody where that is newer.
// nil when it runs as wanted.
func (s *State) WhyOf(id InstanceID) *Why {
	i, why := s.Instances[id], s.Why[id]
	if i == nil || why == nil {
		return why
	}
	full := *why
	if r := s.Hold.Why(); r.Code != "" && !i.Waits() {
		full.Reasons = append([]Reason{r}, why.Reasons...)
		return &full
	}
	if !i.Waits() {
		return why
	}
	if r := s.Refusals[i.Group()]; r != nil && len(why.Agents) == 0 && len(why.Reasons) == 0 {
		full.Agents = r.Agents
	}
	if r := s.generalReason(i); r.Code != "" && !slices.ContainsFunc(why.Reasons, func(o Reason) bool { return o.Code == r.Code }) {
		full.Reasons = append([]Reason{r}, why.Reasons...)
		full.Summary = r.Text
	}
	return &full
}

// generalReason is what keeps every instance from starting, or every one with external volumes.
func (s *State) generalReason(i *Instance) Reason {
	switch {
	case s.Hold.Why().Code != "":
		return s.Hold.Why()
	case s.Session.Stopped != "":
		return Reason{Code: ReasonNoMaster, Text: "the master does not accept this framework: " + s.Session.Stopped}
	case s.Framework != nil && s.Framework.Teardown != nil:
		return Reason{Code: ReasonNoMaster, Text: "the framework is being torn down: nothing is launched any more"}
	case !s.Session.Connected && s.Session.Apart != "":
		return Reason{Code: ReasonNoMaster, Text: "not connected to a Mesos master: " + s.Session.Apart}
	case !s.Session.Connected:
		return Reason{Code: ReasonNoMaster, Text: "not connected to a Mesos master"}
	case s.Session.AuthorityLost == "" && s.Session.AuthoritySeen:
		return Reason{}
	}
	d := s.Def(i.App, i.Version)
	switch {
	case d == nil || !slices.ContainsFunc(d.Spec.Volumes, func(m Mount) bool { return m.Kind == MountExternal }):
		return Reason{}
	case s.Session.AuthorityLost != "":
		return Reason{Code: ReasonNoAuthority, Text: "the lease authority cannot be read: " + s.Session.AuthorityLost}
	}
	return Reason{Code: ReasonNoAuthority, Text: "the lease authority was not read yet"}
}

// Due calls f for each value whose time has come at now, in no order. kind is KindInstance, KindAway (the id is the
// instance's), KindVolume, KindStrange, KindOffer or KindReserved.
func (s *State) Due(now time.Time, f func(kind Kind, id string)) {
	s.index.due.walk(0, func(e dueEntry) bool {
		if e.at.After(now) {
			return false
		}
		f(e.key.kind, e.key.id)
		return true
	})
}

// NextDue gives the earliest time among the values for which skip says false; zero when there is none.
func (s *State) NextDue(skip func(kind Kind, id string) bool) time.Time {
	var next time.Time
	s.index.due.walk(0, func(e dueEntry) bool {
		if !next.IsZero() && !e.at.Before(next) {
			return false
		}
		if skip(e.key.kind, e.key.id) {
			return true
		}
		next = e.at
		return false
	})
	return next
}

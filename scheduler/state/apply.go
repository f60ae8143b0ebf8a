package state

import (
	"fmt"
	"strings"
	"time"
)

// The states of a Claim, as the authority's records write them.
const (
	ClaimFree    = "free"
	ClaimGranted = "granted"
	ClaimHeld    = "held"
)

// New returns an empty state. The framework fills it with Apply of the records it read from the store, and then sends Loaded.
func New() *State {
	return &State{
		Apps: map[AppID]*App{}, Defs: map[AppID]map[string]*Def{}, Instances: map[InstanceID]*Instance{},
		Volumes: map[VolumeUID]*Volume{}, Deployments: map[DeploymentID]*Deployment{}, Groups: map[AppID]*AppGroup{}, Classes: map[string]*Class{},
		Offers: map[string]*Offer{}, Agents: map[AgentID]*Agent{}, Claims: map[VolumeUID]*Claim{}, Nodes: map[NodeUID]*Node{},
		Why: map[InstanceID]*Why{}, Strange: map[TaskID]*StrangeTask{}, Refusals: map[Group]*Refusal{},
		Operations: map[string]*Operation{},
		Orders:     map[string]*NodeOrder{}, Inverse: map[string]*InverseOffer{}, Leaving: map[AgentID]*Leaving{},
		Unanswered: map[TaskID]AgentID{}, Todo: map[AppID]bool{},
		Reserved: map[ReservedID]*Reserved{}, Leftovers: map[string]*Leftover{}, Shorts: map[InstanceID]*Short{},
		index: newIndex(),
	}
}

// Apply makes the writes, in order. They may come in any order of kinds. It panics when a value is not of its kind's type: that is
// a bug of the caller, and going on would decide on half a state.
func (s *State) Apply(writes []Write) {
	for _, w := range writes {
		s.apply(w)
	}
}

func value[T any](w Write) *T {
	if w.Value == nil {
		return nil
	}
	v, ok := w.Value.(*T)
	if !ok {
		panic(fmt.Sprintf("state: write of kind %s carries a %T", w.Kind, w.Value))
	}
	return v
}

func put[K comparable, T any](m map[K]*T, k K, v *T) (old *T) {
	old = m[k]
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
	return old
}

func (s *State) apply(w Write) {
	switch w.Kind {
	case KindFramework:
		s.Framework = value[Framework](w)
	case KindSession:
		if v := value[Session](w); v != nil {
			s.Session = *v
		} else {
			s.Session = Session{}
		}
	case KindApp:
		put(s.Apps, AppID(w.ID), value[App](w))
	case KindDef:
		s.applyDef(w)
	case KindInstance:
		now := value[Instance](w)
		if old := put(s.Instances, InstanceID(w.ID), now); old != nil || now != nil {
			s.index.instance(old, now)
		}
	case KindVolume:
		now := value[Volume](w)
		if old := put(s.Volumes, VolumeUID(w.ID), now); old != nil || now != nil {
			s.index.volume(old, now)
		}
	case KindDeployment:
		put(s.Deployments, DeploymentID(w.ID), value[Deployment](w))
	case KindReserved:
		now := value[Reserved](w)
		if old := put(s.Reserved, ReservedID(w.ID), now); old != nil || now != nil {
			s.index.reserved.change(old, now)
			var at time.Time
			if now != nil {
				at = now.RetryAt
			}
			s.index.due.set(dueKey{KindReserved, w.ID}, at)
		}
	case KindGroup:
		put(s.Groups, AppID(w.ID), value[AppGroup](w))
	case KindClass:
		put(s.Classes, w.ID, value[Class](w))
	case KindOperation:
		now := value[Operation](w)
		put(s.Operations, w.ID, now)
		var at time.Time
		if now != nil {
			at = now.WakeAt
		}
		s.index.due.set(dueKey{KindOperation, w.ID}, at)
	case KindOrder:
		put(s.Orders, w.ID, value[NodeOrder](w))
	case KindHold:
		s.Hold = value[Hold](w)
	default:
		s.applySeen(w)
	}
}

func (s *State) applyDef(w Write) {
	if d := value[Def](w); d != nil {
		if s.Defs[d.App] == nil {
			s.Defs[d.App] = map[string]*Def{}
		}
		s.Defs[d.App][d.Version] = d
		return
	}
	app, version, _ := strings.Cut(w.ID, " ")
	delete(s.Defs[AppID(app)], version)
	if len(s.Defs[AppID(app)]) == 0 {
		delete(s.Defs, AppID(app))
	}
}

func (s *State) applySeen(w Write) {
	switch w.Kind {
	case KindOffer:
		now := value[Offer](w)
		if old := put(s.Offers, w.ID, now); old != nil || now != nil {
			s.index.offer(old, now)
		}
	case KindAgent:
		now := value[Agent](w)
		s.index.agent(put(s.Agents, AgentID(w.ID), now), now)
	case KindClaim:
		now := value[Claim](w)
		s.index.claim(put(s.Claims, VolumeUID(w.ID), now), now)
	case KindNode:
		now := value[Node](w)
		s.index.node(put(s.Nodes, NodeUID(w.ID), now), now, s.Nodes)
	case KindInverse:
		put(s.Inverse, w.ID, value[InverseOffer](w))
	case KindLeaving:
		put(s.Leaving, AgentID(w.ID), value[Leaving](w))
	case KindWhy:
		put(s.Why, InstanceID(w.ID), value[Why](w))
	case KindStrange:
		now := value[StrangeTask](w)
		put(s.Strange, TaskID(w.ID), now)
		var at time.Time
		if now != nil {
			at = now.KillAfter
		}
		s.index.due.set(dueKey{KindStrange, w.ID}, at)
	case KindRefusal:
		app, version, _ := strings.Cut(w.ID, " ")
		put(s.Refusals, Group{AppID(app), version}, value[Refusal](w))
	case KindUnanswered:
		if v := value[Unanswered](w); v != nil {
			s.Unanswered[TaskID(w.ID)] = v.Agent
		} else {
			delete(s.Unanswered, TaskID(w.ID))
		}
	case KindLeftover:
		put(s.Leftovers, w.ID, value[Leftover](w))
	case KindShort:
		put(s.Shorts, InstanceID(w.ID), value[Short](w))
	case KindTodo:
		if w.Value != nil {
			s.Todo[AppID(w.ID)] = true
		} else {
			delete(s.Todo, AppID(w.ID))
		}
	default:
		panic(fmt.Sprintf("state: unknown kind of write %q", w.Kind))
	}
}

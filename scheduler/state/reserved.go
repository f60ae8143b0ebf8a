package state

import (
	"slices"
	"time"
)

// ReservedID names a Reserved: a UUIDv7, new at every first reservation.
type ReservedID string

// ReservedPhase is how far the reservation of an instance is.
type ReservedPhase string

// The phases of a Reserved.
const (
	// ReservedAsked: RESERVE and CREATE were committed and perhaps sent; nothing of them was seen yet.
	ReservedAsked ReservedPhase = "asked"
	// ReservedHeld: seen in an offer, told by the agent, or used by a task that started. The instance runs there and nowhere else.
	ReservedHeld ReservedPhase = "held"
	// ReservedRetained: the instance is gone. Its volumes stay reserved; cpus, memory and ports are given back.
	ReservedRetained ReservedPhase = "retained"
	// ReservedLeft: the agent was lost for longer than the app's policy waits, and the instance has started over elsewhere. What is
	// left there is given back only by a person's word.
	ReservedLeft ReservedPhase = "left"
	// ReservedReleasing: a person asked for it (wipe), or there is no volume in it: volumes are destroyed and everything is unreserved.
	ReservedReleasing ReservedPhase = "releasing"
)

// Reserved is the record reservations/<2 hex>/<id>: what one agent keeps for one instance. How much is reserved is not written here but
// seen in the offers, by label; the volumes are written here, because they must never be made a second time.
type Reserved struct {
	ID       ReservedID    `json:"id"`
	App      AppID         `json:"app"`
	Instance InstanceID    `json:"instance"`
	Agent    AgentID       `json:"agent"`
	Hostname string        `json:"hostname"`
	Role     string        `json:"role"`
	Phase    ReservedPhase `json:"phase"`
	Since    time.Time     `json:"since"` // of this phase
	// Volumes are the local persistent volumes, in the order of the app's.
	Volumes []LocalVolume `json:"volumes,omitempty"`
	// Ports are the host ports that the last launch took.
	Ports []int `json:"ports,omitempty"`
	// Incarnation is that of the last launch: a number that comes back goes on counting from there.
	Incarnation uint64 `json:"incarnation,omitempty"`
	// Ops are the operations that were asked for and not answered yet, Seq how many there ever were: operation ids are `<ID>.<n>`.
	Ops []PendingOp `json:"ops,omitempty"`
	Seq uint64      `json:"seq,omitempty"`
	// Error is what the last operation was refused with; after Attempts failures in a row nothing is asked before RetryAt.
	Error    string    `json:"error,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
	RetryAt  time.Time `json:"retryAt,omitzero"`
	// Some says that resources are known to be reserved, volumes or not.
	Some bool `json:"some,omitempty"`
	// Doubt says that a task may have run on volumes that were not seen yet: nobody could tell of its end.
	Doubt bool `json:"doubt,omitempty"`
	// Trimmed says that a retained reservation has nothing but its volumes left, as far as is known.
	Trimmed bool `json:"trimmed,omitempty"`
	// Freed says that all its volumes were asked to be destroyed, and the rest was given back as far as it was seen.
	Freed bool `json:"freed,omitempty"`
	// Wipe says that a person asked to destroy the volumes once the run has ended; the instance then starts over.
	Wipe bool `json:"wipe,omitempty"`
	// MissingSince is when the agent was first missed while its instance wanted to run, or something was to be given back; zero while it offers.
	MissingSince time.Time `json:"missingSince,omitzero"`
	CreatedAt    time.Time `json:"createdAt"`
	Rev          uint64    `json:"rev"`
}

// LocalVolume is a Mesos persistent volume of an instance.
type LocalVolume struct {
	// ID is the persistence id, `<safe app>#<container path>#<uuid>` as Marathon writes it.
	ID            string `json:"id"`
	ContainerPath string `json:"containerPath"`
	Type          string `json:"type"` // root, path, mount
	SizeMB        int64  `json:"sizeMB"`
	// Created says that the volume was seen. From then on nothing creates it: a launch waits for it instead.
	Created bool `json:"created,omitempty"`
	// Destroyed says that its destruction was asked for, and not refused.
	Destroyed bool `json:"destroyed,omitempty"`
	// NoResize says why the agent does not change its size to what the app says; it is used as it is then.
	NoResize   string `json:"noResize,omitempty"`
	NoResizeMB int64  `json:"noResizeMB,omitempty"` // the size that was refused
}

// PendingOp is an operation whose end is not known.
type PendingOp struct {
	ID   string    `json:"id"`
	Kind string    `json:"kind"` // RESERVE …
	At   time.Time `json:"at"`
	// Silent says that no answer will come: it was sent without an id, for an agent that gives none.
	Silent bool `json:"silent,omitempty"`
	// Final says that it is part of a release: when all such are done, nothing is left.
	Final bool `json:"final,omitempty"`
	// Volume is the persistence id of the volume that is being resized or destroyed.
	Volume string `json:"volume,omitempty"`
}

// Current tells whether the instance's next run is to use it.
func (r *Reserved) Current() bool {
	return r.Phase == ReservedAsked || r.Phase == ReservedHeld || r.Phase == ReservedRetained
}

// WantsOffer tells whether an offer of its agent is needed for what is to be given back. One that is missing is not asked for.
func (r *Reserved) WantsOffer() bool {
	return r.MissingSince.IsZero() && (r.Phase == ReservedReleasing || (r.Phase == ReservedRetained && !r.Trimmed))
}

// HasVolume tells whether there is, or may be, a volume in it.
func (r *Reserved) HasVolume() bool { return len(r.Volumes) > 0 }

// VolumeAt gives the index of the volume of a container path, -1 if none.
func (r *Reserved) VolumeAt(path string) int {
	return slices.IndexFunc(r.Volumes, func(v LocalVolume) bool { return v.ContainerPath == path })
}

// Clone gives a copy to change and put back.
func (r *Reserved) Clone() *Reserved {
	c := *r
	c.Volumes, c.Ports, c.Ops = slices.Clone(r.Volumes), slices.Clone(r.Ports), slices.Clone(r.Ops)
	return &c
}

// Leftover is what an agent offers under our labels and no record explains; it is not stored.
type Leftover struct {
	Agent    AgentID
	Hostname string
	App      AppID
	Instance InstanceID
	// Volumes are persistence ids that no record knows: kept until a person says so.
	Volumes []string
	Reason  string
	Seen    time.Time
	// Release says that a person asked to destroy them.
	Release bool
}

// Short is why an agent that has an instance's reservation could not take it; it is not stored.
type Short struct {
	At      time.Time
	Reasons []Reason
}

// LeftoverID is the Write.ID of a leftover.
func LeftoverID(agent AgentID, instance InstanceID) string {
	return string(agent) + " " + string(instance)
}

// reservedIndex finds records by instance and agent.
type reservedIndex struct {
	instance map[InstanceID][]ReservedID
	agent    map[AgentID][]ReservedID
	app      map[AppID][]ReservedID
	wants    int
}

func newReservedIndex() reservedIndex {
	return reservedIndex{instance: map[InstanceID][]ReservedID{}, agent: map[AgentID][]ReservedID{}, app: map[AppID][]ReservedID{}}
}

func (x *reservedIndex) change(old, now *Reserved) {
	if old != nil {
		dropID(x.instance, old.Instance, old.ID)
		dropID(x.agent, old.Agent, old.ID)
		dropID(x.app, old.App, old.ID)
		if old.WantsOffer() {
			x.wants--
		}
	}
	if now != nil {
		putID(x.instance, now.Instance, now.ID)
		putID(x.agent, now.Agent, now.ID)
		putID(x.app, now.App, now.ID)
		if now.WantsOffer() {
			x.wants++
		}
	}
}

func putID[K comparable, V ~string](m map[K][]V, k K, id V) {
	list := m[k]
	if at, found := slices.BinarySearch(list, id); !found {
		m[k] = slices.Insert(slices.Clone(list), at, id)
	}
}

func dropID[K comparable, V ~string](m map[K][]V, k K, id V) {
	list := m[k]
	if at, found := slices.BinarySearch(list, id); found {
		list = slices.Delete(slices.Clone(list), at, at+1)
	}
	if m[k] = list; len(list) == 0 {
		delete(m, k)
	}
}

// ReservedOf gives the ids of the reservations of an instance, those it has left behind included, sorted by age.
func (s *State) ReservedOf(id InstanceID) []ReservedID { return s.index.reserved.instance[id] }

// ReservedOn gives the ids of the reservations on an agent, sorted by age.
func (s *State) ReservedOn(agent AgentID) []ReservedID { return s.index.reserved.agent[agent] }

// ReservedFor gives the ids of the reservations of an app, sorted by age.
func (s *State) ReservedFor(app AppID) []ReservedID { return s.index.reserved.app[app] }

// ReservedWants counts the reservations that wait for an offer to be given back.
func (s *State) ReservedWants() int { return s.index.reserved.wants }

// CurrentReserved gives the reservation that an instance's next or current run uses, nil if none.
func (s *State) CurrentReserved(id InstanceID) *Reserved {
	for _, rid := range s.index.reserved.instance[id] {
		if r := s.Reserved[rid]; r.Current() {
			return r
		}
	}
	return nil
}

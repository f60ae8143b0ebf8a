package catalog

import (
	"cmp"
	"slices"
	"strings"
)

// Observed is what Consul has on the nodes that are marked as a cluster's.
type Observed struct {
	Nodes    map[string]*Node
	Services map[Key]*Entry
}

// Node is a node entry.
type Node struct {
	Address string
	// Index is its ModifyIndex, 0 when not known.
	Index uint64
	// Checks counts the checks of the node itself, which are not ours.
	Checks int
}

// Entry is a service entry, of ours or of somebody else's.
type Entry struct {
	Service
	// Odd says that there is something about it that Holdfast never sets, such as weights.
	Odd bool
	// wrote is what was written there, if nothing was read since.
	wrote *Service
}

// owner gives the cluster that an entry is marked as belonging to, "" for none.
func (e *Entry) owner() string { return e.Meta[metaCluster] }

// ours tells whether an entry may be removed: id and mark both say that it is the cluster's.
func (e *Entry) ours(cluster string) bool {
	return e.owner() == cluster && strings.HasPrefix(e.ID, prefix(cluster))
}

// Change sets one service, or removes it when Put is nil.
type Change struct {
	Key
	Put  *Service
	Name string // of a service that is removed: Consul looks at it to see whether the token may
}

// Diff is what must be done.
type Diff struct {
	// Nodes are to be made or to get another address, by name.
	Nodes map[string]string
	// Changes are in the order in which they are made: those of ids that leave a node first, all changes of one id together.
	Changes []Change
	// Taken are services that cannot be written because another cluster's entry is there.
	Taken []Key
	// Kept are entries of ours that will have to go, but not yet.
	Kept []Key
	// Empty are nodes of ours on which nothing is and nothing shall be.
	Empty []string
}

// diff compares what is wanted with what is there. release says whether an entry that is not wanted may be removed already.
func diff(want *Wanted, there *Observed, release func(*Entry) bool) Diff {
	d := Diff{Nodes: map[string]string{}}
	for name, address := range want.Nodes {
		if n := there.Nodes[name]; n == nil || n.Address != address {
			d.Nodes[name] = address
		}
	}
	leaves, used := map[string]bool{}, map[string]bool{}
	for k, e := range there.Services {
		used[k.Node] = true
		if want.Services[k] != nil || !e.ours(want.Cluster) {
			continue
		}
		if !release(e) {
			d.Kept = append(d.Kept, k)
			continue
		}
		leaves[k.ID] = true
		d.Changes = append(d.Changes, Change{Key: k, Name: e.Name})
	}
	for k, s := range want.Services {
		e := there.Services[k]
		switch {
		case e != nil && e.wrote == s:
		case e != nil && e.owner() != "" && e.owner() != want.Cluster:
			d.Taken = append(d.Taken, k)
		case e != nil && !e.Odd && s.equal(&e.Service):
			e.wrote = s // the next comparison is quick
		default:
			d.Changes = append(d.Changes, Change{Key: k, Put: s})
		}
	}
	for name, n := range there.Nodes {
		if _, ok := want.Nodes[name]; !ok && !used[name] && n.Checks == 0 {
			d.Empty = append(d.Empty, name)
		}
	}
	slices.SortFunc(d.Changes, func(a, b Change) int {
		return cmp.Or(first(gains(a), gains(b)), first(leaves[b.ID], leaves[a.ID]), strings.Compare(a.ID, b.ID), first(a.Put != nil, b.Put != nil), strings.Compare(a.Node, b.Node))
	})
	for _, list := range [][]Key{d.Taken, d.Kept} {
		slices.SortFunc(list, func(a, b Key) int { return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Node, b.Node)) })
	}
	slices.Sort(d.Empty)
	return d
}

// first orders false before true.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

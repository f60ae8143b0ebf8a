package catalog

import (
	"strings"

	"github.com/hashicorp/consul/api"
)

// batch is one transaction.
type batch struct {
	ops     api.TxnOps
	about   []*Change // which change an operation belongs to, nil for nodes
	changes []Change
	nodes   map[string]string // those that are made
	taken   int               // how many changes of the list it is about
}

// batch puts as many changes into a transaction as fit, with the nodes that they need. Changes of one id stay together.
func (r *Registrar) batch(todo []Change, nodes map[string]string) *batch {
	b := &batch{nodes: map[string]string{}}
	bytes := 0
	for len(todo) > b.taken {
		next := together(todo[b.taken:])
		ops, n := 0, 0
		for _, c := range next {
			n += size(c)
			ops++
			if c.Put != nil {
				ops += 2 // the check, and maybe the node
				if c.Put.lock != nil {
					ops++
				}
			}
		}
		if b.taken > 0 && (len(b.ops)+ops > maxOps || bytes+n > maxBytes) {
			break
		}
		bytes += n
		for _, c := range next {
			r.add(b, c, nodes)
		}
		b.taken += len(next)
	}
	return b
}

// together gives the changes of the first id.
func together(todo []Change) []Change {
	n := 1
	for n < len(todo) && todo[n].ID == todo[0].ID && n < maxOps/4 {
		n++
	}
	return todo[:n]
}

// add puts a change into a batch, and the node before it if that is not there yet.
func (r *Registrar) add(b *batch, c Change, nodes map[string]string) {
	if c.Put != nil && r.there.Nodes[c.Node] == nil && b.nodes[c.Node] == "" {
		b.nodes[c.Node] = nodes[c.Node]
		b.ops = append(b.ops, r.consul.nodeOp(c.Node, nodes[c.Node], r.takeable[c.Node]))
		b.about = append(b.about, nil)
	}
	b.changes = append(b.changes, c)
	for _, op := range r.consul.serviceOps(c) {
		b.ops = append(b.ops, op)
		b.about = append(b.about, &c)
	}
}

// applied notes what a transaction has done.
func (b *batch) applied(there *Observed) {
	for name, address := range b.nodes {
		there.Nodes[name] = &Node{Address: address}
	}
	for _, c := range b.changes {
		if c.Put == nil {
			delete(there.Services, c.Key)
			continue
		}
		there.Services[c.Key] = &Entry{Service: *c.Put, wrote: c.Put}
	}
}

// permission tells whether an operation was refused for want of rights.
func permission(what string) bool {
	return strings.Contains(strings.ToLower(what), "permission denied")
}

package place

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Suits tells whether a resource may be used for what is being put together.
type Suits func(*state.Resource) bool

// RoleOf is the role that a resource is reserved for, "*" when it is not reserved.
func RoleOf(r *state.Resource) string { return roleOf(r) }

// Clone gives a pool that can be taken from without touching this one.
func (p *Pool) Clone() *Pool {
	c := &Pool{res: slices.Clone(p.res), disks: slices.Clone(p.disks)}
	for i := range c.res {
		c.res[i].ranges = slices.Clone(c.res[i].ranges)
	}
	return c
}

// TakeUpTo takes at most amount of a scalar out of resources that suit, and says how much it got.
func (p *Pool) TakeUpTo(name string, amount Milli, suits Suits) (taken []state.Resource, got Milli) {
	for i := range p.res {
		l := &p.res[i]
		if got == amount {
			break
		}
		if l.r.Name != name || l.scalar <= 0 || !suits(l.r) {
			continue
		}
		n := min(amount-got, l.scalar)
		l.scalar -= n
		got += n
		taken = append(taken, part(l.r, n))
	}
	return taken, got
}

func part(r *state.Resource, n Milli) state.Resource {
	out := *r
	out.Scalar = n.Float()
	return out
}

// Have is how much of a scalar there is in resources that suit.
func (p *Pool) Have(name string, suits Suits) (n Milli) {
	for i := range p.res {
		if l := &p.res[i]; l.r.Name == name && suits(l.r) {
			n += l.scalar
		}
	}
	return n
}

// TakeWhole takes an amount of a disk out of one kind of resource: pieces that Mesos would merge into one. With sources it looks at
// disks with a source of their own, where whole says that a disk cannot be divided and is taken with all it has.
func (p *Pool) TakeWhole(amount Milli, sources bool, suits Suits, whole func(*state.Resource) bool) ([]state.Resource, bool) {
	list := p.res
	if sources {
		list = p.disks
	}
	sums := map[string]Milli{}
	for i := range list {
		l := &list[i]
		if l.r.Name != "disk" || l.scalar <= 0 || !suits(l.r) {
			continue
		}
		if whole(l.r) {
			if l.scalar < amount {
				continue
			}
			n := l.scalar
			l.scalar = 0
			return []state.Resource{part(l.r, n)}, true
		}
		k := Identity(l.r)
		if sums[k] += l.scalar; sums[k] < amount {
			continue
		}
		var taken []state.Resource
		for j := range list {
			if m := &list[j]; m.r.Name == "disk" && m.scalar > 0 && suits(m.r) && !whole(m.r) && Identity(m.r) == k && amount > 0 {
				n := min(amount, m.scalar)
				m.scalar -= n
				amount -= n
				taken = append(taken, part(m.r, n))
			}
		}
		return taken, true
	}
	return nil, false
}

// LargestDisk is the most that one volume could have of disks that suit.
func (p *Pool) LargestDisk(sources bool, suits Suits) (most Milli) {
	list := p.res
	if sources {
		list = p.disks
	}
	sums := map[string]Milli{}
	for i := range list {
		if l := &list[i]; l.r.Name == "disk" && l.scalar > 0 && suits(l.r) {
			k := Identity(l.r)
			if sources {
				k = fmt.Sprint(i)
			}
			sums[k] += l.scalar
			most = max(most, sums[k])
		}
	}
	return most
}

// TakePort takes one port out of a resource that suits.
func (p *Pool) TakePort(port uint64, suits Suits) (state.Resource, bool) {
	for i := range p.res {
		l := &p.res[i]
		if l.r.Name != "ports" || !suits(l.r) {
			continue
		}
		for _, r := range l.ranges {
			if r.Begin <= port && port <= r.End {
				l.ranges = without(l.ranges, port)
				out := *l.r
				out.Ranges = []state.Range{{Begin: port, End: port}}
				return out, true
			}
		}
	}
	return state.Resource{}, false
}

// AnyPort names a port of a resource that suits: the n-th modulo how many there are. ok is false when there is none.
func (p *Pool) AnyPort(n uint64, suits Suits) (port uint64, ok bool) {
	total := uint64(0)
	for i := range p.res {
		if l := &p.res[i]; l.r.Name == "ports" && suits(l.r) {
			total += countPorts(l.ranges)
		}
	}
	if total == 0 {
		return 0, false
	}
	n %= total
	for i := range p.res {
		l := &p.res[i]
		if l.r.Name != "ports" || !suits(l.r) {
			continue
		}
		for _, r := range l.ranges {
			if size := r.End - r.Begin + 1; n < size {
				return r.Begin + n, true
			} else {
				n -= size
			}
		}
	}
	return 0, false
}

// Identity is what two resources have in common when Mesos merges them: everything but the amount.
func Identity(r *state.Resource) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %q %v", r.Name, r.AllocationRole, r.Provider, r.Shared)
	for _, v := range r.Reservations {
		fmt.Fprintf(&b, " [%s %v %q", v.Role, v.Dynamic, v.Principal)
		keys := make([]string, 0, len(v.Labels))
		for k := range v.Labels {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Fprintf(&b, " %q=%q", k, v.Labels[k])
		}
		b.WriteByte(']')
	}
	if d := r.Disk; d != nil {
		fmt.Fprintf(&b, " disk%+v", *d)
	}
	return b.String()
}

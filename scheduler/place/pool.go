// Package place answers whether an instance can run on what an agent offers, and says why not. It looks at resources,
// roles, ports and constraints; what volumes and nodes demand is added by package scheduler. It is pure.
package place

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Milli is a scalar amount in thousandths: Mesos compares and adds scalars with three decimals.
type Milli int64

// ToMilli rounds as Mesos does.
func ToMilli(f float64) Milli { return Milli(math.Round(f * 1000)) }

// Float gives the amount back.
func (m Milli) Float() float64 { return float64(m) / 1000 }

// String gives the shortest decimal form.
func (m Milli) String() string { return strconv.FormatFloat(m.Float(), 'f', -1, 64) }

// Pool is what is left of the offers of one agent and one role while launches are planned on it. Disks with a source of their own
// stand apart: only local persistent volumes are made of them.
type Pool struct{ res, disks []left }

type left struct {
	r      *state.Resource
	scalar Milli
	ranges []state.Range
}

// NewPool begins with all that the offers hold. The offers are not changed.
func NewPool(offers []*state.Offer) *Pool {
	p := &Pool{}
	for _, o := range offers {
		for i := range o.Resources {
			r := &o.Resources[i]
			// A labelled reservation belongs to an instance or to another framework of the role.
			if n := len(r.Reservations); n > 0 && len(r.Reservations[n-1].Labels) > 0 {
				continue
			}
			if r.Disk != nil || r.Provider != "" || r.Shared {
				if r.Disk != nil && r.Disk.Persistence == "" && !r.Shared {
					p.disks = append(p.disks, left{r, ToMilli(r.Scalar), nil})
				}
				continue
			}
			p.res = append(p.res, left{r, ToMilli(r.Scalar), slices.Clone(r.Ranges)})
		}
	}
	return p
}

// roleOf is the role a resource is reserved for, "*" when it is not.
func roleOf(r *state.Resource) string {
	if n := len(r.Reservations); n > 0 {
		return r.Reservations[n-1].Role
	}
	return "*"
}

func accepts(s *state.Spec, r *state.Resource) bool {
	return len(s.AcceptedRoles) == 0 || slices.Contains(s.AcceptedRoles, roleOf(r))
}

// Totals adds up what is left.
func (p *Pool) Totals() state.Totals {
	var t state.Totals
	for i := range p.res {
		l := &p.res[i]
		switch l.r.Name {
		case "cpus":
			t.CPUs += l.scalar.Float()
		case "mem":
			t.MemMB += l.scalar.Float()
		case "disk":
			t.DiskMB += l.scalar.Float()
		case "gpus":
			t.GPUs += l.scalar.Float()
		case "ports":
			t.Ports += int(countPorts(l.ranges))
		}
	}
	return t
}

type want struct {
	name   string
	amount Milli
}

func scalars(s *state.Spec) [4]want {
	return [4]want{{"cpus", ToMilli(s.CPUs)}, {"mem", ToMilli(s.MemMB)}, {"disk", ToMilli(s.DiskMB)}, {"gpus", Milli(s.GPUs) * 1000}}
}

func (p *Pool) have(name string, s *state.Spec) (usable, all Milli) {
	for i := range p.res {
		if l := &p.res[i]; l.r.Name == name {
			all += l.scalar
			if accepts(s, l.r) {
				usable += l.scalar
			}
		}
	}
	return usable, all
}

// Fits tells whether one more instance fits, without saying why not.
func (p *Pool) Fits(s *state.Spec) bool {
	for _, w := range scalars(s) {
		if w.amount > 0 {
			if usable, _ := p.have(w.name, s); usable < w.amount {
				return false
			}
		}
	}
	return len(s.Ports) == 0 || p.portsShort(s) == ""
}

// Misfits says why one more instance does not fit; none when it does. total is the most the agent ever showed.
func (p *Pool) Misfits(s *state.Spec, total state.Totals) []state.Reason {
	var reasons []state.Reason
	most := map[string]float64{"cpus": total.CPUs, "mem": total.MemMB, "disk": total.DiskMB, "gpus": total.GPUs}
	for _, w := range scalars(s) {
		if w.amount == 0 {
			continue
		}
		usable, all := p.have(w.name, s)
		switch {
		case usable >= w.amount:
		case ToMilli(most[w.name]) < w.amount && all < w.amount:
			reasons = append(reasons, state.Reason{Code: state.ReasonNeverFits, Text: fmt.Sprintf("needs %s %s, the agent never showed more than %s", w.amount, unit(w.name), ToMilli(max(most[w.name], all.Float())))})
		case all >= w.amount:
			reasons = append(reasons, state.Reason{Code: state.ReasonRole, Text: fmt.Sprintf("needs %s %s of role %s, the offer has %s there (%s in all roles)", w.amount, unit(w.name), strings.Join(s.AcceptedRoles, " or "), usable, all)})
		default:
			reasons = append(reasons, state.Reason{Code: state.ReasonResources, Text: fmt.Sprintf("needs %s %s, offer has %s", w.amount, unit(w.name), usable)})
		}
	}
	if len(s.Ports) > 0 {
		if text := p.portsShort(s); text != "" {
			reasons = append(reasons, state.Reason{Code: state.ReasonPorts, Text: text})
		}
	}
	return reasons
}

func unit(name string) string {
	switch name {
	case "mem":
		return "MB mem"
	case "disk":
		return "MB disk"
	}
	return name
}

func (p *Pool) portsShort(s *state.Spec) string {
	if s.RequirePort {
		var short []string
		dynamic := uint64(0)
		for _, port := range s.Ports {
			if port.Want == 0 {
				dynamic++
			} else if p.findPort(s, uint64(port.Want)) < 0 {
				short = append(short, strconv.Itoa(port.Want))
			}
		}
		if len(short) > 0 {
			return fmt.Sprintf("needs port %s, offer does not have it", strings.Join(short, ", "))
		}
		if have := p.countPorts(s); have < uint64(len(s.Ports)) {
			return fmt.Sprintf("needs %d ports, offer has %d", len(s.Ports), have)
		}
		return ""
	}
	if have := p.countPorts(s); have < uint64(len(s.Ports)) {
		return fmt.Sprintf("needs %d ports, offer has %d", len(s.Ports), have)
	}
	return ""
}

func (p *Pool) countPorts(s *state.Spec) (n uint64) {
	for i := range p.res {
		if l := &p.res[i]; l.r.Name == "ports" && accepts(s, l.r) {
			n += countPorts(l.ranges)
		}
	}
	return n
}

func countPorts(ranges []state.Range) (n uint64) {
	for _, r := range ranges {
		if r.End >= r.Begin {
			n += r.End - r.Begin + 1
		}
	}
	return n
}

// findPort gives the index of the resource that has the port, -1 if none.
func (p *Pool) findPort(s *state.Spec, port uint64) int {
	for i := range p.res {
		if l := &p.res[i]; l.r.Name == "ports" && accepts(s, l.r) {
			for _, r := range l.ranges {
				if r.Begin <= port && port <= r.End {
					return i
				}
			}
		}
	}
	return -1
}

// Take takes one instance's resources out of the pool. ports are the host ports to take, nil to choose them: the wanted ones where
// the app requires them, else any, beginning somewhere that seed decides. Reserved resources go first. ok is false, and the pool as it
// was, when it does not fit.
func (p *Pool) Take(s *state.Spec, ports []int, seed uint64) (taken []state.Resource, got []int, ok bool) {
	if ports == nil {
		if ports, ok = p.choosePorts(s, seed); !ok {
			return nil, nil, false
		}
	}
	for _, w := range scalars(s) {
		if usable, _ := p.have(w.name, s); usable < w.amount {
			return nil, nil, false
		}
	}
	at := make([]int, len(ports))
	for n, port := range ports {
		if at[n] = p.findPort(s, uint64(port)); at[n] < 0 {
			return nil, nil, false
		}
	}
	for _, w := range scalars(s) {
		taken = p.takeScalar(s, w, taken)
	}
	for i := range p.res {
		var mine []state.Range
		for n, port := range ports {
			if at[n] == i {
				p.res[i].ranges = without(p.res[i].ranges, uint64(port))
				mine = append(mine, state.Range{Begin: uint64(port), End: uint64(port)})
			}
		}
		if mine != nil {
			slices.SortFunc(mine, func(a, b state.Range) int { return int(a.Begin) - int(b.Begin) })
			r := *p.res[i].r
			r.Ranges = mine
			taken = append(taken, r)
		}
	}
	return taken, ports, true
}

func (p *Pool) takeScalar(s *state.Spec, w want, taken []state.Resource) []state.Resource {
	for _, reserved := range []bool{true, false} {
		for i := range p.res {
			l := &p.res[i]
			if w.amount == 0 || l.scalar <= 0 || l.r.Name != w.name || (roleOf(l.r) != "*") != reserved || !accepts(s, l.r) {
				continue
			}
			n := min(w.amount, l.scalar)
			l.scalar -= n
			w.amount -= n
			r := *l.r
			r.Scalar = n.Float()
			taken = append(taken, r)
		}
	}
	return taken
}

func (p *Pool) choosePorts(s *state.Spec, seed uint64) ([]int, bool) {
	ports := make([]int, len(s.Ports))
	used := map[int]bool{}
	if s.RequirePort {
		for n, port := range s.Ports {
			if port.Want != 0 {
				if p.findPort(s, uint64(port.Want)) < 0 || used[port.Want] {
					return nil, false
				}
				ports[n], used[port.Want] = port.Want, true
			}
		}
	}
	total := p.countPorts(s)
	if total == 0 {
		return ports, len(ports) == 0 || !slices.Contains(ports, 0)
	}
	next, tried := seed%total, uint64(0)
	for n := range ports {
		for ports[n] == 0 {
			if tried == total {
				return nil, false
			}
			if port := p.portAt(s, next); !used[port] {
				ports[n], used[port] = port, true
			}
			next, tried = (next+1)%total, tried+1
		}
	}
	return ports, true
}

// portAt gives the n-th port that is left.
func (p *Pool) portAt(s *state.Spec, n uint64) int {
	for i := range p.res {
		if l := &p.res[i]; l.r.Name == "ports" && accepts(s, l.r) {
			for _, r := range l.ranges {
				if size := r.End - r.Begin + 1; n < size {
					return int(r.Begin + n)
				} else {
					n -= size
				}
			}
		}
	}
	return 0
}

func without(ranges []state.Range, port uint64) []state.Range {
	var out []state.Range
	for _, r := range ranges {
		if port < r.Begin || port > r.End {
			out = append(out, r)
			continue
		}
		if r.Begin < port {
			out = append(out, state.Range{Begin: r.Begin, End: port - 1})
		}
		if port < r.End {
			out = append(out, state.Range{Begin: port + 1, End: r.End})
		}
	}
	return out
}

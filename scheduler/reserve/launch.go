package reserve

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// builder puts a plan together.
type builder struct {
	w    *Wish
	pool *place.Pool
	own  []state.Resource

	reserve, unreserve, create []state.Resource
	resize                     []Op
	plan                       Plan
	short                      []state.Reason
}

// Launch plans the next run of an instance: on what is reserved for it, with what is missing reserved out of the pool and what is too much
// given back, in one ACCEPT. own is what Own gave for the agent; the pool is taken from, unless there are reasons why it cannot be: then
// it is as it was.
func Launch(pool *place.Pool, own []state.Resource, w *Wish, seed uint64) (Plan, []state.Reason) {
	if w.Role == "" || w.Role == "*" {
		return Plan{}, []state.Reason{{Code: state.ReasonReservation, Text: "Mesos reserves nothing for the role *: the framework needs a role of its own (--role)"}}
	}
	b := &builder{w: w, pool: pool.Clone(), own: slices.Clone(own)}
	b.scalars()
	b.ports(seed)
	for i := range w.Volumes {
		b.volume(&w.Volumes[i])
	}
	if len(b.short) > 0 {
		return Plan{}, b.short
	}
	b.surplus()
	b.finish()
	*pool = *b.pool
	return b.plan, nil
}

func (b *builder) no(code, format string, args ...any) {
	b.short = append(b.short, state.Reason{Code: code, Text: fmt.Sprintf(format, args...)})
}

// takeOwn takes own resources that f picks out of what is left of them, at most amount where it is not negative.
func (b *builder) takeOwn(amount place.Milli, f func(*state.Resource, string) bool) (taken []state.Resource, got place.Milli) {
	for i := range b.own {
		r := &b.own[i]
		o, _ := OwnerOf(r, b.w.Owner.Cluster)
		have := place.ToMilli(r.Scalar)
		if have <= 0 || !f(r, o.Volume) || (amount >= 0 && got >= amount) {
			continue
		}
		n := have
		if amount >= 0 {
			n = min(have, amount-got)
		}
		t := *r
		t.Scalar = n.Float()
		r.Scalar = (have - n).Float()
		taken = append(taken, t)
		got += n
	}
	return taken, got
}

func (b *builder) scalars() {
	s := b.w.Spec
	for _, want := range []struct {
		name, unit string
		amount     place.Milli
	}{{"cpus", "cpus", place.ToMilli(s.CPUs)}, {"mem", "MB mem", place.ToMilli(s.MemMB)}, {"disk", "MB disk", place.ToMilli(s.DiskMB)}, {"gpus", "gpus", place.Milli(s.GPUs) * 1000}} {
		taken, got := b.takeOwn(want.amount, func(r *state.Resource, volume string) bool {
			return r.Name == want.name && r.Disk == nil && volume == ""
		})
		b.plan.Task = append(b.plan.Task, taken...)
		before := got
		more, n := b.pool.TakeUpTo(want.name, want.amount-got, b.w.reservable)
		got += n
		for _, r := range more {
			b.reserved(r, "")
		}
		more, n = b.pool.TakeUpTo(want.name, want.amount-got, b.w.ready)
		got += n
		b.plan.Task = append(b.plan.Task, more...)
		if got < want.amount {
			text := fmt.Sprintf("needs %s %s, offer has %s that can be reserved", want.amount, want.unit, got-before)
			if before > 0 {
				text += fmt.Sprintf(" beside the %s that are", before)
			}
			b.no(state.ReasonResources, "%s", text)
		}
	}
}

// reserved puts a piece of the pool under our reservation and into the task.
func (b *builder) reserved(r state.Resource, volume string) {
	p := b.w.pushed(r, volume)
	b.reserve = append(b.reserve, p)
	b.plan.Task = append(b.plan.Task, p)
}

// ports are taken in the app's order: the required number, else that of the last run, else one that is reserved, else any.
func (b *builder) ports(seed uint64) {
	want := b.w.Spec.Ports
	if len(want) == 0 {
		return
	}
	numbers := make([]int, len(want))
	if b.w.Spec.RequirePort {
		for n := range want {
			numbers[n] = want[n].Want
		}
	}
	used := map[int]bool{}
	for _, p := range numbers {
		used[p] = true
	}
	have := b.ownPorts()
	for n := range numbers {
		if numbers[n] == 0 && n < len(b.w.Ports) && slices.Contains(have, b.w.Ports[n]) && !used[b.w.Ports[n]] {
			numbers[n] = b.w.Ports[n]
			used[numbers[n]] = true
		}
	}
	for n := range numbers {
		for _, p := range have {
			if numbers[n] == 0 && !used[p] {
				numbers[n], used[p] = p, true
			}
		}
		if !b.port(n, numbers, have, seed+uint64(n), used) {
			return
		}
	}
	b.plan.Ports = numbers
}

// port takes the n-th port.
func (b *builder) port(n int, numbers, have []int, seed uint64, used map[int]bool) bool {
	if numbers[n] != 0 && slices.Contains(have, numbers[n]) {
		b.plan.Task = append(b.plan.Task, b.takeOwnPort(uint64(numbers[n])))
		return true
	}
	for _, suits := range []place.Suits{b.w.reservable, b.w.ready} {
		port := uint64(numbers[n])
		if port == 0 {
			var ok bool
			for try := range uint64(len(numbers) + 1) {
				if port, ok = b.pool.AnyPort(seed+try, suits); !ok || !used[int(port)] {
					break
				}
			}
			if !ok || used[int(port)] {
				continue
			}
		}
		r, ok := b.pool.TakePort(port, suits)
		if !ok {
			continue
		}
		numbers[n] = int(port)
		used[int(port)] = true
		if place.RoleOf(&r) == b.w.Role {
			b.plan.Task = append(b.plan.Task, r)
		} else {
			b.reserved(r, "")
		}
		return true
	}
	if numbers[n] != 0 {
		b.no(state.ReasonPorts, "needs port %d, offer does not have it", numbers[n])
	} else {
		b.no(state.ReasonPorts, "needs %d ports, offer has %d that can be reserved", len(numbers), n)
	}
	return false
}

func (b *builder) ownPorts() (have []int) {
	for i := range b.own {
		if b.own[i].Name == "ports" {
			for _, g := range b.own[i].Ranges {
				for p := g.Begin; p <= g.End && p < 1<<16; p++ {
					have = append(have, int(p))
				}
			}
		}
	}
	slices.Sort(have)
	return have
}

func (b *builder) takeOwnPort(port uint64) state.Resource {
	for i := range b.own {
		r := &b.own[i]
		if r.Name != "ports" {
			continue
		}
		for _, g := range r.Ranges {
			if g.Begin <= port && port <= g.End {
				t := *r
				t.Ranges = []state.Range{{Begin: port, End: port}}
				r.Ranges = cut(r.Ranges, port)
				return t
			}
		}
	}
	return state.Resource{}
}

func cut(ranges []state.Range, port uint64) (out []state.Range) {
	for _, g := range ranges {
		if port < g.Begin || port > g.End {
			out = append(out, g)
			continue
		}
		if g.Begin < port {
			out = append(out, state.Range{Begin: g.Begin, End: port - 1})
		}
		if port < g.End {
			out = append(out, state.Range{Begin: port + 1, End: g.End})
		}
	}
	return out
}

// volume takes a volume that is there, or makes it.
func (b *builder) volume(v *Volume) {
	found, _ := b.takeOwn(-1, func(r *state.Resource, _ string) bool { return r.Disk != nil && r.Disk.Persistence == v.ID })
	switch {
	case len(found) > 0:
		b.sized(v, found[0])
	case v.Created:
		b.no(state.ReasonReservation, "its volume %s is not in the offer", v.ID)
	default:
		b.make(v)
	}
}

// sized uses a volume, or changes its size first.
func (b *builder) sized(v *Volume, r state.Resource) {
	want, have := place.ToMilli(float64(v.SizeMB)), place.ToMilli(r.Scalar)
	whole := r.Disk.Source == "MOUNT" || r.Disk.Source == "BLOCK" || r.Shared || r.Provider != ""
	if v.Fixed || whole || want == have {
		b.plan.Task = append(b.plan.Task, r)
		return
	}
	b.plan.Later = true
	if b.plan.Resized == nil {
		b.plan.Resized = map[string]int64{}
	}
	b.plan.Resized[v.ID] = v.SizeMB
	if want < have {
		b.resize = append(b.resize, Op{Kind: Shrink, Resources: []state.Resource{r}, Subtract: (have - want).Float()})
		return
	}
	add, ok := b.addition(v, r, want-have)
	if !ok {
		return
	}
	b.resize = append(b.resize, Op{Kind: Grow, Resources: []state.Resource{r}, Addition: &add})
}

// addition is disk of the same kind as a volume, reserved as it is.
func (b *builder) addition(v *Volume, r state.Resource, more place.Milli) (state.Resource, bool) {
	add := plain(r)
	kind := place.Identity(&add)
	_, got := b.takeOwn(more, func(x *state.Resource, _ string) bool { return place.Identity(x) == kind })
	if got < more {
		_, labelled := OwnerOf(&r, b.w.Owner.Cluster)
		under := add
		if labelled {
			under = popped(add)
		}
		base := place.Identity(&under)
		same := func(x *state.Resource) bool { return place.Identity(x) == base }
		pieces, ok := b.pool.TakeWhole(more-got, add.Disk != nil, same, func(*state.Resource) bool { return false })
		if !ok {
			b.no(state.ReasonResources, "needs %s MB more disk for its volume %s, offer has %s of that kind", more-got, v.ID, b.pool.LargestDisk(add.Disk != nil, same))
			return add, false
		}
		for _, p := range pieces {
			if labelled {
				b.reserve = append(b.reserve, b.w.pushed(p, v.ID))
			}
		}
	}
	add.Scalar = more.Float()
	return add, true
}

// plain is the disk that a volume was made of.
func plain(r state.Resource) state.Resource {
	if r.Disk == nil {
		return r
	}
	d := *r.Disk
	d.Persistence, d.ContainerPath, d.Principal = "", "", ""
	r.Disk, r.Shared = &d, false
	if d == (state.Disk{}) {
		r.Disk = nil
	}
	return r
}

// make reserves a disk and creates the volume on it.
func (b *builder) make(v *Volume) {
	want := place.ToMilli(float64(v.SizeMB))
	disk, ok := b.madeOf(v, want)
	if !ok {
		return
	}
	d := state.Disk{}
	if disk.Disk != nil {
		d = *disk.Disk
	}
	if d.Source == "RAW" {
		// A storage provider makes the disk first; it is offered when it is there.
		b.resize = append(b.resize, Op{Kind: CreateDisk, Resources: []state.Resource{disk}, Target: "MOUNT"})
		b.plan.Later = true
		return
	}
	d.Persistence, d.ContainerPath, d.Principal = v.ID, v.ContainerPath, b.w.Principal
	disk.Disk = &d
	b.create = append(b.create, disk)
	b.plan.Task = append(b.plan.Task, disk)
}

// madeOf finds the disk for a new volume: what an earlier attempt has reserved for it, what can be reserved, or what is our role's anyhow.
func (b *builder) madeOf(v *Volume, want place.Milli) (state.Resource, bool) {
	suits := v.suits()
	own, got := b.takeOwn(want, func(r *state.Resource, volume string) bool {
		return volume == v.ID && r.Name == "disk" && (r.Disk == nil || r.Disk.Persistence == "") && suits(r)
	})
	if got >= want && len(own) > 0 {
		own[0].Scalar = got.Float()
		return own[0], true
	}
	b.unreserve = append(b.unreserve, own...) // not enough: given back, and reserved anew
	sources := v.Type != "root"
	for _, role := range []place.Suits{b.w.reservable, b.w.ready} {
		pieces, ok := b.pool.TakeWhole(want, sources, func(r *state.Resource) bool { return role(r) && suits(r) }, indivisible)
		if !ok {
			continue
		}
		var sum place.Milli
		labelled := place.RoleOf(&pieces[0]) != b.w.Role
		for n := range pieces {
			sum += place.ToMilli(pieces[n].Scalar)
			if labelled {
				pieces[n] = b.w.pushed(pieces[n], v.ID)
				b.reserve = append(b.reserve, pieces[n])
			}
		}
		disk := pieces[0]
		disk.Scalar = sum.Float()
		return disk, true
	}
	most := b.pool.LargestDisk(sources, func(r *state.Resource) bool { return (b.w.reservable(r) || b.w.ready(r)) && suits(r) })
	b.no(state.ReasonResources, "needs %s MB disk of type %s for the volume at %s%s, offer has %s that can be reserved in one piece", want, v.Type, v.ContainerPath, v.more(), most)
	return state.Resource{}, false
}

func indivisible(r *state.Resource) bool {
	return r.Disk != nil && (r.Disk.Source == "MOUNT" || r.Disk.Source == "BLOCK" || r.Disk.Source == "RAW" && r.Disk.ID != "")
}

// more tells what else the volume asks of a disk.
func (v *Volume) more() (text string) {
	if v.MaxSizeMB > 0 {
		text += fmt.Sprintf(" (at most %d MB)", v.MaxSizeMB)
	}
	if v.Profile != "" {
		text += fmt.Sprintf(" with profile %s", v.Profile)
	}
	for _, c := range v.Constraints {
		text += fmt.Sprintf(" with %s %s %s", c.Field, c.Operator, c.Value)
	}
	return text
}

// suits tells which disks the volume may be made of.
func (v *Volume) suits() place.Suits {
	var rules []*regexp.Regexp
	for _, c := range v.Constraints {
		re, err := regexp.Compile("^(?:" + c.Value + ")$")
		if err != nil {
			return func(*state.Resource) bool { return false }
		}
		rules = append(rules, re)
	}
	return func(r *state.Resource) bool {
		if v.Type == "root" {
			return r.Disk == nil
		}
		d := r.Disk
		if d == nil || d.Profile != v.Profile {
			return false
		}
		switch {
		case v.Type == "path" && d.Source == "PATH":
		case v.Type == "mount" && d.Source == "MOUNT":
		case v.Type == "mount" && d.Source == "RAW" && v.Profile != "":
			return true
		default:
			return false
		}
		if v.MaxSizeMB > 0 && r.Scalar > float64(v.MaxSizeMB) {
			return false
		}
		for n, c := range v.Constraints {
			if rules[n].MatchString(d.Root) != (c.Operator == "LIKE") {
				return false
			}
		}
		return true
	}
}

// surplus gives back what is reserved for the instance and was not taken. Volumes that the app does not name are kept.
func (b *builder) surplus() {
	for _, r := range b.own {
		if _, labelled := OwnerOf(&r, b.w.Owner.Cluster); labelled && (r.Scalar > 0 || len(r.Ranges) > 0) && (r.Disk == nil || r.Disk.Persistence == "") {
			b.unreserve = append(b.unreserve, r)
		}
	}
}

func (b *builder) finish() {
	p := &b.plan
	p.Ops = append(p.Ops, split(Unreserve, b.unreserve)...)
	p.Ops = append(p.Ops, split(Reserve, b.reserve)...)
	if len(b.create) > 0 && !p.Later {
		p.Ops = append(p.Ops, split(Create, b.create)...)
	}
	p.Ops = append(p.Ops, b.resize...)
	for i := range p.Ops {
		p.Ops[i].Instance = b.w.Owner.Instance
	}
}

// split makes one operation for each resource provider: Mesos takes no mixture.
func split(kind Kind, list []state.Resource) (ops []Op) {
	at := map[string]int{}
	for _, r := range list {
		n, there := at[r.Provider]
		if !there {
			n = len(ops)
			at[r.Provider] = n
			ops = append(ops, Op{Kind: kind})
		}
		ops[n].Resources = append(ops[n].Resources, r)
	}
	return ops
}

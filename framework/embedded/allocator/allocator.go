// Package allocator decides who is offered what: it knows the agents' resources, which of them are
// offered or used, the frameworks with their roles, suppressed roles and decline filters, and in
// every cycle hands the free resources of each agent to the role, and in it the framework, that has
// least of its dominant resource (DRF), passing over those that said no.
//
// It does no I/O and has no clock: the master calls it under its own lock and tells it the time.
// A cycle costs what the agents with free resources cost, not what runs on them.
package allocator

import (
	"cmp"
	"slices"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/resource"
)

// Allocation is one framework's share of one agent in a cycle.
type Allocation struct {
	Framework, Role, Agent string
	// Resources say in allocation_info what role they are for.
	Resources resource.List
}

// Framework is what the allocator has to know of a framework.
type Framework struct {
	Roles      []string
	Suppressed []string
	// Refinement says that the framework understands stacked reservations (RESERVATION_REFINEMENT);
	// without it, it is not offered them.
	Refinement bool
	// GPU says that the framework wants agents with GPUs (GPU_RESOURCES).
	GPU bool
}

// Allocator is not safe for concurrent use.
type Allocator struct {
	minFilter time.Duration
	agents    map[string]*agent
	order     []*agent // by registration
	fws       map[string]*framework
	roles     map[string]*role
	capacity  shares // scalars of all agents
}

type agent struct {
	id     string
	total  resource.List
	taken  resource.List // offered or used; unallocated
	free   resource.List // total without taken
	active bool
	gpu    bool
}

type framework struct {
	id         string
	info       Framework
	active     bool
	suppressed map[string]bool
	filters    map[filterKey][]filter
	used       map[string]shares // by role
	count      map[string]int    // allocations made, to take turns when shares are equal
}

type role struct {
	name  string
	used  shares
	count int
	fws   []*framework
}

type filterKey struct{ role, agent string }

type filter struct {
	resources resource.List // unallocated
	until     time.Time
}

// shares counts scalars by name.
type shares map[string]float64

func (s shares) add(l resource.List, sign float64) {
	for i := range l {
		if l[i].GetType() == mesos.SCALAR {
			s[l[i].Name] += sign * l[i].GetScalar().GetValue()
		}
	}
}

func (s shares) dominant(of shares) float64 {
	var most float64
	for name, v := range s {
		if t := of[name]; t > 0 {
			most = max(most, v/t)
		}
	}
	return most
}

// New makes an allocator. Filters last at least minFilter, so that a framework that declines for no
// time at all does not get the same offer back at once, over and over.
func New(minFilter time.Duration) *Allocator {
	return &Allocator{minFilter: minFilter, agents: map[string]*agent{}, fws: map[string]*framework{},
		roles: map[string]*role{}, capacity: shares{}}
}

// AddAgent makes an agent known, with its total resources and what frameworks use of it, by framework.
func (a *Allocator) AddAgent(id string, total resource.List, used map[string]resource.List) {
	ag := &agent{id: id, total: total, free: total, active: true, gpu: resource.Sum(total, "gpus") > 0}
	a.agents[id] = ag
	a.order = append(a.order, ag)
	a.capacity.add(total, 1)
	for fw, l := range used {
		a.take(ag, fw, l)
	}
}

// take counts allocated resources as not free.
func (a *Allocator) take(ag *agent, fw string, l resource.List) {
	ag.take(resource.Unallocate(l), nil)
	a.account(fw, l, 1)
}

// take counts some plain resources as taken and others as given back. What is free is worked out from the total
// every time, so that an agent that has less than is taken of it never seems to have more.
func (ag *agent) take(more, less resource.List) {
	ag.taken = resource.Add(resource.Subtract(ag.taken, less...), more...)
	ag.free = resource.Subtract(ag.total, ag.taken...)
}

func (a *Allocator) account(fw string, l resource.List, sign float64) {
	f := a.fws[fw]
	if f == nil && sign > 0 { // tasks of a framework that has not come back yet
		f = newFramework(fw)
		a.fws[fw] = f
	}
	for i := range l {
		name := l[i].AllocationInfo.GetRole()
		if r := a.roles[name]; r != nil && f != nil && slices.Contains(f.info.Roles, name) {
			r.used.add(l[i:i+1], sign)
		}
		if f != nil {
			if f.used[name] == nil {
				f.used[name] = shares{}
			}
			f.used[name].add(l[i:i+1], sign)
		}
	}
}

// RemoveAgent forgets an agent and every filter on it. What was allocated on it is recovered by the caller before.
func (a *Allocator) RemoveAgent(id string) {
	ag := a.agents[id]
	if ag == nil {
		return
	}
	delete(a.agents, id)
	a.order = slices.DeleteFunc(a.order, func(x *agent) bool { return x == ag })
	a.capacity.add(ag.total, -1)
	for _, f := range a.fws {
		for k := range f.filters {
			if k.agent == id {
				delete(f.filters, k)
			}
		}
	}
}

// SetAgentActive starts or stops offers of an agent.
func (a *Allocator) SetAgentActive(id string, active bool) {
	if ag := a.agents[id]; ag != nil {
		ag.active = active
	}
}

// Convert replaces resources of an agent that an operation changed: from becomes to, both unallocated.
// taken says that they are allocated (to fw) now, so that the free ones stay the same.
func (a *Allocator) Convert(id, fw string, from, to resource.List, taken bool) {
	ag := a.agents[id]
	if ag == nil {
		return
	}
	plainFrom, plainTo := resource.Unallocate(from), resource.Unallocate(to)
	ag.total = resource.Add(resource.Subtract(ag.total, plainFrom...), plainTo...)
	if !taken {
		ag.take(nil, nil)
		return
	}
	ag.take(plainTo, plainFrom)
	a.account(fw, from, -1)
	a.account(fw, to, 1)
}

// Free returns the free resources of an agent.
func (a *Allocator) Free(id string) resource.List {
	if ag := a.agents[id]; ag != nil {
		return ag.free
	}
	return nil
}

// SetFramework makes a framework known or changes it; active says whether it gets offers.
func (a *Allocator) SetFramework(id string, info Framework, active bool) {
	f := a.fws[id]
	if f == nil {
		f = newFramework(id)
		a.fws[id] = f
	}
	for _, name := range f.info.Roles {
		a.leave(f, name)
	}
	f.info, f.active, f.suppressed = info, active, map[string]bool{}
	for _, name := range info.Suppressed {
		f.suppressed[name] = true
	}
	for _, name := range info.Roles {
		r := a.roles[name]
		if r == nil {
			r = &role{name: name, used: shares{}}
			a.roles[name] = r
		}
		r.fws = append(r.fws, f)
		for n, v := range f.used[name] {
			r.used[n] += v
		}
	}
}

func newFramework(id string) *framework {
	return &framework{id: id, filters: map[filterKey][]filter{}, used: map[string]shares{}, count: map[string]int{}}
}

func (a *Allocator) leave(f *framework, name string) {
	r := a.roles[name]
	if r == nil {
		return
	}
	r.fws = slices.DeleteFunc(r.fws, func(x *framework) bool { return x == f })
	for n, v := range f.used[name] {
		r.used[n] -= v
	}
	if len(r.fws) == 0 {
		delete(a.roles, name)
	}
}

// SetFrameworkActive starts or stops offers to a framework; stopping also drops its filters, as a
// framework that comes back wants to see everything.
func (a *Allocator) SetFrameworkActive(id string, active bool) {
	if f := a.fws[id]; f != nil {
		f.active = active
		if !active {
			clear(f.filters)
		}
	}
}

// RemoveFramework forgets a framework. What was allocated to it is recovered by the caller before.
func (a *Allocator) RemoveFramework(id string) {
	f := a.fws[id]
	if f == nil {
		return
	}
	for _, name := range f.info.Roles {
		a.leave(f, name)
	}
	delete(a.fws, id)
}

// Suppress stops offers for some roles of a framework, or for all when none is named.
func (a *Allocator) Suppress(id string, roles []string) {
	if f := a.fws[id]; f != nil {
		for _, name := range orAll(roles, f.info.Roles) {
			f.suppressed[name] = true
		}
	}
}

// Revive undoes Suppress and drops the framework's filters for those roles.
func (a *Allocator) Revive(id string, roles []string) {
	f := a.fws[id]
	if f == nil {
		return
	}
	for _, name := range orAll(roles, f.info.Roles) {
		delete(f.suppressed, name)
		for k := range f.filters {
			if k.role == name {
				delete(f.filters, k)
			}
		}
	}
}

func orAll(some, all []string) []string {
	if len(some) > 0 {
		return some
	}
	return all
}

// Suppressed lists the suppressed roles of a framework.
func (a *Allocator) Suppressed(id string) []string {
	var out []string
	if f := a.fws[id]; f != nil {
		for name := range f.suppressed {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Recover takes back resources that were offered to or used by a framework. With refuse > 0 the
// framework is not offered them, or less, on that agent until then.
func (a *Allocator) Recover(fw, agentID string, l resource.List, refuse time.Duration, now time.Time) {
	if len(l) == 0 {
		return
	}
	a.account(fw, l, -1)
	ag := a.agents[agentID]
	if ag == nil {
		return
	}
	ag.take(nil, resource.Unallocate(l))
	f := a.fws[fw]
	if f == nil || refuse <= 0 {
		return
	}
	k := filterKey{role: l[0].AllocationInfo.GetRole(), agent: agentID}
	list := slices.DeleteFunc(f.filters[k], func(x filter) bool { return !x.until.After(now) })
	f.filters[k] = append(list, filter{resources: resource.Unallocate(l), until: now.Add(max(refuse, a.minFilter))})
}

// Cycle makes one round over all agents and returns what is to be offered; it counts as allocated from then on.
func (a *Allocator) Cycle(now time.Time) []Allocation {
	roles := make([]*role, 0, len(a.roles))
	for _, r := range a.roles {
		if slices.ContainsFunc(r.fws, func(f *framework) bool { return f.active && !f.suppressed[r.name] }) {
			roles = append(roles, r)
		}
	}
	if len(roles) == 0 {
		return nil
	}
	var out []Allocation
	for _, ag := range a.order {
		if ag.active && len(ag.free) > 0 {
			out = a.agentCycle(out, ag, roles, now)
		}
	}
	return out
}

// agentCycle offers the free resources of one agent; roles with reservations of their own may each get a part.
func (a *Allocator) agentCycle(out []Allocation, ag *agent, roles []*role, now time.Time) []Allocation {
	slices.SortFunc(roles, func(x, y *role) int {
		return cmp.Or(cmp.Compare(x.used.dominant(a.capacity), y.used.dominant(a.capacity)),
			cmp.Compare(x.count, y.count), cmp.Compare(x.name, y.name))
	})
	for _, r := range roles {
		mine := offerable(ag.free, r.name)
		if !allocatable(mine) {
			continue
		}
		slices.SortFunc(r.fws, func(x, y *framework) int {
			return cmp.Or(cmp.Compare(x.used[r.name].dominant(a.capacity), y.used[r.name].dominant(a.capacity)),
				cmp.Compare(x.count[r.name], y.count[r.name]), cmp.Compare(x.id, y.id))
		})
		for _, f := range r.fws {
			l := mine
			if !f.active || f.suppressed[r.name] || (ag.gpu && !f.info.GPU) {
				continue
			}
			if !f.info.Refinement {
				l = resource.Filter(l, func(x *mesos.Resource) bool { return !resource.IsRefined(x) })
			}
			if !allocatable(l) || f.refuses(r.name, ag.id, l, now) {
				continue
			}
			alloc := Allocation{Framework: f.id, Role: r.name, Agent: ag.id, Resources: resource.Allocate(l, r.name)}
			a.take(ag, f.id, alloc.Resources)
			f.count[r.name]++
			r.count++
			out = append(out, alloc)
			break
		}
	}
	return out
}

// offerable returns what of an agent's free resources a role may have, in the order Mesos lists
// them: unreserved ranges and sets, then reservations, then unreserved scalars.
func offerable(free resource.List, role string) resource.List {
	out := make(resource.List, 0, len(free))
	for pass := range 3 {
		for i := range free {
			r := &free[i]
			at := 1
			if !resource.IsReserved(r) {
				at = 0
				if r.GetType() == mesos.SCALAR {
					at = 2
				}
			}
			if at == pass && resource.AllocatableTo(r, role) {
				out = append(out, *r)
			}
		}
	}
	return out
}

// allocatable says whether resources are worth an offer: Mesos's --min_allocatable_resources, cpus:0.01|mem:32.
func allocatable(l resource.List) bool {
	return resource.Sum(l, "cpus") >= 0.01 || resource.Sum(l, "mem") >= 32
}

// refuses says whether a filter holds back these resources; filters that are over are dropped on the way.
func (f *framework) refuses(role, agentID string, l resource.List, now time.Time) bool {
	k := filterKey{role, agentID}
	list := f.filters[k]
	if len(list) == 0 {
		return false
	}
	list = slices.DeleteFunc(list, func(x filter) bool { return !x.until.After(now) })
	if len(list) == 0 {
		delete(f.filters, k)
		return false
	}
	f.filters[k] = list
	return slices.ContainsFunc(list, func(x filter) bool { return resource.Contains(x.resources, l) })
}

package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// placeBatch bounds how many instances one Step places, so that a commit stays small.
const placeBatch = 50

// explainGroups bounds how many groups of waiting instances get new reasons in one Step.
const explainGroups = 25

// site is an agent with what it offers in one role: where launches can be put together.
type site struct {
	agent    *state.Agent
	node     *state.Node // nil: no isolator is known there
	offers   []*state.Offer
	pool     *place.Pool
	at       place.Site
	load     int            // instances of any app there
	launches int            // that are being put together on its offers
	used     map[string]int // by driver: volumes that will be attached by launches of this and earlier Steps
	bundle   string
	until    time.Time // how long the offers may be held
}

// sites puts together the offers of an agent and role: those that are free to use, and what is left of bundles whose ACCEPT waits for
// grants, so that the next instance need not wait for the next offer.
func (w *work) sites() []*site {
	type bundle struct {
		agent state.AgentID
		role  string
		id    string
	}
	by := map[bundle]*site{}
	var list []*site
	for _, o := range w.offers() {
		k := bundle{o.Agent, o.Role, o.Bundle}
		s := by[k]
		if s == nil {
			a := w.agent(o.Agent)
			if a == nil {
				continue
			}
			s = &site{agent: a, node: w.nodeOf(o.Agent), at: place.Site{Hostname: a.Hostname, Region: a.Region, Zone: a.Zone, Attributes: a.Attributes},
				load: w.s.CountOn(o.Agent), bundle: o.ID, until: w.now.Add(w.env.Config.HoldFor)}
			by[k] = s
			list = append(list, s)
		}
		s.offers = append(s.offers, o)
	}
	list = slices.DeleteFunc(list, func(s *site) bool { return !w.fill(s) })
	slices.SortStableFunc(list, func(a, b *site) int { return compare(a.agent.Hostname, b.agent.Hostname) })
	return list
}

// fill gives a site its pool: what the offers hold, less what launches on them will use. false: the bundle is closed. It takes
// nobody more once one of its launches has its grants, or newcomers would keep that one waiting for ever.
func (w *work) fill(s *site) bool {
	s.pool = place.NewPool(s.offers)
	id := s.offers[0].Bundle
	if id == "" {
		return true
	}
	s.bundle = id
	for _, i := range w.holders(s.agent.ID, id) {
		s.launches++
		if allDone(i.Run) {
			return false
		}
		w.fitIn(i, w.spec(i.App, i.Run.Version), s.pool, s.offers, i.Run.Ports, 0)
		if i.WakeAt.Before(s.until) {
			s.until = i.WakeAt
		}
	}
	return true
}

// place finds agents for the waiting instances, group by group, the one that waits longest first.
func (w *work) place() {
	if !w.placeable || w.waitingCount() == 0 || w.frozen() {
		return
	}
	if ses := w.session(); !ses.Connected || ses.Stopped != "" {
		return
	}
	defer w.tellTokens()
	sites := w.sites()
	if len(sites) == 0 {
		return
	}
	if sites = w.placeReserved(sites); len(sites) == 0 {
		return
	}
	groups := w.groups()
	explained := w.toExplain(groups)
	most := most(sites)
	left := placeBatch
	for _, g := range groups {
		if !explained[g.Group] && !mayFit(most, w.spec(g.App, g.Version)) {
			continue
		}
		if left -= w.placeGroup(g, sites, left, explained[g.Group]); left <= 0 {
			w.more = true
			return
		}
	}
}

// toExplain picks the groups whose refusals this Step writes anew: all of few, else those whose last ones are the oldest.
func (w *work) toExplain(groups []*group) map[state.Group]bool {
	list := groups
	if len(list) > explainGroups {
		at := func(g *group) (t time.Time) {
			if r := w.s.Refusals[g.Group]; r != nil {
				t = r.At
			}
			return t
		}
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b *group) int { return at(a).Compare(at(b)) })
		list = list[:explainGroups]
	}
	m := make(map[state.Group]bool, len(list))
	for _, g := range list {
		m[g.Group] = true
	}
	return m
}

// most is more than any site has: what needs more fits nowhere.
func most(sites []*site) (m state.Totals) {
	for _, s := range sites {
		t := s.pool.Totals()
		m = state.Totals{CPUs: max(m.CPUs, t.CPUs), MemMB: max(m.MemMB, t.MemMB), DiskMB: max(m.DiskMB, t.DiskMB), GPUs: max(m.GPUs, t.GPUs), Ports: max(m.Ports, t.Ports)}
	}
	return m
}

func mayFit(m state.Totals, s *state.Spec) bool {
	const slack = 0.001
	return s.CPUs <= m.CPUs+slack && s.MemMB <= m.MemMB+slack && s.DiskMB <= m.DiskMB+slack && s.GPUs <= int(m.GPUs+slack) && len(s.Ports) <= m.Ports
}

// group is the waiting instances of one definition.
type group struct {
	state.Group
	list  []*state.Instance
	since time.Time
}

// groups gives all groups that wait, as they are now.
func (w *work) groups() []*group {
	by := map[state.Group]*group{}
	var list []*group
	changed := map[state.Group]bool{}
	for id := range w.touched {
		if i := w.s.Instances[id]; i != nil && i.Waits() {
			changed[i.Group()] = true
		}
		if i := w.instance(id); i != nil && i.Waits() {
			changed[i.Group()] = true
		}
	}
	w.s.WaitingGroups(func(g state.Group, waiting []*state.Instance) {
		if !changed[g] {
			by[g] = &group{Group: g, list: waiting}
		}
	})
	for g := range changed {
		by[g] = &group{Group: g, list: w.waiting(g)}
	}
	for _, g := range by {
		if len(g.list) > 0 {
			g.since = g.list[0].Since
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b *group) int {
		if c := a.since.Compare(b.since); c != 0 {
			return c
		}
		if c := compare(a.App, b.App); c != 0 {
			return c
		}
		return compare(a.Version, b.Version)
	})
	return list
}

// waiting gives one group as it is now.
func (w *work) waiting(g state.Group) []*state.Instance {
	var list []*state.Instance
	in := map[state.InstanceID]bool{}
	for _, i := range w.s.Waiting(g) {
		in[i.ID] = true
		if n := w.instance(i.ID); n != nil && n.Waits() && n.Group() == g {
			list = append(list, n)
		}
	}
	return w.withNew(list, func(i *state.Instance) bool { return i.Waits() && i.Group() == g && !in[i.ID] })
}

// candidate is a site that suits a group.
type candidate struct {
	*site
	count      int  // instances of the same app there
	threatened bool // a maintenance window is to come
}

// better tells whether a candidate is better than another: none with a maintenance window, then the one with fewer instances of the app, then of all apps.
func (c *candidate) better(than *candidate) bool {
	switch {
	case c.threatened != than.threatened:
		return than.threatened
	case c.count != than.count:
		return c.count < than.count
	}
	return c.load < than.load
}

// placeGroup places at most limit instances of a group and says how many it placed.
func (w *work) placeGroup(g *group, sites []*site, limit int, explain bool) (placed int) {
	app, spec := w.app(g.App), w.spec(g.App, g.Version)
	if app == nil || w.def(g.App, g.Version) == nil {
		return 0
	}
	// Look for an instance that can go at all before looking at a thousand offers.
	first := slices.IndexFunc(g.list, func(i *state.Instance) bool { return w.ready(i, spec) && w.bound(i) == nil })
	if first < 0 {
		return 0
	}
	job := &job{app: app, spec: spec, rules: place.NewRules(spec.Constraints), tally: w.tally(g.App, spec), no: refusals{off: !explain}}
	for _, s := range sites {
		if !w.inRole(spec, s) {
			continue
		}
		if job.no.enough() && !s.pool.Fits(spec) {
			job.no.skip(s)
			continue
		}
		if rs := append(w.unfit(s, spec), job.static(s)...); len(rs) > 0 {
			job.no.add(s, rs)
			continue
		}
		job.fit = append(job.fit, &candidate{site: s, count: w.countOn(g.App, s.agent.ID), threatened: w.threatened(s.agent)})
	}
	for _, i := range g.list[first:] {
		if placed == limit || len(job.fit) == 0 {
			break
		}
		if !w.ready(i, spec) || w.bound(i) != nil {
			continue
		}
		best := w.best(i, job)
		if best == nil {
			if !w.special(i) {
				break // the others are like it
			}
			continue
		}
		w.use(i, spec, best.site)
		placed++
		best.count++
		best.load++
		job.tally.Add(spec.Constraints, &best.at, 1)
	}
	if placed < limit && explain {
		w.refuse(g, &job.no)
	}
	return placed
}

// job is the placing of one group.
type job struct {
	app   *state.App
	spec  *state.Spec
	rules place.Rules
	tally place.Tally
	fit   []*candidate
	no    refusals
}

// static says which constraints no instance could ever meet at a site.
func (j *job) static(s *site) (rs []state.Reason) {
	for n := range j.rules {
		if r := &j.rules[n]; r.Static() && !r.Allows(&s.at, nil, 0) {
			rs = append(rs, state.Reason{Code: state.ReasonConstraint, Text: r.Refusal(&s.at, nil, 0)})
		}
	}
	return rs
}

// special tells whether an instance has wishes of its own, beyond those of its definition.
func (w *work) special(i *state.Instance) bool {
	if len(i.Avoid) > 0 || i.Pin != "" {
		return true
	}
	return slices.ContainsFunc(w.volumesFor(i), func(v *state.Volume) bool { return v != nil && v.Node != "" })
}

// best picks the site with the fewest instances of the app, then of all apps, then the first by host name; nil when none suits the
// instance now. Sites that are full fall out of the job.
func (w *work) best(i *state.Instance, j *job) *candidate {
	bad := w.failedBefore(i, j.fit)
	for {
		var best *candidate
		for _, c := range j.fit {
			if bad[c] || (best != nil && !c.better(best)) {
				continue
			}
			if rs := w.unfitFor(i, j, c.site); len(rs) > 0 {
				j.no.add(c.site, rs)
				continue
			}
			best = c
		}
		if best == nil && bad != nil {
			bad = nil // then rather where it failed before than nowhere
			continue
		}
		if best == nil {
			return nil
		}
		rs := w.unfit(best.site, j.spec)
		if len(rs) == 0 {
			return best
		}
		j.no.add(best.site, rs)
		j.fit = slices.DeleteFunc(j.fit, func(c *candidate) bool { return c == best })
	}
}

// failedBefore gives the sites whose node could not create a volume that the instance needs.
func (w *work) failedBefore(i *state.Instance, fit []*candidate) (bad map[*candidate]bool) {
	for _, v := range w.volumesFor(i) {
		if v == nil || v.Phase == state.VolumeReady || v.Attempts == 0 || v.Node == "" {
			continue
		}
		for _, c := range fit {
			if c.node != nil && c.node.UID == v.Node {
				if bad == nil {
					bad = map[*candidate]bool{}
				}
				bad[c] = true
			}
		}
	}
	return bad
}

// tally counts where the app's instances are.
func (w *work) tally(app state.AppID, spec *state.Spec) place.Tally {
	t := place.Tally{}
	if len(spec.Constraints) == 0 {
		return t
	}
	var missing map[state.AgentID]bool
	for _, id := range w.agentsOf(app) {
		if a := w.agent(id); a != nil {
			t.Add(spec.Constraints, &place.Site{Hostname: a.Hostname, Region: a.Region, Zone: a.Zone, Attributes: a.Attributes}, w.countOn(app, id))
			continue
		}
		if missing == nil {
			missing = map[state.AgentID]bool{}
		}
		missing[id] = true
	}
	if missing != nil {
		// Agents not seen since the start: the runs remember.
		for _, i := range w.instancesOf(app) {
			if i.Live() && missing[i.Run.Agent] {
				r := i.Run
				t.Add(spec.Constraints, &place.Site{Hostname: r.Hostname, Region: r.Region, Zone: r.Zone, Attributes: r.Attributes}, 1)
			}
		}
	}
	w.tallyReserved(app, spec, t)
	return t
}

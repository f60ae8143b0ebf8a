package scheduler

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// placeBatch bounds how many instances one Step places, so that a commit stays small.
const placeBatch = 50

// explainGroups bounds how many groups of waiting instances get new reasons in one Step.
const explainGroups = 25

// gotOffers notes new offers and what they tell of their agents.
func (w *work) gotOffers(e Offers) {
	if ses := w.session(); !ses.Connected || ses.Stopped != "" {
		return
	}
	byAgent := map[state.AgentID][]*state.Offer{}
	for _, o := range e.Offers {
		c := *o
		c.At, c.HeldFor, c.Bundle, c.Until = w.now, "", "", w.now.Add(w.env.Config.HoldFor)
		w.put(state.KindOffer, c.ID, &c)
		byAgent[c.Agent] = append(byAgent[c.Agent], &c)
		w.newOffers[c.Agent] = append(w.newOffers[c.Agent], c.ID)
	}
	for _, id := range sortedKeys(byAgent) {
		w.noteAgent(id, byAgent[id])
	}
	w.placeable = true
}

func (w *work) noteAgent(id state.AgentID, offers []*state.Offer) {
	o := offers[len(offers)-1]
	a := &state.Agent{ID: id, Hostname: o.Hostname, URL: o.AgentURL, Attributes: o.Attributes, Region: o.Region, Zone: o.Zone, LastOffer: w.now}
	t := place.NewPool(offers).Totals()
	if old := w.agent(id); old != nil {
		t = state.Totals{CPUs: max(t.CPUs, old.Total.CPUs), MemMB: max(t.MemMB, old.Total.MemMB), DiskMB: max(t.DiskMB, old.Total.DiskMB),
			GPUs: max(t.GPUs, old.Total.GPUs), Ports: max(t.Ports, old.Total.Ports)}
	} else {
		w.forgetLost(o.Hostname, time.Time{})
		// After a restart: what our own tasks use is the agent's too.
		for _, iid := range w.s.InstancesOn(id) {
			if i := w.instance(iid); i != nil && i.HasTask() {
				s := w.spec(i.App, i.Run.Version)
				t.CPUs, t.MemMB, t.DiskMB, t.GPUs, t.Ports = t.CPUs+s.CPUs, t.MemMB+s.MemMB, t.DiskMB+s.DiskMB, t.GPUs+float64(s.GPUs), t.Ports+len(i.Run.Ports)
			}
		}
	}
	a.Total = t
	w.put(state.KindAgent, string(id), a)
}

// forgetLost takes away the records of agents that are lost, run nothing of ours, and are of a host (that came back as another agent), or
// with host "" were lost before a time.
func (w *work) forgetLost(host string, before time.Time) {
	if w.s.LostAgents() == 0 {
		return
	}
	for _, id := range sortedKeys(w.s.Agents) {
		a := w.agent(id)
		if a == nil || a.LostAt.IsZero() || w.s.CountOn(id) > 0 {
			continue
		}
		if a.Hostname == host || (host == "" && a.LostAt.Before(before)) {
			w.remove(state.KindAgent, string(id))
		}
	}
}

// site is an agent with what it offers in one role: where launches can be put together.
type site struct {
	agent  *state.Agent
	node   *state.Node // nil: no isolator is known there
	offers []*state.Offer
	pool   *place.Pool
	at     place.Site
	load   int            // instances of any app there
	used   map[string]int // by driver: volumes that will be attached by launches of this and earlier Steps
	bundle string
	until  time.Time // how long the offers may be held
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
	for _, s := range list {
		s.pool = place.NewPool(s.offers)
		if id := s.offers[0].Bundle; id != "" {
			s.bundle = id
			for _, i := range w.holders(s.agent.ID, id) {
				s.pool.Take(w.spec(i.App, i.Run.Version), i.Run.Ports, 0)
				if i.WakeAt.Before(s.until) {
					s.until = i.WakeAt
				}
			}
		}
	}
	slices.SortStableFunc(list, func(a, b *site) int { return compare(a.agent.Hostname, b.agent.Hostname) })
	return list
}

// place finds agents for the waiting instances, group by group, the one that waits longest first.
func (w *work) place() {
	if !w.placeable || w.waitingCount() == 0 {
		return
	}
	if ses := w.session(); !ses.Connected || ses.Stopped != "" {
		return
	}
	sites := w.sites()
	if len(sites) == 0 {
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
	count int // instances of the same app there
}

// placeGroup places at most limit instances of a group and says how many it placed.
func (w *work) placeGroup(g *group, sites []*site, limit int, explain bool) (placed int) {
	app, spec := w.app(g.App), w.spec(g.App, g.Version)
	if app == nil || w.def(g.App, g.Version) == nil {
		return 0
	}
	// Look for an instance that can go at all before looking at a thousand offers.
	first := slices.IndexFunc(g.list, func(i *state.Instance) bool { return w.ready(i, spec) })
	if first < 0 {
		return 0
	}
	job := &job{app: app, spec: spec, rules: place.NewRules(spec.Constraints), tally: w.tally(g.App, spec), no: refusals{off: !explain}}
	for _, s := range sites {
		if job.no.enough() && !s.pool.Fits(spec) {
			job.no.skip(s)
			continue
		}
		if rs := append(w.unfit(s, spec), job.static(s)...); len(rs) > 0 {
			job.no.add(s, rs)
			continue
		}
		job.fit = append(job.fit, &candidate{site: s, count: w.countOn(g.App, s.agent.ID)})
	}
	for _, i := range g.list[first:] {
		if placed == limit || len(job.fit) == 0 {
			break
		}
		if !w.ready(i, spec) {
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
	if len(i.Avoid) > 0 {
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
			if bad[c] || (best != nil && (c.count > best.count || (c.count == best.count && c.load >= best.load))) {
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
	return t
}

// use takes a site for an instance: its volumes are created there first, or its launch begins.
func (w *work) use(i *state.Instance, spec *state.Spec, s *site) {
	var toCreate []*state.Volume
	volumes := w.volumesFor(i)
	for _, v := range volumes {
		if create, _, _ := w.volumeState(v); create {
			toCreate = append(toCreate, v)
		}
	}
	r := w.random()
	_, ports, ok := s.pool.Take(spec, nil, binary.BigEndian.Uint64(r[:8]))
	if !ok {
		return // unfit has just said that it fits
	}
	if len(toCreate) > 0 {
		w.prepare(i, toCreate, s)
		return
	}
	w.begin(i, spec, s, ports, volumes)
}

// prepare has volumes created where the instance could run. The offer is kept for a while, so that it need not come round again.
func (w *work) prepare(i *state.Instance, volumes []*state.Volume, s *site) {
	for _, v := range volumes {
		w.create(v, s.node.UID)
	}
	c := w.edit(i)
	w.setPhase(c, state.PhasePreparing)
	w.putInstance(c)
	for _, o := range s.offers {
		k := *w.offer(o.ID)
		if k.Bundle != "" {
			continue
		}
		k.HeldFor = i.ID
		w.put(state.KindOffer, k.ID, &k)
	}
}

// begin commits the start of a launch: the epochs first, then the grants are asked for (L1). A run without claims has nothing to wait for.
func (w *work) begin(i *state.Instance, spec *state.Spec, s *site, ports []int, volumes []*state.Volume) {
	c := w.edit(i)
	c.Incarnation++
	c.Avoid = nil
	c.Run = &state.Run{
		Task: state.NewTaskID(c.ID, c.Incarnation, w.randomHex(6)), Version: c.Version, Agent: s.agent.ID, Hostname: s.agent.Hostname, AgentURL: s.agent.URL,
		Region: s.agent.Region, Zone: s.agent.Zone, Attributes: attributesFor(spec, s.agent), Ports: ports, Offer: s.bundle, StagedAt: w.now,
	}
	if s.node != nil {
		c.Run.Node = s.node.UID
	}
	for _, v := range volumes {
		if v.Shared {
			continue
		}
		g := state.Grant{Volume: v.UID, Epoch: w.nextEpoch(v), Nonce: w.randomHex(32)}
		nv := *v
		nv.Epoch = g.Epoch
		w.putVolume(&nv)
		c.Run.Claims = append(c.Run.Claims, g)
		w.authority(Grant{Volume: v.UID, Ref: v.Ref, Epoch: g.Epoch, Nonce: g.Nonce, Agent: s.agent.ID, Node: c.Run.Node, Policy: v.Policy, Owner: string(c.Run.Task)})
		if s.used == nil {
			s.used = map[string]int{}
		}
		s.used[v.Ref.Driver]++
	}
	w.setPhase(c, state.PhaseGranting)
	c.WakeAt = s.until
	w.putInstance(c)
	for _, o := range s.offers {
		k := *w.offer(o.ID)
		if k.Bundle == "" {
			k.Bundle, k.HeldFor, k.Until = s.bundle, i.ID, time.Time{}
			w.put(state.KindOffer, k.ID, &k)
		}
	}
}

func attributesFor(spec *state.Spec, a *state.Agent) map[string]string {
	var m map[string]string
	for _, c := range spec.Constraints {
		if v, ok := a.Attributes[c.Field]; ok {
			if m == nil {
				m = map[string]string{}
			}
			m[c.Field] = v
		}
	}
	return m
}

// holders gives the instances whose launch is being put together on a bundle of offers.
func (w *work) holders(agent state.AgentID, bundle string) []*state.Instance {
	var list []*state.Instance
	seen := map[state.InstanceID]bool{}
	add := func(i *state.Instance) {
		if i != nil && !seen[i.ID] && i.Phase == state.PhaseGranting && i.Run.Agent == agent && i.Run.Offer == bundle {
			seen[i.ID] = true
			list = append(list, i)
		}
	}
	for _, id := range w.s.GrantingOn(agent) {
		add(w.instance(id))
	}
	for id := range w.touched {
		add(w.instance(id))
	}
	slices.SortFunc(list, func(a, b *state.Instance) int { return compare(a.ID, b.ID) })
	return list
}

// bundleOffers gives the offers of a bundle, sorted by id.
func (w *work) bundleOffers(agent state.AgentID, bundle string) []*state.Offer {
	ids := append(slices.Clone(w.s.OffersOn(agent)), w.newOffers[agent]...)
	slices.Sort(ids)
	var list []*state.Offer
	for _, id := range slices.Compact(ids) {
		if o := w.offer(id); o != nil && o.Bundle == bundle {
			list = append(list, o)
		}
	}
	return list
}

// freeBundle makes the offers of a bundle usable for others.
func (w *work) freeBundle(agent state.AgentID, bundle string) {
	for _, o := range w.bundleOffers(agent, bundle) {
		c := *o
		c.Bundle, c.HeldFor, c.Until = "", "", w.now
		w.put(state.KindOffer, c.ID, &c)
	}
	w.placeable = true
}

// sendBundles accepts the offers of each bundle that waits for no grant any more.
func (w *work) sendBundles() {
	type bundle struct {
		agent state.AgentID
		id    string
	}
	var done map[bundle]bool
	for _, o := range w.offers() {
		b := bundle{o.Agent, o.Bundle}
		if o.Bundle == "" || done[b] {
			continue
		}
		if done == nil {
			done = map[bundle]bool{}
		}
		done[b] = true
		holders := w.holders(b.agent, b.id)
		if len(holders) == 0 {
			w.freeBundle(b.agent, b.id)
			continue
		}
		if !slices.ContainsFunc(holders, func(i *state.Instance) bool { return !allDone(i.Run) }) {
			w.accept(b.agent, b.id, holders)
		}
	}
}

func allDone(r *state.Run) bool {
	for _, g := range r.Claims {
		if !g.Done {
			return false
		}
	}
	return true
}

// accept commits the instances as launched, and asks for the ACCEPT (order rule 2).
func (w *work) accept(agent state.AgentID, bundle string, holders []*state.Instance) {
	offers := w.bundleOffers(agent, bundle)
	pool := place.NewPool(offers)
	a := Accept{Agent: agent, Refuse: w.env.Config.DeclineFor}
	for _, o := range offers {
		a.Offers = append(a.Offers, o.ID)
		w.remove(state.KindOffer, o.ID)
	}
	for _, i := range holders {
		d := w.def(i.App, i.Run.Version)
		if d == nil {
			w.cancelGranting(i, refusedPause)
			continue
		}
		resources, _, ok := pool.Take(&d.Spec, i.Run.Ports, 0)
		if !ok {
			w.cancelGranting(i, refusedPause)
			continue
		}
		c := w.edit(i)
		w.setPhase(c, state.PhaseLaunching)
		c.Run.StagedAt = w.now
		c.WakeAt = w.now.Add(launchPatience)
		w.putInstance(c)
		a.Launches = append(a.Launches, Launch{Instance: c, Run: c.Run, Def: d, Resources: resources, Volumes: w.taskVolumes(c, &d.Spec)})
	}
	if w.waitingCount() > 0 || w.preparing() > 0 {
		a.Refuse = 0
	}
	if len(a.Launches) == 0 {
		w.master(Decline{Offers: a.Offers})
		return
	}
	w.master(a)
}

// giveBack declines what nothing wants. An offer on which an instance's volumes are being created is kept a little.
func (w *work) giveBack() {
	if w.more {
		return
	}
	var ids []string
	for _, o := range w.offers() {
		if o.Bundle != "" {
			continue
		}
		if o.HeldFor != "" && w.preparing() > 0 && o.Until.After(w.now) {
			continue
		}
		ids = append(ids, o.ID)
		w.remove(state.KindOffer, o.ID)
	}
	if len(ids) > 0 {
		w.master(Decline{Offers: ids, Refuse: w.env.Config.DeclineFor})
	}
}

// interest tells the master whether offers are wanted.
func (w *work) interest() {
	ses := w.session()
	if !ses.Connected || ses.Stopped != "" {
		return
	}
	waits := w.waitingCount() > 0 || w.preparing() > 0
	// The return of a lost agent shows in its offers only.
	lost := w.lostAgents() > 0
	switch {
	case !waits && !lost && !ses.Suppressed:
		w.setSession(func(s *state.Session) { s.Suppressed = true })
		w.master(Suppress{})
	case (w.newcomer || w.room) && w.unplaced(), lost && ses.Suppressed:
		w.setSession(func(s *state.Session) { s.Suppressed = false })
		w.master(Revive{})
	}
}

// lostAgents counts the agents that are lost as of now.
func (w *work) lostAgents() int {
	n := w.s.LostAgents()
	for _, k := range w.order {
		if k.kind != state.KindAgent {
			continue
		}
		if old := w.s.Agents[state.AgentID(k.id)]; old != nil && !old.LostAt.IsZero() {
			n--
		}
		if a, ok := w.over[k].(*state.Agent); ok && !a.LostAt.IsZero() {
			n++
		}
	}
	return n
}

// unplaced tells whether an instance that this Step touched still waits and could go at once.
func (w *work) unplaced() bool {
	if w.waitingCount() == 0 {
		return false
	}
	for _, g := range w.groups() {
		spec := w.spec(g.App, g.Version)
		if slices.ContainsFunc(g.list, func(i *state.Instance) bool { return w.ready(i, spec) }) {
			return true
		}
	}
	return false
}

// taskVolumes gives the external volumes of a task. Ours travel among the driver options of the managed ones as a cross-check.
func (w *work) taskVolumes(i *state.Instance, spec *state.Spec) []TaskVolume {
	var list []TaskVolume
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountExternal {
			continue
		}
		t := TaskVolume{Ref: refOf(m, i.Ordinal), ContainerPath: m.ContainerPath, ReadOnly: m.ReadOnly, Options: maps.Clone(m.Options)}
		if v := w.volumeByRef(t.Ref); v != nil {
			for _, g := range i.Run.Claims {
				if g.Volume == v.UID {
					t.Options = volume.Grant{VolumeUID: string(v.UID), Epoch: g.Epoch, Nonce: g.Nonce, Task: string(i.Run.Task), MustExist: true}.Encode(m.Options)
				}
			}
		}
		list = append(list, t)
	}
	return list
}

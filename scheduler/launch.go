package scheduler

import (
	"maps"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// use takes a site for an instance: its volumes are created there first, or its launch begins.
func (w *work) use(i *state.Instance, spec *state.Spec, s *site) {
	var toCreate []*state.Volume
	volumes := w.volumesFor(i)
	for _, v := range volumes {
		if create, _, _ := w.volumeState(v); create {
			toCreate = append(toCreate, v)
		}
	}
	if w.prepareDisks(i, spec, s) {
		return
	}
	_, ports, ok := w.fitIn(i, spec, s.pool, s.offers, nil, w.seed())
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
	w.spendToken()
	s.launches++
	c := w.edit(i)
	c.Incarnation++
	c.Avoid = nil
	c.Run = &state.Run{
		Task: state.NewTaskID(c.ID, c.Incarnation, w.randomHex(6)), Version: c.Version, Agent: s.agent.ID, Hostname: s.agent.Hostname, AgentURL: s.agent.URL,
		Region: s.agent.Region, Zone: s.agent.Zone, Attributes: attributesFor(spec, s.agent), Ports: ports, Offer: s.bundle, StagedAt: w.now, Idle: c.Paused, Pod: podRun(spec),
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
	hostname, role := offers[0].Hostname, offers[0].Role
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
		var r *state.Reserved
		if d.Spec.Reserves() {
			if r = w.reservedOf(i.ID); r == nil {
				r = w.freshReserved(i, agent, hostname, role)
			}
			r = w.withVolumes(r, &d.Spec)
		}
		plan, ports, ok := w.takeRoom(i, d, r, pool, offers)
		if !ok {
			w.cancelGranting(i, refusedPause)
			continue
		}
		if i.Run.Idle {
			d = idle(d)
		}
		c := w.edit(i)
		if r != nil {
			c.Run.Ports, c.Run.Local = ports, localOf(&plan)
			a.Operations = append(a.Operations, w.launchOps(c, r, &plan)...)
		}
		w.setPhase(c, state.PhaseLaunching)
		c.Run.StagedAt = w.now
		c.WakeAt = w.now.Add(launchPatience)
		w.putInstance(c)
		a.Launches = append(a.Launches, Launch{Instance: c, Run: c.Run, Def: d, Resources: plan.Task, Volumes: w.taskVolumes(c, &d.Spec)})
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

// taskVolumes gives the external volumes of a task. Ours travel among the driver options of the managed ones as a cross-check.
func (w *work) taskVolumes(i *state.Instance, spec *state.Spec) []TaskVolume {
	var list []TaskVolume
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountExternal {
			continue
		}
		t := TaskVolume{Ref: refOf(m, i.Ordinal), ContainerPath: m.ContainerPath, ReadOnly: m.ReadOnly, Options: maps.Clone(m.Options), Managed: w.s.NodeOf(i.Run.Agent) != nil}
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

package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/place"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// What a person reads is bounded: so many agents are listed for a group, and so many of its instances get an entry of their own
// when only the offers changed. State.WhyOf puts the rest together.
const (
	refusalAgents = 50
	refusalWhys   = 20
)

// ready tells whether a waiting instance could be launched, or its volumes created, on a fitting offer.
func (w *work) ready(i *state.Instance, spec *state.Spec) bool {
	return len(w.obstacles(i, spec, true)) == 0
}

// obstacles says what keeps a waiting instance from any offer. first stops at the first.
func (w *work) obstacles(i *state.Instance, spec *state.Spec, first bool) (rs []state.Reason) {
	if i.BackoffUntil.After(w.now) {
		rs = append(rs, state.Reason{Code: state.ReasonBackoff, Text: w.backoffText(i), Until: i.BackoffUntil})
		if first {
			return rs
		}
	}
	if r := w.noToken(); r.Code != "" {
		rs = append(rs, r)
		if first {
			return rs
		}
	}
	if w.serial(i.App) {
		if other := w.before(i); other != "" {
			rs = append(rs, state.Reason{Code: state.ReasonOrder, Text: fmt.Sprintf("its app starts one instance at a time (order serial), and %s is starting", other)})
			if first {
				return rs
			}
		}
	}
	if len(spec.Volumes) == 0 {
		return rs
	}
	for n := range spec.Volumes {
		m := &spec.Volumes[n]
		if m.Kind != state.MountExternal {
			continue
		}
		v := w.volumeByRef(refOf(m, i.Ordinal))
		r := w.volumeObstacle(v, i)
		if v != nil && v.Shared != m.Shared {
			r = state.Reason{Code: state.ReasonVolume, Text: fmt.Sprintf("volume %s is %s, and the app wants it otherwise", v.Ref, sharing(v))}
		}
		if r.Code != "" {
			rs = append(rs, r)
		}
		if first && len(rs) > 0 {
			return rs
		}
	}
	return rs
}

func (w *work) volumeObstacle(v *state.Volume, i *state.Instance) state.Reason {
	if v != nil && !v.Shared && v.Instance != i.ID {
		return state.Reason{Code: state.ReasonVolume, Text: fmt.Sprintf("volume %s belongs to instance %s", v.Ref, v.Instance)}
	}
	if _, text, until := w.volumeState(v); text != "" {
		return state.Reason{Code: state.ReasonVolume, Text: text, Until: until}
	}
	if ses := w.session(); !ses.AuthoritySeen {
		return state.Reason{Code: state.ReasonNoAuthority, Text: "the lease authority was not read yet"}
	} else if ses.AuthorityLost != "" {
		return state.Reason{Code: state.ReasonNoAuthority, Text: "the lease authority cannot be read: " + ses.AuthorityLost}
	}
	if v.Shared {
		return state.Reason{}
	}
	c := w.claim(v.UID)
	switch {
	case c == nil:
		return state.Reason{} // not seen yet; the grant will tell
	case c.Tombstone:
		return state.Reason{Code: state.ReasonClaim, Text: fmt.Sprintf("volume %s was removed", v.Ref)}
	case c.State != state.ClaimFree:
		return ClaimReason(w.node(c.Node), c, w.frozen())
	}
	return state.Reason{}
}

// spoken is how an operator gives the word that frees a volume.
func spoken(c *state.Claim) string { return "holdfast volume release " + c.Ref.String() }

// ClaimReason says who has a claim that is not free, since when, and what it takes to become free. n is its node, nil when no record of it is known; frozen says that
// a hold is on.
func ClaimReason(n *state.Node, c *state.Claim, frozen bool) state.Reason {
	if c.State == state.ClaimGranted {
		return state.Reason{Code: state.ReasonClaim, Text: fmt.Sprintf("volume %s is granted to agent %s at epoch %d, and was not mounted yet", c.Ref, c.Agent, c.Epoch)}
	}
	holder := string(c.Node)
	if n != nil && n.Hostname != "" {
		holder = n.Hostname
	}
	text := fmt.Sprintf("volume %s is held by node %s since %s (epoch %d)", c.Ref, holder, c.Since.UTC().Format(time.RFC3339), c.Epoch)
	r := state.Reason{Code: state.ReasonClaim, Text: text}
	switch {
	case n == nil:
		r.Text += "; no record of that node is known, so an operator has to give the word: " + spoken(c)
	case !n.Alive:
		r.Code = state.ReasonFencing
		r.Text += "; the node's lease has run out"
		if c.Policy == "operator" {
			r.Text += ", and its policy waits for an operator's word: " + spoken(c)
		} else if c.Fence != "reset" && (c.Fence != "soft" || c.MinGrade != "soft") {
			r.Text += fmt.Sprintf(", but when it took the volume it could fence itself with grade %q only, which does not free it by itself: an operator has to give the word: %s", c.Fence, spoken(c))
		}
	case !n.SuspectSince.IsZero():
		r.Code, r.Until = state.ReasonFencing, n.FreeBy
		r.Text += fmt.Sprintf("; the node's lease has stood still since %s", n.SuspectSince.UTC().Format(time.RFC3339))
		if frozen {
			r.Until = time.Time{}
			r.Text += ", but no node is declared dead during a hold"
		} else if n.Kept != "" {
			r.Text += ", but it is never declared dead (" + n.Kept + "): an operator has to give the word: " + spoken(c)
		} else if !n.FreeBy.IsZero() {
			r.Text += ", it is free by " + n.FreeBy.UTC().Format(time.RFC3339)
		}
	case c.Revoke:
		r.Code = state.ReasonFencing
		r.Text += "; the node lives and was asked to give it back"
	}
	return r
}

func (w *work) backoffText(i *state.Instance) string {
	if i.Failures == 0 {
		return "a short pause before the next attempt"
	}
	text := fmt.Sprintf("its last %d runs ended by themselves", i.Failures)
	if i.Failures == 1 {
		text = "its last run ended by itself"
	}
	if a := w.app(i.App); a != nil && a.LastTaskFailure != nil && a.LastTaskFailure.Instance == i.ID {
		f := a.LastTaskFailure
		if _, n, ok := state.ParseTaskID(f.Task); !ok || n != i.Incarnation {
			return text + "; it waits before the next start"
		}
		text += fmt.Sprintf(", the last one with %s on %s", f.State, f.Host)
		if f.Message != "" {
			text += " (" + f.Message + ")"
		}
	}
	return text + "; it waits before the next start"
}

// unfit says why a site does not suit any instance of a definition.
func (w *work) unfit(s *site, spec *state.Spec) []state.Reason {
	if r := w.closed(s.agent); r.Code != "" {
		return []state.Reason{r}
	}
	if r := w.full(s); r.Code != "" {
		return []state.Reason{r}
	}
	var rs []state.Reason
	if spec.Reserves() {
		rs = w.unreservable(s, spec)
	} else if !s.pool.Fits(spec) {
		rs = s.pool.Misfits(spec, s.agent.Total)
	}
	return append(rs, w.unfitNode(s, spec)...)
}

// unfitNode says why the node beside a site's agent does not suit a definition's external volumes.
func (w *work) unfitNode(s *site, spec *state.Spec) (rs []state.Reason) {
	if len(spec.Volumes) == 0 {
		return nil
	}
	need := map[string]int{} // by driver
	for n := range spec.Volumes {
		if m := &spec.Volumes[n]; m.Kind == state.MountExternal {
			need[m.Driver]++
		}
	}
	if len(need) == 0 {
		return rs
	}
	add := func(code, text string, args ...any) {
		rs = append(rs, state.Reason{Code: code, Text: fmt.Sprintf(text, args...)})
	}
	n := s.node
	switch {
	case n == nil:
		add(state.ReasonNoNode, "no isolator is known beside this agent")
		if spec.Unprotected {
			add(state.ReasonNotSupported, "this version does not use volumes without one, for unprotected apps either")
		}
		return rs
	case !n.Alive:
		add(state.ReasonNodeDead, "the lease of its isolator ran out")
		return rs
	case !n.SuspectSince.IsZero():
		add(state.ReasonNodeDead, "the lease of its isolator has stood still since %s", n.SuspectSince.UTC().Format(time.RFC3339))
		return rs
	case n.Draining:
		add(state.ReasonDraining, "the node is being drained")
	}
	if text := wrongZone(s, spec); text != "" {
		add(state.ReasonConstraint, "%s", text)
	}
	for _, name := range sortedKeys(need) {
		d, there := n.Drivers[name]
		switch {
		case !there:
			add(state.ReasonDriver, "the node has no volume driver %q", name)
		case !d.Ready:
			add(state.ReasonDriver, "volume driver %q is not ready: %s", name, d.Because)
		case d.AttachLimit > 0:
			if used := w.attachedAt(s, name); used+need[name] > d.AttachLimit {
				add(state.ReasonAttachLimit, "%d of at most %d volumes of driver %q are attached, %d more are needed", used, d.AttachLimit, name, need[name])
			}
		}
	}
	return rs
}

// attachedAt counts the volumes that are attached at a site's node, or will be by launches under way.
func (w *work) attachedAt(s *site, driver string) int {
	n := w.s.Attached(s.node.UID, driver) + w.attached[s.node.UID][driver] + s.used[driver]
	for _, id := range w.s.GrantingOn(s.agent.ID) {
		if i := w.s.Instances[id]; i.Phase == state.PhaseGranting {
			for _, g := range i.Run.Claims {
				if v, c := w.volume(g.Volume), w.claim(g.Volume); v != nil && v.Ref.Driver == driver && (c == nil || c.Epoch < g.Epoch) {
					n++
				}
			}
		}
	}
	return n
}

// unfitFor says why a site that suits the definition does not suit one instance of it, or not now.
func (w *work) unfitFor(i *state.Instance, j *job, s *site) (rs []state.Reason) {
	if slices.Contains(i.Avoid, s.agent.ID) {
		rs = append(rs, state.Reason{Code: state.ReasonAvoid, Text: "it was asked to move away from here"})
	}
	if text := w.held(i, s.agent.ID); text != "" {
		rs = append(rs, state.Reason{Code: state.ReasonPaused, Text: text})
	}
	for n := range j.rules {
		if r := &j.rules[n]; !r.Static() && !r.Allows(&s.at, j.tally, j.app.Instances) {
			no := state.Reason{Code: state.ReasonConstraint}
			if !j.no.off {
				no.Text = r.Refusal(&s.at, j.tally, j.app.Instances)
			}
			rs = append(rs, no)
		}
	}
	if s.node != nil && len(j.spec.Volumes) > 0 {
		for _, v := range w.volumesFor(i) {
			if v == nil {
				continue
			}
			if text := w.pinned(v, s.node); text != "" {
				rs = append(rs, state.Reason{Code: state.ReasonVolume, Text: text})
			}
		}
	}
	return rs
}

// refusals collects why agents did not do.
type refusals struct {
	list []state.AgentReason
	more int
	at   map[state.AgentID]int // -1: counted, not listed
	off  bool                  // nobody will read them
}

// enough tells that further agents are only counted.
func (r *refusals) enough() bool { return r.off || len(r.list) >= refusalAgents }

// skip counts an agent without saying why.
func (r *refusals) skip(s *site) {
	if r.off {
		return
	}
	if _, ok := r.at[s.agent.ID]; !ok {
		r.more++
		r.at[s.agent.ID] = -1
	}
}

func (r *refusals) add(s *site, reasons []state.Reason) {
	if r.off {
		return
	}
	if r.at == nil {
		r.at = map[state.AgentID]int{}
	}
	ar := state.AgentReason{Agent: s.agent.ID, Hostname: s.agent.Hostname, Reasons: reasons}
	if n, ok := r.at[s.agent.ID]; ok {
		if n >= 0 {
			r.list[n] = ar
		}
		return
	}
	if len(r.list) >= refusalAgents {
		r.more++
		r.at[s.agent.ID] = -1
		return
	}
	r.at[s.agent.ID] = len(r.list)
	r.list = append(r.list, ar)
}

// refuse keeps why a group was not placed: what is new replaces what was known of the same agents.
func (w *work) refuse(g *group, no *refusals) {
	if len(no.list) == 0 {
		return
	}
	id := state.DefID(g.App, g.Version)
	now := &state.Refusal{Group: g.Group, At: w.now, Agents: slices.Clone(no.list), More: no.more}
	if old := w.s.Refusals[g.Group]; old != nil {
		for _, a := range old.Agents {
			if _, new := no.at[a.Agent]; new || len(now.Agents) >= refusalAgents {
				continue
			}
			if ag := w.agent(a.Agent); ag == nil || !ag.LostAt.IsZero() {
				continue
			}
			now.Agents = append(now.Agents, a)
		}
		now.More = max(now.More, old.More)
	}
	slices.SortFunc(now.Agents, func(a, b state.AgentReason) int { return compare(a.Hostname, b.Hostname) })
	w.put(state.KindRefusal, id, now)
	for n, i := range g.list {
		if n == refusalWhys {
			break
		}
		w.touched[i.ID] = true
	}
}

// explain keeps Why for every instance that this Step touched.
func (w *work) explain() {
	for app, ok := w.began.next(); ok; app, ok = w.began.next() {
		for _, i := range w.instancesOf(app) {
			if i.Waits() {
				w.touched[i.ID] = true
			}
		}
	}
	groups := map[state.Group]bool{}
	for _, id := range sortedKeys(w.touched) {
		i := w.instance(id)
		if base := w.s.Instances[id]; base != nil && base.Waits() {
			groups[base.Group()] = true
		}
		if i != nil {
			w.setWhy(i)
		} else if w.s.Why[id] != nil {
			w.remove(state.KindWhy, string(id))
		}
	}
	var over []string
	for g := range groups {
		if w.s.Refusals[g] != nil && len(w.waiting(g)) == 0 {
			over = append(over, state.DefID(g.App, g.Version))
		}
	}
	slices.Sort(over)
	for _, id := range over {
		w.remove(state.KindRefusal, id)
	}
}

func (w *work) setWhy(i *state.Instance) {
	old := w.s.Why[i.ID]
	now := w.why(i)
	switch {
	case now == nil && old != nil:
		w.remove(state.KindWhy, string(i.ID))
	case now == nil:
	case old != nil && sameWhy(old, now):
	default:
		now.Instance, now.At, now.Since = i.ID, w.now, i.Since
		w.put(state.KindWhy, string(i.ID), now)
	}
}

func sameWhy(a, b *state.Why) bool {
	return a.Summary == b.Summary && slices.Equal(a.Reasons, b.Reasons) &&
		slices.EqualFunc(a.Agents, b.Agents, func(x, y state.AgentReason) bool {
			return x.Agent == y.Agent && slices.Equal(x.Reasons, y.Reasons)
		})
}

// why says what an instance waits for; nil when it runs as wanted.
func (w *work) why(i *state.Instance) *state.Why {
	one := func(code, text string) *state.Why {
		return &state.Why{Summary: text, Reasons: []state.Reason{{Code: code, Text: text}}}
	}
	switch i.Phase {
	case state.PhaseWaiting:
		return w.whyWaiting(i)
	case state.PhasePreparing:
		y := &state.Why{}
		for _, v := range w.volumesFor(i) {
			if _, text, until := w.volumeState(v); text != "" {
				y.Reasons = append(y.Reasons, state.Reason{Code: state.ReasonVolume, Text: text, Until: until})
			}
		}
		return summed(y)
	case state.PhaseGranting:
		return one(state.ReasonGranting, fmt.Sprintf("the claims of its volumes were asked for, for agent %s", i.Run.Hostname))
	case state.PhaseLaunching:
		return one(state.ReasonStarting, fmt.Sprintf("launched on %s, which has not reported yet", i.Run.Hostname))
	case state.PhaseStaging:
		return one(state.ReasonStarting, fmt.Sprintf("starting on %s", i.Run.Hostname))
	case state.PhaseRunning:
		return w.whyRunning(i)
	case state.PhaseKilling:
		return one(state.ReasonKilling, fmt.Sprintf("being stopped on %s: %s", i.Run.Hostname, i.KillReason))
	case state.PhaseLost:
		if r := w.bound(i); r != nil && r.HasVolume() && len(i.Run.Claims) == 0 {
			return w.whyLostWithVolume(i)
		}
		return w.whyLost(i)
	case state.PhaseEnded:
		return w.whyClaims(i, state.Reason{Code: state.ReasonTaskFailures, Text: fmt.Sprintf("the task on %s ended with %s", i.Run.Hostname, i.Run.MesosState)})
	}
	return one(state.ReasonStarting, string(i.Phase))
}

// whyRunning says why a running instance is not up; nil when it is.
func (w *work) whyRunning(i *state.Instance) *state.Why {
	code, text := state.ReasonUnhealthy, fmt.Sprintf("runs on %s, its health checks do not pass yet", i.Run.Hostname)
	switch {
	case i.Run.Idle:
		code, text = state.ReasonPaused, fmt.Sprintf("paused for repair: an idle command has its volumes on %s", i.Run.Hostname)
	case i.Leaving():
		code, text = state.ReasonKilling, fmt.Sprintf("runs on %s, and is stopped as soon as anything may be", i.Run.Hostname)
	case w.up(i):
		return nil
	case !i.Run.Ready && (i.Run.Healthy != nil && *i.Run.Healthy || !w.spec(i.App, i.Run.Version).Checked()):
		code, text = state.ReasonReadiness, fmt.Sprintf("runs on %s, its readiness check has not passed yet", i.Run.Hostname)
	case i.Run.WasUp:
		text = fmt.Sprintf("runs on %s, its health checks do not pass any more", i.Run.Hostname)
	}
	return &state.Why{Summary: text, Reasons: []state.Reason{{Code: code, Text: text}}}
}

func lostState(r *state.Run) string {
	if meaningOf(r.MesosState) == missing {
		return r.MesosState
	}
	return "agent lost"
}

// whyClaims is first, and the claims that are still to become free.
func (w *work) whyClaims(i *state.Instance, first state.Reason) *state.Why {
	y := &state.Why{Reasons: []state.Reason{first}}
	for _, g := range i.Run.Claims {
		v, c := w.volume(g.Volume), w.claim(g.Volume)
		if g.Freed || v == nil {
			continue
		}
		if c == nil {
			y.Reasons = append(y.Reasons, state.Reason{Code: state.ReasonNoAuthority, Text: fmt.Sprintf("the claim of volume %s was not read yet", v.Ref)})
			continue
		}
		if c.State != state.ClaimFree {
			y.Reasons = append(y.Reasons, ClaimReason(w.node(c.Node), c, w.frozen()))
		}
	}
	if len(y.Reasons) > 1 {
		y.Summary = y.Reasons[1].Text
	}
	return summed(y)
}

func summed(y *state.Why) *state.Why {
	if y.Summary == "" && len(y.Reasons) > 0 {
		y.Summary = y.Reasons[0].Text
	}
	return y
}

func (w *work) whyWaiting(i *state.Instance) *state.Why {
	// What holds for everybody (no master, no authority) State.WhyOf adds when it is asked.
	y := &state.Why{Reasons: slices.DeleteFunc(w.obstacles(i, w.spec(i.App, i.Version), false), func(r state.Reason) bool { return r.Code == state.ReasonNoAuthority })}
	if len(y.Reasons) > 0 {
		return summed(y)
	}
	if r := w.bound(i); r != nil {
		return w.whyReserved(i, r)
	}
	r := look(w, state.KindRefusal, state.DefID(i.App, i.Version), w.s.Refusals[i.Group()])
	if r == nil {
		y.Reasons = []state.Reason{{Code: state.ReasonNoOffers, Text: "waits for an offer"}}
		if text := w.neverFits(i.Group()); text != "" {
			y.Reasons = []state.Reason{{Code: state.ReasonNeverFits, Text: text}}
		}
		return summed(y)
	}
	y.Agents = r.Agents
	y.Summary = refusalText(r)
	return y
}

// neverFits says at once, before any offer comes, that no agent seen so far is large enough. "" when one is, or none was seen.
func (w *work) neverFits(g state.Group) string {
	if text, known := w.never[g]; known {
		return text
	}
	spec := w.spec(g.App, g.Version)
	most := state.Totals{}
	text := ""
	for _, a := range w.s.Agents {
		t := a.Total
		if t.CPUs >= spec.CPUs && t.MemMB >= spec.MemMB && t.DiskMB >= spec.DiskMB && t.GPUs >= float64(spec.GPUs) {
			most = state.Totals{}
			text = ""
			break
		}
		most = state.Totals{CPUs: max(most.CPUs, t.CPUs), MemMB: max(most.MemMB, t.MemMB), DiskMB: max(most.DiskMB, t.DiskMB), GPUs: max(most.GPUs, t.GPUs)}
		text = "?"
	}
	if text != "" {
		text = fmt.Sprintf("it never fits: needs %s cpus, %s MB mem, %s MB disk, and no agent seen has ever had that much together (most seen: %s cpus, %s MB mem, %s MB disk)",
			place.ToMilli(spec.CPUs), place.ToMilli(spec.MemMB), place.ToMilli(spec.DiskMB), place.ToMilli(most.CPUs), place.ToMilli(most.MemMB), place.ToMilli(most.DiskMB))
	}
	if w.never == nil {
		w.never = map[state.Group]string{}
	}
	w.never[g] = text
	return text
}

// refusalText puts the agents' reasons in one line: the commonest kind first, with an example each.
func refusalText(r *state.Refusal) string {
	type kind struct {
		code, text, host string
		hosts            int
		mixed            bool // the texts differ; one is the example
	}
	var kinds []*kind
	by := map[string]*kind{}
	for _, a := range r.Agents {
		first := a.Reasons[0]
		k := by[first.Code]
		if k == nil {
			k = &kind{code: first.Code, text: first.Text, host: a.Hostname}
			by[first.Code] = k
			kinds = append(kinds, k)
		}
		k.hosts++
		k.mixed = k.mixed || k.text != first.Text
	}
	slices.SortStableFunc(kinds, func(a, b *kind) int { return b.hosts - a.hosts })
	total := len(r.Agents) + r.More
	head := fmt.Sprintf("none of the %d agents looked at suits it: ", total)
	switch {
	case total == 1:
		return "the one agent looked at does not suit it: " + kinds[0].text
	case len(kinds) == 1 && kinds[0].code == state.ReasonNeverFits && r.More == 0:
		return "it never fits: " + kinds[0].text
	}
	parts := make([]string, 0, len(kinds))
	for _, k := range kinds {
		text := fmt.Sprintf("%s (%d)", k.text, k.hosts)
		if k.mixed {
			text = fmt.Sprintf("%s (%s, and the like on %d more)", k.text, k.host, k.hosts-1)
		}
		parts = append(parts, text)
	}
	return head + strings.Join(parts, "; ")
}

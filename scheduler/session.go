package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// reconcileBatch is how many tasks one RECONCILE names; reconcileEvery is how often the master is asked for everything once all is known.
const (
	reconcileBatch = 1000
	reconcileEvery = 15 * time.Minute
	callRetry      = time.Second // after a call to the master failed that no timer repeats
)

// loaded plans what a crash left half done. It runs once per leadership and may look at everything.
func (w *work) loaded() {
	w.clockWentBack()
	if r := w.hold().Why(); r.Code != "" {
		w.authority(HoldTaker{Reason: r.Text})
	}
	for _, id := range sortedKeys(w.s.Instances) {
		i := w.instance(id)
		if i.Phase == state.PhaseGranting {
			// The grants of an earlier leader are never used: L5, then a new epoch.
			w.cancelGranting(i, 0)
			continue
		}
		w.instances.add(id)
	}
	w.checkReserved()
	for _, uid := range sortedKeys(w.s.Volumes) {
		if v := w.volume(uid); v.Op != "" {
			w.ask(v)
		}
	}
	for _, id := range sortedKeys(w.s.Apps) {
		w.apps.add(id)
	}
	for _, id := range sortedKeys(w.s.Deployments) {
		w.goOn(id)
	}
}

func (w *work) subscribed(e Subscribed) {
	fw := w.s.Framework
	switch {
	case e.FrameworkID == "":
		w.giveUp("the master gave no framework id")
		return
	case fw == nil:
		w.put(state.KindFramework, "", &state.Framework{ID: e.FrameworkID, Rev: 1})
	case fw.ID == "":
		// Order rule 1: committed before any offer counts, since offers are later events.
		c := *fw
		c.ID = e.FrameworkID
		c.Rev++
		w.put(state.KindFramework, "", &c)
	case fw.ID != e.FrameworkID:
		w.giveUp(fmt.Sprintf("the master knows this framework as %s, but it was registered as %s: its tasks and volumes would be orphaned", e.FrameworkID, fw.ID))
		return
	}
	w.dropOffers()
	w.setSession(func(s *state.Session) {
		s.Connected, s.FrameworkID, s.Master, s.Since, s.Apart = true, e.FrameworkID, e.Master, w.now, ""
		s.Reconciled, s.ReconcileTries, s.ReconcileAt = false, 0, time.Time{}
		s.Suppressed, s.Quiet, s.Stopped, s.Over, s.InterestAt = false, "", "", false, time.Time{}
		s.Silent = e.Silent
	})
	if fw != nil && fw.Teardown != nil {
		w.master(EndFramework{}) // ordered, and not confirmed before a crash or a lost connection
		return
	}
	w.sweep()
	w.askAllOperations()
	w.askForAll()
	w.placeable = true
}

// askForAll begins an explicit reconciliation of every task that should be there, and asks once for those that should not.
func (w *work) askForAll() {
	for _, id := range sortedKeys(w.s.Unanswered) {
		w.remove(state.KindUnanswered, string(id))
	}
	for _, id := range sortedKeys(w.s.Instances) {
		i := w.instance(id)
		if i == nil {
			continue
		}
		for _, r := range i.Away {
			w.put(state.KindUnanswered, string(r.Task), &state.Unanswered{Agent: r.Agent})
		}
		if !i.HasTask() {
			continue
		}
		w.put(state.KindUnanswered, string(i.Run.Task), &state.Unanswered{Agent: i.Run.Agent})
		if i.Phase == state.PhaseKilling && !w.session().Reconciled {
			w.sendKill(i)
		}
	}
	for _, id := range sortedKeys(w.s.Strange) {
		w.put(state.KindUnanswered, string(id), &state.Unanswered{Agent: w.s.Strange[id].Agent})
	}
	w.reconcile(true)
}

// reconcile asks for the tasks that are not answered yet, and sets the time of the next round.
func (w *work) reconcile(implicit bool) {
	tasks := w.unanswered()
	for part := range slices.Chunk(tasks, reconcileBatch) {
		w.master(Reconcile{Tasks: part})
	}
	if implicit {
		w.master(Reconcile{})
	}
	w.setSession(func(s *state.Session) {
		if len(tasks) == 0 {
			s.Reconciled, s.ReconcileTries, s.ReconcileAt = true, 0, w.now.Add(reconcileEvery)
			return
		}
		delay := w.env.Config.ReconcileMin << min(s.ReconcileTries, 16)
		s.ReconcileAt = w.now.Add(min(delay, w.env.Config.ReconcileMax))
		s.ReconcileTries++
	})
	if w.session().Reconciled {
		w.missing("")
	}
}

func (w *work) unanswered() []ReconcileTask {
	all := map[state.TaskID]state.AgentID{}
	for t, a := range w.s.Unanswered {
		if _, changed := w.over[key{state.KindUnanswered, string(t)}]; !changed {
			all[t] = a
		}
	}
	for _, k := range w.order {
		if u, ok := w.over[k].(*state.Unanswered); ok {
			all[state.TaskID(k.id)] = u.Agent
		}
	}
	list := make([]ReconcileTask, 0, len(all))
	for _, t := range sortedKeys(all) {
		if r := w.runOf(t); r != nil {
			list = append(list, asks(r, all[t])...)
			continue
		}
		list = append(list, ReconcileTask{t, all[t]})
	}
	return list
}

// answered notes that the master told of a task.
func (w *work) answered(t state.TaskID) {
	if _, asked := w.s.Unanswered[t]; !asked {
		return
	}
	w.remove(state.KindUnanswered, string(t))
	if len(w.s.Unanswered) == 1 {
		w.reconciled()
	}
}

// reconciled: every task that should be there is accounted for; what else there is, is strange.
func (w *work) reconciled() {
	w.setSession(func(s *state.Session) {
		s.Reconciled, s.ReconcileTries, s.ReconcileAt = true, 0, w.now.Add(reconcileEvery)
	})
	for _, t := range sortedKeys(w.s.Strange) {
		w.killStrange(w.s.Strange[t])
	}
	w.missing("")
}

func (w *work) reconcileAgain() {
	ses := w.session()
	if !ses.Connected || ses.ReconcileAt.IsZero() || ses.ReconcileAt.After(w.now) {
		return
	}
	if len(w.s.Unanswered) > 0 {
		w.reconcile(false)
		return
	}
	w.forgetLost("", w.now.Add(-reconcileEvery))
	w.missing("")
	w.sweep()
	w.freeing = w.freeing || w.wantsOffers()
	w.askForAll() // once in a while: a status may have been lost with nobody noticing
}

func (w *work) disconnected(e Disconnected) {
	w.dropOffers()
	w.setSession(func(s *state.Session) {
		if s.Connected || s.Since.IsZero() {
			s.Since = w.now
		}
		s.Connected, s.Reconciled, s.ReconcileAt, s.Apart = false, false, time.Time{}, e.Reason
	})
}

func (w *work) stopped(e Stopped) {
	w.giveUp(e.Reason)
	if e.Over {
		w.setSession(func(s *state.Session) { s.Over = true })
		w.tornDown()
	}
}

// giveUp ends the use of the master: another scheduler is in charge, or this framework is over.
func (w *work) giveUp(reason string) {
	w.dropOffers()
	w.setSession(func(s *state.Session) {
		s.Connected, s.Since, s.Stopped, s.ReconcileAt = false, w.now, reason, time.Time{}
	})
}

// dropOffers forgets every offer, inverse ones too; launches that waited for their grants on one are called off.
func (w *work) dropOffers() {
	for _, id := range sortedKeys(w.s.Offers) {
		w.dropOffer(id)
	}
	for _, id := range sortedKeys(w.s.Inverse) {
		w.remove(state.KindInverse, id)
	}
}

// dropOffer forgets one offer. What was being put together on it is called off, the other offers of that bundle are free again.
func (w *work) dropOffer(id string) {
	o := w.offer(id)
	if o == nil {
		return
	}
	w.remove(state.KindOffer, id)
	if o.Bundle == "" {
		return
	}
	for _, i := range w.holders(o.Agent, o.Bundle) {
		w.cancelGranting(i, 0)
	}
	w.freeBundle(o.Agent, o.Bundle)
}

func (w *work) agentLost(agent state.AgentID) {
	w.markAgent(agent, w.now)
	if len(w.s.ReservedOn(agent)) > 0 {
		w.missing(agent)
	}
	for _, id := range w.s.OffersOn(agent) {
		w.dropOffer(id)
	}
	var ask []ReconcileTask
	for _, id := range w.s.InstancesOn(agent) {
		i := w.instance(id)
		if i == nil || !i.HasTask() {
			continue
		}
		ask = append(ask, asks(i.Run, agent)...)
		if len(i.Run.Claims) > 0 {
			w.lost(i, "the agent "+i.Run.Hostname+" is lost", time.Time{})
		}
	}
	for part := range slices.Chunk(ask, reconcileBatch) {
		w.master(Reconcile{Tasks: part})
	}
}

// markAgent notes when an agent was lost, or with a zero time that it is there.
func (w *work) markAgent(agent state.AgentID, lost time.Time) {
	a := w.agent(agent)
	if a == nil || a.LostAt.IsZero() == lost.IsZero() {
		return
	}
	w.vanishing = true
	c := *a
	c.LostAt = lost
	w.put(state.KindAgent, string(agent), &c)
}

func (w *work) callFailed(e CallFailed) {
	switch c := e.Call.(type) {
	case Accept:
		w.acceptFailed(c, e)
		w.declineLater(c.Offers)
	case Decline:
		w.declineLater(c.Offers)
	case Revive, Suppress, EndFramework:
		w.setSession(func(s *state.Session) { s.InterestAt = w.now.Add(callRetry) })
	}
	// The others are repeated by timers of their own.
}

// declineLater gives offers back a little later: a call about them was lost, and the master may go on keeping them for us. Of one that it does
// not know any more it takes no notice.
func (w *work) declineLater(offers []string) {
	for _, id := range offers {
		w.put(state.KindOffer, id, &state.Offer{ID: id, At: w.now, Until: w.now.Add(callRetry)})
	}
}

func (w *work) acceptFailed(accept Accept, e CallFailed) {
	w.acceptedOpsFailed(accept, e)
	var ask []ReconcileTask
	for _, l := range accept.Launches {
		i := w.byTask(l.Run.Task)
		if i == nil || i.Phase != state.PhaseLaunching {
			continue
		}
		if e.Unknown {
			ask = append(ask, asks(i.Run, accept.Agent)...)
			continue
		}
		c := w.edit(i)
		c.Run.Message = e.Error
		c.BackoffUntil = w.now.Add(w.spec(i.App, i.Version).Backoff.Base)
		w.setPhase(c, state.PhaseEnded)
		w.putInstance(c)
		w.instances.add(c.ID)
	}
	if len(ask) > 0 {
		w.master(Reconcile{Tasks: ask})
	}
}

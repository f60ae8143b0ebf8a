package scheduler

import (
	"cmp"
	"maps"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Step decides what an event leads to. It changes nothing: the caller commits and applies Plan.Writes to s, then makes Plan.Calls.
// s must not change meanwhile.
//
// What the event says is noted first; then every instance and app that it touched is brought one step nearer to what is wanted
// (advance, converge), until nothing moves; then waiting instances are placed on the offers at hand, and offers that nothing wants are given back.
func Step(s *state.State, e Event, env Env) Plan {
	w := newWork(s, env)
	w.handle(e)
	w.checkHold()
	if w.reply != nil && (w.reply.Err != nil || w.reply.Dry) {
		// A refused command leaves no trace, nor does one that only asks.
		return Plan{Reply: w.reply, Wake: newWork(s, env).wake()}
	}
	w.settle()
	w.evacuate()
	w.tend()
	w.settle()
	w.place()
	w.sendBundles()
	w.settle()
	w.giveBack()
	w.answerInverse()
	w.elect(e)
	w.interest()
	w.explain()
	return w.plan()
}

func (w *work) handle(e Event) {
	switch e := e.(type) {
	case Loaded:
		w.loaded()
	case Subscribed:
		w.subscribed(e)
	case Disconnected:
		w.disconnected(e)
	case Stopped:
		w.stopped(e)
	case Offers:
		w.gotOffers(e)
	case Rescinded:
		w.dropOffer(e.Offer)
	case Status:
		w.status(e)
	case Health:
		w.health(e)
	case AgentLost:
		w.agentLost(e.Agent)
	case InverseOffers:
		w.gotInverse(e)
	case InverseRescinded:
		w.remove(state.KindInverse, e.ID)
	case OperationStatus:
		w.operationStatus(e)
	case CallFailed:
		w.callFailed(e)
	case Tick:
		w.tick()
	default:
		w.handleAuthority(e)
	}
}

func (w *work) handleAuthority(e Event) {
	switch e := e.(type) {
	case NodesSeen:
		w.nodesSeen(e)
	case ClaimsSeen:
		w.claimsSeen(e)
	case AuthorityLost:
		w.setSession(func(s *state.Session) { s.AuthorityLost = e.Reason })
	case GrantResult:
		w.grantResult(e)
	case OperationProgress:
		w.operationProgress(e)
	case RequestResult:
		w.requestResult(e)
	default:
		w.reply = w.command(e)
	}
}

// settle advances what was touched until nothing moves. Each advance either changes a phase or leaves the instance as it is,
// so it ends.
func (w *work) settle() {
	for {
		if id, ok := w.instances.next(); ok {
			if i := w.instance(id); i != nil {
				w.advance(i)
			}
			continue
		}
		if app, ok := w.nextFor.next(); ok {
			w.next(app)
			continue
		}
		app, ok := w.apps.next()
		if !ok {
			return
		}
		w.converge(app)
	}
}

// tick does what time has made due.
func (w *work) tick() {
	w.vanishing = w.hold() != nil && w.hold().Brake != nil
	var due []key
	w.s.Due(w.now, func(kind state.Kind, id string) { due = append(due, key{kind, id}) })
	slices.SortFunc(due, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id))
	})
	for _, k := range due {
		w.due(k)
	}
	for _, app := range sortedKeys(w.s.Todo) {
		w.remove(state.KindTodo, string(app))
		w.apps.add(app)
	}
	w.reconcileAgain()
	w.refill()
	if len(w.s.Offers) > 0 {
		w.placeable = true
	}
}

// due handles one value whose time has come.
func (w *work) due(k key) {
	switch k.kind {
	case state.KindInstance:
		w.instances.add(state.InstanceID(k.id))
	case state.KindAway:
		w.forgetAway(state.InstanceID(k.id))
	case state.KindOperation:
		w.operationDue(w.operation(k.id))
	case state.KindVolume:
		w.volumeDue(w.volume(state.VolumeUID(k.id)))
	case state.KindReserved:
		w.reservedDue(w.reserved(state.ReservedID(k.id)))
	case state.KindStrange:
		w.killStrange(w.s.Strange[state.TaskID(k.id)])
	case state.KindOffer:
		w.placeable = true // giveBack returns it unless it is used now
	}
}

// sortedKeys of an empty map costs nothing: most of what a Step looks through is empty.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

package show

import (
	"fmt"
	"slices"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// nextStep says what a person can do about what an instance waits for, "" where waiting is all there is to do. It goes by the reasons that
// hold for the instance as a whole, then by the one that every agent has, for what only some agents lack is found elsewhere.
func nextStep(i *state.Instance, w *state.Why) string {
	for _, r := range w.Reasons {
		if text := stepFor(r.Code, i); text != "" {
			return text
		}
	}
	if len(w.Agents) == 0 {
		return ""
	}
	for _, r := range w.Agents[0].Reasons {
		everywhere := !slices.ContainsFunc(w.Agents, func(a state.AgentReason) bool {
			return !slices.ContainsFunc(a.Reasons, func(o state.Reason) bool { return o.Code == r.Code })
		})
		if text := stepFor(r.Code, i); everywhere && text != "" {
			return text
		}
	}
	return ""
}

func stepFor(code string, i *state.Instance) string {
	switch code {
	case state.ReasonNoMaster:
		return "see that the master runs and that the framework may register there: the framework's log, --master"
	case state.ReasonNoAuthority:
		return "see that the lease authority answers: the framework's log, --authority"
	case state.ReasonNeverFits:
		return fmt.Sprintf("ask for less (cpus, mem, disk, gpus of %s), or add a larger agent", i.App)
	case state.ReasonResources:
		return "ask for less, scale something down, or add an agent; holdfast node list shows how large they are"
	case state.ReasonPorts:
		return "ask for other ports, or for any (port 0, no requirePorts), or offer these in the agents' resources"
	case state.ReasonRole:
		return "change acceptedResourceRoles, or reserve resources for the framework's role"
	case state.ReasonConstraint:
		return "change the app's constraints, or add agents that suit them"
	case state.ReasonDriver:
		return "holdfast node list shows each node's drivers; on a node: holdfast isolator check"
	case state.ReasonNoNode:
		return "start holdfast isolator on the agents; on a node: holdfast isolator check"
	case state.ReasonAttachLimit:
		return "add a node, or move instances away: holdfast volume list shows what is mounted where"
	case state.ReasonBackoff, state.ReasonTaskFailures:
		return fmt.Sprintf("holdfast instance logs %s --file stderr; to start it now: holdfast instance restart %s", i.ID, i.ID)
	case state.ReasonUnhealthy, state.ReasonReadiness:
		return fmt.Sprintf("if it lasts: holdfast instance logs %s", i.ID)
	case state.ReasonFencing, state.ReasonUnreachable, state.ReasonNodeDead:
		return "nothing, if the node comes back or its lease may run out; if it surely writes no more: holdfast node fence NODE"
	case state.ReasonCordoned, state.ReasonDraining:
		return "add a node, or take the order back: holdfast node uncordon NODE"
	case state.ReasonPaused:
		return fmt.Sprintf("when its data is repaired: holdfast instance resume %s", i.ID)
	case state.ReasonFrozen, state.ReasonBrake:
		return "to end it: holdfast thaw"
	}
	return ""
}

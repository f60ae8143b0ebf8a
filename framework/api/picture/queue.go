package picture

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Queued is an app with instances that look for an offer.
type Queued struct {
	Count     int             `json:"count"`
	Delay     delay           `json:"delay"`
	Since     string          `json:"since"`
	Processed processed       `json:"processedOffersSummary"`
	Unused    *[]unusedOffer  `json:"lastUnusedOffers,omitempty"`
	App       json.RawMessage `json:"app,omitempty"`
	Pod       json.RawMessage `json:"pod,omitempty"`

	// agents are those that were looked at, and when.
	agents []state.AgentReason
	at     time.Time
}

// unusedOffer is an agent that did not do, as Marathon shows its offer. Offers that are declined are not kept: it has what the agent showed
// at most, and the agent's id stands where no offer of it is held.
type unusedOffer struct {
	Offer     offer    `json:"offer"`
	Reason    []string `json:"reason"`
	Timestamp string   `json:"timestamp"`
}

type offer struct {
	ID         string           `json:"id"`
	Hostname   string           `json:"hostname"`
	AgentID    state.AgentID    `json:"agentId"`
	Resources  []offerResource  `json:"resources"`
	Attributes []offerAttribute `json:"attributes"`
}

type offerResource struct {
	Name   string  `json:"name"`
	Role   string  `json:"role"`
	Scalar float64 `json:"scalar"`
}

type offerAttribute struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// ShowUnused adds the agents that did not do.
func (q *Queued) ShowUnused(st *state.State) {
	out := []unusedOffer{}
	for _, a := range q.agents {
		u := unusedOffer{Reason: reasonNames(a), Timestamp: desk.Stamp(q.at),
			Offer: offer{ID: string(a.Agent), Hostname: a.Hostname, AgentID: a.Agent, Resources: []offerResource{}, Attributes: []offerAttribute{}}}
		if held := st.OffersOn(a.Agent); len(held) > 0 {
			u.Offer.ID = held[0]
		}
		if agent := st.Agents[a.Agent]; agent != nil {
			for name, n := range map[string]float64{"cpus": agent.Total.CPUs, "mem": agent.Total.MemMB, "disk": agent.Total.DiskMB, "gpus": agent.Total.GPUs} {
				if n > 0 {
					u.Offer.Resources = append(u.Offer.Resources, offerResource{Name: name, Role: "*", Scalar: n})
				}
			}
			slices.SortFunc(u.Offer.Resources, func(a, b offerResource) int { return strings.Compare(a.Name, b.Name) })
			for _, name := range slices.Sorted(maps.Keys(agent.Attributes)) {
				u.Offer.Attributes = append(u.Offer.Attributes, offerAttribute{name, agent.Attributes[name]})
			}
		}
		out = append(out, u)
	}
	q.Unused = &out
}

// reasonNames are Marathon's names for why an agent did not do, in the order of its funnel.
func reasonNames(a state.AgentReason) []string {
	names := []string{}
	for _, r := range a.Reasons {
		name := marathonReason[r.Code]
		if r.Code == state.ReasonResources || r.Code == state.ReasonNeverFits {
			name = scarce(r.Text)
		}
		if name == "" {
			name = "DeclinedScarceResources"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return slices.Index(funnel, a) - slices.Index(funnel, b) })
	return names
}

// scarce tells which resource a reason is about.
func scarce(text string) string {
	for word, name := range map[string]string{"mem": "InsufficientMemory", "disk": "InsufficientDisk", "gpus": "InsufficientGpus", "ports": "InsufficientPorts"} {
		if strings.HasPrefix(text, word) || strings.Contains(text, " "+word+" ") || strings.Contains(text, " "+word+",") {
			return name
		}
	}
	return "InsufficientCpus"
}

type delay struct {
	TimeLeftSeconds int  `json:"timeLeftSeconds"`
	Overdue         bool `json:"overdue"`
}

type processed struct {
	Processed int      `json:"processedOffersCount"`
	Unused    int      `json:"unusedOffersCount"`
	LastAt    string   `json:"lastUnusedOfferAt,omitempty"`
	Last      []reject `json:"rejectSummaryLastOffers"`
	Launch    []reject `json:"rejectSummaryLaunchAttempt"`
	// Waiting is ours: what each instance waits for, agent by agent. It stands here because strict clients (marathon-python) refuse
	// fields they do not know everywhere else.
	Waiting []queuedInstance `json:"waiting"`
}

type reject struct {
	Reason    string `json:"reason"`
	Declined  int    `json:"declined"`
	Processed int    `json:"processed"`
}

type queuedInstance struct {
	ID  state.InstanceID `json:"id"`
	Why *client.Why      `json:"why,omitempty"`
}

// funnel is the order in which Marathon sorts offers out; ours are sorted into its names.
var funnel = []string{"UnfulfilledRole", "UnfulfilledConstraint", "NoCorrespondingReservationFound", "AgentMaintenance", "InsufficientCpus",
	"InsufficientMemory", "InsufficientDisk", "InsufficientGpus", "InsufficientPorts", "DeclinedScarceResources"}

var marathonReason = map[string]string{
	state.ReasonRole:        "UnfulfilledRole",
	state.ReasonConstraint:  "UnfulfilledConstraint",
	state.ReasonAvoid:       "UnfulfilledConstraint",
	state.ReasonDriver:      "UnfulfilledConstraint",
	state.ReasonNoNode:      "UnfulfilledConstraint",
	state.ReasonNodeDead:    "UnfulfilledConstraint",
	state.ReasonVolume:      "NoCorrespondingReservationFound",
	state.ReasonClaim:       "NoCorrespondingReservationFound",
	state.ReasonFencing:     "NoCorrespondingReservationFound",
	state.ReasonAttachLimit: "NoCorrespondingReservationFound",
	state.ReasonDraining:    "AgentMaintenance",
	state.ReasonCordoned:    "AgentMaintenance",
	state.ReasonMaintenance: "AgentMaintenance",
	state.ReasonPorts:       "InsufficientPorts",
	state.ReasonNeverFits:   "InsufficientCpus",
	state.ReasonResources:   "InsufficientCpus",
}

// QueuedApp gives an app's entry, nil when none of its instances waits.
func QueuedApp(st *state.State, a *state.App, now time.Time) *Queued {
	var since, until time.Time
	q := &Queued{}
	waiting := []queuedInstance{}
	for _, i := range st.InstancesOf(a.ID) {
		if i.Goal != state.GoalRun || i.Phase != state.PhaseWaiting && i.Phase != state.PhasePreparing {
			continue
		}
		q.Count++
		if since.IsZero() || i.Since.Before(since) {
			since = i.Since
		}
		if i.BackoffUntil.After(until) {
			until = i.BackoffUntil
		}
		waiting = append(waiting, queuedInstance{ID: i.ID, Why: show.Instance(st, i).Why})
		if why := st.WhyOf(i.ID); why != nil && q.agents == nil {
			q.agents, q.at = why.Agents, why.At
		}
	}
	p := Of(st, a)
	if q.Count == 0 || p == nil {
		return nil
	}
	q.Since = desk.Stamp(since)
	if p.Def.Spec.Pod() {
		q.Pod = p.PrintPod()
	} else {
		q.App = p.Print(Embed{}, now)
	}
	q.Delay = delay{Overdue: true}
	if until.After(now) {
		q.Delay = delay{TimeLeftSeconds: int(until.Sub(now).Seconds() + 0.999)}
	}
	rejects := rejectsOf(q.agents)
	q.Processed = processed{Processed: len(q.agents), Unused: len(q.agents), Last: rejects, Launch: rejects, Waiting: waiting}
	if len(q.agents) > 0 {
		q.Processed.LastAt = desk.Stamp(q.at)
	}
	return q
}

func rejectsOf(agents []state.AgentReason) []reject {
	declined := map[string]int{}
	for _, a := range agents {
		if names := reasonNames(a); len(names) > 0 {
			declined[names[0]]++
		}
	}
	left := len(agents)
	out := make([]reject, 0, len(funnel))
	for _, name := range funnel {
		out = append(out, reject{Reason: name, Declined: declined[name], Processed: left})
		left -= declined[name]
	}
	return out
}

package v2

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// queued is an app with instances that look for an offer.
type queued struct {
	Count     int             `json:"count"`
	Delay     delay           `json:"delay"`
	Since     string          `json:"since"`
	Processed processed       `json:"processedOffersSummary"`
	Unused    []struct{}      `json:"lastUnusedOffers,omitempty"`
	App       json.RawMessage `json:"app"`
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
	state.ReasonPorts:       "InsufficientPorts",
	state.ReasonNeverFits:   "InsufficientCpus",
	state.ReasonResources:   "InsufficientCpus",
}

func (s *api) queue(w http.ResponseWriter, r *http.Request) {
	out := []queued{}
	now := s.Now()
	s.Core.View(func(st *state.State) {
		for _, a := range sortedApps(st) {
			if q := s.queuedApp(st, a, now); q != nil {
				out = append(out, *q)
			}
		}
	})
	s.JSON(w, r, http.StatusOK, map[string]any{"queue": out})
}

// queuedApp gives an app's entry, nil when none of its instances waits.
func (s *api) queuedApp(st *state.State, a *state.App, now time.Time) *queued {
	var since, until time.Time
	q := &queued{}
	waiting := []queuedInstance{}
	var agents []state.AgentReason
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
		if why := st.WhyOf(i.ID); why != nil && agents == nil {
			agents = why.Agents
		}
	}
	p := picture.Of(st, a)
	if q.Count == 0 || p == nil {
		return nil
	}
	q.App, q.Since = p.Print(picture.Embed{}, s.Now()), desk.Stamp(since)
	q.Delay = delay{Overdue: true}
	if until.After(now) {
		q.Delay = delay{TimeLeftSeconds: int(until.Sub(now).Seconds() + 0.999)}
	}
	rejects := rejectsOf(agents)
	q.Processed = processed{Processed: len(agents), Unused: len(agents), Last: rejects, Launch: rejects, Waiting: waiting}
	return q
}

func rejectsOf(agents []state.AgentReason) []reject {
	declined := map[string]int{}
	for _, a := range agents {
		if len(a.Reasons) == 0 {
			continue
		}
		name := marathonReason[a.Reasons[0].Code]
		if name == "" {
			name = "DeclinedScarceResources"
		}
		declined[name]++
	}
	left := len(agents)
	out := make([]reject, 0, len(funnel))
	for _, name := range funnel {
		out = append(out, reject{Reason: name, Declined: declined[name], Processed: left})
		left -= declined[name]
	}
	return out
}

func (s *api) resetDelay(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	waits := false
	s.Core.View(func(st *state.State) {
		if a := appOf(st, id); a != nil {
			waits = s.queuedApp(st, a, s.Now()) != nil
		}
	})
	if !waits {
		s.Fail(w, r, fault.New(fault.NotFound, "Application %s not found in tasks queue.", id))
		return
	}
	ctx, cancel := desk.Limited(r)
	defer cancel()
	if _, err := s.Do(ctx, scheduler.ResetDelay{App: id}); err != nil {
		s.Fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

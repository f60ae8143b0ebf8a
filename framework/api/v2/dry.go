package v2

import (
	"net/http"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/marathon/difference"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// planned answers a command that was only to be thought through (?dryRun=true): the steps as Marathon prints them, and beside them, ours, what
// would become another in each app.
func (s *api) planned(w http.ResponseWriter, r *http.Request, reply scheduler.Reply, puts []scheduler.AppPut, remove []state.AppID) {
	out := struct {
		Steps   []step                 `json:"steps"`
		Changes []client.PlannedChange `json:"changes"`
	}{stepsOf(reply.Steps), []client.PlannedChange{}}
	s.Core.View(func(st *state.State) {
		for _, p := range puts {
			if c := plannedChange(st, p); c.Action != "none" {
				out.Changes = append(out.Changes, c)
			}
		}
		for _, id := range remove {
			if st.Apps[id] != nil {
				out.Changes = append(out.Changes, client.PlannedChange{App: string(id), Action: "remove"})
			}
		}
	})
	s.JSON(w, r, http.StatusOK, out)
}

func plannedChange(st *state.State, p scheduler.AppPut) client.PlannedChange {
	c := client.PlannedChange{App: string(p.Def.App), Action: "create", ToInstances: p.Instances}
	var before []byte
	if a := st.Apps[p.Def.App]; a != nil && !a.Removed {
		c.Action, c.FromInstances = "update", a.Instances
		if d := st.Def(a.ID, a.Version); d != nil {
			before = d.Source
		}
	}
	if c.Action == "create" {
		return c // everything is new
	}
	for _, d := range difference.Of(before, p.Def.Source, "id", "instances") {
		c.Differences = append(c.Differences, client.Difference{Path: d.Path, From: d.From, To: d.To})
	}
	switch {
	case len(c.Differences) == 0 && c.FromInstances == c.ToInstances:
		c.Action = "none"
	case len(c.Differences) == 0:
		c.Action = "scale"
	}
	return c
}

// refused answers an error of the framework to a change below a group, and tells of it.
func (s *api) refused(w http.ResponseWriter, r *http.Request, group state.AppID, err error) {
	s.groupFailed(group, err)
	s.Fail(w, r, err)
}

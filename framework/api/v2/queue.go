package v2

import (
	"net/http"
	"slices"

	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/picture"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func (s *api) queue(w http.ResponseWriter, r *http.Request) {
	out := []picture.Queued{}
	now, unused := s.Now(), slices.Contains(r.URL.Query()["embed"], "lastUnusedOffers")
	s.Core.View(func(st *state.State) {
		for _, a := range sortedApps(st) {
			if q := picture.QueuedApp(st, a, now); q != nil {
				if unused {
					q.ShowUnused(st)
				}
				out = append(out, *q)
			}
		}
	})
	s.JSON(w, r, http.StatusOK, map[string]any{"queue": out})
}

func (s *api) resetDelay(w http.ResponseWriter, r *http.Request) {
	id := pathID(r)
	waits := false
	s.Core.View(func(st *state.State) {
		if a := appOf(st, id); a != nil {
			waits = picture.QueuedApp(st, a, s.Now()) != nil
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

package probe

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Health is what one health check found of one run so far.
type Health struct {
	Index                     int // of the check in its definition
	Instance                  state.InstanceID
	Alive                     bool // the last answer was good
	Failures                  int  // in a row
	FirstSuccess, LastSuccess time.Time
	LastFailure               time.Time
	LastFailureCause          string
}

// Known tells whether there was an answer that counts.
func (h *Health) Known() bool { return !h.LastSuccess.IsZero() || !h.LastFailure.IsZero() }

// note takes an answer. counts: it was a failure that is not forgiven; over: the run is to be given up.
func (h *Health) note(c *Check, a answer, now time.Time) (counts, over bool) {
	switch {
	case a.ok:
		h.Alive, h.Failures, h.LastSuccess = true, 0, now
		if h.FirstSuccess.IsZero() {
			h.FirstSuccess = now
		}
		return false, false
	case a.ignore, h.FirstSuccess.IsZero() && now.Before(c.Until):
		return false, false
	}
	h.Alive, h.LastFailure, h.LastFailureCause = false, now, a.cause
	h.Failures++
	return true, c.Max > 0 && h.Failures >= c.Max
}

// Readiness is what a readiness check found of one run so far.
type Readiness struct {
	Name  string
	Task  state.TaskID
	Ready bool
	Last  *Response // nil: none, or not kept
	Cause string    // why the last answer did not mean ready, "" after one that did
}

// together is what the health checks of a run say: false when one is failing, true when all have passed, nil before.
func together(list []*check) (healthy *bool) {
	all, some := true, false
	for _, c := range list {
		if c.Ready {
			continue
		}
		some = true
		switch {
		case !c.health.Known():
			all = false
		case !c.health.Alive:
			return new(bool)
		}
	}
	if all && some {
		return &all
	}
	return nil
}

// givenUp words why a run is ended.
func givenUp(c *Check, h *Health) string {
	return fmt.Sprintf("its %s health check failed %d times in a row, last with: %s", c.Protocol, h.Failures, h.LastFailureCause)
}

package scheduler

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Launches are bounded as Marathon bounds them: so many between two fillings of the token bucket, and so many on one agent's offers at a time.

// noToken says why nothing may be launched now, "" when something may.
func (w *work) noToken() state.Reason {
	ses := w.session()
	if most := w.env.Config.LaunchTokens; most > 0 && ses.Launched >= most && ses.TokensAt.After(w.now) {
		return state.Reason{Code: state.ReasonTokens, Text: fmt.Sprintf("%d instances were launched, which is the bound for %s (launch tokens)", ses.Launched, w.env.Config.TokensEvery), Until: ses.TokensAt}
	}
	return state.Reason{}
}

// spendToken counts a launch.
func (w *work) spendToken() {
	if w.env.Config.LaunchTokens <= 0 {
		return
	}
	w.setSession(func(s *state.Session) {
		if s.TokensAt.IsZero() || !s.TokensAt.After(w.now) {
			s.Launched, s.TokensAt = 0, w.now.Add(w.env.Config.TokensEvery)
		}
		s.Launched++
	})
}

// tellTokens lets waiting instances say that there are no tokens, as many as a person reads.
func (w *work) tellTokens() {
	if w.noToken().Code == "" {
		return
	}
	groups := w.groups()
	for _, g := range groups[:min(len(groups), explainGroups)] {
		for _, i := range g.list[:min(len(g.list), refusalWhys)] {
			w.touched[i.ID] = true
		}
	}
}

// refill fills the bucket when its time has come, and lets those look again who waited for it.
func (w *work) refill() {
	ses := w.session()
	if ses.TokensAt.IsZero() || ses.TokensAt.After(w.now) {
		return
	}
	short := ses.Launched >= w.env.Config.LaunchTokens
	w.setSession(func(s *state.Session) { s.Launched, s.TokensAt = 0, time.Time{} })
	if short && w.waitingCount() > 0 {
		w.placeable, w.newcomer = true, true
	}
}

// full says why no more may be launched on a site's offers.
func (w *work) full(s *site) state.Reason {
	if most := w.env.Config.MaxPerOffer; most > 0 && s.launches >= most {
		return state.Reason{Code: state.ReasonOfferFull, Text: fmt.Sprintf("%d instances are being launched on its offer, which is the bound", s.launches)}
	}
	return state.Reason{}
}

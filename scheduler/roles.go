package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// roleOf is the role whose offers a definition uses.
func (w *work) roleOf(s *state.Spec) string {
	if s.Role == "" || s.Role == "*" {
		return w.env.Config.Role
	}
	return s.Role
}

// inRole tells whether a site's offers came in the role of a definition. Mesos takes offers of one role in an ACCEPT only.
func (w *work) inRole(spec *state.Spec, s *site) bool {
	return len(w.env.Config.Roles) == 0 || s.offers[0].Role == w.roleOf(spec)
}

// interestByRole tells the master for each role whether offers are wanted: a role for which nothing waits is suppressed, so that others get
// what it would only decline.
func (w *work) interestByRole(ses *state.Session) {
	wanted, now := w.wantedRoles()
	var quiet []string
	for _, r := range w.env.Config.Roles {
		if !wanted[r] {
			quiet = append(quiet, r)
		}
	}
	before := strings.FieldsFunc(ses.Quiet, func(r rune) bool { return r == ',' })
	again := !ses.InterestAt.IsZero() && !ses.InterestAt.After(w.now) // the last call failed
	var suppress, revive []string
	for _, r := range w.env.Config.Roles {
		was := slices.Contains(before, r)
		switch {
		case !wanted[r] && (!was || again):
			suppress = append(suppress, r)
		case wanted[r] && (was || again || now[r]):
			revive = append(revive, r)
		}
	}
	if text := strings.Join(quiet, ","); text != ses.Quiet || again {
		w.setSession(func(s *state.Session) {
			s.Quiet, s.Suppressed = text, len(quiet) == len(w.env.Config.Roles)
			if again {
				s.InterestAt = time.Time{}
			}
		})
	}
	if len(suppress) > 0 {
		w.master(Suppress{Roles: suppress})
	}
	if len(revive) > 0 {
		w.master(Revive{Roles: revive})
	}
}

// wantedRoles gives the roles for which something waits, and those whose filters of declined offers are in the way now.
func (w *work) wantedRoles() (wanted, now map[string]bool) {
	wanted, now = map[string]bool{}, map[string]bool{}
	if w.preparing() > 0 || w.wantsOffers() {
		for _, r := range w.env.Config.Roles {
			wanted[r], now[r] = true, w.freeing && w.wantsOffers()
		}
	}
	if w.lostAgents() > 0 {
		wanted[w.env.Config.Role] = true // the return of a lost agent shows in its offers only
	}
	if w.waitingCount() == 0 {
		return wanted, now
	}
	for _, g := range w.groups() {
		spec := w.spec(g.App, g.Version)
		r := w.roleOf(spec)
		wanted[r] = true
		if !now[r] && (w.newcomer || w.room) && slices.ContainsFunc(g.list, func(i *state.Instance) bool { return w.ready(i, spec) }) {
			now[r] = true
		}
	}
	return wanted, now
}

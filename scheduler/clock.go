package scheduler

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Within one process time only goes forward: Go's clock sees to that. What an earlier process wrote may lie ahead, though, when the machine's
// clock was put back in between, or this one's is behind. Timers that would wait for longer than they ever should begin anew.

// clockWentBack looks over the times of the records, once per leadership.
func (w *work) clockWentBack() {
	for _, id := range sortedKeys(w.s.Instances) {
		if i := w.instance(id); i != nil && w.ahead(i) {
			c := w.edit(i)
			w.setBack(c)
			w.putInstance(c)
		}
	}
	for _, uid := range sortedKeys(w.s.Volumes) {
		if v := w.volume(uid); v != nil && v.RetryAt.After(w.now.Add(longestRetry)) {
			c := *v
			c.RetryAt = w.now
			w.putVolume(&c)
		}
	}
	h := w.hold()
	if h == nil || h.Why().Code == "" {
		return
	}
	n := *h
	changed := false
	if f := h.Freeze; f != nil && f.Since.After(w.now) {
		c := *f
		c.Since, c.Until, changed = w.now, shifted(f.Until, w.now.Sub(f.Since)), true
		n.Freeze = &c
	}
	if b := h.Brake; b != nil && b.Since.After(w.now) {
		c := *b
		c.Since, c.Until, changed = w.now, shifted(b.Until, w.now.Sub(b.Since)), true
		n.Brake = &c
	}
	if changed {
		n.Rev++
		w.put(state.KindHold, "", &n)
	}
}

// longestRetry is more than any pause before a volume is tried again.
const longestRetry = 15 * time.Minute

// ahead tells whether a time of an instance lies further ahead than it ever should.
func (w *work) ahead(i *state.Instance) bool {
	if i.Since.After(w.now) || i.KillAfter.After(w.now.Add(w.env.Config.KillRetry)) || i.BackoffUntil.After(w.now.Add(w.longestBackoff(i))) {
		return true
	}
	if i.Run != nil && i.Run.LostAt.After(w.now) {
		return true
	}
	for _, r := range i.Away {
		if r.LostAt.After(w.now) {
			return true
		}
	}
	return false
}

func (w *work) longestBackoff(i *state.Instance) time.Duration {
	b := w.spec(i.App, i.Version).Backoff
	return max(b.Max, b.Base, refusedPause)
}

// setBack takes the times of an instance back to now. c is a copy to be put.
func (w *work) setBack(c *state.Instance) {
	if c.Since.After(w.now) {
		c.Since = w.now
	}
	if c.KillAfter.After(w.now.Add(w.env.Config.KillRetry)) {
		c.KillAfter = w.now
	}
	if most := w.now.Add(w.longestBackoff(c)); c.BackoffUntil.After(most) {
		c.BackoffUntil = most
	}
	c.WakeAt = w.now
	if c.Run != nil && c.Run.LostAt.After(w.now) {
		c.Run.LostAt = w.now
	}
	c.Away = slices.Clone(c.Away)
	for n, r := range c.Away {
		if !r.LostAt.After(w.now) {
			continue
		}
		back := *r
		back.ForgetAt, back.LostAt = shifted(r.ForgetAt, w.now.Sub(r.LostAt)), w.now
		c.Away[n] = &back
	}
}

// shifted moves a time that is set.
func shifted(t time.Time, d time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(d)
}

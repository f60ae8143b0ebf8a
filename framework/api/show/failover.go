package show

import (
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Failovers lists the failovers that instances remember, newest first; app "" is all apps.
func Failovers(st *state.State, app state.AppID, now time.Time) []client.Failover {
	out := []client.Failover{}
	add := func(i *state.Instance) {
		for _, f := range i.Failovers {
			out = append(out, failover(st, i, f, now))
		}
	}
	if app != "" {
		for _, i := range st.InstancesOf(app) {
			add(i)
		}
	} else {
		for _, i := range st.Instances {
			add(i)
		}
	}
	slices.SortFunc(out, func(a, b client.Failover) int {
		if c := b.LostAt.Compare(a.LostAt); c != 0 {
			return c
		}
		return compareNames(a.Instance, b.Instance)
	})
	return out
}

func failover(st *state.State, i *state.Instance, f *state.Failover, now time.Time) client.Failover {
	out := client.Failover{Instance: string(i.ID), App: string(i.App), Task: string(f.Task), Node: string(f.Node), Hostname: f.Hostname, Why: f.Why,
		LostAt: f.LostAt, RevokedAt: f.RevokedAt, DeadAt: f.DeadAt, FreeAt: f.FreeAt, FreedBy: f.FreedBy,
		NextTask: string(f.NextTask), NextHostname: f.NextHostname, Attempts: f.Attempts, OfferedAt: f.OfferedAt, LaunchedAt: f.LaunchedAt,
		HeldAt: f.HeldAt, RunningAt: f.RunningAt, UpAt: f.UpAt, End: f.End, EndAt: f.EndAt}
	until := f.EndAt
	if f.End == "" {
		until = now
		if n := st.Nodes[f.Node]; n != nil && f.FreeAt.IsZero() {
			out.FreeBy = n.FreeBy
		}
		if w := st.WhyOf(i.ID); w != nil {
			out.Waits = w.Summary
		}
	}
	out.Seconds = until.Sub(f.LostAt).Round(time.Millisecond).Seconds()
	return out
}

package show

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Reservations lists what agents keep for instances, sorted by host name and instance; app "" means all.
func Reservations(st *state.State, app state.AppID) []client.Reservation {
	out := []client.Reservation{}
	for _, r := range st.Reserved {
		if app == "" || r.App == app {
			out = append(out, Reservation(st, r))
		}
	}
	for id, l := range st.Leftovers {
		if app == "" || l.App == app {
			out = append(out, leftover(id, l))
		}
	}
	slices.SortFunc(out, func(a, b client.Reservation) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), compareNames(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Reservation gives one reservation.
func Reservation(st *state.State, r *state.Reserved) client.Reservation {
	out := ReservationRecord(r)
	out.Reason = reservedReason(st, r)
	return out
}

// ReservationRecord gives what the record alone tells.
func ReservationRecord(r *state.Reserved) client.Reservation {
	out := client.Reservation{ID: string(r.ID), App: string(r.App), Instance: string(r.Instance), Agent: string(r.Agent), Hostname: r.Hostname, Role: r.Role,
		State: string(r.Phase), Retained: r.Phase == state.ReservedRetained || r.Phase == state.ReservedLeft, Since: r.Since, Volumes: []client.LocalVolume{},
		Error: r.Error, RetryAt: r.RetryAt, MissingSince: r.MissingSince}
	for _, v := range r.Volumes {
		out.Volumes = append(out.Volumes, client.LocalVolume{PersistenceID: v.ID, ContainerPath: v.ContainerPath, Type: v.Type, SizeMB: v.SizeMB, Exists: v.Created, NoResize: v.NoResize})
	}
	for _, p := range r.Ops {
		out.Pending = append(out.Pending, p.Kind)
	}
	return out
}

func reservedReason(st *state.State, r *state.Reserved) string {
	away := ""
	if a := st.Agents[r.Agent]; a != nil && !a.LostAt.IsZero() {
		away = "its agent is lost"
	} else if !r.MissingSince.IsZero() {
		away = "its agent makes no offers since " + r.MissingSince.UTC().Format(time.RFC3339)
	}
	switch r.Phase {
	case state.ReservedAsked:
		return "asked for, not confirmed yet"
	case state.ReservedRetained:
		return "its instance is gone; the volume is kept until it is released, or the instance is wanted again"
	case state.ReservedLeft:
		return "its agent was lost and the instance has started over elsewhere; the data there is kept until it is released"
	case state.ReservedReleasing:
		if away != "" {
			return "to be given back, but " + away
		}
		return "being given back; waits for an offer of its agent"
	}
	if away != "" {
		return away
	}
	if i := st.Instances[r.Instance]; i != nil && i.Run != nil && i.Run.Agent == r.Agent {
		return ""
	}
	if y := st.WhyOf(r.Instance); y != nil {
		return y.Summary
	}
	return ""
}

func leftover(id string, l *state.Leftover) client.Reservation {
	out := client.Reservation{ID: id, App: string(l.App), Instance: string(l.Instance), Agent: string(l.Agent), Hostname: l.Hostname, State: "leftover", Retained: true,
		Since: l.Seen, Volumes: []client.LocalVolume{}, Reason: l.Reason}
	if l.Release {
		out.Reason = "being given back; waits for an offer of its agent"
	}
	for _, v := range l.Volumes {
		out.Volumes = append(out.Volumes, client.LocalVolume{PersistenceID: v, Exists: true})
	}
	return out
}

// FindReservation finds one by its id; or by its instance, when that has one only.
func FindReservation(st *state.State, id string) (client.Reservation, error) {
	if r := st.Reserved[state.ReservedID(id)]; r != nil {
		return Reservation(st, r), nil
	}
	if l := st.Leftovers[id]; l != nil {
		return leftover(id, l), nil
	}
	var found []client.Reservation
	for _, r := range Reservations(st, "") {
		if r.Instance == id {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return client.Reservation{}, fault.New(fault.NotFound, "reservation %s does not exist", id)
	case 1:
		return found[0], nil
	}
	text := ""
	for _, r := range found {
		text += fmt.Sprintf(", %s (%s on %s)", r.ID, r.State, r.Hostname)
	}
	return client.Reservation{}, fault.New(fault.Conflict, "instance %s has %d reservations: name one by its id%s", id, len(found), text)
}

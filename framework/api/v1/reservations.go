package v1

import (
	"net/http"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func reservationRoutes(t *desk.Table, s *api) {
	t.Handle(http.MethodGet, "/v1/reservations", "lists what agents keep for instances", s.reservations, "app")
	t.Handle(http.MethodGet, "/v1/reservations/{id:.+}", "gives a reservation, by id or instance", s.reservation)
	t.Handle(http.MethodDelete, "/v1/reservations/{id:.+}", "destroys a reservation's local volumes and gives it back; with ?forget=true only drops its record", s.releaseReservation, "forget")
}

func (s *api) reservations(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "reservations", func(st *state.State) []client.Reservation { return show.Reservations(st, appParam(r)) })
}

func (s *api) reservation(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Reservation, error) { return show.FindReservation(st, mux.Vars(r)["id"]) })
}

func (s *api) releaseReservation(w http.ResponseWriter, r *http.Request) {
	var found client.Reservation
	var err error
	s.Core.View(func(st *state.State) { found, err = show.FindReservation(st, mux.Vars(r)["id"]) })
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.command(w, r, scheduler.ReleaseReservation{ID: state.ReservedID(found.ID), Forget: desk.Yes(r, "forget", false)})
}

package v1

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/peers"
	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// maxWait bounds how long a request waits for a change of an app's instances.
const maxWait = 55 * time.Second

func (s *api) appID(r *http.Request) state.AppID {
	return state.AppID(marathon.AbsoluteID(mux.Vars(r)["id"]))
}

// peersOf answers the instances of an app. With an index it waits for a change.
func (s *api) peersOf(w http.ResponseWriter, r *http.Request) {
	q, id := r.URL.Query(), s.appID(r)
	wait := time.Duration(0)
	if text := q.Get("wait"); text != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(text, "s"))
		if err != nil || n < 0 {
			s.Fail(w, r, fault.New(fault.Invalid, "wait must be a number of seconds"))
			return
		}
		wait = min(time.Duration(min(n, 3600))*time.Second, maxWait)
	}
	var sheet *peers.Sheet
	if index := q.Get("index"); index != "" && wait > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		sheet = s.board.Wait(ctx, id, index)
	} else {
		sheet = s.board.Look(id)
	}
	if sheet == nil {
		// An app may be called /x/peers.
		if whole := id + "/peers"; s.board.Look(whole) != nil {
			r = mux.SetURLVars(r, map[string]string{"id": string(whole)})
			s.app(w, r)
			return
		}
		s.Fail(w, r, fault.New(fault.NotFound, "App '%s' does not exist", id))
		return
	}
	if strings.HasPrefix(r.Header.Get("Accept"), "text/plain") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(peersText(sheet.Peers)))
		return
	}
	s.Raw(w, r, http.StatusOK, sheet.JSON)
}

// peersText is one line for each instance: number, id, address, ports with commas, state, health and part. What is not known is a hyphen.
func peersText(p *client.Peers) string {
	var b strings.Builder
	for _, i := range p.Peers {
		var ports []string
		for _, port := range i.Ports {
			ports = append(ports, strconv.Itoa(port.Port))
		}
		health, part := "unhealthy", "-"
		if i.Healthy {
			health = "healthy"
		}
		if i.Primary {
			part = "primary"
		}
		fmt.Fprintln(&b, i.Ordinal, i.Instance, orHyphen(i.Address), orHyphen(strings.Join(ports, ",")), i.State, health, part)
	}
	return b.String()
}

func orHyphen(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// yieldPrimary takes the word of a run, or of a person, that it is the primary no more.
func (s *api) yieldPrimary(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	term, err := strconv.ParseUint(q.Get("term"), 10, 64)
	if err != nil || q.Get("task") == "" {
		s.Fail(w, r, fault.New(fault.Invalid, "task and term of the primary that gives up are needed, as GET /v1/apps/{id}/peers shows them"))
		return
	}
	ctx, cancel := desk.Limited(r)
	defer cancel()
	reply, err := s.Do(ctx, scheduler.YieldPrimary{App: s.appID(r), Task: state.TaskID(q.Get("task")), Term: term})
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, client.Result{Version: reply.Version})
}

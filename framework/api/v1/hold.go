package v1

import (
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// word is the body of an operator's order: why, who, and for how long. It may be empty.
type word struct {
	Reason string `json:"reason"`
	By     string `json:"by"`
	For    string `json:"for"`
}

// readWord reads the body of an order.
func readWord(r *http.Request) (word, error) {
	var out word
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return out, err // a body that is too large has its own answer
	}
	if len(data) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return out, fault.New(fault.Invalid, `the body is no object like {"reason": "…", "by": "…"}: %v`, err)
	}
	return out, nil
}

func (s *api) node(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Node, error) { return show.Node(st, mux.Vars(r)["id"]) })
}

// orderNode gives the handler of one order for nodes.
func (s *api) orderNode(want string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := readWord(r)
		if err != nil {
			s.Fail(w, r, err)
			return
		}
		s.command(w, r, scheduler.OrderNode{Node: mux.Vars(r)["id"], Want: want, Reason: b.Reason, By: b.By})
	}
}

func (s *api) forgetNode(w http.ResponseWriter, r *http.Request) {
	b, err := readWord(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.command(w, r, scheduler.ForgetNode{Node: mux.Vars(r)["id"], By: b.By})
}

func (s *api) hold(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Hold, error) { return show.Hold(st), nil })
}

func (s *api) freeze(w http.ResponseWriter, r *http.Request) {
	b, err := readWord(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	var lasts time.Duration
	if b.For != "" {
		if lasts, err = time.ParseDuration(b.For); err != nil || lasts < 0 {
			s.Fail(w, r, fault.WithDetails(fault.Invalid, "the time of a freeze cannot be read",
				fault.Detail{Path: "/for", Errors: []string{`must be a time like "90s", "30m" or "1h30m", or be left out for "until it is thawed"`}}))
			return
		}
	}
	s.command(w, r, scheduler.Freeze{Reason: b.Reason, By: b.By, For: lasts})
}

func (s *api) thaw(w http.ResponseWriter, r *http.Request) {
	b, err := readWord(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.command(w, r, scheduler.Thaw{By: b.By})
}

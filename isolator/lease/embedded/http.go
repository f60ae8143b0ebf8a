package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// The wire: POST with a JSON body to one of these paths; 200 with a JSON answer, or an error of internal/fault's status
// and a failure as the body.
const (
	pathGet   = "/v1/get"
	pathList  = "/v1/list"
	pathTxn   = "/v1/txn"
	pathWatch = "/v1/watch"
)

const (
	maxRequest  = 4 << 20
	maxResponse = 256 << 20
	longPoll    = 25 * time.Second
)

type getRequest struct {
	Key string `json:"key"`
}

// listRequest asks for everything under a prefix, or, from a client that has it as it was at revision Known, for what has changed since.
type listRequest struct {
	Prefix string `json:"prefix"`
	Known  uint64 `json:"known,omitempty"`
}

type txnRequest struct {
	Ops []lease.Op `json:"ops"`
}

// watchRequest asks for changes after Revision; 0 answers at once with the present one.
type watchRequest struct {
	Prefix   string `json:"prefix"`
	Revision uint64 `json:"revision"`
}

type answer struct {
	Entry    *lease.Entry  `json:"entry,omitempty"`
	Entries  []lease.Entry `json:"entries,omitempty"`
	Changed  bool          `json:"changed,omitempty"`
	Revision uint64        `json:"revision,omitempty"`
	Full     bool          `json:"full,omitempty"`
	Gone     []string      `json:"gone,omitempty"`
}

type failure struct {
	Message string      `json:"message"`
	Code    fault.Class `json:"code"`
}

// Handler serves the registers over HTTP.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathGet, serve(func(_ context.Context, q getRequest) (answer, error) {
		e, err := s.get(q.Key)
		return answer{Entry: &e}, err
	}))
	mux.Handle("POST "+pathList, serve(func(_ context.Context, q listRequest) (answer, error) {
		entries, gone, full, revision, err := s.difference(q.Prefix, q.Known)
		return answer{Entries: entries, Gone: gone, Full: full, Revision: revision}, err
	}))
	mux.Handle("POST "+pathTxn, serve(func(ctx context.Context, q txnRequest) (answer, error) {
		entries, err := s.txn(ctx, q.Ops)
		return answer{Entries: entries}, err
	}))
	mux.Handle("POST "+pathWatch, serve(func(ctx context.Context, q watchRequest) (answer, error) {
		if err := lease.CheckPrefix(q.Prefix); err != nil {
			return answer{}, err
		}
		if q.Revision == 0 {
			_, rev, _ := s.hub.look(q.Prefix, 0)
			return answer{Changed: true, Revision: rev}, nil
		}
		ctx, cancel := context.WithTimeout(ctx, longPoll)
		defer cancel()
		changed, rev := s.hub.await(ctx, s.closing, q.Prefix, q.Revision)
		return answer{Changed: changed, Revision: rev}, nil
	}))
	return mux
}

func serve[Q any](f func(context.Context, Q) (answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Q
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			reply(w, 0, fault.New(fault.Invalid, "the request is larger than %d bytes", maxRequest))
			return
		case err != nil:
			reply(w, 0, fault.Wrap(fault.Invalid, err, "read the request"))
			return
		}
		if err := json.Unmarshal(body, &q); err != nil {
			reply(w, 0, fault.Wrap(fault.Invalid, err, "read the request"))
			return
		}
		a, err := f(r.Context(), q)
		if err != nil {
			reply(w, 0, err)
			return
		}
		reply(w, http.StatusOK, a)
	})
}

func reply(w http.ResponseWriter, status int, body any) {
	if err, ok := body.(error); ok {
		class := fault.ClassOf(err)
		status, body = fault.HTTPStatus(class), failure{Message: err.Error(), Code: class}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone reads back by nonce
}

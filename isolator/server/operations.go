package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/operation"
)

// longestWait bounds one wait for an operation; who wants to wait longer asks again.
const longestWait = 10 * time.Minute

// operationRoutes adds one call for each kind of operation, and those on operations themselves.
func (s *Server) operationRoutes(m *http.ServeMux) {
	for _, kind := range operation.Kinds() {
		m.HandleFunc("POST /v1/"+kind, func(w http.ResponseWriter, r *http.Request) { s.operate(w, r, kind) })
	}
	m.HandleFunc("GET /v1/operations", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"operations": s.service.Operations()})
	})
	m.HandleFunc("GET /v1/operations/{id}", func(w http.ResponseWriter, r *http.Request) {
		wait, err := waitOf(r, 0)
		if err != nil {
			refuse(w, err)
			return
		}
		o, err := s.service.Operation(r.Context(), r.PathValue("id"), wait)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, o)
	})
	m.HandleFunc("DELETE /v1/operations/{id}", func(w http.ResponseWriter, r *http.Request) {
		if err := s.service.CancelOperation(r.PathValue("id")); err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, struct{}{})
	})
}

// operate begins an operation and answers with it once it is over, or the time to wait is. One that failed is answered by 200 and its own words when
// the caller asked not to wait, by its error otherwise.
func (s *Server) operate(w http.ResponseWriter, r *http.Request, kind string) {
	var in client.OperationRequest
	if err := read(w, r, &in); err != nil {
		refuse(w, err)
		return
	}
	wait, err := waitOf(r, longestWait)
	if err == nil && in.Kind != "" && in.Kind != kind {
		err = fault.New(fault.Invalid, "the kind %q is not that of the call, %q", in.Kind, kind)
	}
	in.Kind = kind
	var o client.Operation
	if err == nil {
		o, err = s.begin(r.Context(), in, wait)
	}
	if err == nil && wait > 0 {
		err = o.Err()
	}
	if err != nil {
		p := callerOf(r.Context())
		s.log.Info("call refused", zap.String("call", kind), zap.Int("pid", p.PID), zap.Int("uid", p.UID), zap.Error(err))
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, o)
}

func (s *Server) begin(ctx context.Context, in client.OperationRequest, wait time.Duration) (client.Operation, error) {
	o, err := s.service.Operate(ctx, in)
	if err != nil || o.Over() || wait == 0 {
		return o, err
	}
	return s.service.Operation(ctx, o.ID, wait)
}

// waitOf reads ?wait=SECONDS.
func waitOf(r *http.Request, otherwise time.Duration) (time.Duration, error) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return otherwise, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || !(seconds >= 0) {
		return 0, fault.New(fault.Invalid, "wait %.40q is not a number of seconds", text)
	}
	return min(time.Duration(min(seconds, 1e6)*float64(time.Second)), longestWait), nil
}

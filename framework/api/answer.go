package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/internal/fault"
)

const (
	tooLarge = "the request is larger than 8 MiB"
	// gzipFrom is the size from which answers are worth compressing.
	gzipFrom = 1400
)

// answer sends a value as JSON.
func (s *server) answer(w http.ResponseWriter, r *http.Request, status int, v any) {
	s.send(w, r, status, document.Marshal(v))
}

// send sends JSON that is printed already, compressed for whoever takes that.
func (s *server) send(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Add("Vary", "Accept-Encoding")
	if len(body) >= gzipFrom && takesGzip(r) {
		var b bytes.Buffer
		z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		if err == nil {
			_, _ = z.Write(body)
			if z.Close() == nil {
				h.Set("Content-Encoding", "gzip")
				body = b.Bytes()
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

func takesGzip(r *http.Request) bool {
	for _, part := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}

type deploymentRef struct {
	ID string `json:"id"`
}

// body of an error. Code is for /v1 only.
type errorBody struct {
	Message     string          `json:"message"`
	Code        fault.Class     `json:"code,omitempty"`
	Details     any             `json:"details,omitempty"`
	Deployments []deploymentRef `json:"deployments,omitempty"`
}

// message answers an error that has no class of its own.
func (s *server) message(w http.ResponseWriter, r *http.Request, status int, text string) {
	b := errorBody{Message: text}
	if ours(r) {
		b.Code = fault.FromHTTPStatus(status)
	}
	s.answer(w, r, status, b)
}

// ours tells whether a request is for /v1.
func ours(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/") }

// locked says that a deployment is in the way.
type locked struct {
	err error
	ids []string
}

func (l *locked) Error() string { return l.err.Error() }
func (l *locked) Unwrap() error { return l.err }

const lockedText = "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."

// fail answers an error by its class.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var syntax *document.SyntaxError
	var large *http.MaxBytesError
	var lock *locked
	b := errorBody{Message: err.Error(), Code: fault.ClassOf(err)}
	status := fault.HTTPStatus(b.Code)
	switch {
	case errors.As(err, &syntax):
		b = errorBody{Message: messageOf(syntax), Code: fault.Invalid, Details: syntax.Text}
		status = http.StatusBadRequest
	case errors.As(err, &large):
		b = errorBody{Message: tooLarge, Code: fault.Invalid}
		status = http.StatusRequestEntityTooLarge
	case errors.As(err, &lock):
		b.Message = lockedText
		for _, id := range lock.ids {
			b.Deployments = append(b.Deployments, deploymentRef{id})
		}
	case b.Code == fault.Internal:
		s.log.Error("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
	default:
		if d := fault.DetailsOf(err); len(d) > 0 {
			b.Details = d
		}
	}
	if !ours(r) {
		b.Code = ""
	}
	s.answer(w, r, status, b)
}

func messageOf(e *document.SyntaxError) string {
	if e.Empty {
		return "Please specify data in JSON format"
	}
	return "Invalid JSON"
}

// badRequest is an error that Marathon answers with 400 rather than 422.
func (s *server) badRequest(w http.ResponseWriter, r *http.Request, format string, args ...any) {
	s.message(w, r, http.StatusBadRequest, fmt.Sprintf(format, args...))
}

// readBody reads and parses the body; an empty one is a *document.SyntaxError.
func readBody(w http.ResponseWriter, r *http.Request) (*document.Value, error) {
	data, err := io.ReadAll(r.Body)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, err
		}
		return nil, fault.Wrap(fault.Invalid, err, "read the request's body")
	}
	return document.Parse(data)
}

// warn sends warnings as headers: 299 means a lasting one, from an agent called holdfast.
func warn(w http.ResponseWriter, warnings []string) {
	for i, text := range warnings {
		if i == 50 {
			break
		}
		w.Header().Add("Warning", "299 holdfast "+quoted(text))
	}
}

// quoted prints text as a header can carry it.
func quoted(text string) string {
	if len(text) > 500 {
		text = text[:500] + "..."
	}
	return strconv.QuoteToASCII(text)
}

// yes reads a boolean parameter as Java does: "true" in any case is true, all else is not; absent gives the default.
func yes(r *http.Request, name string, absent bool) bool {
	if !r.URL.Query().Has(name) {
		return absent
	}
	return strings.EqualFold(r.URL.Query().Get(name), "true")
}

// limited bounds a command.
func limited(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), commandTime)
}

// Package desk is the counter between HTTP and the framework: it reads bodies, hands commands over, and answers, errors
// included, in Marathon's form, within limits of size and time.
package desk

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

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/nodes"
	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Desk is what the handlers of all versions share.
type Desk struct {
	Core framework.Core
	Log  *zap.Logger
	// Now is the clock, for versions and texts.
	Now func() time.Time
	// Operator carries operators' words to the lease authority; nil where there is none.
	Operator Operator
	// Patience is how long a node's answer to a question is waited for.
	Patience time.Duration
	// EventReaders counts the open streams of /v2/events; nil where there are none.
	EventReaders func() int
}

// Operator is the part of nodes.Operator that handlers use.
type Operator interface {
	Holding(ctx context.Context, node state.NodeUID) (*nodes.Holding, error)
	Speak(ctx context.Context, w nodes.Word) ([]nodes.Freed, error)
}

// The limits on what one request may cost.
const (
	MaxBody     = 8 << 20          // bytes of a request
	BodyTime    = 30 * time.Second // to send a request's body
	CommandTime = 40 * time.Second // for a command to be committed
	AnswerTime  = 60 * time.Second // to take an answer
)

const (
	// TooLarge is the text for bodies above MaxBody.
	TooLarge = "the request is larger than 8 MiB"
	// gzipFrom is the size from which answers are worth compressing.
	gzipFrom = 1400
)

// JSON sends a value as JSON.
func (s *Desk) JSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	s.Raw(w, r, status, document.Marshal(v))
}

// Raw sends JSON that is printed already, compressed for whoever takes that.
func (s *Desk) Raw(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Add("Vary", "Accept-Encoding")
	if reads := r.Method == http.MethodGet || r.Method == http.MethodHead; reads && status == http.StatusOK {
		tag := entityTag(body)
		h.Set("ETag", tag)
		if known(r, tag) {
			h.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
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

// DeploymentRef names a deployment.
type DeploymentRef struct {
	ID string `json:"id"`
}

// body of an error. Code is for /v1 only.
type errorBody struct {
	Message     string          `json:"message"`
	Code        fault.Class     `json:"code,omitempty"`
	Details     any             `json:"details,omitempty"`
	Deployments []DeploymentRef `json:"deployments,omitempty"`
}

// Message answers an error that has no class of its own.
func (s *Desk) Message(w http.ResponseWriter, r *http.Request, status int, text string) {
	b := errorBody{Message: text}
	if ours(r) {
		b.Code = fault.FromHTTPStatus(status)
	}
	s.JSON(w, r, status, b)
}

// ours tells whether a request is for /v1.
func ours(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/") }

// Locked says that a deployment is in the way.
type Locked struct {
	err error
	ids []string
}

func (l *Locked) Error() string { return l.err.Error() }
func (l *Locked) Unwrap() error { return l.err }

const lockedText = "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."

// Fail answers an error by its class.
func (s *Desk) Fail(w http.ResponseWriter, r *http.Request, err error) {
	var syntax *document.SyntaxError
	var large *http.MaxBytesError
	var lock *Locked
	b := errorBody{Message: err.Error(), Code: fault.ClassOf(err)}
	status := fault.HTTPStatus(b.Code)
	switch {
	case errors.As(err, &syntax):
		b = errorBody{Message: messageOf(syntax), Code: fault.Invalid, Details: syntax.Text}
		status = http.StatusBadRequest
	case errors.As(err, &large):
		b = errorBody{Message: TooLarge, Code: fault.Invalid}
		status = http.StatusRequestEntityTooLarge
	case errors.As(err, &lock):
		b.Message = lockedText
		for _, id := range lock.ids {
			b.Deployments = append(b.Deployments, DeploymentRef{ID: id})
		}
	case b.Code == fault.Internal:
		s.Log.Error("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.Error(err))
	default:
		if d := fault.DetailsOf(err); len(d) > 0 {
			b.Details = d
		}
	}
	if !ours(r) {
		b.Code = ""
	}
	s.JSON(w, r, status, b)
}

func messageOf(e *document.SyntaxError) string {
	if e.Empty {
		return "Please specify data in JSON format"
	}
	return "Invalid JSON"
}

// BadRequest answers an error that Marathon answers with 400 rather than 422.
func (s *Desk) BadRequest(w http.ResponseWriter, r *http.Request, format string, args ...any) {
	s.Message(w, r, http.StatusBadRequest, fmt.Sprintf(format, args...))
}

// ReadBody reads and parses the body; an empty one is a *document.SyntaxError.
func ReadBody(w http.ResponseWriter, r *http.Request) (*document.Value, error) {
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

// Warn sends warnings as headers: 299 means a lasting one, from an agent called holdfast.
func Warn(w http.ResponseWriter, warnings []string) {
	for i, text := range warnings {
		if i == 50 {
			break
		}
		w.Header().Add("Warning", "299 holdfast "+Quoted(text))
	}
}

// Quoted prints text as a header can carry it.
func Quoted(text string) string {
	if len(text) > 500 {
		text = text[:500] + "..."
	}
	return strconv.QuoteToASCII(text)
}

// Yes reads a boolean parameter as Java does: "true" in any case is true, all else is not; absent gives the default.
func Yes(r *http.Request, name string, absent bool) bool {
	if !r.URL.Query().Has(name) {
		return absent
	}
	return strings.EqualFold(r.URL.Query().Get(name), "true")
}

// Checks gives what the framework's own checks of a task found so far, where the framework has any.
func (s *Desk) Checks(task state.TaskID) ([]probe.Health, []probe.Readiness) {
	if c, ok := s.Core.(interface {
		Checks(state.TaskID) ([]probe.Health, []probe.Readiness)
	}); ok {
		return c.Checks(task)
	}
	return nil, nil
}

// Limited bounds a command.
func Limited(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), CommandTime)
}

// Do hands a command to the framework. A refusal because of deployments under way becomes *Locked.
func (s *Desk) Do(ctx context.Context, command scheduler.Event) (scheduler.Reply, error) {
	reply, err := s.Core.Do(ctx, command)
	if err == nil {
		err = reply.Err
	}
	if fault.Is(err, fault.Conflict) {
		for _, d := range fault.DetailsOf(err) {
			if d.Path == "/deployments" {
				return reply, &Locked{err, d.Errors}
			}
		}
	}
	return reply, err
}

// Under puts the place of an app in an array before the paths of its errors.
func Under(err error, at string) error {
	details := fault.DetailsOf(err)
	if len(details) == 0 {
		return err
	}
	out := make([]fault.Detail, len(details))
	for i, d := range details {
		out[i] = fault.Detail{Path: at + d.Path, Errors: d.Errors}
	}
	return fault.WithDetails(fault.ClassOf(err), err.Error(), out...)
}

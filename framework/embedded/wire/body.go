package wire

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/gogo/protobuf/proto"
	"github.com/mesos/mesos-go/api/v1/lib/encoding"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
)

// MaxBody bounds a request's body in bytes; more is answered 413.
const MaxBody = 8 << 20

// readLimit is how long a caller may take to send a body.
const readLimit = 30 * time.Second

// Refusal is an answer to a request that cannot be served: a status and Mesos's text.
type Refusal struct {
	Status int
	Text   string
}

func (r *Refusal) Error() string { return r.Text }

// Refuse makes a Refusal.
func Refuse(status int, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Text: fmt.Sprintf(format, args...)}
}

// BadRequest makes a Refusal with status 400.
func BadRequest(format string, args ...any) *Refusal {
	return Refuse(http.StatusBadRequest, format, args...)
}

// Write sends the refusal as Mesos does, as plain text.
func (r *Refusal) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(r.Status)
	_, _ = io.WriteString(w, r.Text)
}

// OnlyMethod refuses any other method.
func OnlyMethod(r *http.Request, method string) *Refusal {
	if r.Method == method {
		return nil
	}
	return Refuse(http.StatusMethodNotAllowed, "405 Method Not Allowed. Expecting one of { '%s' }, but received '%s'.", method, r.Method)
}

// ReadCall reads a request's body into a call by its Content-Type.
func ReadCall(w http.ResponseWriter, r *http.Request, call proto.Message) *Refusal {
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return BadRequest("Expecting 'Content-Type' to be present")
	}
	media := encoding.MediaType(ct)
	if media != codecs.MediaTypeJSON && media != codecs.MediaTypeProtobuf {
		return Refuse(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of %s or %s", codecs.MediaTypeJSON, codecs.MediaTypeProtobuf)
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(readLimit)) // not every ResponseWriter can; the server's can
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		var big *http.MaxBytesError
		if errors.As(err, &big) {
			return Refuse(http.StatusRequestEntityTooLarge, "Request body is larger than %d bytes", MaxBody)
		}
		return BadRequest("Failed to read the body: %v", err)
	}
	return Decode(media, body, call)
}

// Decode decodes a body of the given media type into a call.
func Decode(media encoding.MediaType, body []byte, call proto.Message) (refusal *Refusal) {
	// Generated code reads what strangers send; whatever it trips over is their error, not ours.
	defer func() {
		if recover() != nil {
			refusal = BadRequest("Failed to parse body into Call protobuf")
		}
	}()
	if media == codecs.MediaTypeProtobuf {
		if err := proto.Unmarshal(body, call); err != nil {
			return BadRequest("Failed to parse body into Call protobuf")
		}
		return nil
	}
	var syntax *SyntaxError
	switch err := FromJSON(body, call); {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return BadRequest("Failed to parse body into JSON: %v", err)
	default:
		return BadRequest("Failed to convert JSON into Call protobuf: %v", err)
	}
}

// Accepted picks the media type of an answer by the request's Accept header: JSON when both will do, as Mesos does.
func Accepted(r *http.Request) (encoding.MediaType, *Refusal) {
	header := strings.Join(r.Header.Values("Accept"), ",")
	for _, m := range []encoding.MediaType{codecs.MediaTypeJSON, codecs.MediaTypeProtobuf} {
		if accepts(header, string(m)) {
			return m, nil
		}
	}
	return "", Refuse(http.StatusNotAcceptable, "Expecting 'Accept' to allow '%s' or '%s'", codecs.MediaTypeProtobuf, codecs.MediaTypeJSON)
}

func accepts(header, want string) bool {
	if header == "" {
		return true
	}
	for part := range strings.SplitSeq(header, ",") {
		m, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil || params["q"] == "0" || params["q"] == "0.0" {
			continue
		}
		if m == want || m == "*/*" || m == "application/*" {
			return true
		}
	}
	return false
}

// Encode encodes a message for the given media type.
func Encode(media encoding.MediaType, m proto.Message) ([]byte, error) {
	if media == codecs.MediaTypeProtobuf {
		return proto.Marshal(m)
	}
	return JSON(m)
}

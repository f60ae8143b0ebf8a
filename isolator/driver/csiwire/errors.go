package csiwire

import (
	"strings"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// classes says what the code of a reply proves. A code that is not here leaves open what happened: DeadlineExceeded and Canceled; Unavailable,
// which the transport gives also for a connection that broke after the plugin had begun; Aborted, which says that another call for the volume is
// under way; Internal, Unknown and DataLoss, with which a plugin says that something went wrong on the way.
var classes = map[codes.Code]fault.Class{
	codes.InvalidArgument:    fault.Invalid,
	codes.OutOfRange:         fault.Invalid,
	codes.Unimplemented:      fault.Invalid,
	codes.NotFound:           fault.NotFound,
	codes.AlreadyExists:      fault.Conflict, // it exists, and is another than the one asked for
	codes.FailedPrecondition: fault.Conflict,
	codes.PermissionDenied:   fault.Denied,
	codes.Unauthenticated:    fault.Denied,
	codes.ResourceExhausted:  fault.Unavailable, // no room, or too many volumes on the node
}

// tooLarge begins what grpc itself says, by the code ResourceExhausted, of a reply that it would not read.
const tooLarge = "grpc: received message"

// ReplyError turns what a call came to into a fault. known are the secrets that were sent along.
func ReplyError(method string, err error, known map[string]string) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	class, ok := classes[st.Code()]
	if !ok || strings.HasPrefix(st.Message(), tooLarge) {
		class = fault.Unknown
	}
	return &fault.Error{Class: class, Text: method, Err: &Said{Code: st.Code(), Text: Clean(hide(st.Message(), known))}}
}

// Said is the plugin's own word on a failure: it was reached, and it answered.
type Said struct {
	Code codes.Code
	Text string
}

func (s *Said) Error() string { return "the plugin answered " + s.Code.String() + ": " + s.Text }

// Clean makes a plugin's words fit one log line.
func Clean(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	s = strings.Map(func(r rune) rune { // nothing that a terminal would obey
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}

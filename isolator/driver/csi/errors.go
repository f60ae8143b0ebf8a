package csi

import (
	"strings"

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

// replyError turns what a call came to into a fault. known are the secrets that were sent along.
func replyError(method string, err error, known map[string]string) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	class, ok := classes[st.Code()]
	if !ok || strings.HasPrefix(st.Message(), tooLarge) {
		class = fault.Unknown
	}
	return &fault.Error{Class: class, Text: method, Err: &said{code: st.Code(), text: clean(hide(st.Message(), known))}}
}

// said is the plugin's own word on a failure.
type said struct {
	code codes.Code
	text string
}

func (s *said) Error() string { return "the plugin answered " + s.code.String() + ": " + s.text }

// clean makes a plugin's words fit one log line.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}

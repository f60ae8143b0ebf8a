package csiwire

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// What each code proves: only what the plugin says of itself before it did anything is anything but unknown.
func TestCodes(t *testing.T) {
	for c, want := range map[codes.Code]fault.Class{
		codes.Canceled: fault.Unknown, codes.Unknown: fault.Unknown, codes.InvalidArgument: fault.Invalid, codes.DeadlineExceeded: fault.Unknown,
		codes.NotFound: fault.NotFound, codes.AlreadyExists: fault.Conflict, codes.PermissionDenied: fault.Denied, codes.ResourceExhausted: fault.Unavailable,
		codes.FailedPrecondition: fault.Conflict, codes.Aborted: fault.Unknown, codes.OutOfRange: fault.Invalid, codes.Unimplemented: fault.Invalid,
		codes.Internal: fault.Unknown, codes.Unavailable: fault.Unknown, codes.DataLoss: fault.Unknown, codes.Unauthenticated: fault.Denied, codes.Code(99): fault.Unknown,
	} {
		if got := fault.ClassOf(ReplyError("M", status.Error(c, "x"), nil)); got != want {
			t.Errorf("%s is %s, want %s", c, got, want)
		}
	}
	if err := ReplyError("M", status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)"), nil); !fault.Is(err, fault.Unknown) {
		t.Errorf("a reply that was too large: %v", err)
	}
	if err := ReplyError("M", status.Error(codes.Internal, "a\nb\x1b[0m "+strings.Repeat("é", 9000)), nil); strings.Contains(err.Error(), "\n") || len(err.Error()) > 700 {
		t.Errorf("%q", err)
	}
}

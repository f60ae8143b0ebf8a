package csiwire

import (
	"strings"
	"testing"
	"unicode"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

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

// FuzzReply: whatever a plugin gives for a volume, a snapshot or an error, it is checked or refused, and its words fit one line.
func FuzzReply(f *testing.F) {
	f.Add([]byte(nil), uint32(13), "a\nb")
	raw, err := proto.Marshal(&spec.Volume{VolumeId: "v", CapacityBytes: 5, VolumeContext: map[string]string{"k": "v"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, uint32(5), "no such\x1b[0m volume hunter2")
	f.Fuzz(func(t *testing.T, raw []byte, code uint32, words string) {
		var v spec.Volume
		if proto.Unmarshal(raw, &v) == nil {
			if _, err := CheckVolume(&v); err == nil && (v.VolumeId == "" || len(v.VolumeId) > MaxID || strings.ContainsAny(v.VolumeId, "\n\x00") || v.CapacityBytes < 0) {
				t.Fatalf("%v was taken", &v)
			}
		}
		err := ReplyError("M", status.Error(codes.Code(code), words), map[string]string{"k": "hunter2"})
		if err == nil && code != 0 {
			t.Fatal("a failure is a success")
		}
		if err != nil && (strings.ContainsFunc(err.Error(), unicode.IsControl) || strings.Contains(err.Error(), "hunter2")) {
			t.Fatalf("%q", err)
		}
	})
}

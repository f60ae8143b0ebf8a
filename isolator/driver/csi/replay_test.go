package csi

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/csiwire"
)

// exchange is one call of a recording.
type exchange struct {
	method string // Controller/CreateVolume
	in     proto.Message
	out    proto.Message
	err    error
	used   bool
}

var (
	callLine  = regexp.MustCompile(`(?m)^=== \d+ (\w+)/(\w+) rc=\d+.*\n> (.*)\n`)
	errorText = regexp.MustCompile(`(?s)^ERROR:\s+Code: (\w+)\s+Message: (.*?)\n`)
)

// recording reads the exchanges with the Kubernetes host-path driver.
func recording(t *testing.T) []*exchange {
	t.Helper()
	file := filepath.Join("..", "..", "..", "..", "shared", "driver-wire", "csi-hostpath-ordered.txt")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("the recorded exchanges are not here: %v", err)
	}
	var all []*exchange
	at := callLine.FindAllSubmatchIndex(raw, -1)
	for i, m := range at {
		end := len(raw)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		service, method, in, rest := string(raw[m[2]:m[3]]), string(raw[m[4]:m[5]]), raw[m[6]:m[7]], string(raw[m[1]:end])
		rest, _, _ = strings.Cut(rest, "\n$ ") // commands that were typed
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("csi.v1." + service))
		if err != nil {
			t.Fatal(err)
		}
		md := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
		e := &exchange{method: service + "/" + method, in: message(t, md.Input().FullName()), out: message(t, md.Output().FullName())}
		if err := protojson.Unmarshal(in, e.in); err != nil {
			t.Fatalf("%s: %v", e.method, err)
		}
		if w := errorText.FindStringSubmatch(rest); w != nil {
			var code codes.Code
			if err := code.UnmarshalJSON([]byte(`"` + strings.ToUpper(w[1]) + `"`)); err != nil {
				t.Fatal(err)
			}
			e.err = status.Error(code, w[2])
		} else if err := protojson.Unmarshal([]byte(rest), e.out); err != nil {
			t.Fatalf("%s: %v in %q", e.method, err, rest)
		}
		all = append(all, e)
	}
	if len(all) < 15 {
		t.Fatalf("%d exchanges in %s", len(all), file)
	}
	return all
}

func message(t *testing.T, name protoreflect.FullName) proto.Message {
	t.Helper()
	m, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return m.New().Interface()
}

// shape is a request without what is ours to choose: places, the access mode, and what goes beyond the recording.
func shape(m proto.Message) string {
	m = proto.Clone(m)
	switch q := m.(type) {
	case *spec.CreateVolumeRequest:
		q.AccessibilityRequirements, q.VolumeCapabilities = nil, nil
		if q.Name == "restored" || q.Name == "clone" {
			q.Name = "copy"
		}
	case *spec.NodeStageVolumeRequest:
		q.StagingTargetPath, q.VolumeCapability = "", nil
	case *spec.NodePublishVolumeRequest:
		q.StagingTargetPath, q.TargetPath, q.VolumeCapability = "", "", nil
	case *spec.NodeUnpublishVolumeRequest:
		q.TargetPath = ""
	case *spec.NodeUnstageVolumeRequest:
		q.StagingTargetPath = ""
	case *spec.CreateSnapshotRequest:
		q.Name = ""
	}
	return string(m.ProtoReflect().Descriptor().Name()) + " " + protojson.Format(m)
}

// replay answers as the host-path driver did, to what it was asked.
type replay struct {
	*testing.T
	all []*exchange
}

func (r *replay) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	service, method := filepath.Base(filepath.Dir(info.FullMethod)), filepath.Base(info.FullMethod)
	service = strings.TrimPrefix(service, "csi.v1.")
	switch { // what the recording has not
	case method == "ValidateVolumeCapabilities":
		return &spec.ValidateVolumeCapabilitiesResponse{}, nil
	case method == "NodeGetInfo":
		return &spec.NodeGetInfoResponse{NodeId: "probe-node", AccessibleTopology: &spec.Topology{Segments: map[string]string{"topology.hostpath.csi/node": "probe-node"}}}, nil
	case service == "Identity" || strings.Contains(method, "Capabilities"):
		return h(ctx, req)
	}
	asked := shape(req.(proto.Message))
	for _, e := range r.all {
		if e.method == service+"/"+method && e.err == nil && !e.used && shape(e.in) == asked {
			e.used = true
			return e.out, nil
		}
	}
	r.Errorf("%s/%s was not recorded so: %s", service, method, asked)
	return nil, status.Error(codes.Internal, "not recorded")
}

// TestReplayHostPath takes volumes through the recorded life: our requests are the recorded ones, and what the driver answered does what it should.
func TestReplayHostPath(t *testing.T) {
	r := &replay{T: t, all: recording(t)}
	f := newFake(t)
	f.server.Stop()
	os.Remove(filepath.Join(f.dir, "csi.sock"))
	f.control, f.nodal = []spec.ControllerServiceCapability_RPC_Type{1, 5, 7}, []spec.NodeServiceCapability_RPC_Type{1}
	f.serve(t, r.intercept)
	mounted := ""
	d := f.open(t, t.TempDir(), func(o *Options) {
		o.isMount = func(p string) (bool, error) { return p == mounted, nil }
	})
	here := map[string]string{}
	create := func(s driver.Spec) {
		t.Helper()
		s.UID, s.Size = "u-"+s.Name, 10*mib
		i, err := d.Create(bg, s)
		if err != nil || i.Size != 10*mib || len(i.Topology) != 1 || i.Topology[0]["topology.hostpath.csi/node"] != "probe-node" {
			t.Fatalf("create %s: %+v %v", s.Name, i, err)
		}
		v, _, _ := d.record(s.Name)
		here[s.Name] = v.ID
	}
	create(driver.Spec{Name: "vol2"})
	mounted = d.WillMountAt("vol2")
	if _, err := d.Mount(bg, driver.MountSpec{Name: "vol2", UID: "u-vol2", ID: "e"}); err != nil {
		t.Fatal(err)
	}
	sn, err := d.Snapshot(bg, "vol2", "u-vol2", "snap2")
	if err != nil || !sn.Ready || sn.Size != 10*mib || sn.Created.UTC().Year() != 2026 {
		t.Fatalf("%+v %v", sn, err)
	}
	create(driver.Spec{Name: "restored", Source: &driver.Source{Volume: "vol2", Snapshot: "snap2"}})
	create(driver.Spec{Name: "clone", Source: &driver.Source{Volume: "vol2"}})
	if here["restored"] == here["clone"] || here["clone"] == here["vol2"] {
		t.Errorf("ids %v", here)
	}
	mounted = ""
	if err := d.Unmount(bg, "vol2", "e"); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(bg, "vol2", "u-vol2"); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveSnapshot(bg, "vol2", "snap2"); err != nil {
		t.Fatal(err)
	}
	for _, e := range r.all {
		if e.err != nil && !fault.Is(csiwire.ReplyError(e.method, e.err, nil), fault.Unknown) { // still published: it may or may not be staged
			t.Errorf("%s: %v is %v", e.method, e.err, csiwire.ReplyError(e.method, e.err, nil))
		}
	}
}

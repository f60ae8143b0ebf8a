package mesos

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/embedded/wire"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

var at = time.Date(2026, 11, 21, 5, 0, 0, 0, time.UTC)

// TestRecordedEvents decodes every kind of event that was recorded with a real Apache Mesos.
func TestRecordedEvents(t *testing.T) {
	f, err := os.Open("testdata/recorded-events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]int{}
	states := map[string]bool{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e msched.Event
		if err := wire.FromJSON(sc.Bytes(), &e); err != nil {
			t.Fatalf("%v: %s", err, sc.Bytes())
		}
		raw, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(raw, at)
		if err != nil {
			t.Errorf("%v: %s", err, sc.Bytes())
		}
		switch ev := got.(type) {
		case scheduler.Offers:
			seen["offers"]++
			for _, o := range ev.Offers {
				checkOffer(t, o)
			}
		case scheduler.Status:
			seen["status"]++
			states[ev.State] = true
			if ev.Task == "" || ev.At.Year() != 2026 || !strings.HasPrefix(ev.State, "TASK_") || !strings.HasPrefix(ev.Source, "SOURCE_") {
				t.Errorf("status %+v", ev)
			}
			if ev.State == "TASK_UNREACHABLE" && ev.UnreachableAt.IsZero() {
				t.Errorf("unreachable since when? %+v", ev)
			}
		case scheduler.Rescinded:
			seen["rescinded"]++
		case scheduler.AgentLost:
			seen["lost"]++
		case scheduler.InverseOffers:
			seen["inverse"]++
			if o := ev.Offers[0]; o.ID == "" || o.Agent == "" || o.Start.Year() != 2026 || o.Duration != time.Hour {
				t.Errorf("inverse offer %+v", o)
			}
		case nil:
			seen["nothing"]++
		}
	}
	for _, k := range []string{"offers", "status", "rescinded", "lost", "nothing"} {
		if seen[k] == 0 {
			t.Errorf("no %s among the recorded events", k)
		}
	}
	for _, s := range []string{"TASK_STARTING", "TASK_RUNNING", "TASK_KILLED", "TASK_FAILED", "TASK_FINISHED", "TASK_ERROR", "TASK_UNREACHABLE"} {
		if !states[s] {
			t.Errorf("no %s among the recorded statuses", s)
		}
	}
}

func checkOffer(t *testing.T, o *state.Offer) {
	t.Helper()
	if o.ID == "" || o.Agent == "" || o.Role == "" || !strings.HasPrefix(o.AgentURL, "http://127.0.0.1:50") || o.Attributes["rack"] == "" {
		t.Errorf("offer %+v", o)
	}
	for _, r := range o.Resources {
		if r.AllocationRole == "" || len(r.Raw) == 0 || (r.Scalar == 0) == (len(r.Ranges) == 0) {
			t.Errorf("resource %+v", r)
		}
	}
}

func TestAttributes(t *testing.T) {
	for want, a := range map[string]mesos.Attribute{
		"r0":        {Text: &mesos.Value_Text{Value: "r0"}},
		"1":         {Scalar: &mesos.Value_Scalar{Value: 1}},
		"0.5":       {Scalar: &mesos.Value_Scalar{Value: .5}},
		"1.235":     {Scalar: &mesos.Value_Scalar{Value: 1.23456}},
		"0":         {Scalar: &mesos.Value_Scalar{Value: -.0001}},
		"100":       {Scalar: &mesos.Value_Scalar{Value: 100}},
		"[1-2,5-6]": {Ranges: &mesos.Value_Ranges{Range: []mesos.Value_Range{{Begin: 1, End: 2}, {Begin: 5, End: 6}}}},
		"{a,b}":     {Set: &mesos.Value_Set{Item: []string{"b", "a"}}},
		"":          {},
	} {
		if got := attributeText(&a); got != want {
			t.Errorf("attribute %+v prints %q, want %q", a, got, want)
		}
	}
}

func TestReservations(t *testing.T) {
	dynamic := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: ptr("holdfast/sub"), Principal: ptr("p"),
		Labels: &mesos.Labels{Labels: []mesos.Label{{Key: "holdfast_app", Value: ptr("/db")}, {Key: "flag"}}}}
	static := mesos.Resource_ReservationInfo{Type: mesos.Resource_ReservationInfo_STATIC.Enum(), Role: ptr("holdfast")}
	r, ok := convertResource(&mesos.Resource{Name: "cpus", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: 4},
		AllocationInfo: &mesos.Resource_AllocationInfo{Role: ptr("holdfast")}, Reservations: []mesos.Resource_ReservationInfo{static, dynamic}})
	if !ok || len(r.Reservations) != 2 || r.Reservations[0].Dynamic || !r.Reservations[1].Dynamic || r.Reservations[1].Principal != "p" ||
		r.Reservations[1].Labels["holdfast_app"] != "/db" || r.Scalar != 4 || r.AllocationRole != "holdfast" {
		t.Errorf("decoded as %+v", r)
	}
}

func TestResourcesThatAreNotPlain(t *testing.T) {
	disk := func(d *mesos.Resource) *mesos.Resource {
		d.Name, d.Type, d.Scalar = "disk", mesos.SCALAR.Enum(), &mesos.Value_Scalar{Value: 10}
		return d
	}
	for name, r := range map[string]*mesos.Resource{
		"revocable": disk(&mesos.Resource{Revocable: &mesos.Resource_RevocableInfo{}}),
		"set":       {Name: "x", Type: mesos.SET.Enum(), Set: &mesos.Value_Set{Item: []string{"a"}}},
		"nothing":   {Name: "x"},
	} {
		if out, ok := convertResource(r); ok {
			t.Errorf("%s was taken as %+v", name, out)
		}
	}
	// These are marked, and only local persistent volumes are made of them.
	for name, r := range map[string]*mesos.Resource{
		"{Persistence:x ContainerPath:data Principal:me Source: Root: ID: Profile: Vendor:}": disk(&mesos.Resource{Disk: &mesos.Resource_DiskInfo{
			Persistence: &mesos.Resource_DiskInfo_Persistence{ID: "x", Principal: ptr("me")}, Volume: &mesos.Volume{ContainerPath: "data", Mode: mesos.RW.Enum()}}}),
		"{Persistence: ContainerPath: Principal: Source:MOUNT Root:/mnt/a ID: Profile: Vendor:}": disk(&mesos.Resource{Disk: &mesos.Resource_DiskInfo{
			Source: &mesos.Resource_DiskInfo_Source{Type: mesos.Resource_DiskInfo_Source_MOUNT, Mount: &mesos.Resource_DiskInfo_Source_Mount{Root: ptr("/mnt/a")}}}}),
		"{Persistence: ContainerPath: Principal: Source:RAW Root: ID:7 Profile:fast Vendor:v}": disk(&mesos.Resource{Disk: &mesos.Resource_DiskInfo{
			Source: &mesos.Resource_DiskInfo_Source{Type: mesos.Resource_DiskInfo_Source_RAW, ID: ptr("7"), Profile: ptr("fast"), Vendor: ptr("v")}}}),
	} {
		if out, ok := convertResource(r); !ok || out.Disk == nil || fmt.Sprintf("%+v", *out.Disk) != name {
			t.Errorf("want %s, decoded as %+v", name, out.Disk)
		}
	}
	if out, ok := convertResource(disk(&mesos.Resource{Shared: &mesos.Resource_SharedInfo{}, ProviderID: &mesos.ResourceProviderID{Value: "p"}})); !ok || !out.Shared || out.Provider != "p" {
		t.Errorf("shared of a provider: %+v", out)
	}
}

// TestHostileFrames throws damaged events at the decoder: errors, never panics.
func TestHostileFrames(t *testing.T) {
	f, err := os.ReadFile("testdata/recorded-events.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	for line := range bytes.Lines(f) {
		var e msched.Event
		if err := wire.FromJSON(line, &e); err != nil {
			t.Fatal(err)
		}
		raw, _ := e.Marshal()
		frames = append(frames, raw)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		b := bytes.Clone(frames[rnd.IntN(len(frames))])
		for range 1 + rnd.IntN(4) {
			switch rnd.IntN(3) {
			case 0:
				b[rnd.IntN(len(b))] = byte(rnd.Uint32())
			case 1:
				b = b[:1+rnd.IntN(len(b))]
			default:
				i := rnd.IntN(len(b))
				b = append(b[:i:i], append([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, b[i:]...)...)
			}
		}
		_, _ = Decode(b, at)
	}
	for _, b := range [][]byte{nil, {}, {0}, bytes.Repeat([]byte{0xff}, 100)} {
		if e, err := Decode(b, at); e != nil {
			t.Errorf("%v decodes as %v, %v", b, e, err)
		}
	}
}

func TestFrames(t *testing.T) {
	r := newFrameReader(strings.NewReader("5\nhello0\n3\nabc"), 10)
	for _, want := range []string{"hello", "", "abc"} {
		got, err := r.next()
		if err != nil || string(got) != want {
			t.Fatalf("%q %v, want %q", got, err, want)
		}
	}
	if _, err := r.next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for in, want := range map[string]fault.Class{"11\nhello world": fault.Invalid, "18446744073709551615\n": fault.Invalid, "-1\nx": fault.Invalid, "\n": fault.Invalid,
		" 3\nabc": fault.Invalid, "0x3\nabc": fault.Invalid, "0000000000000000003\nabc": fault.Invalid} {
		if _, err := newFrameReader(strings.NewReader(in), 10).next(); !fault.Is(err, want) {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"5", "5\n", "5\nhel"} {
		if _, err := newFrameReader(strings.NewReader(in), 10).next(); err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestLargeFrame(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 20<<20)
	r := newFrameReader(io.MultiReader(strings.NewReader("20971520\n"), bytes.NewReader(big), strings.NewReader("1\ny")), MaxFrame)
	if got, err := r.next(); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if got, err := r.next(); err != nil || string(got) != "y" {
		t.Fatalf("%q, %v", got, err)
	}
	if cap(r.buf) > 2<<20 {
		t.Errorf("keeps %d bytes after a large frame", cap(r.buf))
	}
}

func BenchmarkDecodeOffers(b *testing.B) {
	f, err := os.ReadFile("testdata/recorded-events.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	var one msched.Event
	for line := range bytes.Lines(f) {
		if bytes.Contains(line, []byte(`"OFFERS"`)) {
			if err := wire.FromJSON(line, &one); err != nil {
				b.Fatal(err)
			}
			break
		}
	}
	o := one.Offers.Offers[0]
	one.Offers.Offers = nil
	for range 1000 {
		one.Offers.Offers = append(one.Offers.Offers, o)
	}
	raw, err := one.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(1000, "offers/op")
	for b.Loop() {
		if _, err := Decode(raw, at); err != nil {
			b.Fatal(err)
		}
	}
}

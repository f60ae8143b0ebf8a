package embedded

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/encoding"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"

	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// serve answers one request without a socket; subscriptions end with the request.
func serve(m *Master, path string, media string, body []byte, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", "http://localhost"+path, bytes.NewReader(body))
	r.Header.Set("Content-Type", media)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	m.server.Handler.ServeHTTP(w, r)
	return w
}

func TestOversizedBody(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	for _, path := range []string{"/api/v1/scheduler", "/api/v1"} {
		resp, err := http.Post(m.URL()+path, "application/json", io.LimitReader(zeroes{}, 10<<20))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestHostileCalls asks for what makes no sense. Every answer is a refusal or an event, the master lives on, and no resource is lost or made.
func TestHostileCalls(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := newFakeAgent(t, m, 0).start(50 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	nan, inf, neg := math.NaN(), math.Inf(1), -1.0
	long := strings.Repeat("x", 300)
	tasks := map[string]func(*mesos.TaskInfo){
		"empty id":      func(x *mesos.TaskInfo) { x.TaskID.Value = "" },
		"long id":       func(x *mesos.TaskInfo) { x.TaskID.Value = long },
		"dots":          func(x *mesos.TaskInfo) { x.TaskID.Value = ".." },
		"nul":           func(x *mesos.TaskInfo) { x.TaskID.Value = "a\x00b" },
		"other agent":   func(x *mesos.TaskInfo) { x.AgentID.Value = "no-such-agent" },
		"NaN cpus":      func(x *mesos.TaskInfo) { x.Resources[0].Scalar.Value = nan },
		"infinite cpus": func(x *mesos.TaskInfo) { x.Resources[0].Scalar.Value = inf },
		"negative mem":  func(x *mesos.TaskInfo) { x.Resources[1].Scalar.Value = neg },
		"no amount":     func(x *mesos.TaskInfo) { x.Resources[0].Scalar = nil },
		"no type":       func(x *mesos.TaskInfo) { x.Resources[0].Type = mesos.TEXT.Enum() },
		"two roles": func(x *mesos.TaskInfo) {
			x.Resources[0].AllocationInfo = &mesos.Resource_AllocationInfo{Role: proto.String("web")}
		},
		"inverted ports": func(x *mesos.TaskInfo) { x.Resources = append(x.Resources, portsOf(31005, 31004)) },
		"all ports":      func(x *mesos.TaskInfo) { x.Resources = append(x.Resources, portsOf(0, 1<<63)) },
		"neither":        func(x *mesos.TaskInfo) { x.Command = nil },
		"negative grace": func(x *mesos.TaskInfo) {
			x.KillPolicy = &mesos.KillPolicy{GracePeriod: &mesos.DurationInfo{Nanoseconds: -1}}
		},
		"volume of nothing": func(x *mesos.TaskInfo) {
			x.Container = &mesos.ContainerInfo{Type: mesos.ContainerInfo_MESOS.Enum(), Volumes: []mesos.Volume{{ContainerPath: "x", Mode: mesos.RW.Enum()}}}
		},
		"provider":          func(x *mesos.TaskInfo) { x.Resources[0].ProviderID = &mesos.ResourceProviderID{Value: "p"} },
		"health of nothing": func(x *mesos.TaskInfo) { x.HealthCheck = &mesos.HealthCheck{} },
	}
	for name, spoil := range tasks {
		o := c.offer()
		x := shellTask(o, "t", "sleep 1", 0.1)
		spoil(&x)
		c.accept(o, 0, launchOp(x))
		s := c.want(scheduler.Event_UPDATE).Update.Status
		if s.GetState() != mesos.TASK_ERROR || s.GetMessage() == "" {
			t.Errorf("%s: %v", name, s)
		}
	}
	op := func(typ mesos.Offer_Operation_Type) mesos.Offer_Operation {
		return mesos.Offer_Operation{Type: typ, ID: &mesos.OperationID{Value: "op"}}
	}
	for typ := mesos.Offer_Operation_UNKNOWN; typ <= mesos.Offer_Operation_DESTROY_DISK; typ++ {
		o := c.offer()
		c.accept(o, 0, op(typ)) // without a body
		if typ == mesos.Offer_Operation_LAUNCH || typ == mesos.Offer_Operation_LAUNCH_GROUP {
			continue
		}
		if s := c.want(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status; s.State != mesos.OPERATION_ERROR {
			t.Errorf("%s: %v", typ, s)
		}
	}
	for _, f := range []float64{nan, inf, neg, 1e300} {
		o := c.offer()
		c.call(&scheduler.Call{Type: scheduler.Call_DECLINE, Decline: &scheduler.Call_Decline{OfferIDs: []mesos.OfferID{o.ID, o.ID, {Value: "x"}}, Filters: refuse(f)}})
		c.call(calls.Revive())
	}
	if o := c.offer(); len(o.Resources) != 4 || o.Resources[1].Scalar.Value != 2 {
		t.Errorf("in the end: %v", o.Resources)
	}
	if got := a.seen(); len(got) != 0 {
		t.Errorf("agent was told: %v", got)
	}
}

// TestSpoiledBodies turns bytes of good calls over, at random but repeatably: no answer is a server error.
func TestSpoiledBodies(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	newFakeAgent(t, m, 0).start(50 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	o := c.offer()
	m.mu.Lock()
	id := m.fws[c.info.ID.Value].stream.ID
	m.mu.Unlock()
	call := &scheduler.Call{Type: scheduler.Call_ACCEPT, FrameworkID: c.info.ID, Accept: &scheduler.Call_Accept{OfferIDs: []mesos.OfferID{o.ID},
		Operations: []mesos.Offer_Operation{launchOp(shellTask(o, "a", "sleep 1", 0.1))}}}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, media := range []encoding.MediaType{codecs.MediaTypeProtobuf, codecs.MediaTypeJSON} {
		good, err := wire.Encode(media, call)
		if err != nil {
			t.Fatal(err)
		}
		for range 3000 {
			bad := bytes.Clone(good)
			for range 1 + rnd.IntN(4) {
				switch i := rnd.IntN(len(bad)); rnd.IntN(3) {
				case 0:
					bad[i] ^= 1 << rnd.IntN(8)
				case 1:
					bad = append(bad[:i:i], bad[min(len(bad)-1, i+rnd.IntN(5)):]...)
				case 2:
					bad = append(bad[:i:i], append([]byte{byte(rnd.IntN(256))}, bad[i:]...)...)
				}
			}
			if bytes.Contains(bad, []byte("SUBSCRIBE")) {
				continue
			}
			w := serve(m, "/api/v1/scheduler", string(media), bad, map[string]string{"Mesos-Stream-Id": id})
			if w.Code >= 500 && w.Code != http.StatusNotImplemented {
				t.Fatalf("%d %s for %q", w.Code, w.Body, bad)
			}
		}
	}
}

func FuzzOperator(f *testing.F) {
	for _, typ := range []string{"GET_STATE", "RESERVE_RESOURCES", "DRAIN_AGENT", "UPDATE_MAINTENANCE_SCHEDULE"} {
		f.Add([]byte(fmt.Sprintf(`{"type":%q,"drain_agent":{"agent_id":{"value":"x"}},"reserve_resources":{"agent_id":{"value":"x"},"resources":[{"name":"cpus","type":"SCALAR"}]}}`, typ)))
	}
	m, err := New(Config{Dir: f.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(m.Close)
	f.Fuzz(func(t *testing.T, b []byte) {
		w := serve(m, "/api/v1", "application/json", b, nil)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		var v any
		if w.Code == 200 && w.Body.Len() > 0 && json.Unmarshal(w.Body.Bytes(), &v) != nil {
			t.Fatalf("not JSON: %s", w.Body)
		}
	})
}

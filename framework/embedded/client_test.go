package embedded

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/gogo/protobuf/proto"
	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/encoding"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli/httpsched"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"

	"github.com/holdfast-io/holdfast/framework/embedded/wire"
)

// client is a scheduler over a real socket with mesos-go's httpsched.
type client struct {
	t      *testing.T
	info   mesos.FrameworkInfo
	caller calls.Caller
	events chan *scheduler.Event
	ended  chan error
	kept   []*scheduler.Event // came while something else was waited for
	close  func()
}

func frameworkInfo(name string, roles ...string) mesos.FrameworkInfo {
	hour, yes := 3600.0, true
	info := mesos.FrameworkInfo{User: "root", Name: name, Roles: roles, FailoverTimeout: &hour, Checkpoint: &yes}
	for _, c := range []mesos.FrameworkInfo_Capability_Type{mesos.FrameworkInfo_Capability_PARTITION_AWARE,
		mesos.FrameworkInfo_Capability_MULTI_ROLE, mesos.FrameworkInfo_Capability_RESERVATION_REFINEMENT} {
		info.Capabilities = append(info.Capabilities, mesos.FrameworkInfo_Capability{Type: c})
	}
	return info
}

// subscribeWith connects a scheduler and waits for SUBSCRIBED.
func subscribeWith(t *testing.T, m *Master, media encoding.MediaType, info mesos.FrameworkInfo) *client {
	t.Helper()
	c := dial(t, m, media, info)
	e := c.want(scheduler.Event_SUBSCRIBED)
	c.info.ID = e.Subscribed.FrameworkID
	return c
}

func dial(t *testing.T, m *Master, media encoding.MediaType, info mesos.FrameworkInfo) *client {
	t.Helper()
	c, err := tryDial(t, m.URL(), media, info)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryDial(t *testing.T, url string, media encoding.MediaType, info mesos.FrameworkInfo) (*client, error) {
	c := &client{t: t, info: info, events: make(chan *scheduler.Event, 1000), ended: make(chan error, 1)}
	cli := httpcli.New(httpcli.Endpoint(url+"/api/v1/scheduler"), httpcli.Codec(codecs.ByMediaType[media]),
		httpcli.Do(httpcli.With(httpcli.Timeout(0))))
	c.caller = httpsched.NewCaller(cli, httpsched.EndpointCandidates(func() string { return "" }))
	sub := calls.Subscribe(&info)
	if info.ID != nil {
		sub = sub.With(calls.SubscribeTo(info.ID.Value))
	}
	resp, err := c.caller.Call(context.Background(), sub)
	if err != nil {
		return nil, err
	}
	c.close = func() { _ = resp.Close() }
	t.Cleanup(c.close)
	go func() {
		for {
			var e scheduler.Event
			if err := resp.Decode(&e); err != nil {
				c.ended <- err
				return
			}
			c.events <- &e
		}
	}()
	return c, nil
}

// want waits for the next event of a type; others before it are kept.
func (c *client) want(typ scheduler.Event_Type) *scheduler.Event {
	c.t.Helper()
	e := c.maybe(typ, 5*time.Second)
	if e == nil {
		c.t.Fatalf("no %s; there were %v", typ, c.kept)
	}
	return e
}

func (c *client) maybe(typ scheduler.Event_Type, wait time.Duration) *scheduler.Event {
	for i, e := range c.kept {
		if e.Type == typ {
			c.kept = slices.Delete(c.kept, i, i+1)
			return e
		}
	}
	deadline := time.After(wait)
	for {
		select {
		case e := <-c.events:
			if e.Type == typ {
				return e
			}
			c.kept = append(c.kept, e)
		case <-deadline:
			return nil
		}
	}
}

func (c *client) call(call *scheduler.Call) {
	c.t.Helper()
	if err := c.try(call); err != nil {
		c.t.Fatalf("%s: %v", call.Type, err)
	}
}

func (c *client) try(call *scheduler.Call) error {
	if call.FrameworkID == nil {
		call.FrameworkID = c.info.ID
	}
	resp, err := c.caller.Call(context.Background(), call)
	if resp != nil {
		_ = resp.Close()
	}
	return err
}

// update waits for a status of a task in a state and acknowledges what asks for it.
func (c *client) update(task string, state mesos.TaskState) mesos.TaskStatus {
	c.t.Helper()
	for {
		s := c.want(scheduler.Event_UPDATE).Update.Status
		if len(s.UUID) > 0 {
			c.call(calls.Acknowledge(s.AgentID.Value, s.TaskID.Value, s.UUID))
		}
		if s.TaskID.Value == task && s.GetState() == state {
			return s
		}
	}
}

func shellTask(o *mesos.Offer, id, cmd string, cpus float64) mesos.TaskInfo {
	role := o.GetAllocationInfo().GetRole()
	res := []mesos.Resource{scalarOf("cpus", cpus), scalarOf("mem", 32)}
	for i := range res {
		res[i].AllocationInfo = &mesos.Resource_AllocationInfo{Role: &role}
	}
	return mesos.TaskInfo{Name: id, TaskID: mesos.TaskID{Value: id}, AgentID: o.AgentID, Command: &mesos.CommandInfo{Value: &cmd}, Resources: res}
}

func launchOp(tasks ...mesos.TaskInfo) mesos.Offer_Operation {
	return mesos.Offer_Operation{Type: mesos.Offer_Operation_LAUNCH, Launch: &mesos.Offer_Operation_Launch{TaskInfos: tasks}}
}

func refuse(s float64) *mesos.Filters { return &mesos.Filters{RefuseSeconds: &s} }

func (c *client) accept(o *mesos.Offer, seconds float64, ops ...mesos.Offer_Operation) {
	c.t.Helper()
	c.call(&scheduler.Call{Type: scheduler.Call_ACCEPT, Accept: &scheduler.Call_Accept{OfferIDs: []mesos.OfferID{o.ID}, Operations: ops, Filters: refuse(seconds)}})
}

func (c *client) offer() *mesos.Offer {
	c.t.Helper()
	return &c.want(scheduler.Event_OFFERS).Offers.Offers[0]
}

// standing waits for an offer that is not rescinded at once.
func (c *client) standing() *mesos.Offer {
	c.t.Helper()
	for {
		o := c.offer()
		r := c.maybe(scheduler.Event_RESCIND, 60*time.Millisecond)
		if r == nil || r.Rescind.OfferID != o.ID {
			return o
		}
	}
}

func both(t *testing.T, test func(t *testing.T, media encoding.MediaType)) {
	for _, media := range []encoding.MediaType{codecs.MediaTypeProtobuf, codecs.MediaTypeJSON} {
		t.Run(codecs.ByMediaType[media].Name, func(t *testing.T) {
			t.Parallel()
			test(t, media)
		})
	}
}

func TestLaunchKillReconcile(t *testing.T) {
	both(t, func(t *testing.T, media encoding.MediaType) {
		m := startMaster(t, Config{Timing: quick()})
		newFakeAgent(t, m, 0).start(50 * time.Millisecond)
		c := subscribeWith(t, m, media, frameworkInfo("one", "db"))
		o := c.offer()
		c.accept(o, 0, launchOp(shellTask(o, "a", "sleep 100", 0.5)))
		c.update("a", mesos.TASK_RUNNING)
		c.call(calls.Reconcile(calls.ReconcileTasks(map[string]string{"a": o.AgentID.Value, "b": o.AgentID.Value})))
		got := map[string]mesos.TaskState{}
		for len(got) < 2 {
			s := c.want(scheduler.Event_UPDATE).Update.Status
			got[s.TaskID.Value] = s.GetState()
		}
		if got["a"] != mesos.TASK_RUNNING || got["b"] != mesos.TASK_GONE {
			t.Errorf("reconciliation: %v", got)
		}
		if rest := c.offer(); rest.Resources[1].Scalar.Value != 1.5 {
			t.Errorf("rest of the offer: %v", rest.Resources)
		}
		c.call(calls.Kill("a", ""))
		c.update("a", mesos.TASK_KILLED)
	})
}

func TestDeclineFilterSuppressRevive(t *testing.T) {
	both(t, func(t *testing.T, media encoding.MediaType) {
		m := startMaster(t, Config{Timing: quick()})
		newFakeAgent(t, m, 0).start(50 * time.Millisecond)
		c := subscribeWith(t, m, media, frameworkInfo("one", "db", "web"))
		roles := map[string]bool{}
		decline := func(s float64) {
			o := c.offer()
			roles[o.AllocationInfo.GetRole()] = true
			c.call(calls.Decline(o.ID).With(calls.RefuseSeconds(time.Duration(s * float64(time.Second)))))
		}
		decline(3600) // one role refuses for long: the other one is asked
		decline(0.1)
		if len(roles) != 2 {
			t.Errorf("asked only for %v", roles)
		}
		start := time.Now()
		o := c.offer()
		if d := time.Since(start); d < 80*time.Millisecond {
			t.Errorf("filter of 100 ms held for %v", d)
		}
		c.call(&scheduler.Call{Type: scheduler.Call_SUPPRESS, Suppress: &scheduler.Call_Suppress{Roles: []string{"db", "web"}}})
		c.call(calls.Decline(o.ID).With(calls.RefuseSeconds(0)))
		if e := c.maybe(scheduler.Event_OFFERS, 150*time.Millisecond); e != nil {
			t.Error("offer although suppressed")
		}
		c.call(calls.Revive())
		c.offer()
	})
}

func TestFailoverOfScheduler(t *testing.T) {
	both(t, func(t *testing.T, media encoding.MediaType) {
		m := startMaster(t, Config{Timing: quick()})
		newFakeAgent(t, m, 0).start(50 * time.Millisecond)
		a := subscribeWith(t, m, media, frameworkInfo("one", "db"))
		o := a.offer()
		b := subscribeWith(t, m, media, a.info)
		if e := a.want(scheduler.Event_ERROR); e.Error.Message != "Framework failed over" {
			t.Errorf("error %q", e.Error.Message)
		}
		<-a.ended
		if err := a.try(&scheduler.Call{Type: scheduler.Call_REVIVE}); err == nil {
			t.Error("a call of the first went through")
		}
		if p := b.offer(); p.ID == o.ID {
			t.Error("the second got the offer of the first")
		}
		b.accept(o, 0, launchOp(shellTask(o, "x", "sleep 1", 0.1)))
		if s := b.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_DROPPED || s.GetReason() != mesos.REASON_INVALID_OFFERS {
			t.Errorf("launch on an offer of the first: %v", s)
		}
	})
}

// operate makes an operator call.
func operate(t *testing.T, m *Master, media encoding.MediaType, call *master.Call) (*master.Response, int, string) {
	t.Helper()
	b, err := wire.Encode(media, call)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequest("POST", m.URL()+"/api/v1", bytes.NewReader(b))
	req.Header.Set("Content-Type", string(media))
	req.Header.Set("Accept", string(media))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var out master.Response
	if resp.StatusCode == 200 && len(body) > 0 {
		if media == codecs.MediaTypeJSON {
			err = wire.FromJSON(body, &out)
		} else {
			err = proto.Unmarshal(body, &out)
		}
		if err != nil {
			t.Fatalf("%s: %v in %s", call.Type, err, body)
		}
	}
	return &out, resp.StatusCode, string(body)
}

func TestOperatorLooks(t *testing.T) {
	both(t, func(t *testing.T, media encoding.MediaType) {
		m := startMaster(t, Config{Timing: quick()})
		newFakeAgent(t, m, 0).start(50 * time.Millisecond)
		c := subscribeWith(t, m, media, frameworkInfo("one", "db"))
		o := c.offer()
		c.accept(o, 3600, launchOp(shellTask(o, "a", "sleep 100", 0.5)))
		c.update("a", mesos.TASK_RUNNING)
		for typ := master.Call_GET_HEALTH; typ <= master.Call_REACTIVATE_AGENT; typ++ {
			resp, status, body := operate(t, m, media, &master.Call{Type: typ})
			if status != 200 && status != 400 && status != 501 {
				t.Errorf("%s: %d %s", typ, status, body)
			}
			switch typ {
			case master.Call_GET_STATE:
				s := resp.GetState
				if len(s.GetTasks.Tasks) != 1 || len(s.GetAgents.Agents) != 1 || len(s.GetFrameworks.Frameworks) != 1 {
					t.Errorf("state: %v", s)
				}
			case master.Call_GET_AGENTS:
				if ns := resp.GetAgents.Agents[0].RegisteredTime.Nanoseconds; ns != m.agents[o.AgentID.Value].registered.UnixNano() {
					t.Errorf("time was rounded: %d", ns)
				}
			case master.Call_GET_ROLES:
				if len(resp.GetRoles.Roles) != 1 || resp.GetRoles.Roles[0].Name != "db" {
					t.Errorf("roles: %v", resp.GetRoles)
				}
			case master.Call_GET_VERSION:
				if resp.GetVersion.VersionInfo.Version != Version {
					t.Errorf("version: %v", resp.GetVersion)
				}
			}
		}
	})
	m := startMaster(t, Config{Timing: quick()})
	for _, path := range []string{"/health", "/version", "/state", "/master/state", "/slaves", "/frameworks", "/metrics/snapshot"} {
		resp, err := http.Get(m.URL() + path)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v %v", path, resp, err)
		}
	}
	noFollow := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := noFollow.Get(m.URL() + "/master/redirect")
	if err != nil || resp.StatusCode != 307 || resp.Header.Get("Location") != "//"+m.Addr() {
		t.Errorf("redirect: %v %v", resp, err)
	}
}

func TestOperatorReservesAndMakesVolumes(t *testing.T) {
	both(t, func(t *testing.T, media encoding.MediaType) {
		m := startMaster(t, Config{Timing: quick()})
		a := newFakeAgent(t, m, 0).start(50 * time.Millisecond)
		c := subscribeWith(t, m, media, frameworkInfo("one", "db"))
		o := c.offer()
		role := "db"
		disk := scalarOf("disk", 100)
		disk.Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &role}}
		_, status, body := operate(t, m, media, &master.Call{Type: master.Call_RESERVE_RESOURCES,
			ReserveResources: &master.Call_ReserveResources{AgentID: o.AgentID, Resources: []mesos.Resource{disk}}})
		if status != 202 {
			t.Fatalf("reserve: %d %s", status, body)
		}
		if r := c.want(scheduler.Event_RESCIND); r.Rescind.OfferID != o.ID {
			t.Errorf("rescinded %v", r)
		}
		vol := disk
		vol.Disk = &mesos.Resource_DiskInfo{Persistence: &mesos.Resource_DiskInfo_Persistence{ID: "v"},
			Volume: &mesos.Volume{ContainerPath: "data", Mode: mesos.RW.Enum()}}
		if _, status, body = operate(t, m, media, &master.Call{Type: master.Call_CREATE_VOLUMES,
			CreateVolumes: &master.Call_CreateVolumes{AgentID: o.AgentID, Volumes: []mesos.Resource{vol}}}); status != 202 {
			t.Fatalf("create: %d %s", status, body)
		}
		if _, status, body = operate(t, m, media, &master.Call{Type: master.Call_UNRESERVE_RESOURCES,
			UnreserveResources: &master.Call_UnreserveResources{AgentID: o.AgentID, Resources: []mesos.Resource{disk}}}); status != 409 {
			t.Fatalf("unreserve under a volume: %d %s", status, body)
		}
		if _, status, body = operate(t, m, media, &master.Call{Type: master.Call_DESTROY_VOLUMES,
			DestroyVolumes: &master.Call_DestroyVolumes{AgentID: o.AgentID, Volumes: []mesos.Resource{vol}}}); status != 202 {
			t.Fatalf("destroy: %d %s", status, body)
		}
		if _, status, body = operate(t, m, media, &master.Call{Type: master.Call_UNRESERVE_RESOURCES,
			UnreserveResources: &master.Call_UnreserveResources{AgentID: o.AgentID, Resources: []mesos.Resource{disk}}}); status != 202 {
			t.Fatalf("unreserve: %d %s", status, body)
		}
		want := []string{"checkpoint +0 -0", "checkpoint +1 -0", "checkpoint +0 -1", "checkpoint +0 -0"}
		eventually(t, "agent's checkpoints", func() string {
			if got := a.seen(); fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Sprintf("%v, want %v", got, want)
			}
			return ""
		})
	})
}

// eventually waits until check has nothing to complain of.
func eventually(t *testing.T, what string, check func() string) {
	t.Helper()
	var last string
	for range 500 {
		if last = check(); last == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: %s", what, last)
}

package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/master"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"

	"github.com/holdfast-io/holdfast/framework/embedded/agent"
)

const pb = codecs.MediaTypeProtobuf

// TestRestartOnTheSameDirectory: ids, agents, tasks, removed frameworks and gone agents outlive the master.
func TestRestartOnTheSameDirectory(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Timing: quick()}
	m, stop := runMaster(t, cfg)
	masterID := m.ID()
	a := newFakeAgent(t, m, 0).start(50 * time.Millisecond)
	b := newFakeAgent(t, m, 1).start(50 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	gone := subscribeWith(t, m, pb, frameworkInfo("two", "web"))
	gone.call(calls.Suppress())
	gone.call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
	o := c.offer()
	for o.AgentID != a.id {
		o = c.offer()
	}
	c.accept(o, 3600, launchOp(shellTask(o, "a", "sleep 100", 0.5)))
	c.update("a", mesos.TASK_RUNNING)
	if known, err := m.markGone(b.id.Value); !known || err != nil {
		t.Fatal(known, err)
	}
	a.settle()
	a.kill()
	stop()

	m, stop = runMaster(t, cfg)
	if m.ID() != masterID {
		t.Errorf("master id %s, was %s", m.ID(), masterID)
	}
	again := dial(t, m, pb, gone.info)
	if e := again.want(scheduler.Event_ERROR); e.Error.Message != "Framework has been removed" {
		t.Errorf("removed framework: %v", e)
	}
	c2 := subscribeWith(t, m, pb, c.info)
	c2.call(calls.Reconcile(calls.ReconcileTasks(map[string]string{"a": a.id.Value})))
	if e := c2.maybe(scheduler.Event_UPDATE, 100*time.Millisecond); e != nil {
		t.Errorf("answer about a task whose agent is not back yet: %v", e)
	}
	n := a.successor(m.Link("agent0"))
	if err := n.reregister(); err != nil {
		t.Fatal(err)
	}
	go n.live(50 * time.Millisecond)
	c2.call(calls.Reconcile(calls.ReconcileTasks(map[string]string{"a": a.id.Value})))
	if s := c2.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_RUNNING {
		t.Errorf("after the agent's return: %v", s)
	}
	if o2 := c2.offer(); o2.ID == o.ID || o2.AgentID != a.id || o2.Resources[1].Scalar.Value != 1.5 {
		t.Errorf("offer after the restart: %v, before: %s", o2, o.ID.Value)
	}
	l := newFakeAgent(t, m, 1)
	l.id = b.id
	if err := l.reregister(); !errors.Is(err, agent.ErrRemoved) {
		t.Errorf("agent that was marked gone: %v", err)
	}
	stop()
}

// TestPartition: a cut cable, shorter and longer than the master's patience.
func TestPartition(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := newFakeAgent(t, m, 0).start(20 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	o := c.offer()
	c.accept(o, 0, launchOp(shellTask(o, "a", "sleep 100", 0.5)))
	c.update("a", mesos.TASK_RUNNING)
	o = c.offer()
	a.settle()

	a.link.Cut()
	before := len(a.seen())
	if err := a.link.Pong(context.Background(), a.id); !errors.Is(err, agent.ErrCut) {
		t.Errorf("pong over a cut cable: %v", err)
	}
	c.accept(o, 0, launchOp(shellTask(o, "lost", "sleep 100", 0.5)))
	c.call(calls.Kill("a", ""))
	time.Sleep(50 * time.Millisecond)
	if got := a.seen(); len(got) != before {
		t.Errorf("messages over a cut cable: %v", got[before:])
	}
	a.link.Heal()
	if s := c.want(scheduler.Event_UPDATE).Update.Status; s.TaskID.Value != "lost" || s.GetState() != mesos.TASK_DROPPED {
		t.Errorf("task launched into the cut: %v", s)
	}
	c.update("a", mesos.TASK_KILLED) // the kill is asked for again

	o = c.standing()
	c.accept(o, 0, launchOp(shellTask(o, "b", "sleep 100", 0.5)))
	c.update("b", mesos.TASK_RUNNING)
	a.settle()
	c.offer()
	a.link.Cut()
	s := c.want(scheduler.Event_UPDATE).Update.Status
	if s.GetState() != mesos.TASK_UNREACHABLE || s.UnreachableTime == nil {
		t.Errorf("after the master's patience: %v", s)
	}
	c.want(scheduler.Event_RESCIND)
	c.want(scheduler.Event_FAILURE)
	c.call(calls.Reconcile(calls.ReconcileTasks(map[string]string{"b": a.id.Value})))
	if s := c.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_UNREACHABLE {
		t.Errorf("reconciled: %v", s)
	}
	if st := m.Agents(); len(st) != 1 || st[0].State != "unreachable" {
		t.Errorf("agents: %+v", st)
	}
	a.link.Heal()
	if s := c.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_RUNNING || s.GetReason() != mesos.REASON_AGENT_REREGISTERED {
		t.Errorf("after the return: %v", s)
	}
	c.offer()
}

// TestNotPartitionAware frameworks hear TASK_LOST and never the newer states.
func TestNotPartitionAware(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := newFakeAgent(t, m, 0).start(20 * time.Millisecond)
	info := frameworkInfo("old")
	role := "db"
	info.Roles, info.Role, info.Capabilities = nil, &role, nil
	c := subscribeWith(t, m, pb, info)
	o := c.offer()
	if o.AllocationInfo != nil || o.Resources[0].AllocationInfo != nil || o.Resources[0].GetRole() != "*" || len(o.Resources[0].Reservations) > 0 {
		t.Errorf("offer in the wrong form: %v", o)
	}
	task := shellTask(o, "a", "sleep 100", 0.5)
	for i := range task.Resources {
		task.Resources[i].AllocationInfo = nil
	}
	c.accept(o, 0, launchOp(task))
	c.update("a", mesos.TASK_RUNNING)
	a.link.Cut()
	if s := c.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_LOST {
		t.Errorf("agent lost: %v", s)
	}
	c.call(calls.Reconcile(calls.ReconcileTasks(map[string]string{"nobody": ""})))
	if s := c.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_LOST {
		t.Errorf("unknown task: %v", s)
	}
}

// TestFailoverTimeout: a framework that stays away too long is removed with its tasks.
func TestFailoverTimeout(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := newFakeAgent(t, m, 0).start(20 * time.Millisecond)
	info := frameworkInfo("one", "db")
	short := 0.1
	info.FailoverTimeout = &short
	c := subscribeWith(t, m, pb, info)
	o := c.offer()
	c.accept(o, 0, launchOp(shellTask(o, "a", "sleep 100", 0.5)))
	c.update("a", mesos.TASK_RUNNING)
	c.close()
	eventually(t, "tasks of the framework", func() string {
		if seen := a.seen(); !slices.Contains(seen, "shutdown framework") {
			return fmt.Sprint(seen)
		}
		return ""
	})
	if e := dial(t, m, pb, c.info).want(scheduler.Event_ERROR); e.Error.Message != "Framework has been removed" {
		t.Errorf("subscribing again: %v", e)
	}
	resp, _, _ := operate(t, m, pb, &master.Call{Type: master.Call_GET_FRAMEWORKS})
	if f := resp.GetFrameworks; len(f.Frameworks) != 0 || len(f.CompletedFrameworks) != 1 || f.CompletedFrameworks[0].UnregisteredTime == nil {
		t.Errorf("frameworks: %v", f)
	}
}

func TestOfferTimeout(t *testing.T) {
	timing := quick()
	timing.Offer = 100 * time.Millisecond
	m := startMaster(t, Config{Timing: timing})
	newFakeAgent(t, m, 0).start(20 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	o := c.offer()
	if r := c.want(scheduler.Event_RESCIND); r.Rescind.OfferID != o.ID {
		t.Errorf("rescinded %v, offered %v", r, o.ID)
	}
	if n := c.offer(); n.ID == o.ID {
		t.Error("same offer again")
	}
}

// TestSharesAreFair: two roles get halves, and a framework that declines does not starve the other one.
func TestSharesAreFair(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := subscribeWith(t, m, pb, frameworkInfo("a", "db"))
	b := subscribeWith(t, m, pb, frameworkInfo("b", "web"))
	for i := range 6 {
		newFakeAgent(t, m, i).start(20 * time.Millisecond)
	}
	count := func(c *client) int {
		n := 0
		for n < 3 {
			e := c.maybe(scheduler.Event_OFFERS, 300*time.Millisecond)
			if e == nil {
				break
			}
			n += len(e.Offers.Offers)
		}
		return n
	}
	if x, y := count(a), count(b); x != 3 || y != 3 {
		t.Errorf("%d and %d of 6 agents", x, y)
	}
}

// TestStatusIsRepeatedToAFrameworkThatComesBack: nothing that was not acknowledged is lost with a stream.
func TestStatusIsRepeatedToAFrameworkThatComesBack(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := newFakeAgent(t, m, 0).start(20 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	o := c.offer()
	c.accept(o, 0, launchOp(shellTask(o, "a", "sleep 100", 0.5)))
	c.update("a", mesos.TASK_RUNNING)
	a.settle()
	c.close()
	eventually(t, "disconnect", func() string {
		if resp, _, _ := operate(t, m, pb, &master.Call{Type: master.Call_GET_FRAMEWORKS}); resp.GetFrameworks.Frameworks[0].Connected {
			return "still connected"
		}
		return ""
	})
	a.fail("a")
	time.Sleep(20 * time.Millisecond)
	c2 := subscribeWith(t, m, pb, c.info)
	c2.update("a", mesos.TASK_FAILED)
	resp, _, _ := operate(t, m, pb, &master.Call{Type: master.Call_GET_TASKS})
	eventually(t, "end of the task", func() string {
		resp, _, _ = operate(t, m, pb, &master.Call{Type: master.Call_GET_TASKS})
		if len(resp.GetTasks.CompletedTasks) != 1 || len(resp.GetTasks.Tasks) != 0 {
			return resp.GetTasks.String()
		}
		return ""
	})
}

// TestRefusedCheckpoint: an agent that cannot make a reservation durable fails the operation and what was built on it.
func TestRefusedCheckpoint(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	a := newFakeAgent(t, m, 0)
	a.refuse = errors.New("no space left on device")
	a.start(20 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	o := c.offer()
	role := "db"
	task := shellTask(o, "a", "sleep 100", 0.5)
	for i := range task.Resources {
		task.Resources[i].Reservations = []mesos.Resource_ReservationInfo{{Type: mesos.Resource_ReservationInfo_DYNAMIC.Enum(), Role: &role}}
	}
	c.accept(o, 0, mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE, ID: &mesos.OperationID{Value: "r"},
		Reserve: &mesos.Offer_Operation_Reserve{Resources: task.Resources}}, launchOp(task))
	e := c.want(scheduler.Event_UPDATE_OPERATION_STATUS).UpdateOperationStatus.Status
	if e.State != mesos.OPERATION_FAILED || !strings.Contains(e.GetMessage(), "no space left") {
		t.Errorf("operation: %v", e)
	}
	if s := c.want(scheduler.Event_UPDATE).Update.Status; s.GetState() != mesos.TASK_DROPPED {
		t.Errorf("task: %v", s)
	}
	for {
		o := c.offer()
		if len(o.Resources) == 4 && o.Resources[1].Scalar.Value == 2 && len(o.Resources[1].Reservations) == 0 {
			break
		}
	}
	if slices.Contains(a.seen(), "run a") {
		t.Error("the task was run although its reservation failed")
	}
}

// TestSlowSubscriber: somebody who does not read is cut off and holds up nobody.
func TestSlowSubscriber(t *testing.T) {
	timing := quick()
	timing.StreamWrite = 200 * time.Millisecond
	m := startMaster(t, Config{Timing: timing})
	newFakeAgent(t, m, 0).start(20 * time.Millisecond)
	c := subscribeWith(t, m, pb, frameworkInfo("one", "db"))
	conn, err := net.Dial("tcp", m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(1024)
	body := `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"slow","failover_timeout":3600}}}`
	fmt.Fprintf(conn, "POST /api/v1/scheduler HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var slow *framework
	eventually(t, "subscription", func() string {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, f := range m.fws {
			if f.info.Name == "slow" {
				slow = f
				return ""
			}
		}
		return "not there"
	})
	text := strings.Repeat("x", 10000)
	connected := true
	for i := 0; i < 20000 && connected; i++ {
		m.mu.Lock()
		m.sendUpdate(slow, m.newStatus("", "t", mesos.TASK_RUNNING, mesos.SOURCE_MASTER, text))
		connected = slow.connected()
		m.mu.Unlock()
	}
	eventually(t, "cut", func() string {
		m.mu.Lock()
		defer m.mu.Unlock()
		if slow.connected() {
			return "still connected"
		}
		return ""
	})
	c.call(calls.Reconcile())
}

// TestOwnSleep: a master that stood still does not hold its agents' silence against them.
func TestOwnSleep(t *testing.T) {
	m, err := New(Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	a := newFakeAgent(t, m, 0)
	if a.id, err = a.link.Register(context.Background(), a.reg); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	m.tick(now)
	m.tick(now.Add(time.Hour))
	if s := m.Agents(); s[0].State != "registered" {
		t.Errorf("after the master's own sleep: %+v", s)
	}
	for d := time.Duration(0); d < 5*time.Second; d += time.Second {
		m.tick(now.Add(time.Hour + d))
	}
	if s := m.Agents(); s[0].State != "unreachable" {
		t.Errorf("after real silence: %+v", s)
	}
}

func TestStrangeHostName(t *testing.T) {
	m := startMaster(t, Config{Timing: quick()})
	for host, want := range map[string]int{"evil.example:5050": 403, "localhost:1": 200, "127.0.0.1": 200, "[::1]:5050": 200} {
		req, _ := http.NewRequest("GET", m.URL()+"/version", nil)
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", host, resp.StatusCode)
		}
	}
}

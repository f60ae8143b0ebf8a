package mesos_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	mesoslib "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/mastertest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// running is a client that runs against a master, with the events it gave.
type running struct {
	*mesos.Client
	t      testing.TB
	cancel context.CancelFunc
	done   chan error

	mu     sync.Mutex
	events []scheduler.Event
	id     string
}

func start(t testing.TB, id, master string, change ...func(*mesos.Config)) *running {
	t.Helper()
	c := mesos.Config{Master: master, MinBackoff: 5 * time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		Info: mesos.Identity{Name: "test", User: "nobody", Principal: "p", Roles: []string{"holdfast"}, FailoverTimeout: time.Hour}.FrameworkInfo()}
	for _, f := range change {
		f(&c)
	}
	client, err := mesos.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Client: client, t: t, cancel: cancel, done: make(chan error, 1), id: id}
	go func() { r.done <- client.Run(ctx, r.framework, r.take) }()
	t.Cleanup(r.stop)
	return r
}

func (r *running) framework() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id
}

func (r *running) take(e scheduler.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := e.(scheduler.Subscribed); ok {
		r.id = s.FrameworkID
	}
	r.events = append(r.events, e)
}

func (r *running) stop() {
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- err
	case <-time.After(5 * time.Second):
		r.t.Error("the client does not stop")
	}
}

func (r *running) all() []scheduler.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]scheduler.Event(nil), r.events...)
}

// await waits for the n-th event of a type.
func await[E scheduler.Event](r *running, n int) E {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		seen := 0
		for _, e := range r.all() {
			if ev, ok := e.(E); ok {
				if seen++; seen == n {
					return ev
				}
			}
		}
	}
	var none E
	r.t.Fatalf("event %d of type %T did not come; there are %.1000s", n, none, fmt.Sprintf("%+v", r.all()))
	return none
}

func TestSubscribeAndCalls(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	r := start(t, "", m.URL())
	s := await[scheduler.Subscribed](r, 1)
	if s.FrameworkID != "framework-0000" || !strings.Contains(s.Master, "master.local") {
		t.Errorf("subscribed as %+v", s)
	}
	info := m.Calls()[0].Subscribe.FrameworkInfo
	if info.ID != nil || !info.GetCheckpoint() || info.GetFailoverTimeout() != 3600 || len(info.Roles) != 1 || len(info.Capabilities) < 5 {
		t.Errorf("framework info %+v", info)
	}
	m.Offer("O1", "S0", 4, 1024, 31000, 31099)
	m.Status("db.0.1-abcdef", "S0", mesoslib.TASK_RUNNING, "0123456789abcdef")
	if o := await[scheduler.Offers](r, 1); len(o.Offers) != 1 || o.Offers[0].ID != "O1" || len(o.Offers[0].Resources) != 3 {
		t.Errorf("offers %+v", o)
	}
	st := await[scheduler.Status](r, 1)
	if st.State != "TASK_RUNNING" || string(st.UUID) != "0123456789abcdef" {
		t.Errorf("status %+v", st)
	}
	// Order is kept.
	for i := range 50 {
		if !r.Do(scheduler.Kill{Task: "t", Agent: "S0", Grace: time.Duration(i+1) * time.Second}) {
			t.Fatal("a kill is for the master")
		}
	}
	r.Do(scheduler.Acknowledge{Task: st.Task, Agent: st.Agent, UUID: st.UUID})
	if m.Wait(5*time.Second, mastertest.Of(msched.Call_ACKNOWLEDGE)) == nil {
		t.Fatal("no acknowledgement")
	}
	n := int64(0)
	for _, c := range m.Calls() {
		if c.Type == msched.Call_KILL {
			n++
			if c.Kill.KillPolicy.GracePeriod.Nanoseconds != n*1e9 || c.FrameworkID.Value != "framework-0000" {
				t.Fatalf("kill %d is %+v", n, c)
			}
		}
	}
	if n != 50 {
		t.Errorf("%d kills", n)
	}
	if r.Do(scheduler.Grant{}) {
		t.Error("a grant is not for the master")
	}
	r.stop()
	for end := time.Now().Add(2 * time.Second); m.Subscribed() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if m.Subscribed() {
		t.Error("still subscribed after the end")
	}
	for _, c := range m.Calls() {
		if c.Type == msched.Call_TEARDOWN {
			t.Error("the end of the scheduler must not tear the framework down")
		}
	}
}

func TestComesBackWithItsID(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	r := start(t, "", m.URL())
	await[scheduler.Subscribed](r, 1)
	m.Cut()
	await[scheduler.Disconnected](r, 1)
	if s := await[scheduler.Subscribed](r, 2); s.FrameworkID != "framework-0000" {
		t.Errorf("subscribed again as %+v", s)
	}
	c := m.Calls()[len(m.Calls())-1]
	if c.FrameworkID.GetValue() != "framework-0000" || c.Subscribe.FrameworkInfo.ID.GetValue() != "framework-0000" {
		t.Errorf("second subscribe %+v", c)
	}
}

func TestSilenceIsLoss(t *testing.T) {
	t.Parallel()
	m := mastertest.New()
	defer m.Close()
	m.Heartbeat(10*time.Millisecond, true)
	r := start(t, "f", m.URL(), func(c *mesos.Config) { c.SilentFor = 1 })
	await[scheduler.Subscribed](r, 1)
	d := await[scheduler.Disconnected](r, 1)
	if !strings.Contains(d.Reason, "nothing heard") {
		t.Errorf("reason %q", d.Reason)
	}
	await[scheduler.Subscribed](r, 2)
}

func TestSlowReceiverIsNotSilence(t *testing.T) {
	t.Parallel()
	m := mastertest.New()
	defer m.Close()
	m.Heartbeat(50*time.Millisecond, false)
	r := start(t, "f", m.URL())
	await[scheduler.Subscribed](r, 1)
	r.mu.Lock() // the receiver hangs for longer than the master may be silent
	m.Offer("O1", "S0", 1, 1)
	time.Sleep(1500 * time.Millisecond)
	r.mu.Unlock()
	await[scheduler.Offers](r, 1)
	m.Offer("O2", "S0", 1, 1)
	await[scheduler.Offers](r, 2)
	for _, e := range r.all() {
		if d, ok := e.(scheduler.Disconnected); ok {
			t.Errorf("disconnected: %s", d.Reason)
		}
	}
}

func TestRedirect(t *testing.T) {
	leader := mastertest.New()
	defer leader.Close()
	other := mastertest.New()
	defer other.Close()
	other.OnSubscribe(func(*msched.Call) (int, string, string) {
		return http.StatusTemporaryRedirect, "", strings.TrimPrefix(leader.URL(), "http:") + "/api/v1/scheduler"
	})
	r := start(t, "f", other.URL(), func(c *mesos.Config) { c.MinBackoff, c.MaxBackoff = time.Hour, time.Hour })
	await[scheduler.Subscribed](r, 1) // at once, without the pause of a failure
	r.Do(scheduler.Revive{})
	if leader.Wait(5*time.Second, mastertest.Of(msched.Call_REVIVE)) == nil {
		t.Error("calls do not go to the leader")
	}
}

func TestSeveralMasters(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	r := start(t, "f", dead+", "+strings.TrimPrefix(m.URL(), "http://"))
	await[scheduler.Subscribed](r, 1)
	if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, "refused") {
		t.Errorf("reason %q", d.Reason)
	}
}

func TestTheEndOfTheFramework(t *testing.T) {
	for _, text := range []string{"Framework has been removed", "Framework failed over", "Not authorized to use role 'holdfast'"} {
		t.Run(text, func(t *testing.T) {
			m := mastertest.New()
			defer m.Close()
			r := start(t, "f", m.URL())
			await[scheduler.Subscribed](r, 1)
			m.Error(text)
			if s := await[scheduler.Stopped](r, 1); !strings.Contains(s.Reason, text) {
				t.Errorf("stopped: %q", s.Reason)
			} else if want := text == "Framework has been removed"; s.Over != want {
				t.Errorf("%q: over %v, want %v", text, s.Over, want)
			}
			if err := <-r.done; !fault.Is(err, fault.Conflict) {
				t.Errorf("run ended with %v", err)
			} else {
				r.done <- err
			}
			time.Sleep(50 * time.Millisecond)
			if n := len(m.Calls()); n != 1 {
				t.Errorf("%d calls: it fights", n)
			}
		})
	}
}

func TestOtherErrorsAreTriedAgain(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	r := start(t, "f", m.URL())
	await[scheduler.Subscribed](r, 1)
	m.Error("'FrameworkInfo.roles' contains invalid role")
	if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, "invalid role") {
		t.Errorf("reason %q", d.Reason)
	}
	await[scheduler.Subscribed](r, 2)
}

func TestRefusedRegistrationIsTold(t *testing.T) {
	for status, text := range map[int]string{401: "--secret-file", 403: "principal 'p' does not match", 400: "Expecting", 503: "not ready"} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			m := mastertest.New()
			defer m.Close()
			var mu sync.Mutex
			refuse := true
			m.OnSubscribe(func(*msched.Call) (int, string, string) {
				mu.Lock()
				defer mu.Unlock()
				if refuse {
					return status, "principal 'p' does not match, Expecting", ""
				}
				return 0, "", ""
			})
			r := start(t, "f", m.URL())
			if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, text) {
				t.Errorf("reason %q", d.Reason)
			}
			await[scheduler.Disconnected](r, 2)
			mu.Lock()
			refuse = false
			mu.Unlock()
			await[scheduler.Subscribed](r, 1)
		})
	}
}

func TestFailedCalls(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	r := start(t, "f", m.URL(), func(c *mesos.Config) { c.CallLimit = 300 * time.Millisecond })
	await[scheduler.Subscribed](r, 1)
	var hang = make(chan struct{})
	defer close(hang)
	m.Answer(func(c *msched.Call) (int, string) {
		switch c.Type {
		case msched.Call_KILL:
			return 400, "no such thing"
		case msched.Call_REVIVE:
			return 503, "not leading"
		case msched.Call_SUPPRESS:
			return 500, "who knows"
		case msched.Call_RECONCILE:
			<-hang
		}
		return 0, ""
	})
	want := []struct {
		call    scheduler.Call
		text    string
		unknown bool
	}{{scheduler.Kill{Task: "t"}, "no such thing", false}, {scheduler.Revive{}, "not leading", false}, {scheduler.Suppress{}, "who knows", true}, {scheduler.Reconcile{}, "deadline", true}}
	for i, w := range want {
		r.Do(w.call)
		f := await[scheduler.CallFailed](r, i+1)
		if f.Unknown != w.unknown || !strings.Contains(f.Error, w.text) {
			t.Errorf("%T failed with %q, unknown %v", w.call, f.Error, f.Unknown)
		}
	}
	// A failed call does not end the stream.
	m.Offer("O1", "S0", 1, 1)
	await[scheduler.Offers](r, 1)
	for _, e := range r.all() {
		if _, ok := e.(scheduler.Disconnected); ok {
			t.Error("a failed call has ended the subscription")
		}
	}
	r.Do(scheduler.Accept{Offers: []string{"O1"}, Launches: []scheduler.Launch{{}}})
	if f := await[scheduler.CallFailed](r, len(want)+1); f.Unknown {
		t.Errorf("a call that cannot be encoded is known to have failed: %+v", f)
	}
}

func TestLargeReconciliation(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	r := start(t, "f", m.URL())
	await[scheduler.Subscribed](r, 1)
	var all scheduler.Reconcile
	for i := range 4500 {
		all.Tasks = append(all.Tasks, scheduler.ReconcileTask{Task: state.TaskID(fmt.Sprint(i))})
	}
	r.Do(all)
	r.Do(scheduler.Revive{})
	m.Wait(5*time.Second, mastertest.Of(msched.Call_REVIVE))
	n := 0
	for _, c := range m.Calls() {
		if c.Type != msched.Call_RECONCILE {
			continue
		}
		if len(c.Reconcile.Tasks) == 0 || len(c.Reconcile.Tasks) > 2000 {
			t.Errorf("a call for %d tasks", len(c.Reconcile.Tasks))
		}
		for _, task := range c.Reconcile.Tasks {
			if task.TaskID.Value != fmt.Sprint(n) {
				t.Fatalf("task %s, want %d", task.TaskID.Value, n)
			}
			n++
		}
	}
	if n != len(all.Tasks) {
		t.Errorf("%d tasks were asked for, want %d", n, len(all.Tasks))
	}
}

func BenchmarkCalls(b *testing.B) {
	m := mastertest.New()
	defer m.Close()
	r := start(b, "f", m.URL())
	await[scheduler.Subscribed](r, 1)
	b.ResetTimer()
	for range b.N {
		r.Do(scheduler.Suppress{})
	}
	r.Do(scheduler.Revive{})
	if m.Wait(time.Minute, mastertest.Of(msched.Call_REVIVE)) == nil {
		b.Error("not all were sent")
	}
}

// TestGarbageStream feeds what is no event stream.
func TestGarbageStream(t *testing.T) {
	for name, body := range map[string]string{"text": "<html>hello</html>", "huge": "99999999999999999999\n", "cut": "100\nabc", "bad event": "3\n\xff\xff\xff", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Mesos-Stream-Id", "x")
				fmt.Fprint(w, body)
			}))
			defer s.Close()
			r := start(t, "f", s.URL)
			await[scheduler.Disconnected](r, 2)
		})
	}
}

func TestMasterAddresses(t *testing.T) {
	for _, good := range []string{"127.0.0.1:5050", "master", "http://m:1", "https://m/mesos", "a:1,b:2", "http://m:1/api/v1/scheduler"} {
		if _, err := mesos.New(mesos.Config{Master: good}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, text := range map[string]string{"": "no master", "zk://u:secret@h:2181": "path", "ftp://m": "scheme", "http://": "host", "http://u:secret@m:1": "--secret-file", "http://m/?x=1": "query", ":5050": "host"} {
		_, err := mesos.New(mesos.Config{Master: bad})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", bad, err)
		} else if strings.Contains(err.Error(), "secret@") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

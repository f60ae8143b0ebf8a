// Package mastertest is a Mesos master for tests of a framework: a real HTTP server that speaks as much of the v1 scheduler API as a
// framework's own behaviour needs (subscribe, events, calls, stream ids, redirects, refusals) and keeps what it is sent. It has no agents: a test
// plays them with Send. It models no allocator; the embedded engine does that.
package mastertest

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"
)

// Master is the master. The zero value does not work: use New.
type Master struct {
	server *httptest.Server

	mu        sync.Mutex
	streams   int
	current   *stream
	nextID    int
	torndown  map[string]bool
	calls     []*msched.Call
	more      *sync.Cond
	answer    func(*msched.Call) (status int, text string)
	subscribe func(*msched.Call) (status int, text, location string)
	heartbeat time.Duration
	quiet     bool
}

type stream struct {
	id        string
	framework string
	events    chan *msched.Event
	cut       chan struct{}
	once      sync.Once
}

// New starts a master; Close stops it.
func New() *Master {
	m := unstarted()
	m.server.Start()
	return m
}

// NewTLS is New for https.
func NewTLS(c *tls.Config) *Master {
	m := unstarted()
	m.server.TLS = c
	m.server.Config.ErrorLog = log.New(io.Discard, "", 0) // tests refuse certificates on purpose
	m.server.StartTLS()
	return m
}

func unstarted() *Master {
	m := &Master{torndown: map[string]bool{}, heartbeat: 15 * time.Second}
	m.more = sync.NewCond(&m.mu)
	m.server = httptest.NewUnstartedServer(http.HandlerFunc(m.serve))
	return m
}

// URL of the master.
func (m *Master) URL() string { return m.server.URL }

// Close cuts all streams and stops.
func (m *Master) Close() {
	m.Cut()
	m.server.CloseClientConnections()
	m.server.Close()
}

// Heartbeat sets the interval; quiet promises heartbeats and sends none.
func (m *Master) Heartbeat(d time.Duration, quiet bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heartbeat, m.quiet = d, quiet
}

// Answer decides the answers to calls from now on; status 0 means 202. nil takes everything.
func (m *Master) Answer(f func(*msched.Call) (status int, text string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = f
}

// OnSubscribe decides about SUBSCRIBE; status 0 goes on.
func (m *Master) OnSubscribe(f func(*msched.Call) (status int, text, location string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribe = f
}

// Send sends an event to the subscribed framework; false when there is none.
func (m *Master) Send(e *msched.Event) bool {
	m.mu.Lock()
	s := m.current
	m.mu.Unlock()
	if s == nil {
		return false
	}
	select {
	case s.events <- e:
		return true
	case <-s.cut:
		return false
	}
}

// Offer sends one offer with plain resources.
func (m *Master) Offer(id, agent string, cpus, mem float64, ports ...uint64) bool {
	alloc := &mesos.Resource_AllocationInfo{Role: ptr("holdfast")}
	o := mesos.Offer{ID: mesos.OfferID{Value: id}, AgentID: mesos.AgentID{Value: agent}, Hostname: agent + ".local", AllocationInfo: alloc,
		Resources: []mesos.Resource{
			{Name: "cpus", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: cpus}, AllocationInfo: alloc},
			{Name: "mem", Type: mesos.SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: mem}, AllocationInfo: alloc}}}
	if len(ports) == 2 {
		o.Resources = append(o.Resources, mesos.Resource{Name: "ports", Type: mesos.RANGES.Enum(), AllocationInfo: alloc,
			Ranges: &mesos.Value_Ranges{Range: []mesos.Value_Range{{Begin: ports[0], End: ports[1]}}}})
	}
	return m.Send(&msched.Event{Type: msched.Event_OFFERS, Offers: &msched.Event_Offers{Offers: []mesos.Offer{o}}})
}

// Status sends a status update; an empty uuid makes it one that wants no acknowledgement.
func (m *Master) Status(task, agent string, st mesos.TaskState, uuid string) bool {
	s := mesos.TaskStatus{TaskID: mesos.TaskID{Value: task}, AgentID: &mesos.AgentID{Value: agent}, State: &st,
		Source: mesos.SOURCE_EXECUTOR.Enum(), Timestamp: ptr(float64(time.Now().UnixMilli()) / 1000)}
	if uuid != "" {
		s.UUID = []byte(uuid)
	}
	return m.Send(&msched.Event{Type: msched.Event_UPDATE, Update: &msched.Event_Update{Status: s}})
}

// Error sends an ERROR event and ends the stream, as Mesos does.
func (m *Master) Error(text string) {
	m.Send(&msched.Event{Type: msched.Event_ERROR, Error: &msched.Event_Error{Message: text}})
}

// Cut ends the stream without a word.
func (m *Master) Cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current != nil {
		m.current.close()
		m.current = nil
	}
	m.more.Broadcast()
}

func (s *stream) close() { s.once.Do(func() { close(s.cut) }) }

// Subscribed tells whether a framework is.
func (m *Master) Subscribed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current != nil
}

// Calls gives the calls so far, SUBSCRIBE included, refused ones too.
func (m *Master) Calls() []*msched.Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]*msched.Call(nil), m.calls...)
}

// Wait waits until found says yes to a call, past or coming, and gives it; nil after the limit.
func (m *Master) Wait(limit time.Duration, found func(*msched.Call) bool) *msched.Call {
	deadline := time.AfterFunc(limit, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.more.Broadcast()
	})
	defer deadline.Stop()
	end := time.Now().Add(limit)
	m.mu.Lock()
	defer m.mu.Unlock()
	for at := 0; ; {
		for ; at < len(m.calls); at++ {
			if found(m.calls[at]) {
				return m.calls[at]
			}
		}
		if !time.Now().Before(end) {
			return nil
		}
		m.more.Wait()
	}
}

// Of is a Wait condition: a call of a type.
func Of(t msched.Call_Type) func(*msched.Call) bool {
	return func(c *msched.Call) bool { return c.Type == t }
}

func (m *Master) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/api/v1/scheduler" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		http.Error(w, "not the scheduler API", http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	call := new(msched.Call)
	if err == nil {
		err = call.Unmarshal(body)
	}
	if err != nil {
		http.Error(w, "Failed to parse body into Call protobuf", http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	m.calls = append(m.calls, call)
	m.more.Broadcast()
	m.mu.Unlock()
	if call.Type == msched.Call_SUBSCRIBE {
		m.serveStream(w, r, call)
		return
	}
	status, text := m.judge(r, call)
	if text != "" {
		http.Error(w, text, status)
		return
	}
	w.WriteHeader(status)
}

func (m *Master) judge(r *http.Request, call *msched.Call) (int, string) {
	m.mu.Lock()
	s, answer := m.current, m.answer
	m.mu.Unlock()
	switch id := r.Header.Get("Mesos-Stream-Id"); {
	case id == "":
		return http.StatusBadRequest, "All non-subscribe calls should include the 'Mesos-Stream-Id' header"
	case call.FrameworkID == nil:
		return http.StatusBadRequest, "Failed to validate scheduler::Call: Expecting 'framework_id' to be present"
	case s == nil || s.framework != call.FrameworkID.Value:
		return http.StatusBadRequest, "Framework is not subscribed"
	case s.id != id:
		return http.StatusBadRequest, fmt.Sprintf("The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID %s", id, s.framework)
	}
	if answer != nil {
		if status, text := answer(call); status != 0 {
			return status, text
		}
	}
	return http.StatusAccepted, ""
}

func (m *Master) serveStream(w http.ResponseWriter, r *http.Request, call *msched.Call) {
	m.mu.Lock()
	judge := m.subscribe
	m.mu.Unlock()
	if judge != nil {
		if status, text, location := judge(call); status != 0 {
			if location != "" {
				w.Header().Set("Location", location)
			}
			http.Error(w, text, status)
			return
		}
	}
	s, first := m.admit(call)
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Mesos-Stream-Id", s.id)
	w.WriteHeader(http.StatusOK)
	if !write(w, first) || first.Type == msched.Event_ERROR {
		return
	}
	m.mu.Lock()
	every, quiet := m.heartbeat, m.quiet
	m.mu.Unlock()
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		select {
		case <-s.cut:
			panic(http.ErrAbortHandler)
		case <-r.Context().Done():
			m.mu.Lock()
			if m.current == s {
				m.current = nil
			}
			m.mu.Unlock()
			s.close()
			return
		case e := <-s.events:
			if !write(w, e) || e.Type == msched.Event_ERROR {
				s.close()
				return
			}
		case <-beat.C:
			if !quiet && !write(w, &msched.Event{Type: msched.Event_HEARTBEAT}) {
				return
			}
		}
	}
}

// admit makes the subscription, or the ERROR that a removed framework gets. A framework that is subscribed already is told that it failed over.
func (m *Master) admit(call *msched.Call) (*stream, *msched.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.streams++
	s := &stream{id: fmt.Sprintf("stream-%d", m.streams), events: make(chan *msched.Event, 1024), cut: make(chan struct{})}
	if call.FrameworkID != nil {
		s.framework = call.FrameworkID.Value
		if m.torndown[s.framework] {
			return s, &msched.Event{Type: msched.Event_ERROR, Error: &msched.Event_Error{Message: "Framework has been removed"}}
		}
	} else {
		s.framework = fmt.Sprintf("framework-%04d", m.nextID)
		m.nextID++
	}
	if old := m.current; old != nil {
		select {
		case old.events <- &msched.Event{Type: msched.Event_ERROR, Error: &msched.Event_Error{Message: "Framework failed over"}}:
		default:
		}
	}
	m.current = s
	return s, &msched.Event{Type: msched.Event_SUBSCRIBED, Subscribed: &msched.Event_Subscribed{FrameworkID: &mesos.FrameworkID{Value: s.framework},
		HeartbeatIntervalSeconds: ptr(m.heartbeat.Seconds()), MasterInfo: &mesos.MasterInfo{ID: "m", Port: ptr(uint32(5050)), Hostname: ptr("master.local")}}}
}

// Remove tears a framework down: it may never come back.
func (m *Master) Remove(framework string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.torndown[framework] = true
}

func write(w http.ResponseWriter, e *msched.Event) bool {
	raw, err := e.Marshal()
	if err != nil {
		panic(err) // a test sends what is no event
	}
	if _, err := fmt.Fprintf(w, "%d\n%s", len(raw), raw); err != nil {
		return false
	}
	return http.NewResponseController(w).Flush() == nil
}

func ptr[T any](v T) *T { return &v }

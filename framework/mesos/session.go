package mesos

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// outgoing is a call waiting to be sent; err is why it could not be encoded.
type outgoing struct {
	call    scheduler.Call
	message *msched.Call
	err     error
}

// session is one subscription: the stream id that calls carry, and the queue of calls with the one goroutine that sends them.
// The queue is bounded by what the scheduler asks for between two answers of the master, not by a number: refusing a
// call here would only make it come back.
type session struct {
	client *Client
	master *url.URL
	stream string
	emit   func(scheduler.Event)

	mu    sync.Mutex
	id    string // framework id, "" before SUBSCRIBED
	queue []outgoing
	wake  chan struct{}
	stop  context.CancelFunc
	done  chan struct{}
	// failed are CallFailed events; they go through a goroutine of their own, so that a loop that waits never holds up sending.
	failed *mailbox
}

// begin opens the session for calls.
func (s *session) begin(id string) {
	s.mu.Lock()
	if s.id != "" { // a second SUBSCRIBED on one stream only repeats the first
		s.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.id, s.stop, s.wake, s.done = id, cancel, make(chan struct{}, 1), make(chan struct{})
	s.failed = newMailbox(s.emit)
	s.mu.Unlock()
	go s.send(ctx)
	s.client.mu.Lock()
	s.client.session = s
	s.client.mu.Unlock()
}

func (s *session) started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id != ""
}

// end closes the session and waits for its goroutines. Calls not sent are told as failed.
func (s *session) end() {
	if !s.started() {
		return
	}
	s.client.mu.Lock()
	if s.client.session == s {
		s.client.session = nil
	}
	s.client.mu.Unlock()
	s.stop()
	<-s.done
	s.mu.Lock()
	rest := s.queue
	s.queue = nil
	s.mu.Unlock()
	for _, o := range rest {
		if a, ok := o.call.(scheduler.Accept); ok {
			s.failed.put(scheduler.CallFailed{Call: a, Error: "the subscription ended before the call was sent"})
		}
	}
	s.failed.close()
}

func (s *session) push(o outgoing) {
	s.mu.Lock()
	s.queue = append(s.queue, o)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send sends the calls one after the other until ctx ends.
func (s *session) send(ctx context.Context) {
	defer close(s.done)
	for {
		s.mu.Lock()
		batch := s.queue
		s.queue = nil
		s.mu.Unlock()
		for i, o := range batch {
			if ctx.Err() != nil {
				s.mu.Lock()
				s.queue = append(batch[i:len(batch):len(batch)], s.queue...)
				s.mu.Unlock()
				return
			}
			s.sendOne(ctx, o)
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
	}
}

func (s *session) sendOne(ctx context.Context, o outgoing) {
	err := o.err
	if err == nil {
		err = s.post(ctx, o.message)
	}
	if err == nil {
		return
	}
	s.client.log.Warn("call failed", zap.Stringer("type", callType(o)), zap.Error(err))
	s.failed.put(scheduler.CallFailed{Call: o.call, Error: err.Error(), Unknown: fault.Is(err, fault.Unknown)})
}

func callType(o outgoing) msched.Call_Type {
	if o.message == nil {
		return msched.Call_UNKNOWN
	}
	return o.message.Type
}

// post sends one call and sorts the answer: nil for accepted, Unknown when it may have arrived.
func (s *session) post(ctx context.Context, m *msched.Call) error {
	m.FrameworkID = &mesos.FrameworkID{Value: s.id}
	for i := range m.GetAccept().GetOperations() {
		if g := m.Accept.Operations[i].LaunchGroup; g != nil { // an executor has to name its framework
			g.Executor.FrameworkID = m.FrameworkID
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.client.c.CallLimit)
	defer cancel()
	if err := s.client.mayAct(ctx); err != nil {
		return fault.Wrap(fault.Unavailable, err, "%s: not sent", m.Type)
	}
	resp, err := s.client.post(ctx, s.master, m, s.stream)
	if err != nil {
		if neverSent(err) {
			return fault.Wrap(fault.Unavailable, err, "%s", m.Type)
		}
		return fault.Wrap(fault.Unknown, err, "%s", m.Type)
	}
	text := responseText(resp)
	_ = resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusAccepted || code == http.StatusOK:
		return nil
	case code >= 300 && code < 400:
		return fault.New(fault.Unavailable, "%s: master %s does not lead any more", m.Type, s.master.Host)
	case code == http.StatusServiceUnavailable:
		return fault.New(fault.Unavailable, "%s: master %s is not ready: %s", m.Type, s.master.Host, text)
	case code >= 500:
		return fault.New(fault.Unknown, "%s: master %s answered %d: %s", m.Type, s.master.Host, code, text)
	default:
		return fault.New(fault.FromHTTPStatus(code), "%s: refused (%d): %s", m.Type, code, text)
	}
}

// neverSent tells errors that come before the first byte has left.
func neverSent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &dns) || errors.Is(err, syscall.ECONNREFUSED) || (errors.As(err, &op) && op.Op == "dial") || fault.ClassOf(err) == fault.Internal && isFault(err)
}

func isFault(err error) bool {
	var f *fault.Error
	return errors.As(err, &f)
}

// mailbox hands events on from a goroutine of its own, in order, without bound, so that put never blocks.
type mailbox struct {
	mu     sync.Mutex
	queue  []scheduler.Event
	closed bool
	wake   chan struct{}
	done   chan struct{}
}

func newMailbox(emit func(scheduler.Event)) *mailbox {
	m := &mailbox{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go m.run(emit)
	return m
}

func (m *mailbox) run(emit func(scheduler.Event)) {
	defer close(m.done)
	for {
		m.mu.Lock()
		batch, closed := m.queue, m.closed
		m.queue = nil
		m.mu.Unlock()
		for _, e := range batch {
			emit(e)
		}
		if len(batch) > 0 {
			continue
		}
		if closed {
			return
		}
		<-m.wake
	}
}

func (m *mailbox) put(e scheduler.Event) {
	m.mu.Lock()
	m.queue = append(m.queue, e)
	m.mu.Unlock()
	m.signal()
}

// close hands on what is left and waits for that.
func (m *mailbox) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.signal()
	<-m.done
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

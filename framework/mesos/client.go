package mesos

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/mesos/credential"
	"github.com/holdfast-io/holdfast/framework/mesos/detect"
	"github.com/holdfast-io/holdfast/framework/mesos/task"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// Config of a Client.
type Config struct {
	// Master is `host:port`, several with commas, or URLs, or zk://[user:password@]host:port,…/path.
	Master string
	// MasterSecret is user:password for ZooKeeper, when the address does not have it.
	MasterSecret string
	// TLS, when not nil, is how to speak to masters by https, and means https for masters given without a scheme and for
	// those found in ZooKeeper.
	TLS *tls.Config
	// Info is how the framework registers, without id; the Client puts in what Run is given.
	Info mesos.FrameworkInfo
	// Credential shows masters who asks; nil for nothing.
	Credential credential.Credential
	Tasks      task.Encoder
	// MinBackoff and MaxBackoff bound the pause between attempts to subscribe; each is half random. Default 250 ms and 15 s.
	MinBackoff, MaxBackoff time.Duration
	// CallLimit bounds one call. Default 15 s.
	CallLimit time.Duration
	// SilentFor is how many heartbeat intervals without a byte mean that the stream is dead. Default 5.
	SilentFor int
	// Gate, when not nil, is asked before anything is sent, a subscription too: with an error nothing is. It is how a process finds out after a pause that
	// another leads.
	Gate func(context.Context) error
	// Transport is for tests; nil means an own one.
	Transport http.RoundTripper
	Log       *zap.Logger
}

// Client is the connection to the leading master. Make it with New, then Run. Do may be called from anywhere.
type Client struct {
	c       Config
	log     *zap.Logger
	http    *http.Client
	masters []*url.URL
	next    int // index of the master to try next
	// detector finds the master instead; nil without ZooKeeper.
	detector *detect.Detector
	dials    sync.Map // host:port of a detected master's URL -> ip:port

	mu      sync.Mutex
	session *session // nil while not subscribed
}

// New checks the configuration.
func New(c Config) (*Client, error) {
	if c.MinBackoff <= 0 {
		c.MinBackoff = 250 * time.Millisecond
	}
	if c.MaxBackoff <= 0 {
		c.MaxBackoff = 15 * time.Second
	}
	if c.CallLimit <= 0 {
		c.CallLimit = 15 * time.Second
	}
	if c.SilentFor <= 0 {
		c.SilentFor = 5
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	client := &Client{c: c, log: c.Log}
	if err := client.findMasters(); err != nil {
		return nil, err
	}
	if c.Transport == nil {
		c.Transport = client.transport()
	}
	client.http = &http.Client{
		Transport:     c.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return client, nil
}

// transport is how masters are spoken to. A master found in ZooKeeper is dialled at the address that it wrote there, whatever name its
// certificate is checked for.
func (c *Client) transport() http.RoundTripper {
	dialer := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if at, ok := c.dials.Load(address); ok {
				address = at.(string)
			}
			return dialer.DialContext(ctx, network, address)
		},
		TLSClientConfig:     c.c.TLS,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
}

// subscribeError is why an attempt to subscribe, or a subscription, ended.
type subscribeError struct {
	err error
	// final: the master said that this framework is over. No more attempts.
	final bool
	// over: final, because the framework itself is no more; otherwise another scheduler may live on under its id.
	over bool
	// slow: the master refused what we are; asking again soon will not help, a person must.
	slow bool
	// lasted: there was a subscription, so the backoff starts afresh.
	lasted bool
	// next is the master to go to at once, after a redirect.
	next *url.URL
}

func (e *subscribeError) Error() string { return e.err.Error() }

// Run keeps the framework subscribed until ctx ends (nil then) or the master says that the framework is over: it emits Stopped and returns
// a Conflict. frameworkID is asked before each attempt; "" registers as new. emit gets the events in order and may block; Run calls it from one
// goroutine at a time, and never after it has returned.
func (c *Client) Run(ctx context.Context, frameworkID func() string, emit func(scheduler.Event)) error {
	defer c.detect(ctx)()
	backoff := c.c.MinBackoff
	var at target
	for hops := 0; ; {
		if at.url == nil {
			var ok bool
			if at, ok = c.pick(ctx, emit); !ok {
				return nil
			}
		}
		end := c.subscription(ctx, at, frameworkID(), emit)
		if ctx.Err() != nil {
			return nil
		}
		if end.final {
			emit(scheduler.Stopped{Reason: end.err.Error(), Over: end.over})
			return fault.Wrap(fault.Conflict, end.err, "framework stopped by the master")
		}
		emit(scheduler.Disconnected{Reason: end.err.Error()})
		if end.lasted {
			backoff, hops = c.c.MinBackoff, 0
		}
		if end.next != nil && hops < 5 {
			c.log.Info("master redirects", zap.String("from", at.url.Host), zap.String("to", end.next.Host))
			at.url, hops = end.next, hops+1
			continue
		}
		hops = 0
		pause := backoff/2 + rand.N(backoff/2+1)
		if end.slow {
			pause = c.c.MaxBackoff/2 + rand.N(c.c.MaxBackoff/2+1)
		}
		c.log.Warn("not subscribed to a master", zap.String("master", at.url.Host), zap.Error(end.err), zap.Duration("again in", pause.Round(time.Millisecond)))
		c.next++
		backoff = min(backoff*2, c.c.MaxBackoff)
		if c.pause(ctx, at, pause) {
			backoff = c.c.MinBackoff
		}
		if ctx.Err() != nil {
			return nil
		}
		at = target{}
	}
}

// subscription subscribes once and reads events until the stream ends.
func (c *Client) subscription(ctx context.Context, at target, id string, emit func(scheduler.Event)) *subscribeError {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	master := at.url
	moved := c.watchLeader(ctx, at, cancel)
	// One watch over everything that can hang: connecting, headers, silence on the stream. It stands still while emit works.
	watch := newSilence(c.c.CallLimit, cancel)
	defer watch.stop()
	if err := c.mayAct(ctx); err != nil {
		return &subscribeError{err: err}
	}
	resp, err := c.post(ctx, master, subscribeCall(c.c.Info, id), "")
	if err != nil {
		return &subscribeError{err: moved(watch.explain(err, "subscribe"))}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return c.refused(master, resp)
	}
	stream := newFrameReader(watch.reader(resp.Body), MaxFrame)
	s := &session{client: c, master: master, stream: resp.Header.Get("Mesos-Stream-Id"), emit: emit}
	defer s.end()
	for {
		frame, err := stream.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fault.New(fault.Unavailable, "master %s closed the event stream", master.Host)
			}
			return &subscribeError{err: moved(watch.explain(err, "event stream")), lasted: s.started()}
		}
		e, err := decodeFrame(frame)
		if err != nil {
			c.log.Warn("event skipped", zap.Error(err))
			continue
		}
		if end := c.take(e, s, watch); end != nil {
			end.lasted = s.started()
			return end
		}
	}
}

// take deals with one event; a result ends the subscription.
func (c *Client) take(e *msched.Event, s *session, watch *silence) *subscribeError {
	switch e.Type {
	case msched.Event_SUBSCRIBED:
		sub := e.Subscribed
		if sub == nil || sub.FrameworkID == nil || sub.FrameworkID.Value == "" {
			return &subscribeError{err: fault.New(fault.Invalid, "SUBSCRIBED without a framework id"), slow: true}
		}
		if h := sub.GetHeartbeatIntervalSeconds(); h > 0 && h < 3600 {
			watch.every(max(time.Duration(float64(c.c.SilentFor)*h*float64(time.Second)), time.Second))
		} else {
			watch.every(time.Duration(c.c.SilentFor) * 15 * time.Second)
		}
		name := s.master.Host
		if sub.MasterInfo != nil && sub.MasterInfo.GetHostname() != "" {
			name = sub.MasterInfo.GetHostname() + " (" + s.master.Host + ")"
		}
		s.emit(scheduler.Subscribed{FrameworkID: sub.FrameworkID.Value, Master: name, Silent: silentMaster(sub.MasterInfo.GetVersion())})
		s.begin(sub.FrameworkID.Value)
		c.log.Info("subscribed", zap.String("master", s.master.Host), zap.String("framework", sub.FrameworkID.Value))
	case msched.Event_ERROR:
		text := "no reason given"
		if e.Error != nil && e.Error.Message != "" {
			text = limit(e.Error.Message, 1024)
		}
		return c.errorEvent(text)
	default:
		if e.Type == msched.Event_UPDATE && e.Update != nil {
			c.explainStatus(&e.Update.Status)
		}
		if e.Type == msched.Event_UPDATE_OPERATION_STATUS && e.UpdateOperationStatus != nil {
			c.explainOperation(&e.UpdateOperationStatus.Status)
		}
		if ev := convert(e, time.Now()); ev != nil && s.started() {
			s.emit(ev)
		}
	}
	return nil
}

// errorEvent sorts the master's last words: over for good, or something a person must change.
func (c *Client) errorEvent(text string) *subscribeError {
	low := strings.ToLower(text)
	end := &subscribeError{err: fault.New(fault.Denied, "master: %s", text), slow: true}
	for _, final := range []string{"framework has been removed", "framework failed over", "completed framework"} {
		if strings.Contains(low, final) {
			end.final, end.over = true, final != "framework failed over"
		}
	}
	if forbidden(text) {
		end.final, end.over = true, false
		end.err = fault.New(fault.Denied, "master: %s: %s", text, c.registerACL())
	}
	return end
}

// refused explains an answer to SUBSCRIBE that is not 200.
func (c *Client) refused(master *url.URL, resp *http.Response) *subscribeError {
	text := responseText(resp)
	switch code := resp.StatusCode; {
	case code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect || code == http.StatusFound || code == http.StatusMovedPermanently:
		next, err := redirected(master, resp.Header.Get("Location"))
		if err != nil {
			return &subscribeError{err: err}
		}
		return &subscribeError{err: fault.New(fault.Unavailable, "master %s does not lead", master.Host), next: next}
	case code == http.StatusUnauthorized:
		return &subscribeError{slow: true, err: fault.New(fault.Denied, "master %s does not accept the credentials (--principal, --secret-file): %s", master.Host, text)}
	case code == http.StatusForbidden:
		return &subscribeError{slow: true, err: fault.New(fault.Denied, "master %s forbids the framework to register: %s: %s", master.Host, text, c.registerACL())}
	case code >= 400 && code < 500:
		return &subscribeError{slow: true, err: fault.New(fault.Invalid, "master %s refuses the registration (%d): %s", master.Host, code, text)}
	default:
		return &subscribeError{err: fault.New(fault.Unavailable, "master %s is not ready (%d): %s", master.Host, code, text)}
	}
}

func responseText(resp *http.Response) string {
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 2048))
	return limit(strings.TrimSpace(string(raw)), 1024)
}

func subscribeCall(info mesos.FrameworkInfo, id string) *msched.Call {
	call := &msched.Call{Type: msched.Call_SUBSCRIBE, Subscribe: &msched.Call_Subscribe{FrameworkInfo: &info}}
	if id != "" {
		info.ID = &mesos.FrameworkID{Value: id}
		call.FrameworkID = &mesos.FrameworkID{Value: id}
	}
	return call
}

// post sends one call. The caller closes the body.
func (c *Client) post(ctx context.Context, master *url.URL, call *msched.Call, stream string) (*http.Response, error) {
	body, err := call.Marshal()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encode %s", call.Type)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, master.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "%s", call.Type)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Accept", "application/x-protobuf")
	if stream != "" {
		req.Header.Set("Mesos-Stream-Id", stream)
	}
	return authorized(c.http, req, c.c.Credential)
}

// mayAct asks the gate.
func (c *Client) mayAct(ctx context.Context) error {
	if c.c.Gate == nil {
		return nil
	}
	return c.c.Gate(ctx)
}

// authorized sends a request with a credential, and tells it when it was refused.
func authorized(via *http.Client, req *http.Request, who credential.Credential) (*http.Response, error) {
	if who == nil {
		return via.Do(req)
	}
	if err := who.Authorize(req.Context(), req); err != nil {
		return nil, err
	}
	resp, err := via.Do(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		who.Refused()
	}
	return resp, err
}

// reconcileAtOnce bounds the tasks of one RECONCILE, so that it stays far below any limit on a request's size.
const reconcileAtOnce = 2000

// Do takes a call of Step, to be sent in order and soon; it never blocks. false: the call is not for the master. A call
// that is refused or cannot be sent comes back as a CallFailed event. While there is no subscription calls are dropped without a word:
// offers are void then, and everything else is asked for again after the next Subscribed. Of those still queued when a
// subscription ends, Accepts come back as CallFailed.
func (c *Client) Do(call scheduler.Call) bool {
	if r, ok := call.(scheduler.Reconcile); ok && len(r.Tasks) > reconcileAtOnce {
		c.Do(scheduler.Reconcile{Tasks: r.Tasks[:reconcileAtOnce]})
		return c.Do(scheduler.Reconcile{Tasks: r.Tasks[reconcileAtOnce:]})
	}
	m, ok, err := c.c.Tasks.Encode(call)
	if !ok {
		return false
	}
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		c.log.Debug("call dropped: not subscribed", zap.Stringer("type", callType(outgoing{message: m})))
		return true
	}
	s.push(outgoing{call: call, message: m, err: err})
	return true
}

package embedded

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Client reaches a Server through a unix socket. Make it with Dial.
type Client struct {
	http   *http.Client
	path   string
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu    sync.Mutex
	lists map[string]*listing // by prefix
}

// listing is a list as it was at a revision, never changed once made.
type listing struct {
	revision uint64
	entries  []lease.Entry // sorted by key
}

var _ lease.Registers = (*Client)(nil)

// Dial returns the registers served at address: unix:///path, or a path. Nothing is sent yet: each call connects
// when it must, so that a server that is away now may come later. Invalid for any other kind of address.
func Dial(address string) (*Client, error) {
	path, isURL := strings.CutPrefix(address, "unix://")
	if (!isURL && strings.Contains(address, "://")) || !strings.HasPrefix(path, "/") {
		return nil, fault.New(fault.Invalid, "authority address %q is neither unix:///path nor an absolute path", address)
	}
	dialer := &net.Dialer{}
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{path: path, ctx: ctx, cancel: cancel, lists: map[string]*listing{}, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}}}, nil
}

// Get reads one register.
func (c *Client) Get(ctx context.Context, key string) (lease.Entry, error) {
	a, err := c.read(ctx, pathGet, getRequest{key})
	if err != nil {
		return lease.Entry{}, err
	}
	if a.Entry == nil || a.Entry.Version == 0 {
		return lease.Entry{}, fault.New(fault.Internal, "get register %s: the answer has no entry", key)
	}
	return *a.Entry, nil
}

// List reads all registers under prefix. Only what has changed since the last list of that prefix travels; the entries' values are shared
// between calls and must not be changed.
func (c *Client) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	c.mu.Lock()
	known := c.lists[prefix]
	c.mu.Unlock()
	if known == nil {
		known = &listing{}
	}
	a, err := c.read(ctx, pathList, listRequest{prefix, known.revision})
	if err != nil {
		return nil, err
	}
	next := known.merge(a)
	c.mu.Lock()
	if old := c.lists[prefix]; old == nil || old.revision < next.revision || a.Full {
		c.lists[prefix] = next
	}
	c.mu.Unlock()
	return append([]lease.Entry(nil), next.entries...), nil
}

// merge gives the list after an answer.
func (l *listing) merge(a answer) *listing {
	if a.Full {
		return &listing{a.Revision, a.Entries}
	}
	if len(a.Entries) == 0 && len(a.Gone) == 0 {
		return &listing{a.Revision, l.entries}
	}
	changed := make(map[string]bool, len(a.Entries)+len(a.Gone))
	for _, k := range a.Gone {
		changed[k] = true
	}
	for _, e := range a.Entries {
		changed[e.Key] = true
	}
	out := make([]lease.Entry, 0, len(l.entries)+len(a.Entries))
	for _, e := range l.entries {
		if !changed[e.Key] {
			out = append(out, e)
		}
	}
	out = append(out, a.Entries...)
	slices.SortFunc(out, func(x, y lease.Entry) int { return strings.Compare(x.Key, y.Key) })
	return &listing{a.Revision, out}
}

// Txn applies all operations or none.
func (c *Client) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	a, sent, err := c.call(ctx, pathTxn, txnRequest{ops})
	switch {
	case err == nil && len(a.Entries) != len(ops):
		return nil, fault.New(fault.Unknown, "transaction: the answer has %d entries for %d operations", len(a.Entries), len(ops))
	case err == nil:
		return a.Entries, nil
	case isAnswer(err):
		return nil, err
	case sent:
		return nil, fault.Wrap(fault.Unknown, err, "transaction: no answer from the authority at %s", c.path)
	}
	return nil, fault.Wrap(fault.Unavailable, err, "transaction: the authority at %s cannot be reached", c.path)
}

// Watch follows the server by long polls. It signals at the beginning, after each change, and whenever the server is reached again.
func (c *Client) Watch(ctx context.Context, prefix string) <-chan struct{} {
	out := make(chan struct{}, 1)
	go c.watch(ctx, prefix, out)
	return out
}

func (c *Client) watch(ctx context.Context, prefix string, out chan<- struct{}) {
	const first, last = 20 * time.Millisecond, time.Second
	revision, pause := uint64(0), first
	for ctx.Err() == nil && c.ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, longPoll+5*time.Second)
		a, err := c.read(limited, pathWatch, watchRequest{prefix, revision})
		cancel()
		if err == nil {
			revision, pause = a.Revision, first
			if a.Changed {
				signal(out)
			}
			continue
		}
		revision = 0 // whatever happened meanwhile: signal once when it answers again
		select {
		case <-time.After(pause):
			pause = min(2*pause, last)
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
}

// Close ends every call under way.
func (c *Client) Close() error {
	c.cancel()
	c.http.CloseIdleConnections()
	return nil
}

// read is call for what has no effect: without an answer it is Unavailable, whether it was sent or not.
func (c *Client) read(ctx context.Context, path string, q any) (answer, error) {
	a, _, err := c.call(ctx, path, q)
	if err != nil && !isAnswer(err) {
		err = fault.Wrap(fault.Unavailable, err, "the authority at %s does not answer", c.path)
	}
	return a, err
}

// call sends one request. sent is false when certainly nothing reached the server. An error that the server itself
// answered satisfies isAnswer.
func (c *Client) call(ctx context.Context, path string, q any) (a answer, sent bool, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return a, false, err
	}
	if ctx.Err() != nil {
		return a, false, ctx.Err()
	}
	if c.ctx.Err() != nil {
		return a, false, errors.New("closed")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://authority"+path, bytes.NewReader(body))
	if err != nil {
		return a, false, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		var op *net.OpError
		sent = !(errors.As(err, &op) && op.Op == "dial")
		var about *url.Error
		if errors.As(err, &about) {
			err = about.Err // method and URL tell nobody anything
		}
		return a, sent, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return a, true, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, true, readFailure(resp.StatusCode, data)
	}
	return a, true, json.Unmarshal(data, &a)
}

// answered marks an error that the server gave, which is its final word on the request.
type answered struct{ error }

func (a answered) Unwrap() error { return a.error }

func isAnswer(err error) bool {
	var a answered
	return errors.As(err, &a)
}

func readFailure(status int, body []byte) error {
	var f failure
	if err := json.Unmarshal(body, &f); err != nil || f.Code == "" {
		return answered{fault.New(fault.FromHTTPStatus(status), "the authority answered %d", status)}
	}
	return answered{fault.New(f.Code, "%s", f.Message)}
}

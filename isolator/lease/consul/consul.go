// Package consul is a lease authority on Consul: lease.Registers as keys of its KV store and transactions. Sessions,
// locks, TTLs and health checks play no part in it; blocking queries are only a hint.
//
// Two habits of Consul (seen with 1.19) are made up for: a write of the value that is there already is no write and leaves ModifyIndex
// as it is, so every value has a stamp before it that never repeats; and delete-cas of a key that does not exist succeeds, so an index check
// stands before each deletion.
//
// A register's Version is its key's ModifyIndex, an index of Consul's Raft log: unique to one write for ever, as long as Consul is not
// restored from a snapshot, which the root record's generation is there to show. Reads ask for consistency mode `consistent`, in which the leader makes
// sure with a quorum that it still leads.
package consul

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Client reaches Consul's KV store. Make it with New. It is safe for concurrent use.
type Client struct {
	kv     *api.KV
	rand   io.Reader
	txn    *api.Txn
	root   string // "holdfast/<cluster>/"
	ctx    context.Context
	cancel context.CancelFunc
}

var _ lease.Registers = (*Client)(nil)

// New gives the registers below a folder of a Consul that api already knows how to reach ("holdfast/<cluster>"). Nothing is sent yet.
func New(client *api.Client, root string) (*Client, error) {
	root = strings.Trim(root, "/")
	if err := lease.CheckKey(root); err != nil {
		return nil, fault.Op(err, "Consul authority: its folder")
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{kv: client.KV(), txn: client.Txn(), root: root + "/", ctx: ctx, cancel: cancel, rand: rand.Reader}, nil
}

// Close ends every call under way.
func (c *Client) Close() error {
	c.cancel()
	return nil
}

// query gives the options of one consistent read, whose context ends with the client, too.
func (c *Client) query(ctx context.Context) (*api.QueryOptions, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	q := &api.QueryOptions{RequireConsistent: true}
	return q.WithContext(ctx), func() { stop(); cancel() }
}

// Get reads one register.
func (c *Client) Get(ctx context.Context, key string) (lease.Entry, error) {
	if err := lease.CheckKey(key); err != nil {
		return lease.Entry{}, err
	}
	q, done := c.query(ctx)
	defer done()
	p, _, err := c.kv.Get(c.root+key, q)
	switch {
	case err != nil:
		return lease.Entry{}, readError(err, "get register "+key)
	case p == nil:
		return lease.Entry{}, fault.New(fault.NotFound, "get register %s: there is none", key)
	}
	return c.entry(p)
}

// stampSize is the length of what stands before each value.
const stampSize = 16

// stamped puts a fresh stamp before a value.
func (c *Client) stamped(value []byte) ([]byte, error) {
	out := make([]byte, stampSize, stampSize+len(value))
	if _, err := io.ReadFull(c.rand, out); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "transaction: stamp a value")
	}
	return append(out, value...), nil
}

func (c *Client) entry(p *api.KVPair) (lease.Entry, error) {
	key := strings.TrimPrefix(p.Key, c.root)
	if len(p.Value) < stampSize {
		return lease.Entry{}, fault.New(fault.Internal, "register %s: its value is not one of ours, %d bytes without a stamp", key, len(p.Value))
	}
	return lease.Entry{Key: key, Value: p.Value[stampSize:], Version: p.ModifyIndex}, nil
}

// List reads all registers under prefix; the answer is one snapshot.
func (c *Client) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	if err := lease.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	q, done := c.query(ctx)
	defer done()
	pairs, _, err := c.kv.List(c.root+prefix, q)
	if err != nil {
		return nil, readError(err, "list registers "+prefix)
	}
	entries := make([]lease.Entry, 0, len(pairs))
	for _, p := range pairs {
		if lease.CheckKey(strings.TrimPrefix(p.Key, c.root)) != nil {
			continue // a folder that somebody made by hand is no register
		}
		e, err := c.entry(p)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// readError sorts what a read failed with: without an answer it is Unavailable, because it has no effect.
func readError(err error, what string) error {
	if status(err) == http.StatusForbidden {
		return fault.Wrap(fault.Denied, err, "%s: the token's policy must allow key and list below the authority's folder", what)
	}
	return fault.Wrap(fault.Unavailable, err, "%s", what)
}

func status(err error) int {
	var s api.StatusError
	if errors.As(err, &s) {
		return s.Code
	}
	return 0
}

// Txn applies all operations or none.
func (c *Client) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	if err := lease.CheckOps(ops); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "transaction")
	}
	q, done := c.query(ctx)
	defer done()
	q.RequireConsistent = false // a transaction that writes goes through the log anyway
	compiled, err := c.compile(ops)
	if err != nil {
		return nil, err
	}
	ok, resp, _, err := c.txn.Txn(compiled, q)
	switch {
	case err != nil:
		return nil, txnError(err)
	case !ok:
		return nil, refused(compiled, resp)
	case len(resp.Errors) > 0:
		return nil, fault.New(fault.Unknown, "transaction: Consul says both done and %q", resp.Errors[0].What)
	}
	return c.results(ops, resp)
}

// compile gives Consul's operations.
func (c *Client) compile(ops []lease.Op) (api.TxnOps, error) {
	out := make(api.TxnOps, 0, 2*len(ops))
	add := func(verb api.KVOp, op lease.Op, value []byte) {
		out = append(out, &api.TxnOp{KV: &api.KVTxnOp{Verb: verb, Key: c.root + op.Key, Index: op.Expect, Value: value}})
	}
	for _, op := range ops {
		switch {
		case op.Kind == lease.OpPut:
			value, err := c.stamped(op.Value)
			if err != nil {
				return nil, err
			}
			add(api.KVCAS, op, value)
		case op.Kind == lease.OpDelete:
			add(api.KVCheckIndex, op, nil)
			add(api.KVDeleteCAS, op, nil)
		case op.Expect == 0:
			add(api.KVCheckNotExists, op, nil)
		default:
			add(api.KVCheckIndex, op, nil)
		}
	}
	return out, nil
}

// results matches the answer to the operations: Consul answers puts and index checks, in order, and neither deletions nor
// checks for absence.
func (c *Client) results(ops []lease.Op, resp *api.TxnResponse) ([]lease.Entry, error) {
	byKey := make(map[string]*api.KVPair, len(resp.Results))
	for _, r := range resp.Results {
		if r != nil && r.KV != nil {
			byKey[r.KV.Key] = r.KV
		}
	}
	entries := make([]lease.Entry, 0, len(ops))
	for _, op := range ops {
		e := lease.Entry{Key: op.Key}
		p := byKey[c.root+op.Key]
		switch {
		case op.Kind == lease.OpPut && p == nil:
			return nil, fault.New(fault.Unknown, "transaction: Consul's answer does not name register %s", op.Key)
		case op.Kind == lease.OpPut:
			e.Version, e.Value = p.ModifyIndex, op.Value
		case op.Kind == lease.OpCheck:
			e.Version = op.Expect
			if p != nil && len(p.Value) >= stampSize {
				e.Value = p.Value[stampSize:]
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func refused(compiled api.TxnOps, resp *api.TxnResponse) error {
	if resp == nil || len(resp.Errors) == 0 {
		return fault.New(fault.Conflict, "transaction: refused by Consul without a reason")
	}
	first := resp.Errors[0]
	if strings.Contains(strings.ToLower(first.What), "permission denied") {
		return fault.New(fault.Denied, "transaction: Consul: %s", first.What)
	}
	key := "?"
	if first.OpIndex >= 0 && first.OpIndex < len(compiled) {
		key = compiled[first.OpIndex].KV.Key
	}
	return fault.New(fault.Conflict, "register %s is not at the version that was expected: %s", key, first.What)
}

// txnError sorts what a transaction failed with. Only what certainly did not reach the log is Unavailable.
func txnError(err error) error {
	var dial *net.OpError
	switch code := status(err); {
	case errors.As(err, &dial) && dial.Op == "dial":
		return fault.Wrap(fault.Unavailable, err, "transaction: Consul cannot be reached")
	case code == http.StatusForbidden:
		return fault.Wrap(fault.Denied, err, "transaction: the token's policy must allow key write below the authority's folder")
	case code == http.StatusTooManyRequests:
		return fault.Wrap(fault.Unavailable, err, "transaction: Consul asks for fewer requests")
	case code >= 400 && code < 500:
		return fault.Wrap(fault.Invalid, err, "transaction: Consul does not take it")
	}
	return fault.Wrap(fault.Unknown, err, "transaction: no answer from Consul")
}

// Watch follows a prefix by blocking queries. It signals at the beginning, after each change, and when Consul is reached again.
func (c *Client) Watch(ctx context.Context, prefix string) <-chan struct{} {
	out := make(chan struct{}, 1)
	go c.watch(ctx, prefix, out)
	return out
}

func (c *Client) watch(ctx context.Context, prefix string, out chan<- struct{}) {
	const first, last = 50 * time.Millisecond, 2 * time.Second
	index, pause := uint64(0), first
	for ctx.Err() == nil && c.ctx.Err() == nil {
		q, done := c.query(ctx)
		q.RequireConsistent = false // the receiver reads again, consistently
		q.WaitIndex, q.WaitTime = index, time.Minute
		_, meta, err := c.kv.Keys(c.root+prefix, "", q)
		done()
		if err != nil {
			index = 0
			select {
			case <-time.After(pause):
				pause = min(2*pause, last)
			case <-ctx.Done():
			case <-c.ctx.Done():
			}
			continue
		}
		pause = first
		if meta.LastIndex != index || index == 0 {
			select {
			case out <- struct{}{}:
			default:
			}
		}
		if meta.LastIndex < index {
			index = 0 // it goes backwards when the server was restored: begin anew
			continue
		}
		index = max(meta.LastIndex, 1)
	}
}

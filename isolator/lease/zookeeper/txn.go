package zookeeper

import (
	"context"
	"errors"
	"path"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Txn applies all operations or none, in one multi.
func (c *Client) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	if err := lease.CheckOps(ops); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx, ops); err != nil {
		return nil, err
	}
	for {
		m, err := c.compile(ctx, ops)
		if err != nil {
			return nil, err
		}
		entries, again, err := c.send(ctx, ops, m)
		if !again {
			return entries, err
		}
		// Something moved between the reads and the multi. If it was what an operation expects, the next reads say so.
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "transaction: nothing was written")
		}
	}
}

// prepare makes the folders, the guard and the beacons that the operations need.
func (c *Client) prepare(ctx context.Context, ops []lease.Op) error {
	need := []string{c.guard()}
	for _, op := range ops {
		if op.Kind != lease.OpDelete && op.Expect == 0 {
			need = append(need, path.Dir(c.znode(op.Key)))
		}
		if op.Kind != lease.OpCheck {
			need = append(need, c.beacon(op.Key))
		}
	}
	for _, folder := range need {
		if err := c.makeFolder(ctx, folder); err != nil {
			return readError(err, "make the folder "+folder)
		}
	}
	return nil
}

func (c *Client) makeFolder(ctx context.Context, folder string) error {
	c.mu.Lock()
	known := c.folders[folder]
	c.mu.Unlock()
	if known || folder == "/" {
		return nil
	}
	if err := c.makeFolder(ctx, path.Dir(folder)); err != nil {
		return err
	}
	acl := c.acl
	_, err := do(ctx, c, func() (string, error) { return c.conn.Create(folder, nil, 0, acl) })
	if err != nil && !errors.Is(err, zk.ErrNodeExists) {
		if exists, xerr := do(ctx, c, func() (bool, error) { ok, _, err := c.conn.Exists(folder); return ok, err }); xerr != nil || !exists {
			return err
		}
	}
	c.mu.Lock()
	c.folders[folder] = true
	c.mu.Unlock()
	return nil
}

// multi is a transaction in ZooKeeper's terms.
type multi struct {
	requests []any
	// result is, for each operation, the index of the request whose answer tells its new version, -1 for none.
	result []int
	values [][]byte // of what is only checked
}

// compile reads what the operations are about and turns expected versions into ZooKeeper's.
func (c *Client) compile(ctx context.Context, ops []lease.Op) (multi, error) {
	m := multi{result: make([]int, len(ops)), values: make([][]byte, len(ops))}
	guard, err := do(ctx, c, func() (*zk.Stat, error) {
		// One sync covers all reads: what follows on this connection is at least as new.
		if _, err := c.conn.Sync(c.guard()); err != nil {
			return nil, err
		}
		_, stat, err := c.conn.Exists(c.guard())
		return stat, err
	})
	if err != nil {
		return m, readError(err, "transaction: read the guard")
	}
	deletes := false
	for _, op := range ops {
		deletes = deletes || op.Kind == lease.OpDelete
	}
	if deletes {
		m.requests = append(m.requests, &zk.SetDataRequest{Path: c.guard(), Version: guard.Version})
	} else {
		m.requests = append(m.requests, &zk.CheckVersionRequest{Path: c.guard(), Version: guard.Version})
	}
	beacons, reads := map[string]bool{}, c.readExpected(ctx, ops)
	for i, op := range ops {
		if err := c.compileOp(&m, i, op, reads[i]); err != nil {
			return m, err
		}
		if b := c.beacon(op.Key); op.Kind != lease.OpCheck && !beacons[b] {
			beacons[b] = true
			m.requests = append(m.requests, &zk.SetDataRequest{Path: b, Version: -1})
		}
	}
	return m, nil
}

// found is what a register was when it was read.
type found struct {
	e       lease.Entry
	version int32
	err     error
}

// readExpected reads the registers of which operations expect a version, side by side: a transaction takes two round trips then, whatever its size.
func (c *Client) readExpected(ctx context.Context, ops []lease.Op) []found {
	const sideBySide = 64
	out, slots := make([]found, len(ops)), make(chan struct{}, sideBySide)
	var wg sync.WaitGroup
	for i, op := range ops {
		if op.Expect == 0 {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f := &out[i]
			f.e, f.version, f.err = c.read(ctx, op.Key, false)
		})
	}
	wg.Wait()
	return out
}

func (c *Client) compileOp(m *multi, i int, op lease.Op, is found) error {
	at := c.znode(op.Key)
	m.result[i] = -1
	if op.Expect == 0 {
		// A multi cannot check that something is absent, but it can make it, which only then succeeds.
		m.requests = append(m.requests, &zk.CreateRequest{Path: at, Data: op.Value, Acl: c.acl})
		if op.Kind == lease.OpCheck {
			m.requests = append(m.requests, &zk.DeleteRequest{Path: at, Version: 0})
			return nil
		}
		// The answer of a create has no mzxid; that of a write after it has.
		m.result[i] = len(m.requests)
		m.requests = append(m.requests, &zk.SetDataRequest{Path: at, Data: op.Value, Version: 0})
		return nil
	}
	e, version, err := is.e, is.version, is.err
	switch {
	case fault.Is(err, fault.NotFound):
		return fault.New(fault.Conflict, "register %s does not exist, version %d was expected", op.Key, op.Expect)
	case err != nil:
		return err
	case e.Version != op.Expect:
		return fault.New(fault.Conflict, "register %s has version %d, %d was expected", op.Key, e.Version, op.Expect)
	}
	switch op.Kind {
	case lease.OpCheck:
		m.values[i] = e.Value
		m.requests = append(m.requests, &zk.CheckVersionRequest{Path: at, Version: version})
	case lease.OpPut:
		m.result[i] = len(m.requests)
		m.requests = append(m.requests, &zk.SetDataRequest{Path: at, Data: op.Value, Version: version})
	case lease.OpDelete:
		m.requests = append(m.requests, &zk.DeleteRequest{Path: at, Version: version})
	}
	return nil
}

// send sends the multi. again says that it was refused because something moved since compile.
func (c *Client) send(ctx context.Context, ops []lease.Op, m multi) (entries []lease.Entry, again bool, err error) {
	answers, err := do(ctx, c, func() ([]zk.MultiResponse, error) { return c.conn.Multi(m.requests...) })
	switch {
	case err == nil && len(answers) != len(m.requests):
		return nil, false, fault.New(fault.Unknown, "transaction: ZooKeeper answered %d of %d operations", len(answers), len(m.requests))
	case err == nil:
	case errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode), errors.Is(err, zk.ErrNotEmpty):
		if created, key := c.exists(ctx, ops); created {
			return nil, false, fault.New(fault.Conflict, "register %s exists already", key)
		}
		return nil, true, nil
	case errors.Is(err, errNotSent), errors.Is(err, zk.ErrNoServer):
		return nil, false, fault.Wrap(fault.Unavailable, err, "transaction")
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed):
		return nil, false, fault.Wrap(fault.Denied, err, "transaction: ZooKeeper's access list forbids it")
	default:
		return nil, false, fault.Wrap(fault.Unknown, err, "transaction: no answer from ZooKeeper")
	}
	for i, op := range ops {
		e := lease.Entry{Key: op.Key, Value: op.Value}
		switch {
		case m.result[i] >= 0:
			if answers[m.result[i]].Stat == nil {
				return nil, false, fault.New(fault.Unknown, "transaction: ZooKeeper's answer for %s has no stat", op.Key)
			}
			e.Version = uint64(answers[m.result[i]].Stat.Mzxid)
		case op.Kind == lease.OpCheck:
			e.Version, e.Value = op.Expect, m.values[i]
		default:
			e.Value = nil
		}
		entries = append(entries, e)
	}
	return entries, false, nil
}

// exists looks for a register that is there although an operation expects none. An error is no answer: the next round finds out.
func (c *Client) exists(ctx context.Context, ops []lease.Op) (bool, string) {
	for _, op := range ops {
		if op.Expect != 0 {
			continue
		}
		if _, _, err := c.read(ctx, op.Key, true); err == nil {
			return true, op.Key
		}
	}
	return false, ""
}

package leasetest

import (
	"context"
	"sort"
	"strings"
	"sync"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Memory is an authority in memory, for tests and simulations. It passes the suite itself. The zero value is not ready; use
// NewMemory.
type Memory struct {
	mu       sync.Mutex
	version  uint64
	entries  map[string]lease.Entry
	watchers map[chan struct{}]string
}

// NewMemory returns an empty authority.
func NewMemory() *Memory {
	return &Memory{entries: map[string]lease.Entry{}, watchers: map[chan struct{}]string{}}
}

// Client implements Server: all clients share the one memory.
func (m *Memory) Client() lease.Registers { return m }

// Get implements lease.Registers.
func (m *Memory) Get(ctx context.Context, key string) (lease.Entry, error) {
	if err := usable(ctx, key); err != nil {
		return lease.Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return lease.Entry{}, fault.New(fault.NotFound, "register %s does not exist", key)
	}
	return copyOf(e), nil
}

// List implements lease.Registers; the result is a snapshot.
func (m *Memory) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "list")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []lease.Entry
	for k, e := range m.entries {
		if strings.HasPrefix(k, prefix) {
			out = append(out, copyOf(e))
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, nil
}

// Txn implements lease.Registers.
func (m *Memory) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	if len(ops) == 0 {
		return nil, fault.New(fault.Invalid, "a transaction without operations")
	}
	seen := map[string]bool{}
	for _, op := range ops {
		if err := usable(ctx, op.Key); err != nil {
			return nil, err
		}
		if seen[op.Key] || (op.Kind == lease.OpDelete && op.Expect == 0) || (op.Kind != lease.OpCheck && op.Kind != lease.OpPut && op.Kind != lease.OpDelete) {
			return nil, fault.New(fault.Invalid, "operation %q on register %s", op.Kind, op.Key)
		}
		seen[op.Key] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range ops {
		if v := m.entries[op.Key].Version; v != op.Expect {
			return nil, fault.New(fault.Conflict, "register %s has version %d, not %d", op.Key, v, op.Expect)
		}
	}
	var out []lease.Entry
	for _, op := range ops {
		out = append(out, m.apply(op))
	}
	return out, nil
}

func (m *Memory) apply(op lease.Op) lease.Entry {
	switch op.Kind {
	case lease.OpPut:
		m.version++
		e := copyOf(lease.Entry{Key: op.Key, Value: op.Value, Version: m.version})
		m.entries[op.Key] = e
		m.changed(op.Key)
		return copyOf(e)
	case lease.OpDelete:
		delete(m.entries, op.Key)
		m.changed(op.Key)
		return lease.Entry{Key: op.Key}
	}
	e := copyOf(m.entries[op.Key])
	e.Key = op.Key
	return e
}

func (m *Memory) changed(key string) {
	for c, prefix := range m.watchers {
		if strings.HasPrefix(key, prefix) {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// Watch implements lease.Registers.
func (m *Memory) Watch(ctx context.Context, prefix string) <-chan struct{} {
	c := make(chan struct{}, 1)
	c <- struct{}{}
	m.mu.Lock()
	m.watchers[c] = prefix
	m.mu.Unlock()
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		delete(m.watchers, c)
		m.mu.Unlock()
	})
	return c
}

// Close implements lease.Registers; the memory stays.
func (m *Memory) Close() error { return nil }

func copyOf(e lease.Entry) lease.Entry {
	e.Value = append([]byte(nil), e.Value...)
	return e
}

func usable(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(fault.Unavailable, err, "register %s", key)
	}
	if key == "" || strings.HasPrefix(key, "/") || strings.HasSuffix(key, "/") || strings.Contains(key, "//") || strings.ContainsAny(key, " \x00") {
		return fault.New(fault.Invalid, "register key %q", key)
	}
	for _, part := range strings.Split(key, "/") {
		if part == "." || part == ".." {
			return fault.New(fault.Invalid, "register key %q", key)
		}
	}
	return nil
}

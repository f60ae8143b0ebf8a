package leasetest

import (
	"context"
	"sync"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Mishap is what befalls one call on its way.
type Mishap int

// The mishaps. Lost ones are Unknown to a writer and Unavailable to a reader.
const (
	None      Mishap = iota
	NotSent          // Unavailable, nothing happens
	LostCall         // nothing happens, and the caller cannot know
	LostReply        // it happens, and the caller does not learn of it
	LateCall         // the caller gives up; then, before its next call, it happens after all
)

// Faulty is an authority behind a bad network. Mishap is asked before each call; nil asks nobody.
type Faulty struct {
	lease.Registers
	Mishap func(write bool, ops []lease.Op) Mishap

	mu   sync.Mutex
	late [][]lease.Op
}

// Get implements lease.Registers.
func (f *Faulty) Get(ctx context.Context, key string) (lease.Entry, error) {
	f.arrive()
	if f.befalls(false, nil) != None {
		return lease.Entry{}, fault.New(fault.Unavailable, "get %s: the network is bad", key)
	}
	return f.Registers.Get(ctx, key)
}

// List implements lease.Registers.
func (f *Faulty) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	f.arrive()
	if f.befalls(false, nil) != None {
		return nil, fault.New(fault.Unavailable, "list %s: the network is bad", prefix)
	}
	return f.Registers.List(ctx, prefix)
}

// Txn implements lease.Registers.
func (f *Faulty) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	f.arrive()
	lost := fault.New(fault.Unknown, "transaction: no reply")
	switch f.befalls(true, ops) {
	case NotSent:
		return nil, fault.New(fault.Unavailable, "transaction: the network is bad")
	case LostCall:
		return nil, lost
	case LostReply:
		_, _ = f.Registers.Txn(ctx, ops...)
		return nil, lost
	case LateCall:
		f.mu.Lock()
		f.late = append(f.late, append([]lease.Op(nil), ops...))
		f.mu.Unlock()
		return nil, lost
	}
	return f.Registers.Txn(ctx, ops...)
}

func (f *Faulty) befalls(write bool, ops []lease.Op) Mishap {
	if f.Mishap == nil {
		return None
	}
	return f.Mishap(write, ops)
}

// arrive lets the late calls happen.
func (f *Faulty) arrive() {
	f.mu.Lock()
	late := f.late
	f.late = nil
	f.mu.Unlock()
	for _, ops := range late {
		_, _ = f.Registers.Txn(context.Background(), ops...)
	}
}

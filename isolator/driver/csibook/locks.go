package csibook

import (
	"context"
	"sync"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Locks has one lock per volume name.
type Locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// Lock waits for the name's lock, at most until ctx ends.
func (l *Locks) Lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		if ctx.Err() != nil {
			return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "not begun")
		}
		l.mu.Lock()
		if l.held == nil {
			l.held = map[string]chan struct{}{}
		}
		busy, ok := l.held[name]
		if !ok {
			mine := make(chan struct{})
			l.held[name] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, name)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "another operation on the volume has not ended")
		}
	}
}

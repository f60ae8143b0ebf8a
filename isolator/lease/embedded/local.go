package embedded

import (
	"context"

	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Registers gives the registers without a socket, for the process that owns the server and for tests.
func (s *Server) Registers() lease.Registers { return local{s} }

type local struct{ s *Server }

func (l local) Get(_ context.Context, key string) (lease.Entry, error) { return l.s.get(key) }

func (l local) List(_ context.Context, prefix string) ([]lease.Entry, error) { return l.s.list(prefix) }

func (l local) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	return l.s.txn(ctx, ops)
}

func (l local) Watch(ctx context.Context, prefix string) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		_, rev, _ := l.s.hub.look(prefix, 0)
		for {
			signal(out)
			changed, now := l.s.hub.await(ctx, l.s.closing, prefix, rev)
			if !changed {
				return
			}
			rev = now
		}
	}()
	return out
}

// Close leaves the server open: it belongs to who opened it.
func (l local) Close() error { return nil }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

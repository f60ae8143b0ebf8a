package embedded

import (
	"context"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Registers gives the registers without a socket, for the process that owns the server and for tests.
func (s *Server) Registers() lease.Registers { return local{s} }

type local struct{ s *Server }

func (l local) Get(ctx context.Context, key string) (lease.Entry, error) {
	if err := ctx.Err(); err != nil {
		return lease.Entry{}, fault.Wrap(fault.Unavailable, err, "get register %s", key)
	}
	return l.s.get(key)
}

func (l local) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "list registers %s", prefix)
	}
	return l.s.list(prefix)
}

func (l local) Txn(ctx context.Context, ops ...lease.Op) ([]lease.Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "transaction")
	}
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

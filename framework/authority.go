package framework

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/nodes"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
)

// WithAuthority gives Config.Nodes for a lease authority. The framework is the one who makes a new authority's root, bound to
// its cluster; an authority of another cluster ends the framework (Conflict), one that does not answer is waited for.
func WithAuthority(a *lease.Authority, cluster string, c nodes.Config) func(func(scheduler.Event)) (Nodes, error) {
	return func(emit func(scheduler.Event)) (Nodes, error) {
		c := c
		c.Emit = emit
		n, err := nodes.New(a, c)
		if err != nil {
			return nil, err
		}
		log := c.Log
		if log == nil {
			log = zap.NewNop()
		}
		return &bound{Nodes: n, authority: a, cluster: cluster, emit: emit, log: log}, nil
	}
}

// bound is a nodes.Nodes that first makes sure of the authority's root.
type bound struct {
	*nodes.Nodes
	authority *lease.Authority
	cluster   string
	emit      func(scheduler.Event)
	log       *zap.Logger
}

// Run implements Nodes.
func (b *bound) Run(ctx context.Context) error {
	pause := 100 * time.Millisecond
	for {
		_, err := b.authority.Init(ctx, b.cluster)
		switch {
		case err == nil:
			return b.Nodes.Run(ctx)
		case ctx.Err() != nil:
			return nil
		case fault.Is(err, fault.Conflict), fault.Is(err, fault.Invalid), fault.Is(err, fault.Denied):
			return err
		}
		b.log.Warn("the lease authority cannot be reached: nothing that needs a volume is placed or freed", zap.Error(err), zap.Duration("again in", pause))
		b.emit(scheduler.AuthorityLost{Reason: err.Error()})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, 3*time.Second)
	}
}

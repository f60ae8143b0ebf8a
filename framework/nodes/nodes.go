// Package nodes is the framework's way to the lease authority. What claims, nodes and requests say comes in as scheduler
// events; the authority calls that the scheduler's Step asks for go out. While it runs it also is the taker: it declares nodes dead
// whose lease has stood still, and frees what they held.
package nodes

import (
	"context"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
)

// Config of a Nodes. Emit is needed.
type Config struct {
	// Emit takes the events, in order; it may block. It is called from one goroutine.
	Emit func(scheduler.Event)
	// Timings are the taker's; the zero value means lease.EmbeddedTimings.
	Timings lease.Timings
	Clock   lease.Clock // CLOCK_MONOTONIC by default
	// MinGrade is the weakest fence grade that policy lease accepts, "reset" or "soft"; it goes into the claims granted.
	MinGrade lease.Grade
	// By names this framework in the records it writes, such as L4.
	By      string
	Workers int // calls at once; default 32
	Log     *zap.Logger
}

// Nodes is the component. Make it with New.
type Nodes struct{}

// New returns a Nodes that Run starts.
func New(a *lease.Authority, c Config) (*Nodes, error) { return &Nodes{}, nil }

// Run watches and works until ctx ends. It begins every wait of the taker afresh, so run it only while leader.
func (n *Nodes) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Do takes a call that Step asked for, to be carried out soon; it never blocks. false: not a call to the authority.
func (n *Nodes) Do(c scheduler.Call) bool { return false }

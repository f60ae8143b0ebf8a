package lease

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// TakerOptions configure a Taker.
type TakerOptions struct {
	Timings Timings
	Clock   Clock // CLOCK_MONOTONIC
	Log     *zap.Logger
	By      string // who acts, for the records
	Workers int    // how many transitions at once; default 16
}

// Taker declares nodes dead whose lease has stood still for W, and frees what they held.
type Taker struct{}

// NodeWait says where a node's lease stands in the eyes of the Taker, for explanations.
type NodeWait struct {
	UID   string
	Seq   uint64
	Since time.Duration // on the taker's clock: first sight of Seq
	Due   time.Duration // L4 not before
	Why   string        // why it is not or will not be declared dead, "" when nothing stands against it
}

// NewTaker checks the timings and returns a Taker that Run starts. A Taker begins every wait afresh.
func NewTaker(a *Authority, o TakerOptions) (*Taker, error) { return nil, errNotYet }

// Run observes and acts until ctx ends.
func (t *Taker) Run(ctx context.Context) error { return errNotYet }

// Waits is a snapshot of what the Taker waits for.
func (t *Taker) Waits() []NodeWait { return nil }

package nodes

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Operator carries an operator's word to the authority (L7 of docs/safety.md): that what a node holds can be written by it no more. It works
// whoever leads, and whether the framework runs on or is frozen. Its methods may be called concurrently.
type Operator struct {
	Authority *lease.Authority
	Log       *zap.Logger
}

// Holding is what an operator is shown, fresh from the authority, and what the word is then bound to.
type Holding struct {
	Node state.NodeUID
	// Known is false for a node whose record is gone; then Generation is that of its claims.
	Known      bool
	Hostname   string
	Generation uint64
	Version    uint64 // of the node's register
	Alive      bool
	Grade      string
	RenewedAt  time.Time // the node's wall clock
	DeadAt     time.Time
	DeadBy     string
	// Claims are held by the node, under this generation or an earlier one.
	Claims []*state.Claim
}

// Word is what an operator says.
type Word struct {
	Node                state.NodeUID
	Generation, Version uint64
	// Claims are those to free, by the epoch that was shown.
	Claims []Shown
	// Whole says that the node is gone as a whole: its lease ends, too.
	Whole bool
	// Renewing says that the operator was told that the node renews its lease, and insists.
	Renewing bool
	By, Why  string
}

// Shown is a claim as the operator saw it. Its generation may be an earlier one of the node's.
type Shown struct {
	Volume     state.VolumeUID
	Epoch      volume.Epoch
	Generation uint64
}

// Freed is what became of one claim of a Word; Err is nil when it is free now, or was given to somebody else since.
type Freed struct {
	Shown
	Err error
}

// Holding looks at what a node holds. NotFound when neither a record nor a claim names it.
func (o *Operator) Holding(ctx context.Context, node state.NodeUID) (*Holding, error) {
	h := &Holding{Node: node}
	nv, err := o.Authority.Node(ctx, string(node))
	switch {
	case err == nil:
		h.Known, h.Hostname, h.Generation, h.Version, h.Alive, h.Grade, h.RenewedAt, h.DeadBy = true, cmp.Or(nv.AgentHostname, nv.Hostname), nv.Generation, nv.Version, nv.Alive, string(nv.Grade), nv.RenewedAt, nv.DeadBy
		if nv.DeadAt != nil {
			h.DeadAt = *nv.DeadAt
		}
	case !fault.Is(err, fault.NotFound):
		return nil, err
	}
	claims, err := o.Authority.Claims(ctx)
	if err != nil && claims == nil {
		return nil, err
	}
	for _, c := range claims {
		if c.State == lease.Held && c.Node == string(node) {
			h.Claims = append(h.Claims, claimOf(c))
		}
	}
	slices.SortFunc(h.Claims, func(a, b *state.Claim) int { return cmp.Compare(a.Ref.String(), b.Ref.String()) })
	if !h.Known && len(h.Claims) == 0 {
		return nil, fault.New(fault.NotFound, "no node %s is known to the lease authority", node)
	}
	return h, nil
}

// Speak acts on a word: the lease first where the node is gone as a whole, then claim by claim, each bound to what was shown. An error says
// that nothing was freed; otherwise each claim has its own answer, and saying the same word again does what is left.
func (o *Operator) Speak(ctx context.Context, w Word) ([]Freed, error) {
	w.By, w.Why = strings.TrimSpace(w.By), strings.TrimSpace(w.Why)
	switch {
	case w.By == "" || w.Why == "":
		return nil, fault.New(fault.Invalid, "an operator's word needs who says it (by) and for what reason (why): both are kept")
	case len(w.By) > 200 || len(w.Why) > 1000:
		return nil, fault.New(fault.Invalid, "by may have 200 bytes and why 1000")
	case !w.Whole && len(w.Claims) == 0:
		return nil, fault.New(fault.Invalid, "an operator's word needs the claims that it is about")
	}
	log := o.Log.With(zap.String("by", w.By), zap.String("why", w.Why), zap.String("node", string(w.Node)), zap.Uint64("generation", w.Generation), zap.Bool("although it renews", w.Renewing))
	log.Warn("operator's word", zap.Bool("whole node", w.Whole), zap.Int("claims", len(w.Claims)))
	if w.Whole {
		err := o.Authority.Condemn(ctx, string(w.Node), w.Generation, w.Version, w.Renewing, "operator "+w.By)
		if err != nil && !fault.Is(err, fault.NotFound) { // a node without record has no lease
			log.Warn("operator's word refused", zap.Error(err))
			return nil, err
		}
	}
	out := make([]Freed, 0, len(w.Claims))
	for _, c := range w.Claims {
		_, err := o.Authority.Override(ctx, lease.OverrideArgs{VolumeUID: string(c.Volume), Epoch: c.Epoch, Node: string(w.Node), Generation: c.Generation,
			NodeVersion: w.Version, Renewing: w.Renewing || w.Whole, By: w.By, Why: w.Why})
		log.Warn("operator's word on a claim", zap.String("volume", string(c.Volume)), zap.Uint64("epoch", uint64(c.Epoch)), zap.Error(err))
		out = append(out, Freed{Shown: c, Err: err})
	}
	return out, nil
}

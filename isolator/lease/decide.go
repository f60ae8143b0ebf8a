package lease

import (
	"fmt"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// The functions in this file are the transitions of a claim as decisions: from the claim as it stands (and the
// node's record) to the claim as it shall be. write is false when it stands so already: the call is a repetition. They
// do no I/O, so that a model can run them.

// HolderError is in the chain of Conflict errors about a claim that is somebody's: who has it since when.
type HolderError struct {
	Claim    Claim
	Hostname string // of the holder or grantee, "" when not known
}

// Error names state, node, epoch and time.
func (h *HolderError) Error() string {
	c := h.Claim
	who := h.Hostname
	if who == "" {
		who = "node " + c.Node
		if c.Node == "" {
			who = "agent " + c.Agent
		}
	}
	verb := map[ClaimState]string{Held: "held by", Granted: "granted to", Free: "free, last of"}[c.State]
	if c.State == Free {
		return fmt.Sprintf("volume %s is free (epoch %d, since %s)", c.Ref, c.Epoch, c.Since.UTC().Format(time.RFC3339))
	}
	s := fmt.Sprintf("volume %s is %s %s (epoch %d, since %s", c.Ref, verb, who, c.Epoch, c.Since.UTC().Format(time.RFC3339))
	if c.Owner != "" {
		s += ", for " + c.Owner
	}
	return s + ")"
}

func conflict(c Claim, format string, args ...any) error {
	return fault.Wrap(fault.Conflict, &HolderError{Claim: c}, format, args...)
}

// free is c without a holder.
func (c Claim) free(by string) Claim {
	c.State, c.FreedBy = Free, by
	c.Nonce, c.Agent, c.Node, c.NodeGeneration, c.Fence, c.Revoke, c.Owner = "", "", "", 0, "", false, ""
	return c
}

func removed(c Claim) error {
	return fault.New(fault.Conflict, "volume %s (%s) was removed", c.Ref, c.VolumeUID)
}

// decideGrant is L1: free(e) -> granted(e').
func decideGrant(c Claim, g GrantArgs) (next Claim, write bool, err error) {
	switch {
	case c.Tombstone:
		return c, false, removed(c)
	case c.Shared:
		return c, false, fault.New(fault.Conflict, "volume %s is shared: it is never granted", c.Ref)
	case c.State != Free && c.Epoch == g.Epoch && c.Nonce == g.Nonce:
		return c, false, nil
	case c.State != Free:
		return c, false, conflict(c, "grant of epoch %d", g.Epoch)
	case g.Epoch <= c.Epoch:
		return c, false, conflict(c, "grant of epoch %d, which was used before", g.Epoch)
	}
	next = c
	next.State, next.Epoch, next.Nonce = Granted, g.Epoch, g.Nonce
	next.Agent, next.Node, next.Policy, next.Owner = g.Agent, g.Node, g.Policy, g.Owner
	next.FreedBy = ""
	return next, true, nil
}

// decideHold is L2: granted(e) -> held(e), by the node the grant is for, alive at G.
func decideHold(c Claim, n Node, h HoldArgs) (next Claim, write bool, err error) {
	ours := c.Epoch == h.Epoch && c.Nonce == h.Nonce
	switch {
	case c.Tombstone:
		return c, false, removed(c)
	case c.State == Held && ours && c.Node == h.Node && c.NodeGeneration == h.Generation:
		return c, false, aliveAt(n, h.Generation)
	case c.State != Granted || !ours:
		return c, false, conflict(c, "hold of epoch %d", h.Epoch)
	case c.Node != "" && c.Node != h.Node, c.Node == "" && c.Agent != n.AgentID:
		return c, false, conflict(c, "hold of epoch %d by node %s", h.Epoch, h.Node)
	}
	if err := aliveAt(n, h.Generation); err != nil {
		return c, false, err
	}
	next = c
	next.State, next.Node, next.NodeGeneration = Held, h.Node, h.Generation
	next.Fence = weaker(h.Grade, n.Grade)
	if h.Owner != "" {
		next.Owner = h.Owner
	}
	return next, true, nil
}

// decideSelf is L1 and L2 in one, without a grant: free(e) -> held(e+1).
func decideSelf(c Claim, n Node, s SelfClaimArgs) (next Claim, write bool, err error) {
	switch {
	case c.Tombstone:
		return c, false, removed(c)
	case c.Shared:
		return c, false, nil
	case c.State == Held && c.Nonce == s.Nonce && c.Node == s.Node && c.NodeGeneration == s.Generation:
		return c, false, aliveAt(n, s.Generation)
	case c.State != Free:
		return c, false, conflict(c, "claim without a grant")
	}
	if err := aliveAt(n, s.Generation); err != nil {
		return c, false, err
	}
	return selfHeld(c, n, s), true, nil
}

func selfHeld(c Claim, n Node, s SelfClaimArgs) Claim {
	c.State, c.Epoch, c.Nonce = Held, c.Epoch+1, s.Nonce
	c.Agent, c.Node, c.NodeGeneration, c.Owner = n.AgentID, s.Node, s.Generation, s.Owner
	c.Fence = weaker(s.Grade, n.Grade)
	if c.Policy.Mode == "" {
		c.Policy = s.Policy
	}
	c.FreedBy = ""
	return c
}

// decideRekey passes a claim on within its node: held(e) -> held(e+1), once e has no users.
func decideRekey(c Claim, n Node, r RekeyArgs) (next Claim, write bool, err error) {
	mine := c.State == Held && c.Node == r.Node && c.NodeGeneration == r.Generation
	switch {
	case mine && c.Epoch == r.Epoch+1 && c.Nonce == r.Nonce:
		return c, false, aliveAt(n, r.Generation)
	case !mine || c.Epoch != r.Epoch || c.Nonce != r.OldNonce:
		return c, false, conflict(c, "re-key of epoch %d", r.Epoch)
	case c.Revoke:
		return c, false, conflict(c, "re-key of epoch %d, which is revoked", r.Epoch)
	}
	if err := aliveAt(n, r.Generation); err != nil {
		return c, false, err
	}
	next = c
	next.Epoch, next.Nonce, next.Owner = r.Epoch+1, r.Nonce, r.Owner
	next.Fence = weaker(r.Grade, n.Grade)
	return next, true, nil
}

// decideRegrade corrects what a held claim says of its holder's fence. Since it needs a lease that is alive, nothing changes once a taker may go by it.
func decideRegrade(c Claim, n Node, r RegradeArgs) (next Claim, write bool, err error) {
	if c.State != Held || c.Epoch != r.Epoch || c.Nonce != r.Nonce || c.Node != r.Node || c.NodeGeneration != r.Generation {
		return c, false, conflict(c, "grade of epoch %d by node %s generation %d", r.Epoch, r.Node, r.Generation)
	}
	if err := aliveAt(n, r.Generation); err != nil {
		return c, false, err
	}
	next = c
	next.Fence = weaker(r.Grade, n.Grade)
	return next, next.Fence != c.Fence, nil
}

// decideRelease is L3: held(e) -> free(e), by its holder. It does not ask whether the node's lease is alive: who has
// fenced and verified may say so at any time.
func decideRelease(c Claim, epoch volume.Epoch, node string, generation uint64, nonce string) (next Claim, write bool, err error) {
	switch {
	case c.Epoch > epoch, c.Epoch == epoch && c.State == Free:
		return c, false, nil
	case c.State != Held || c.Epoch != epoch || c.Node != node || c.NodeGeneration != generation || c.Nonce != nonce:
		return c, false, conflict(c, "release of epoch %d by node %s generation %d", epoch, node, generation)
	}
	return c.free("L3"), true, nil
}

// decideCancel is L5: granted(e) -> free(e).
func decideCancel(c Claim, epoch volume.Epoch, nonce string) (next Claim, write bool, err error) {
	switch {
	case c.Epoch > epoch, c.Epoch == epoch && c.State == Free:
		return c, false, nil
	case c.State != Granted || c.Epoch != epoch || c.Nonce != nonce:
		return c, false, conflict(c, "cancellation of the grant of epoch %d", epoch)
	}
	return c.free("L5"), true, nil
}

// decideRevoke is L6: the flag that asks a live holder to give the volume up.
func decideRevoke(c Claim, epoch volume.Epoch) (next Claim, write bool, err error) {
	switch {
	case c.Epoch > epoch, c.Epoch == epoch && c.State == Free, c.State == Held && c.Epoch == epoch && c.Revoke:
		return c, false, nil
	case c.State != Held || c.Epoch != epoch:
		return c, false, conflict(c, "revocation of epoch %d", epoch)
	}
	next = c
	next.Revoke = true
	return next, true, nil
}

// decideFreeDead is what follows L4: held(e, node, G) -> free(e) when the node is dead at G and policy and grade of the
// claim admit it.
func decideFreeDead(c Claim, n Node, epoch volume.Epoch, node string, generation uint64) (next Claim, write bool, err error) {
	switch {
	case c.Epoch > epoch, c.Epoch == epoch && c.State == Free:
		return c, false, nil
	case c.State != Held || c.Epoch != epoch || c.Node != node || c.NodeGeneration != generation:
		return c, false, conflict(c, "takeover of epoch %d from node %s generation %d", epoch, node, generation)
	case n.Generation != generation:
		return c, false, conflict(c, "takeover of epoch %d: the node has begun generation %d and gives back itself what it held", epoch, n.Generation)
	case n.Alive:
		return c, false, conflict(c, "takeover of epoch %d: the node's lease is alive", epoch)
	}
	if why := c.keepsAfterDeath(); why != "" {
		return c, false, conflict(c, "takeover of epoch %d: %s", epoch, why)
	}
	return c.free("L4"), true, nil
}

// keepsAfterDeath says why the death of its node alone does not free a held claim, "" when it does.
func (c Claim) keepsAfterDeath() string {
	switch {
	case c.Policy.Mode != PolicyLease:
		return fmt.Sprintf("its policy is %q: it waits for %s", c.Policy.Mode, waitsFor(c.Policy.Mode))
	case rank(c.Fence) < rank(minGrade(c.Policy)):
		return fmt.Sprintf("its policy accepts fence grade %q, the node had %q: it waits for an operator's word", minGrade(c.Policy), c.Fence)
	}
	return ""
}

// KeepsAfterDeath says why a held claim stays held when its node's lease has run out, "" when it becomes free then.
func (c Claim) KeepsAfterDeath() string { return c.keepsAfterDeath() }

func waitsFor(mode string) string {
	if mode == PolicyStorage {
		return "proof by the storage or an operator's word"
	}
	return "an operator's word"
}

// minGrade is the weakest grade that frees: soft where somebody has said so, otherwise, and whatever else is written there, reset.
func minGrade(p Policy) Grade {
	if p.MinGrade == GradeSoft {
		return GradeSoft
	}
	return GradeReset
}

// rank orders the grades. One that is not known is trusted with nothing.
func rank(g Grade) int {
	switch g {
	case GradeReset:
		return 2
	case GradeSoft:
		return 1
	}
	return 0
}

// weaker is the grade recorded at a hold: what the isolator says now, but no more than its node's record says.
func weaker(a, b Grade) Grade {
	if a == "" {
		return b
	}
	if b != "" && rank(b) < rank(a) {
		return b
	}
	return a
}

// decideOverride is L7: an operator's word, bound to the node, generation and epoch that were shown.
func decideOverride(c Claim, n *NodeVersion, o OverrideArgs, now time.Time) (next Claim, write bool, err error) {
	switch {
	case c.Epoch > o.Epoch, c.Epoch == o.Epoch && c.State == Free:
		return c, false, nil
	case c.State == Free || c.Epoch != o.Epoch || c.Node != o.Node || c.NodeGeneration != o.Generation:
		return c, false, conflict(c, "override of epoch %d of node %s generation %d", o.Epoch, o.Node, o.Generation)
	case n == nil && o.NodeVersion != 0:
		return c, false, conflict(c, "override: the node's record is gone since it was shown")
	case n != nil && n.Version != o.NodeVersion && n.Alive && n.Generation == c.NodeGeneration && !o.Renewing:
		return c, false, conflict(c, "override: the node renews its lease: it is there, and may be writing")
	}
	next = c.free("L7")
	next.Word = &Word{By: o.By, Why: o.Why, At: now, Epoch: o.Epoch, Node: o.Node, Generation: o.Generation, Renewing: o.Renewing}
	return next, true, nil
}

// aliveAt is the condition under which a node may hold.
func aliveAt(n Node, generation uint64) error {
	switch {
	case n.Generation != generation:
		return fault.New(fault.Conflict, "the lease of node %s is at generation %d, not %d", n.UID, n.Generation, generation)
	case !n.Alive:
		return fault.New(fault.Conflict, "the lease of node %s generation %d has run out (declared dead by %s)", n.UID, n.Generation, n.DeadBy)
	}
	return nil
}

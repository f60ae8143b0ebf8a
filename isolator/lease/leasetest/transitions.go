package leasetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Transitions runs the protocol's transitions on an authority: each step of a claim's life, what is refused, and what a lost
// reply does.
func Transitions(t *testing.T, open func(t *testing.T) Server) {
	for _, part := range []struct {
		name string
		run  func(*fixture)
	}{
		{"life of a claim", (*fixture).life}, {"stale leader", (*fixture).staleLeader}, {"grants", (*fixture).grants},
		{"holds need a live lease", (*fixture).holdsNeedLease}, {"renewal under a hold", (*fixture).renewalUnderHold},
		{"self claim", (*fixture).selfClaim}, {"re-key", (*fixture).rekey}, {"grade", (*fixture).grade}, {"seen", (*fixture).seen}, {"release", (*fixture).release},
		{"death", (*fixture).death}, {"renewal before L4", (*fixture).renewalBeforeDeath}, {"override", (*fixture).override}, {"condemn", (*fixture).condemn},
		{"delete and create again", (*fixture).again}, {"shared", (*fixture).shared}, {"root", (*fixture).root}, {"records", (*fixture).records},
		{"requests", (*fixture).requests}, {"lost calls", (*fixture).lost},
	} {
		t.Run(part.name, func(t *testing.T) {
			s := open(t)
			f := &fixture{T: t, server: s, r: s.Client()}
			f.a = lease.New(f.r, lease.Options{})
			if _, err := f.a.Init(ctx, "cluster"); err != nil {
				t.Fatal(err)
			}
			f.node("n1")
			f.node("n2")
			part.run(f)
		})
	}
}

var (
	ref    = volume.Ref{Driver: "pool", Name: "db"}
	policy = lease.Policy{Mode: lease.PolicyLease, MinGrade: lease.GradeSoft}
)

type fixture struct {
	*testing.T
	server Server
	r      lease.Registers
	a      *lease.Authority
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// refuse wants an error of a class whose text has every one of some words.
func (f *fixture) refuse(err error, c fault.Class, words ...string) {
	f.Helper()
	wantClass(f.T, err, c)
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			f.Errorf("error %q does not say %q", err, w)
		}
	}
}

func (f *fixture) node(uid string) lease.NodeVersion {
	f.Helper()
	n, err := f.a.PutNode(ctx, lease.Node{UID: uid, Generation: 1, BootID: "boot-" + uid, Seq: 1, Alive: true, Grade: lease.GradeSoft,
		Hostname: "host-" + uid, AgentID: "agent-" + uid, Timing: lease.EmbeddedTimings().Publish()}, 0)
	f.ok(err)
	return n
}

func (f *fixture) renew(uid string) lease.NodeVersion {
	f.Helper()
	n, err := f.a.Node(ctx, uid)
	f.ok(err)
	n.Seq++
	n, err = f.a.PutNode(ctx, n.Node, n.Version)
	f.ok(err)
	return n
}

func (f *fixture) create() {
	f.Helper()
	_, err := f.a.Create(ctx, "v1", ref, policy, false)
	f.ok(err)
}

func grant(e volume.Epoch, node string) lease.GrantArgs {
	return lease.GrantArgs{VolumeUID: "v1", Epoch: e, Agent: "agent-" + node, Node: node, Nonce: fmt.Sprintf("nonce-%d", e), Policy: policy, Owner: "task"}
}

func hold(e volume.Epoch, node string) lease.HoldArgs {
	return lease.HoldArgs{VolumeUID: "v1", Epoch: e, Nonce: fmt.Sprintf("nonce-%d", e), Node: node, Generation: 1, Grade: lease.GradeSoft}
}

// held brings the claim to held(e) by a node.
func (f *fixture) held(e volume.Epoch, node string) {
	f.Helper()
	_, err := f.a.Grant(ctx, grant(e, node))
	f.ok(err)
	_, err = f.a.Hold(ctx, hold(e, node))
	f.ok(err)
}

func (f *fixture) stands(state lease.ClaimState, e volume.Epoch, node string) lease.ClaimVersion {
	f.Helper()
	c, err := f.a.Claim(ctx, "v1")
	f.ok(err)
	if c.State != state || c.Epoch != e || c.Node != node {
		f.Errorf("the claim is %s epoch %d node %q, want %s epoch %d node %q", c.State, c.Epoch, c.Node, state, e, node)
	}
	return c
}

func (f *fixture) life() {
	f.create()
	f.create() // twice is once
	f.stands(lease.Free, 0, "")
	f.held(3, "n1") // epochs may skip
	c := f.stands(lease.Held, 3, "n1")
	if c.Fence != lease.GradeSoft || c.Policy != policy || c.NodeGeneration != 1 || c.Owner != "task" || c.Agent != "agent-n1" {
		f.Errorf("held claim %+v", c)
	}
	if by, err := f.a.ClaimByRef(ctx, ref); err != nil || by.VolumeUID != "v1" || by.Version != c.Version {
		f.Errorf("by name: %+v, %v", by, err)
	}
	for range 2 {
		_, err := f.a.Revoke(ctx, "v1", 3)
		f.ok(err)
	}
	if c := f.stands(lease.Held, 3, "n1"); !c.Revoke {
		f.Error("the revoke flag is not set")
	}
	for range 2 {
		_, err := f.a.Release(ctx, "v1", 3, "n1", 1, "nonce-3")
		f.ok(err)
	}
	if c := f.stands(lease.Free, 3, ""); c.FreedBy != "L3" || c.Revoke || c.Nonce != "" {
		f.Errorf("free claim %+v", c)
	}
	_, err := f.a.Revoke(ctx, "v1", 3) // too late does no harm
	f.ok(err)
	_, err = f.a.Grant(ctx, grant(4, "n2"))
	f.ok(err)
	for range 2 {
		_, err = f.a.Cancel(ctx, "v1", 4, "nonce-4")
		f.ok(err)
	}
	if c := f.stands(lease.Free, 4, ""); c.FreedBy != "L5" {
		f.Errorf("cancelled claim %+v", c)
	}
	for range 2 {
		_, err = f.a.Tombstone(ctx, "v1")
		f.ok(err)
	}
	_, err = f.a.Grant(ctx, grant(5, "n1"))
	f.refuse(err, fault.Conflict, "removed")
	_, err = f.a.ClaimByRef(ctx, ref)
	wantClass(f.T, err, fault.NotFound)
}

// Case 1: an old leader's ACCEPT for e arrives after e+1 was granted.
func (f *fixture) staleLeader() {
	f.create()
	_, err := f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	_, err = f.a.Cancel(ctx, "v1", 1, "nonce-1") // the new leader never uses an old grant
	f.ok(err)
	_, err = f.a.Grant(ctx, grant(2, "n2"))
	f.ok(err)
	_, err = f.a.Hold(ctx, hold(1, "n1"))
	f.refuse(err, fault.Conflict, "granted to host-n2", "epoch 2", "since 2")
	_, err = f.a.Grant(ctx, grant(1, "n1"))
	f.refuse(err, fault.Conflict)
	_, err = f.a.Hold(ctx, hold(2, "n2"))
	f.ok(err)
	_, err = f.a.Hold(ctx, hold(1, "n1"))
	f.refuse(err, fault.Conflict, "held by host-n2")
	_, err = f.a.Cancel(ctx, "v1", 2, "nonce-2") // the old leader's, too late
	f.refuse(err, fault.Conflict)
	f.stands(lease.Held, 2, "n2")
}

func (f *fixture) grants() {
	_, err := f.a.Grant(ctx, grant(1, "n1"))
	wantClass(f.T, err, fault.NotFound)
	f.create()
	for _, bad := range []lease.GrantArgs{{VolumeUID: "v1", Epoch: 1, Node: "n1"}, {VolumeUID: "v1", Nonce: "x", Node: "n1"},
		{VolumeUID: "v1", Epoch: 1, Nonce: "x"}, {VolumeUID: "../v1", Epoch: 1, Nonce: "x", Node: "n1"}} {
		_, err := f.a.Grant(ctx, bad)
		wantClass(f.T, err, fault.Invalid)
	}
	for range 2 { // the same nonce again is a success
		_, err = f.a.Grant(ctx, grant(5, "n1"))
		f.ok(err)
	}
	other := grant(5, "n2")
	other.Nonce = "another"
	cv, err := f.a.Grant(ctx, other)
	f.refuse(err, fault.Conflict, "granted to host-n1", "epoch 5")
	var holder *lease.HolderError
	if !errors.As(err, &holder) || holder.Claim.Node != "n1" || cv.Node != "n1" {
		f.Errorf("the holder is not told: %v, %+v", holder, cv)
	}
	_, err = f.a.Hold(ctx, hold(5, "n2")) // the grant is for n1
	f.refuse(err, fault.Conflict)
	bad := hold(5, "n1")
	bad.Nonce = "another"
	_, err = f.a.Hold(ctx, bad)
	f.refuse(err, fault.Conflict)
	_, err = f.a.Hold(ctx, hold(5, "n1"))
	f.ok(err)
	_, err = f.a.Grant(ctx, grant(5, "n1")) // late repetition, when the node has taken it
	f.ok(err)
	_, err = f.a.Hold(ctx, hold(5, "n1"))
	f.ok(err)
	_, err = f.a.Release(ctx, "v1", 5, "n1", 1, "nonce-5")
	f.ok(err)
	for _, e := range []volume.Epoch{5, 4} { // epochs only grow
		_, err = f.a.Grant(ctx, grant(e, "n1"))
		f.refuse(err, fault.Conflict, "used before")
	}
	// A grant bound to an agent alone is taken by the node beside that agent.
	byAgent := lease.GrantArgs{VolumeUID: "v1", Epoch: 6, Agent: "agent-n2", Nonce: "nonce-6", Policy: policy}
	_, err = f.a.Grant(ctx, byAgent)
	f.ok(err)
	_, err = f.a.Hold(ctx, hold(6, "n1"))
	f.refuse(err, fault.Conflict)
	_, err = f.a.Hold(ctx, hold(6, "n2"))
	f.ok(err)
}

func (f *fixture) holdsNeedLease() {
	f.create()
	_, err := f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	h := hold(1, "n1")
	h.Generation = 2
	_, err = f.a.Hold(ctx, h)
	f.refuse(err, fault.Conflict, "generation 1, not 2")
	n, err := f.a.Node(ctx, "n1")
	f.ok(err)
	f.ok(f.a.KillNode(ctx, n, "test"))
	_, err = f.a.Hold(ctx, hold(1, "n1"))
	f.refuse(err, fault.Conflict, "run out")
	_, err = f.a.Hold(ctx, hold(1, "none"))
	wantClass(f.T, err, fault.NotFound)
	f.stands(lease.Granted, 1, "n1")
}

// A renewal that comes between the reading of the node and the transaction only costs another try.
func (f *fixture) renewalUnderHold() {
	f.create()
	_, err := f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	renewals := 0
	a := lease.New(&Faulty{Registers: f.r, Mishap: func(write bool, _ []lease.Op) Mishap {
		if write && renewals < 3 {
			renewals++
			f.renew("n1")
		}
		return None
	}}, lease.Options{})
	_, err = a.Hold(ctx, hold(1, "n1"))
	f.ok(err)
	if renewals != 3 {
		f.Errorf("%d renewals came between", renewals)
	}
	f.stands(lease.Held, 1, "n1")
}

func self(node, uid, nonce string) lease.SelfClaimArgs {
	return lease.SelfClaimArgs{Ref: ref, NewUID: uid, Nonce: nonce, Node: node, Generation: 1, Policy: lease.Policy{Mode: lease.PolicyOperator}, Owner: "docker:x"}
}

func (f *fixture) selfClaim() {
	_, _, err := f.a.SelfClaim(ctx, self("n1", "", "s1"))
	wantClass(f.T, err, fault.NotFound)
	for range 2 {
		c, created, err := f.a.SelfClaim(ctx, self("n1", "v1", "s1"))
		f.ok(err)
		if !created || c.State != lease.Held || c.Epoch != 1 || c.Node != "n1" || c.Policy.Mode != lease.PolicyOperator {
			f.Errorf("created %v %+v", created, c)
		}
	}
	_, _, err = f.a.SelfClaim(ctx, self("n2", "v2", "s2"))
	f.refuse(err, fault.Conflict, "held by host-n1", "docker:x")
	_, err = f.a.Release(ctx, "v1", 1, "n1", 1, "s1")
	f.ok(err)
	c, created, err := f.a.SelfClaim(ctx, self("n2", "v2", "s2"))
	f.ok(err)
	if created || c.VolumeUID != "v1" || c.Epoch != 2 || c.Node != "n2" {
		f.Errorf("second: created %v %+v", created, c)
	}
	_, err = f.a.Release(ctx, "v1", 2, "n2", 1, "s2")
	f.ok(err)
	_, err = f.a.Grant(ctx, grant(3, "n1"))
	f.ok(err)
	for _, n := range []string{"n1", "n2"} { // a grant is for its task alone
		_, _, err = f.a.SelfClaim(ctx, self(n, "", "s3"))
		f.refuse(err, fault.Conflict, "granted to host-n1")
	}
	n, err := f.a.Node(ctx, "n2")
	f.ok(err)
	f.ok(f.a.KillNode(ctx, n, "test"))
	other := self("n2", "v9", "s4")
	other.Ref.Name = "other"
	_, _, err = f.a.SelfClaim(ctx, other)
	f.refuse(err, fault.Conflict, "run out")
	_, err = f.a.Claim(ctx, "v9")
	wantClass(f.T, err, fault.NotFound)
}

func (f *fixture) rekey() {
	f.create()
	f.held(1, "n1")
	r := lease.RekeyArgs{VolumeUID: "v1", Epoch: 1, OldNonce: "nonce-1", Nonce: "r2", Node: "n1", Generation: 1, Owner: "next"}
	for range 2 {
		c, err := f.a.Rekey(ctx, r)
		f.ok(err)
		if c.Epoch != 2 || c.Nonce != "r2" || c.Owner != "next" || c.State != lease.Held {
			f.Errorf("re-keyed claim %+v", c)
		}
	}
	// A late unmount of e must not give e+1 back.
	_, err := f.a.Release(ctx, "v1", 1, "n1", 1, "nonce-1")
	f.ok(err)
	f.stands(lease.Held, 2, "n1")
	_, err = f.a.Rekey(ctx, lease.RekeyArgs{VolumeUID: "v1", Epoch: 2, OldNonce: "r2", Nonce: "r3", Node: "n2", Generation: 1})
	f.refuse(err, fault.Conflict, "held by host-n1")
	_, err = f.a.Revoke(ctx, "v1", 2)
	f.ok(err)
	_, err = f.a.Rekey(ctx, lease.RekeyArgs{VolumeUID: "v1", Epoch: 2, OldNonce: "r2", Nonce: "r3", Node: "n1", Generation: 1})
	f.refuse(err, fault.Conflict, "revoked")
}

// A holder corrects the grade in its claim, upwards and downwards, as far as its node's record goes, and only while its lease is alive.
func (f *fixture) grade() {
	f.create()
	_, err := f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	h := hold(1, "n1")
	h.Grade = lease.GradeNone
	_, err = f.a.Hold(ctx, h)
	f.ok(err)
	r := lease.RegradeArgs{VolumeUID: "v1", Epoch: 1, Nonce: "nonce-1", Node: "n1", Generation: 1}
	for _, g := range []lease.Grade{lease.GradeSoft, lease.GradeNone, lease.GradeReset} {
		r.Grade = g
		c, err := f.a.Regrade(ctx, r)
		f.ok(err)
		want := g
		if g == lease.GradeReset {
			want = lease.GradeSoft // the node's record says no more
		}
		if now := f.stands(lease.Held, 1, "n1"); c.Fence != want || now.Fence != want {
			f.Errorf("grade %s gave %s, and %s stands", g, c.Fence, now.Fence)
		}
	}
	for _, wrong := range []func(*lease.RegradeArgs){func(r *lease.RegradeArgs) { r.Node = "n2" }, func(r *lease.RegradeArgs) { r.Epoch = 2 },
		func(r *lease.RegradeArgs) { r.Nonce = "other" }, func(r *lease.RegradeArgs) { r.Generation = 2 }} {
		bad := r
		wrong(&bad)
		_, err := f.a.Regrade(ctx, bad)
		wantClass(f.T, err, fault.Conflict)
	}
	n, err := f.a.Node(ctx, "n1")
	f.ok(err)
	f.ok(f.a.KillNode(ctx, n, "test"))
	r.Grade = lease.GradeNone
	_, err = f.a.Regrade(ctx, r)
	f.refuse(err, fault.Conflict, "run out")
	if c := f.stands(lease.Held, 1, "n1"); c.Fence != lease.GradeSoft {
		f.Errorf("a dead node changed its grade to %s", c.Fence)
	}
}

// Who hands over a claim that he read before is believed only if it still stands.
func (f *fixture) seen() {
	f.create()
	granted, err := f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	_, err = f.a.Cancel(ctx, "v1", 1, "nonce-1")
	f.ok(err)
	h := hold(1, "n1")
	h.Seen = &granted
	_, err = f.a.Hold(ctx, h)
	wantClass(f.T, err, fault.Conflict)
	free := f.stands(lease.Free, 1, "")
	f.held(2, "n2")
	s := lease.SelfClaimArgs{Ref: ref, Nonce: "s", Node: "n1", Generation: 1, Grade: lease.GradeSoft, Policy: policy, Owner: "o", Seen: &free}
	_, _, err = f.a.SelfClaim(ctx, s)
	wantClass(f.T, err, fault.Conflict)
	f.stands(lease.Held, 2, "n2")
	_, err = f.a.Release(ctx, "v1", 2, "n2", 1, "nonce-2")
	f.ok(err)
	granted, err = f.a.Grant(ctx, grant(3, "n1"))
	f.ok(err)
	h = hold(3, "n1")
	h.Seen = &granted
	_, err = f.a.Hold(ctx, h)
	f.ok(err)
	f.stands(lease.Held, 3, "n1")
}

// Case 16: forged, old or doubled releases free nothing that is not theirs.
func (f *fixture) release() {
	f.create()
	_, err := f.a.Release(ctx, "v1", 1, "n1", 1, "nonce-1")
	f.refuse(err, fault.Conflict)
	f.held(1, "n1")
	for _, forged := range []struct {
		e     volume.Epoch
		node  string
		g     uint64
		nonce string
	}{{1, "n2", 1, "nonce-1"}, {1, "n1", 2, "nonce-1"}, {1, "n1", 1, "nonce-0"}, {1, "n1", 1, ""}, {2, "n1", 1, "nonce-1"}} {
		_, err := f.a.Release(ctx, "v1", forged.e, forged.node, forged.g, forged.nonce)
		f.refuse(err, fault.Conflict)
	}
	_, err = f.a.Tombstone(ctx, "v1")
	f.refuse(err, fault.Conflict, "held by host-n1")
	f.stands(lease.Held, 1, "n1")
	// A node that is dead may still say that it has fenced.
	n, err := f.a.Node(ctx, "n1")
	f.ok(err)
	f.ok(f.a.KillNode(ctx, n, "test"))
	_, err = f.a.Release(ctx, "v1", 1, "n1", 1, "nonce-1")
	f.ok(err)
	f.held(2, "n2")
	_, err = f.a.Release(ctx, "v1", 1, "n1", 1, "nonce-1") // doubled and late
	f.ok(err)
	f.stands(lease.Held, 2, "n2")
}

func (f *fixture) death() {
	f.create()
	f.held(1, "n1")
	_, err := f.a.FreeDead(ctx, "v1", 1, "n1", 1)
	f.refuse(err, fault.Conflict, "alive")
	n, err := f.a.Node(ctx, "n1")
	f.ok(err)
	for range 2 {
		f.ok(f.a.KillNode(ctx, n, "taker"))
	}
	dead, err := f.a.Node(ctx, "n1")
	f.ok(err)
	if dead.Alive || dead.DeadBy != "taker" || dead.DeadAt == nil {
		f.Errorf("dead node %+v", dead)
	}
	for range 2 {
		_, err = f.a.FreeDead(ctx, "v1", 1, "n1", 1)
		f.ok(err)
	}
	if c := f.stands(lease.Free, 1, ""); c.FreedBy != "L4" {
		f.Errorf("freed by %q", c.FreedBy)
	}
	// What policy and grade do not admit stays held.
	for i, p := range []lease.Policy{{Mode: lease.PolicyOperator}, {Mode: lease.PolicyStorage}, {Mode: lease.PolicyLease, MinGrade: lease.GradeReset}, {Mode: lease.PolicyLease}, {}} {
		e := volume.Epoch(i + 2)
		g := grant(e, "n2")
		g.Policy = p
		_, err = f.a.Grant(ctx, g)
		f.ok(err)
		_, err = f.a.Hold(ctx, hold(e, "n2"))
		f.ok(err)
		n, err := f.a.Node(ctx, "n2")
		f.ok(err)
		f.ok(f.a.KillNode(ctx, n, "taker"))
		_, err = f.a.FreeDead(ctx, "v1", e, "n2", 1)
		f.refuse(err, fault.Conflict, "waits for")
		_, err = f.a.Release(ctx, "v1", e, "n2", 1, fmt.Sprintf("nonce-%d", e))
		f.ok(err)
		dead, err := f.a.Node(ctx, "n2")
		f.ok(err)
		dead.Alive, dead.Seq = true, dead.Seq+1 // a new life for the next round, at the same generation for short
		_, err = f.a.PutNode(ctx, dead.Node, dead.Version)
		f.ok(err)
	}
	// A node that has begun a new generation gives back itself.
	f.held(20, "n2")
	n, err = f.a.Node(ctx, "n2")
	f.ok(err)
	n.Generation, n.Seq = 2, n.Seq+1
	_, err = f.a.PutNode(ctx, n.Node, n.Version)
	f.ok(err)
	_, err = f.a.FreeDead(ctx, "v1", 20, "n2", 1)
	f.refuse(err, fault.Conflict, "generation 2")
}

// Case 6: a renewal between the taker's last look and L4.
func (f *fixture) renewalBeforeDeath() {
	seen, err := f.a.Node(ctx, "n1")
	f.ok(err)
	f.renew("n1")
	f.refuse(f.a.KillNode(ctx, seen, "taker"), fault.Conflict, "renewed")
	if n, err := f.a.Node(ctx, "n1"); err != nil || !n.Alive {
		f.Errorf("node %+v, %v", n, err)
	}
	// And the other way round: the renewal comes second and fails.
	seen, err = f.a.Node(ctx, "n1")
	f.ok(err)
	f.ok(f.a.KillNode(ctx, seen, "taker"))
	late := seen.Node
	late.Seq++
	_, err = f.a.PutNode(ctx, late, seen.Version)
	f.refuse(err, fault.Conflict, "taker")
}

// Case 18: overrides are bound to what was shown, and of two at once one counts.
func (f *fixture) override() {
	f.create()
	f.held(1, "n1")
	n, err := f.a.Node(ctx, "n1")
	f.ok(err)
	o := lease.OverrideArgs{VolumeUID: "v1", Epoch: 1, Node: "n1", Generation: 1, NodeVersion: n.Version}
	f.renew("n1")
	_, err = f.a.Override(ctx, o)
	f.refuse(err, fault.Conflict, "renews")
	for _, wrong := range []lease.OverrideArgs{{VolumeUID: "v1", Epoch: 1, Node: "n2", Generation: 1, Renewing: true},
		{VolumeUID: "v1", Epoch: 1, Node: "n1", Generation: 2, Renewing: true}, {VolumeUID: "v1", Epoch: 2, Node: "n1", Generation: 1, Renewing: true}} {
		_, err = f.a.Override(ctx, wrong)
		f.refuse(err, fault.Conflict)
	}
	o.Renewing, o.By, o.Why = true, "ann", "the machine burnt"
	for range 2 {
		c, err := f.a.Override(ctx, o)
		f.ok(err)
		if c.State != lease.Free || c.FreedBy != "L7" || c.Word == nil || c.Word.By != "ann" || c.Word.Why != "the machine burnt" || c.Word.Epoch != 1 || c.Word.Node != "n1" || !c.Word.Renewing {
			f.Errorf("overridden claim %+v", c)
		}
	}
	f.held(2, "n2")
	_, err = f.a.Override(ctx, o) // the second operator's word, too late, is about an epoch that is over
	f.ok(err)
	f.stands(lease.Held, 2, "n2")
}

// Case 18: a word on a whole node is bound to the generation and version that were shown; a node that goes on finds its lease gone.
func (f *fixture) condemn() {
	f.create()
	f.held(1, "n1")
	shown, err := f.a.Node(ctx, "n1")
	f.ok(err)
	f.renew("n1")
	f.refuse(f.a.Condemn(ctx, "n1", shown.Generation, shown.Version, false, "ann"), fault.Conflict, "renewed")
	f.refuse(f.a.Condemn(ctx, "n1", shown.Generation+1, shown.Version, true, "ann"), fault.Conflict, "generation")
	f.refuse(f.a.Condemn(ctx, "nobody", 1, 1, true, "ann"), fault.NotFound)
	before, err := f.a.Node(ctx, "n1")
	f.ok(err)
	for range 2 {
		f.ok(f.a.Condemn(ctx, "n1", shown.Generation, shown.Version, true, "ann"))
	}
	late := before.Node
	late.Seq++
	_, err = f.a.PutNode(ctx, late, before.Version)
	f.refuse(err, fault.Conflict, "ann")
	f.stands(lease.Held, 1, "n1") // the claim is another word
}

// Case 18: a name that was removed and made again has a new uid, and nothing old touches it.
func (f *fixture) again() {
	f.create()
	_, err := f.a.Create(ctx, "v2", ref, policy, false)
	f.refuse(err, fault.Exists, "v1")
	_, err = f.a.Create(ctx, "v1", volume.Ref{Driver: "pool", Name: "x"}, policy, false)
	f.refuse(err, fault.Conflict)
	_, err = f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	_, err = f.a.Tombstone(ctx, "v1")
	f.refuse(err, fault.Conflict, "granted to")
	_, err = f.a.Cancel(ctx, "v1", 1, "nonce-1")
	f.ok(err)
	_, err = f.a.Tombstone(ctx, "v1")
	f.ok(err)
	_, err = f.a.Create(ctx, "v1", ref, policy, false) // a uid is used once
	f.refuse(err, fault.Conflict, "removed")
	_, err = f.a.Create(ctx, "v2", ref, policy, false)
	f.ok(err)
	_, err = f.a.Tombstone(ctx, "v1") // late and doubled: the name is v2's now
	f.ok(err)
	if c, err := f.a.ClaimByRef(ctx, ref); err != nil || c.VolumeUID != "v2" {
		f.Errorf("by name: %+v, %v", c, err)
	}
	_, err = f.a.Hold(ctx, hold(1, "n1"))
	f.refuse(err, fault.Conflict, "removed")
	_, _, err = f.a.SelfClaim(ctx, self("n1", "v1", "s"))
	f.ok(err) // v2's claim, whatever uid the caller would have used
	if c, err := f.a.Claim(ctx, "v2"); err != nil || c.State != lease.Held || c.Epoch != 1 {
		f.Errorf("claim %+v, %v", c, err)
	}
	if c, err := f.a.Claim(ctx, "v1"); err != nil || !c.Tombstone || c.Epoch != 1 {
		f.Errorf("tombstone %+v, %v", c, err)
	}
}

func (f *fixture) shared() {
	_, err := f.a.Create(ctx, "v1", ref, policy, true)
	f.ok(err)
	_, err = f.a.Grant(ctx, grant(1, "n1"))
	f.refuse(err, fault.Conflict, "shared")
	c, created, err := f.a.SelfClaim(ctx, self("n1", "v9", "s"))
	if err != nil || created || !c.Shared || c.State != lease.Free {
		f.Errorf("%+v %v %v", c, created, err)
	}
}

// Case 17: nothing is granted, held, renewed or freed on an authority that is sealed or not the one it was.
func (f *fixture) root() {
	f.create()
	_, err := f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
	first, err := f.a.Root(ctx)
	f.ok(err)
	if again, err := lease.New(f.r, lease.Options{}).Init(ctx, "cluster"); err != nil || again != first {
		f.Errorf("Init again: %+v, %v", again, err)
	}
	_, err = lease.New(f.r, lease.Options{}).Init(ctx, "other")
	f.refuse(err, fault.Conflict, "cluster")
	_, err = lease.New(f.r, lease.Options{Cluster: "other"}).Grant(ctx, grant(2, "n1"))
	f.refuse(err, fault.Conflict, "cluster")
	f.node("n3")
	nothing := func(a *lease.Authority, cause error) {
		f.Helper()
		n, err := f.a.Node(ctx, "n1")
		f.ok(err)
		n.Seq++
		_, renewal := a.PutNode(ctx, n.Node, n.Version)
		_, held := a.Hold(ctx, hold(1, "n1"))
		_, cancelled := a.Cancel(ctx, "v1", 1, "nonce-1")
		_, created := a.Create(ctx, "v5", volume.Ref{Driver: "pool", Name: "five"}, policy, false)
		for _, err := range []error{renewal, held, cancelled, created, a.KillNode(ctx, n, "x")} {
			f.refuse(err, fault.Conflict)
			if !errors.Is(err, cause) {
				f.Errorf("error %v, want %v in it", err, cause)
			}
		}
		f.stands(lease.Granted, 1, "n1")
	}
	f.setRoot(func(r *lease.Root) { r.Sealed = true })
	nothing(f.a, lease.ErrSealed)
	f.setRoot(func(r *lease.Root) { r.Sealed = false })
	f.renew("n1")
	f.setRoot(func(r *lease.Root) { r.Generation++ })
	nothing(f.a, lease.ErrRootChanged)
	f.setRoot(func(r *lease.Root) { r.Generation, r.UUID = first.Generation, "restored" })
	nothing(f.a, lease.ErrRootChanged)
}

func (f *fixture) setRoot(change func(*lease.Root)) {
	f.Helper()
	e, err := f.r.Get(ctx, "root")
	f.ok(err)
	var r lease.Root
	f.ok(json.Unmarshal(e.Value, &r))
	change(&r)
	raw, err := json.Marshal(r)
	f.ok(err)
	_, err = f.r.Txn(ctx, lease.Op{Kind: lease.OpPut, Key: "root", Expect: e.Version, Value: raw})
	f.ok(err)
}

// A record of a newer version or with rubbish in it is fatal for that record only, and named.
func (f *fixture) records() {
	f.create()
	_, err := f.a.Create(ctx, "v2", volume.Ref{Driver: "pool", Name: "two"}, policy, false)
	f.ok(err)
	entries, err := f.r.List(ctx, lease.PrefixClaims)
	f.ok(err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Key, "/v2") {
			continue
		}
		for _, rubbish := range []string{`{"v":2,"volume":"v2","state":"free"}`, `{`, `{"v":1,"volume":"v1","state":"free"}`, `{"v":1,"volume":"v2","state":"lent"}`, `null`} {
			now, err := f.r.Get(ctx, e.Key)
			f.ok(err)
			must(f.T, f.r, put(e.Key, now.Version, rubbish))
			all, err := f.a.Claims(ctx)
			if len(all) != 1 || all[0].VolumeUID != "v1" {
				f.Errorf("claims beside %s: %+v", rubbish, all)
			}
			bad, fatal := lease.OnlyBadRecords(err)
			if bad == nil || fatal != nil || !strings.Contains(bad.Error(), e.Key) {
				f.Errorf("%s: %v, %v", rubbish, bad, fatal)
			}
			args := grant(1, "n1")
			args.VolumeUID = "v2"
			_, err = f.a.Grant(ctx, args)
			f.refuse(err, fault.Internal, e.Key)
		}
	}
	_, err = f.a.Grant(ctx, grant(1, "n1"))
	f.ok(err)
}

func (f *fixture) requests() {
	r := lease.Request{Op: "op1", Kind: lease.RequestCreate, VolumeUID: "v1", Ref: ref, SizeBytes: 5}
	for range 2 {
		got, err := f.a.PutRequest(ctx, "n1", r)
		f.ok(err)
		if got.State != lease.RequestPending || got.SizeBytes != 5 {
			f.Errorf("request %+v", got)
		}
	}
	other := r
	other.Kind = lease.RequestRemove
	_, err := f.a.PutRequest(ctx, "n1", other)
	f.refuse(err, fault.Conflict)
	list, err := f.a.Requests(ctx, "n1")
	if err != nil || len(list) != 1 {
		f.Fatalf("%v, %v", list, err)
	}
	if l, err := f.a.Requests(ctx, "n"); err != nil || len(l) != 0 {
		f.Errorf("requests of a node whose uid is a prefix: %v, %v", l, err)
	}
	err = f.a.FinishRequest(ctx, "n1", list[0], "", fault.New(fault.Unknown, "who knows"))
	wantClass(f.T, err, fault.Invalid)
	for range 2 {
		f.ok(f.a.FinishRequest(ctx, "n1", list[0], "created", nil))
	}
	if got, err := f.a.PutRequest(ctx, "n1", r); err != nil || got.State != lease.RequestDone || got.Outcome != "created" || got.Done == nil {
		f.Errorf("finished request %+v, %v", got, err)
	}
	r.Op = "op2"
	second, err := f.a.PutRequest(ctx, "n1", r)
	f.ok(err)
	f.ok(f.a.FinishRequest(ctx, "n1", second, "", fault.New(fault.Conflict, "no room")))
	if all, err := f.a.AllRequests(ctx); err != nil || len(all["n1"]) != 2 || all["n1"][1].Class != "conflict" || all["n1"][1].State != lease.RequestFailed {
		f.Errorf("%+v, %v", all, err)
	}
	for range 2 {
		f.ok(f.a.DeleteRequest(ctx, "n1", "op1"))
	}
	wantClass(f.T, f.a.FinishRequest(ctx, "n1", list[0], "created", nil), fault.NotFound)
	wantClass(f.T, f.a.DeleteRequest(ctx, "../n1", "op1"), fault.Invalid)
}

// Every transition, with each kind of loss at each of its writes, ends as if nothing had been lost, and is done once.
func (f *fixture) lost() {
	n := 0
	for _, kind := range []Mishap{LostCall, LostReply, LateCall} {
		left := 0
		a := lease.New(&Faulty{Registers: f.r, Mishap: func(write bool, _ []lease.Op) Mishap {
			if write && left > 0 {
				left--
				return kind
			}
			return None
		}}, lease.Options{})
		for _, losses := range []int{1, 2} {
			n++
			uid, nonce, name := fmt.Sprintf("lost-%d", n), fmt.Sprintf("n-%d", n), volume.Ref{Driver: "pool", Name: fmt.Sprintf("lost-%d", n)}
			step := func(what string, err error) {
				f.Helper()
				if err != nil {
					f.Errorf("%s with mishap %d, %d times: %v", what, kind, losses, err)
				}
				left = losses
			}
			step("nothing", nil)
			_, err := a.Create(ctx, uid, name, policy, false)
			step("create", err)
			_, err = a.Grant(ctx, lease.GrantArgs{VolumeUID: uid, Epoch: 1, Node: "n1", Nonce: nonce, Policy: policy})
			step("grant", err)
			_, err = a.Hold(ctx, lease.HoldArgs{VolumeUID: uid, Epoch: 1, Nonce: nonce, Node: "n1", Generation: 1})
			step("hold", err)
			_, err = a.Rekey(ctx, lease.RekeyArgs{VolumeUID: uid, Epoch: 1, OldNonce: nonce, Nonce: nonce + "b", Node: "n1", Generation: 1})
			step("re-key", err)
			_, err = a.Revoke(ctx, uid, 2)
			step("revoke", err)
			_, err = a.Release(ctx, uid, 2, "n1", 1, nonce+"b")
			step("release", err)
			c, _, err := a.SelfClaim(ctx, lease.SelfClaimArgs{Ref: name, Nonce: nonce + "c", Node: "n2", Generation: 1})
			step("self claim", err)
			if c.Epoch != 3 {
				f.Errorf("mishap %d: epoch %d, want 3", kind, c.Epoch)
			}
			_, err = a.Release(ctx, uid, 3, "n2", 1, nonce+"c")
			step("release", err)
			_, err = a.Tombstone(ctx, uid)
			step("tombstone", err)
			c, created, err := a.SelfClaim(ctx, lease.SelfClaimArgs{Ref: name, NewUID: uid + "-new", Nonce: nonce + "d", Node: "n2", Generation: 1})
			step("self claim that creates", err)
			if !created || c.Epoch != 1 {
				f.Errorf("mishap %d: created %v epoch %d", kind, created, c.Epoch)
			}
			node, err := f.a.Node(ctx, "n1")
			f.ok(err)
			node.Seq++
			node.RenewedAt = time.Now()
			_, err = a.PutNode(ctx, node.Node, node.Version)
			step("renewal", err)
			left = 0
			if now, err := f.a.Node(ctx, "n1"); err != nil || now.Seq != node.Seq {
				f.Errorf("mishap %d: seq %d, want %d, %v", kind, now.Seq, node.Seq, err)
			}
		}
	}
}

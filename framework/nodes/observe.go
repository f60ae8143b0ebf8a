package nodes

import (
	"context"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// view is what was read last, to report changes only. It is observe's own.
type view struct {
	claims map[string]uint64 // volume uid -> version reported
	nodes  []*state.Node     // as reported
	whole  bool              // everything was reported since the authority was last lost
	lost   bool              // AuthorityLost was reported
	fails  int
}

// answers is what was reported of requests, and what is needed to report them. Workers use it, too.
type answers struct {
	mu       sync.Mutex
	reported map[string]string // op -> what was reported of it
	scopes   map[string]string // "node driver" -> scope
}

func newAnswers() *answers {
	return &answers{reported: map[string]string{}, scopes: map[string]string{}}
}

func (v *answers) forget(op string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.reported, op)
}

// report tells whether this is news of op, and notes it.
func (v *answers) report(op, what string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.reported[op] == what {
		return false
	}
	v.reported[op] = what
	return true
}

func (v *answers) scope(node, driver string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.scopes[node+" "+driver]
}

// gap is the least time between two readings: a burst of changes is one reading.
const gap = 20 * time.Millisecond

// observe reads claims, nodes and requests each period, and soon after one of them has changed, and reports what is new.
func (n *Nodes) observe(ctx context.Context) {
	claims, nodes, requests := n.a.Watch(ctx, lease.PrefixClaims), n.a.Watch(ctx, lease.PrefixNodes), n.a.Watch(ctx, lease.PrefixRequests)
	for ctx.Err() == nil {
		if err := n.look(ctx); err != nil && ctx.Err() == nil {
			n.unreadable(err)
		}
		n.wait(ctx, gap)
		period, stop := n.c.Clock.After(n.c.Timings.P - gap)
		select {
		case <-claims:
		case <-nodes:
		case <-requests:
		case <-period:
		case <-ctx.Done():
		}
		stop()
	}
}

func (n *Nodes) wait(ctx context.Context, d time.Duration) {
	done, stop := n.c.Clock.After(d)
	defer stop()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// unreadable reports AuthorityLost at the second failure in a row.
func (n *Nodes) unreadable(err error) {
	n.view.fails++
	if n.view.fails < 2 || n.view.lost {
		return
	}
	n.view.lost, n.view.whole = true, false
	n.log.Warn("the lease authority cannot be read", zap.Error(err))
	n.out.add(scheduler.AuthorityLost{Reason: err.Error()})
}

// look reads everything. Nodes come before claims: whoever sees a claim held by a node also knows the node.
func (n *Nodes) look(ctx context.Context) error {
	nodes, err := n.a.Nodes(ctx)
	if err = n.onlyBad(err); err != nil {
		return err
	}
	claims, err := n.a.Claims(ctx)
	if err = n.onlyBad(err); err != nil {
		return err
	}
	requests, err := n.a.AllRequests(ctx)
	if err = n.onlyBad(err); err != nil {
		return err
	}
	n.seeNodes(nodes)
	n.seeClaims(claims)
	n.view.whole, n.view.lost, n.view.fails = true, false, 0
	return n.seeRequests(ctx, nodes, requests)
}

// onlyBad lets a reading go on without the records that cannot be read.
func (n *Nodes) onlyBad(err error) error {
	bad, err := lease.OnlyBadRecords(err)
	if bad != nil {
		n.log.Error("records that cannot be read", zap.Error(bad))
	}
	return err
}

func (n *Nodes) seeNodes(nodes []lease.NodeVersion) {
	waits := map[string]lease.NodeWait{}
	for _, w := range n.taker.Waits() {
		waits[w.UID] = w
	}
	seen := make([]*state.Node, 0, len(nodes))
	n.answers.mu.Lock()
	for _, nv := range nodes {
		for _, d := range nv.Drivers {
			n.answers.scopes[nv.UID+" "+d.Name] = d.Scope
		}
	}
	n.answers.mu.Unlock()
	for _, nv := range nodes {
		if nv.RetiredAt != nil {
			continue
		}
		node := nodeOf(nv)
		if w, ok := waits[nv.UID]; ok && nv.Alive {
			node.Kept = w.Blocked
			if w.Seq == nv.Seq {
				n.suspect(node, w)
			}
		}
		seen = append(seen, node)
	}
	sort.Slice(seen, func(i, j int) bool { return seen[i].UID < seen[j].UID })
	if n.view.whole && reflect.DeepEqual(seen, n.view.nodes) {
		return
	}
	n.view.nodes = seen
	n.out.add(scheduler.NodesSeen{Nodes: seen})
}

// suspect notes that a lease has not moved for longer than a renewal may take.
func (n *Nodes) suspect(node *state.Node, w lease.NodeWait) {
	now := n.c.Clock.Now()
	if still := now - w.Since; still > 2*(n.c.Timings.P+n.c.Timings.R) {
		wall := n.c.Now()
		node.SuspectSince = wall.Add(-still).Round(100 * time.Millisecond)
		if w.Blocked == "" {
			node.FreeBy = wall.Add(w.Due - now).Round(100 * time.Millisecond)
		}
		for _, before := range n.view.nodes { // the same suspicion keeps its times, which rounding may not
			if before.UID == node.UID && before.Generation == node.Generation && !before.SuspectSince.IsZero() {
				node.SuspectSince, node.FreeBy = before.SuspectSince, before.FreeBy
			}
		}
	}
}

func (n *Nodes) seeClaims(claims []lease.ClaimVersion) {
	event := scheduler.ClaimsSeen{All: !n.view.whole}
	seen := make(map[string]uint64, len(claims))
	for _, c := range claims {
		seen[c.VolumeUID] = c.Version
		if event.All || n.view.claims[c.VolumeUID] != c.Version {
			event.Claims = append(event.Claims, claimOf(c))
		}
	}
	n.view.claims = seen
	if event.All || len(event.Claims) > 0 {
		n.out.add(event)
	}
}

// seeRequests reports each outcome once, and for a pending request of a node that is dead or unknown that it is gone.
func (n *Nodes) seeRequests(ctx context.Context, nodes []lease.NodeVersion, requests map[string][]lease.RequestVersion) error {
	alive := map[string]bool{}
	for _, nv := range nodes {
		alive[nv.UID] = nv.Alive
	}
	for node, list := range requests {
		for _, rv := range list {
			switch {
			case rv.State != lease.RequestPending:
				if !n.answers.report(rv.Op, string(rv.State)) {
					continue
				}
				if err := n.finished(ctx, node, rv); err != nil {
					n.answers.forget(rv.Op)
					return err
				}
			case alive[node] && len(rv.Progress) > 0 && n.answers.report(rv.Op, "progress "+string(rv.Progress)):
				n.out.add(scheduler.OperationProgress{Op: rv.Op, Progress: rv.Progress})
			case !alive[node] && n.answers.report(rv.Op, "gone"):
				n.out.add(scheduler.RequestResult{Op: rv.Op, Volume: state.VolumeUID(rv.VolumeUID), Node: state.NodeUID(node),
					Gone: true, Error: "the node died before it answered"})
			}
		}
	}
	n.answers.prune(requests)
	return nil
}

// prune forgets what was reported of requests that are no longer there.
func (v *answers) prune(requests map[string][]lease.RequestVersion) {
	there := map[string]bool{}
	for _, list := range requests {
		for _, rv := range list {
			there[rv.Op] = true
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for op := range v.reported {
		if !there[op] {
			delete(v.reported, op)
		}
	}
}

func nodeOf(nv lease.NodeVersion) *state.Node {
	n := &state.Node{UID: state.NodeUID(nv.UID), Generation: nv.Generation, BootID: nv.BootID, Alive: nv.Alive, Hostname: nv.Hostname,
		Agent: state.AgentID(nv.AgentID), AgentHostname: nv.AgentHostname, Zone: nv.Zone, Region: nv.Region, Grade: string(nv.Grade),
		Draining: nv.Draining, Version: nv.Node.Version, Drivers: map[string]state.Driver{}, Repositories: nv.Repositories, Full: fullness(nv.Full)}
	if nv.DeadAt != nil {
		n.DeadAt = *nv.DeadAt
	}
	for _, d := range nv.Drivers {
		n.Drivers[d.Name] = state.Driver{Name: d.Name, Scope: d.Scope, Exclusive: d.Exclusive, MultiAttach: d.MultiAttach,
			AttachLimit: d.AttachLimit, Snapshots: d.Snapshots, Clones: d.Clones, Grows: d.Grows, Ready: d.Ready, Because: strings.TrimSpace(d.NotReadyBecause)}
	}
	return n
}

func claimOf(c lease.ClaimVersion) *state.Claim {
	out := &state.Claim{Volume: state.VolumeUID(c.VolumeUID), Ref: c.Ref, State: string(c.State), Epoch: c.Epoch, Nonce: c.Nonce,
		Agent: state.AgentID(c.Agent), Node: state.NodeUID(c.Node), NodeGeneration: c.NodeGeneration, Policy: c.Policy.Mode,
		MinGrade: string(c.Policy.MinGrade), Fence: string(c.Fence), Revoke: c.Revoke, Owner: c.Owner, Since: c.Since,
		Tombstone: c.Tombstone, FreedBy: c.FreedBy}
	if c.Word != nil {
		out.WordBy, out.WordWhy, out.WordAt = c.Word.By, c.Word.Why, c.Word.At
	}
	return out
}

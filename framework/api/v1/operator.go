package v1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/api/show"
	"github.com/holdfast-io/holdfast/framework/nodes"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

func (s *api) showRelease(w http.ResponseWriter, r *http.Request) {
	h, err := s.holdingOfVolume(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, h)
}

func (s *api) showFence(w http.ResponseWriter, r *http.Request) {
	h, err := s.holdingOfNode(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.JSON(w, r, http.StatusOK, h)
}

func (s *api) release(w http.ResponseWriter, r *http.Request) {
	s.speak(w, r, s.holdingOfVolume, false)
}
func (s *api) fence(w http.ResponseWriter, r *http.Request) { s.speak(w, r, s.holdingOfNode, true) }

// speak acts on a word that is about what is there now. What it was shown is checked again by the transactions themselves.
func (s *api) speak(w http.ResponseWriter, r *http.Request, look func(*http.Request) (*client.Holding, error), whole bool) {
	ctx, cancel := desk.Limited(r)
	defer cancel()
	var said client.Word
	if err := readSaid(w, r, &said); err != nil {
		s.Fail(w, r, err)
		return
	}
	now, err := look(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	if err := about(now, said, whole); err != nil {
		s.Fail(w, r, err)
		return
	}
	word := nodes.Word{Node: state.NodeUID(said.Node), Generation: said.Generation, Version: said.Version, Whole: whole, Renewing: said.Renewing, By: said.By, Why: said.Why}
	for _, c := range said.Claims {
		word.Claims = append(word.Claims, nodes.Shown{Volume: state.VolumeUID(c.Volume), Epoch: volume.Epoch(c.Epoch), Generation: c.Generation})
	}
	freed, err := s.Operator.Speak(ctx, word)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	out := make([]client.Freed, 0, len(freed))
	for _, f := range freed {
		one := client.Freed{Volume: string(f.Volume), Epoch: uint64(f.Epoch)}
		if f.Err != nil {
			one.Error = f.Err.Error()
		}
		out = append(out, one)
	}
	s.JSON(w, r, http.StatusOK, map[string]any{"freed": out})
}

// readSaid reads a word; a field that is not one of a word's is refused, because it may be a flag that somebody relied on.
func readSaid(w http.ResponseWriter, r *http.Request, into *client.Word) error {
	raw, err := io.ReadAll(r.Body)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "read the request's body")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fault.Wrap(fault.Invalid, err, "the body is no operator's word")
	}
	return nil
}

// about refuses a word that is not about what is there: another node or generation, a claim that was not shown, or a node that renews its lease without
// the operator's insisting.
func about(now *client.Holding, said client.Word, whole bool) error {
	switch {
	case said.Node != now.Node || said.Generation != now.Generation:
		return fault.New(fault.Conflict, "the word is about node %s generation %d, and what stands there now is node %s generation %d: look again", said.Node, said.Generation, now.Node, now.Generation)
	case now.Renewing && !said.Renewing:
		return fault.New(fault.Conflict, "node %s renews its lease: it is there, and may be writing. Move or stop the instance instead; to go on all the same, the word must say that it knows (renewing)", now.Hostname)
	case !whole && len(said.Claims) != 1:
		return fault.New(fault.Invalid, "claims: exactly the one that was shown is needed")
	}
	for _, c := range said.Claims {
		known := false
		for _, k := range now.Claims {
			known = known || k.Volume == c.Volume && k.Epoch == c.Epoch && k.Generation == c.Generation
		}
		if !known {
			return fault.New(fault.Conflict, "claim %s at epoch %d is not held by node %s any more: look again", c.Volume, c.Epoch, now.Hostname)
		}
	}
	return nil
}

// holdingOfVolume is about the one claim that a request names by uid, driver/name or name.
func (s *api) holdingOfVolume(r *http.Request) (*client.Holding, error) {
	var claim *state.Claim
	var err error
	s.Core.View(func(st *state.State) { claim, err = findClaim(st, mux.Vars(r)["volume"]) })
	if err != nil {
		return nil, err
	}
	if claim.State != state.ClaimHeld {
		return nil, fault.New(fault.Conflict, "the claim of volume %s is %s: nobody holds it, and no word is needed", claim.Ref, claim.State)
	}
	h, err := s.holding(r, claim.Node)
	if err != nil {
		return nil, err
	}
	for _, c := range h.Claims {
		if c.Volume == string(claim.Volume) {
			h.Claims = []client.HoldingClaim{c}
			h.Risks = risks(h, false)
			return h, nil
		}
	}
	return nil, fault.New(fault.Conflict, "the claim of volume %s is not held any more", claim.Ref)
}

func (s *api) teardown(w http.ResponseWriter, r *http.Request) {
	b, err := readWord(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.command(w, r, scheduler.Teardown{By: b.By, Force: desk.Yes(r, "force", false)})
}

func (s *api) startOver(w http.ResponseWriter, r *http.Request) {
	b, err := readWord(r)
	if err != nil {
		s.Fail(w, r, err)
		return
	}
	s.command(w, r, scheduler.StartOver{By: b.By})
}

func (s *api) failovers(w http.ResponseWriter, r *http.Request) {
	list(s, w, r, "failovers", func(st *state.State) []client.Failover { return show.Failovers(st, appParam(r), s.Now()) })
}

func (s *api) claim(w http.ResponseWriter, r *http.Request) {
	one(s, w, r, func(st *state.State) (client.Claim, error) {
		c, err := findClaim(st, mux.Vars(r)["volume"])
		if err != nil {
			return client.Claim{}, err
		}
		return show.Claim(st, c), nil
	})
}

// findClaim finds the claim of a volume that may be known to nodes only.
func findClaim(st *state.State, id string) (*state.Claim, error) {
	var found *state.Claim
	for _, c := range st.Claims {
		switch {
		case c.Tombstone:
		case string(c.Volume) == id || c.Ref.String() == id:
			return c, nil
		case c.Ref.Name == id && found != nil:
			return nil, fault.New(fault.Conflict, "volume name %s is ambiguous: %s and %s have it", id, found.Ref, c.Ref)
		case c.Ref.Name == id:
			found = c
		}
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "volume %s has no claim", id)
	}
	return found, nil
}

// holdingOfNode is about all that a node holds.
func (s *api) holdingOfNode(r *http.Request) (*client.Holding, error) {
	name := mux.Vars(r)["node"]
	var uid state.NodeUID
	var err error
	s.Core.View(func(st *state.State) { uid, err = findNode(st, name) })
	if err != nil {
		return nil, err
	}
	h, err := s.holding(r, uid)
	if err != nil {
		return nil, err
	}
	h.Risks = risks(h, true)
	return h, nil
}

// findNode finds a node by its uid, or by a host name that one node alone has: machines get the names of others.
func findNode(st *state.State, name string) (state.NodeUID, error) {
	if st.Nodes[state.NodeUID(name)] != nil {
		return state.NodeUID(name), nil
	}
	var found []string
	for uid, n := range st.Nodes {
		if n.AgentHostname == name || n.Hostname == name || string(n.Agent) == name {
			found = append(found, string(uid))
		}
	}
	switch len(found) {
	case 0:
		// A node whose record is gone may still be named in claims.
		for _, c := range st.Claims {
			if string(c.Node) == name {
				return c.Node, nil
			}
		}
		return "", fault.New(fault.NotFound, "node %s does not exist", name)
	case 1:
		return state.NodeUID(found[0]), nil
	}
	return "", fault.New(fault.Conflict, "%d nodes are called %s: name one by its uid (%s)", len(found), name, strings.Join(found, ", "))
}

func (s *api) holding(r *http.Request, node state.NodeUID) (*client.Holding, error) {
	if s.Operator == nil {
		return nil, fault.New(fault.Unavailable, "this framework has no lease authority that an operator's word could be given to")
	}
	ctx, cancel := desk.Limited(r)
	defer cancel()
	h, err := s.Operator.Holding(ctx, node)
	if err != nil {
		return nil, err
	}
	out := &client.Holding{Node: string(node), Hostname: h.Hostname, Generation: h.Generation, Version: h.Version, Alive: h.Alive, Grade: h.Grade,
		RenewedAt: h.RenewedAt, DeadAt: h.DeadAt, DeadBy: h.DeadBy, Claims: []client.HoldingClaim{}}
	s.Core.View(func(st *state.State) {
		n := st.Nodes[node]
		// Without a taker's look at it (this is a standby, or it has just begun) a living lease counts as renewed.
		out.Renewing = h.Alive && (n == nil || n.SuspectSince.IsZero())
		if n != nil {
			out.FreeBy = n.FreeBy
		}
	})
	for _, c := range h.Claims {
		out.Claims = append(out.Claims, client.HoldingClaim{Volume: string(c.Volume), Driver: c.Ref.Driver, Name: c.Ref.Name, Epoch: uint64(c.Epoch), Generation: c.NodeGeneration,
			Policy: c.Policy, Owner: c.Owner, Since: c.Since})
	}
	return out, nil
}

// risks says what an operator should know before giving the word.
func risks(h *client.Holding, whole bool) []string {
	out := []string{fmt.Sprintf("You state that nothing on %s can write to %s any more: the machine is off, was rebooted since, or is cut off from the storage for good. If that is not so, two machines will write, and the data will be damaged.",
		h.Hostname, strings.Join(names(h), ", "))}
	switch {
	case h.Renewing:
		out = append(out, "THE NODE RENEWS ITS LEASE: it is there, and its isolator answers. Moving or stopping the instance hands the volume over without any risk.")
	case h.Alive && !h.FreeBy.IsZero():
		out = append(out, fmt.Sprintf("The lease stands still and runs out by itself at %s at the latest. Claims with policy lease are free then without your word.", h.FreeBy.UTC().Format("15:04:05")))
	case h.Alive:
		out = append(out, "The lease stands still, and never runs out by itself (holdfast explain says why).")
	case !h.DeadAt.IsZero():
		out = append(out, fmt.Sprintf("The lease ran out at %s. What is still held has a policy, or a grade of fence (%s), that the lease alone does not free.", h.DeadAt.UTC().Format(time.RFC3339), h.Grade))
	}
	if whole && h.Alive {
		out = append(out, "The node's lease ends with your word: should it come back, its isolator stops what uses volumes and starts over.")
	}
	return out
}

func names(h *client.Holding) []string {
	out := make([]string, 0, len(h.Claims))
	for i, c := range h.Claims {
		if i == 8 {
			return append(out, fmt.Sprintf("and %d more", len(h.Claims)-i))
		}
		out = append(out, c.Driver+"/"+c.Name)
	}
	if len(out) == 0 {
		return []string{"any volume"}
	}
	return out
}

package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Holding is what an operator's word would be bound to (GET /v1/claims/{volume}/release, GET /v1/nodes/{node}/fence), as the lease authority has it now.
type Holding struct {
	Node       string `json:"node"`
	Hostname   string `json:"hostname,omitempty"`
	Generation uint64 `json:"generation"`
	Version    uint64 `json:"version"` // of the node's lease record
	// Renewing says that the node is there and renews its lease.
	Renewing  bool      `json:"renewing"`
	Alive     bool      `json:"alive"`
	Grade     string    `json:"grade,omitempty"`
	RenewedAt time.Time `json:"renewedAt,omitzero"`
	DeadAt    time.Time `json:"deadAt,omitzero"`
	DeadBy    string    `json:"deadBy,omitempty"`
	// FreeBy is when the lease runs out by itself at the latest, where that is known.
	FreeBy time.Time      `json:"freeBy,omitzero"`
	Claims []HoldingClaim `json:"claims"`
	// Risks are for the operator to read before the word is given.
	Risks []string `json:"risks"`
}

// HoldingClaim is one claim of a Holding.
type HoldingClaim struct {
	Volume     string    `json:"volume"` // uid
	Driver     string    `json:"driver"`
	Name       string    `json:"name"`
	Epoch      uint64    `json:"epoch"`
	Generation uint64    `json:"generation"`
	Policy     string    `json:"policy,omitempty"`
	Owner      string    `json:"owner,omitempty"`
	Since      time.Time `json:"since,omitzero"`
}

// Word is an operator's word: that what a node holds cannot be written by it any more. Node, generation, version and claims are those of the Holding
// that the operator was shown.
type Word struct {
	Node       string         `json:"node"`
	Generation uint64         `json:"generation"`
	Version    uint64         `json:"version"`
	Claims     []HoldingClaim `json:"claims"`
	// Renewing insists although the node renews its lease.
	Renewing bool   `json:"renewing,omitempty"`
	By       string `json:"by"`
	Why      string `json:"why"`
}

// Freed is what became of one claim of a Word; Error is "" when it is free.
type Freed struct {
	Volume string `json:"volume"`
	Epoch  uint64 `json:"epoch"`
	Error  string `json:"error,omitempty"`
}

// Release shows what freeing the claim of a volume (uid, driver/name, or name) would be bound to. Conflict when nobody holds it.
func (c *Client) Release(ctx context.Context, volume string) (*Holding, error) {
	out := &Holding{}
	return out, c.get(ctx, "/v1/claims/"+url.PathEscape(volume)+"/release", out)
}

// Fence shows what declaring a node (uid, or its host name where only one has it) gone would be bound to.
func (c *Client) Fence(ctx context.Context, node string) (*Holding, error) {
	out := &Holding{}
	return out, c.get(ctx, "/v1/nodes/"+url.PathEscape(node)+"/fence", out)
}

// SpeakRelease frees the claim of a volume on an operator's word.
func (c *Client) SpeakRelease(ctx context.Context, volume string, w Word) ([]Freed, error) {
	return c.speak(ctx, "/v1/claims/"+url.PathEscape(volume)+"/release", w)
}

// SpeakFence ends a node's lease and frees the claims of the word.
func (c *Client) SpeakFence(ctx context.Context, node string, w Word) ([]Freed, error) {
	return c.speak(ctx, "/v1/nodes/"+url.PathEscape(node)+"/fence", w)
}

func (c *Client) speak(ctx context.Context, path string, w Word) ([]Freed, error) {
	body, err := json.Marshal(w)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encode")
	}
	var out struct{ Freed []Freed }
	return out.Freed, c.post(ctx, http.MethodPost, path, body, &out)
}

// post sends a command whose answer is a document of its own. Unknown when the answer was lost.
func (c *Client) post(ctx context.Context, method, path string, body []byte, into any) error {
	resp, err := c.send(ctx, c.http, method, path, body, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "read the answer to %s %s", method, path)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fault.Wrap(fault.Internal, err, "decode the answer to %s %s", method, path)
	}
	return nil
}

// Teardown ends the framework at the master, for good. Conflict while there is something that the end would take down or leave behind, unless force.
func (c *Client) Teardown(ctx context.Context, by string, force bool) (*Result, error) {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return c.order(ctx, "/v1/teardown", q, by)
}

// StartOver registers a framework that the master has ended as a new one. Conflict while the old one may live.
func (c *Client) StartOver(ctx context.Context, by string) (*Result, error) {
	return c.order(ctx, "/v1/start-over", nil, by)
}

func (c *Client) order(ctx context.Context, path string, q url.Values, by string) (*Result, error) {
	body, err := json.Marshal(map[string]string{"by": by})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "encode")
	}
	return c.command(ctx, http.MethodPost, path, q, body)
}

package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Peers are the instances of an app as they find each other: GET /v1/apps/{id}/peers.
type Peers struct {
	App string `json:"app"`
	// Index changes when anything else here does; it means nothing by itself.
	Index string `json:"index"`
	// Primary is the app's primary; nil when there is none now, or the app asked for none. Term is that of the last one that was named; it
	// only grows.
	Primary *PrimaryPeer `json:"primary,omitempty"`
	Term    uint64       `json:"term,omitempty"`
	// Retiring is the run that was the primary and may still take itself for it: no other is named before it has ended or given it up.
	Retiring *PrimaryPeer `json:"retiring,omitempty"`
	// Why says what the primary waits for.
	Why   string `json:"why,omitempty"`
	Peers []Peer `json:"peers"`
}

// PrimaryPeer is a run that is, or was, the primary.
type PrimaryPeer struct {
	Instance string `json:"instance"`
	Ordinal  int    `json:"ordinal"`
	Task     string `json:"task"`
	Term     uint64 `json:"term"`
}

// Peer is one instance.
type Peer struct {
	Ordinal  int    `json:"ordinal"`
	Instance string `json:"instance"`
	State    string `json:"state"` // its phase
	Task     string `json:"task,omitempty"`
	// Host and Address are those of the run while it may be reached; Address is the container's where it has one of its own.
	Host    string     `json:"host,omitempty"`
	Address string     `json:"address,omitempty"`
	Ports   []PeerPort `json:"ports,omitempty"`
	// Healthy: it runs, and is as healthy and ready as its app's checks want.
	Healthy bool `json:"healthy"`
	Primary bool `json:"primary"`
}

// PeerPort is one port.
type PeerPort struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Port     int    `json:"port"`
}

// Peers gives the instances of an app. With an index it waits until they are not those of the index any more, or the time is over.
func (c *Client) Peers(ctx context.Context, id, index string, wait time.Duration) (*Peers, error) {
	q := url.Values{}
	if index != "" {
		q.Set("index", index)
		q.Set("wait", strconv.Itoa(int(wait/time.Second)))
	}
	path := "/v1/apps/" + escapeID(id) + "/peers"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	out := new(Peers)
	return out, c.get(ctx, path, out)
}

// YieldPrimary says that a run has stopped being its app's primary.
func (c *Client) YieldPrimary(ctx context.Context, id, task string, term uint64) (*Result, error) {
	q := url.Values{"task": {task}, "term": {strconv.FormatUint(term, 10)}}
	return c.command(ctx, http.MethodPost, "/v1/apps/"+escapeID(id)+"/primary/yield", q, nil)
}

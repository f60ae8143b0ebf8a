// Package client talks to the isolator of this node: JSON over HTTP/1.1 on a unix socket. dvdcli is built on it, so it imports
// nothing heavy.
//
// # Wire
//
// Every call is a POST with a JSON body (GET for status, version, health and capabilities), answered by 200 and JSON,
// or by the status of the error's class and {"message": …, "code": <class of internal/fault>}. Bodies are at most 1 MiB.
//
//	POST /v1/mount      MountRequest   -> {"path": "/…"}
//	POST /v1/unmount    UnmountRequest -> {"outcome": "unmounted" | "not-mounted" | "kept" | "retrying"}
//	POST /v1/create     CreateRequest  -> Volume
//	POST /v1/remove     VolumeRequest  -> {}
//	POST /v1/get        VolumeRequest  -> Volume
//	POST /v1/path       VolumeRequest  -> {"path": "/…" or ""}
//	POST /v1/list       {"driver": …}  -> {"volumes": [Volume…]}
//	POST /v1/<kind>     OperationRequest -> Operation, for each kind of operation (snapshot, clone, resize, …; see Op…); it is answered at its
//	                                     end, or with ?wait=SECONDS after that time at the latest, and goes on without its caller
//	GET  /v1/operations                -> {"operations": [Operation…]}, newest first
//	GET  /v1/operations/<id>?wait=S    -> Operation
//	DELETE /v1/operations/<id>         -> {}; it is cancelled
//	GET  /v1/status                    -> Status
//	GET  /v1/capabilities              -> {"drivers": [Capability…]}
//	GET  /v1/version                   -> {"version": …}
//	GET  /v1/health                    -> {"ready": …, "problems": […]}; 503 when not ready
//
// Who calls is taken from the socket (pid, uid, gid), never from the body. An operation goes on when its caller goes away; the
// same call again joins it.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// DefaultSocket is where the isolator listens unless told otherwise; SocketVariable names the
// environment variable that says otherwise.
const (
	DefaultSocket  = "/run/holdfast/isolator.sock"
	SocketVariable = "HOLDFAST_ISOLATOR"
)

// MaxBody is the largest request and the largest answer in bytes, but for lists and status (64 MiB).
const (
	MaxBody   = 1 << 20
	maxAnswer = 64 << 20
)

// Socket gives the path of the isolator's socket and whether the environment named it.
func Socket() (path string, named bool) {
	if p := os.Getenv(SocketVariable); p != "" {
		return p, true
	}
	return DefaultSocket, false
}

// MountRequest asks for a mount.
type MountRequest struct {
	Driver  string            `json:"driver"`
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"` // ours (holdfast.*) among them
	// Owner is who will unmount: "mesos" (the default) is one owner, however often it mounts.
	Owner string `json:"owner,omitempty"`
	// ExplicitCreate refuses to create the volume, as dvdcli's flag says.
	ExplicitCreate bool `json:"explicitCreate,omitempty"`
}

// UnmountRequest ends an owner's use.
type UnmountRequest struct {
	Driver string `json:"driver"`
	Name   string `json:"name"`
	Owner  string `json:"owner,omitempty"`
}

// CreateRequest asks for a new volume.
type CreateRequest struct {
	Driver  string            `json:"driver"`
	Name    string            `json:"name"`
	Options map[string]string `json:"options,omitempty"`
}

// VolumeRequest names a volume.
type VolumeRequest struct {
	Driver string `json:"driver"`
	Name   string `json:"name,omitempty"`
}

// RemoveRequest asks for a volume to be deleted; with Now past its driver's bin.
type RemoveRequest struct {
	VolumeRequest
	Now bool `json:"now,omitempty"`
}

// Volume is what the node knows of a volume.
type Volume struct {
	Driver    string    `json:"driver"`
	Name      string    `json:"name"`
	UID       string    `json:"uid,omitempty"`
	Path      string    `json:"path,omitempty"`
	SizeBytes int64     `json:"sizeBytes,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	// Topology says where it can be reached, in the storage's own terms; Complaint what the storage says of one that it calls ill.
	Topology  []map[string]string `json:"topology,omitempty"`
	Complaint string              `json:"complaint,omitempty"`
}

// Status is the whole node.
type Status struct {
	Node       string   `json:"node"`
	Hostname   string   `json:"hostname"`
	BootID     string   `json:"bootId"`
	AgentID    string   `json:"agentId,omitempty"`
	Version    string   `json:"version"`
	PID        int      `json:"pid"`
	Ready      bool     `json:"ready"`
	Generation uint64   `json:"generation"`
	Lease      string   `json:"lease"` // "held for another 2.8s", or why not
	Draining   bool     `json:"draining,omitempty"`
	Problems   []string `json:"problems,omitempty"`
	// Volumes are those that are mounted, on their way in or out, or failing.
	Volumes []VolumeStatus `json:"volumes"`
	Known   int            `json:"known"` // volumes this node has ever seen and that are not mounted
	Stuck   int64          `json:"stuckCalls,omitempty"`
	// Dir is where the isolator keeps its state and its mount points, AgentURL the agent that it asks, Timings its lease's constants in words.
	Dir      string `json:"dir,omitempty"`
	AgentURL string `json:"agentUrl,omitempty"`
	Timings  string `json:"timings,omitempty"`
	// Grade is the node's fence grade now, DeadMan the device that was asked for.
	Grade   string   `json:"grade,omitempty"`
	DeadMan *DeadMan `json:"deadMan,omitempty"`
}

// DeadMan is the device that resets the machine when nobody feeds it.
type DeadMan struct {
	Path           string  `json:"path"`
	Armed          bool    `json:"armed"`
	TimeoutSeconds float64 `json:"timeoutSeconds,omitempty"`
	Because        string  `json:"because,omitempty"` // why it is not armed
}

// VolumeStatus is one volume on this node now.
type VolumeStatus struct {
	Driver  string    `json:"driver"`
	Name    string    `json:"name"`
	UID     string    `json:"uid,omitempty"`
	Phase   string    `json:"phase"`
	Epoch   uint64    `json:"epoch,omitempty"`
	Path    string    `json:"path,omitempty"`
	Task    string    `json:"task,omitempty"`
	Owners  []string  `json:"owners,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Shared  bool      `json:"shared,omitempty"`
	Fence   string    `json:"fence,omitempty"`   // the fence grade in its claim: with none it waits for an operator's word when this node is lost
	Retry   int       `json:"retry,omitempty"`   // attempts that failed
	Next    time.Time `json:"nextTry,omitzero"`  // when it is tried again
	Because string    `json:"because,omitempty"` // the last failure
	Doing   []string  `json:"doing,omitempty"`   // operations under way
	Usage   *Usage    `json:"usage,omitempty"`   // when last looked at, every half minute
	Level   string    `json:"level,omitempty"`   // nearly-full (85 %), full (95 %)
}

// Capability is what a driver of this node can do.
type Capability struct {
	Driver         string `json:"driver"`
	Scope          string `json:"scope,omitempty"`
	FlushOnUnmount bool   `json:"flushOnUnmount"`
	SelfAttach     bool   `json:"selfAttach"`
	Exclusive      bool   `json:"exclusive"`
	MultiAttach    bool   `json:"multiAttach"`
	AttachLimit    int    `json:"attachLimit,omitempty"`
	Verify         string `json:"verify,omitempty"`
	Snapshots      bool   `json:"snapshots,omitempty"`
	Clones         bool   `json:"clones,omitempty"`
	Grows          string `json:"grows,omitempty"` // online, offline
	Encrypts       bool   `json:"encrypts,omitempty"`
	Ready          bool   `json:"ready"`
	Because        string `json:"because,omitempty"`
}

// Health says whether the isolator takes mounts.
type Health struct {
	Ready    bool     `json:"ready"`
	Problems []string `json:"problems,omitempty"`
}

// Client calls one isolator. It may be used concurrently.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the isolator at a socket. Nothing is connected yet.
func New(socket string) *Client {
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 4,
	}}}
}

// ErrNotRunning is in the chain of errors of calls that reached no isolator. Nothing was done.
var ErrNotRunning = errors.New("no isolator answers")

// IsBroken tells that the connection broke before the answer was there (the isolator was killed or restarted): what was asked may or
// may not have been done.
func IsBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Mount gives the path at which the volume is mounted.
func (c *Client) Mount(ctx context.Context, r MountRequest) (string, error) {
	var a struct{ Path string }
	err := c.call(ctx, http.MethodPost, "/v1/mount", r, &a)
	return a.Path, err
}

// Unmount ends the owner's use; outcome is one of the words of the wire.
func (c *Client) Unmount(ctx context.Context, r UnmountRequest) (outcome string, err error) {
	var a struct{ Outcome string }
	err = c.call(ctx, http.MethodPost, "/v1/unmount", r, &a)
	return a.Outcome, err
}

// Create makes a volume; Exists when there is one.
func (c *Client) Create(ctx context.Context, r CreateRequest) (Volume, error) {
	var v Volume
	err := c.call(ctx, http.MethodPost, "/v1/create", r, &v)
	return v, err
}

// Remove deletes a volume. Where its driver has a bin it can come back for a while.
func (c *Client) Remove(ctx context.Context, r VolumeRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/remove", RemoveRequest{VolumeRequest: r}, nil)
}

// RemoveNow deletes a volume for good.
func (c *Client) RemoveNow(ctx context.Context, r VolumeRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/remove", RemoveRequest{VolumeRequest: r, Now: true}, nil)
}

// Get looks a volume up.
func (c *Client) Get(ctx context.Context, r VolumeRequest) (Volume, error) {
	var v Volume
	err := c.call(ctx, http.MethodPost, "/v1/get", r, &v)
	return v, err
}

// Path gives where a volume is mounted here, "" when it is not.
func (c *Client) Path(ctx context.Context, r VolumeRequest) (string, error) {
	var a struct{ Path string }
	err := c.call(ctx, http.MethodPost, "/v1/path", r, &a)
	return a.Path, err
}

// List gives a driver's volumes, sorted by name.
func (c *Client) List(ctx context.Context, driver string) ([]Volume, error) {
	var a struct{ Volumes []Volume }
	err := c.call(ctx, http.MethodPost, "/v1/list", VolumeRequest{Driver: driver}, &a)
	return a.Volumes, err
}

// Status gives the whole node.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Capabilities gives the facts of all drivers.
func (c *Client) Capabilities(ctx context.Context) ([]Capability, error) {
	var a struct{ Drivers []Capability }
	err := c.call(ctx, http.MethodGet, "/v1/capabilities", nil, &a)
	return a.Drivers, err
}

// Version gives the isolator's version.
func (c *Client) Version(ctx context.Context) (string, error) {
	var a struct{ Version string }
	err := c.call(ctx, http.MethodGet, "/v1/version", nil, &a)
	return a.Version, err
}

// Health says whether mounts are taken. A node that is not ready is no error.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.call(ctx, http.MethodGet, "/v1/health", nil, &h)
	return h, err
}

func (c *Client) call(ctx context.Context, verb, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fault.Wrap(fault.Internal, err, "encode %s", path)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, verb, "http://isolator"+path, body)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "call %s", path)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.sendError(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "isolator %s: reading the answer", c.socket)
	}
	return decode(resp.StatusCode, raw, out)
}

func (c *Client) sendError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fault.Wrap(fault.Unavailable, errors.Join(ErrNotRunning, op.Err), "isolator %s", c.socket)
	}
	return fault.Wrap(fault.Unknown, err, "isolator %s", c.socket)
}

func decode(status int, raw []byte, out any) error {
	if len(raw) > maxAnswer {
		return fault.New(fault.Unknown, "the isolator's answer is larger than %d bytes", maxAnswer)
	}
	if h, ok := out.(*Health); ok && (status == http.StatusServiceUnavailable || status == http.StatusOK) {
		return fault.Wrap(fault.Unknown, json.Unmarshal(raw, h), "the isolator's answer")
	}
	if status != http.StatusOK {
		var e struct {
			Message string
			Code    fault.Class
		}
		if json.Unmarshal(raw, &e) != nil || e.Code == "" {
			return fault.New(fault.FromHTTPStatus(status), "the isolator answered status %d", status)
		}
		return fault.New(e.Code, "%s", e.Message)
	}
	if out == nil {
		return nil
	}
	return fault.Wrap(fault.Unknown, json.Unmarshal(raw, out), "the isolator's answer")
}

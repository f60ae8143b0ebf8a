package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Client talks to one framework. It is safe for concurrent use.
type Client struct {
	who  *url.Userinfo // nil: nobody
	base string
	http *http.Client
	// stream has no overall time limit: logs and events last as long as their context.
	stream *http.Client
}

// maxAnswer bounds what is read of one answer.
const maxAnswer = 64 << 20

// New returns a client of the framework at baseURL, e.g. "http://127.0.0.1:8080". A host and port alone are taken as http.
func New(baseURL string) *Client {
	return NewWith(baseURL, nil)
}

// NewWith is New with how to speak https, nil for the system's way. User and password in the URL are sent with every request, and shown in no error.
func NewWith(baseURL string, access *tls.Config) *Client {
	if !strings.Contains(baseURL, "://") {
		baseURL = "http://" + baseURL
	}
	var who *url.Userinfo
	if u, err := url.Parse(baseURL); err == nil && u.User != nil {
		who, u.User = u.User, nil
		baseURL = u.String()
	}
	tr := &http.Transport{
		TLSClientConfig:       access,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ResponseHeaderTimeout: 60 * time.Second,
		MaxIdleConnsPerHost:   4,
	}
	return &Client{
		base:   strings.TrimRight(baseURL, "/"),
		who:    who,
		http:   &http.Client{Transport: tr, Timeout: 90 * time.Second},
		stream: &http.Client{Transport: tr},
	}
}

// Authenticate sends a user and a password with every request from now on. It is to be called before the first.
func (c *Client) Authenticate(user, password string) { c.who = url.UserPassword(user, password) }

// PutOptions say how PutApp writes.
type PutOptions struct {
	// CreateOnly refuses (fault.Exists) an app that is there.
	CreateOnly bool
	// Partial: the fields given replace those of the app, the others stay. Otherwise the body is the whole app.
	Partial bool
	// Force replaces a deployment that is in the way.
	Force bool
	// Dry only says what would be done: Result.Steps and Changes.
	Dry bool
}

// RemoveOptions say how Remove works.
type RemoveOptions struct {
	Force bool
	// Wipe deletes the app's volumes and their data too, once its instances have stopped.
	Wipe bool
}

// Apps lists the apps, sorted by id.
func (c *Client) Apps(ctx context.Context) ([]App, error) {
	var out struct {
		Apps []App `json:"apps"`
	}
	return out.Apps, c.get(ctx, "/v1/apps", &out)
}

// App gives one app's summary.
func (c *Client) App(ctx context.Context, id string) (*App, error) {
	out := new(App)
	return out, c.get(ctx, "/v1/apps/"+escapeID(id), out)
}

// AppDefinition gives the app object of /v2, as Marathon prints it.
func (c *Client) AppDefinition(ctx context.Context, id string) (json.RawMessage, error) {
	var out struct {
		App json.RawMessage `json:"app"`
	}
	return out.App, c.get(ctx, "/v2/apps/"+escapeID(id), &out)
}

// PutApp creates or updates an app from its Marathon JSON, which must have an id. fault.Invalid carries the paths that are wrong (fault.DetailsOf).
func (c *Client) PutApp(ctx context.Context, app json.RawMessage, o PutOptions) (*Result, error) {
	q := dryQuery(o.Force, o.Dry)
	if o.CreateOnly {
		return c.command(ctx, http.MethodPost, "/v2/apps", q, app)
	}
	// The id is looked at here only to find the path; when it cannot be had, POST gives the server's error for this body.
	var head struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(app, &head); err != nil || strings.Trim(head.ID, "/") == "" {
		return c.command(ctx, http.MethodPost, "/v2/apps", q, app)
	}
	q.Set("partialUpdate", strconv.FormatBool(o.Partial))
	return c.command(ctx, http.MethodPut, "/v2/apps/"+escapeID(head.ID), q, app)
}

// Scale sets the number of instances.
func (c *Client) Scale(ctx context.Context, id string, instances int, force bool) (*Result, error) {
	body, err := json.Marshal(map[string]int{"instances": instances})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "scale app %s", id)
	}
	// PATCH, not PUT: a misspelt id must not be taken for a new app.
	return c.command(ctx, http.MethodPatch, "/v2/apps/"+escapeID(id), forceQuery(force), body)
}

// Restart restarts every instance of an app under its upgrade strategy.
func (c *Client) Restart(ctx context.Context, id string, force bool) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v2/apps/"+escapeID(id)+"/restart", forceQuery(force), nil)
}

// Remove stops every instance of an app and then removes it. Volumes stay unless Wipe.
func (c *Client) Remove(ctx context.Context, id string, o RemoveOptions) (*Result, error) {
	q := forceQuery(o.Force)
	q.Set("force", strconv.FormatBool(o.Force))
	if o.Wipe {
		q.Set("wipe", "true")
	}
	return c.command(ctx, http.MethodDelete, "/v2/apps/"+escapeID(id), q, nil)
}

// Instances lists instances; app "" means those of all apps.
func (c *Client) Instances(ctx context.Context, app string) ([]Instance, error) {
	var out struct {
		Instances []Instance `json:"instances"`
	}
	path := "/v1/instances"
	if app != "" {
		path += "?" + url.Values{"app": {app}}.Encode()
	}
	return out.Instances, c.get(ctx, path, &out)
}

// Instance gives one instance.
func (c *Client) Instance(ctx context.Context, id string) (*Instance, error) {
	out := new(Instance)
	return out, c.get(ctx, "/v1/instances/"+url.PathEscape(id), out)
}

// RestartInstance kills the current run; the next keeps number and volumes.
func (c *Client) RestartInstance(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v1/instances/"+url.PathEscape(id)+"/restart", nil, nil)
}

// MoveInstance is RestartInstance that avoids the agent it is on.
func (c *Client) MoveInstance(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodPost, "/v1/instances/"+url.PathEscape(id)+"/move", nil, nil)
}

// Volumes lists volumes; app "" means those of all apps.
func (c *Client) Volumes(ctx context.Context, app string) ([]Volume, error) {
	var out struct {
		Volumes []Volume `json:"volumes"`
	}
	path := "/v1/volumes"
	if app != "" {
		path += "?" + url.Values{"app": {app}}.Encode()
	}
	return out.Volumes, c.get(ctx, path, &out)
}

// Volume gives one volume by uid, by driver/name, or by a name that only one driver has.
func (c *Client) Volume(ctx context.Context, id string) (*Volume, error) {
	out := new(Volume)
	return out, c.get(ctx, "/v1/volumes/"+url.PathEscape(id), out)
}

// RemoveVolume deletes a volume and its data. fault.Conflict while an instance that wants to run uses it.
func (c *Client) RemoveVolume(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodDelete, "/v1/volumes/"+url.PathEscape(id), nil, nil)
}

// RemoveVolumeNow is RemoveVolume past the bin of the volume's driver.
func (c *Client) RemoveVolumeNow(ctx context.Context, id string) (*Result, error) {
	return c.command(ctx, http.MethodDelete, "/v1/volumes/"+url.PathEscape(id), url.Values{"now": {"true"}}, nil)
}

// AdoptVolume makes a volume that storage has already, and that is never created if it has not, an instance's. fault.Conflict while it is used.
func (c *Client) AdoptVolume(ctx context.Context, driver, name, app string, instance int, shared bool) (*Result, error) {
	body, err := json.Marshal(map[string]any{"driver": driver, "name": name, "app": app, "instance": instance, "shared": shared})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "adopt volume %s/%s", driver, name)
	}
	return c.command(ctx, http.MethodPost, "/v1/volumes", nil, body)
}

// CheckApp asks what PutApp of a whole app would do, and does nothing. Warnings are those that it would give.
func (c *Client) CheckApp(ctx context.Context, id string, app json.RawMessage) (*Result, error) {
	return c.command(ctx, http.MethodPut, "/v2/apps/"+escapeID(id), url.Values{"dryRun": {"true"}, "partialUpdate": {"false"}, "force": {"true"}}, app)
}

// Classes lists the classes of volumes, sorted by name.
func (c *Client) Classes(ctx context.Context) ([]Class, error) {
	var out struct {
		Classes []Class `json:"classes"`
	}
	return out.Classes, c.get(ctx, "/v1/classes", &out)
}

// Class gives one class of volumes.
func (c *Client) Class(ctx context.Context, name string) (*Class, error) {
	out := new(Class)
	return out, c.get(ctx, "/v1/classes/"+url.PathEscape(name), out)
}

// PutClass makes or replaces a class of volumes.
func (c *Client) PutClass(ctx context.Context, name string, class json.RawMessage) (*Result, error) {
	return c.command(ctx, http.MethodPut, "/v1/classes/"+url.PathEscape(name), nil, class)
}

// RemoveClass removes a class of volumes. fault.Conflict while an app names it.
func (c *Client) RemoveClass(ctx context.Context, name string) (*Result, error) {
	return c.command(ctx, http.MethodDelete, "/v1/classes/"+url.PathEscape(name), nil, nil)
}

// Nodes lists nodes, and agents without an isolator.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var out struct {
		Nodes []Node `json:"nodes"`
	}
	return out.Nodes, c.get(ctx, "/v1/nodes", &out)
}

// OrderNode says what is wanted of a node, by uid, agent id or host name: verb is cordon, uncordon, drain, decommission or forget.
func (c *Client) OrderNode(ctx context.Context, node, verb, reason, by string) (*Result, error) {
	body, err := json.Marshal(map[string]string{"reason": reason, "by": by})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "%s node %s", verb, node)
	}
	return c.command(ctx, http.MethodPost, "/v1/nodes/"+url.PathEscape(node)+"/"+verb, nil, body)
}

// Node gives one node, by uid, agent id or host name.
func (c *Client) Node(ctx context.Context, id string) (*Node, error) {
	out := new(Node)
	return out, c.get(ctx, "/v1/nodes/"+url.PathEscape(id), out)
}

// Hold says whether anything may be started, moved or killed.
func (c *Client) Hold(ctx context.Context) (*Hold, error) {
	out := new(Hold)
	return out, c.get(ctx, "/v1/hold", out)
}

// Freeze stops everything from being started, moved or killed; for 0 lasts until Thaw.
func (c *Client) Freeze(ctx context.Context, reason, by string, lasts time.Duration) (*Result, error) {
	body, err := json.Marshal(map[string]string{"reason": reason, "by": by, "for": lasts.String()})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "freeze")
	}
	return c.command(ctx, http.MethodPost, "/v1/freeze", nil, body)
}

// Thaw ends a freeze and releases the brake.
func (c *Client) Thaw(ctx context.Context, by string) (*Result, error) {
	body, err := json.Marshal(map[string]string{"by": by})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "thaw")
	}
	return c.command(ctx, http.MethodPost, "/v1/thaw", nil, body)
}

// Claims lists the claims as last seen in the lease authority.
func (c *Client) Claims(ctx context.Context) ([]Claim, error) {
	var out struct {
		Claims []Claim `json:"claims"`
	}
	return out.Claims, c.get(ctx, "/v1/claims", &out)
}

// Claim gives the claim of a volume, by uid, driver/name or name.
func (c *Client) Claim(ctx context.Context, volume string) (*Claim, error) {
	out := &Claim{}
	return out, c.get(ctx, "/v1/claims/"+url.PathEscape(volume), out)
}

// Deployments lists the deployments under way, oldest first.
func (c *Client) Deployments(ctx context.Context) ([]Deployment, error) {
	var out struct {
		Deployments []Deployment `json:"deployments"`
	}
	return out.Deployments, c.get(ctx, "/v1/deployments", &out)
}

// CancelDeployment rolls a deployment back; force abandons it where it is.
func (c *Client) CancelDeployment(ctx context.Context, id string, force bool) (*Result, error) {
	return c.command(ctx, http.MethodDelete, "/v2/deployments/"+url.PathEscape(id), forceQuery(force), nil)
}

// Explain says why an app, instance, volume or node is as it is.
func (c *Client) Explain(ctx context.Context, id string) (*Explanation, error) {
	out := new(Explanation)
	return out, c.get(ctx, "/v1/explain/"+escapeID(id), out)
}

// Info describes the running framework.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	out := new(Info)
	return out, c.get(ctx, "/v1/info", out)
}

// Ping asks whether a framework answers there.
func (c *Client) Ping(ctx context.Context) error {
	resp, err := c.send(ctx, c.http, http.MethodGet, "/ping", nil, "")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// LogOptions say what Logs reads.
type LogOptions struct {
	File   string // "" means stdout
	Follow bool   // stay and give what comes, over relaunches too, until ctx ends
	// Offset is where to begin, in bytes; negative counts from the end.
	Offset int64
}

// Logs reads a file of an instance's sandbox. Close the reader; ctx ends it too.
func (c *Client) Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	q := url.Values{}
	if o.File != "" {
		q.Set("file", o.File)
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Offset != 0 {
		q.Set("offset", strconv.FormatInt(o.Offset, 10))
	}
	resp, err := c.send(ctx, c.stream, http.MethodGet, "/v1/instances/"+url.PathEscape(id)+"/logs?"+q.Encode(), nil, "")
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Events gives changes as they are committed. The channel is closed when ctx ends or the connection does; who wants to go on
// lists anew and calls Events again.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	resp, err := c.send(ctx, c.stream, http.MethodGet, "/v1/events", nil, "text/event-stream")
	if err != nil {
		return nil, err
	}
	out := make(chan Event, 16)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		readEvents(ctx, resp.Body, out)
	}()
	return out, nil
}

func forceQuery(force bool) url.Values {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return q
}

// escapeID writes an app id (slashes and all) into a path: each segment escaped, no leading slash.
func escapeID(id string) string {
	parts := strings.Split(strings.Trim(id, "/"), "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	resp, err := c.send(ctx, c.http, http.MethodGet, path, nil, "application/json")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "read the answer to GET %s", path)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fault.Wrap(fault.Internal, err, "decode the answer to GET %s", path)
	}
	return nil
}

// command sends a write. An error after it may have arrived is fault.Unknown.
func (c *Client) command(ctx context.Context, method, path string, q url.Values, body []byte) (*Result, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	resp, err := c.send(ctx, c.http, method, path, body, "application/json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "read the answer to %s %s", method, path)
	}
	r := &Result{Created: resp.StatusCode == http.StatusCreated, Warnings: warnings(resp.Header)}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := json.Unmarshal(data, r); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "decode the answer to %s %s", method, path)
		}
		if method == http.MethodPost && resp.StatusCode == http.StatusCreated {
			r.App = data
		}
	}
	if d := resp.Header.Get("Marathon-Deployment-Id"); d != "" {
		r.Deployment = d
	}
	return r, nil
}

// send makes one request and turns any answer that is not 2xx into an error with a class.
func (c *Client) send(ctx context.Context, hc *http.Client, method, path string, body []byte, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "request %s %s", method, c.base+path)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	} else {
		req.Body = nil
		req.ContentLength = 0
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if password, ok := c.who.Password(); ok {
		req.SetBasicAuth(c.who.Username(), password)
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fault.Wrap(transportClass(method, err), err, "reach the framework at %s", c.base)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return nil, decodeError(resp.StatusCode, data)
}

// transportClass: a request that was never sent has done nothing; a write that was may have.
func transportClass(method string, err error) fault.Class {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fault.Unavailable
	}
	if method == http.MethodGet && !errors.Is(err, context.Canceled) {
		return fault.Unavailable
	}
	return fault.Unknown
}

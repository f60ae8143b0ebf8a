// Package docker is a driver.Driver over any Docker volume plugin (protocol v1: POST of JSON to
// /Plugin.Activate and /VolumeDriver.*, over a unix socket or TCP). Plugins found in the wild answer 200 with an error inside, 200 with nothing
// inside, 500 for "no such volume", never, or for ever; this client takes an answer for what it proves and for
// no more. Only calls that cannot do harm twice are repeated.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

const (
	acceptType = "application/vnd.docker.plugins.v1.2+json"
	maxReply   = 4 << 20
	maxVolumes = 100_000
)

// Options of a client.
type Options struct {
	Name string // the plugin's name
	Dirs Dirs   // zero: DefaultDirs
	// ReadLimit bounds calls that only look (Get, Path, List, Capabilities, Activate), default 10 s. Calls with an
	// effect are bounded by their context alone.
	ReadLimit time.Duration
	// Patience is how long a plugin is waited for that announces itself and does not answer the door: it is being started again. 0 waits for none.
	Patience time.Duration
	// NoIsolators refuses plugins that are isolators themselves: one that found its own socket would call itself without end.
	NoIsolators bool
}

// Driver is one plugin.
type Driver struct {
	o Options

	mu       sync.Mutex
	client   *http.Client // nil until the plugin was found and activated
	endpoint endpoint
	facts    *driver.Facts
}

var _ driver.Driver = (*Driver)(nil)

// New returns a client. The plugin is looked for when it is first needed, and again whenever it went away.
func New(o Options) (*Driver, error) {
	if err := volume.CheckDriver(o.Name); err != nil {
		return nil, err
	}
	if o.Dirs.Sockets == nil && o.Dirs.Specs == nil {
		o.Dirs = DefaultDirs()
	}
	if o.ReadLimit == 0 {
		o.ReadLimit = 10 * time.Second
	}
	return &Driver{o: o}, nil
}

// Name gives the plugin's name.
func (d *Driver) Name() string { return d.o.Name }

// Facts asks the plugin for its scope. What a plugin does not say is taken for the worse. A plugin without the call is local.
func (d *Driver) Facts(ctx context.Context) (driver.Facts, error) {
	d.mu.Lock()
	known := d.facts
	d.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	f := driver.Facts{Scope: driver.ScopeNode, SelfAttach: true, Verify: driver.VerifyScan, BindsMounts: true}
	var r struct{ Capabilities struct{ Scope string } }
	switch err := d.look(ctx, "VolumeDriver.Capabilities", struct{}{}, &r); {
	case errors.Is(err, errNoSuchCall):
	case err != nil:
		return f, err
	case strings.EqualFold(r.Capabilities.Scope, "global"):
		f.Scope = driver.ScopeCluster
	}
	d.mu.Lock()
	d.facts = &f
	d.mu.Unlock()
	return f, nil
}

type wireVolume struct {
	Name       string
	Mountpoint string
	CreatedAt  string
	Status     json.RawMessage
}

func (d *Driver) info(w wireVolume) driver.Info {
	i := driver.Info{Name: w.Name, Path: d.onHost(w.Mountpoint)}
	if t, err := time.Parse(time.RFC3339, w.CreatedAt); err == nil {
		i.Created = t
	}
	return i
}

// Get asks for the volume. NotFound only where the plugin says in words that there is none, or answers success
// with no volume inside; every other failure is Unknown.
func (d *Driver) Get(ctx context.Context, name string) (driver.Info, error) {
	if err := volume.CheckName(name); err != nil {
		return driver.Info{}, err
	}
	var r struct{ Volume *wireVolume }
	err := d.look(ctx, "VolumeDriver.Get", map[string]string{"Name": name}, &r)
	switch {
	case err != nil:
		return driver.Info{}, fault.Op(err, "get volume %s/%s", d.o.Name, name)
	case r.Volume == nil || r.Volume.Name == "":
		return driver.Info{}, fault.New(fault.NotFound, "volume %s/%s does not exist", d.o.Name, name)
	case r.Volume.Name != name:
		return driver.Info{}, fault.New(fault.Unknown, "get volume %s/%s: the plugin answered about volume %.80q", d.o.Name, name, r.Volume.Name)
	}
	return d.info(*r.Volume), nil
}

// Create asks for a new volume, once. The protocol knows no uid: an existing volume is Exists when the plugin says so, and
// a plugin that makes it twice in silence must be asked by Get first.
func (d *Driver) Create(ctx context.Context, s driver.Spec) (driver.Info, error) {
	if err := volume.CheckName(s.Name); err != nil {
		return driver.Info{}, err
	}
	if s.Owner != "" || s.Mode != "" {
		return driver.Info{}, fault.New(fault.Invalid, "create volume %s/%s: a Docker volume plugin cannot set owner and mode", d.o.Name, s.Name)
	}
	if s.Source != nil {
		return driver.Info{}, fault.New(fault.Invalid, "create volume %s/%s: a Docker volume plugin cannot clone", d.o.Name, s.Name)
	}
	body := struct {
		Name string
		Opts map[string]string
	}{s.Name, s.Options}
	if err := d.act(ctx, "VolumeDriver.Create", body, nil); err != nil {
		return driver.Info{}, fault.Op(err, "create volume %s/%s", d.o.Name, s.Name)
	}
	return driver.Info{Name: s.Name, Size: s.Size}, nil
}

// Remove asks once.
func (d *Driver) Remove(ctx context.Context, name, _ string) error {
	if err := volume.CheckName(name); err != nil {
		return err
	}
	return fault.Op(d.act(ctx, "VolumeDriver.Remove", map[string]string{"Name": name}, nil), "remove volume %s/%s", d.o.Name, name)
}

// Mount asks once. A reply without a mount point is no success: some plugins answer so for volumes that they do not know.
func (d *Driver) Mount(ctx context.Context, m driver.MountSpec) (string, error) {
	if err := volume.CheckName(m.Name); err != nil {
		return "", err
	}
	var r struct{ Mountpoint string }
	err := d.act(ctx, "VolumeDriver.Mount", map[string]string{"Name": m.Name, "ID": m.ID}, &r)
	var said *pluginError
	if errors.As(err, &said) && mountedByIDWords.MatchString(said.text) {
		// Some take the same id twice for a mistake. It is mounted for us all the same.
		err = d.look(ctx, "VolumeDriver.Path", map[string]string{"Name": m.Name}, &r)
	}
	if err == nil && r.Mountpoint == "" {
		err = fault.New(fault.Unknown, "the plugin answered success without a mount point")
	}
	if err != nil {
		return "", fault.Op(err, "mount volume %s/%s", d.o.Name, m.Name)
	}
	return d.onHost(r.Mountpoint), nil
}

// onHost turns a path that the plugin gave into one of this node: one that Docker runs in a container sees other paths.
func (d *Driver) onHost(path string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := d.endpoint.managed; m != nil {
		return m.onHost(path)
	}
	return path
}

// Unmount asks once. A plugin that says that it is not mounted has said what we want.
func (d *Driver) Unmount(ctx context.Context, name, id string) error {
	if err := volume.CheckName(name); err != nil {
		return err
	}
	err := d.act(ctx, "VolumeDriver.Unmount", map[string]string{"Name": name, "ID": id}, nil)
	var said *pluginError
	if errors.As(err, &said) && (said.notMounted() || said.notFound()) {
		return nil
	}
	return fault.Op(err, "unmount volume %s/%s", d.o.Name, name)
}

// Path asks the plugin. Many answer also for what is not mounted.
func (d *Driver) Path(ctx context.Context, name string) (string, error) {
	if err := volume.CheckName(name); err != nil {
		return "", err
	}
	var r struct{ Mountpoint string }
	err := d.look(ctx, "VolumeDriver.Path", map[string]string{"Name": name}, &r)
	return d.onHost(r.Mountpoint), fault.Op(err, "path of volume %s/%s", d.o.Name, name)
}

// List asks for all volumes. Names that no volume may have are left out.
func (d *Driver) List(ctx context.Context) ([]driver.Info, error) {
	var r struct{ Volumes []*wireVolume }
	if err := d.look(ctx, "VolumeDriver.List", struct{}{}, &r); err != nil {
		return nil, fault.Op(err, "list volumes of %s", d.o.Name)
	}
	if len(r.Volumes) > maxVolumes {
		return nil, fault.New(fault.Unknown, "list volumes of %s: more than %d", d.o.Name, maxVolumes)
	}
	out := make([]driver.Info, 0, len(r.Volumes))
	for _, v := range r.Volumes {
		if v != nil && volume.CheckName(v.Name) == nil {
			out = append(out, d.info(*v))
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// look makes a call without effect: bounded, and repeated once on a new connection.
func (d *Driver) look(ctx context.Context, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, d.o.ReadLimit)
	defer cancel()
	err := d.call(ctx, method, in, out)
	if err != nil && ctx.Err() == nil && isConnection(err) {
		err = d.call(ctx, method, in, out)
	}
	return err
}

// act makes a call with an effect. It is sent again only when the first attempt did not reach the plugin.
func (d *Driver) act(ctx context.Context, method string, in, out any) error {
	err := d.call(ctx, method, in, out)
	if err != nil && ctx.Err() == nil && fault.Is(err, fault.Unavailable) && isConnection(err) {
		err = d.call(ctx, method, in, out)
	}
	return err
}

func (d *Driver) call(ctx context.Context, method string, in, out any) error {
	c, err := d.connect(ctx)
	if err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode %s", method)
	}
	err = post(ctx, c, method, body, out)
	if isConnection(err) {
		d.forget(c)
	}
	return err
}

// connect finds the plugin and activates it, once, until the connection breaks.
func (d *Driver) connect(ctx context.Context) (*http.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client != nil {
		return d.client, nil
	}
	e, err := d.o.Dirs.find(ctx, d.o.Name)
	if fault.Is(err, fault.NotFound) { // the driver is not there; that says nothing of the volume
		return nil, fault.Wrap(fault.Unavailable, err, "")
	}
	if err != nil {
		return nil, err
	}
	c := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dial(ctx) },
			// A kept connection that the plugin has closed meanwhile would leave a call with an effect in doubt.
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if e.managed != nil { // Docker knows what it is, and does not ask it either
		d.client, d.endpoint = c, e
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.o.ReadLimit+d.o.Patience)
	defer cancel()
	var r struct {
		Implements []string
		Holdfast   string
	}
	if err := d.activate(ctx, c, &r); err != nil {
		// Activation has no effect on any volume, so whatever was to follow has not begun.
		return nil, fault.Wrap(fault.Unavailable, err, "activate volume plugin %s at %s", d.o.Name, e.source)
	}
	if r.Holdfast != "" && d.o.NoIsolators {
		return nil, fault.New(fault.Unavailable, "volume plugin %s at %s is an isolator, which is no driver", d.o.Name, e.source)
	}
	for _, i := range r.Implements {
		if i == "VolumeDriver" {
			d.client, d.endpoint = c, e
			return c, nil
		}
	}
	return nil, fault.New(fault.Unavailable, "plugin %s at %s is no volume driver: it implements %.200q", d.o.Name, e.source, r.Implements)
}

// activate asks the plugin what it is, again and again while nobody listens at its socket and patience lasts.
func (d *Driver) activate(ctx context.Context, c *http.Client, out any) error {
	begun := time.Now()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		limit, cancel := context.WithTimeout(ctx, d.o.ReadLimit)
		err := post(limit, c, "Plugin.Activate", nil, out)
		cancel()
		if err == nil || !fault.Is(err, fault.Unavailable) || !isConnection(err) || time.Since(begun)+pause > d.o.Patience {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

func (d *Driver) forget(c *http.Client) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == c {
		c.CloseIdleConnections()
		d.client, d.facts = nil, nil
	}
}

// errNoSuchCall says that the plugin does not implement a method.
var errNoSuchCall = errors.New("the plugin does not know this call")

// pluginError is what a plugin said in Err.
type pluginError struct{ text string }

func (e *pluginError) Error() string { return "plugin says: " + e.text }

var (
	notFoundWords    = regexp.MustCompile(`(?i)(no such volume|volume (\S+ )?(was )?(not found|does ?n[o']t exist|not exists?|unknown)|(not found|does ?n[o']t exist|no such) *:? *volume|(could not|cannot|can't|unable to) find (the )?volume|^(volume )?not found\.?$|unknown volume|(?:get|inspect|lookup) \S+: no such volume|couldn't find volume)`)
	mountedByIDWords = regexp.MustCompile(`(?i)already mounted (by|for|with) (this|the same) id`)
	notMountedWords  = regexp.MustCompile(`(?i)(not mounted|no such mount|isn't mounted|not currently mounted)`)
	existsWords      = regexp.MustCompile(`(?i)(already exists|volume exists|name .*(is )?(already )?in use|duplicate)`)
	inUseWords       = regexp.MustCompile(`(?i)(in use|is busy|still mounted|currently mounted|has active mounts)`)
)

func (e *pluginError) notFound() bool   { return notFoundWords.MatchString(e.text) }
func (e *pluginError) notMounted() bool { return notMountedWords.MatchString(e.text) }

// classify turns what a plugin said into a class. Words are all that the protocol has; what they do not settle is Unknown.
func (e *pluginError) classify(method string) fault.Class {
	switch {
	case e.notFound():
		return fault.NotFound
	case method == "VolumeDriver.Create" && existsWords.MatchString(e.text):
		return fault.Exists
	case inUseWords.MatchString(e.text):
		return fault.Conflict
	}
	return fault.Unknown
}

// post sends one call and reads its reply, at most maxReply bytes of it.
func post(ctx context.Context, c *http.Client, method string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+url.PathEscape(method), bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "%s", method)
	}
	req.Header.Set("Accept", acceptType)
	// Without GetBody the transport never sends a request twice by itself.
	req.GetBody = nil
	resp, err := c.Do(req)
	if err != nil {
		return fault.Wrap(sendClass(err), &connectionError{err}, "%s", method)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return fault.Wrap(fault.Unknown, &connectionError{err}, "%s: reading the reply", method)
	}
	if len(raw) > maxReply {
		return fault.New(fault.Unknown, "%s: the reply is larger than %d bytes", method, maxReply)
	}
	return decode(method, resp, raw, out)
}

func decode(method string, resp *http.Response, raw []byte, out any) error {
	var e struct{ Err json.RawMessage }
	perr := json.Unmarshal(raw, &e)
	var text string
	if perr == nil && len(e.Err) > 0 {
		if json.Unmarshal(e.Err, &text) != nil && string(e.Err) != "null" {
			text = string(e.Err) // some send an object
		}
	}
	if text = strings.TrimSpace(text); text != "" {
		said := &pluginError{clean(text)}
		return fault.Wrap(said.classify(method), said, "%s", method)
	}
	if resp.StatusCode == http.StatusNotFound && !isJSON(resp) {
		return fault.Wrap(fault.Unavailable, errNoSuchCall, "%s", method)
	}
	if resp.StatusCode != http.StatusOK {
		said := &pluginError{clean(string(raw))}
		class := fault.Unknown
		if resp.StatusCode != http.StatusBadGateway && perr != nil {
			class = said.classify(method) // plain text of an old plugin
		}
		return fault.Wrap(class, said, "%s: status %d", method, resp.StatusCode)
	}
	if out == nil {
		// `{}`, nothing at all, or `null`: all are met, and all mean done.
		if trimmed := bytes.TrimSpace(raw); perr != nil && len(trimmed) > 0 {
			return fault.Wrap(fault.Unknown, perr, "%s: the reply is not JSON", method)
		}
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fault.Wrap(fault.Unknown, err, "%s: the reply is not what it should be", method)
	}
	return nil
}

// clean makes a plugin's words fit one log line.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	s = strings.Map(func(r rune) rune { // nothing that a terminal would obey
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > 500 {
		s = s[:500] + "…"
	}
	return s
}

func isJSON(resp *http.Response) bool {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// connectionError marks a failure of the transport, after which the plugin is looked for anew.
type connectionError struct{ err error }

func (e *connectionError) Error() string { return e.err.Error() }
func (e *connectionError) Unwrap() error { return e.err }

func isConnection(err error) bool {
	var c *connectionError
	return errors.As(err, &c)
}

// sendClass tells "nobody got it" from "somebody may have". Only a failed dial is the former.
func sendClass(err error) fault.Class {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fault.Unavailable
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return fault.Unavailable
	}
	return fault.Unknown
}

package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// Managed says where the plugins are that Docker itself runs in containers (`docker plugin install`). Each has an id of 64 hex digits; its socket lies at
// <Sockets>/<id>/<its name>.sock, and what it mounts below <data root>/plugins/<id>. Which id has which name only Docker knows: it is asked by its API, and
// where that does not answer (a Docker that is stopped leaves its plugins running if it is told to) its files are read.
type Managed struct {
	Engine  string // unix socket of Docker's API
	Sockets string // directory of the sockets, one directory per plugin
	Root    string // Docker's data root, for when the API does not answer
}

// DefaultManaged is where Docker has them by default.
func DefaultManaged() Managed {
	return Managed{Engine: "/run/docker.sock", Sockets: "/run/docker/plugins", Root: "/var/lib/docker"}
}

var managedID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// managedPlugin is what Docker says of one.
type managedPlugin struct {
	ID      string `json:"Id"`
	Name    string
	Enabled bool
	Config  struct {
		PropagatedMount string
		Interface       struct {
			Socket         string
			ProtocolScheme string
			Types          []json.RawMessage
		}
	}

	root string // Docker's data root
}

const (
	maxEngineReply = 16 << 20
	engineLimit    = 3 * time.Second
	// volumeType is the interface of volume plugins; a version follows it.
	volumeType = "docker.volumedriver/"
)

// find looks a managed plugin up by name, as Docker does: a name without a tag means latest. ok is false when there is none.
func (m Managed) find(ctx context.Context, name string) (p managedPlugin, ok bool, err error) {
	if m.Engine == "" {
		return p, false, nil
	}
	all, err := m.all(ctx)
	if err != nil {
		return p, false, err
	}
	for _, p := range all {
		if p.Name == name || p.Name == name+":latest" && !strings.Contains(path.Base(name), ":") {
			return p, true, nil
		}
	}
	return p, false, nil
}

// running tells whether a managed plugin runs at all, without asking anybody.
func (m Managed) running() bool {
	entries, err := os.ReadDir(m.Sockets)
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && managedID.MatchString(e.Name()) })
}

// all lists the managed plugins, running or not.
func (m Managed) all(ctx context.Context) ([]managedPlugin, error) {
	ctx, cancel := context.WithTimeout(ctx, engineLimit)
	defer cancel()
	all, err := m.ask(ctx)
	if err != nil {
		var ferr error
		if all, ferr = m.read(); ferr != nil {
			return nil, fault.Wrap(fault.Unavailable, errors.Join(err, ferr), "ask Docker for its managed plugins")
		}
	}
	return slices.DeleteFunc(all, func(p managedPlugin) bool { return !managedID.MatchString(p.ID) || !p.servesVolumes() }), nil
}

// ask has Docker's API say what there is.
func (m Managed) ask(ctx context.Context) ([]managedPlugin, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.Engine)
	}}}
	var info struct{ DockerRootDir string }
	if err := get(ctx, c, "/info", &info); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(info.DockerRootDir) || strings.ContainsAny(info.DockerRootDir, "\n\x00") {
		return nil, fault.New(fault.Unavailable, "Docker's data root %.80q is no path", info.DockerRootDir)
	}
	var all []managedPlugin
	if err := get(ctx, c, "/plugins", &all); err != nil {
		return nil, err
	}
	for i := range all {
		all[i].root = info.DockerRootDir
	}
	return all, nil
}

func get(ctx context.Context, c *http.Client, what string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+what, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxEngineReply+1))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fault.New(fault.Unavailable, "GET %s: status %d", what, resp.StatusCode)
	case len(raw) > maxEngineReply:
		return fault.New(fault.Unavailable, "GET %s: the reply is larger than %d bytes", what, maxEngineReply)
	}
	return json.Unmarshal(raw, out)
}

// read takes the same from Docker's files.
func (m Managed) read() ([]managedPlugin, error) {
	dir := filepath.Join(m.Root, "plugins")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // no Docker here
	}
	if err != nil {
		return nil, err
	}
	var all []managedPlugin
	for _, e := range entries {
		if !managedID.MatchString(e.Name()) {
			continue
		}
		raw, err := readSmall(filepath.Join(dir, e.Name(), "config.json"))
		if err != nil {
			return nil, err
		}
		var doc struct {
			Plugin managedPlugin `json:"plugin"`
		}
		if err := json.Unmarshal(raw, &doc); err != nil {
			return nil, err
		}
		doc.Plugin.root = m.Root
		all = append(all, doc.Plugin)
	}
	return all, nil
}

// servesVolumes tells whether it says to be a volume plugin. Docker writes a type as one word, and in its files as an object.
func (p managedPlugin) servesVolumes() bool {
	return slices.ContainsFunc(p.Config.Interface.Types, func(raw json.RawMessage) bool {
		var word string
		if json.Unmarshal(raw, &word) == nil {
			return strings.HasPrefix(strings.ToLower(word), volumeType)
		}
		var o struct{ Prefix, Capability string }
		return json.Unmarshal(raw, &o) == nil && o.Prefix == "docker" && strings.EqualFold(o.Capability, "volumedriver")
	})
}

// endpoint is how a managed plugin is reached.
func (m Managed) endpoint(p managedPlugin) (endpoint, error) {
	socket := p.Config.Interface.Socket
	switch s := p.Config.Interface.ProtocolScheme; {
	case !p.Enabled:
		return endpoint{}, fault.New(fault.Unavailable, "volume plugin %s is disabled: docker plugin enable %s", p.Name, p.Name)
	case s != "" && s != "moby.plugins.http/v1":
		return endpoint{}, fault.New(fault.Unavailable, "volume plugin %s speaks %.80q, which is not moby.plugins.http/v1", p.Name, s)
	case socket == "" || socket != filepath.Base(socket) || socket == ".." || socket == ".":
		return endpoint{}, fault.New(fault.Unavailable, "volume plugin %s has a socket %.80q that is no file name", p.Name, socket)
	}
	at := filepath.Join(m.Sockets, p.ID, socket)
	return endpoint{network: "unix", address: at, source: at, managed: &p}, nil
}

// onHost turns a path that a managed plugin gave, as it sees it, into the one on this node.
func (p managedPlugin) onHost(inside string) string {
	if inside == "" {
		return ""
	}
	inside = filepath.Clean("/" + inside) // nothing leads above the plugin's root
	home := filepath.Join(p.root, "plugins", p.ID)
	if mount := filepath.Clean("/" + p.Config.PropagatedMount); p.Config.PropagatedMount != "" && (inside == mount || strings.HasPrefix(inside, mount+"/")) {
		return filepath.Join(home, "propagated-mount", strings.TrimPrefix(inside, mount))
	}
	return filepath.Join(home, "rootfs", inside)
}

// names lists those that can be used.
func (m Managed) names() (out []string) {
	if m.Engine == "" || !m.running() {
		return nil
	}
	all, err := m.all(context.Background())
	if err != nil {
		return nil
	}
	for _, p := range all {
		if name := strings.TrimSuffix(p.Name, ":latest"); p.Enabled && volume.CheckDriver(name) == nil {
			out = append(out, name)
		}
	}
	return out
}

package docker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// Dirs are where plugins announce themselves. Those that Docker manages come first, then sockets, then specs, as with Docker.
type Dirs struct {
	Managed Managed  // the zero value knows none
	Sockets []string // <name>.sock or <name>/<name>.sock
	Specs   []string // <name>.spec or <name>/<name>.spec, then the same with .json
}

// DefaultDirs are the directories that Docker documents.
func DefaultDirs() Dirs {
	return Dirs{
		Managed: DefaultManaged(),
		Sockets: []string{"/run/docker/plugins"},
		Specs:   []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"},
	}
}

// endpoint is how to reach a plugin.
type endpoint struct {
	network, address string
	tls              *tls.Config
	source           string         // the file that said so
	managed          *managedPlugin // nil for one that Docker does not run
}

// Check says whether a plugin of that name announces itself: NotFound when none does. Nothing is connected.
func (d Dirs) Check(name string) error {
	_, err := d.find(context.Background(), name)
	return err
}

// find looks a plugin up by name. NotFound when nothing announces it.
func (d Dirs) find(ctx context.Context, name string) (endpoint, error) {
	if err := volume.CheckDriver(name); err != nil {
		return endpoint{}, err
	}
	asked := d.Managed.running()
	if asked {
		if e, err := d.findManaged(ctx, name); err == nil || !fault.Is(err, fault.NotFound) {
			return e, err
		}
	}
	if !strings.ContainsAny(name, "/:") {
		if e, err := d.findLegacy(name); err == nil || !fault.Is(err, fault.NotFound) {
			return e, err
		}
	}
	if !asked { // it may be there and not run
		if e, err := d.findManaged(ctx, name); err == nil || !fault.Is(err, fault.NotFound) {
			return e, err
		}
	}
	return endpoint{}, fault.New(fault.NotFound, "volume plugin %s is not installed: no socket in %s, no spec in %s, and Docker manages none of that name", name,
		strings.Join(d.Sockets, ", "), strings.Join(d.Specs, ", "))
}

// findManaged finds one that Docker runs. Where Docker cannot be asked, one that announces itself is not kept from being used.
func (d Dirs) findManaged(ctx context.Context, name string) (endpoint, error) {
	p, ok, err := d.Managed.find(ctx, name)
	switch {
	case err != nil && strings.ContainsAny(name, "/:"):
		return endpoint{}, err
	case err != nil || !ok:
		return endpoint{}, fault.New(fault.NotFound, "Docker manages no volume plugin %s", name)
	}
	return d.Managed.endpoint(p)
}

// findLegacy finds one that announces itself by a file.
func (d Dirs) findLegacy(name string) (endpoint, error) {
	for _, dir := range d.Sockets {
		for _, p := range []string{filepath.Join(dir, name+".sock"), filepath.Join(dir, name, name+".sock")} {
			if fi, err := os.Stat(p); err == nil && fi.Mode()&fs.ModeSocket != 0 {
				return endpoint{network: "unix", address: p, source: p}, nil
			}
		}
	}
	for _, dir := range d.Specs {
		for _, read := range []struct {
			ext   string
			parse func(string, []byte) (endpoint, error)
		}{{".spec", parseSpec}, {".json", parseJSON}} {
			for _, base := range []string{filepath.Join(dir, name), filepath.Join(dir, name, name)} {
				raw, err := readSmall(base + read.ext)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
					continue
				}
				if err != nil {
					return endpoint{}, fault.Wrap(fault.Unavailable, err, "volume plugin %s", name)
				}
				return read.parse(base+read.ext, raw)
			}
		}
	}
	return endpoint{}, fault.New(fault.NotFound, "volume plugin %s announces itself nowhere", name)
}

func parseSpec(file string, raw []byte) (endpoint, error) {
	return parseAddress(file, strings.TrimSpace(string(raw)), nil)
}

// parseJSON reads Docker's plugin JSON: {"Name","Addr","TLSConfig":{"InsecureSkipVerify","CAFile","CertFile","KeyFile"}}. The name is that of the file. As
// with Docker a TLSConfig without CAFile checks nobody's certificate.
func parseJSON(file string, raw []byte) (endpoint, error) {
	var doc struct {
		Addr      string
		TLSConfig *struct {
			InsecureSkipVerify        bool
			CAFile, CertFile, KeyFile string
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return endpoint{}, fault.Wrap(fault.Invalid, err, "plugin file %s", file)
	}
	var conf *tls.Config
	if t := doc.TLSConfig; t != nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify || t.CAFile == ""}
		if t.CAFile != "" {
			pem, err := readSmall(t.CAFile)
			if err != nil {
				return endpoint{}, fault.Wrap(fault.Unavailable, err, "plugin file %s", file)
			}
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return endpoint{}, fault.New(fault.Invalid, "plugin file %s: %s holds no certificate", file, t.CAFile)
			}
		}
		if t.CertFile != "" || t.KeyFile != "" {
			pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return endpoint{}, fault.Wrap(fault.Invalid, err, "plugin file %s", file)
			}
			conf.Certificates = []tls.Certificate{pair}
		}
	}
	return parseAddress(file, doc.Addr, conf)
}

func parseAddress(file, addr string, conf *tls.Config) (endpoint, error) {
	if strings.HasPrefix(addr, "/") {
		return endpoint{network: "unix", address: addr, source: file}, nil
	}
	u, err := url.Parse(addr)
	if err != nil {
		return endpoint{}, fault.Wrap(fault.Invalid, err, "plugin file %s", file)
	}
	switch u.Scheme {
	case "unix":
		if !filepath.IsAbs(u.Path) {
			break
		}
		return endpoint{network: "unix", address: u.Path, source: file}, nil
	case "tcp", "http", "https":
		return parseHost(file, u, conf)
	}
	return endpoint{}, fault.New(fault.Invalid, "plugin file %s: address %q is neither unix:///path nor tcp://host:port", file, addr)
}

func parseHost(file string, u *url.URL, conf *tls.Config) (endpoint, error) {
	port := u.Port()
	switch {
	case u.Hostname() == "" || u.User != nil:
		return endpoint{}, fault.New(fault.Invalid, "plugin file %s: address %q names no host", file, u.Redacted())
	case u.Scheme == "http":
		conf = nil
	case u.Scheme == "https" && conf == nil:
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if conf != nil {
		conf.ServerName = u.Hostname()
	}
	if port == "" {
		if port = "80"; conf != nil {
			port = "443"
		}
	}
	return endpoint{network: "tcp", address: net.JoinHostPort(u.Hostname(), port), tls: conf, source: file}, nil
}

func (e endpoint) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if e.tls != nil {
		return (&tls.Dialer{NetDialer: &d, Config: e.tls}).DialContext(ctx, e.network, e.address)
	}
	return d.DialContext(ctx, e.network, e.address)
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64<<10+1))
	if err == nil && len(raw) > 64<<10 {
		err = fault.New(fault.Invalid, "%s is larger than 64 KiB", name)
	}
	return raw, err
}

// Names lists the plugins that announce themselves, sorted; what cannot be read is left out.
func (d Dirs) Names() []string {
	seen := map[string]bool{}
	for _, dir := range d.Sockets {
		announced(dir, seen, ".sock")
	}
	for _, dir := range d.Specs {
		announced(dir, seen, ".spec", ".json")
	}
	for _, name := range d.Managed.names() {
		seen[name] = true
	}
	var out []string
	for name := range seen {
		if volume.CheckDriver(name) == nil {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}

// announced finds <dir>/<name><ext> and <dir>/<name>/<name><ext>.
func announced(dir string, seen map[string]bool, exts ...string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		for _, ext := range exts {
			if name, ok := strings.CutSuffix(e.Name(), ext); ok && !e.IsDir() {
				seen[name] = true
			} else if e.IsDir() {
				if _, err := os.Stat(filepath.Join(dir, e.Name(), e.Name()+ext)); err == nil {
					seen[e.Name()] = true
				}
			}
		}
	}
}

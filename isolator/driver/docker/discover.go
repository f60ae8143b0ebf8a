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

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// Dirs are where plugins announce themselves. Sockets come first, as with Docker.
type Dirs struct {
	Sockets []string // <name>.sock or <name>/<name>.sock
	Specs   []string // <name>.spec, <name>.json, or the same below <name>/
}

// DefaultDirs are the directories that Docker documents.
func DefaultDirs() Dirs {
	return Dirs{
		Sockets: []string{"/run/docker/plugins"},
		Specs:   []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"},
	}
}

// endpoint is how to reach a plugin.
type endpoint struct {
	network, address string
	tls              *tls.Config
	source           string // the file that said so
}

// Check says whether a plugin of that name announces itself: NotFound when none does. Nothing is connected.
func (d Dirs) Check(name string) error {
	_, err := d.find(name)
	return err
}

// find looks a plugin up by name. NotFound when nothing announces it.
func (d Dirs) find(name string) (endpoint, error) {
	if err := volume.CheckDriver(name); err != nil {
		return endpoint{}, err
	}
	if strings.Contains(name, "/") {
		return endpoint{}, fault.New(fault.NotFound, "volume plugin %s: a plugin's name has no '/'", name)
	}
	for _, dir := range d.Sockets {
		for _, p := range []string{filepath.Join(dir, name+".sock"), filepath.Join(dir, name, name+".sock")} {
			if fi, err := os.Stat(p); err == nil && fi.Mode()&fs.ModeSocket != 0 {
				return endpoint{network: "unix", address: p, source: p}, nil
			}
		}
	}
	for _, dir := range d.Specs {
		for _, base := range []string{filepath.Join(dir, name), filepath.Join(dir, name, name)} {
			for _, read := range []struct {
				ext   string
				parse func(string, []byte) (endpoint, error)
			}{{".spec", parseSpec}, {".json", parseJSON}} {
				raw, err := readSmall(base + read.ext)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return endpoint{}, fault.Wrap(fault.Unavailable, err, "volume plugin %s", name)
				}
				return read.parse(base+read.ext, raw)
			}
		}
	}
	return endpoint{}, fault.New(fault.NotFound, "volume plugin %s is not installed: no socket in %s and no spec in %s", name,
		strings.Join(d.Sockets, ", "), strings.Join(d.Specs, ", "))
}

func parseSpec(file string, raw []byte) (endpoint, error) {
	return parseAddress(file, strings.TrimSpace(string(raw)), nil)
}

// parseJSON reads Docker's plugin JSON: {"Name","Addr","TLSConfig":{"InsecureSkipVerify","CAFile","CertFile","KeyFile"}}.
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
		conf = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify}
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
		if u.Host == "" || u.Port() == "" {
			break
		}
		if conf == nil && u.Scheme == "https" {
			conf = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		if conf != nil && conf.ServerName == "" {
			conf.ServerName = u.Hostname()
		}
		return endpoint{network: "tcp", address: u.Host, tls: conf, source: file}, nil
	}
	return endpoint{}, fault.New(fault.Invalid, "plugin file %s: address %q is neither unix:///path nor tcp://host:port", file, addr)
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

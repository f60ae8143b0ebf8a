// Package consulconn prepares clients of Consul the way Consul's own tools are set up: an address, an ACL token from a file, TLS files, a
// datacenter, a namespace and a partition. What is not given is taken from the CONSUL_… variables that `consul` itself reads
// (CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE, CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME,
// CONSUL_HTTP_SSL_VERIFY, CONSUL_NAMESPACE, CONSUL_PARTITION).
package consulconn

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Config says how to reach Consul. Only Address must be given.
type Config struct {
	// Address is http://host:port, https://host:port, host:port (http) or unix:///path of a socket.
	Address string
	// TokenFile holds the ACL token on its first line. It is read again when it changes, so that a token can be rotated.
	TokenFile string
	// Datacenter "" is that of the agent asked. Namespace and Partition need Consul Enterprise.
	Datacenter, Namespace, Partition string
	// CAFile, CertFile, KeyFile and ServerName are for https.
	CAFile, CertFile, KeyFile, ServerName string
}

// Open checks the configuration, reads its files and makes a client; nothing is sent. The errors are Invalid and say which setting is
// wrong. The client is safe for concurrent use and has no time limit of its own: give each call a context.
func Open(c Config) (*api.Client, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	if c.TokenFile == "" {
		c.TokenFile = os.Getenv(api.HTTPTokenFileEnvName)
	}
	transport := config.Transport
	transport.MaxIdleConnsPerHost = 8
	client, err := api.NewHttpClient(transport, config.TLSConfig)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "TLS files for Consul at %s", c.Address)
	}
	if c.TokenFile != "" {
		t := &tokenFile{path: c.TokenFile, next: client.Transport}
		if _, err := t.token(); err != nil {
			return nil, err
		}
		client.Transport = t
	}
	config.HttpClient = client
	out, err := api.NewClient(config)
	return out, fault.Wrap(fault.Invalid, err, "Consul at %s", c.Address)
}

// config turns the settings into those of Consul's own client.
func (c Config) config() (*api.Config, error) {
	config := api.DefaultConfig()
	config.Datacenter = c.Datacenter
	if c.Namespace != "" {
		config.Namespace = c.Namespace
	}
	if c.Partition != "" {
		config.Partition = c.Partition
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&config.TLSConfig.CAFile, c.CAFile}, {&config.TLSConfig.CertFile, c.CertFile}, {&config.TLSConfig.KeyFile, c.KeyFile}, {&config.TLSConfig.Address, c.ServerName}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if (config.TLSConfig.CertFile == "") != (config.TLSConfig.KeyFile == "") {
		return nil, fault.New(fault.Invalid, "Consul at %s: a client certificate and its key go together", c.Address)
	}
	return config, c.address(config)
}

func (c Config) address(config *api.Config) error {
	if path, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return fault.New(fault.Invalid, "Consul address %q: a socket is unix:///path", c.Address)
		}
		config.Address, config.Scheme = "localhost", "http" // of the Host header
		config.Transport.DialContext = dialSocket(path)
		return nil
	}
	full := c.Address
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return fault.New(fault.Invalid, "Consul address %q: it must be http://host:port, https://host:port or unix:///path", c.Address)
	case u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		return fault.New(fault.Invalid, "Consul address %s: only scheme, host and port belong there; a token comes from a file", u.Redacted())
	}
	config.Scheme, config.Address = u.Scheme, u.Host
	if u.Port() == "" {
		port := "8500"
		if u.Scheme == "https" {
			port = "8501"
		}
		config.Address = net.JoinHostPort(u.Hostname(), port)
	}
	return nil
}

// tokenFile puts the token of a file on each request.
type tokenFile struct {
	path string
	next http.RoundTripper

	mu    sync.Mutex
	value string
	size  int64
	time  time.Time
}

// RoundTrip implements http.RoundTripper.
func (t *tokenFile) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := t.token()
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Header.Set("X-Consul-Token", token)
	return t.next.RoundTrip(r)
}

// token gives the file's first line, read anew when the file has changed. While a changed file cannot be read or is empty (it is
// just being written), the token of before goes on being used.
func (t *tokenFile) token() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	info, err := os.Stat(t.path)
	if err == nil && t.value != "" && info.Size() == t.size && info.ModTime().Equal(t.time) {
		return t.value, nil
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(t.path)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	line = strings.TrimSpace(line)
	if err == nil && line == "" {
		err = fault.New(fault.Invalid, "its first line is empty")
	}
	switch {
	case err == nil:
		t.value, t.size, t.time = line, info.Size(), info.ModTime()
	case t.value == "":
		return "", fault.Wrap(fault.Invalid, err, "Consul token file %s", t.path)
	}
	return t.value, nil
}

package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// doorFlags say who gets to the framework's API, and by which names.
type doorFlags struct {
	names           []string
	cert, key       string
	credentialsFile string
}

func (d *doorFlags) add(f *pflag.FlagSet) {
	f.StringSliceVar(&d.names, "api-host", nil, "names by which the API may be called besides its addresses and --hostname, while it listens on this machine alone (a proxy's, say); with commas")
	f.StringVar(&d.cert, "tls-cert-file", "", "certificate of the API, which then speaks https only")
	f.StringVar(&d.key, "tls-key-file", "", "its key")
	f.StringVar(&d.credentialsFile, "http-credentials-file", "", "file with user:password that the API asks for, but at /ping")
}

func (d *doorFlags) check() error {
	if (d.cert == "") != (d.key == "") {
		return console.Usage("--tls-cert-file and --tls-key-file belong together")
	}
	return nil
}

// guard puts the question for credentials before a handler, where they are wanted.
func (d *doorFlags) guard(h http.Handler) (http.Handler, error) {
	text, err := readSecret(d.credentialsFile)
	if err != nil || text == "" {
		return h, err
	}
	who, err := api.ParseCredentials(text)
	if err != nil {
		return nil, fault.Op(err, "--http-credentials-file %s", d.credentialsFile)
	}
	return who.Guard(h), nil
}

// listener lets a listener speak https, where there is a certificate.
func (d *doorFlags) listener(l net.Listener) (net.Listener, error) {
	if d.cert == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(d.cert, d.key)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "--tls-cert-file %s", d.cert)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}), nil
}

// scheme of the API's URLs.
func (d *doorFlags) scheme() string {
	if d.cert != "" {
		return "https"
	}
	return "http"
}

// open tells whether anybody who reaches the API may use it.
func (d *doorFlags) open() bool { return d.credentialsFile == "" }

// transport is how one process of a framework asks another: it trusts the certificate that they share, too. nil for the usual way.
func (d *doorFlags) transport() (http.RoundTripper, error) {
	if d.cert == "" {
		return nil, nil
	}
	access, err := trusting(d.cert)
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = access
	return t, nil
}

// trusting trusts the certificates of a file besides the system's.
func trusting(file string) (*tls.Config, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read certificates")
	}
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fault.New(fault.Invalid, "%s holds no certificate in PEM form", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// beyond tells whether other machines reach an address.
func beyond(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// reached is where others reach what listens on an address: all addresses of a machine are called by its name.
func reached(address, hostname string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && hostname != "" && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort(hostname, port)
	}
	return address
}

// apiClient makes the command line's client: HOLDFAST_API_CREDENTIALS_FILE holds user:password, HOLDFAST_API_CA_FILE the certificates to trust.
func apiClient(address string) (*client.Client, error) {
	var access *tls.Config
	if file := os.Getenv("HOLDFAST_API_CA_FILE"); file != "" {
		var err error
		if access, err = trusting(file); err != nil {
			return nil, fault.Op(err, "HOLDFAST_API_CA_FILE")
		}
	}
	text, err := readSecret(os.Getenv("HOLDFAST_API_CREDENTIALS_FILE"))
	if err != nil {
		return nil, fault.Op(err, "HOLDFAST_API_CREDENTIALS_FILE")
	}
	c := client.NewWith(address, access)
	if text != "" {
		who, err := api.ParseCredentials(strings.TrimSpace(text))
		if err != nil {
			return nil, fault.Op(err, "HOLDFAST_API_CREDENTIALS_FILE")
		}
		c.Authenticate(who.User, who.Password)
	}
	return c, nil
}

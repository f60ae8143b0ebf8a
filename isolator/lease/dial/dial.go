// Package dial opens a lease authority by its address:
//
//	unix:///run/holdfast/authority.sock          the one embedded in `holdfast dev`
//	zk://[user:password@]h1:2181,h2,h3/path      ZooKeeper; a file with user:password keeps the secret off the command line
//	consul://host:8500/path                      Consul; consuls:// speaks TLS
package dial

import (
	"net/url"
	"os"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/consul"
	"github.com/holdfast-io/holdfast/isolator/lease/embedded"
	"github.com/holdfast-io/holdfast/isolator/lease/zookeeper"
)

// Options are what an address should not say.
type Options struct {
	// SecretFile holds user:password for ZooKeeper, or the ACL token for Consul, on its first line.
	SecretFile string
	// CAFile, CertFile and KeyFile are for consuls://.
	CAFile, CertFile, KeyFile string
}

// Open prepares the registers at an address; whether anything is there shows at the first call. The errors are Invalid and
// say what is allowed, or tell that a file cannot be read.
func Open(address string, o Options) (lease.Registers, error) {
	secret, err := readSecret(o.SecretFile)
	if err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(address, "://")
	switch scheme {
	case "zk":
		return openZooKeeper(address, secret)
	case "consul", "consuls":
		return openConsul(address, secret, o)
	}
	if scheme != "unix" && !strings.HasPrefix(address, "/") {
		return nil, fault.New(fault.Invalid, "authority %q: the address must begin with unix://, zk://, consul:// or consuls://", address)
	}
	return embedded.Dial(address)
}

// OneMachine tells whether the authority at an address lives and dies with this machine, so that clocks and processes are shared.
func OneMachine(address string) bool {
	return strings.HasPrefix(address, "unix://") || strings.HasPrefix(address, "/")
}

func openZooKeeper(address, secret string) (lease.Registers, error) {
	servers, o, err := zookeeper.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if secret != "" {
		user, password, ok := strings.Cut(secret, ":")
		if !ok || user == "" {
			return nil, fault.New(fault.Invalid, "authority %s: its secret file must hold user:password", servers[0])
		}
		o.User, o.Password = user, password
	}
	return zookeeper.Dial(servers, o)
}

func openConsul(address, secret string, o Options) (lease.Registers, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" || u.User != nil || u.RawQuery != "" {
		return nil, fault.New(fault.Invalid, "authority %q: a Consul address is consul://host:port/path; the token comes from a file", address)
	}
	config := api.DefaultConfig() // CONSUL_… variables count, as Consul's users expect
	config.Address = u.Host
	if u.Scheme == "consuls" {
		config.Scheme = "https"
		config.TLSConfig = api.TLSConfig{Address: u.Hostname(), CAFile: o.CAFile, CertFile: o.CertFile, KeyFile: o.KeyFile}
	}
	if secret != "" {
		config.Token = secret
	}
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "authority %s", u.Host)
	}
	return consul.New(client, u.Path)
}

// readSecret reads the first line of a file, "" for no file. A trailing newline is forgiven.
func readSecret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "read the authority's secret")
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fault.New(fault.Invalid, "secret file %s: its first line is empty", path)
	}
	return line, nil
}

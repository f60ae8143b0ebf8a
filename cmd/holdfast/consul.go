package main

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/catalog"
	"github.com/holdfast-io/holdfast/internal/consulconn"
)

// consulConfig is every setting of the registration of services in Consul.
type consulConfig struct {
	consulconn.Config
	resync, drain time.Duration
}

func (c *consulConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.Address, "consul", "", "register services in this Consul: http(s)://host:port or unix:///path; not at all when not given")
	f.StringVar(&c.TokenFile, "consul-token-file", "", "file with the ACL token, read again when it changes (default: CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN)")
	f.StringVar(&c.Datacenter, "consul-datacenter", "", "datacenter to register in (default: that of the agent asked)")
	f.StringVar(&c.Namespace, "consul-namespace", "", "namespace to register in (Consul Enterprise)")
	f.StringVar(&c.Partition, "consul-partition", "", "admin partition to register in (Consul Enterprise)")
	f.StringVar(&c.CAFile, "consul-ca-file", "", "certificates that https to Consul trusts (default: CONSUL_CACERT)")
	f.StringVar(&c.CertFile, "consul-cert-file", "", "client certificate for Consul (default: CONSUL_CLIENT_CERT)")
	f.StringVar(&c.KeyFile, "consul-key-file", "", "its key (default: CONSUL_CLIENT_KEY)")
	f.StringVar(&c.ServerName, "consul-tls-server-name", "", "name in Consul's certificate, if not that of the address")
	f.DurationVar(&c.resync, "consul-resync", time.Minute, "how often everything in Consul is read again and repaired")
	f.DurationVar(&c.drain, "consul-drain", time.Second, "how long an instance that is in use is out of Consul before it is killed, where its app has no drainSeconds")
}

func (c *consulConfig) check() error {
	switch {
	case c.Address == "" && c.Config != (consulconn.Config{}):
		return console.Usage("--consul-… settings need --consul")
	case c.drain < 0 || c.drain > time.Hour:
		return console.Usage(fmt.Sprintf("--consul-drain is %v: it must be between 0 and 1h", c.drain))
	case c.resync < time.Second:
		return console.Usage(fmt.Sprintf("--consul-resync is %v: it must be at least 1s", c.resync))
	}
	return nil
}

// drainTime is Config.Drain: without service discovery there is nothing to be taken out of.
func (c *consulConfig) drainTime() time.Duration {
	if c.Address == "" {
		return 0
	}
	return c.drain
}

// registrar makes what keeps the services in Consul; nil when there is to be none.
func (c *consulConfig) registrar(core catalog.Core, cluster string, registry prometheus.Registerer, log *zap.Logger) (*catalog.Registrar, error) {
	if c.Address == "" {
		return nil, nil
	}
	client, err := consulconn.Open(c.Config)
	if err != nil {
		return nil, err
	}
	r, err := catalog.New(catalog.Config{Core: core, Client: client, Cluster: cluster, Address: c.Address, Datacenter: c.Datacenter,
		Namespace: c.Namespace, Partition: c.Partition, Resync: c.resync, Log: log.Named("consul")})
	if err == nil {
		err = registry.Register(r)
	}
	return r, err
}

// consulStatus is what GET /v1/consul shows, nil without Consul.
func consulStatus(r *catalog.Registrar) func() any {
	if r == nil {
		return nil
	}
	return func() any { return r.Status() }
}

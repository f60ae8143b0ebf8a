package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
)

// storeFlags say where the framework's state is.
type storeFlags struct {
	address string
	files   dial.Options
}

func (s *storeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.address, "store", "", "where the state is: zk://hosts/path, consul://host:port/path or consuls://… (default: a file in --dir)")
	f.StringVar(&s.files.SecretFile, "store-secret-file", "", "file with user:password for ZooKeeper, or the token for Consul")
	f.StringVar(&s.files.CAFile, "store-ca-file", "", "certificates that consuls:// trusts")
	f.StringVar(&s.files.CertFile, "store-cert-file", "", "client certificate for consuls://")
	f.StringVar(&s.files.KeyFile, "store-key-file", "", "its key")
}

// check refuses what can never work.
func (s *storeFlags) check() error {
	scheme, _, _ := strings.Cut(s.address, "://")
	switch scheme {
	case "zk", "consul", "consuls", "unix":
		return nil
	case "":
		if s.address == "" && s.files == (dial.Options{}) {
			return nil
		}
		return console.Usage("--store-…-file needs --store")
	}
	return console.Usage(fmt.Sprintf("--store %q: zk://hosts/path, consul://host:port/path and consuls://host:port/path are known", withoutSecret(s.address)))
}

// open opens it: the file in dir, or what other processes may have open, too. url is where this process is reached when it leads.
func (s *storeFlags) open(dir, url string, log *zap.Logger) (store.Backend, error) {
	if s.address == "" {
		return bolt.Open(dir, bolt.Options{})
	}
	if dir != "" { // others keep things there
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "create the directory")
		}
	}
	r, err := dial.Open(s.address, s.files)
	if err != nil {
		return nil, err
	}
	b, err := registers.Open(r, registers.Options{Name: withoutSecret(s.address), URL: url, Log: log.Named("store")})
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return b, nil
}

// openState opens the cluster's part of a back end; it waits a little for a server that is not there yet.
func openState(ctx context.Context, back store.Backend, cluster, who string) (*store.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if shared, ok := back.(*registers.Backend); ok && cluster == "" {
		var err error
		if cluster, err = shared.Cluster(ctx, uuid.NewString()); err != nil {
			return nil, err
		}
	}
	return store.Open(ctx, back, cluster, who)
}

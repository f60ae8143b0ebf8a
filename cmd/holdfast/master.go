package main

import (
	"crypto/tls"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/framework/mesos"
)

// masterFlags say how to reach the master, beside its address.
type masterFlags struct {
	secretFile string
	https      bool
	tls        mesos.TLSFiles
}

func (m *masterFlags) add(f *pflag.FlagSet) {
	f.StringVar(&m.secretFile, "master-secret-file", "", "file with user:password for the ZooKeeper of --master zk://…")
	f.BoolVar(&m.https, "master-https", false, "speak https to masters found in ZooKeeper or given without a scheme (any other --master-… for TLS means it too)")
	f.StringVar(&m.tls.CA, "master-ca-file", "", "certificates that masters' and agents' https is checked with (default: the system's)")
	f.StringVar(&m.tls.Cert, "master-cert-file", "", "client certificate for masters and agents that ask for one")
	f.StringVar(&m.tls.Key, "master-key-file", "", "its key")
	f.BoolVar(&m.tls.SkipVerify, "master-skip-verify", false, "do not check who answers by https: anybody on the way can read the secret and give orders")
}

// config gives the TLS settings, nil when nothing asks for https; URLs that begin with https:// work all the same.
func (m *masterFlags) config(log *zap.Logger) (*tls.Config, error) {
	if !m.https && m.tls == (mesos.TLSFiles{}) {
		return nil, nil
	}
	if m.tls.SkipVerify {
		log.Warn("THE MASTER'S CERTIFICATE IS NOT CHECKED (--master-skip-verify): anybody on the way can read the framework's secret, and run and kill tasks in its name. Give --master-ca-file instead.")
	}
	return m.tls.Config()
}

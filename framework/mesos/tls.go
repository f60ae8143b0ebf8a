package mesos

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// TLSFiles say how to speak to masters and agents that serve https. All fields are optional.
type TLSFiles struct {
	// CA is a file of PEM certificates that are trusted, instead of the system's.
	CA string
	// Cert and Key are the client certificate for clusters that ask for one. The files are read at each connection, so that a certificate can be renewed in place.
	Cert, Key string
	// SkipVerify trusts whoever answers. Whoever warns people of it is who sets it.
	SkipVerify bool
}

// Config reads the files. The errors are Invalid and name the file.
func (f TLSFiles) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.SkipVerify}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "read the certificates to trust")
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "file %s has no PEM certificate that could be trusted", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, fault.New(fault.Invalid, "a client certificate needs both its file and its key's")
	}
	if f.Cert != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &cert, fault.Wrap(fault.Invalid, err, "client certificate %s", f.Cert)
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, nil
}

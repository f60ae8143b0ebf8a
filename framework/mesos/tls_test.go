package mesos_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mesoslib "github.com/mesos/mesos-go/api/v1/lib"
	msched "github.com/mesos/mesos-go/api/v1/lib/scheduler"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/mastertest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
)

// authority signs certificates for a test and writes them as files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	return a
}

func (a *authority) sign(name string, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	c := &x509.Certificate{SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	change(c)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return c, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// server gives the settings of a server with a new certificate for 127.0.0.1; with clients it asks for certificates of this authority.
func (a *authority) server(name string, clients bool, change func(*x509.Certificate)) *tls.Config {
	a.t.Helper()
	a.sign(name, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		if change != nil {
			change(c)
		}
	})
	pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(a.cert)
	}
	return c
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	ca.sign("client", func(*x509.Certificate) {})
	plain := mastertest.NewTLS(ca.server("plain", false, nil))
	defer plain.Close()
	strict := mastertest.NewTLS(ca.server("strict", true, nil))
	defer strict.Close()
	expired := mastertest.NewTLS(ca.server("expired", false, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }))
	defer expired.Close()
	for _, c := range []struct {
		name   string
		master *mastertest.Master
		files  *mesos.TLSFiles // nil: none were given
		refuse string
	}{
		{"unknown authority", plain, nil, "unknown authority"},
		{"authority", plain, &mesos.TLSFiles{CA: ca.file("ca.pem")}, ""},
		{"unchecked", plain, &mesos.TLSFiles{SkipVerify: true}, ""},
		{"no client certificate", strict, &mesos.TLSFiles{CA: ca.file("ca.pem")}, "certificate"},
		{"client certificate", strict, &mesos.TLSFiles{CA: ca.file("ca.pem"), Cert: ca.file("client.pem"), Key: ca.file("client.key")}, ""},
		{"expired", expired, &mesos.TLSFiles{CA: ca.file("ca.pem")}, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := c.master.URL()
			r := start(t, "f", address, func(m *mesos.Config) {
				if c.files != nil {
					m.Master = strings.TrimPrefix(address, "https://") // the settings mean https
					var err error
					if m.TLS, err = c.files.Config(); err != nil {
						t.Fatal(err)
					}
				}
			})
			if c.refuse == "" {
				await[scheduler.Subscribed](r, 1)
			} else if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, c.refuse) {
				t.Errorf("reason %q, want %q in it", d.Reason, c.refuse)
			}
		})
	}
}

func TestTLSFiles(t *testing.T) {
	ca := newAuthority(t)
	empty := ca.file("empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []mesos.TLSFiles{{CA: ca.file("none")}, {CA: empty}, {Cert: ca.file("ca.pem")}, {Key: ca.file("ca.key")}, {Cert: empty, Key: empty}} {
		if _, err := f.Config(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// TestMissingRights: whoever reads the message knows what to add to the master's --acls.
func TestMissingRights(t *testing.T) {
	m := mastertest.New()
	defer m.Close()
	m.OnSubscribe(func(*msched.Call) (int, string, string) { return 403, "Not authorized", "" })
	r := start(t, "f", m.URL())
	want := `{"register_frameworks":[{"principals":{"values":["p"]},"roles":{"values":["holdfast"]}}]}`
	if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, want) {
		t.Errorf("reason %q", d.Reason)
	}
	m.OnSubscribe(nil)
	await[scheduler.Subscribed](r, 1)
	reason := mesoslib.REASON_TASK_UNAUTHORIZED
	m.Send(&msched.Event{Type: msched.Event_UPDATE, Update: &msched.Event_Update{Status: mesoslib.TaskStatus{TaskID: mesoslib.TaskID{Value: "t"},
		State: mesoslib.TASK_ERROR.Enum(), Reason: &reason, Source: mesoslib.SOURCE_MASTER.Enum()}}})
	if s := await[scheduler.Status](r, 1); !strings.Contains(s.Message, `{"run_tasks":[{"principals":{"values":["p"]},"users":`) {
		t.Errorf("message %q", s.Message)
	}
	m.Error("Not authorized to use roles 'holdfast'")
	if s := await[scheduler.Stopped](r, 1); !strings.Contains(s.Reason, want) {
		t.Errorf("stopped: %q", s.Reason)
	}
	if err := <-r.done; !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "register_frameworks") {
		t.Errorf("run ended with %v", err)
	} else {
		r.done <- err
	}
}

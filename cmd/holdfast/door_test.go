package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// certificate makes one for 127.0.0.1 that signs itself.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "holdfast"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// The API behind a certificate and credentials: whoever has both gets in, and nobody else but for /ping; no error shows the password.
func TestDoor(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("ann:hush:hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := doorFlags{cert: cert, key: key, credentialsFile: secret}
	asked := 0
	h, err := d.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked++; _, _ = w.Write([]byte(`{"apps":[]}`)) }))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.listener(plain)
	if err != nil {
		t.Fatal(err)
	}
	srv := api.Serve(h, nil)
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	address := d.scheme() + "://" + l.Addr().String()

	t.Setenv("HOLDFAST_API_CA_FILE", cert)
	t.Setenv("HOLDFAST_API_CREDENTIALS_FILE", secret)
	c, err := apiClient(address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Apps(context.Background()); err != nil || asked != 1 {
		t.Fatalf("with certificate and credentials: %v", err)
	}
	for name, change := range map[string]func(t *testing.T) string{
		"no credentials": func(t *testing.T) string { t.Setenv("HOLDFAST_API_CREDENTIALS_FILE", ""); return address },
		"wrong password": func(t *testing.T) string {
			t.Setenv("HOLDFAST_API_CREDENTIALS_FILE", "")
			return strings.Replace(address, "://", "://ann:hidden@", 1)
		},
		"wrong user": func(t *testing.T) string {
			t.Setenv("HOLDFAST_API_CREDENTIALS_FILE", "")
			return strings.Replace(address, "://", "://bob:hush@", 1)
		},
		"unknown authority": func(t *testing.T) string { t.Setenv("HOLDFAST_API_CA_FILE", ""); return address },
		"http":              func(t *testing.T) string { return strings.Replace(address, "https", "http", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			c, err := apiClient(change(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Apps(context.Background()); err == nil || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "hush") || asked != 1 {
				t.Errorf("%v, asked %d", err, asked)
			}
		})
	}
	t.Setenv("HOLDFAST_API_CREDENTIALS_FILE", "")
	if c, err = apiClient(address); err != nil {
		t.Fatal(err)
	}
	if _ = c.Ping(context.Background()); asked != 2 {
		t.Error("/ping asks for credentials")
	}
	between, err := d.transport()
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := (&http.Client{Transport: between}).Get(address + "/ping"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("from a standby: %v", err)
	}
}

func TestBadDoor(t *testing.T) {
	dir := t.TempDir()
	for name, d := range map[string]doorFlags{
		"no colon":       {credentialsFile: written(t, dir, "a", "annhush")},
		"no password":    {credentialsFile: written(t, dir, "b", "ann:")},
		"no file":        {credentialsFile: filepath.Join(dir, "none")},
		"no certificate": {cert: written(t, dir, "c", "hush"), key: written(t, dir, "d", "hush")},
	} {
		_, err := d.guard(nil)
		if err == nil && d.cert != "" {
			_, err = d.listener(nil)
		}
		if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (&doorFlags{cert: "x"}).check(); err == nil {
		t.Error("a certificate without key")
	}
	for address, want := range map[string]string{"0.0.0.0:80": "here:80", "[::]:80": "here:80", "127.0.0.1:80": "127.0.0.1:80", "10.0.0.1:80": "10.0.0.1:80"} {
		if got := reached(address, "here"); got != want {
			t.Errorf("%s is reached at %s, not %s", address, got, want)
		}
	}
}

func written(t *testing.T, dir, name, text string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

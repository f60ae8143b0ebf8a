package docker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

const (
	firstID  = "1111111111111111111111111111111111111111111111111111111111111111"
	secondID = "2222222222222222222222222222222222222222222222222222222222222222"
	thirdID  = "3333333333333333333333333333333333333333333333333333333333333333"
)

// engineSays is what Docker's API lists, as Engine 20.10 and 28 print it.
const engineSays = `[
 {"Id":"` + firstID + `","Name":"vieux/sshfs:latest","Enabled":true,"PluginReference":"docker.io/vieux/sshfs:latest","Settings":{},"Config":{"PropagatedMount":"/mnt/volumes","Interface":{"Socket":"sshfs.sock","Types":["docker.volumedriver/1.0"]}}},
 {"Id":"` + secondID + `","Name":"off:1.2","Enabled":false,"Config":{"Interface":{"Socket":"off.sock","Types":["docker.volumedriver/1.0"]}}},
 {"Id":"` + thirdID + `","Name":"net:latest","Enabled":true,"Config":{"Interface":{"Socket":"net.sock","Types":["docker.networkdriver/1.0"]}}}
]`

type fakeEngine struct {
	dir string
	m   Managed
}

func newEngine(t *testing.T) *fakeEngine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "hfg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	e := &fakeEngine{dir: dir, m: Managed{Engine: filepath.Join(dir, "engine"), Sockets: filepath.Join(dir, "run"), Root: filepath.Join(dir, "lib")}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"DockerRootDir":%q}`, e.m.Root) })
	mux.HandleFunc("GET /plugins", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, engineSays) })
	listen(t, e.m.Engine, mux)
	for _, id := range []string{firstID, thirdID} {
		if err := os.MkdirAll(filepath.Join(e.m.Sockets, id), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	listen(t, e.socket(), voice("managed"))
	return e
}

// socket is that of the first plugin; its path is short enough only by a link.
func (e *fakeEngine) socket() string { return filepath.Join(e.m.Sockets, firstID, "sshfs.sock") }

func listen(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

// voice is a plugin that tells by its volume who it is.
func voice(who string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch filepath.Base(r.URL.Path) {
		case "Plugin.Activate":
			fmt.Fprint(w, `{"Implements":["VolumeDriver"]}`)
		case "VolumeDriver.Mount", "VolumeDriver.Path":
			fmt.Fprint(w, `{"Mountpoint":"/mnt/volumes/x"}`)
		default:
			fmt.Fprintf(w, `{"Volume":{"Name":"x","Mountpoint":"/%s"}}`, who)
		}
	})
}

func (e *fakeEngine) open(t *testing.T, name string) *Driver {
	t.Helper()
	d, err := New(Options{Name: name, Dirs: Dirs{Managed: e.m, Sockets: []string{e.dir}, Specs: []string{filepath.Join(e.dir, "etc"), filepath.Join(e.dir, "usr")}}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestManaged(t *testing.T) {
	e := newEngine(t)
	home := filepath.Join(e.m.Root, "plugins", firstID)
	for _, name := range []string{"vieux/sshfs", "vieux/sshfs:latest"} {
		d := e.open(t, name)
		i, err := d.Get(context.Background(), "x")
		if err != nil || i.Path != filepath.Join(home, "rootfs", "managed") {
			t.Fatalf("%s: %+v %v", name, i, err)
		}
		if at, err := d.Mount(context.Background(), driver.MountSpec{Name: "x", ID: "i"}); err != nil || at != filepath.Join(home, "propagated-mount", "x") {
			t.Errorf("%s: mounted at %s, %v", name, at, err)
		}
		if at, err := d.Path(context.Background(), "x"); err != nil || at != filepath.Join(home, "propagated-mount", "x") {
			t.Errorf("%s: path %s, %v", name, at, err)
		}
	}
	for name, words := range map[string]string{"off:1.2": "docker plugin enable off:1.2", "off": "not installed", "net": "not installed", "vieux/sshfs:2": "not installed", "nobody": "not installed", "a/b": "not installed"} {
		if _, err := e.open(t, name).Get(context.Background(), "x"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names := (Dirs{Managed: e.m}).Names(); fmt.Sprint(names) != "[vieux/sshfs]" {
		t.Errorf("names %v", names)
	}
}

// Where Docker's API does not answer its files do; where neither does, plugins that announce themselves are used all the same.
func TestManagedWithoutEngine(t *testing.T) {
	e := newEngine(t)
	e.m.Engine = filepath.Join(e.dir, "nobody")
	listen(t, filepath.Join(e.dir, "own.sock"), voice("own"))
	if _, err := e.open(t, "vieux/sshfs").Get(context.Background(), "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
	var all []map[string]any
	if err := json.Unmarshal([]byte(engineSays), &all); err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		p["Config"].(map[string]any)["Interface"].(map[string]any)["Types"] = []map[string]string{{"Prefix": "docker", "Capability": "volumedriver", "Version": "1.0"}}
		raw, err := json.Marshal(map[string]any{"plugin": p, "Rootfs": "/x"})
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(e.m.Root, "plugins", p["Id"].(string))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if i, err := e.open(t, "vieux/sshfs").Get(context.Background(), "x"); err != nil || !strings.HasSuffix(i.Path, "rootfs/managed") {
		t.Errorf("by its files: %+v %v", i, err)
	}
	if err := os.WriteFile(filepath.Join(e.m.Root, "plugins", firstID, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.open(t, "vieux/sshfs").Get(context.Background(), "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("torn: %v", err)
	}
	if i, err := e.open(t, "own").Get(context.Background(), "x"); err != nil || i.Path != "/own" {
		t.Errorf("one of its own: %+v %v", i, err)
	}
}

// What a managed plugin says of paths never leads out of its own.
func TestOnHost(t *testing.T) {
	p := managedPlugin{ID: firstID, root: "/d"}
	p.Config.PropagatedMount = "/mnt/state"
	home := "/d/plugins/" + firstID
	for in, want := range map[string]string{"": "", "/mnt/state": home + "/propagated-mount", "/mnt/state/a": home + "/propagated-mount/a", "/mnt/stateful": home + "/rootfs/mnt/stateful",
		"/mnt/state/../../etc": home + "/rootfs/etc", "../../../etc": home + "/rootfs/etc", "/": home + "/rootfs"} {
		if got := p.onHost(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	m := Managed{Sockets: "/run"}
	p.Enabled = true
	for _, bad := range []string{"", "..", ".", "a/b", "../x"} {
		p.Config.Interface.Socket = bad
		if e, err := m.endpoint(p); err == nil {
			t.Errorf("socket %q: %+v", bad, e)
		}
	}
	p.Config.Interface.Socket, p.Config.Interface.ProtocolScheme = "x.sock", "other/2"
	if _, err := m.endpoint(p); err == nil {
		t.Error("another protocol was taken")
	}
}

// TestPrecedence has several say that they are the plugin, and takes them away from the first to the last, in Docker's order.
func TestPrecedence(t *testing.T) {
	e := newEngine(t)
	for _, d := range []string{"same", "etc/same", "usr/same"} {
		if err := os.MkdirAll(filepath.Join(e.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	places := []string{"same.sock", "same/same.sock", "etc/same.spec", "etc/same/same.spec", "etc/same.json", "etc/same/same.json", "usr/same.spec", "usr/same/same.json"}
	for i, p := range places {
		at := filepath.Join(e.dir, p)
		if strings.HasSuffix(p, ".sock") {
			listen(t, at, voice(fmt.Sprint(i)))
			continue
		}
		socket := filepath.Join(e.dir, fmt.Sprint("s", i))
		listen(t, socket, voice(fmt.Sprint(i)))
		content := "unix://" + socket + "\n"
		if strings.HasSuffix(p, ".json") {
			content = fmt.Sprintf(`{"Name":"whatever","Addr":"unix://%s"}`, socket)
		}
		if err := os.WriteFile(at, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, p := range places {
		got, err := e.open(t, "same").Get(context.Background(), "x")
		if err != nil || got.Path != fmt.Sprint("/", i) {
			t.Errorf("with %v: %+v %v", places[i:], got, err)
		}
		if err := os.Remove(filepath.Join(e.dir, p)); err != nil {
			t.Fatal(err)
		}
	}
	// What Docker manages comes before all of it.
	sshfs := filepath.Join(e.dir, "managed.sock")
	listen(t, sshfs, voice("legacy"))
	raw := strings.ReplaceAll(engineSays, "vieux/sshfs:latest", "managed:latest")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"DockerRootDir":%q}`, e.m.Root) })
	mux.HandleFunc("GET /plugins", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, raw) })
	e.m.Engine = filepath.Join(e.dir, "engine2")
	listen(t, e.m.Engine, mux)
	if got, err := e.open(t, "managed").Get(context.Background(), "x"); err != nil || !strings.HasSuffix(got.Path, "rootfs/managed") {
		t.Errorf("%+v %v", got, err)
	}
}

// TestTLS reaches a plugin as its JSON says: with the CA's certificate and our own, without a CA nobody's is checked, as with Docker, and a wrong one is refused.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, raw []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	cert := write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyFile := write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	parsed, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	s := httptest.NewUnstartedServer(voice("tls"))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	s.StartTLS()
	defer s.Close()
	other := httptest.NewTLSServer(voice("other"))
	defer other.Close()
	for name, c := range map[string]struct {
		addr, conf string
		ok         bool
	}{
		"both":       {s.URL, fmt.Sprintf(`{"CAFile":%q,"CertFile":%q,"KeyFile":%q}`, cert, cert, keyFile), true},
		"tcp":        {"tcp://" + s.Listener.Addr().String(), fmt.Sprintf(`{"CAFile":%q,"CertFile":%q,"KeyFile":%q}`, cert, cert, keyFile), true},
		"noca":       {s.URL, fmt.Sprintf(`{"CertFile":%q,"KeyFile":%q}`, cert, keyFile), true},
		"nocert":     {s.URL, fmt.Sprintf(`{"CAFile":%q}`, cert), false},
		"wrongca":    {other.URL, fmt.Sprintf(`{"CAFile":%q}`, cert), false},
		"unverified": {other.URL, `{"InsecureSkipVerify":true}`, true},
		"none":       {other.URL, `null`, false},
	} {
		write(name+".json", fmt.Appendf(nil, `{"Addr":%q,"TLSConfig":%s}`, c.addr, c.conf))
		d, err := New(Options{Name: name, Dirs: Dirs{Sockets: []string{dir}, Specs: []string{dir}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = d.Get(context.Background(), "x"); (err == nil) != c.ok || (err != nil && !fault.Is(err, fault.Unavailable)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

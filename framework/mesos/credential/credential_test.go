package credential

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// login plays DC/OS's login service: it checks the proof with the public key, as the real one does.
type login struct {
	*httptest.Server
	key    *rsa.PrivateKey
	mu     sync.Mutex
	logins int
	life   time.Duration
	answer func(w http.ResponseWriter) // instead of a token
}

func startLogin(t *testing.T) *login {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	l := &login{key: key, life: time.Hour}
	l.Server = httptest.NewTLSServer(http.HandlerFunc(l.serve))
	t.Cleanup(l.Close)
	return l
}

func (l *login) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logins++
	var in struct{ UID, Token string }
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &in)
	claims := jwt.MapClaims{}
	_, err := jwt.ParseWithClaims(in.Token, claims, func(*jwt.Token) (any, error) { return &l.key.PublicKey, nil }, jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired())
	switch {
	case l.answer != nil:
		l.answer(w)
	case r.URL.Path != "/acs/api/v1/auth/login" || r.Method != http.MethodPost || err != nil || claims["uid"] != in.UID || in.UID != "holdfast":
		w.WriteHeader(http.StatusUnauthorized)
	default:
		token, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"uid": in.UID, "n": l.logins, "exp": time.Now().Add(l.life).Unix()}).SignedString([]byte("the service's own"))
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
	}
}

func (l *login) secret(change map[string]string) string {
	f := map[string]string{"uid": "holdfast", "scheme": "RS256", "login_endpoint": l.URL + "/acs/api/v1/auth/login",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(l.key)}))}
	for k, v := range change {
		f[k] = v
	}
	raw, _ := json.Marshal(f)
	return string(raw)
}

func (l *login) access() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(l.Certificate())
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func header(t *testing.T, c Credential) (string, error) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, "http://master:5050/", nil)
	err := c.Authorize(t.Context(), req)
	return req.Header.Get("Authorization"), err
}

func TestBasic(t *testing.T) {
	for name, c := range map[string]struct{ principal, secret, want string }{
		"none": {"p", "", ""}, "basic": {"p", "s", "Basic cDpz"},
	} {
		cred, err := New(c.principal, c.secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := header(t, cred); got != c.want || err != nil || cred.Principal() != "p" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := New("", "s", nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("a secret without principal: %v", err)
	}
}

func TestAccount(t *testing.T) {
	l := startLogin(t)
	c, err := New("", l.secret(nil), l.access())
	if err != nil {
		t.Fatal(err)
	}
	a := c.(*account)
	first, err := header(t, c)
	if err != nil || !strings.HasPrefix(first, "token=ey") || c.Principal() != "holdfast" {
		t.Fatalf("%q, %v", first, err)
	}
	if again, _ := header(t, c); again != first || l.logins != 1 {
		t.Errorf("a second login for a fresh token: %d", l.logins)
	}
	start := time.Now()
	a.now = func() time.Time { return start.Add(46 * time.Minute) } // 1 h of life: the last quarter
	second, err := header(t, c)
	if err != nil || second == first || l.logins != 2 {
		t.Fatalf("not renewed before its end: %v, %d logins", err, l.logins)
	}

	// The service is away: the old token is used until its end, and not after it.
	l.answer = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	a.now = func() time.Time { return start.Add(50 * time.Minute) }
	if got, err := header(t, c); got != second || err != nil {
		t.Errorf("while the service is away: %v", err)
	}
	a.now = func() time.Time { return start.Add(3 * time.Hour) }
	if _, err := header(t, c); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the end of the token: %v", err)
	}

	// A 401 from the master: log in again, but not in a loop.
	l.answer = nil
	a.now = time.Now
	third, err := header(t, c)
	if err != nil {
		t.Fatal(err)
	}
	before := l.logins
	c.Refused()
	if got, _ := header(t, c); got != third || l.logins != before {
		t.Error("a brand-new token that was refused is asked for again at once")
	}
	a.now = func() time.Time { return time.Now().Add(time.Minute) }
	c.Refused()
	if got, err := header(t, c); err != nil || got == third || l.logins != before+1 {
		t.Errorf("a refused token is not renewed: %v", err)
	}
}

func TestBadAccount(t *testing.T) {
	l := startLogin(t)
	for name, c := range map[string]struct{ principal, secret, want string }{
		"other principal": {"somebody", l.secret(nil), "principal"},
		"no uid":          {"", l.secret(map[string]string{"uid": ""}), "uid"},
		"scheme":          {"", l.secret(map[string]string{"scheme": "HS256"}), "scheme"},
		"endpoint":        {"", l.secret(map[string]string{"login_endpoint": "ftp://x"}), "login_endpoint"},
		"key":             {"", l.secret(map[string]string{"private_key": "hidden-key-text"}), "private_key"},
		"no JSON":         {"", `{"uid": "hidden`, "JSON"},
	} {
		_, err := New(c.principal, c.secret, nil)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoginServiceMisbehaves(t *testing.T) {
	l := startLogin(t)
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		class  fault.Class
	}{
		"refuses":   {func(w http.ResponseWriter) { w.WriteHeader(401) }, fault.Denied},
		"redirects": {func(w http.ResponseWriter) { w.Header().Set("Location", "http://evil.example/"); w.WriteHeader(302) }, fault.Unavailable},
		"empty":     {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{}`)) }, fault.Unavailable},
		"header":    {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"token":"a\r\nX-Evil: 1"}`)) }, fault.Unavailable},
		"garbage":   {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`<html>`)) }, fault.Unavailable},
		"endless": {func(w http.ResponseWriter) {
			_, _ = w.Write([]byte(`{"token":"`))
			_, _ = w.Write([]byte(strings.Repeat("x", answerLimit+1)))
		}, fault.Unavailable},
	} {
		l.answer = c.answer
		cred, err := New("holdfast", l.secret(nil), l.access())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := header(t, cred); got != "" || !fault.Is(err, c.class) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	stranger, err := New("", l.secret(nil), nil) // whose certificate nobody vouches for
	if err != nil {
		t.Fatal(err)
	}
	if _, err := header(t, stranger); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an unknown certificate: %v", err)
	}
}

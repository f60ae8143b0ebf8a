package credential

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/holdfast-io/holdfast/internal/fault"
)

const (
	loginLimit  = 10 * time.Second // of one login
	loginValid  = 5 * time.Minute  // for how long the proof of a login holds
	loginPause  = 10 * time.Second // between two logins because of a 401
	tokenAhead  = 30 * time.Minute // a token is renewed that long before its end, or in the last quarter of its life
	tokenUnread = 5 * time.Minute  // taken as the life of a token whose end cannot be read
	answerLimit = 64 << 10
)

// account is a DC/OS service account: a login with a signed proof gives a token (https://docs.d2iq.com, "Authenticating DC/OS Services"), which is sent
// as `Authorization: token=…`. The token is asked for when it is first needed and again well before it ends; while the login service is away the
// old one is used to its end.
type account struct {
	uid   string
	key   *rsa.PrivateKey
	login string
	http  *http.Client
	now   func() time.Time

	mu    sync.Mutex // held over a login: whoever needs the token meanwhile waits for the same one
	token string
	from  time.Time // when it was got
	until time.Time
}

// accountFile is the secret that `dcos security secrets create-sa-secret` writes.
type accountFile struct {
	UID      string `json:"uid"`
	Key      string `json:"private_key"`
	Endpoint string `json:"login_endpoint"`
	Scheme   string `json:"scheme"`
}

func newAccount(principal string, raw []byte, access *tls.Config) (*account, error) {
	var f accountFile
	if json.Unmarshal(raw, &f) != nil { // its error would quote the file
		return nil, fault.New(fault.Invalid, "the secret file begins like a DC/OS service account but is no JSON object of texts")
	}
	where, err := url.Parse(f.Endpoint)
	switch {
	case f.UID == "":
		return nil, fault.New(fault.Invalid, "service account: uid is missing")
	case principal != "" && principal != f.UID:
		return nil, fault.New(fault.Invalid, "service account: its uid is %q, and the principal is %q: they must be the same, or the principal not given", f.UID, principal)
	case f.Scheme != "" && f.Scheme != "RS256":
		return nil, fault.New(fault.Invalid, "service account: scheme is %q: RS256 is known", f.Scheme)
	case err != nil || where.Scheme != "https" && where.Scheme != "http" || where.Host == "":
		return nil, fault.New(fault.Invalid, "service account: login_endpoint must be an http(s) URL")
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(f.Key))
	if err != nil {
		return nil, fault.New(fault.Invalid, "service account: private_key is no RSA key in PEM form")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = access
	return &account{uid: f.UID, key: key, login: f.Endpoint, now: time.Now,
		// A redirect would send the proof to somebody else.
		http: &http.Client{Transport: t, Timeout: loginLimit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

func (a *account) Principal() string { return a.uid }

func (a *account) Authorize(ctx context.Context, req *http.Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if a.token == "" || now.After(a.renewAt()) {
		if err := a.renew(ctx, now); err != nil && (a.token == "" || !now.Before(a.until)) {
			a.token = ""
			return fault.Op(err, "log in to DC/OS as %s", a.uid)
		}
	}
	req.Header.Set("Authorization", "token="+a.token)
	return nil
}

// renewAt is well before the end of the token.
func (a *account) renewAt() time.Time {
	return a.until.Add(-min(tokenAhead, a.until.Sub(a.from)/4))
}

// Refused drops the token, unless it is brand new: a master that refuses that too is not asked about it in a loop.
func (a *account) Refused() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.now().Sub(a.from) > loginPause {
		a.token = ""
	}
}

func (a *account) renew(ctx context.Context, now time.Time) error {
	proof, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"uid": a.uid, "exp": now.Add(loginValid).Unix()}).SignedString(a.key)
	if err != nil {
		return fault.New(fault.Internal, "sign the proof")
	}
	body, err := json.Marshal(map[string]string{"uid": a.uid, "token": proof})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.login, bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "login request")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "login service")
	}
	defer resp.Body.Close()
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fault.New(fault.Denied, "%s answers %d: the account is not known there, or its key is another (dcos security org service-accounts show %s)", a.login, code, a.uid)
	case code != http.StatusOK:
		return fault.New(fault.Unavailable, "%s answers %d", a.login, code)
	}
	var answer struct{ Token string }
	if json.NewDecoder(io.LimitReader(resp.Body, answerLimit)).Decode(&answer) != nil || !plain(answer.Token) {
		return fault.New(fault.Unavailable, "%s answers 200 without a token", a.login)
	}
	a.token, a.from, a.until = answer.Token, now, now.Add(tokenUnread)
	claims := jwt.RegisteredClaims{}
	// The token is not ours to check: the master does. Only its end matters here.
	if _, _, err := jwt.NewParser().ParseUnverified(answer.Token, &claims); err == nil && claims.ExpiresAt != nil {
		a.until = claims.ExpiresAt.Time
	}
	return nil
}

// plain tells whether a text can stand in a header.
func plain(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != ""
}

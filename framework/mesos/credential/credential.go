// Package credential is how the framework shows masters and agents who it is: not at all, with HTTP basic credentials (Mesos's own
// authentication), or as a DC/OS service account, which logs in and then carries a token that ends.
package credential

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Credential is put on every request to a master or an agent. It may be used concurrently.
type Credential interface {
	// Authorize adds what shows who asks. It may ask a login service first: Denied when that refuses the account, Unavailable when it cannot be
	// reached or answers nonsense. The request is not to be sent then.
	Authorize(ctx context.Context, req *http.Request) error
	// Refused says that what Authorize added last was answered with 401.
	Refused()
	// Principal is the Mesos principal, "" when none is known.
	Principal() string
}

// New makes the credential of a principal and the text of its secret file: nothing for an empty secret, a DC/OS service account for a JSON
// object, basic credentials otherwise. access is how to speak to the login service by https, nil for the system's way. Invalid
// names what is wrong, and never holds a part of the secret.
func New(principal, secret string, access *tls.Config) (Credential, error) {
	switch {
	case secret == "":
		return basic{principal: principal}, nil
	case strings.HasPrefix(strings.TrimSpace(secret), "{"):
		return newAccount(principal, []byte(secret), access)
	case principal == "":
		return nil, fault.New(fault.Invalid, "a secret needs the principal that it belongs to")
	}
	return basic{principal: principal, secret: secret}, nil
}

// basic is RFC 7617, as masters with --authenticate_http_frameworks ask for it; without a secret it adds nothing.
type basic struct{ principal, secret string }

func (b basic) Authorize(_ context.Context, req *http.Request) error {
	if b.secret != "" {
		req.SetBasicAuth(b.principal, b.secret)
	}
	return nil
}

func (b basic) Refused()          {}
func (b basic) Principal() string { return b.principal }

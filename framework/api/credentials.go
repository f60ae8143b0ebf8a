package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Credentials are the user and password that the whole API asks for (RFC 7617), as Marathon's --http_credentials.
type Credentials struct{ User, Password string }

// ParseCredentials reads "user:password". Invalid when it has no colon, or nothing before or behind it; the text is never in the error.
func ParseCredentials(text string) (Credentials, error) {
	user, password, ok := strings.Cut(text, ":")
	if !ok || user == "" || password == "" {
		return Credentials{}, fault.New(fault.Invalid, "credentials must be user:password")
	}
	return Credentials{user, password}, nil
}

// Guard lets only requests with the credentials through, and GET /ping, which health checks ask for without any.
func (c Credentials) Guard(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(c.User + ":" + c.Password))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		// The sums have one length, so the comparison tells nothing of the password's.
		got := sha256.Sum256([]byte(user + ":" + password))
		if r.URL.Path == "/ping" || subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="Holdfast", charset="UTF-8"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"message":"Invalid username or password."}`))
	})
}

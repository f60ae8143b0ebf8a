// Package page is the web page: one file of HTML with its own style and script, which reads /v1.
package page

import (
	_ "embed"
	"net/http"
)

//go:embed index.html
var index []byte

// policy lets the page load nothing but itself and talk to nobody but its own server.
const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		_, _ = w.Write(index)
	})
}

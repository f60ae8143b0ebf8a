// Package page is the web page: one file of HTML with its own style and script, which reads /v1 and follows /v1/events.
// Nothing is loaded from elsewhere, and the browser is told so.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
)

//go:embed index.html
var index []byte

// policy lets the browser run this page's one script and nothing else, and talk to nobody but the page's own server.
var policy = "default-src 'none'; style-src 'unsafe-inline'; script-src " + scriptHash() +
	"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func scriptHash() string {
	_, rest, _ := bytes.Cut(index, []byte("<script>"))
	script, _, _ := bytes.Cut(rest, []byte("</script>"))
	sum := sha256.Sum256(script)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// Handler serves the page.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		_, _ = w.Write(index)
	})
}

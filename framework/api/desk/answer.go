package desk

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"time"
)

// Answer is JSON on its way out: what is written leaves in pieces, so that an answer of any size costs a few buffers. Begin one with
// Desk.Begin, and Close it. Errors of a reader that has gone are kept and told by Err.
type Answer struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	buf    *bufio.Writer
	zip    *gzip.Writer
	silent bool // HEAD
	err    error
}

// piece is how much of an answer is collected before it leaves.
const piece = 64 << 10

// Begin starts an answer of 200 whose length is not known yet.
func (s *Desk) Begin(w http.ResponseWriter, r *http.Request) *Answer {
	a := &Answer{w: w, rc: http.NewResponseController(w), silent: r.Method == http.MethodHead}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Add("Vary", "Accept-Encoding")
	a.buf = bufio.NewWriterSize(sink{a}, piece)
	if takesGzip(r) {
		h.Set("Content-Encoding", "gzip")
		a.zip, _ = gzip.NewWriterLevel(sink{a}, gzip.BestSpeed) // the level is known
		a.buf.Reset(a.zip)
	}
	w.WriteHeader(http.StatusOK)
	return a
}

// sink is the connection: each piece has its own time to leave.
type sink struct{ a *Answer }

func (s sink) Write(p []byte) (int, error) {
	a := s.a
	switch {
	case a.err != nil:
		return 0, a.err
	case a.silent:
		return len(p), nil
	}
	_ = a.rc.SetWriteDeadline(time.Now().Add(AnswerTime))
	n, err := a.w.Write(p)
	a.err = err
	return n, err
}

// Write adds to the answer. An error says that nobody reads any more.
func (a *Answer) Write(p []byte) (int, error) {
	if a.silent {
		return len(p), nil
	}
	return a.buf.Write(p)
}

// Text adds text to the answer.
func (a *Answer) Text(s string) { _, _ = io.WriteString(a, s) }

// Err tells why the answer cannot go on; nil while it can.
func (a *Answer) Err() error { return a.err }

// Close sends what is left.
func (a *Answer) Close() {
	if a.silent {
		return
	}
	_ = a.buf.Flush()
	if a.zip != nil {
		_ = a.zip.Close()
	}
}

// entityTag is a weak validator of a body: two that are alike have the same.
func entityTag(body []byte) string {
	sum := sha256.Sum256(body)
	return `W/"` + hex.EncodeToString(sum[:12]) + `"`
}

// known tells whether the asker has a body with this tag already (If-None-Match).
func known(r *http.Request, tag string) bool {
	for _, part := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

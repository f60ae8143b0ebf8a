package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxBody is how much of an answer's body is kept, where it is kept at all.
const maxBody = 16 << 10

// answer is what came of asking.
type answer struct {
	ok     bool
	ignore bool   // it says nothing
	cause  string // why not ok
	last   *Response
}

// Response is an answer to a readiness check.
type Response struct {
	Status      int
	ContentType string
	Body        string
}

// asker asks. Connections are not kept: a check that goes through an old one says little about the next client.
type asker struct {
	dialer net.Dialer
	client http.Client
}

func newAsker() *asker {
	a := &asker{}
	a.client = http.Client{
		Transport: &http.Transport{
			DialContext:            a.dialer.DialContext,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
			// Tasks have certificates of all kinds, and it is not the framework that talks to them in earnest: as Marathon does.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		// Where an answer points is not ours to ask. That it answers is enough.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return a
}

// ask makes one probe. It takes no longer than the check's time-out.
func (a *asker) ask(ctx context.Context, c *Check) answer {
	if c.Missing != "" {
		return answer{cause: c.Missing}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	if c.Protocol == "TCP" {
		conn, err := a.dialer.DialContext(ctx, "tcp", c.Address)
		if err != nil {
			return answer{cause: wording(err, c.Timeout)}
		}
		_ = conn.Close()
		return answer{ok: true}
	}
	return a.askHTTP(ctx, c)
}

func (a *asker) askHTTP(ctx context.Context, c *Check) answer {
	informational := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
		informational = true
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.target(), nil)
	if err != nil {
		return answer{cause: fmt.Sprintf("path %q makes no URL", c.Path)}
	}
	req.Header.Set("User-Agent", "holdfast")
	resp, err := a.client.Do(req)
	if err != nil {
		return answer{ignore: informational && c.Ignore1xx, cause: wording(err, c.Timeout)}
	}
	defer resp.Body.Close()
	out := answer{cause: fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
	if c.Ready {
		out.ok = slices.Contains(c.Codes, resp.StatusCode)
		if c.Keep {
			out.last = keep(resp)
		}
		return out
	}
	out.ok = resp.StatusCode >= 200 && resp.StatusCode < 400
	out.ignore = resp.StatusCode < 200 && c.Ignore1xx
	return out
}

// keep reads the beginning of an answer; what cannot be shown as text is left out.
func keep(resp *http.Response) *Response {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody)) // what came before an error is worth showing
	for len(body) > 0 && !utf8.Valid(body) && len(body) == maxBody {
		body = body[:len(body)-1] // the last character may be cut
		if len(body) < maxBody-utf8.UTFMax {
			break
		}
	}
	if !utf8.Valid(body) {
		body = nil
	}
	t := resp.Header.Get("Content-Type")
	if t == "" {
		t = "text/plain"
	}
	return &Response{Status: resp.StatusCode, ContentType: t, Body: string(body)}
}

// wording says in a few words why nobody answered.
func wording(err error, limit time.Duration) string {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s", limit)
	}
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	text := strings.ToValidUTF8(err.Error(), "?") // it may quote what a task sent
	return text[:min(len(text), 200)]
}

package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// errorBody is every error answer: Marathon's, and `code` on /v1.
type errorBody struct {
	Message     string          `json:"message"`
	Code        fault.Class     `json:"code"`
	Details     json.RawMessage `json:"details"`
	Deployments []struct {
		ID string `json:"id"`
	} `json:"deployments"`
}

// decodeError makes the error of an answer: its class from `code`, else from the status.
func decodeError(status int, data []byte) error {
	class := fault.FromHTTPStatus(status)
	var b errorBody
	if err := json.Unmarshal(data, &b); err != nil || b.Message == "" {
		text := strings.TrimSpace(string(data))
		if len(text) > 200 {
			text = text[:200] + "…"
		}
		if text == "" {
			text = http.StatusText(status)
		}
		return fault.New(class, "the framework answered %d: %s", status, text)
	}
	if b.Code != "" {
		class = b.Code
	} else if status == http.StatusConflict && strings.Contains(b.Message, "already exists") {
		class = fault.Exists
	}
	text := b.Message
	if len(b.Deployments) > 0 {
		ids := make([]string, len(b.Deployments))
		for i, d := range b.Deployments {
			ids[i] = d.ID
		}
		text += fmt.Sprintf(" (deployments: %s)", strings.Join(ids, ", "))
	}
	var details []fault.Detail
	if json.Unmarshal(b.Details, &details) == nil {
		for _, d := range details {
			text += fmt.Sprintf("\n  %s: %s", d.Path, strings.Join(d.Errors, "; "))
		}
		return fault.WithDetails(class, text, details...)
	}
	var detail string
	if json.Unmarshal(b.Details, &detail) == nil && detail != "" {
		text += ": " + detail
	}
	return fault.New(class, "%s", text)
}

// warnings takes the texts out of Warning headers: `299 holdfast "text"`.
func warnings(h http.Header) []string {
	var out []string
	for _, v := range h.Values("Warning") {
		_, rest, ok := strings.Cut(v, "\"")
		if !ok {
			out = append(out, v)
			continue
		}
		if text, err := strconv.Unquote("\"" + rest); err == nil {
			out = append(out, text)
		} else {
			out = append(out, strings.Trim(rest, "\""))
		}
	}
	return out
}

// readEvents sends the frames of an event stream until it ends.
func readEvents(ctx context.Context, r io.Reader, out chan<- Event) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 8<<20)
	var data strings.Builder
	for sc.Scan() {
		line := strings.TrimSuffix(sc.Text(), "\r")
		if line != "" {
			if d, ok := strings.CutPrefix(line, "data:"); ok {
				data.WriteString(strings.TrimPrefix(d, " "))
			}
			continue
		}
		if data.Len() == 0 {
			continue
		}
		var e Event
		err := json.Unmarshal([]byte(data.String()), &e)
		data.Reset()
		if err != nil {
			continue // a frame of a newer server; the list is the truth
		}
		select {
		case out <- e:
		case <-ctx.Done():
			return
		}
	}
}

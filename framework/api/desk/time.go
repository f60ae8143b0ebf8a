package desk

import (
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// timeFormat is Marathon's: always three digits, always UTC. Versions are such times.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Stamp prints a time so; the zero time is "".
func Stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(timeFormat)
}

// ParseVersion reads a time in any ISO 8601 form that clients use and writes it as versions are.
func ParseVersion(text string) (string, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, text); err == nil {
			return Stamp(t), nil
		}
	}
	return "", fault.New(fault.Invalid, "Invalid timestamp provided '%s'. Expecting ISO-8601 datetime string.", text)
}

// IPProtocol is Marathon's word for the kind of an IP address.
func IPProtocol(ip string) string {
	if strings.Contains(ip, ":") {
		return "IPv6"
	}
	return "IPv4"
}

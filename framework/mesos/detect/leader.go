package detect

import (
	"encoding/json"
	"math"
	"net"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Leader is the leading master, as it describes itself.
type Leader struct {
	// ID is the master's own, new with each of its starts.
	ID string
	// Address is what to connect to, "ip:port".
	Address string
	// Hostname is the name it goes by, which its certificate should name. "" when it did not say.
	Hostname string
	// Version of Mesos, for people.
	Version string
}

// Same tells whether two are one master in one life, although it may have registered twice.
func (l *Leader) Same(other *Leader) bool {
	return l != nil && other != nil && l.ID == other.ID && l.Address == other.Address
}

const (
	jsonLabel   = "json.info_"
	binaryLabel = "info_"
	// maxInfo bounds a MasterInfo; real ones have less than 1 KB.
	maxInfo = 64 << 10
)

// leading gives the child that leads, "" for none: the lowest sequence of all that stand for election, whatever their form.
// Sequences are signed 32-bit numbers that ZooKeeper lets run over.
func leading(children []string) string {
	best, lowest := "", int64(math.MaxInt64)
	for _, c := range children {
		sequence, ok := strings.CutPrefix(c, jsonLabel)
		if !ok {
			sequence, ok = strings.CutPrefix(c, binaryLabel)
		}
		n, err := strconv.ParseInt(sequence, 10, 32)
		if !ok || err != nil || n >= lowest {
			continue
		}
		best, lowest = c, n
	}
	return best
}

// parseInfo reads a MasterInfo. What it says is used for connecting and for messages only.
func parseInfo(data []byte) (*Leader, error) {
	if len(data) > maxInfo {
		return nil, fault.New(fault.Invalid, "%d bytes are too many", len(data))
	}
	var info struct {
		ID       string `json:"id"`
		PID      string `json:"pid"`
		Hostname string `json:"hostname"`
		Version  string `json:"version"`
		Address  struct {
			Hostname string `json:"hostname"`
			IP       string `json:"ip"`
			Port     int64  `json:"port"`
		} `json:"address"`
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "no JSON")
	}
	host, port := info.Address.IP, info.Address.Port
	if host == "" { // masters before 0.25 had no address
		if _, at, ok := strings.Cut(info.PID, "@"); ok {
			if h, p, err := net.SplitHostPort(at); err == nil {
				host = h
				port, _ = strconv.ParseInt(p, 10, 32)
			}
		}
	}
	switch {
	case net.ParseIP(host) == nil || port < 1 || port > 65535:
		return nil, fault.New(fault.Invalid, "it names no address and port")
	case len(info.ID) > 255 || len(info.Version) > 255:
		return nil, fault.New(fault.Invalid, "its id or version is too long")
	}
	l := &Leader{ID: info.ID, Address: net.JoinHostPort(host, strconv.FormatInt(port, 10)), Version: info.Version}
	for _, name := range []string{info.Address.Hostname, info.Hostname} {
		if l.Hostname == "" && isHostname(name) {
			l.Hostname = name
		}
	}
	return l, nil
}

func isHostname(s string) bool {
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}

package detect

import (
	"net"
	"path"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// Scheme is how addresses of this package begin.
const Scheme = "zk://"

// address is where masters register.
type address struct {
	servers        []string // host:port
	path           string
	user, password string
}

// parse reads zk://[user:password@]host[:port],…/path as Mesos's own --master and --zk flags do: user and password stand
// there as they are, without URL encoding.
func parse(s string) (address, error) {
	var a address
	rest, ok := strings.CutPrefix(s, Scheme)
	shown := Scheme + rest
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		shown = Scheme + "…" + rest[at:]
		if a.user, a.password, ok = strings.Cut(rest[:at], ":"); !ok || a.user == "" {
			return a, bad(shown, "before the @ there must be user:password")
		}
		rest = rest[at+1:]
	}
	if !ok {
		return a, bad(s, "it does not begin with "+Scheme)
	}
	hosts, znode, _ := strings.Cut(rest, "/")
	a.path = "/" + strings.TrimSuffix(znode, "/")
	switch {
	case a.path == "/":
		return a, bad(shown, "the path is missing that the masters were started with, usually /mesos")
	case path.Clean(a.path) != a.path || len(a.path) > 1024 || strings.ContainsFunc(a.path, func(r rune) bool { return r <= ' ' || r >= 127 }):
		return a, bad(shown, "the path is no plain path")
	}
	for h := range strings.SplitSeq(hosts, ",") {
		server, err := hostPort(strings.TrimSpace(h))
		if err != nil {
			return a, bad(shown, "server "+strconv.Quote(h)+" is not host:port")
		}
		a.servers = append(a.servers, server)
	}
	return a, nil
}

func bad(shown, why string) error {
	return fault.New(fault.Invalid, "master %q: %s; it is zk://[user:password@]host1:2181,host2:2181,…/path", shown, why)
}

// hostPort puts in ZooKeeper's port where there is none.
func hostPort(h string) (string, error) {
	host, port, err := net.SplitHostPort(h)
	if err != nil {
		host, port = strings.Trim(h, "[]"), "2181"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, " /@?#") {
		return "", fault.New(fault.Invalid, "no host:port")
	}
	if strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", fault.New(fault.Invalid, "no host")
	}
	return net.JoinHostPort(host, port), nil
}

// String shows the address without its secret.
func (a address) String() string { return Scheme + strings.Join(a.servers, ",") + a.path }

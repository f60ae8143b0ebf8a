// Package zookeeper is a lease authority on ZooKeeper 3.4 or later: lease.Registers as znodes and multi-op transactions.
// Sessions, ephemeral nodes and pings play no part in it; a watch is only a hint.
//
// A register "claims/ab/x" is the znode "<root>/claims/ab/=x"; the '=' tells registers from the folders
// above them. Its Version is the znode's mzxid: unique to one write for ever. ZooKeeper's own checks are of the znode's
// version, which begins anew when a znode is deleted and made again; therefore every transaction also checks
// the version of one guard znode that each deletion raises, so that a version read before a deletion is never taken for one after it.
//
// Reads are preceded by a sync, so that they see everything committed before they began. A sync is answered without a quorum
// by a leader that was deposed a moment ago and does not know it yet: such a read may miss the newest writes. Nothing rests on that: every
// decision is a compare-and-set, which needs the quorum.
package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Options of a connection.
type Options struct {
	// Root is the folder of the registers, "/holdfast/<cluster>". It is made when it is not there.
	Root string
	// SessionTimeout is asked of the server; only how soon a dead server is left depends on it. Default 6 s.
	SessionTimeout time.Duration
	// User and Password, when given, are used for digest authentication, and what is created is then closed to others.
	User, Password string
}

// Client is a connection to an ensemble. Make it with Dial. It is safe for concurrent use.
type Client struct {
	conn *zk.Conn
	o    Options
	acl  []zk.ACL
	done chan struct{}
	once sync.Once

	mu       sync.Mutex
	folders  map[string]bool // known to exist; folders are never deleted
	loggedIn bool            // the library repeats it after each reconnection
}

var _ lease.Registers = (*Client)(nil)

// ParseAddress reads zk://user:password@host:port,host:port/path. Invalid when it is something else. The port is 2181 when none is given.
func ParseAddress(address string) (servers []string, o Options, err error) {
	bad := func(why string) error {
		return fault.New(fault.Invalid, "ZooKeeper address %q: %s; it is zk://[user:password@]host:port[,host:port…]/path", redact(address), why)
	}
	rest, ok := strings.CutPrefix(address, "zk://")
	if !ok {
		return nil, o, bad("it does not begin with zk://")
	}
	hosts, root, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(hosts, '@'); at >= 0 {
		user, password, ok := strings.Cut(hosts[:at], ":")
		if !ok || user == "" {
			return nil, o, bad("user and password are not user:password")
		}
		if o.User, err = url.PathUnescape(user); err != nil {
			return nil, o, bad("the user is not URL-encoded")
		}
		if o.Password, err = url.PathUnescape(password); err != nil {
			return nil, o, bad("the password is not URL-encoded")
		}
		hosts = hosts[at+1:]
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if !strings.Contains(h, ":") {
			h += ":2181"
		}
		host, port, err := net.SplitHostPort(h)
		if err != nil || host == "" || port == "" {
			return nil, o, bad("a server is not host:port")
		}
		servers = append(servers, h)
	}
	if root != "" {
		if err := lease.CheckKey(strings.TrimSuffix(root, "/")); err != nil {
			return nil, o, bad("the path may only hold letters, digits, '.', '_', '-' and single '/'")
		}
	}
	o.Root = "/" + strings.TrimSuffix(root, "/")
	return servers, o, nil
}

// redact takes the password out of an address.
func redact(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	return "zk://…" + address[at:]
}

// Dial prepares a connection to any of the servers. Nothing need be there yet: each call waits for a connection as long as its
// context lets it.
func Dial(servers []string, o Options) (*Client, error) {
	if o.SessionTimeout == 0 {
		o.SessionTimeout = 6 * time.Second
	}
	if o.Root == "" || o.Root == "/" {
		return nil, fault.New(fault.Invalid, "ZooKeeper authority: it needs a path of its own")
	}
	conn, events, err := zk.Connect(servers, o.SessionTimeout, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "connect to ZooKeeper")
	}
	c := &Client{conn: conn, o: o, acl: zk.WorldACL(zk.PermAll), done: make(chan struct{}), folders: map[string]bool{}}
	go func() {
		for range events { // the connection blocks nobody when its events are read
		}
	}()
	if o.User != "" {
		c.acl = zk.DigestACL(zk.PermAll, o.User, o.Password)
	}
	return c, nil
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Close ends every call under way.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.done); c.conn.Close() })
	return nil
}

func (c *Client) znode(key string) string {
	return path.Join(c.o.Root, path.Dir(key), "="+path.Base(key))
}

func (c *Client) guard() string { return c.o.Root + "/guard" }

// beacon is the znode that every write under a prefix touches, so that one watch covers it: one for each first part of a
// key, and for requests one a node.
func (c *Client) beacon(key string) string {
	parts := strings.SplitN(key, "/", 3)
	name := parts[0]
	if name == "requests" && len(parts) > 2 {
		name += "." + parts[1]
	}
	return c.o.Root + "/beacons/" + name
}

// Get reads one register.
func (c *Client) Get(ctx context.Context, key string) (lease.Entry, error) {
	if err := lease.CheckKey(key); err != nil {
		return lease.Entry{}, err
	}
	e, _, err := c.read(ctx, key, true)
	return e, err
}

type znode struct {
	data []byte
	stat *zk.Stat
}

// read gives a register and the version of its znode.
func (c *Client) read(ctx context.Context, key string, sync bool) (lease.Entry, int32, error) {
	z, err := do(ctx, c, func() (znode, error) {
		if sync {
			if _, err := c.conn.Sync(c.znode(key)); err != nil && !errors.Is(err, zk.ErrNoNode) {
				return znode{}, err
			}
		}
		data, stat, err := c.conn.Get(c.znode(key))
		return znode{data, stat}, err
	})
	if err != nil {
		return lease.Entry{}, 0, readError(err, "get register "+key)
	}
	return lease.Entry{Key: key, Value: z.data, Version: uint64(z.stat.Mzxid)}, z.stat.Version, nil
}

// readError sorts what a read failed with: without an answer it is Unavailable, because it has no effect.
func readError(err error, what string) error {
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return fault.New(fault.NotFound, "%s: there is none", what)
	case errors.Is(err, zk.ErrNoAuth), errors.Is(err, zk.ErrAuthFailed):
		return fault.Wrap(fault.Denied, err, "%s: ZooKeeper's access list forbids it", what)
	}
	return fault.Wrap(fault.Unavailable, err, "%s", what)
}

// errNotSent says that a call ended before it went out.
var errNotSent = errors.New("not sent")

// do runs one call of the client library, which knows no contexts, until ctx or the connection ends. The call may still take
// effect after that.
func do[T any](ctx context.Context, c *Client, call func() (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, fmt.Errorf("%w: %w", errNotSent, err)
	}
	type result struct {
		v   T
		err error
	}
	out := make(chan result, 1)
	go func() {
		if err := c.login(); err != nil {
			out <- result{zero, fmt.Errorf("%w: %w", errNotSent, err)}
			return
		}
		v, err := call()
		out <- result{v, err}
	}()
	select {
	case r := <-out:
		return r.v, r.err
	case <-ctx.Done():
		return zero, ctx.Err()
	case <-c.done:
		return zero, zk.ErrClosing
	}
}

// login authenticates once a server is there.
func (c *Client) login() error {
	if c.o.User == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loggedIn {
		return nil
	}
	err := c.conn.AddAuth("digest", []byte(c.o.User+":"+c.o.Password))
	c.loggedIn = err == nil
	return err
}

// List reads all registers under prefix. It is not a snapshot: each entry is read by itself, after one sync.
func (c *Client) List(ctx context.Context, prefix string) ([]lease.Entry, error) {
	if err := lease.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	what := "list registers " + prefix
	if _, err := do(ctx, c, func() (string, error) { return c.conn.Sync(c.o.Root) }); err != nil && !errors.Is(err, zk.ErrNoNode) {
		return nil, readError(err, what)
	}
	folder, begin := "", prefix
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		folder, begin = prefix[:i], prefix[i+1:]
	}
	keys, err := c.keys(ctx, folder, begin)
	if err != nil {
		return nil, readError(err, what)
	}
	sort.Strings(keys)
	entries, err := c.readAll(ctx, keys)
	if err != nil {
		return nil, fault.Op(err, "%s", what)
	}
	return entries, nil
}

// keys walks the folders below a folder whose names begin as asked.
func (c *Client) keys(ctx context.Context, folder, begin string) ([]string, error) {
	at := path.Join(c.o.Root, folder)
	names, err := do(ctx, c, func() ([]string, error) { n, _, err := c.conn.Children(at); return n, err })
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, n := range names {
		if name, register := strings.CutPrefix(n, "="); register {
			if strings.HasPrefix(name, begin) {
				keys = append(keys, path.Join(folder, name))
			}
			continue
		}
		if folder == "" && n == "beacons" || !strings.HasPrefix(n, begin) {
			continue
		}
		below, err := c.keys(ctx, path.Join(folder, n), "")
		if err != nil {
			return nil, err
		}
		keys = append(keys, below...)
	}
	return keys, nil
}

// readAll reads registers side by side; those that are gone meanwhile are left out.
func (c *Client) readAll(ctx context.Context, keys []string) ([]lease.Entry, error) {
	const sideBySide = 64
	entries, errs := make([]lease.Entry, len(keys)), make([]error, len(keys))
	slots := make(chan struct{}, sideBySide)
	var wg sync.WaitGroup
	for i, key := range keys {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			entries[i], _, errs[i] = c.read(ctx, key, false)
		})
	}
	wg.Wait()
	out := entries[:0]
	for i, e := range entries {
		switch {
		case errs[i] == nil:
			out = append(out, e)
		case !fault.Is(errs[i], fault.NotFound):
			return nil, errs[i]
		}
	}
	return out, nil
}

package mesos_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/mastertest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/scheduler"
)

// standing is a master that stands for election as Mesos's do: an ephemeral sequential znode of a session of its own.
type standing struct {
	*mastertest.Master
	conn *zk.Conn
	node string
}

const electionPath = "/cluster/mesos"

// stand registers a master. acl is the znode's.
func stand(t *testing.T, servers []string, m *mastertest.Master, acl []zk.ACL) *standing {
	t.Helper()
	conn, events, err := zk.Connect(servers, 4*time.Second, zk.WithLogInfo(false), zk.WithLogger(silent{}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range events {
		}
	}()
	t.Cleanup(conn.Close)
	s := &standing{Master: m, conn: conn}
	for _, p := range []string{"/cluster", electionPath} {
		if _, err := conn.Create(p, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && err != zk.ErrNodeExists {
			t.Fatal(err)
		}
	}
	s.register(t, masterInfo(t, m), acl)
	return s
}

func (s *standing) register(t *testing.T, info []byte, acl []zk.ACL) {
	t.Helper()
	if acl == nil {
		acl = zk.WorldACL(zk.PermAll)
	}
	var err error
	if s.node, err = s.conn.Create(electionPath+"/json.info_", info, zk.FlagEphemeral|zk.FlagSequence, acl); err != nil {
		t.Fatal(err)
	}
}

// resign takes the znode away, as the end of the session would.
func (s *standing) resign(t *testing.T) {
	t.Helper()
	if err := s.conn.Delete(s.node, -1); err != nil {
		t.Fatal(err)
	}
}

// masterInfo is what Mesos writes.
func masterInfo(t *testing.T, m *mastertest.Master) []byte {
	t.Helper()
	u, err := url.Parse(m.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, _ := strconv.Atoi(u.Port())
	b, err := json.Marshal(map[string]any{"id": "id-" + u.Port(), "hostname": "localhost", "ip": 16777343, "port": port, "pid": "master@" + u.Host, "version": "1.11.0",
		"address": map[string]any{"hostname": "localhost", "ip": u.Hostname(), "port": port}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type silent struct{}

func (silent) Printf(string, ...any) {}

func zkMaster(servers []string) string { return "zk://" + strings.Join(servers, ",") + electionPath }

func (r *running) count(is func(scheduler.Event) bool) (n int) {
	for _, e := range r.all() {
		if is(e) {
			n++
		}
	}
	return n
}

func disconnected(e scheduler.Event) bool { _, ok := e.(scheduler.Disconnected); return ok }

// within waits for a condition.
func within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// TestHeavyElection follows masters through an election on a real ensemble whose own leader dies, whose servers all go away and come back.
func TestHeavyElection(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 3)
	a, b := mastertest.New(), mastertest.New()
	defer a.Close()
	defer b.Close()

	r := start(t, "f", zkMaster(z.Servers()))
	if d := await[scheduler.Disconnected](r, 1); !strings.Contains(d.Reason, "ZooKeeper") {
		t.Errorf("reason %q", d.Reason)
	}
	within(t, 30*time.Second, "the missing path is told", func() bool {
		return r.count(func(e scheduler.Event) bool {
			d, ok := e.(scheduler.Disconnected)
			return ok && strings.Contains(d.Reason, "no such path")
		}) > 0
	})
	first := stand(t, z.Servers(), a, nil)
	within(t, 30*time.Second, "subscribed to the first master", a.Subscribed)
	second := stand(t, z.Servers(), b, nil)
	gone := r.count(disconnected)

	// ZooKeeper's own leader dies: nothing changes for whoever is subscribed.
	leader := z.Leader()
	z.Kill(leader)
	a.Offer("O1", "S0", 1, 1)
	await[scheduler.Offers](r, 1)
	z.Start(leader)
	z.Await(leader)
	if !a.Subscribed() || b.Subscribed() || r.count(disconnected) != gone {
		t.Errorf("the subscription did not outlive ZooKeeper's leader: %+v", r.all()[max(0, len(r.all())-3):])
	}

	// The leading master loses its znode: the next one leads, although the first answers still.
	first.resign(t)
	within(t, 30*time.Second, "subscribed to the second master", b.Subscribed)
	within(t, 30*time.Second, "unsubscribed from the first", func() bool {
		return r.count(func(e scheduler.Event) bool {
			d, ok := e.(scheduler.Disconnected)
			return ok && strings.Contains(d.Reason, "does not lead any more")
		}) == 1
	})

	// All of ZooKeeper goes away: the connection to the master stays, and one that breaks is made again.
	gone = r.count(disconnected)
	for i := range 3 {
		z.Kill(i)
	}
	time.Sleep(time.Second)
	b.Offer("O2", "S0", 1, 1)
	await[scheduler.Offers](r, 2)
	if r.count(disconnected) != gone {
		t.Error("ZooKeeper's absence ended the subscription")
	}
	b.Cut()
	within(t, 30*time.Second, "subscribed again without ZooKeeper", b.Subscribed)

	// It comes back; the second master goes, the first registers again and leads.
	for i := range 3 {
		z.Start(i)
	}
	for i := range 3 {
		z.Await(i)
	}
	within(t, 30*time.Second, "the first stands again", func() bool {
		node, err := first.conn.Create(electionPath+"/json.info_", masterInfo(t, a), zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		first.node = node
		return err == nil
	})
	second.conn.Close() // its session ends, and its znode with it
	a.Cut()
	within(t, 30*time.Second, "back with the first", a.Subscribed)
}

// TestHeavyElectionRefuses shows what a person is told when the path, the access list or the master is wrong, and that no secret is in it.
func TestHeavyElectionRefuses(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	m := mastertest.New()
	defer m.Close()
	s := stand(t, z.Servers(), m, zk.DigestACL(zk.PermAll, "mesos", "geheim"))
	core, logs := observer.New(zapcore.DebugLevel)
	quick := func(secret string) func(*mesos.Config) {
		return func(c *mesos.Config) { c.MasterSecret, c.Log = secret, zap.New(core) }
	}
	told := func(r *running, text string) {
		t.Helper()
		within(t, 30*time.Second, "told: "+text, func() bool {
			return r.count(func(e scheduler.Event) bool {
				d, ok := e.(scheduler.Disconnected)
				return ok && strings.Contains(d.Reason, text)
			}) > 0
		})
		r.cancel()
	}
	told(start(t, "f", zkMaster(z.Servers()), quick("")), "--master-secret-file")
	told(start(t, "f", zkMaster(z.Servers()), quick("mesos:geheim-wrong")), `forbids user "mesos"`)
	told(start(t, "f", "zk://127.0.0.1:1/mesos", quick("")), "ZooKeeper zk://127.0.0.1:1/mesos")
	right := start(t, "f", zkMaster(z.Servers()), quick("mesos:geheim"))
	within(t, 30*time.Second, "subscribed with the right password", m.Subscribed)
	right.cancel()
	inURL := start(t, "f", strings.Replace(zkMaster(z.Servers()), "zk://", "zk://mesos:geheim@", 1), quick(""))
	within(t, 30*time.Second, "subscribed with the password in the address", func() bool {
		return inURL.count(func(e scheduler.Event) bool { _, ok := e.(scheduler.Subscribed); return ok }) > 0
	})
	inURL.cancel()

	s.resign(t)
	if _, err := s.conn.Create(electionPath+"/info_0000000000", []byte{10, 3}, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	told(start(t, "f", zkMaster(z.Servers()), quick("")), "before 0.24")
	if err := s.conn.Delete(electionPath+"/info_0000000000", -1); err != nil {
		t.Fatal(err)
	}
	s.register(t, []byte("{"), nil)
	told(start(t, "f", zkMaster(z.Servers()), quick("")), "cannot be read")
	for _, e := range logs.All() {
		if line := e.Message + " " + stringify(e.ContextMap()); strings.Contains(line, "geheim") {
			t.Errorf("a secret is in the log: %s", line)
		}
	}
}

// TestHeavyElectionByTLS: a master found in ZooKeeper is dialled at its address, and its certificate is checked for its name, which nobody here can
// look up.
func TestHeavyElectionByTLS(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper)
	z := servertest.StartZooKeeper(t, 1)
	ca := newAuthority(t)
	m := mastertest.NewTLS(ca.server("master", false, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"master.invalid"} }))
	defer m.Close()
	s := stand(t, z.Servers(), m, nil)
	secure := func(c *mesos.Config) {
		var err error
		if c.TLS, err = (mesos.TLSFiles{CA: ca.file("ca.pem")}).Config(); err != nil {
			t.Fatal(err)
		}
	}
	told := func(r *running, text string) bool {
		return r.count(func(e scheduler.Event) bool {
			d, ok := e.(scheduler.Disconnected)
			return ok && strings.Contains(d.Reason, text)
		}) > 0
	}
	wrong := start(t, "f", zkMaster(z.Servers()), secure)
	within(t, 30*time.Second, "the certificate is not for localhost", func() bool { return told(wrong, "not localhost") })
	wrong.stop()
	s.resign(t)
	s.register(t, bytes.ReplaceAll(masterInfo(t, m), []byte("localhost"), []byte("master.invalid")), nil)
	start(t, "f", zkMaster(z.Servers()), secure)
	within(t, 30*time.Second, "subscribed by https", m.Subscribed)
}

func stringify(m map[string]any) string {
	b, _ := json.Marshal(m)
	return string(b)
}

func TestElectionAddresses(t *testing.T) {
	for _, bad := range []string{"zk://u:geheim@h", "zk://h/m,http://h", "u:geheim@h:5050,zk://h/m", "", "ftp://h"} {
		if _, err := mesos.New(mesos.Config{Master: bad}); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("New(%q): %v", bad, err)
		}
	}
	if _, err := mesos.New(mesos.Config{Master: "h:5050", MasterSecret: "u:p"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a secret without ZooKeeper: %v", err)
	}
	if _, err := mesos.New(mesos.Config{Master: "zk://h/m", MasterSecret: "geheim"}); !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a secret that is not user:password: %v", err)
	}
}

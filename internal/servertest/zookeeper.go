package servertest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

const zookeeperJar = "/usr/share/java/zookeeper.jar"

// NeedZooKeeper is the heavy.Need of a real ZooKeeper: java and Debian's package zookeeper.
func NeedZooKeeper(t testing.TB) string {
	if _, err := os.Stat(zookeeperJar); err != nil {
		return "needs Debian's package zookeeper"
	}
	return heavy.Program("java")(t)
}

// ZooKeeper is an ensemble of one or three servers.
type ZooKeeper struct {
	members []*zkMember
}

type zkMember struct {
	process
	addr string
}

// StartZooKeeper starts an ensemble of n servers (1 or 3) with a short tick of 200 ms and waits until it has a leader.
func StartZooKeeper(t testing.TB, n int) *ZooKeeper {
	t.Helper()
	ports := FreePorts(t, 3*n)
	z := &ZooKeeper{}
	var peers strings.Builder
	for i := range n {
		fmt.Fprintf(&peers, "server.%d=127.0.0.1:%d:%d;127.0.0.1:%d\n", i+1, ports[3*i], ports[3*i+1], ports[3*i+2])
	}
	for i := range n {
		dir := t.TempDir()
		data := filepath.Join(dir, "data")
		cfg := fmt.Sprintf("tickTime=200\ninitLimit=50\nsyncLimit=15\ndataDir=%s\nminSessionTimeout=400\nmaxSessionTimeout=60000\nadmin.enableServer=false\n4lw.commands.whitelist=*\nclientPortAddress=127.0.0.1\n", data)
		if n == 1 {
			cfg += fmt.Sprintf("clientPort=%d\n", ports[2])
		} else {
			cfg += "standaloneEnabled=false\nreconfigEnabled=false\n" + peers.String()
			cfg = strings.Replace(cfg, "clientPortAddress=127.0.0.1\n", "", 1)
		}
		for path, text := range map[string]string{filepath.Join(dir, "zoo.cfg"): cfg, filepath.Join(data, "myid"): fmt.Sprintln(i + 1),
			filepath.Join(dir, "log4j.properties"): "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\nlog4j.appender.out.layout=org.apache.log4j.PatternLayout\nlog4j.appender.out.layout.ConversionPattern=%d %p %m%n\n"} {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := &zkMember{addr: fmt.Sprintf("127.0.0.1:%d", ports[3*i+2])}
		m.process = process{t: t, name: fmt.Sprintf("zookeeper %d", i+1), log: filepath.Join(dir, "log"), make: func() *exec.Cmd {
			return exec.Command("java", "-Xmx128m", "-XX:+UseSerialGC", "-cp", dir+":"+zookeeperJar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(dir, "zoo.cfg"))
		}}
		z.members = append(z.members, m)
		m.start()
		t.Cleanup(func() { m.signal(syscall.SIGKILL) })
	}
	for i := range n {
		z.Await(i)
	}
	return z
}

// Servers gives the client addresses, "host:port".
func (z *ZooKeeper) Servers() []string {
	var out []string
	for _, m := range z.members {
		out = append(out, m.addr)
	}
	return out
}

// Kill ends server i with SIGKILL.
func (z *ZooKeeper) Kill(i int) { z.members[i].signal(syscall.SIGKILL) }

// Pause and Continue stop server i where it stands and let it go on.
func (z *ZooKeeper) Pause(i int) { z.members[i].signal(syscall.SIGSTOP) }

// Continue is the end of Pause.
func (z *ZooKeeper) Continue(i int) { z.members[i].signal(syscall.SIGCONT) }

// Start starts server i again on its data; Await waits for it.
func (z *ZooKeeper) Start(i int) { z.members[i].start() }

// Await waits until server i serves clients, as leader, follower or alone.
func (z *ZooKeeper) Await(i int) {
	m := z.members[i]
	m.t.Helper()
	m.await(30*time.Second, func() error { _, err := m.mode(); return err })
}

// Leader gives the index of the server that leads, -1 for none.
func (z *ZooKeeper) Leader() int {
	for i, m := range z.members {
		if mode, err := m.mode(); err == nil && (mode == "leader" || mode == "standalone") {
			return i
		}
	}
	return -1
}

// mode asks by the four-letter command srvr.
func (m *zkMember) mode() (string, error) {
	c, err := net.DialTimeout("tcp", m.addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("srvr")); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(c, 1<<16))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if mode, ok := strings.CutPrefix(strings.TrimSpace(line), "Mode: "); ok {
			return mode, nil
		}
	}
	return "", fmt.Errorf("not serving: %q", b)
}

// Package servertest starts real servers for tests: ZooKeeper from Debian's package and Consul built from its Go
// module. Each server has its own directory and ports on loopback, can be killed, stopped and started again on
// its data, and is gone when the test ends. Tests that use it are heavy (package heavy).
package servertest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// process is a server program that can be killed and started again.
type process struct {
	t    testing.TB
	name string
	log  string
	make func() *exec.Cmd
	cmd  *exec.Cmd
	done chan struct{}
}

func (p *process) start() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer out.Close()
	cmd := p.make()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	p.cmd, p.done = cmd, done
}

// signal sends sig to the server and, for a deadly one, waits until it is gone.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, sig)
	if sig == syscall.SIGSTOP || sig == syscall.SIGCONT {
		return
	}
	select {
	case <-p.done:
		p.cmd = nil
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%s does not end on %v; its log is %s", p.name, sig, p.log)
	}
}

// tail gives the end of the log, for the message of a failed start.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return string(b)
}

// await calls ready until it answers nil.
func (p *process) await(limit time.Duration, ready func() error) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s ended at its start:\n%s", p.name, p.tail())
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s is not ready after %v: %v\n%s", p.name, limit, err, p.tail())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// FreePorts gives n free TCP ports of the loopback interface. They are free now; somebody else may take one before it is used,
// which a server then says in its log.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// CacheDir is where servers that are built once are kept: $HOLDFAST_CACHE, or holdfast below the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("HOLDFAST_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "holdfast"), nil
}

package dev

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// startLimit and stopLimit bound how long a cluster in a process of its own may take to answer, and to end.
const (
	startLimit = 60 * time.Second
	stopLimit  = 60 * time.Second
)

// Process is a `holdfast dev` in a process of its own, for the demo and for tests: what they break is the real program.
type Process struct {
	API     *client.Client
	URL     string
	Control *Control
	PID     int
	// Ended is closed when the process has ended.
	Ended <-chan struct{}

	dir string
	cmd *exec.Cmd
}

// Spawn runs `program dev` on dir with a free port and waits until it answers. What it prints goes to <dir>.log.
func Spawn(ctx context.Context, program, dir string, args ...string) (*Process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Clean(dir)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "make a log")
	}
	defer log.Close()
	cmd := exec.Command(program, append([]string{"dev", "--dir", dir, "--port", fmt.Sprint(port), "--verbose"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "start %s dev", program)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	p := &Process{API: client.New(url), URL: url, PID: cmd.Process.Pid, Ended: ended, dir: dir, cmd: cmd}
	if err := p.answers(ctx); err != nil {
		_ = p.Stop()
		return nil, fault.Op(err, "start a cluster (see %s)", log.Name())
	}
	return p, nil
}

func (p *Process) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		info, err := p.API.Info(ctx)
		if err == nil && !info.Connected {
			err = fault.New(fault.Unavailable, "the framework is not connected to the engine yet")
		}
		if err == nil {
			p.Control, err = Connect(p.dir)
		}
		if err == nil {
			// A control socket of an earlier run would not answer.
			var s *Status
			if s, err = p.Control.Status(ctx); err == nil && s.PID == p.PID {
				return AwaitNodes(ctx, p.API, len(s.Nodes))
			}
		}
		select {
		case <-p.Ended:
			return fault.New(fault.Unavailable, "it ended: %v", p.cmd.ProcessState)
		case <-ctx.Done():
			return fault.Wrap(fault.Unknown, err, "no answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// AwaitNodes waits until n nodes are alive, each with its agent known: from then on instances spread over all of them.
func AwaitNodes(ctx context.Context, api *client.Client, n int) error {
	for {
		nodes, err := api.Nodes(ctx)
		alive := 0
		for _, node := range nodes {
			if node.Alive && node.Agent != "" && len(node.Drivers) > 0 {
				alive++
			}
		}
		if err == nil && alive >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unknown, "%d of %d nodes are alive: %v", alive, n, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the cluster as Ctrl-C does. An error says that it did not end by itself or not well.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		select {
		case <-p.Ended:
		default:
			return fault.Wrap(fault.Internal, err, "stop the cluster")
		}
	}
	select {
	case <-p.Ended:
	case <-time.After(stopLimit):
		p.Kill()
		return fault.New(fault.Internal, "the cluster did not stop within %v and was killed", stopLimit)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fault.New(fault.Internal, "the cluster ended with exit code %d", code)
	}
	return nil
}

// Kill is kill -9 of the supervisor.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.Ended
}

// freePort asks the kernel for a TCP port of the loopback interface that is free now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fault.Wrap(fault.Unavailable, err, "find a free port")
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

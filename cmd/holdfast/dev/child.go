package dev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// spawner starts processes that the kernel kills when this process dies. That signal fires when the starting *thread* ends, so
// all of them are started by one goroutine that keeps its thread for good.
type spawner struct {
	calls chan func()
}

func newSpawner() *spawner {
	s := &spawner{calls: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the channel
		for f := range s.calls {
			f()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.calls <- func() { done <- cmd.Start() }
	return <-done
}

func (s *spawner) close() { close(s.calls) }

// restart limits of a child that crashes: at once, then doubling; calm for long enough, it starts over.
const (
	restartFirst = 200 * time.Millisecond
	restartMax   = 10 * time.Second
	restartCalm  = 20 * time.Second
)

// child is a process that is kept running until it is told to end.
type child struct {
	name    string
	command func() *exec.Cmd // built anew for each start; nil environment entries are the caller's business
	logFile string
	grace   time.Duration
	spawn   *spawner
	log     *zap.Logger

	mu       sync.Mutex
	proc     *os.Process
	exited   chan struct{} // closed when proc has been reaped
	stopping bool
	starts   int
	lastErr  string
	wake     chan struct{} // restarts at once, or ends the wait
	ended    chan struct{} // the supervising goroutine is over
}

// startChild starts the process, and a goroutine that restarts it when it ends by itself.
func startChild(c *child) (*child, error) {
	c.wake, c.ended = make(chan struct{}, 1), make(chan struct{})
	if err := c.launch(); err != nil {
		close(c.ended)
		return nil, err
	}
	go c.supervise()
	return c, nil
}

func (c *child) launch() error {
	out, err := os.OpenFile(c.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "open the log of %s", c.name)
	}
	defer out.Close()
	cmd := c.command()
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own keeps the terminal's Ctrl-C from it: the order of stopping is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return nil
	}
	if err := c.spawn.start(cmd); err != nil {
		return fault.Wrap(fault.Unavailable, err, "start %s", c.name)
	}
	c.proc, c.exited = cmd.Process, make(chan struct{})
	c.starts++
	go func(exited chan struct{}) {
		err := cmd.Wait()
		c.mu.Lock()
		c.proc = nil
		c.lastErr = ""
		if err != nil {
			c.lastErr = err.Error()
		}
		c.mu.Unlock()
		close(exited)
	}(c.exited)
	return nil
}

func (c *child) supervise() {
	defer close(c.ended)
	wait := restartFirst
	for {
		c.mu.Lock()
		exited := c.exited
		c.mu.Unlock()
		began := time.Now()
		<-exited
		c.mu.Lock()
		stopping, why := c.stopping, c.lastErr
		c.mu.Unlock()
		if stopping {
			return
		}
		if time.Since(began) > restartCalm {
			wait = restartFirst
		}
		c.log.Warn("child ended, restarting", zap.String("child", c.name), zap.String("why", why), zap.Duration("in", wait), zap.String("log", c.logFile))
		for again := true; again; {
			select {
			case <-time.After(wait):
			case <-c.wake:
			}
			c.mu.Lock()
			stopping = c.stopping
			c.mu.Unlock()
			if stopping {
				return
			}
			wait = min(2*wait, restartMax)
			err := c.launch()
			again = err != nil
			if again {
				c.log.Error("restart", zap.String("child", c.name), zap.Error(err))
			}
		}
	}
}

// stop ends the child for good: SIGTERM, the grace time, SIGKILL. It may be called again.
func (c *child) stop() {
	c.end(syscall.SIGTERM)
}

// kill ends the child for good, at once.
func (c *child) kill() {
	c.end(syscall.SIGKILL)
}

func (c *child) end(first syscall.Signal) {
	c.mu.Lock()
	c.stopping = true
	proc, exited := c.proc, c.exited
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if proc != nil {
		if err := proc.Signal(first); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.log.Warn("signal", zap.String("child", c.name), zap.Error(err))
		}
		select {
		case <-exited:
		case <-time.After(c.grace):
			c.log.Warn("child does not stop, killing it", zap.String("child", c.name), zap.Duration("after", c.grace))
			if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				c.log.Warn("kill", zap.String("child", c.name), zap.Error(err))
			}
			<-exited
		}
	}
	<-c.ended
}

// crash sends SIGKILL and lets the supervision start it again, at once when now is set.
func (c *child) crash(now bool) error {
	c.mu.Lock()
	proc, exited := c.proc, c.exited
	c.mu.Unlock()
	if proc == nil {
		return fault.New(fault.Conflict, "%s is not running", c.name)
	}
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fault.Wrap(fault.Internal, err, "kill %s", c.name)
	}
	<-exited
	if now {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// ChildStatus is what `holdfast dev status` shows of a child.
type ChildStatus struct {
	Name   string `json:"name"`
	PID    int    `json:"pid,omitempty"` // 0 while it is down
	Starts int    `json:"starts"`
	Last   string `json:"last,omitempty"` // how it ended last
	Log    string `json:"log"`
}

func (c *child) status() ChildStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ChildStatus{Name: c.name, Starts: c.starts, Last: c.lastErr, Log: c.logFile}
	if c.proc != nil {
		s.PID = c.proc.Pid
	}
	return s
}

func (s ChildStatus) String() string {
	if s.PID == 0 {
		return fmt.Sprintf("%s down (%s)", s.Name, s.Last)
	}
	return fmt.Sprintf("%s pid %d", s.Name, s.PID)
}

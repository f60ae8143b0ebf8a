package supervise

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

// Spawner starts processes that the kernel kills when this process dies. That signal fires when the starting *thread* ends, so
// all of them are started by one goroutine that keeps its thread for good.
type Spawner struct {
	calls chan func()
}

func NewSpawner() *Spawner {
	s := &Spawner{calls: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the channel
		for f := range s.calls {
			f()
		}
	}()
	return s
}

func (s *Spawner) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.calls <- func() { done <- cmd.Start() }
	return <-done
}

// Close ends the thread, and with it every process it has started: call it last.
func (s *Spawner) Close() { close(s.calls) }

// restart limits of a child that crashes: at once, then doubling; calm for long enough, it starts over.
const (
	restartFirst = 200 * time.Millisecond
	restartMax   = 10 * time.Second
	restartCalm  = 20 * time.Second
)

// Child is a process that is kept running until it is told to end. Name, Command, LogFile, Grace, Spawn and Log are set before Start.
type Child struct {
	Name    string
	Command func() *exec.Cmd // built anew for each start; nil environment entries are the caller's business
	LogFile string
	Grace   time.Duration
	Spawn   *Spawner
	Log     *zap.Logger

	mu       sync.Mutex
	proc     *os.Process
	exited   chan struct{} // closed when proc has been reaped
	stopping bool
	starts   int
	lastErr  string
	wake     chan struct{} // restarts at once, or ends the wait
	ended    chan struct{} // the supervising goroutine is over
}

// Start starts the process, and a goroutine that restarts it when it ends by itself.
func Start(c *Child) (*Child, error) {
	c.wake, c.ended = make(chan struct{}, 1), make(chan struct{})
	if err := c.launch(); err != nil {
		close(c.ended)
		return nil, err
	}
	go c.supervise()
	return c, nil
}

func (c *Child) launch() error {
	out, err := os.OpenFile(c.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "open the log of %s", c.Name)
	}
	defer out.Close()
	cmd := c.Command()
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own keeps the terminal's Ctrl-C from it: the order of stopping is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return nil
	}
	if err := c.Spawn.start(cmd); err != nil {
		return fault.Wrap(fault.Unavailable, err, "start %s", c.Name)
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

func (c *Child) supervise() {
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
		c.Log.Warn("child ended, restarting", zap.String("child", c.Name), zap.String("why", why), zap.Duration("in", wait), zap.String("log", c.LogFile))
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
				c.Log.Error("restart", zap.String("child", c.Name), zap.Error(err))
			}
		}
	}
}

// Stop ends the child for good: SIGTERM, the Grace time, SIGKILL. It may be called again.
func (c *Child) Stop() {
	c.end(syscall.SIGTERM)
}

// Kill ends the child for good, at once.
func (c *Child) Kill() {
	c.end(syscall.SIGKILL)
}

func (c *Child) end(first syscall.Signal) {
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
			c.Log.Warn("signal", zap.String("child", c.Name), zap.Error(err))
		}
		select {
		case <-exited:
		case <-time.After(c.Grace):
			c.Log.Warn("child does not stop, killing it", zap.String("child", c.Name), zap.Duration("after", c.Grace))
			if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				c.Log.Warn("kill", zap.String("child", c.Name), zap.Error(err))
			}
			<-exited
		}
	}
	<-c.ended
}

// Crash sends SIGKILL and lets the supervision start it again, at once when now is set.
func (c *Child) Crash(now bool) error {
	c.mu.Lock()
	proc, exited := c.proc, c.exited
	c.mu.Unlock()
	if proc == nil {
		return fault.New(fault.Conflict, "%s is not running", c.Name)
	}
	if err := proc.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fault.Wrap(fault.Internal, err, "kill %s", c.Name)
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

// Status is what `holdfast dev status` shows of a child.
type Status struct {
	Name   string `json:"name"`
	PID    int    `json:"pid,omitempty"` // 0 while it is down
	Starts int    `json:"starts"`
	Last   string `json:"last,omitempty"` // how it ended last
	Log    string `json:"log"`
}

func (c *Child) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Status{Name: c.Name, Starts: c.starts, Last: c.lastErr, Log: c.LogFile}
	if c.proc != nil {
		s.PID = c.proc.Pid
	}
	return s
}

func (s Status) String() string {
	if s.PID == 0 {
		return fmt.Sprintf("%s down (%s)", s.Name, s.Last)
	}
	return fmt.Sprintf("%s pid %d", s.Name, s.PID)
}

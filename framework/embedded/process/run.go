package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// maxOutput bounds what is kept of a helper's standard output and error, each.
const maxOutput = 64 << 10

// Outcome is what a helper command left behind.
type Outcome struct {
	Exit   Exit
	Stdout []byte // at most 64 KiB
	Stderr []byte // at most 64 KiB
}

// Run runs a helper command to its end (a dvdcli call, a health check). When ctx ends, its whole tree is killed and the
// context's cause is the error. Stdin is /dev/null; Stdin, Stdout, Stderr and Marker of the spec are not used.
func (t *Table) Run(ctx context.Context, spec Spec) (Outcome, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return Outcome{}, err
	}
	defer null.Close()
	out, err := newCapture()
	if err != nil {
		return Outcome{}, err
	}
	defer out.close()
	errs, err := newCapture()
	if err != nil {
		return Outcome{}, err
	}
	defer errs.close()
	spec.Stdin, spec.Stdout, spec.Stderr = null, out.write, errs.write
	spec.Marker = t.name + callSeparator + uuid.NewString()
	if spec.Env == nil {
		spec.Env = os.Environ()
	}
	spec.Env = append(slices.Clip(spec.Env), callName+"="+spec.Marker)
	p, err := t.Start(spec)
	if err != nil {
		return Outcome{}, err
	}
	out.begin()
	errs.begin()
	select {
	case <-p.Exited():
	case <-ctx.Done():
		p.Kill()
		select {
		case <-p.Exited():
		case <-time.After(5 * time.Second):
			return Outcome{}, fmt.Errorf("%w, and does not end by SIGKILL", context.Cause(ctx))
		}
		return Outcome{Exit: p.exit, Stdout: out.bytes(), Stderr: errs.bytes()}, context.Cause(ctx)
	}
	return Outcome{Exit: p.exit, Stdout: out.bytes(), Stderr: errs.bytes()}, nil
}

// RunIn runs a helper command like Run, in the mount namespace of a running task.
func (p *Process) RunIn(ctx context.Context, spec Spec) (Outcome, error) {
	p.mu.Lock()
	if p.space == nil {
		p.mu.Unlock()
		return p.table.Run(ctx, spec)
	}
	fd, err := unix.FcntlInt(p.space.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	p.mu.Unlock()
	if err != nil {
		return Outcome{}, err
	}
	defer unix.Close(fd)
	spec.Mounts = &Mounts{join: fd}
	return p.table.Run(ctx, spec)
}

// capture keeps the first bytes that a command writes and throws the rest away.
type capture struct {
	read, write *os.File
	done        chan struct{}
	data        []byte
}

func newCapture() (*capture, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &capture{read: r, write: w, done: make(chan struct{})}, nil
}

// begin reads until the last writer has closed.
func (c *capture) begin() {
	c.write.Close()
	go func() {
		defer close(c.done)
		buf := make([]byte, 4096)
		for {
			n, err := c.read.Read(buf)
			if room := maxOutput - len(c.data); n > room {
				c.data = append(c.data, buf[:room]...)
			} else {
				c.data = append(c.data, buf[:n]...)
			}
			if err != nil {
				return
			}
		}
	}()
}

// bytes waits until everything has been read; a process outside the tree that holds the pipe is not waited for.
func (c *capture) bytes() []byte {
	_ = c.read.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	<-c.done
	return c.data
}

func (c *capture) close() {
	c.read.Close()
	c.write.Close()
}

// Describe words an exit as Mesos does: "exited with status 3", "terminated with signal Terminated".
func (e Exit) Describe() string {
	if e.Signal == 0 {
		return fmt.Sprintf("exited with status %d", e.Code)
	}
	text := fmt.Sprintf("terminated with signal %s", signalName(e.Signal))
	if e.Core {
		text += " (core dumped)"
	}
	return text
}

// OK says that the command exited with status 0.
func (e Exit) OK() bool { return e.Signal == 0 && e.Code == 0 }

// signalName is strsignal(3), which Mesos uses; Go's own names are lower case.
func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGHUP: "Hangup", syscall.SIGINT: "Interrupt", syscall.SIGQUIT: "Quit", syscall.SIGILL: "Illegal instruction",
		syscall.SIGTRAP: "Trace/breakpoint trap", syscall.SIGABRT: "Aborted", syscall.SIGBUS: "Bus error",
		syscall.SIGFPE: "Floating point exception", syscall.SIGKILL: "Killed", syscall.SIGUSR1: "User defined signal 1",
		syscall.SIGSEGV: "Segmentation fault", syscall.SIGUSR2: "User defined signal 2", syscall.SIGPIPE: "Broken pipe",
		syscall.SIGALRM: "Alarm clock", syscall.SIGTERM: "Terminated", syscall.SIGXCPU: "CPU time limit exceeded",
		syscall.SIGXFSZ: "File size limit exceeded", syscall.SIGSYS: "Bad system call",
	}
	if n, ok := names[s]; ok {
		return n
	}
	return fmt.Sprintf("Unknown signal %d", int(s))
}

// ErrText words a failed start for a status message, without Go's "fork/exec" prefix.
func ErrText(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

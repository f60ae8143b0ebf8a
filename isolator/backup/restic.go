package backup

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// maxOutput bounds what is kept of restic's output.
const maxOutput = 16 << 20

// call is one run of restic.
type call struct {
	repo Repository
	args []string
	dir  string
	// line gets each line of standard output; nil collects it.
	line func([]byte)
	// discard throws standard output away.
	discard bool
	// in is what it reads on standard input.
	in string
}

// run runs restic and gives its output. The process dies with this one. A repository that is locked is unlocked where restic itself says
// that whoever locked it is gone, and tried again for a while.
func (e *Engine) run(ctx context.Context, c call) ([]byte, error) {
	pause := time.Second
	for begun := time.Now(); ; pause = min(2*pause, 10*time.Second) {
		out, err := e.once(ctx, c)
		var locked *lockedError
		if err == nil || !errors.As(err, &locked) || time.Since(begun) > e.lockWait {
			return out, err
		}
		// Removes only locks of processes of this host that are gone, and those that nobody has renewed for half an hour.
		if _, err := e.once(ctx, call{repo: c.repo, args: []string{"unlock"}}); err != nil {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Unknown, ctx.Err(), "repository %s is locked", c.repo.Name)
		}
	}
}

type lockedError struct{ text string }

func (l *lockedError) Error() string { return l.text }

func (e *Engine) once(ctx context.Context, c call) ([]byte, error) {
	env, err := c.repo.environment(e.cache)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.cache, 0o700); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "restic's cache")
	}
	cmd := exec.CommandContext(ctx, e.program, append(c.repo.options(), c.args...)...)
	if c.in != "" {
		cmd.Stdin = strings.NewReader(c.in)
	}
	cmd.Env, cmd.Dir = env, c.dir
	if cmd.Dir == "" {
		cmd.Dir = e.cache
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // restic takes its lock away
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	complaint := &tail{limit: 8 << 10}
	cmd.Stderr = complaint
	out, err := e.execute(cmd, c)
	return out, e.explain(ctx, c, complaint.String(), err)
}

// execute starts and reads. It stays on one thread: the child's parent in the kernel's eyes is the thread.
func (e *Engine) execute(cmd *exec.Cmd, c call) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if c.discard {
		return nil, cmd.Run()
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var all bytes.Buffer
	if c.line == nil {
		_, err = io.Copy(&all, io.LimitReader(pipe, maxOutput+1))
	} else {
		lines := bufio.NewScanner(pipe)
		lines.Buffer(make([]byte, 64<<10), 4<<20)
		for lines.Scan() {
			c.line(lines.Bytes())
		}
		err = lines.Err()
	}
	_, _ = io.Copy(io.Discard, pipe)
	if werr := cmd.Wait(); werr != nil {
		return nil, werr
	}
	if all.Len() > maxOutput {
		return nil, fault.New(fault.Internal, "restic's answer is larger than %d bytes", maxOutput)
	}
	return all.Bytes(), err
}

// explain gives restic's failure a class.
func (e *Engine) explain(ctx context.Context, c call, complaint string, err error) error {
	if err == nil {
		return nil
	}
	verb := c.args[0]
	said := strings.Join(strings.Fields(complaint), " ")
	low := strings.ToLower(said)
	wrap := func(class fault.Class, text string) error {
		return fault.Wrap(class, errors.New(firstWords(said, err)), "repository %s: restic %s: %s", c.repo.Name, verb, text)
	}
	switch {
	case ctx.Err() != nil:
		return fault.Wrap(fault.Unknown, ctx.Err(), "repository %s: restic %s was ended", c.repo.Name, verb)
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return fault.Wrap(fault.Unavailable, err, "restic is not installed on this node")
	case strings.Contains(low, "already locked"):
		return fault.Wrap(fault.Unavailable, &lockedError{firstWords(said, err)}, "repository %s: restic %s", c.repo.Name, verb)
	case strings.Contains(low, "wrong password"), strings.Contains(low, "empty password"):
		return wrap(fault.Denied, "the password in "+c.repo.PasswordFile+" is not the repository's")
	case strings.Contains(low, "is there a repository at"), strings.Contains(low, "unable to open config file"):
		return fault.Wrap(fault.NotFound, errors.New(firstWords(said, err)), "repository %s: there is none at %s", c.repo.Name, c.repo.URL)
	case strings.Contains(low, "no matching id found"), strings.Contains(low, "no snapshot found"):
		return wrap(fault.NotFound, "there is no such backup")
	case strings.Contains(low, "no space left"):
		return wrap(fault.Unavailable, "there is no room")
	}
	return wrap(fault.Unavailable, "it failed")
}

func firstWords(said string, err error) string {
	if said == "" {
		said = err.Error()
	}
	if len(said) > 500 {
		said = "… " + said[len(said)-500:]
	}
	return said
}

// tail keeps the end of what is written to it.
type tail struct {
	mu    sync.Mutex
	kept  []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = t.kept[over:]
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.kept), "?")
}

// create makes a repository that is missing, where the operator allows that.
func (e *Engine) create(ctx context.Context, r Repository, missing error) error {
	if !r.Create {
		return fault.Op(missing, "make it with `restic init`, or set create: true; and see that what should be mounted there is")
	}
	if filepath.IsAbs(r.URL) {
		if _, err := os.Stat(filepath.Dir(r.URL)); err != nil {
			return fault.Wrap(fault.Unavailable, err, "repository %s", r.Name)
		}
	}
	_, err := e.run(ctx, call{repo: r, args: []string{"init"}})
	if err != nil { // by another node in the same moment
		if _, cerr := e.run(ctx, call{repo: r, args: []string{"cat", "config"}}); cerr == nil {
			return nil
		}
	}
	return err
}

// decode reads restic's JSON.
func decode(raw []byte, what string, out any) error {
	return fault.Wrap(fault.Internal, json.Unmarshal(raw, out), "restic's %s cannot be read", what)
}

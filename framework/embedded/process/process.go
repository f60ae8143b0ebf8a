package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to run. Everything in it has been checked by the caller.
type Spec struct {
	Path   string   // absolute, or relative to Dir
	Args   []string // argv, Args[0] included
	Env    []string
	Dir    string
	Marker string // value of MarkerName in Env
	User   *syscall.Credential
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
	Mounts *Mounts // nil: the task shares this program's mount namespace
}

// Exit is how the first process of a task ended.
type Exit struct {
	Code   int            // exit status, meaningless when Signal is set
	Signal syscall.Signal // signal that ended it, 0 for none
	Core   bool           // a core was dumped
}

// Process is one running task.
type Process struct {
	ID        Identity
	table     *Table
	os        *os.Process
	space     *os.File // the task's mount namespace, held open while processes are looked for
	spaceName string

	mu       sync.Mutex
	reaped   bool
	over     bool // no process is left: nothing may be killed in this task's name any more
	sweeping sync.WaitGroup
	doomed   doomed

	exited chan struct{} // closed when the first process has ended and the first sweep is over
	gone   chan struct{} // closed when no process of the task is left
	exit   Exit
}

// sweepPatience is how long the end of the first process is held back while others of its task resist SIGKILL.
const sweepPatience = time.Second

// Start runs a task in a session of its own.
func (t *Table) Start(spec Spec) (*Process, error) {
	attr := &os.ProcAttr{
		Dir: spec.Dir, Env: spec.Env,
		Files: []*os.File{spec.Stdin, spec.Stdout, spec.Stderr},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: spec.User},
	}
	p := &Process{table: t, doomed: doomed{}, exited: make(chan struct{}), gone: make(chan struct{})}
	start := func() (err error) {
		p.os, err = os.StartProcess(spec.Path, spec.Args, attr)
		return err
	}
	var err error
	if spec.Mounts == nil {
		err = start()
	} else {
		err = onOwnThread(func() error {
			if err := spec.Mounts.enter(); err != nil {
				return err
			}
			return start()
		})
	}
	if err != nil {
		return nil, err
	}
	p.ID = Identity{Pid: p.os.Pid, Marker: spec.Marker}
	if st, err := readStat(p.os.Pid); err == nil { // a zombie has it too
		p.ID.Start = st.start
	}
	p.ID.guest = spec.Mounts != nil && spec.Mounts.join > 0
	if spec.Mounts != nil && !p.ID.guest {
		if f, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.os.Pid)); err == nil {
			p.space = f
			p.spaceName, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		}
	}
	go p.watch()
	return p, nil
}

// Exited is closed when the first process has ended and what else was left of the task has been sent SIGKILL.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Gone is closed when no process of the task is left. Only then may its volumes be unmounted.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Exit is valid once Exited is closed.
func (p *Process) Exit() Exit { return p.exit }

// Terminate sends SIGTERM to the first process's group.
func (p *Process) Terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped { // until then the pid is ours
		_ = syscall.Kill(-p.ID.Pid, syscall.SIGTERM)
	}
}

// Kill sends SIGKILL to every process of the task; Exited and Gone tell when they are over.
func (p *Process) Kill() { p.sweep() } // look first: the death of a parent hides its children

// sweep kills what is left of the task and says how many processes it found.
func (p *Process) sweep() int {
	p.mu.Lock()
	// From the moment when nothing is left the names by which processes are recognized may be somebody else's.
	if p.over {
		p.mu.Unlock()
		return 0
	}
	held := !p.reaped
	p.sweeping.Add(1)
	p.mu.Unlock()
	defer p.sweeping.Done()
	found := p.table.members(p.ID, held, p.spaceName)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doomed.kill(found)
}

// doomed are processes that have been sent SIGKILL. One that is on its way out has no environment and no namespace any more by
// which it could be recognized, while it still closes its files: it counts until it is a zombie.
type doomed map[int]uint64

// kill sends SIGKILL and says how many processes are not dead yet.
func (d doomed) kill(found []proc) int {
	for _, m := range found {
		d[m.pid] = m.start
		m.signal(syscall.SIGKILL)
	}
	for pid, start := range d {
		if now, err := readStat(pid); err != nil || now.start != start || now.state == 'Z' || now.state == 'X' {
			delete(d, pid)
		}
	}
	return len(d)
}

func (p *Process) watch() {
	p.waitEnd()
	deadline := time.Now().Add(sweepPatience)
	pause := time.Millisecond
	left := p.sweep()
	for left > 0 && time.Now().Before(deadline) {
		time.Sleep(pause)
		pause = min(2*pause, 50*time.Millisecond)
		left = p.sweep()
	}
	p.reap()
	close(p.exited)
	for left > 0 { // in uninterruptible sleep: killed already, but still holding what it holds
		time.Sleep(250 * time.Millisecond)
		left = p.sweep()
	}
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.sweeping.Wait()
	p.mu.Lock()
	if p.space != nil {
		p.space.Close() // an open handle would keep the namespace and its mounts alive
		p.space = nil
	}
	p.mu.Unlock()
	close(p.gone)
}

// waitEnd returns when the first process has ended, and leaves it unreaped.
func (p *Process) waitEnd() {
	ended := func(options int) bool {
		for {
			var info unix.Siginfo
			err := unix.Waitid(unix.P_PID, p.ID.Pid, &info, unix.WEXITED|unix.WNOWAIT|options, nil)
			if err == unix.EINTR {
				continue
			}
			return err != nil || info.Signo != 0
		}
	}
	fd, err := unix.PidfdOpen(p.ID.Pid, unix.PIDFD_NONBLOCK)
	if err == nil {
		// Through the runtime's poller: a thousand tasks must not be a thousand waiting threads.
		f := os.NewFile(uintptr(fd), "pidfd")
		defer f.Close()
		if conn, err := f.SyscallConn(); err == nil {
			if conn.Read(func(uintptr) bool { return ended(unix.WNOHANG) }) == nil {
				return
			}
		}
	}
	ended(0)
}

func (p *Process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	state, err := p.os.Wait()
	p.reaped = true
	if err != nil {
		p.exit = Exit{Code: -1}
		return
	}
	ws := state.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		p.exit = Exit{Signal: ws.Signal(), Core: ws.CoreDump()}
		return
	}
	p.exit = Exit{Code: ws.ExitStatus()}
}

// Mark gives the value of the marker in an environment.
func Mark(value string) string { return MarkerName + "=" + value }

// KillLeftovers ends what an earlier run of this program, killed itself, has left of a task, and waits until
// nothing is there or the time is over. Its error says how many processes resist.
func (t *Table) KillLeftovers(id Identity, patience time.Duration) (killed int, err error) {
	deadline := time.Now().Add(patience)
	seen, dying := map[Identity]bool{}, doomed{}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		found := t.members(id, false, "")
		for _, m := range found {
			seen[Identity{Pid: m.pid, Start: m.start}] = true
		}
		left := dying.kill(found)
		if left == 0 {
			return len(seen), nil
		}
		if time.Now().After(deadline) {
			return len(seen), fmt.Errorf("%d processes of the task do not end by SIGKILL", left)
		}
		time.Sleep(pause)
	}
}

// KillStrays ends the helper commands that an earlier run of this program, killed itself, has left running under the same name.
func (t *Table) KillStrays(patience time.Duration) (killed int, err error) {
	if t.name == "" {
		return 0, nil
	}
	strays := map[string]bool{}
	for _, p := range t.snapshot() {
		if strings.HasPrefix(p.call, t.name+callSeparator) {
			strays[p.call] = true
		}
	}
	for call := range strays {
		n, e := t.KillLeftovers(Identity{Marker: call, guest: true}, patience)
		killed, err = killed+n, errors.Join(err, e)
	}
	return killed, err
}

// CanMount says whether this program may make mount namespaces: root may, but not in a container without CAP_SYS_ADMIN.
func CanMount() bool {
	return onOwnThread(func() error { return (&Mounts{}).enter() }) == nil
}

// onOwnThread runs fn on an operating system thread that is thrown away afterwards, because what fn does to it
// (namespaces, identity) cannot be taken back. It is never the program's first thread, which Go cannot end.
func onOwnThread(fn func() error) error {
	result := make(chan error, 1)
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// Hold this thread until another has been found.
			next := make(chan struct{})
			go func() { defer close(next); run() }()
			<-next
			runtime.UnlockOSThread()
			return
		}
		result <- fn()
		// The goroutine ends locked: Go ends the thread with it.
	}
	go run()
	return <-result
}

package fence

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// KeepWatchdog starts `<argv…> --state FILE` in a session of its own and starts it again when it dies or does not make its rounds, until ctx
// ends. The watchdog itself outlives this process until nothing is managed any more; one that an earlier isolator has started is kept.
func KeepWatchdog(ctx context.Context, s *State, argv []string, log *zap.Logger) error {
	if len(argv) == 0 {
		return fault.New(fault.Invalid, "watchdog: no command")
	}
	if log == nil {
		log = zap.NewNop()
	}
	ended := make(chan error, 1)
	running := false
	for {
		if !running && !s.WatchdogAlive() {
			if err := startWatchdog(s.path, argv, ended); err != nil {
				log.Error("the watchdog cannot be started", zap.Error(err))
			} else {
				running = true
			}
		}
		pause := time.NewTimer(500 * time.Millisecond)
		select {
		case err := <-ended:
			running = false
			log.Info("the watchdog has ended", zap.Error(err))
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil
		}
		pause.Stop()
	}
}

func startWatchdog(state string, argv []string, ended chan<- error) error {
	cmd := exec.Command(argv[0], append(append([]string(nil), argv[1:]...), "--state", state)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // neither the terminal's signals nor the isolator's end concern it
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { ended <- cmd.Wait() }()
	return nil
}

// WatchdogMain is the watchdog process: `isolator-watchdog --state FILE`, args without the verb. It returns the exit code: 0 when there
// is nothing to watch any more or another watchdog is at it, 1 when it cannot work.
//
// It knows two things only, the deadline and the list of managed mounts, and kills the users of those at the deadline when the isolator
// is dead or has not done so.
func WatchdogMain(args []string) int {
	flags := flag.NewFlagSet("isolator-watchdog", flag.ContinueOnError)
	path := flags.String("state", "", "state file shared with the isolator")
	stay := flags.Bool("stay", false, "wait for an isolator, and for the next when there is nothing to watch any more: for a unit of its own")
	if err := flags.Parse(args); err != nil || *path == "" || flags.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "isolator-watchdog: --state FILE is needed; the isolator starts this process by itself")
		return 1
	}
	for *stay && !isOfThisBoot(*path) { // the isolator has not made it yet
		time.Sleep(round)
	}
	lock, taken, err := lockFile(*path+".lock", *stay)
	if err != nil {
		fmt.Fprintln(os.Stderr, "isolator-watchdog:", err)
		return 1
	}
	if taken {
		return 0
	}
	defer lock.Close()
	s, err := joinState(*path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "isolator-watchdog:", err)
		return 1
	}
	defer s.Close()
	log, closeLog := watchdogLog(*path + ".log")
	defer closeLog()
	w := &watchdog{state: s, log: log, stay: *stay, dead: &deadMan{state: s, log: log}}
	w.harden()
	return w.run()
}

// isOfThisBoot tells whether an isolator has opened its state since the machine was started.
func isOfThisBoot(path string) bool {
	s, err := joinState(path)
	if err != nil {
		return false
	}
	_ = s.Close()
	return true
}

// lockFile takes the lock that keeps a second watchdog from the same state; wait waits until the other has ended.
func lockFile(path string, wait bool) (f *os.File, taken bool, err error) {
	f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, false, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	_, err = again(func() (int, error) { return 0, unix.Flock(int(f.Fd()), how) })
	if err == unix.EWOULDBLOCK {
		return nil, true, f.Close()
	}
	return f, false, err
}

// watchdogLog writes to a file of its own: the isolator's standard error may be a pipe that nobody reads any more.
func watchdogLog(path string) (*zap.Logger, func()) {
	if st, err := os.Stat(path); err == nil && st.Size() > 1<<20 {
		_ = os.Rename(path, path+".1")
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return zap.NewNop(), func() {}
	}
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(c), zapcore.Lock(f), zap.InfoLevel)), func() { _ = f.Close() }
}

type watchdog struct {
	state     *State
	log       *zap.Logger
	fencedFor time.Duration
	fencedAt  time.Duration
	current   *Fence // remembers what does not answer
	failed    int    // fences in a row that were not verified
	stay      bool   // go on when nothing is left to watch
	dead      *deadMan
}

// harden makes the process hard to stop by accident, and hard to delay: it must come to its turn at the deadline on a machine that is short of
// memory and of time. What this machine does not permit is logged, and `holdfast isolator check` shows it.
func (w *watchdog) harden() {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE)
	_ = os.Chdir("/")
	for _, h := range []struct {
		what string
		do   func() error
	}{
		{"be spared when memory runs out", func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) }},
		{"stay in memory", stayInMemory},
		{"be scheduled before others", realTime},
	} {
		if err := h.do(); err != nil {
			w.log.Warn("the watchdog cannot "+h.what, zap.Error(err))
		}
	}
}

// stayInMemory keeps what the process has touched in memory from then on, and its program at once: at the deadline the disk that it would be read from may
// hang. All at once would be too much: the runtime has reserved more than it uses.
func stayInMemory() error {
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	raw, err := readWhole(unix.AT_FDCWD, "/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		var from, to uintptr
		if !strings.Contains(line, exe) {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_MLOCK, from, to-from, 0); errno != 0 {
			return errno
		}
	}
	return nil
}

// realTime gives all threads that there are a real-time turn; those to come inherit it.
func realTime() error {
	threads, err := readNames(unix.AT_FDCWD, "/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t)
		if err != nil {
			continue
		}
		priority := int32(10)
		if _, _, errno := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, uintptr(tid), schedRR, uintptr(unsafe.Pointer(&priority))); errno != 0 && errno != unix.ESRCH {
			return errno
		}
	}
	return nil
}

const schedRR = 2 // SCHED_RR of linux/sched.h

func (w *watchdog) run() int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM)
	w.state.set(wordWatchdogPID, uint64(os.Getpid()))
	w.log.Info("watching", zap.Int("pid", os.Getpid()))
	w.dead.start()
	for {
		w.state.set(wordWatchdogBeat, uint64(w.state.now()))
		situation, targets := w.look()
		w.thawOverdue(targets, situation)
		act, until := Decide(situation)
		switch act {
		case ActExit:
			if w.stay && !situation.Orphaned || !w.dead.letGo() {
				until = w.state.now() + round
				break
			}
			w.log.Info("nothing is left to watch")
			w.state.set(wordWatchdogBeat, 0)
			return 0
		case ActFence:
			w.fence(situation, targets)
			until = w.state.now() + w.again()
		}
		timer := time.NewTimer(until - w.state.now())
		select {
		case <-timer.C:
		case <-stop:
			if situation.Managed == 0 && w.dead.letGo() {
				w.state.set(wordWatchdogBeat, 0)
				return 0
			}
			w.log.Warn("asked to end, but something is managed still, or the dead-man cannot be disarmed: going on")
		}
		timer.Stop()
	}
}

func (w *watchdog) look() (Situation, []Target) {
	s := Situation{Now: w.state.now(), Deadline: time.Duration(w.state.get(wordDeadline)), Drained: w.state.get(wordDrain) != 0,
		IsolatorAlive: w.isolatorAlive(), FencedFor: w.fencedFor, FencedAt: w.fencedAt, Limit: w.limit(), Orphaned: w.orphaned()}
	targets, err := w.state.Mounts()
	s.Managed = len(targets)
	if err != nil {
		w.log.Error("the managed mounts cannot be read", zap.Error(err))
		s.Managed = -1
	}
	return s, targets
}

// orphaned tells whether the state file was removed.
func (w *watchdog) orphaned() bool {
	_, err := os.Lstat(w.state.path)
	return errors.Is(err, os.ErrNotExist)
}

func (w *watchdog) limit() time.Duration {
	if l := time.Duration(w.state.get(wordLimit)); l > 0 {
		return l
	}
	return time.Second
}

// isolatorAlive tells whether the process that opened the state is there: not ended, not a zombie, not another with its id.
func (w *watchdog) isolatorAlive() bool {
	st, err := readStat("/proc", int(w.state.get(wordIsolatorPID)))
	return err == nil && st.start == w.state.get(wordIsolatorStart) && st.state != 'Z' && st.state != 'X'
}

// fence kills the users of everything managed. When it cannot be verified, run comes back to it soon.
func (w *watchdog) fence(s Situation, targets []Target) {
	first := w.fencedAt == 0 || w.fencedFor != s.Deadline
	if first {
		w.log.Warn("the deadline has come and the isolator has not fenced", zap.Bool("isolator alive", s.IsolatorAlive),
			zap.Duration("late", s.Now-s.Deadline), zap.Int("mounts", len(targets)))
	}
	f := w.fencer(s.Limit)
	if !first && w.idle(f, s, targets) {
		w.fencedAt = w.state.now()
		return
	}
	verified := s.Managed >= 0
	for _, r := range f.Run(context.Background(), targets...) {
		if first || !r.Fenced {
			w.log.Warn("fenced by the watchdog", zap.Stringer("volume", r.Target.Ref), zap.String("path", r.Target.Path), zap.Bool("verified", r.Fenced),
				zap.Any("killed", r.Killed), zap.Duration("took", r.Took), zap.String("error", r.Err))
		}
		verified = verified && r.Fenced
	}
	if verified {
		w.failed = 0
	} else {
		w.failed++
		w.dead.verified.Store(-1)
	}
	if !verified || time.Duration(w.state.get(wordDeadline)) != s.Deadline {
		return // not done, or the lease goes on meanwhile and there is a new situation
	}
	w.fencedFor, w.fencedAt = s.Deadline, w.state.now()
	w.dead.verified.Store(int64(s.Deadline))
	w.state.set(wordWatchdogFence, uint64(s.Deadline))
}

// fencer gives the fence, which spares the isolator.
func (w *watchdog) fencer(limit time.Duration) *Fence {
	isolator := int(w.state.get(wordIsolatorPID))
	if w.current == nil || w.current.o.Limit != limit || w.current.o.Spare[0] != isolator {
		w.current = New(Options{Log: w.log, Limit: limit, Spare: []int{isolator}})
	}
	return w.current
}

// again is the time until the next try after a fence that was not verified, soon first and then less often. After one that was, Decide says when.
func (w *watchdog) again() time.Duration {
	return min(round/4<<min(w.failed, 6), 2*time.Second)
}

// idle tells whether nobody has come back since the last fence: then there is nothing to flush again either.
func (w *watchdog) idle(f *Fence, s Situation, targets []Target) bool {
	ctx, cancel := context.WithTimeout(context.Background(), s.Limit)
	defer cancel()
	usage, err := f.Users(ctx, targets...)
	if err != nil || s.Managed < 0 {
		return false
	}
	for _, u := range usage {
		if len(u.Users) > 0 || u.Hung > 0 {
			return false
		}
	}
	return true
}

// SelfWatchdog gives the argv that runs verb of this program's own binary as the watchdog.
func SelfWatchdog(verb string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "find this program's file")
	}
	return []string{filepath.Clean(self), verb}, nil
}

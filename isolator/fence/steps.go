package fence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/loop"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// step is one line of the fence's table. It works on all targets at once and gives an outcome for each.
type step struct {
	name string
	run  func(ctx context.Context, f *Fence, jobs []*job) []result
}

type result struct {
	done string // what there was to say when it went well
	err  error
}

func (r result) text() string {
	if r.err != nil {
		return r.err.Error()
	}
	return r.done
}

// steps is the order of docs/safety.md. Shutdown comes before the killing because it stops the writing at once; thawing comes before
// the killing because a writer in a frozen file system does not die; containers are stopped as a whole before their processes one by one; verification comes last but for the flush, because nothing that went
// before is proof.
func steps() []step {
	return []step{
		{"journal", each(barEpoch)},
		{"shutdown", ownStep(shutdown, notItsOwn)},
		{"thaw", thawAll},
		{"containers", stopContainers},
		{"kill", kill},
		{"unmount", unmount},
		{"verify", verify},
		{"flush", flushAll},
	}
}

const (
	notItsOwn   = "not here: the volume is a directory of a file system that others use"
	nothingToDo = "nothing to do"
	done        = "done"
)

// each makes a step of what looks at one target alone.
func each(one func(ctx context.Context, f *Fence, t Target) (string, error)) func(context.Context, *Fence, []*job) []result {
	return func(ctx context.Context, f *Fence, jobs []*job) []result {
		out := make([]result, len(jobs))
		for i, j := range jobs {
			out[i].done, out[i].err = one(ctx, f, j.target)
		}
		return out
	}
}

func barEpoch(ctx context.Context, f *Fence, t Target) (string, error) {
	if f.o.Journal == nil {
		return nothingToDo, nil
	}
	return done, mount.Within(ctx, "bar the epoch", func() error { return f.o.Journal(t) })
}

func unmount(ctx context.Context, f *Fence, jobs []*job) []result {
	if f.o.Unmount == nil {
		return ownStep(takeDown, nothingToDo)(ctx, f, jobs)
	}
	return each(func(ctx context.Context, f *Fence, t Target) (string, error) {
		return done, mount.Within(ctx, "unmount "+t.Path, func() error { return f.o.Unmount(ctx, t) })
	})(ctx, f, jobs)
}

// kill kills users until a scan finds none.
func kill(ctx context.Context, f *Fence, jobs []*job) []result {
	out := make([]result, len(jobs))
	for {
		usage, err := f.scan(ctx, targetsOf(jobs))
		if err != nil {
			return all(out, err)
		}
		var victims []Process
		seen := map[int]bool{}
		for _, j := range jobs {
			for _, p := range usage[j.target.Path].Users {
				if f.spares(p.PID) {
					continue // verify tells of it
				}
				j.report.Killed = addOnce(j.report.Killed, p)
				if !seen[p.PID] {
					seen[p.PID] = true
					victims = append(victims, p)
				}
			}
		}
		if len(victims) == 0 {
			for i, j := range jobs {
				out[i].done = nothingToDo
				if n := len(j.report.Killed); n > 0 {
					out[i].done = fmt.Sprintf("killed %d", n)
				}
			}
			return out
		}
		if err := killAll(ctx, f.o.Proc, victims); err != nil {
			return all(out, err)
		}
	}
}

func all(out []result, err error) []result {
	for i := range out {
		out[i].err = err
	}
	return out
}

func addOnce(list []Process, p Process) []Process {
	for _, o := range list {
		if o.PID == p.PID && o.Start == p.Start {
			return list
		}
	}
	return append(list, p)
}

// verify is proof that nobody writes any more, as far as there is proof for this kind of target: one more scan, after the one
// that ended the killing, since a process that was born during that one may have been overlooked.
func verify(ctx context.Context, f *Fence, jobs []*job) []result {
	out := make([]result, len(jobs))
	usage, err := f.scan(ctx, targetsOf(jobs))
	if err != nil {
		return all(out, err)
	}
	gone := ownStep(func(ctx context.Context, _ *Fence, t Target, devices []loop.Device) (string, error) {
		return superblockGone(ctx, t, devices)
	}, "")(ctx, f, jobs)
	for i, j := range jobs {
		u := usage[j.target.Path]
		j.report.Unchecked = u.Unchecked
		switch {
		case len(u.Users) > 0:
			out[i].err = fault.New(fault.Unknown, "it is in use by %s", describe(u.Users))
		case u.Hung > 0:
			out[i].err = fault.New(fault.Unknown, "%d processes did not answer in time", u.Hung)
		case j.target.Verify == VerifySuperblock:
			out[i] = gone[i]
		case u.Unchecked > 0:
			out[i].done = fmt.Sprintf("no users; %d processes of other users could not be checked", u.Unchecked)
		default:
			out[i].done = "no users"
		}
	}
	return out
}

func describe(users []Process) string {
	var parts []string
	for i, p := range users {
		if i == 5 {
			parts = append(parts, fmt.Sprintf("%d more", len(users)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("pid %d %s (%s)", p.PID, p.Command, p.How))
	}
	return strings.Join(parts, ", ")
}

func flushAll(ctx context.Context, f *Fence, jobs []*job) []result {
	return sideBySide(jobs, func(_ int, t Target) (string, error) { return flush(ctx, f, t) })
}

// flush writes out what the page cache holds of the target's file system. A target that is gone has nothing left to flush here. One that hangs
// is waited for, and not begun a second time.
func flush(ctx context.Context, f *Fence, t Target) (string, error) {
	end, err := f.beginFlush(ctx, t.Path)
	if err != nil {
		return "", err
	}
	outcome := make(chan string, 1)
	err = mount.Within(ctx, "flush "+t.Path, func() error {
		defer end()
		said, err := syncTarget(t)
		outcome <- said
		return err
	})
	if fault.Is(err, fault.Unavailable) { // not begun
		end()
	}
	if err != nil {
		return "", err
	}
	return <-outcome, nil
}

// beginFlush waits for an earlier flush of a path, which may have begun before the last write, and takes its place.
func (f *Fence) beginFlush(ctx context.Context, path string) (end func(), err error) {
	for {
		f.mu.Lock()
		before := f.flushing[path]
		if before == nil {
			done := make(chan struct{})
			f.flushing[path] = done
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.flushing, path)
				f.mu.Unlock()
				close(done)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Unknown, ctx.Err(), "flush %s: an earlier one has not come back", path)
		}
	}
}

func syncTarget(t Target) (string, error) {
	if t.Verify == VerifySuperblock {
		return flushBacking(t.Backing)
	}
	return syncTree(t.Path)
}

func syncTree(path string) (string, error) {
	d, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nothingToDo, nil
	}
	if err != nil {
		return "", err
	}
	defer d.Close()
	return done, unix.Syncfs(int(d.Fd()))
}

func targetsOf(jobs []*job) []Target {
	out := make([]Target, len(jobs))
	for i, j := range jobs {
		out[i] = j.target
	}
	return out
}

// spares tells whether a process must never be killed.
func (f *Fence) spares(pid int) bool {
	if pid <= 1 || pid == os.Getpid() {
		return true
	}
	for _, s := range f.o.Spare {
		if s == pid {
			return true
		}
	}
	for p, depth := os.Getppid(), 0; p > 1 && depth < 64; depth++ {
		if p == pid {
			return true
		}
		st, err := readStat(f.o.Proc, p)
		if err != nil {
			break
		}
		p = st.parent
	}
	return false
}

// killAll sends SIGKILL to processes through pidfds, so that a process that has got the id of a dead one is never hit, and waits until they are
// gone or ctx ends.
func killAll(ctx context.Context, proc string, victims []Process) error {
	var fds []unix.PollFd
	defer func() {
		for _, p := range fds {
			_ = unix.Close(int(p.Fd))
		}
	}()
	var errs []error
	for _, v := range victims {
		fd, err := unix.PidfdOpen(v.PID, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("pid %d: %w", v.PID, err))
			continue
		}
		st, err := readStat(proc, v.PID)
		if err != nil || st.start != v.Start { // it ended; this is another one
			_ = unix.Close(fd)
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			_ = unix.Close(fd)
			errs = append(errs, fmt.Errorf("kill pid %d %s: %w", v.PID, v.Command, err))
			continue
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if err := awaitExit(ctx, append([]unix.PollFd(nil), fds...)); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fault.Wrap(fault.Unknown, err, "stop the users")
	}
	return nil
}

// awaitExit waits until all pidfds are readable: the processes have ended, whether anybody has reaped them or not.
func awaitExit(ctx context.Context, fds []unix.PollFd) error {
	for len(fds) > 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%d processes do not die: %w", len(fds), err)
		}
		if _, err := unix.Poll(fds, 20); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for processes to end: %w", err)
		}
		left := fds[:0]
		for _, p := range fds {
			if p.Revents == 0 {
				left = append(left, p)
			}
		}
		fds = left
	}
	return nil
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// cleanAbs refuses target paths that cannot be compared.
func cleanAbs(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return fault.New(fault.Invalid, "fence: %q is not a clean absolute path", path)
	}
	return nil
}

// scanLimit is how long one process may take to look at.
const scanLimit = 200 * time.Millisecond

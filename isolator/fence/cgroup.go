package fence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A container is stopped as a whole: its control group is frozen, so that nothing in it forks or writes any more, everything in it is killed, and it is thawed
// again, because under cgroup v1 the frozen do not die. That is help, faster than killing one by one and without a race against forks;
// what it cannot do is left to the steps after it. Only groups that are named like a container's are touched: the group of a login session, or of a
// service, has others in it.

// group is the control group of a container.
type group struct {
	dir     string // where the hierarchy shows it
	unified bool   // cgroup v2
}

// containerName tells a control group of Mesos (a container id is a UUID) or of Docker, containerd and Podman (64 hexadecimal digits).
var containerName = regexp.MustCompile(`^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|([a-z-]+-)?[0-9a-f]{64}(\.scope)?)$`)

// stopContainers freezes and kills the containers of the users.
func stopContainers(ctx context.Context, f *Fence, jobs []*job) []result {
	out := make([]result, len(jobs))
	for i := range out {
		out[i].done = nothingToDo
	}
	usage, err := f.scan(ctx, targetsOf(jobs))
	if err != nil {
		for i := range out {
			out[i].done = fmt.Sprintf("not done: %v", err) // killing looks again
		}
		return out
	}
	stopped := map[group]string{}
	for i, j := range jobs {
		var said []string
		for _, p := range usage[j.target.Path].Users {
			g, ok := f.container(p.PID)
			if !ok {
				continue
			}
			if _, before := stopped[g]; !before {
				stopped[g] = f.stop(ctx, g, j)
			}
			if !slices.Contains(said, stopped[g]) {
				said = append(said, stopped[g])
			}
		}
		if len(said) > 0 {
			out[i].done = strings.Join(said, "; ")
		}
	}
	return out
}

// container gives the control group of the innermost container that a process lives in; false when it lives in none that may be stopped.
func (f *Fence) container(pid int) (group, bool) {
	raw, err := readWhole(unix.AT_FDCWD, filepath.Join(f.o.Proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return group{}, false
	}
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		unified := parts[0] == "0"
		if !unified && !slices.Contains(strings.Split(parts[1], ","), "freezer") {
			continue
		}
		name, ok := containerPath(parts[2])
		if !ok {
			continue
		}
		mount, ok := f.hierarchy(unified)
		if !ok {
			continue
		}
		g := group{filepath.Join(mount, name), unified}
		if g.able() && !f.sparesAny(g) {
			return g, true
		}
	}
	return group{}, false
}

// containerPath cuts a control group's path behind its last part that names a container.
func containerPath(path string) (string, bool) {
	parts := strings.Split(path, "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if containerName.MatchString(parts[i]) {
			return strings.Join(parts[:i+1], "/"), !slices.Contains(parts, "..")
		}
	}
	return "", false
}

// hierarchy says where the freezer of cgroup v1, or cgroup v2, is mounted here.
func (f *Fence) hierarchy(unified bool) (string, bool) {
	raw, err := readWhole(unix.AT_FDCWD, filepath.Join(f.o.Proc, "self/mountinfo"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 3 || fields[3] != "/" {
			continue
		}
		if unified && kind[0] == "cgroup2" || !unified && kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "freezer") {
			return unescape(fields[4]), true
		}
	}
	return "", false
}

func (g group) file(name string) string { return filepath.Join(g.dir, name) }

func (g group) freezer() string {
	if g.unified {
		return g.file("cgroup.freeze")
	}
	return g.file("freezer.state")
}

func (g group) able() bool {
	_, err := os.Stat(g.freezer())
	return err == nil
}

// members lists the processes of a group and of those below it.
func (g group) members() ([]int, error) {
	var pids []int
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return ignoreGone(err)
		}
		raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, s := range strings.Fields(string(raw)) {
			if pid, perr := strconv.Atoi(s); perr == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return ignoreGone(err)
	})
	return pids, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// sparesAny tells whether somebody lives in a group who must never be killed: this program may itself be in a container.
func (f *Fence) sparesAny(g group) bool {
	pids, err := g.members()
	return err != nil || slices.ContainsFunc(pids, f.spares)
}

// freezeLimit is how long a group may take to be frozen. One of its processes may be stuck in the kernel; the others are killed all the same.
const freezeLimit = 100 * time.Millisecond

// stop freezes a group, kills what is in it, thaws it, and says how that went.
func (f *Fence) stop(ctx context.Context, g group, j *job) string {
	name := filepath.Base(g.dir)
	if err := g.freeze(ctx, true); err != nil {
		return fmt.Sprintf("not done: freeze container %s: %v", name, err)
	}
	victims, err := f.killMembers(g)
	// Under cgroup v1 the killed die only now, and a group must never be left frozen.
	err = errors.Join(err, g.freeze(ctx, false))
	for _, v := range victims {
		j.report.Killed = addOnce(j.report.Killed, v)
	}
	if err != nil {
		return fmt.Sprintf("not done: kill container %s: %v", name, err)
	}
	return fmt.Sprintf("killed container %s (%d)", name, len(victims))
}

// freeze freezes or thaws; freezing it waits for, but not longer than freezeLimit.
func (g group) freeze(ctx context.Context, on bool) error {
	word := "THAWED"
	switch {
	case g.unified && on:
		word = "1"
	case g.unified:
		word = "0"
	case on:
		word = "FROZEN"
	}
	if err := os.WriteFile(g.freezer(), []byte(word), 0); err != nil {
		return ignoreGone(err)
	}
	for end := time.Now().Add(freezeLimit); on && time.Now().Before(end) && ctx.Err() == nil && !g.frozen(); {
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (g group) frozen() bool {
	if !g.unified {
		raw, err := os.ReadFile(g.freezer())
		return err != nil || strings.TrimSpace(string(raw)) == "FROZEN"
	}
	raw, err := os.ReadFile(g.file("cgroup.events"))
	return err != nil || strings.Contains(string(raw), "frozen 1")
}

// killMembers kills through pidfds, and only who is a member still when its pidfd is open.
func (f *Fence) killMembers(g group) (victims []Process, err error) {
	pids, err := g.members()
	var errs []error
	for _, pid := range pids {
		fd, oerr := unix.PidfdOpen(pid, 0)
		if oerr != nil {
			continue // it has ended
		}
		st, serr := readStat(f.o.Proc, pid)
		if again, ok := f.container(pid); serr == nil && ok && within(again.dir, g.dir) {
			kerr := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			if kerr == nil {
				victims = append(victims, Process{PID: pid, Start: st.start, Command: st.command, How: "container " + filepath.Base(g.dir)})
			} else if !errors.Is(kerr, unix.ESRCH) {
				errs = append(errs, kerr)
			}
		}
		_ = unix.Close(fd)
	}
	return victims, errors.Join(append(errs, err)...)
}

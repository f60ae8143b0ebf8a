package fence

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/loop"
)

// scan looks once at every process for users of targets.
func (f *Fence) scan(ctx context.Context, targets []Target) (map[string]Usage, error) {
	s, err := newScan(f.o.Proc, targets)
	if err != nil {
		return nil, err
	}
	pids, err := processes(f.o.Proc)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "list the processes")
	}
	work := make(chan int)
	var wg sync.WaitGroup
	for range max(2, runtime.GOMAXPROCS(0)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for pid := range work {
				f.bounded(ctx, s, pid)
			}
		}()
	}
	for _, pid := range pids {
		work <- pid
	}
	close(work)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "look for users: not all processes were looked at")
	}
	return s.usages(), nil
}

func processes(proc string) ([]int, error) {
	d, err := os.Open(proc)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	sort.Ints(pids)
	return pids, nil
}

// scan is one pass over all processes.
type scan struct {
	proc    string
	targets []Target
	places  []targetPlace // where each target is, in file system terms
	self    string        // our own mount namespace
	table   *mountTable

	mu        sync.Mutex
	users     map[string][]Process
	unchecked int
	hung      int
	links     map[string]bool // sandbox + "\x00" + target path -> a link leads there
	agents    map[int]string  // process -> endpoint of the Mesos agent that started it, "" for none
}

func newScan(proc string, targets []Target) (*scan, error) {
	s := &scan{proc: proc, targets: targets, users: map[string][]Process{}, links: map[string]bool{}, agents: map[int]string{}}
	var err error
	if s.self, err = os.Readlink(filepath.Join(proc, "self/ns/mnt")); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "look at the own mount namespace")
	}
	s.table = newMountTable(proc)
	if err := s.table.load(s.self, "self"); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the own mounts")
	}
	for _, t := range targets {
		if err := cleanAbs(t.Path); err != nil {
			return nil, err
		}
	}
	return s, s.findPlaces()
}

// targetPlace is where a target lies. One with a file system of its own lies on all devices that show it, and nowhere when there is none: then the
// path is that of an empty mount point.
type targetPlace struct {
	target int
	place
}

func (s *scan) findPlaces() error {
	var attached loop.Table
	for i, t := range s.targets {
		if t.Verify != VerifySuperblock {
			p, ok := s.table.locate(s.self, t.Path)
			if !ok {
				return fault.New(fault.Unavailable, "find the file system of %s", t.Path)
			}
			s.places = append(s.places, targetPlace{i, p})
			continue
		}
		if attached == nil {
			var err error
			if attached, err = loop.Attached(); err != nil {
				return err
			}
		}
		devices, err := attached.Of(t.Backing)
		if err != nil {
			return err
		}
		for _, d := range devices {
			s.places = append(s.places, targetPlace{i, place{d.Number(), "/"}})
		}
	}
	return nil
}

func (s *scan) usages() map[string]Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]Usage, len(s.targets))
	for _, t := range s.targets {
		users := append([]Process(nil), s.users[t.Path]...)
		sort.Slice(users, func(i, j int) bool { return users[i].PID < users[j].PID })
		out[t.Path] = Usage{Users: users, Unchecked: s.unchecked, Hung: s.hung}
	}
	return out
}

// bounded looks at one process and gives up on it after scanLimit: reading a process that is stuck in the kernel may never end. The
// goroutine that is lost then ends with its process; as long as it has not, no second one is lost on it.
func (f *Fence) bounded(ctx context.Context, s *scan, pid int) {
	if ctx.Err() != nil {
		return
	}
	if before := f.stillLooking(pid); before != nil {
		s.adopt(before, pid)
		s.count(&s.hung)
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); s.look(pid) }()
	timer := time.NewTimer(scanLimit)
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
		s.count(&s.hung)
	case <-ctx.Done():
	}
	f.mu.Lock()
	f.looking[pid] = lookUnderWay{done, s}
	f.mu.Unlock()
}

// lookUnderWay is a look at a process that did not come back in time.
type lookUnderWay struct {
	done <-chan struct{}
	scan *scan
}

// stillLooking gives the scan that still has not come back from a process, nil when there is none.
func (f *Fence) stillLooking(pid int) *scan {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.looking[pid]
	if !ok {
		return nil
	}
	select {
	case <-l.done:
		delete(f.looking, pid)
		return nil
	default:
		return l.scan
	}
}

// adopt takes over what an earlier scan saw of a process.
func (s *scan) adopt(before *scan, pid int) {
	for _, t := range s.targets {
		before.mu.Lock()
		users := append([]Process(nil), before.users[t.Path]...)
		before.mu.Unlock()
		for _, p := range users {
			if p.PID == pid {
				s.record(t, p)
			}
		}
	}
}

func (s *scan) count(n *int) {
	s.mu.Lock()
	*n++
	s.mu.Unlock()
}

// look finds out whether one process uses a target.
func (s *scan) look(pid int) {
	st, err := readStat(s.proc, pid)
	if err != nil || st.state == 'Z' || st.state == 'X' || st.kernel {
		return // gone, ended, or the kernel's own
	}
	dir := filepath.Join(s.proc, strconv.Itoa(pid))
	ns, err := os.Readlink(dir + "/ns/mnt")
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			s.count(&s.unchecked)
		}
		return
	}
	if err := s.table.load(ns, strconv.Itoa(pid)); err != nil {
		ns = "" // its mounts cannot be read: only what mount ids tell
	}
	agent := s.agentOf(pid, st.parent)
	found := func(i int, how string) {
		if t := s.targets[i]; t.Agent == "" || agent == "" || agent == t.Agent {
			s.record(t, Process{PID: pid, Start: st.start, Command: st.command, How: how})
		}
	}
	if ns != "" && ns != s.self {
		for _, p := range s.places {
			if s.table.madeAround(ns, s.self, s.targets[p.target].Path, p.place) {
				found(p.target, "mount namespace")
			}
		}
	}
	if s.references(dir, ns, found) {
		s.count(&s.unchecked)
	}
	s.sandboxLinks(pid, found)
}

// record notes a user at once, so that it is known even if the rest of the process cannot be looked at. The first reason found stays.
func (s *scan) record(t Target, p Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.users[t.Path] {
		if known.PID == p.PID && known.Start == p.Start {
			return
		}
	}
	s.users[t.Path] = append(s.users[t.Path], p)
}

// references goes through all that a process may have in a target. denied tells that some of it was not shown.
func (s *scan) references(dir, ns string, found func(int, string)) (denied bool) {
	for _, link := range []string{"cwd", "root", "exe"} {
		path, err := os.Readlink(dir + "/" + link)
		if err != nil {
			denied = denied || errors.Is(err, fs.ErrPermission)
			continue
		}
		s.match(ref{dir + "/" + link, path, linkMountID(s.proc, dir+"/"+link), link}, ns, found)
	}
	fds, err := os.Open(dir + "/fd")
	if err != nil {
		denied = denied || errors.Is(err, fs.ErrPermission)
	} else {
		names, _ := fds.Readdirnames(-1)
		_ = fds.Close()
		for _, n := range names {
			if path, err := os.Readlink(dir + "/fd/" + n); err == nil && path[0] == '/' {
				s.match(ref{dir + "/fd/" + n, path, fdMountID(dir + "/fdinfo/" + n), "fd " + n}, ns, found)
			}
		}
	}
	for _, path := range mappedFiles(dir + "/maps") {
		s.match(ref{"", path, 0, "map"}, ns, found)
	}
	return denied
}

// ref is something that a process refers to.
type ref struct {
	link  string // in /proc, leads there; "" when there is none
	path  string // as the kernel shows it: from the root of the namespace of the mount that it goes through
	mount uint64 // id of that mount, 0 when not known
	how   string
}

// match tells found of each target in which a reference lies.
func (s *scan) match(r ref, ns string, found func(int, string)) {
	if !strings.HasPrefix(r.path, "/") {
		return // a socket, a pipe, memory
	}
	path := strings.TrimSuffix(r.path, " (deleted)")
	p, ok := place{}, false
	if r.mount != 0 {
		m, known := s.table.byID(r.mount)
		if !known && s.detached(r.link, path, r.how, found) {
			return
		}
		if known {
			p, ok = m.place(path)
		}
	}
	if !ok && ns != "" {
		p, ok = s.table.locate(ns, path)
	}
	if !ok {
		return
	}
	for _, t := range s.places {
		if p.in(t.place) {
			found(t.target, r.how)
		}
	}
}

// detached looks at a file behind a mount that no namespace shows any more (umount -l). Its path begins at that mount's root, which
// is not known, so the file is looked for under each target by every end of that path.
func (s *scan) detached(link, path, how string, found func(int, string)) bool {
	var file os.FileInfo
	hit := s.onOwnDevice(link, how, found)
	for i, t := range s.targets {
		if t.Verify == VerifySuperblock {
			continue
		}
		for rest, more := path, true; more; rest, more = behindFirst(rest) {
			candidate, err := os.Lstat(filepath.Join(t.Path, rest))
			if err != nil {
				continue
			}
			if file == nil {
				if file, err = os.Stat(link); err != nil {
					return hit
				}
			}
			if os.SameFile(file, candidate) {
				found(i, how+" through a detached mount")
				hit = true
				break
			}
		}
	}
	return hit
}

// onOwnDevice is detached for the targets that have a device of their own.
func (s *scan) onOwnDevice(link, how string, found func(int, string)) (hit bool) {
	var st unix.Stat_t
	for _, p := range s.places {
		if s.targets[p.target].Verify != VerifySuperblock {
			continue
		}
		if st.Dev == 0 {
			if err := unix.Stat(link, &st); err != nil {
				return false
			}
		}
		if p.device == fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)) {
			found(p.target, how+" through a detached mount")
			hit = true
		}
	}
	return hit
}

// behindFirst takes the first element off a path; false when none would be left.
func behindFirst(path string) (string, bool) {
	_, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return "/" + rest, ok && rest != ""
}

// sandboxLinks finds a Mesos task that reaches a target through a link in its sandbox (as an ordinary user has no bind mounts), even
// while it has nothing open.
func (s *scan) sandboxLinks(pid int, found func(int, string)) {
	env := environment(s.proc, pid)
	sandbox := env["MESOS_SANDBOX"]
	if sandbox == "" || !filepath.IsAbs(sandbox) {
		return
	}
	candidates := []string{}
	for k, v := range env {
		if strings.HasPrefix(k, "HOLDFAST_VOLUME_") && filepath.IsAbs(v) {
			candidates = append(candidates, v)
		}
	}
	for i, t := range s.targets {
		if s.linked(sandbox, candidates, t.Path) {
			found(i, "sandbox link")
		}
	}
}

func (s *scan) linked(sandbox string, candidates []string, target string) bool {
	key := sandbox + "\x00" + target
	s.mu.Lock()
	hit, known := s.links[key]
	s.mu.Unlock()
	if known {
		return hit
	}
	if d, err := os.Open(sandbox); err == nil {
		names, _ := d.Readdirnames(4096)
		_ = d.Close()
		for _, n := range names {
			candidates = append(candidates, filepath.Join(sandbox, n))
		}
	}
	for _, c := range candidates {
		if to, err := os.Readlink(c); err == nil && within(filepath.Clean(to), target) {
			hit = true
			break
		}
	}
	s.mu.Lock()
	s.links[key] = hit
	s.mu.Unlock()
	return hit
}

// agentOf gives the Mesos agent of this machine that started a process: the one that the nearest in its line of ancestors names, "" when none
// does. Some programs write over their own environment, which is why the ancestors are asked.
func (s *scan) agentOf(pid, parent int) string {
	var line []int
	agent := ""
	for len(line) < 64 && pid > 1 {
		s.mu.Lock()
		known, ok := s.agents[pid]
		s.mu.Unlock()
		if ok {
			agent = known
			break
		}
		line = append(line, pid)
		if agent = environment(s.proc, pid)["MESOS_AGENT_ENDPOINT"]; agent != "" {
			break
		}
		st, err := readStat(s.proc, parent)
		if err != nil {
			break
		}
		pid, parent = parent, st.parent
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range line {
		s.agents[p] = agent
	}
	return agent
}

// environment reads what a process began with; nil when it may not be read.
func environment(proc string, pid int) map[string]string {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), "environ"))
	if err != nil {
		return nil
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil || !bytes.Contains(raw, []byte("MESOS_")) {
		return nil
	}
	env := make(map[string]string)
	for _, kv := range strings.Split(string(raw), "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

// mappedFiles gives the files that a process has mapped, each once.
func mappedFiles(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	last := ""
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 8<<10), 64<<10)
	for lines.Scan() {
		i := bytes.IndexByte(lines.Bytes(), '/')
		if i < 0 {
			continue
		}
		if p := unescape(string(lines.Bytes()[i:])); p != last {
			out, last = append(out, p), p
		}
	}
	return out
}

type stat struct {
	command string
	state   byte
	parent  int
	start   uint64
	kernel  bool
}

// readStat reads /proc/<pid>/stat. The command is in parentheses and may itself hold any character.
func readStat(proc string, pid int) (stat, error) {
	raw, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return stat{}, fault.New(fault.Internal, "stat of process %d cannot be read", pid)
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 20 {
		return stat{}, fault.New(fault.Internal, "stat of process %d cannot be read", pid)
	}
	s := stat{command: string(raw[open+1 : end]), state: fields[0][0]}
	s.parent, _ = strconv.Atoi(fields[1])
	flags, _ := strconv.ParseUint(fields[6], 10, 64)
	s.kernel = flags&0x00200000 != 0 // PF_KTHREAD
	s.start, err = strconv.ParseUint(fields[19], 10, 64)
	return s, err
}

// fdMountID reads the mount that an open file was opened through, 0 when it is not told.
func fdMountID(path string) uint64 {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			return n
		}
	}
	return 0
}

// linkMountID is fdMountID for the links cwd, root and exe, by opening what they lead to without touching it.
func linkMountID(proc, link string) uint64 {
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	return fdMountID(filepath.Join(proc, "self/fdinfo", strconv.Itoa(fd)))
}

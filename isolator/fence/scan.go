package fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	f.lookAtAll(ctx, s, pids)
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "look for users: not all processes were looked at")
	}
	return s.usages(), nil
}

func processes(proc string) ([]int, error) {
	names, err := readNames(proc)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
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
	places  map[place][]int // where targets are, in file system terms
	self    string          // our own mount namespace
	table   *mountTable
	links   bool // a target is a plain directory, which tasks may reach by links

	mu        sync.Mutex
	users     map[string][]Process
	unchecked int
	hung      int
	around    map[string][]int // namespace -> targets that it was made around
	linked    map[string]bool  // sandbox + "\x00" + target path -> a link leads there
	agents    map[int]string   // process -> endpoint of the Mesos agent that started it, "" for none
}

func newScan(proc string, targets []Target) (*scan, error) {
	s := &scan{proc: proc, targets: targets, places: map[place][]int{}, users: map[string][]Process{}, around: map[string][]int{},
		linked: map[string]bool{}, agents: map[int]string{}}
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

// findPlaces says where the targets are. One with a file system of its own lies on all devices that show it, and nowhere when there is none:
// then the path is that of an empty mount point.
func (s *scan) findPlaces() error {
	var attached loop.Table
	for i, t := range s.targets {
		m, p, ok := s.table.locate(s.self, t.Path)
		s.links = s.links || m.point != t.Path
		if t.Verify != VerifySuperblock {
			if !ok {
				return fault.New(fault.Unavailable, "find the file system of %s", t.Path)
			}
			s.places[p] = append(s.places[p], i)
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
			p := place{d.Number(), "/"}
			s.places[p] = append(s.places[p], i)
		}
	}
	return nil
}

// in gives the targets that a place lies in.
func (s *scan) in(p place) []int {
	var out []int
	for above := p; ; above.path = above.path[:strings.LastIndexByte(above.path, '/')] {
		if above.path == "" {
			above.path = "/"
		}
		if here := s.places[above]; out == nil {
			out = here
		} else if len(here) > 0 {
			out = append(slices.Clone(out), here...)
		}
		if above.path == "/" || above.path[0] != '/' {
			return out
		}
	}
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

// lookAtAll looks at processes and gives up on one after scanLimit: reading a process that is stuck in the kernel may never end. The
// goroutine that is lost then ends with its process; as long as it has not, no second one is lost on it.
func (f *Fence) lookAtAll(ctx context.Context, s *scan, pids []int) {
	r := looks{f: f, s: s, pids: pids, all: make(chan struct{})}
	r.left.Store(int64(len(pids)))
	if len(pids) == 0 {
		return
	}
	for range max(2, runtime.GOMAXPROCS(0)) {
		r.begin(ctx)
	}
	tick := time.NewTicker(scanLimit / 4)
	defer tick.Stop()
	for {
		select {
		case <-r.all:
			return
		case <-tick.C:
			r.giveUp(ctx, time.Now().Add(-scanLimit))
		case <-ctx.Done():
			r.giveUp(ctx, time.Now())
			return
		}
	}
}

// looks are those of one scan, done by a few workers side by side.
type looks struct {
	f    *Fence
	s    *scan
	pids []int
	next atomic.Int64
	left atomic.Int64
	all  chan struct{} // closed when left is 0

	mu      sync.Mutex
	workers []*worker
}

// worker looks at one process after another until it is given up.
type worker struct {
	mu    sync.Mutex
	pid   int // 0 between two
	since time.Time
	lost  chan struct{} // not nil once it was given up; closed when it comes back all the same
}

func (r *looks) begin(ctx context.Context) {
	w := &worker{}
	r.mu.Lock()
	r.workers = append(r.workers, w)
	r.mu.Unlock()
	go func() {
		var b buffers
		for ctx.Err() == nil {
			i := r.next.Add(1) - 1
			if i >= int64(len(r.pids)) || !r.look(w, r.pids[i], &b) {
				return
			}
		}
	}()
}

// look looks at one process; false when the worker was given up meanwhile.
func (r *looks) look(w *worker, pid int, b *buffers) bool {
	if before := r.f.stillLooking(pid); before != nil {
		r.s.adopt(before, pid)
		r.s.count(&r.s.hung)
		r.done()
		return true
	}
	w.mu.Lock()
	w.pid, w.since = pid, time.Now()
	w.mu.Unlock()
	r.s.look(pid, b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pid = 0
	if w.lost != nil {
		close(w.lost)
		return false
	}
	r.done()
	return true
}

func (r *looks) done() {
	if r.left.Add(-1) == 0 {
		close(r.all)
	}
}

// giveUp replaces the workers that have been at one process since before a time.
func (r *looks) giveUp(ctx context.Context, before time.Time) {
	r.mu.Lock()
	workers := slices.Clone(r.workers)
	r.mu.Unlock()
	for _, w := range workers {
		w.mu.Lock()
		stuck := w.pid != 0 && w.lost == nil && w.since.Before(before)
		if stuck {
			w.lost = make(chan struct{})
			r.f.mu.Lock()
			r.f.looking[w.pid] = lookUnderWay{w.lost, r.s}
			r.f.mu.Unlock()
		}
		w.mu.Unlock()
		if stuck {
			r.s.count(&r.s.hung)
			r.begin(ctx)
			r.done()
		}
	}
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
func (s *scan) look(pid int, b *buffers) {
	dir := s.proc + "/" + strconv.Itoa(pid)
	st, err := readStat(s.proc, pid)
	if err != nil || st.kernel {
		return // gone, or the kernel's own
	}
	if st.state != 'Z' && st.state != 'X' {
		s.lookAt(pid, dir, st, b)
		return
	}
	if st.threads < 2 {
		return
	}
	// Its first thread has ended, and the others go on with all that is open.
	tasks, err := processes(dir + "/task")
	if err != nil {
		return
	}
	for _, tid := range tasks {
		if tid != pid {
			s.lookAt(pid, dir+"/task/"+strconv.Itoa(tid), st, b)
		}
	}
}

// lookAt looks at a process by the directory of it, or of one of its threads.
func (s *scan) lookAt(pid int, dir string, st stat, b *buffers) {
	ns, err := b.readlink(dir + "/ns/mnt")
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			s.count(&s.unchecked)
		}
		return
	}
	if err := s.table.load(ns, strings.TrimPrefix(dir, s.proc+"/")); err != nil {
		ns = "" // its mounts cannot be read: only what mount ids tell
	}
	found := func(i int, how string) {
		t := s.targets[i]
		if t.Agent != "" {
			if agent := s.agentOf(pid, st.parent); agent != "" && agent != t.Agent {
				return
			}
		}
		s.record(t, Process{PID: pid, Start: st.start, Command: st.command, How: how})
	}
	if ns != "" && ns != s.self {
		for _, i := range s.madeAround(ns) {
			found(i, "mount namespace")
		}
	}
	if s.references(dir, ns, b, found) {
		s.count(&s.unchecked)
	}
	if s.links {
		s.sandboxLinks(pid, found)
	}
}

// madeAround gives the targets that a namespace was made around, worked out once for each namespace.
func (s *scan) madeAround(ns string) []int {
	s.mu.Lock()
	out, known := s.around[ns]
	s.mu.Unlock()
	if known {
		return out
	}
	out = s.table.madeAround(ns, s.self, s.in, func(i int) string { return s.targets[i].Path })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.around[ns] = out
	return out
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
func (s *scan) references(dir, ns string, b *buffers, found func(int, string)) (denied bool) {
	for _, link := range []string{"cwd", "root", "exe"} {
		path, err := b.readlink(dir + "/" + link)
		if err != nil {
			denied = denied || errors.Is(err, fs.ErrPermission)
			continue
		}
		s.match(ref{dir + "/" + link, path, "", link}, ns, found)
	}
	names, err := readNames(dir + "/fd")
	denied = denied || errors.Is(err, fs.ErrPermission)
	for _, n := range names {
		if path, err := b.readlink(dir + "/fd/" + n); err == nil && strings.HasPrefix(path, "/") { // no socket, no pipe
			s.match(ref{dir + "/fd/" + n, path, dir + "/fdinfo/" + n, "fd " + n}, ns, found)
		}
	}
	b.mapped(dir+"/maps", func(path string) { s.match(ref{"", path, "", "map"}, ns, found) })
	return denied
}

// ref is something that a process refers to.
type ref struct {
	link   string // in /proc, leads there; "" when there is none
	path   string // as the kernel shows it: from the root of the namespace of the mount that it goes through
	fdinfo string // in /proc, tells the mount that it goes through; "" when there is none
	how    string
}

// match tells found of each target in which a reference lies.
func (s *scan) match(r ref, ns string, found func(int, string)) {
	if !strings.HasPrefix(r.path, "/") {
		return // a socket, a pipe, memory
	}
	path := strings.TrimSuffix(r.path, " (deleted)")
	guess, p, ok := mountLine{}, place{}, false
	if ns != "" {
		guess, p, ok = s.table.locate(ns, path)
	}
	// What a path means by its namespace is not always what was opened: another mount may lie over it by now, or none may show it any more.
	if id := r.mountID(s.proc, ok && guess.local); id != 0 && id != guess.id {
		m, known := s.table.byID(id)
		if !known && s.detached(r.link, path, r.how, found) {
			return
		}
		if known {
			if through, below := m.place(path); below {
				p, ok = through, true
			}
		}
	}
	if !ok {
		return
	}
	for _, t := range s.in(p) {
		found(t, r.how)
	}
}

// mountID gives the mount that a reference goes through, 0 when that cannot be told. quick tells that its file may be looked at, because its
// file system asks nobody; for what may hang there is only fdinfo, and a thread that can be lost.
func (r ref) mountID(proc string, quick bool) uint64 {
	if r.link == "" {
		return 0
	}
	if quick && proc == "/proc" {
		const noSync = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
		var st unix.Statx_t
		if unix.Statx(unix.AT_FDCWD, r.link, noSync, unix.STATX_MNT_ID, &st) == nil && st.Mask&unix.STATX_MNT_ID != 0 {
			return st.Mnt_id
		}
	}
	if r.fdinfo != "" {
		return fdMountID(r.fdinfo)
	}
	return linkMountID(proc, r.link)
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
	if !slices.ContainsFunc(s.targets, func(t Target) bool { return t.Verify == VerifySuperblock }) || unix.Stat(link, &st) != nil {
		return false
	}
	for _, i := range s.places[place{fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)), "/"}] {
		if s.targets[i].Verify == VerifySuperblock {
			found(i, how+" through a detached mount")
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
		if s.leadsTo(sandbox, candidates, t.Path) {
			found(i, "sandbox link")
		}
	}
}

func (s *scan) leadsTo(sandbox string, candidates []string, target string) bool {
	key := sandbox + "\x00" + target
	s.mu.Lock()
	hit, known := s.linked[key]
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
	s.linked[key] = hit
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
	raw, err := readWhole(proc + "/" + strconv.Itoa(pid) + "/environ")
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

type stat struct {
	command string
	state   byte
	parent  int
	threads int
	start   uint64
	kernel  bool
}

// readStat reads /proc/<pid>/stat. The command is in parentheses and may itself hold any character.
func readStat(proc string, pid int) (stat, error) {
	raw, err := readWhole(proc + "/" + strconv.Itoa(pid) + "/stat")
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
	s.threads, _ = strconv.Atoi(fields[17])
	s.kernel = flags&0x00200000 != 0 // PF_KTHREAD
	s.start, err = strconv.ParseUint(fields[19], 10, 64)
	return s, err
}

// fdMountID reads the mount that an open file was opened through, 0 when it is not told.
func fdMountID(path string) uint64 {
	raw, err := readWhole(path)
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

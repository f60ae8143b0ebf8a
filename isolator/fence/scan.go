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
	return f.scanAs(ctx, targets, false)
}

// scanAs is scan; with usual, a target with a file system of its own is looked for only where it is mounted, if it is.
func (f *Fence) scanAs(ctx context.Context, targets []Target, usual bool) (map[string]Usage, error) {
	s, err := newScan(f.o.Proc, targets, usual)
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
	names, err := readNames(unix.AT_FDCWD, proc)
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
	places  map[place][]int    // where targets are, in file system terms
	devices map[[2]uint32]bool // major and minor of the devices that they are on
	kernel  map[int]bool       // the kernel's own processes
	self    string             // our own mount namespace
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

func newScan(proc string, targets []Target, usual bool) (*scan, error) {
	s := &scan{proc: proc, targets: targets, places: map[place][]int{}, devices: map[[2]uint32]bool{}, kernel: kernelThreads(proc), users: map[string][]Process{}, around: map[string][]int{},
		linked: map[string]bool{}, agents: map[int]string{}}
	var err error
	if s.self, err = os.Readlink(filepath.Join(proc, "self/ns/mnt")); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "look at the own mount namespace")
	}
	s.table = newMountTable()
	if err := s.table.load(s.self, unix.AT_FDCWD, proc+"/self/mountinfo"); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the own mounts")
	}
	for _, t := range targets {
		if err := cleanAbs(t.Path); err != nil {
			return nil, err
		}
	}
	err = s.findPlaces(usual)
	for p := range s.places {
		var device [2]uint32
		if _, serr := fmt.Sscanf(p.device, "%d:%d", &device[0], &device[1]); serr != nil {
			return nil, fault.New(fault.Internal, "device %q of a target", p.device)
		}
		s.devices[device] = true
	}
	return s, err
}

// kernelThreads gives the kernel's own processes, the children of its process 2, in one look. What it leaves out is found out one by one.
func kernelThreads(proc string) map[int]bool {
	out := map[int]bool{}
	if st, err := readStat(proc, 2); err != nil || !st.kernel {
		return out // this is a container's /proc
	}
	raw, err := readWhole(unix.AT_FDCWD, proc+"/2/task/2/children")
	if err != nil {
		return out
	}
	out[2] = true
	for _, f := range strings.Fields(string(raw)) {
		if pid, err := strconv.Atoi(f); err == nil {
			out[pid] = true
		}
	}
	return out
}

// findPlaces says where the targets are. One with a file system of its own lies on all devices that show it, and nowhere when there is none:
// then the path is that of an empty mount point.
func (s *scan) findPlaces(usual bool) error {
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
		if d, ok := loop.MountedAt(t.Path, t.Backing); ok && usual {
			p := place{d.Number(), "/"}
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
		b := &buffers{}
		for ctx.Err() == nil {
			i := r.next.Add(1) - 1
			if i >= int64(len(r.pids)) || !r.look(w, r.pids[i], b) {
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
	if s.kernel[pid] {
		return
	}
	// All that follows goes through this one directory, which never shows another process that gets the id later.
	dir, err := unix.Open(s.proc+"/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	who := &suspect{scan: s, pid: pid, dir: dir}
	exe, err := b.readlink(dir, "exe")
	switch {
	case errors.Is(err, fs.ErrPermission):
		if s.lives(who) {
			s.count(&s.unchecked)
		}
		return
	case err != nil && !s.lives(who):
		if who.known && who.st.threads > 1 && !who.st.kernel {
			s.lookAtThreads(who, b)
		}
		return
	}
	s.lookAt(who, "", exe, b)
}

// lives tells whether a process that shows no program is one all the same: neither the kernel's own, nor at its end.
func (s *scan) lives(who *suspect) bool {
	return who.know() == nil && !who.st.kernel && who.st.state != 'Z' && who.st.state != 'X'
}

// lookAtThreads looks at a process whose first thread has ended while the others go on with all that is open.
func (s *scan) lookAtThreads(who *suspect, b *buffers) {
	tasks, err := readNames(who.dir, "task")
	if err != nil {
		return
	}
	for _, tid := range tasks {
		if tid == strconv.Itoa(who.pid) {
			continue
		}
		if exe, err := b.readlink(who.dir, "task/"+tid+"/exe"); err == nil {
			s.lookAt(who, "task/"+tid+"/", exe, b)
		}
	}
}

// suspect is a process that is being looked at.
type suspect struct {
	scan  *scan
	pid   int
	dir   int // its directory in /proc
	st    stat
	known bool
}

// know reads what is needed of a process only when there is something to say of it.
func (w *suspect) know() error {
	if w.known {
		return nil
	}
	raw, err := readWhole(w.dir, "stat")
	if err == nil {
		w.st, err = parseStat(raw, w.pid)
	}
	w.known = err == nil
	return err
}

func (w *suspect) found(i int, how string) {
	if w.know() != nil {
		return // it has ended
	}
	t := w.scan.targets[i]
	if t.Agent != "" {
		if agent := w.scan.agentOf(w.pid, w.st.parent); agent != "" && agent != t.Agent {
			return
		}
	}
	w.scan.record(t, Process{PID: w.pid, Start: w.st.start, Command: w.st.command, How: how})
}

// lookAt looks at a process, or at one of its threads by the way there from the process's directory.
func (s *scan) lookAt(who *suspect, way, exe string, b *buffers) {
	ns, err := b.readlink(who.dir, way+"ns/mnt")
	if err != nil {
		if errors.Is(err, fs.ErrPermission) && s.lives(who) {
			s.count(&s.unchecked)
		}
		return
	}
	if err := s.table.load(ns, who.dir, way+"mountinfo"); err != nil {
		ns = "" // its mounts cannot be read: only what mount ids tell
	}
	if ns != "" && ns != s.self {
		for _, i := range s.madeAround(ns) {
			who.found(i, "mount namespace")
		}
	}
	if s.references(who, way, exe, ns, b) {
		s.count(&s.unchecked)
	}
	if s.links {
		s.sandboxLinks(who)
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
func (s *scan) references(who *suspect, way, exe, ns string, b *buffers) (denied bool) {
	s.match(ref{who.dir, way + "exe", exe, "", "exe"}, ns, who.found)
	for _, link := range []string{"cwd", "root"} {
		path, err := b.readlink(who.dir, way+link)
		if err != nil {
			denied = denied || errors.Is(err, fs.ErrPermission)
			continue
		}
		s.match(ref{who.dir, way + link, path, "", link}, ns, who.found)
	}
	names, err := readNames(who.dir, way+"fd")
	denied = denied || errors.Is(err, fs.ErrPermission)
	for _, n := range names {
		if path, err := b.readlink(who.dir, way+"fd/"+n); err == nil && strings.HasPrefix(path, "/") { // no socket, no pipe
			s.match(ref{who.dir, way + "fd/" + n, path, way + "fdinfo/" + n, "fd " + n}, ns, who.found)
		}
	}
	b.mapped(who.dir, way+"maps", s.hasDevice, func(path string) { s.match(ref{path: path, how: "map"}, ns, who.found) })
	return denied
}

// hasDevice tells whether a target lies on a device.
func (s *scan) hasDevice(major, minor uint32) bool {
	return s.devices[[2]uint32{major, minor}]
}

// ref is something that a process refers to.
type ref struct {
	dir    int    // of the process
	link   string // below it, leads there; "" when there is none
	path   string // as the kernel shows it: from the root of the namespace of the mount that it goes through
	fdinfo string // below it, tells the mount that it goes through; "" when there is none
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
		if !known && s.detached(r, path, found) {
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
		if unix.Statx(r.dir, r.link, noSync, unix.STATX_MNT_ID, &st) == nil && st.Mask&unix.STATX_MNT_ID != 0 {
			return st.Mnt_id
		}
	}
	if r.fdinfo != "" {
		return fdMountID(r.dir, r.fdinfo)
	}
	return linkMountID(proc, r)
}

// detached looks at a file behind a mount that no namespace shows any more (umount -l). Its path begins at that mount's root, which
// is not known, so the file is looked for under each target by every end of that path.
func (s *scan) detached(r ref, path string, found func(int, string)) bool {
	how := r.how + " through a detached mount"
	var file unix.Stat_t
	if unix.Fstatat(r.dir, r.link, &file, 0) != nil {
		return false
	}
	hit := false
	for _, i := range s.places[place{fmt.Sprintf("%d:%d", unix.Major(file.Dev), unix.Minor(file.Dev)), "/"}] {
		if s.targets[i].Verify == VerifySuperblock {
			found(i, how)
			hit = true
		}
	}
	for i, t := range s.targets {
		if t.Verify == VerifySuperblock {
			continue
		}
		for rest, more := path, true; more; rest, more = behindFirst(rest) {
			var candidate unix.Stat_t
			if unix.Lstat(filepath.Join(t.Path, rest), &candidate) == nil && candidate.Dev == file.Dev && candidate.Ino == file.Ino {
				found(i, how)
				hit = true
				break
			}
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
func (s *scan) sandboxLinks(who *suspect) {
	env := environment(who.dir, "environ")
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
			who.found(i, "sandbox link")
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
		if agent = environment(unix.AT_FDCWD, s.proc+"/"+strconv.Itoa(pid)+"/environ")["MESOS_AGENT_ENDPOINT"]; agent != "" {
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
func environment(dir int, path string) map[string]string {
	raw, err := readWhole(dir, path)
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
	raw, err := readWhole(unix.AT_FDCWD, proc+"/"+strconv.Itoa(pid)+"/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(raw, pid)
}

func parseStat(raw []byte, pid int) (stat, error) {
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
	var err error
	s.start, err = strconv.ParseUint(fields[19], 10, 64)
	return s, err
}

// fdMountID reads the mount that an open file was opened through, 0 when it is not told.
func fdMountID(dir int, path string) uint64 {
	raw, err := readWhole(dir, path)
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
func linkMountID(proc string, r ref) uint64 {
	fd, err := unix.Openat(r.dir, r.link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	return fdMountID(unix.AT_FDCWD, filepath.Join(proc, "self/fdinfo", strconv.Itoa(fd)))
}

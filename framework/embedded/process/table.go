// Package process runs the real processes of the embedded engine's tasks and finds every one of them again.
//
// A task is more than the process that was started: it forks, double-forks and makes sessions of its own
// (PostgreSQL's children do). Whoever says that a task is over must have ended all of them, for they may write
// to a volume that is about to move. So a process belongs to a task when any of these holds:
//
//   - it is the process that was started (pid and start time, never a bare pid);
//   - it is in that process's session or process group while the first process is alive or not yet reaped
//     (until then the kernel gives its pid to nobody else);
//   - it is in the task's own mount namespace (only root has one per task);
//   - it was started with the task's marker in its environment;
//   - its parent belongs to the task.
//
// A first process that has ended is kept as a zombie until the others are gone, so that the second rule stays true.
package process

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// MarkerName is the environment variable that marks the processes of one task; its value is unique to a container.
const MarkerName = "MESOS_SANDBOX"

// callName marks the processes of a helper command in the same way. A command that runs beside a task has both marks.
const callName = "HOLDFAST_ENGINE_CALL"

// proc is what one look at /proc says about one process.
type proc struct {
	pid, ppid, group, session int
	start                     uint64 // clock ticks since boot: pid and start together name a process
	state                     byte
	namespace                 string // mount namespace, "" when it may not be read
	marker, call              string // values of MarkerName and callName in its first environment
}

// Table looks at the processes of this machine on behalf of many tasks: looks that are asked for at the same
// time are made once. It is safe for concurrent use.
type Table struct {
	name     string
	scanning sync.Mutex
	mu       sync.Mutex
	next     *look
	own      string // the mount namespace that this program was started in
}

type look struct {
	done  chan struct{}
	procs map[int]proc
}

// NewTable returns a table of this machine's processes. The name marks helper commands; it is the same in every life of a user, and nobody else's:
// an agent's directory.
func NewTable(name string) *Table {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	return &Table{name: name, own: own}
}

// callSeparator stands between a table's name and a helper's own number in a helper's mark.
const callSeparator = "#"

// snapshot returns a look at /proc that was begun after the call.
func (t *Table) snapshot() map[int]proc {
	t.mu.Lock()
	if l := t.next; l != nil {
		t.mu.Unlock()
		<-l.done
		return l.procs
	}
	l := &look{done: make(chan struct{})}
	t.next = l
	t.mu.Unlock()

	t.scanning.Lock()
	t.mu.Lock()
	t.next = nil // whoever comes from now on needs a later look
	t.mu.Unlock()
	l.procs = scan()
	t.scanning.Unlock()
	close(l.done)
	return l.procs
}

func scan() map[int]proc {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	procs := make(map[int]proc, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, err := readStat(pid)
		if err != nil || p.ppid == 2 || pid == 2 { // kernel threads are nobody's task
			continue
		}
		if p.state != 'Z' {
			p.namespace, _ = os.Readlink("/proc/" + name + "/ns/mnt")
			p.marker, p.call = readMarkers(name)
		}
		procs[pid] = p
	}
	return procs
}

func readStat(pid int) (proc, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return proc{}, err
	}
	// pid (name) state ppid pgrp session …, and the name may hold spaces and parentheses.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return proc{}, syscall.EINVAL
	}
	f := strings.Fields(string(data[end+1:]))
	if len(f) < 20 {
		return proc{}, syscall.EINVAL
	}
	p := proc{pid: pid, state: f[0][0]}
	p.ppid, _ = strconv.Atoi(f[1])
	p.group, _ = strconv.Atoi(f[2])
	p.session, _ = strconv.Atoi(f[3])
	p.start, err = strconv.ParseUint(f[19], 10, 64)
	return p, err
}

func readMarkers(pid string) (marker, call string) {
	data, err := os.ReadFile("/proc/" + pid + "/environ")
	if err != nil {
		return "", ""
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if v, ok := bytes.CutPrefix(entry, []byte(MarkerName+"=")); ok {
			marker = string(v)
		} else if v, ok := bytes.CutPrefix(entry, []byte(callName+"=")); ok {
			call = string(v)
		}
	}
	return marker, call
}

// Identity is how the processes of one task are recognized, also by a program that did not start them.
type Identity struct {
	Pid    int    // the first process, 0 when not known
	Start  uint64 // its start time in clock ticks since boot
	Marker string // value of MarkerName

	guest bool // runs in the mount namespace of another task, so that a namespace proves nothing
}

// members returns the living processes of a task. held says that the first process is known not to be reaped,
// namespace is the task's own mount namespace or "".
func (t *Table) members(id Identity, held bool, namespace string) []proc {
	procs := t.snapshot()
	in := make(map[int]bool)
	spaces := map[string]bool{}
	if namespace != "" {
		spaces[namespace] = true
	}
	if first, ok := procs[id.Pid]; ok && id.Pid != 0 && first.start == id.Start {
		held = true
		in[id.Pid] = true
	}
	self := os.Getpid()
	for pid, p := range procs {
		if id.Marker != "" && (p.marker == id.Marker || p.call == id.Marker) ||
			held && id.Pid != 0 && (p.session == id.Pid || p.group == id.Pid) {
			in[pid] = true
		}
	}
	for changed := true; changed; {
		changed = false
		for pid := range in {
			if s := procs[pid].namespace; !id.guest && s != "" && t.own != "" && s != t.own && !spaces[s] {
				spaces[s] = true
				changed = true
			}
		}
		for pid, p := range procs {
			if !in[pid] && (in[p.ppid] || spaces[p.namespace]) {
				in[pid] = true
				changed = true
			}
		}
	}
	var out []proc
	for pid := range in {
		if p := procs[pid]; pid > 1 && pid != self && p.state != 'Z' && p.state != 'X' {
			out = append(out, p)
		}
	}
	return out
}

// signal sends a signal to the very process that was seen, not to a later one with its pid.
func (p proc) signal(sig syscall.Signal) {
	if now, err := readStat(p.pid); err != nil || now.start != p.start {
		return
	}
	_ = syscall.Kill(p.pid, sig)
}

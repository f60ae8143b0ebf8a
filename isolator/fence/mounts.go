package fence

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// place is a directory or file in file system terms: which file system, and which path within it. It is the same wherever
// that part of the file system is mounted.
type place struct {
	device string // major:minor
	path   string // from the file system's own root
}

// in tells whether p is t or below it.
func (p place) in(t place) bool { return p.device == t.device && within(p.path, t.path) }

// mountLine is one line of mountinfo.
type mountLine struct {
	id     uint64
	device string
	root   string // which directory of the file system is mounted
	point  string // where, from the root of the reader
}

// place gives what a path below the mount point is in file system terms; false when the path is not below it.
func (m mountLine) place(path string) (place, bool) {
	if !within(path, m.point) {
		return place{}, false
	}
	return place{m.device, join(m.root, strings.TrimPrefix(path, m.point))}, true
}

func join(root, rest string) string { return filepath.Clean(root + "/" + rest) }

// mountTable holds the mounts of every namespace that was met in a scan. The kernel's mount ids are unique over all of them.
type mountTable struct {
	proc string

	mu         sync.Mutex
	namespaces map[string][]mountLine // by the name of the namespace, in mount order
	ids        map[uint64]mountLine
}

func newMountTable(proc string) *mountTable {
	return &mountTable{proc: proc, namespaces: map[string][]mountLine{}, ids: map[uint64]mountLine{}}
}

// load reads the mounts of a namespace through one of its processes, once.
func (t *mountTable) load(ns, process string) error {
	t.mu.Lock()
	_, known := t.namespaces[ns]
	t.mu.Unlock()
	if known {
		return nil
	}
	lines, err := readMounts(filepath.Join(t.proc, process, "mountinfo"))
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.namespaces[ns] = lines
	for _, l := range lines {
		t.ids[l.id] = l
	}
	return nil
}

func readMounts(path string) ([]mountLine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []mountLine
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 16<<10), 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		id, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			continue
		}
		out = append(out, mountLine{id: id, device: fields[2], root: unescape(fields[3]), point: unescape(fields[4])})
	}
	return out, lines.Err()
}

func (t *mountTable) byID(id uint64) (mountLine, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.ids[id]
	return m, ok
}

// locate resolves a path in a namespace by its mounts alone, without touching any file system: the deepest mount point above it
// counts, and of several at one place the latest.
func (t *mountTable) locate(ns, path string) (place, bool) {
	t.mu.Lock()
	lines := t.namespaces[ns]
	t.mu.Unlock()
	best := -1
	for i, l := range lines {
		if within(path, l.point) && (best < 0 || len(l.point) >= len(lines[best].point)) {
			best = i
		}
	}
	if best < 0 {
		return place{}, false
	}
	return lines[best].place(path)
}

// madeAround tells whether a namespace shows the target, or a part of it, at a mount point where our own does not: somebody has mounted it
// there for the processes of that namespace. A copy of our own mounts is not that, and neither is one of the target's own mount point from
// before it was unmounted here.
func (t *mountTable) madeAround(ns, self, managed string, target place) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.namespaces[ns] {
		if l.point == managed || !(place{l.device, l.root}).in(target) {
			continue
		}
		if !hasMount(t.namespaces[self], l) {
			return true
		}
	}
	return false
}

func hasMount(lines []mountLine, m mountLine) bool {
	for _, l := range lines {
		if l.point == m.point && l.device == m.device && l.root == m.root {
			return true
		}
	}
	return false
}

// unescape undoes the octal escapes of white space and backslash in mountinfo and maps.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

package fence

import (
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

// mountLine is one line of mountinfo.
type mountLine struct {
	id     uint64
	device string
	root   string // which directory of the file system is mounted
	point  string // where, from the root of the reader
	local  bool   // its file system asks no server, so that looking at a file of it cannot hang
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
	mu         sync.Mutex
	namespaces map[string]*namespace // by the name of the namespace
	ids        map[uint64]mountLine
}

// namespace is the mounts of one.
type namespace struct {
	lines  []mountLine    // in mount order
	points map[string]int // mount point to the latest line
}

func newMountTable() *mountTable {
	return &mountTable{namespaces: map[string]*namespace{}, ids: map[uint64]mountLine{}}
}

// load reads the mounts of a namespace from the mountinfo of one of its processes, once.
func (t *mountTable) load(ns string, dir int, path string) error {
	t.mu.Lock()
	_, known := t.namespaces[ns]
	t.mu.Unlock()
	if known {
		return nil
	}
	lines, err := readMounts(dir, path)
	if err != nil {
		return err
	}
	read := &namespace{lines: lines, points: make(map[string]int, len(lines))}
	for i, l := range lines {
		read.points[l.point] = i
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.namespaces[ns] = read
	for _, l := range lines {
		t.ids[l.id] = l
	}
	return nil
}

// readMounts reads a mountinfo. A node may have thousands of mounts, and this is done for each look for users, so it copies the text once.
func readMounts(dir int, path string) ([]mountLine, error) {
	raw, err := readWhole(dir, path)
	if err != nil {
		return nil, err
	}
	text := string(raw)
	out := make([]mountLine, 0, strings.Count(text, "\n"))
	for len(text) > 0 {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if m, ok := parseMount(line); ok {
			out = append(out, m)
		}
	}
	return out, nil
}

// parseMount reads "36 35 98:0 /root /point options tags… - type source options".
func parseMount(line string) (m mountLine, ok bool) {
	var id string
	id, line, _ = strings.Cut(line, " ")
	_, line, _ = strings.Cut(line, " ") // the parent
	m.device, line, _ = strings.Cut(line, " ")
	m.root, line, _ = strings.Cut(line, " ")
	m.point, line, ok = strings.Cut(line, " ")
	var err error
	if m.id, err = strconv.ParseUint(id, 10, 64); err != nil || !ok {
		return m, false
	}
	m.root, m.point = unescape(m.root), unescape(m.point)
	_, line, _ = strings.Cut(line, " - ")
	kind, _, _ := strings.Cut(line, " ")
	m.local = !strings.HasPrefix(m.device, "0:") || localKinds[kind]
	return m, true
}

// localKinds are file systems without a block device of their own that ask no server either.
var localKinds = map[string]bool{"btrfs": true, "overlay": true, "tmpfs": true, "devtmpfs": true, "proc": true, "sysfs": true, "ramfs": true, "devpts": true,
	"cgroup": true, "cgroup2": true, "mqueue": true, "hugetlbfs": true, "zfs": true}

func (t *mountTable) byID(id uint64) (mountLine, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.ids[id]
	return m, ok
}

// locate resolves a path in a namespace by its mounts alone, without touching any file system: the deepest mount point above it
// counts, and of several at one place the latest.
func (t *mountTable) locate(ns, path string) (mountLine, place, bool) {
	t.mu.Lock()
	n := t.namespaces[ns]
	t.mu.Unlock()
	if n == nil {
		return mountLine{}, place{}, false
	}
	for above := path; ; above = above[:strings.LastIndexByte(above, '/')] {
		if above == "" {
			above = "/"
		}
		if i, ok := n.points[above]; ok {
			p, ok := n.lines[i].place(path)
			return n.lines[i], p, ok
		}
		if above == "/" || above[0] != '/' {
			return mountLine{}, place{}, false
		}
	}
}

// madeAround gives the targets that a namespace shows, wholly or in part, at a mount point where our own does not: somebody has mounted them
// there for the processes of that namespace. A copy of our own mounts is not that, and neither is one of the target's own mount point from
// before it was unmounted here.
func (t *mountTable) madeAround(ns, self string, in func(place) []int, managed func(target int) string) []int {
	t.mu.Lock()
	other, own := t.namespaces[ns], t.namespaces[self]
	t.mu.Unlock()
	var out []int
	for _, l := range other.lines {
		for _, target := range in(place{l.device, l.root}) {
			if l.point != managed(target) && !own.has(l) {
				out = append(out, target)
			}
		}
	}
	return out
}

func (n *namespace) has(m mountLine) bool {
	for _, l := range n.lines {
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

package fence

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Other processes choose their names, their files' names and their mounts, and all of it is read from /proc.
func FuzzProc(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw")
	f.Add(`22 20 8:1 /else\040where /mnt/a\134b rw - ext4 /dev/a rw`)
	f.Add("7 (a) b (c) S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0")
	f.Add("00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon")
	f.Add("/mesos/0a4f2a3c-7d5e-4a57-9d3a-1b2c3d4e5f60/../../x")
	f.Add(`\0`)
	f.Add(") ")
	f.Fuzz(func(t *testing.T, text string) {
		if m, ok := parseMount(text); ok {
			if p, below := m.place(m.point); below && strings.HasPrefix(m.root, "/") && !within(p.path, filepath.Clean(m.root)) {
				t.Errorf("%q: its mount point lies at %+v, outside its root %s", text, p, m.root)
			}
			table := newMountTable()
			table.namespaces["n"] = &namespace{lines: []mountLine{m}, points: map[string]int{m.point: 0}}
			table.locate("n", m.point)
			table.locate("n", text)
			table.madeAround("n", "n", func(place) []int { return []int{0} }, func(int) string { return "" })
		}
		if s, err := parseStat([]byte(text), 1); err == nil && strings.Count(text, "(") == 1 && strings.Count(text, ")") == 1 && !strings.Contains(text, "("+s.command+")") {
			t.Errorf("%q: command %q", text, s.command)
		}
		deviceOf([]byte(text))
		if escaped := escape(text); unescape(escaped) != text {
			t.Errorf("%q comes back as %q", text, unescape(escaped))
		}
		if path, ok := containerPath(text); ok && (!strings.HasPrefix(text, path) || strings.Contains(path+"/", "/../")) {
			t.Errorf("%q: container %q", text, path)
		}
		s := &scan{places: map[place][]int{{"8:1", "/"}: {0}}}
		if hit := s.in(place{"8:1", "/" + text}); len(hit) != 1 {
			t.Errorf("%q is not below the root: %v", text, hit)
		}
	})
}

// escape is what the kernel does.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c == ' ' || c == '\t' || c == '\n' || c == '\\' {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

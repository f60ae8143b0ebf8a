package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/heavy"
)

// start runs a shell script as a task in dir and kills it at the end of the test.
func start(t testing.TB, table *Table, dir, script string, mounts *Mounts) *Process {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p, err := table.Start(Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{Mark(dir), "PATH=/usr/bin:/bin:/usr/sbin:/sbin"},
		Dir: dir, Marker: dir, Stdin: null, Stdout: null, Stderr: null, Mounts: mounts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); wait(t, p.Gone()) })
	return p
}

func wait(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("waited ten seconds")
	}
}

// eventually waits until a file is there and returns its content.
func eventually(t testing.TB, path string) string {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if data, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(data), "\n") {
			return strings.TrimSpace(string(data))
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not written", path)
		}
	}
}

func alive(pid string) bool {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(data), ") Z ")
}

func TestExit(t *testing.T) {
	for script, want := range map[string]string{
		"exit 0": "exited with status 0", "exit 3": "exited with status 3", "kill -TERM $$": "terminated with signal Terminated",
		"kill -SEGV $$": "terminated with signal Segmentation fault", "kill -KILL $$": "terminated with signal Killed",
	} {
		p := start(t, NewTable(t.Name()), t.TempDir(), script, nil)
		wait(t, p.Exited())
		if got := strings.TrimSuffix(p.Exit().Describe(), " (core dumped)"); got != want {
			t.Errorf("%s: %q, want %q", script, got, want)
		}
		wait(t, p.Gone())
	}
}

func TestEveryDescendantDies(t *testing.T) {
	for name, daemon := range map[string]string{
		"same session":            `(trap "" TERM; echo $$ > pid; sleep 300) &`,
		"own session":             `setsid sh -c 'trap "" TERM HUP; echo $$ > pid; sleep 300' &`,
		"double fork":             `(setsid sh -c 'echo $$ > pid; sleep 300' &)`,
		"double fork, no marker":  `(setsid env -i sh -c 'echo $$ > pid; exec sleep 300' &)`,
		"child of a double fork":  `(setsid sh -c 'env -i setsid sleep 300 & echo $! > pid; exec env -u MESOS_SANDBOX sleep 301' &)`,
		"many generations deeper": `(setsid sh -c '(setsid sh -c "(setsid sh -c \"echo \\\$\\\$ > pid; exec sleep 300\" &)" &)' &)`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var mounts *Mounts
			if strings.Contains(name, "no marker") || strings.Contains(name, "child of") {
				if !CanMount() {
					t.Skip("without a marker only a mount namespace tells, and that needs root")
				}
				mounts = &Mounts{Sandbox: dir}
			}
			p := start(t, NewTable(t.Name()), dir, daemon+"\nsleep 300", mounts)
			pid := eventually(t, dir+"/pid")
			if !alive(pid) {
				t.Fatalf("process %s is not there", pid)
			}
			p.Kill()
			wait(t, p.Gone())
			if alive(pid) {
				t.Errorf("process %s lives on", pid)
			}
		})
	}
}

func TestOverMeansOver(t *testing.T) {
	if !CanMount() {
		t.Skip("mount namespaces need root")
	}
	// The kernel gives the number of a mount namespace that has ended to the next one: a late Kill must not hit that.
	table := NewTable(t.Name())
	for range 20 {
		dir := t.TempDir()
		first := start(t, table, dir, "exit 0", &Mounts{Sandbox: dir})
		wait(t, first.Gone())
		second := start(t, table, dir+"/..", "sleep 300", &Mounts{Sandbox: dir})
		first.Kill()
		select {
		case <-second.Exited():
			t.Fatal("another task was killed")
		case <-time.After(2 * time.Millisecond):
		}
		second.Kill()
		wait(t, second.Gone())
	}
}

func TestRun(t *testing.T) {
	table := NewTable(t.Name())
	out, err := table.Run(context.Background(), Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "cat; echo out; echo err >&2; exit 4"}})
	if err != nil || string(out.Stdout) != "out\n" || string(out.Stderr) != "err\n" || out.Exit.Code != 4 {
		t.Errorf("%+v %v", out, err)
	}
	out, err = table.Run(context.Background(), Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "head -c 300000 /dev/zero"}})
	if err != nil || len(out.Stdout) != maxOutput {
		t.Errorf("kept %d bytes, %v", len(out.Stdout), err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, late)
	defer cancel()
	dir := t.TempDir()
	_, err = table.Run(ctx, Spec{Path: "/bin/sh", Args: []string{"sh", "-c", "setsid sleep 300 & echo $! > " + dir + "/pid; wait"}})
	if !errors.Is(err, late) {
		t.Errorf("after the limit: %v", err)
	}
	if pid := eventually(t, dir+"/pid"); alive(pid) {
		t.Errorf("process %s lives on", pid)
	}
	if _, err := table.Run(context.Background(), Spec{Path: "/no/such", Args: []string{"x"}}); ErrText(err) != "no such file or directory" {
		t.Errorf("missing program: %v", err)
	}
}

func TestSharedLooks(t *testing.T) {
	table := NewTable(t.Name())
	done := make(chan int, 50)
	for range 50 {
		go func() { done <- len(table.snapshot()) }()
	}
	for range 50 {
		if n := <-done; n == 0 {
			t.Error("an empty look")
		}
	}
}

func TestHeavyMounts(t *testing.T) {
	heavy.Require(t, heavy.Root)
	table := NewTable(t.Name())
	root := t.TempDir()
	box, roots, volume, other := root+"/box", root+"/mnt", root+"/mnt/a", root+"/mnt/b"
	for _, d := range []string{box, volume, other, root + "/outside", root + "/plain"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{volume, other} {
		if err := syscall.Mount("none", d, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Unmount(d, syscall.MNT_DETACH) })
		os.WriteFile(d+"/name", []byte(filepath.Base(d)+"\n"), 0o644)
	}
	run := func(binds []Bind, script string) (string, error) {
		out := filepath.Join(t.TempDir(), "out")
		null, _ := os.Open(os.DevNull)
		defer null.Close()
		f, _ := os.Create(out)
		defer f.Close()
		p, err := table.Start(Spec{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{Mark(box), "PATH=/usr/bin:/bin:/usr/sbin:/sbin"}, Dir: box,
			Marker: box, Stdin: null, Stdout: f, Stderr: f, Mounts: &Mounts{Sandbox: box, Binds: binds, Hide: []string{roots}}})
		if err != nil {
			return "", err
		}
		wait(t, p.Gone())
		data, _ := os.ReadFile(out)
		return strings.TrimSpace(string(data)), nil
	}
	for name, c := range map[string]struct {
		binds []Bind
		cmd   string
		want  string // or the error
	}{
		"relative":         {[]Bind{{volume, "data", false}}, "cat data/name; echo x > data/new && echo written", "a\nwritten"},
		"nested":           {[]Bind{{other, "data/sub", false}, {volume, "data", false}}, "cat data/name data/sub/name", "a\nb"},
		"read-only":        {[]Bind{{volume, "ro", true}}, "cat ro/name; touch ro/x 2>&1 | grep -o 'Read-only'", "a\nRead-only"},
		"others hidden":    {[]Bind{{volume, "data", false}}, "ls " + roots + "/b " + roots + "/a | grep name; grep -c ' " + root + "/mnt' /proc/self/mountinfo; cat data/name", "0\na"},
		"absolute":         {[]Bind{{volume, root + "/plain", false}}, "cat " + root + "/plain/name", "a"},
		"absolute missing": {[]Bind{{volume, root + "/none", false}}, "", "Absolute container path '" + root + "/none' does not exist"},
		"file":             {[]Bind{{volume + "/name", "conf/name", false}}, "cat conf/name", "a"},
		"no source":        {[]Bind{{root + "/none", "x", false}}, "", "no such file"},
		"through a link":   {[]Bind{{volume, "trap/x", false}}, "", "container path 'trap/x'"},
		"on a file link":   {[]Bind{{volume + "/name", "trap", false}}, "", "container path 'trap'"},
		"climbing":         {[]Bind{{volume, "../outside", false}}, "", "outside of the sandbox"},
		"on a link":        {[]Bind{{volume, "trap", false}}, "", "container path 'trap'"},
	} {
		os.Remove(box + "/trap")
		os.Symlink(root+"/outside", box+"/trap")
		got, err := run(c.binds, c.cmd)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if left, _ := os.ReadDir(root + "/outside"); len(left) > 0 {
		t.Errorf("outside the sandbox: %v", left)
	}
	for _, d := range []string{volume, other} { // nothing keeps them alive
		if err := syscall.Unmount(d, 0); err != nil {
			t.Errorf("unmount %s: %v", d, err)
		}
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		if ns, err := os.Readlink(fmt.Sprintf("/proc/self/task/%s/ns/mnt", task.Name())); err == nil && ns != own {
			t.Errorf("thread %s was left in %s", task.Name(), ns)
		}
	}
}

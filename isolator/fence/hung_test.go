package fence

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process that the kernel does not tell all about holds nobody up for long, what was seen of it before counts, and nothing is called
// verified as long as it is there.
func TestScanOfHungProcess(t *testing.T) {
	proc := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(proc, name)); err != nil {
			t.Fatal(err)
		}
	}
	const mounts = `20 1 8:1 / / rw - ext4 /dev/a rw
21 20 8:2 / /mnt rw - ext4 /dev/b rw
22 20 8:1 /elsewhere /mnt/white\040space rw - ext4 /dev/a rw
`
	write("self/mountinfo", mounts)
	link("self/ns/mnt", "mnt:[1]")
	const stat = ") S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0"
	for pid, file := range map[string]string{"4242": "/vol/pg/file", "4243": "/mnt/vol/pg/file", "4244": "/mnt/white space/file"} {
		write(pid+"/stat", pid+" (a) b"+stat)
		write(pid+"/environ", "")
		write(pid+"/mountinfo", mounts)
		link(pid+"/ns/mnt", "mnt:[1]")
		link(pid+"/cwd", "/")
		link(pid+"/fd/3", file)
		write(pid+"/fdinfo/3", "pos:\t0\nflags:\t02\nmnt_id:\t"+map[string]string{"4242": "20", "4243": "21", "4244": "22"}[pid]+"\n")
		if err := unix.Mkfifo(filepath.Join(proc, pid, "maps"), 0o644); err != nil { // opening it never returns
			t.Fatal(err)
		}
	}
	f := New(Options{Proc: proc})
	for range 3 { // the second time it is known who does not answer
		scanHung(t, f)
	}
	if n := len(f.looking); n != 3 {
		t.Errorf("%d goroutines wait for 3 processes", n)
	}
}

func scanHung(t *testing.T, f *Fence) {
	t.Helper()
	began := time.Now()
	usage, err := f.Users(context.Background(), Target{Path: "/vol/pg"}, Target{Path: "/elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	u, e := usage["/vol/pg"], usage["/elsewhere"]
	if len(u.Users) != 1 || u.Users[0] != (Process{PID: 4242, Start: 777, Command: "a) b", How: "fd 3"}) || u.Hung != 3 {
		t.Errorf("usage %+v", u)
	}
	if len(e.Users) != 1 || e.Users[0].PID != 4244 {
		t.Errorf("the same file system under another mount point: %+v", e)
	}
}

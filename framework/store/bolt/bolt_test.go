package bolt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/storetest"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Factory {
		dir := t.TempDir()
		return storetest.Factory{Open: func(t testing.TB) store.Backend {
			t.Helper()
			return mustOpen(t, dir)
		}}
	})
}

func mustOpen(t testing.TB, dir string) *Backend {
	t.Helper()
	b, err := Open(dir, Options{Wait: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSecondProcessIsToldWhoLeads(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir)
	defer b.Close()
	_, err := Open(dir, Options{Wait: 50 * time.Millisecond})
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Fatalf("second open: %v", err)
	}
	b.Close()
	mustOpen(t, dir).Close()
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "state")
	mustOpen(t, dir).Close()
	for name, want := range map[string]os.FileMode{".": 0o700, FileName: 0o600, holderName: 0o600} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, st.Mode(), err, want)
		}
	}
}

func TestPlacesThatCannotHoldState(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as directory: %v", err)
	}
	if _, err := Open("/proc/1/holdfast", Options{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a directory that cannot be made: %v", err)
	}
	if os.Geteuid() != 0 {
		ro := filepath.Join(dir, "ro")
		if err := os.Mkdir(ro, 0o500); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(ro, Options{}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("read-only directory: %v", err)
		}
	}
}

func TestDamagedFile(t *testing.T) {
	for name, damage := range map[string]func(raw []byte) []byte{
		"text":          func([]byte) []byte { return []byte(strings.Repeat("not a database\n", 1000)) },
		"short":         func(raw []byte) []byte { return raw[:100] },
		"cut in half":   func(raw []byte) []byte { return raw[:len(raw)/2] },
		"zero metas":    func(raw []byte) []byte { clear(raw[:8192]); return raw },
		"zero the rest": func(raw []byte) []byte { clear(raw[8192:]); return raw },
		"ff the rest": func(raw []byte) []byte {
			for i := 8192; i < len(raw); i++ {
				raw[i] = 0xff
			}
			return raw
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := mustOpen(t, dir)
			term, err := b.Lead(context.Background(), storetest.A, "x")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				if err := b.Commit(context.Background(), storetest.A, term, []store.Op{storetest.Put(fmt.Sprintf("apps/a%d", i), strings.Repeat("x", 1000))}); err != nil {
					t.Fatal(err)
				}
			}
			b.Close()
			path := filepath.Join(dir, FileName)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(raw), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err = Open(dir, Options{Wait: 50 * time.Millisecond})
			if err == nil {
				n := 0
				err = b.Load(context.Background(), storetest.A, func(string, []byte) error { n++; return nil })
				b.Close()
				if err == nil && n == 50 {
					t.Skip("the damage hit nothing")
				}
			}
			if !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), path) {
				t.Errorf("damaged file: %v", err)
			}
		})
	}
}

func TestReplacedFile(t *testing.T) {
	dir := t.TempDir()
	b := mustOpen(t, dir)
	defer b.Close()
	term, err := b.Lead(context.Background(), storetest.A, "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, FileName)); err != nil {
		t.Fatal(err)
	}
	err = b.Commit(context.Background(), storetest.A, term, []store.Op{storetest.Put("apps/a", "1")})
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("commit into a file that is gone: %v", err)
	}
	// From then on nothing is accepted before Lead has seen what there is.
	err = b.Commit(context.Background(), storetest.A, term, []store.Op{storetest.Put("apps/a", "1")})
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("commit after a failed one: %v", err)
	}
	if err := b.Load(context.Background(), storetest.A, func(string, []byte) error { return nil }); err == nil {
		t.Fatal("load after a failed commit, without Lead")
	}
}

// TestHeavyFullDisk fills a small file system: commits fail whole, and work again when there is room.
func TestHeavyFullDisk(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH) //nolint:errcheck // a temporary directory
	b := mustOpen(t, dir)
	defer b.Close()
	ctx := context.Background()
	term, err := b.Lead(ctx, storetest.A, "x")
	if err != nil {
		t.Fatal(err)
	}
	last, failures := -1, 0
	for i := 0; failures < 3 && i < 200; i++ {
		err := b.Commit(ctx, storetest.A, term, []store.Op{storetest.Put(fmt.Sprintf("apps/a%03d", i), strings.Repeat("x", 64<<10)), storetest.Put("apps/last", strconv.Itoa(i))})
		if err == nil {
			last = i
			continue
		}
		failures++
		t.Logf("commit %d: %v", i, err)
		if !fault.Is(err, fault.Unknown) && !fault.Is(err, fault.Unavailable) {
			t.Fatalf("class %s", fault.ClassOf(err))
		}
		if term, err = b.Lead(ctx, storetest.A, "x"); err != nil {
			t.Logf("lead on a full disk: %v", err)
			break
		}
		got := storetest.All(t, b, storetest.A)
		if got["apps/last"] != strconv.Itoa(last) || len(got) != last+2 {
			t.Fatalf("after a failed commit: last %s of %d records, want %d", got["apps/last"], len(got), last)
		}
	}
	if failures == 0 {
		t.Fatal("the disk never filled up")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Skipf("remount: %v", err)
	}
	if term, err = b.Lead(ctx, storetest.A, "x"); err != nil {
		t.Fatal(err)
	}
	got := storetest.All(t, b, storetest.A)
	if got["apps/last"] != strconv.Itoa(last) || len(got) != last+2 {
		t.Fatalf("with room again: last %s of %d records, want %d", got["apps/last"], len(got), last)
	}
	if err := b.Commit(ctx, storetest.A, term, []store.Op{storetest.Put("apps/after", "x")}); err != nil {
		t.Fatal(err)
	}
}

func TestHeavyReadOnlyFileSystem(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH) //nolint:errcheck // a temporary directory
	mustOpen(t, dir).Close()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("remount: %v", err)
	}
	if _, err := Open(dir, Options{}); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only file system: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "new"), Options{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("new directory on a read-only file system: %v", err)
	}
}

// TestHeavyKill has a child commit pairs as fast as it can and kills it with SIGKILL: what the child said is committed must be there, whole.
func TestHeavyKill(t *testing.T) {
	if dir := os.Getenv("HOLDFAST_BOLT_CHILD"); dir != "" {
		childCommits(dir)
		return
	}
	heavy.Require(t)
	dir := t.TempDir()
	next := 0
	for round := range 15 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHeavyKill$")
		cmd.Env = append(os.Environ(), "HOLDFAST_BOLT_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(20+round*17)*time.Millisecond+50*time.Millisecond, func() { _ = cmd.Process.Kill() })
		said := -1
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			if n, err := strconv.Atoi(sc.Text()); err == nil {
				said = n
			}
		}
		kill.Stop()
		_ = cmd.Wait()
		b := mustOpen(t, dir)
		got := storetest.All(t, b, storetest.A)
		b.Close()
		if got["apps/l"] != got["apps/r"] {
			t.Fatalf("half a commit: %q and %q", got["apps/l"], got["apps/r"])
		}
		have, err := strconv.Atoi(got["apps/l"])
		if err != nil && said >= 0 {
			t.Fatalf("round %d: nothing there, but %d was acknowledged", round, said)
		}
		if said >= 0 && (have < said || have > said+1) {
			t.Fatalf("round %d: %d is there, %d was acknowledged", round, have, said)
		}
		if have < next {
			t.Fatalf("round %d: went back from %d to %d", round, next, have)
		}
		next = have
	}
	t.Logf("%d commits in 15 lives", next)
}

func childCommits(dir string) {
	b, err := Open(dir, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	n := 0
	_ = b.Load(ctx, storetest.A, func(k string, v []byte) error {
		if strings.HasSuffix(k, "apps/l") {
			n, _ = strconv.Atoi(string(v))
		}
		return nil
	})
	term, err := b.Lead(ctx, storetest.A, "child")
	if err != nil {
		os.Exit(1)
	}
	for {
		n++
		v := strconv.Itoa(n)
		if err := b.Commit(ctx, storetest.A, term, []store.Op{storetest.Put("apps/l", v), storetest.Put("apps/r", v), storetest.Put("apps/filler"+strconv.Itoa(n%50), strings.Repeat("x", n%5000))}); err != nil {
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, writes := range []int{1, 10, 60} {
		b.Run(strconv.Itoa(writes), func(b *testing.B) {
			s := mustOpen(b, b.TempDir())
			defer s.Close()
			ctx := context.Background()
			term, err := s.Lead(ctx, storetest.A, "bench")
			if err != nil {
				b.Fatal(err)
			}
			ops := make([]store.Op, writes)
			for i := 0; b.Loop(); i++ {
				for j := range ops {
					ops[j] = storetest.Put(fmt.Sprintf("instances/%02x/a.%d", j, (i*writes+j)%5000), strings.Repeat("x", 700))
				}
				if err := s.Commit(ctx, storetest.A, term, ops); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

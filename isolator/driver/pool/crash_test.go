package pool_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/image"
)

// doomed names what the process does until it is killed: verb, back end, fs, pool, mounts and size, with spaces between.
const doomed = "HOLDFAST_POOL_DOOMED"

func TestMain(m *testing.M) {
	if what := strings.Fields(os.Getenv(doomed)); len(what) == 6 {
		if err := doDoomed(what); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func doDoomed(what []string) error {
	fs := strings.Trim(what[2], "-")
	p, err := pool.Open(pool.Options{Backend: what[1], FS: fs, Dir: what[3], Mounts: what[4]})
	if err != nil {
		return err
	}
	size, err := volume.ParseSize(what[5])
	if err != nil {
		return err
	}
	switch what[0] {
	case "grow":
		_, err = p.Grow(ctx, "v", "", size)
	case "mount":
		_, err = p.Mount(ctx, driver.MountSpec{Name: "v", ID: "i"})
	case "snapshot":
		_, err = p.Snapshot(ctx, "v", "", "s")
	case "clone":
		_, err = p.Create(ctx, driver.Spec{Name: "w", UID: uuid.NewString(), Size: size, Source: &driver.Source{Volume: "v"}})
	case "peek":
		_, err = p.MountSnapshot(ctx, "v", "s", "i")
	case "remove":
		err = p.Remove(ctx, "v", "")
	case "undelete":
		_, err = p.Undelete(ctx, "v", "")
	case "purge":
		err = p.Purge(ctx, "v", "")
	default:
		err = errors.New("what is " + what[0])
	}
	return err
}

// killedAt runs a process that does something until it comes to a step; false when it never came there and did it all.
func (k kind) killedAt(t *testing.T, o pool.Options, verb, step string, size volume.Bytes) bool {
	t.Helper()
	fs := o.FS
	if fs == "" {
		fs = "-"
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), doomed+"="+strings.Join([]string{verb, o.Backend, fs, o.Dir, o.Mounts, size.String()}, " "), pool.CrashVariable+"="+step)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if err == nil {
		return false
	}
	if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() || st.Signal() != syscall.SIGKILL {
		t.Fatalf("%s until %s: %v: %s", verb, step, err, &said)
	}
	return true
}

// later is the pool as another process opens it after a day, which is when it sweeps all that dead makers left.
func later(t *testing.T, o pool.Options) *pool.Pool {
	t.Helper()
	o.Now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	p := open(t, o)
	if err := p.Sweep(ctx, time.Now().Add(-time.Hour)); err != nil {
		t.Errorf("sweep: %v", err)
	}
	for _, d := range []string{".new", ".peek"} {
		if left, _ := os.ReadDir(filepath.Join(o.Dir, d)); len(left) > 0 {
			t.Errorf("left in %s: %v", d, left)
		}
	}
	return p
}

var crashKinds = []kind{kinds[2], kinds[3], kinds[4]} // those that copy: btrfs, ext4 on xfs, xfs on btrfs

// TestHeavyKillGrow kills the grower at each of its steps, the volume mounted or not: what was asked for comes with the next mount or the next asking, and
// what was written stays.
func TestHeavyKillGrow(t *testing.T) {
	needKinds(t)
	reached := map[string]bool{}
	for _, k := range crashKinds {
		for _, mounted := range []bool{true, false} {
			steps := pool.MoreCrashSteps.Unmounted
			if mounted {
				steps = pool.MoreCrashSteps.Mounted
			}
			p, o, uid := k.one(t)
			old, _ := volume.ParseSize(k.size)
			size := old
			path := mountV(t, p, uid)
			if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o644); err != nil {
				t.Fatal(err)
			}
			if !mounted {
				unmountV(t, p)
			}
			for _, step := range steps {
				if !strings.HasPrefix(step, "grow") && !strings.HasPrefix(step, "regrow") {
					continue
				}
				before := size
				size += 16 << 20
				if k.killedAt(t, o, "grow", step, size) {
					reached[step] = true
				}
				info, err := p.Get(ctx, "v")
				if err != nil || (info.Size != before && info.Size != size) {
					t.Fatalf("%s, mounted %v, killed at %s: %+v %v", k.name, mounted, step, info, err)
				}
				if mounted { // through the same mount, then through the next
					if err := os.WriteFile(filepath.Join(path, "g"), []byte(step), 0o644); err != nil {
						t.Errorf("killed at %s: %v", step, err)
					}
					unmountV(t, p)
				}
				path = mountV(t, p, uid)
				if raw, err := os.ReadFile(filepath.Join(path, "f")); string(raw) != "kept" {
					t.Fatalf("killed at %s: content %q %v", step, raw, err)
				}
				if !mounted {
					unmountV(t, p)
				}
				if got, err := p.Grow(ctx, "v", uid, size); err != nil || got.Pending != 0 && !mounted || max(got.Size, got.Pending) != size {
					t.Errorf("%s, mounted %v, killed at %s, asked again: %+v %v", k.name, mounted, step, got, err)
				}
				if u, err := p.Usage(ctx, "v"); err != nil || (!mounted && u.Available < size-size/4-80<<20) {
					t.Errorf("%s, mounted %v, killed at %s: of %d there are %+v %v", k.name, mounted, step, size, u, err)
				}
			}
			if mounted {
				unmountV(t, p)
			}
			later(t, o)
		}
	}
	for _, step := range append(pool.MoreCrashSteps.Mounted, pool.MoreCrashSteps.Unmounted...) {
		if strings.Contains(step, "grow") && !reached[step] {
			t.Errorf("nothing ever came to %s", step)
		}
	}
}

// TestHeavyKillCopies kills whoever takes a snapshot, clones or looks at a snapshot, at each step: a snapshot or clone is there whole or not at all, and can be
// had afterwards.
func TestHeavyKillCopies(t *testing.T) {
	needKinds(t)
	reached := map[string]bool{}
	for _, k := range crashKinds {
		p, o, uid := k.one(t)
		old, _ := volume.ParseSize(k.size)
		path := mountV(t, p, uid)
		if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o644); err != nil {
			t.Fatal(err)
		}
		unmountV(t, p)
		for _, step := range pool.MoreCrashSteps.Unmounted {
			for _, verb := range []string{"snapshot", "clone"} {
				if verb != "clone" && strings.HasPrefix(step, "clone") || strings.HasPrefix(step, "snapshot") && verb != "snapshot" || strings.HasPrefix(step, "grow.") {
					continue
				}
				if !k.killedAt(t, o, verb, step, 2*old) {
					if verb == "clone" {
						_ = p.Remove(ctx, "w", "")
					}
					_ = p.RemoveSnapshot(ctx, "v", "s")
					continue
				}
				reached[step] = true
				p = later(t, o)
				if verb == "snapshot" {
					k.afterSnapshot(t, p, uid, step)
				} else {
					k.afterClone(t, p, o, step)
				}
			}
		}
		for _, step := range []string{"peek.attached", "peek.staged", "peek.filled"} {
			if _, err := p.Snapshot(ctx, "v", uid, "s"); err != nil {
				t.Fatal(err)
			}
			killed := k.killedAt(t, o, "peek", step, old)
			reached[step] = reached[step] || killed
			if path, err := p.MountSnapshot(ctx, "v", "s", "i"); err != nil || readFile(path, "f") != "kept" {
				t.Errorf("killed at %s: %q %v", step, path, err)
			}
			if err := p.UnmountSnapshot(ctx, "v", "s", "i"); err != nil {
				t.Error(err)
			}
			k.killedAt(t, o, "peek", step, old)
			if !killed || step == "peek.filled" { // what is shown may be in use: who showed it ends it
				if err := p.UnmountSnapshot(ctx, "v", "s", "i"); err != nil {
					t.Error(err)
				}
			}
			p = later(t, o)
			if err := p.RemoveSnapshot(ctx, "v", "s"); err != nil {
				t.Errorf("killed at %s: %v", step, err)
			}
		}
	}
	for _, step := range append(pool.MoreCrashSteps.Unmounted, "peek.attached", "peek.staged", "peek.filled") {
		if !strings.HasPrefix(step, "grow.") && !reached[step] {
			t.Errorf("nothing ever came to %s", step)
		}
	}
}

func readFile(dir, name string) string {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

func (k kind) afterSnapshot(t *testing.T, p *pool.Pool, uid, step string) {
	t.Helper()
	if all, err := p.Snapshots(ctx, ""); err != nil || len(all) > 1 || (len(all) == 1) != (step == "placed") {
		t.Errorf("%s: snapshots %+v %v", step, all, err)
	}
	if _, err := p.Snapshot(ctx, "v", uid, "s"); err != nil {
		t.Errorf("%s: %v", step, err)
	}
	if path, err := p.MountSnapshot(ctx, "v", "s", "i"); err != nil || readFile(path, "f") != "kept" {
		t.Errorf("%s: %q %v", step, path, err)
	}
	if err := errors.Join(p.UnmountSnapshot(ctx, "v", "s", "i"), p.RemoveSnapshot(ctx, "v", "s")); err != nil {
		t.Errorf("%s: %v", step, err)
	}
}

func (k kind) afterClone(t *testing.T, p *pool.Pool, o pool.Options, step string) {
	t.Helper()
	info, err := p.Get(ctx, "w")
	if step != "placed" && !fault.Is(err, fault.NotFound) {
		t.Errorf("%s: %+v %v", step, info, err)
	}
	if step != "placed" {
		if info, err = p.Create(ctx, driver.Spec{Name: "w", UID: uuid.NewString(), Source: &driver.Source{Volume: "v"}}); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
	path, err := p.Mount(ctx, driver.MountSpec{Name: "w", UID: info.UID, ID: "i"})
	if err != nil || readFile(path, "f") != "kept" {
		t.Errorf("%s: %q %v", step, path, err)
	}
	if err := errors.Join(p.Unmount(ctx, "w", "i"), p.Remove(ctx, "w", info.UID), p.Sweep(ctx, time.Now().Add(72*time.Hour))); err != nil {
		t.Errorf("%s: %v", step, err)
	}
	nothingLeft(t, o.Dir)
}

// TestHeavyKillBin kills whoever removes, brings back or purges a volume: it is in its place or in the bin, whole, or for good nowhere.
func TestHeavyKillBin(t *testing.T) {
	needKinds(t)
	for _, k := range []kind{{name: "dir", o: pool.Options{Backend: pool.Dir}, size: "16m"}, kinds[0], kinds[2]} {
		p, o, uid := k.one(t)
		writeSynced(t, filepath.Join(mountV(t, p, uid), "f"), "kept")
		unmountV(t, p)
		for _, step := range pool.MoreCrashSteps.Bin {
			verb, _, _ := strings.Cut(step, ".")
			if verb == "discard" {
				verb = "purge"
			}
			if verb != "remove" {
				if err := p.Remove(ctx, "v", uid); err != nil {
					t.Fatal(err)
				}
			}
			if !k.killedAt(t, o, verb, step, 1<<20) {
				t.Errorf("%s: nothing ever came to %s", k.name, step)
			}
			p = later(t, o) // whose sweep leaves in the bin what came there less than an hour ago
			_, gerr := p.Get(ctx, "v")
			all, err := p.Bin(ctx)
			if err != nil || (len(all) == 1) != (step == "remove.moved" || step == "undelete.labelled") || (gerr == nil) != (step == "remove.labelled" || step == "undelete.moved") {
				t.Fatalf("%s, killed at %s: in the bin %+v, in its place %v", k.name, step, all, gerr)
			}
			if step == "discard.moved" {
				break
			}
			if len(all) == 1 {
				if _, err := p.Undelete(ctx, "v", uid); err != nil {
					t.Fatal(err)
				}
			}
			if got := readFile(mountV(t, p, uid), "f"); got != "kept" {
				t.Errorf("%s, killed at %s: content %q", k.name, step, got)
			}
			unmountV(t, p)
		}
	}
}

// TestHeavyKillResize kills resize2fs itself, which keeps no journal: the next mount mends what it left, grows the volume, and nothing is lost.
func TestHeavyKillResize(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("timeout"))
	resize, err := exec.LookPath("resize2fs")
	if err != nil || image.MayGrowShown() {
		t.Skipf("resize2fs is not used here (%v)", err)
	}
	rounds, seed := 6, time.Now().UnixNano()
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_ROUNDS")); err == nil {
		rounds = n
	}
	if n, err := strconv.ParseInt(os.Getenv("HOLDFAST_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	killed := 0
	for range rounds {
		p, o, uid := kinds[0].one(t)
		path := mountV(t, p, uid)
		content := strings.Repeat("kept", 1<<17)
		writeSynced(t, filepath.Join(path, "f"), content)
		unmountV(t, p)
		script := fmt.Sprintf("#!/bin/sh\nexec timeout -s KILL 0.%04d %s \"$@\"\n", 1+r.Intn(150), resize)
		if err := os.WriteFile(filepath.Join(bin, "resize2fs"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		size := volume.Bytes(1+r.Intn(8)) << 30
		_, gerr := p.Grow(ctx, "v", uid, size)
		if err := os.Remove(filepath.Join(bin, "resize2fs")); err != nil {
			t.Fatal(err)
		}
		if gerr != nil {
			killed++
			if _, err := p.Create(ctx, driver.Spec{Name: "w", UID: uuid.NewString(), Source: &driver.Source{Volume: "v"}}); !fault.Is(err, fault.Conflict) {
				t.Errorf("a copy of half a growth: %v", err)
			}
		}
		if readFile(mountV(t, p, uid), "f") != content {
			t.Errorf("content is gone after %v", gerr)
		}
		unmountV(t, p)
		if info, err := p.Get(ctx, "v"); err != nil || info.Size != size {
			t.Errorf("after %v: %+v %v", gerr, info, err)
		}
		if clean, report, err := p.Check(ctx, "v", uid, false); err != nil || !clean {
			t.Errorf("after %v: %v %s %v", gerr, clean, report, err)
		}
		nothingLeft(t, o.Dir)
	}
	t.Logf("killed in %d of %d rounds", killed, rounds)
}

// An ext4 is not grown beyond what it was made for, where resize2fs would damage it.
func TestHeavyMostGrown(t *testing.T) {
	heavy.Require(t, heavy.Root)
	p, o, uid := kinds[0].one(t)
	if _, err := p.Grow(ctx, "v", uid, 2<<40); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "room to grow to") {
		t.Errorf("%v", err)
	}
	if got, err := p.Grow(ctx, "v", uid, 3<<30); err != nil || got.Size != 3<<30 {
		t.Errorf("%+v %v", got, err)
	}
	mountV(t, p, uid)
	unmountV(t, p)
	nothingLeft(t, o.Dir)
}

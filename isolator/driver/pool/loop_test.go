package pool_test

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/loop"
)

// one makes a volume "v" in a fresh pool.
func (k kind) one(t testing.TB) (p *pool.Pool, o pool.Options, uid string) {
	t.Helper()
	o = k.fresh(t)
	p, err := pool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return p, o, k.create(t, p, "v")
}

func (k kind) create(t testing.TB, p *pool.Pool, name string) string {
	t.Helper()
	info, err := p.Create(ctx, driver.Spec{Name: name, UID: uuid.NewString(), Options: map[string]string{"size": k.size}, Owner: "1234:5678", Mode: "1770"})
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := volume.ParseSize(k.size); info.Size != want {
		t.Errorf("size %d, want %d", info.Size, want)
	}
	return info.UID
}

func mountV(t testing.TB, p *pool.Pool, uid string) string {
	t.Helper()
	path, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Unmount(ctx, "v", "i") })
	return path
}

func unmountV(t testing.TB, p *pool.Pool) {
	t.Helper()
	if err := p.Unmount(ctx, "v", "i"); err != nil {
		t.Fatal(err)
	}
}

// A volume takes what it was made for and not more, says so in words that programs know, and is usable afterwards.
func TestHeavyFullVolume(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		p, _, uid := k.one(t)
		path := mountV(t, p, uid)
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if u, g := owner(fi); u != 1234 || g != 5678 || fi.Mode().Perm() != 0o770 || fi.Mode()&os.ModeSticky == 0 {
			t.Errorf("owner %d:%d, mode %v", u, g, fi.Mode())
		}
		limit, _ := volume.ParseSize(k.size)
		f, err := os.Create(filepath.Join(path, "big"))
		if err != nil {
			t.Fatal(err)
		}
		wrote, chunk := int64(0), bytes.Repeat([]byte("x"), 1<<20)
		for err == nil && wrote <= 2*int64(limit) {
			var n int
			n, err = f.Write(chunk)
			wrote += int64(n)
		}
		_ = f.Close()
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) || wrote > int64(limit) || wrote < int64(limit)/4 {
			t.Errorf("after %d of %d bytes: %v", wrote, limit, err)
		}
		if err := os.Remove(filepath.Join(path, "big")); err != nil {
			t.Error(err)
		}
		if err := p.Remove(ctx, "v", uid); !fault.Is(err, fault.Conflict) {
			t.Errorf("remove while mounted: %v", err)
		}
		unmountV(t, p)
		path = mountV(t, p, uid)
		if err := os.WriteFile(filepath.Join(path, "small"), []byte("x"), 0o644); err != nil {
			t.Error(err)
		}
		unmountV(t, p)
	})
}

// On a pool without room creation fails cleanly, and works again when there is room.
func TestHeavyFullLoopPool(t *testing.T) {
	heavy.Require(t, heavy.Root)
	k := kinds[0]
	o := k.o
	o.Dir, o.Mounts = real(t, t.TempDir()), t.TempDir()
	tmpfs(t, o.Dir, "size=24m")
	p := open(t, o)
	k.create(t, p, "v")
	filler := filepath.Join(o.Dir, ".filler")
	if err := os.WriteFile(filler, make([]byte, 20<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := p.Create(ctx, driver.Spec{Name: "w", Size: 16 << 20})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "the pool is full") {
		t.Errorf("full pool: %v", err)
	}
	if _, err := p.Get(ctx, "w"); !fault.Is(err, fault.NotFound) {
		t.Errorf("half made: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(o.Dir, ".new")); len(left) > 0 {
		t.Errorf("left in .new: %v", left)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	k.create(t, p, "w")
	nothingLeft(t, o.Dir)
}

func TestHeavyLoopSizes(t *testing.T) {
	heavy.Require(t, heavy.Root)
	p := open(t, kinds[0].fresh(t))
	for size, class := range map[volume.Bytes]fault.Class{0: fault.Invalid, 1 << 20: fault.Invalid, 1 << 60: fault.Invalid} {
		if _, err := p.Create(ctx, driver.Spec{Name: "v", Size: size}); !fault.Is(err, class) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	if info, err := p.Create(ctx, driver.Spec{Name: "v", Size: 16<<20 + 1}); err != nil || info.Size != 16<<20+4096 {
		t.Errorf("%+v %v", info, err)
	}
	if f, err := p.Facts(ctx); err != nil || f.Verify != driver.VerifySuperblock || !f.FlushOnUnmount || f.MultiAttach {
		t.Errorf("facts %+v %v", f, err)
	}
}

// An image that is another volume's, empty, of another size or gone is not mounted, and nothing is left attached.
func TestHeavyWrongImage(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k.o.Backend == pool.Btrfs {
			t.Skip("it has no images")
		}
		p, o, uid := k.one(t)
		k.create(t, p, "w")
		image, other := filepath.Join(o.Dir, "v", "image"), filepath.Join(o.Dir, "w", "image")
		size, _ := volume.ParseSize(k.size)
		for name, change := range map[string]func(path string) error{
			"another volume's": func(path string) error { return exec.Command("cp", "--sparse=always", other, path).Run() },
			"empty":            func(path string) error { return os.WriteFile(path, nil, 0o600) },
			"zeros": func(path string) error {
				return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, int64(size)))
			},
			"gone":   func(string) error { return nil },
			"a link": func(path string) error { return os.Symlink(other, path) },
			"a dir":  func(path string) error { return os.Mkdir(path, 0o755) },
		} {
			if err := os.Rename(image, image+".kept"); err != nil {
				t.Fatal(err)
			}
			if err := change(image); err != nil {
				t.Fatal(err)
			}
			if path, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"}); err == nil || (!fault.Is(err, fault.Conflict) && name != "a link") {
				t.Errorf("%s: mounted at %q, %v", name, path, err)
			}
			nothingLeft(t, o.Dir)
			_ = os.Remove(image)
			if err := os.Rename(image+".kept", image); err != nil {
				t.Fatal(err)
			}
		}
		mountV(t, p, uid)
		unmountV(t, p)
	})
}

// The label in the image counts beside the UUID of its file system: who exchanged both is noticed.
func TestHeavyWrongInnerLabel(t *testing.T) {
	heavy.Require(t, heavy.Root)
	p, o, uid := kinds[0].one(t)
	path := filepath.Join(o.Dir, "v", "volume.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	forged := uuid.NewString()
	if err := os.WriteFile(path, bytes.ReplaceAll(raw, []byte(uid), []byte(forged)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: forged, ID: "i"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("mounted by a label that is not the image's: %v", err)
	}
	nothingLeft(t, o.Dir)
}

// Case 11: a mount in another namespace keeps the file system alive after the unmount here, and that is not called unmounted. A mere copy of our
// mount is removed there.
func TestHeavyAliveElsewhere(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k.o.Backend == pool.Btrfs {
			t.Skip("a subvolume has no superblock of its own")
		}
		p, o, uid := k.one(t)
		path := mountV(t, p, uid)
		user, end := inNamespace(t, "exec 3>>"+path+"/file; echo ready; read x; echo more >&3; exec 3>&-; echo ready; read x")
		if err := p.Unmount(ctx, "v", "i"); !fault.Is(err, fault.Conflict) {
			t.Fatalf("unmounted under a writer in a copied namespace: %v", err)
		}
		if _, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "j"}); !fault.Is(err, fault.Conflict) {
			t.Errorf("a second file system on the image: %v", err)
		}
		if err := p.Remove(ctx, "v", uid); !fault.Is(err, fault.Conflict) {
			t.Errorf("removed under a writer: %v", err)
		}
		user() // closes the file; its namespace and the copy of the mount stay
		if err := p.Unmount(ctx, "v", "i"); err != nil {
			t.Errorf("with a mere copy: %v", err)
		}
		nothingLeft(t, o.Dir)
		end()
		path = mountV(t, p, uid)
		if raw, err := os.ReadFile(filepath.Join(path, "file")); string(raw) != "more\n" {
			t.Errorf("content %q %v", raw, err)
		}
		unmountV(t, p)
	})
}

// inNamespace runs a script in a copied mount namespace until it is ready; next lets it go on to the next "ready".
func inNamespace(t *testing.T, script string) (next, end func()) {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(end)
	lines := bufio.NewReader(out)
	ready := func() {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	ready()
	return func() { _, _ = in.Write([]byte("\n")); ready() }, end
}

// Case 12: after the unmount no page of the image is dirty in this node's memory; another node would read old blocks, and ours come
// later over its own.
func TestHeavyNoDirtyPages(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		if k.o.Backend == pool.Btrfs {
			t.Skip("it has no images")
		}
		p, o, uid := k.one(t)
		for range 3 {
			path := mountV(t, p, uid)
			if err := os.WriteFile(filepath.Join(path, "f"), make([]byte, 4<<20), 0o644); err != nil {
				t.Fatal(err)
			}
			unmountV(t, p)
			if n := dirtyPages(t, filepath.Join(o.Dir, "v", "image")); n != 0 {
				t.Errorf("%d dirty pages", n)
			}
		}
		own := filepath.Join(t.TempDir(), "f") // the measure itself
		if err := os.WriteFile(own, make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
		if n := dirtyPages(t, own); n == 0 {
			t.Error("a file that was just written has no dirty page: the measure is broken")
		}
	})
}

func dirtyPages(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const cachestat = 451
	all, found := [2]uint64{}, [5]uint64{}
	if _, _, errno := unix.Syscall6(cachestat, f.Fd(), uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&found)), 0, 0, 0); errno != 0 {
		t.Skipf("cachestat: %v", errno)
	}
	return found[1] + found[2] // dirty, and being written
}

// A device that a dead process left attached is taken away by the next mount.
func TestHeavyStaleDevice(t *testing.T) {
	heavy.Require(t, heavy.Root)
	p, o, uid := kinds[0].one(t)
	stale, err := loop.OpenImage(filepath.Join(o.Dir, "v", "image"))
	if err != nil {
		t.Fatal(err)
	}
	if err := loop.Lock(stale); err != nil {
		t.Fatal(err)
	}
	_, device, err := loop.Attach(stale)
	if err != nil {
		t.Fatal(err)
	}
	device.Close()
	stale.Close()
	begun := time.Now()
	mountV(t, p, uid)
	t.Logf("took %v", time.Since(begun))
	unmountV(t, p)
}

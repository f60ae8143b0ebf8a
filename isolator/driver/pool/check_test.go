package pool_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/backend"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
)

// shutDown ends a mounted file system as a power cut does (what was synced is there), and unmounts it.
func shutDown(t *testing.T, p *pool.Pool, path string) {
	t.Helper()
	const shutdown, logFlush = 0x8004587d, 1 // FS_IOC_SHUTDOWN: with its log written
	d, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	err = unix.IoctlSetPointerInt(int(d.Fd()), shutdown, logFlush)
	_ = d.Close()
	if err != nil {
		t.Fatalf("shut the file system down: %v", err)
	}
	unmountV(t, p)
}

func writeSynced(t *testing.T, path, content string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = f.WriteString(content)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

var ownKinds = []kind{kinds[0], kinds[1]} // with a file system of their own

// After a crash auto mounts and keeps what was synced, ask refuses until a check with repair, never mounts.
func TestHeavyFsckPolicy(t *testing.T) {
	needKinds(t)
	for _, k := range ownKinds {
		for _, policy := range []string{"", backend.FsckAuto, backend.FsckAsk, backend.FsckNever} {
			t.Run(k.name+" "+policy, func(t *testing.T) {
				o := k.fresh(t)
				o.Fsck = policy
				p := open(t, o)
				uid := k.create(t, p, "v")
				for round := range 2 {
					path := mountV(t, p, uid)
					writeSynced(t, filepath.Join(path, "f"), "kept")
					if _, _, err := p.Check(ctx, "v", uid, false); !fault.Is(err, fault.Conflict) {
						t.Errorf("check of a mounted volume: %v", err)
					}
					if round == 1 && policy == backend.FsckAsk && k.o.FS == "xfs" {
						k.crashed(t, o, path) // as a dead node leaves it
					} else {
						shutDown(t, p, path)
					}
					_, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"})
					asks := policy == backend.FsckAsk && (k.o.FS == "ext4" || round == 1)
					if asks != (err != nil) || (asks && (!fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "policy is ask"))) {
						t.Fatalf("mount: %v", err)
					}
					if asks {
						nothingLeft(t, o.Dir)
						if clean, report, err := p.Check(ctx, "v", uid, true); err != nil || !clean || report == "" {
							t.Fatalf("check: %v %q %v", clean, report, err)
						}
						mountV(t, p, uid)
					}
					if got := readFile(path, "f"); got != "kept" {
						t.Errorf("content %q", got)
					}
					unmountV(t, p)
				}
				for _, repair := range []bool{false, true} {
					if clean, report, err := p.Check(ctx, "v", uid, repair); err != nil || !clean {
						t.Errorf("at the end, repair %v: %v %q %v", repair, clean, report, err)
					}
				}
			})
		}
	}
}

// crashed puts back the label of a mounted volume after the unmount: a node that died has not changed it.
func (k kind) crashed(t *testing.T, o pool.Options, path string) {
	t.Helper()
	file := filepath.Join(o.Dir, "v", "volume.json")
	label, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	shutDown(t, open(t, o), path)
	if err := os.WriteFile(file, label, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Real damage is never mounted under auto, and the words say what to run. A check without repair changes nothing, one with repair mends it.
func TestHeavyDamage(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("debugfs"), heavy.Program("xfs_db"))
	for _, k := range ownKinds {
		t.Run(k.name, func(t *testing.T) {
			p, o, uid := k.one(t)
			path := mountV(t, p, uid)
			if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(path, "g"), []byte("g"), 0o644); err != nil {
				t.Fatal(err)
			}
			unmountV(t, p)
			image := filepath.Join(o.Dir, "v", "image")
			damage(t, image, k.o.FS)
			_, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"})
			refusal := map[string]fault.Class{"ext4": fault.Conflict, "xfs": fault.Unavailable}[k.o.FS] // the kernel calls the latter an I/O error
			if !fault.Is(err, refusal) || !strings.Contains(err.Error(), "mend it with") || !strings.Contains(err.Error(), image) {
				t.Errorf("mount of a damaged file system: %v", err)
			}
			nothingLeft(t, o.Dir)
			if clean, report, err := p.Check(ctx, "v", uid, false); err != nil || clean || report == "" {
				t.Errorf("look: %v %q %v", clean, report, err)
			}
			if _, err := p.Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"}); !fault.Is(err, refusal) {
				t.Errorf("after a mere look: %v", err)
			}
			if clean, report, err := p.Check(ctx, "v", uid, true); err != nil || !clean {
				t.Fatalf("repair: %v %q %v", clean, report, err)
			}
			path = mountV(t, p, uid)
			if got := readFile(path, "f"); got != "kept" {
				t.Errorf("content %q", got)
			}
			unmountV(t, p)
		})
	}
}

func damage(t *testing.T, image, fs string) {
	t.Helper()
	if fs == "xfs" {
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt(make([]byte, 4096), 4096) // the first group's free-space header
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, command := range []string{"sif data/g mode 0170000", "ssv state 2"} { // a file of no kind, and the mark that the kernel leaves
		if out, err := exec.Command("debugfs", "-w", "-R", command, image).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// A back end without file systems of its own says so.
func TestCheckRefused(t *testing.T) {
	p := open(t, pool.Options{})
	if _, err := p.Create(ctx, driver.Spec{Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Check(ctx, "v", "", true); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := p.Create(ctx, driver.Spec{Name: "w", Options: map[string]string{"fsck": "ask"}}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if _, err := pool.Open(pool.Options{Dir: t.TempDir(), Fsck: "maybe"}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

package pool_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/crypt"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/loop"
)

func keyFile(t testing.TB) string {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(hex.EncodeToString(raw)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const secret = "correct-horse-battery-staple"

// writeSecret writes what must not be found afterwards, as a name and as content.
func writeSecret(t *testing.T, p *pool.Pool, name, uid string) {
	t.Helper()
	path, err := p.Mount(ctx, driver.MountSpec{Name: name, UID: uid, ID: "i"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(path, secret), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, secret, "f"), bytes.Repeat([]byte(secret), 10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Unmount(ctx, name, "i"); err != nil {
		t.Fatal(err)
	}
}

func holdsSecret(t *testing.T, image string) bool {
	t.Helper()
	raw, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(raw, []byte(secret))
}

// An encrypted volume's image has nothing in the clear, and without the key its names are ciphertext and its files are not to be opened. Its snapshots and clones
// are encrypted like it.
func TestHeavyEncryption(t *testing.T) {
	needKinds(t)
	k := kinds[3]
	o := k.fresh(t)
	o.Key.File = keyFile(t)
	p := open(t, o)
	spec := driver.Spec{Name: "v", UID: uuid.NewString(), Size: 16 << 20, Options: map[string]string{"encrypt": "true"}, Owner: "1234:5678", Mode: "750"}
	if _, err := p.Create(ctx, spec); err != nil {
		t.Fatal(err)
	}
	k.create(t, p, "clear")
	if f, err := p.Facts(ctx); err != nil || !f.Encrypts {
		t.Errorf("facts %+v %v", f, err)
	}
	for name, want := range map[string]bool{"v": true, "clear": false} {
		if i, err := p.Get(ctx, name); err != nil || i.Encrypted != want {
			t.Errorf("%s: encrypted %t, %v", name, i.Encrypted, err)
		}
	}
	writeSecret(t, p, "v", spec.UID)
	writeSecret(t, p, "clear", "")
	image := filepath.Join(o.Dir, "v", "image")
	if holdsSecret(t, image) {
		t.Error("the image has the secret in the clear")
	}
	if !holdsSecret(t, filepath.Join(o.Dir, "clear", "image")) {
		t.Error("the image of a volume that is not encrypted has not the secret: the measure is broken")
	}
	label, err := os.ReadFile(filepath.Join(o.Dir, "v", "volume.json"))
	if err != nil || !strings.Contains(string(label), "fscrypt-v2") {
		t.Errorf("label %s %v", label, err)
	}
	master, _ := os.ReadFile(o.Key.File)
	if bytes.Contains(label, bytes.TrimSpace(master)) {
		t.Error("the key is in the label")
	}
	withoutKey(t, image)
	path := mountV(t, p, spec.UID)
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("%v %v", fi, err)
	} else if u, g := owner(fi); u != 1234 || g != 5678 {
		t.Errorf("owner %d:%d", u, g)
	}
	if _, err := p.Snapshot(ctx, "v", spec.UID, "s"); err != nil {
		t.Fatal(err)
	}
	unmountV(t, p)
	if holdsSecret(t, filepath.Join(o.Dir, ".snap", "v", "s", "image")) {
		t.Error("the snapshot has the secret in the clear")
	}
	at, err := p.MountSnapshot(ctx, "v", "s", "i")
	if err != nil || !strings.Contains(readFile(at, secret+"/f"), secret) {
		t.Errorf("snapshot: %v", err)
	}
	if err := p.UnmountSnapshot(ctx, "v", "s", "i"); err != nil {
		t.Error(err)
	}
	clone, err := p.Create(ctx, driver.Spec{Name: "w", UID: uuid.NewString(), Size: 32 << 20, Source: &driver.Source{Volume: "v", Snapshot: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	if at, err = p.Mount(ctx, driver.MountSpec{Name: "w", UID: clone.UID, ID: "i"}); err != nil || !strings.Contains(readFile(at, secret+"/f"), secret) {
		t.Errorf("clone: %v", err)
	}
	if err := p.Unmount(ctx, "w", "i"); err != nil {
		t.Error(err)
	}
	withoutKey(t, filepath.Join(o.Dir, "w", "image"))
}

// withoutKey looks into an image as somebody does who has stolen it.
func withoutKey(t *testing.T, image string) {
	t.Helper()
	f, err := loop.OpenImage(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := loop.Lock(f); err != nil {
		t.Fatal(err)
	}
	d, device, err := loop.Attach(f)
	if err != nil {
		t.Fatal(err)
	}
	device.Close()
	at := t.TempDir()
	if err := unix.Mount(d.Path(), at, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(filepath.Join(at, "data"))
	if err != nil || len(names) != 1 || names[0].Name() == secret {
		t.Errorf("without the key: %v %v", names, err)
	}
	for _, n := range names {
		inside, err := os.ReadDir(filepath.Join(at, "data", n.Name()))
		if err != nil || len(inside) != 1 {
			t.Errorf("without the key: %v %v", inside, err)
		}
		for _, n2 := range inside {
			if _, err := os.ReadFile(filepath.Join(at, "data", n.Name(), n2.Name())); !errors.Is(err, unix.ENOKEY) {
				t.Errorf("a file is read without the key: %v", err)
			}
		}
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Release(ctx, f, 5e9); err != nil {
		t.Error(err)
	}
}

// A wrong key, none, or one that others may read is refused before anything is attached, in words that say what is wrong.
func TestHeavyWrongKey(t *testing.T) {
	heavy.Require(t, heavy.Root)
	o := kinds[0].fresh(t)
	good := keyFile(t)
	o.Key.File = good
	p := open(t, o)
	uid := uuid.NewString()
	if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: uid, Size: 16 << 20, Options: map[string]string{"encrypt": "true"}}); err != nil {
		t.Fatal(err)
	}
	loose, short := keyFile(t), filepath.Join(t.TempDir(), "short")
	if err := errors.Join(os.Chmod(loose, 0o640), os.WriteFile(short, []byte("0123456789"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key   crypt.Master
		class fault.Class
		says  string
	}{
		"wrong":   {crypt.Master{File: keyFile(t)}, fault.Denied, "wrong key"},
		"none":    {crypt.Master{}, fault.Unavailable, "was given no key"},
		"loose":   {crypt.Master{File: loose}, fault.Unavailable, "chmod 600"},
		"short":   {crypt.Master{File: short}, fault.Unavailable, "has 10 bytes"},
		"missing": {crypt.Master{File: short + "x"}, fault.Unavailable, "no such file"},
		"fails":   {crypt.Master{Command: []string{"false"}}, fault.Unavailable, "the key command false"},
		"endless": {crypt.Master{Command: []string{"head", "-c", "10000000", "/dev/zero"}}, fault.Unavailable, "must have 32 to 4096"},
	} {
		o.Key = c.key
		_, err := open(t, o).Mount(ctx, driver.MountSpec{Name: "v", UID: uid, ID: "i"})
		if !fault.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		nothingLeft(t, o.Dir)
	}
	o.Key = crypt.Master{Command: []string{"cat", good}}
	p = open(t, o)
	mountV(t, p, uid)
	unmountV(t, p)
}

// Who keeps a file open elsewhere keeps the volume from being unmounted; the key is gone all the same, so that nobody opens another.
func TestHeavyKeyIsDropped(t *testing.T) {
	heavy.Require(t, heavy.Root)
	o := kinds[0].fresh(t)
	o.Key.File = keyFile(t)
	p := open(t, o)
	uid := uuid.NewString()
	if _, err := p.Create(ctx, driver.Spec{Name: "v", UID: uid, Size: 16 << 20, Options: map[string]string{"encrypt": "true"}}); err != nil {
		t.Fatal(err)
	}
	path := mountV(t, p, uid)
	for _, n := range []string{"open", "shut"} {
		if err := os.WriteFile(filepath.Join(path, n), []byte(secret), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	next, end := inNamespace(t, "cd "+path+"; exec 3<open; echo ready; read x; cat <&3 >"+out+"; cat ./* >>"+out+" 2>&1; echo ready; read x")
	if err := p.Unmount(ctx, "v", "i"); !fault.Is(err, fault.Conflict) {
		t.Errorf("unmounted under a reader: %v", err)
	}
	next()
	end()
	raw, err := os.ReadFile(out)
	if err != nil || !strings.HasPrefix(string(raw), secret) || !strings.Contains(string(raw), "Required key not available") || strings.Count(string(raw), secret) > 2 { // twice through the file that is open
		t.Errorf("the reader got %q %v", raw, err)
	}
	if err := p.Unmount(ctx, "v", "i"); err != nil {
		t.Error(err)
	}
	nothingLeft(t, o.Dir)
}

// What cannot be encrypted is not made.
func TestEncryptionRefused(t *testing.T) {
	p := open(t, pool.Options{Key: crypt.Master{File: "/nowhere"}})
	if _, err := p.Create(ctx, driver.Spec{Name: "v", Options: map[string]string{"encrypt": "true"}}); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "backend=loop") {
		t.Errorf("dir: %v", err)
	}
	if _, err := p.Create(ctx, driver.Spec{Name: "v", Options: map[string]string{"encrypt": "false"}}); err != nil {
		t.Errorf("encrypt=false: %v", err)
	}
	for _, key := range []crypt.Master{{File: "relative"}, {File: "/a", Command: []string{"b"}}} {
		if _, err := pool.Open(pool.Options{Dir: t.TempDir(), Key: key}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", key, err)
		}
	}
}

func TestHeavyEncryptionRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		o := k.fresh(t)
		size, _ := volume.ParseSize(k.size)
		for _, key := range []string{"", "/nowhere/key"} {
			o.Key.File = key
			_, err := open(t, o).Create(ctx, driver.Spec{Name: "v", Size: size, Options: map[string]string{"encrypt": "true"}})
			if want := map[bool]fault.Class{true: fault.Unavailable, false: fault.Invalid}[key != "" && o.FS == "ext4"]; !fault.Is(err, want) {
				t.Errorf("key %q: %v", key, err)
			}
			if left, _ := os.ReadDir(filepath.Join(o.Dir, ".new")); len(left) > 0 {
				t.Errorf("left in .new: %v", left)
			}
		}
	})
}

// Package drivertest is the suite that every driver must pass: what isolator/driver promises of a Driver, tried out.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// Fixture is a driver to try, freshly made and empty.
type Fixture struct {
	Driver driver.Driver
	// Again opens another driver on the same store, as another node or a restart does; nil where that cannot be.
	Again func() driver.Driver
	// KeepsUID says that the driver labels its volumes.
	KeepsUID bool
	// Options are needed to create; nil for none.
	Options map[string]string
	// Later moves the driver's clock on, so that it measures anew what it does not measure at every call; nil where there is no need.
	Later func()
}

type part struct {
	name string
	f    func(t *testing.T, x *try)
}

// Run tries a driver. fresh is called for every part.
func Run(t *testing.T, fresh func(t *testing.T) Fixture) {
	run(t, fresh, []part{
		{"facts", facts}, {"absent", absent}, {"life", life}, {"names", names}, {"exists", exists}, {"identity", identity},
		{"mount never creates", neverCreates}, {"unmount is idempotent", unmountTwice}, {"content stays", contentStays},
		{"list", list}, {"context", contextEnds}, {"side by side", sideBySide}, {"creation race", race}, {"adopt", adopt},
	})
	RunPowers(t, fresh)
}

// RunPowers tries what not every driver has: each interface beside Driver, and that what the facts deny is refused.
func RunPowers(t *testing.T, fresh func(t *testing.T) Fixture) {
	run(t, fresh, []part{
		{"usage", usage}, {"growth", growth}, {"growth while mounted", growthMounted}, {"snapshots", snapshots}, {"snapshots while mounted", snapshotsMounted},
		{"snapshots are read", snapshotsRead}, {"clones", clones}, {"bin", bin}, {"check", check}, {"no such powers", noSuchPowers},
	})
}

func run(t *testing.T, fresh func(t *testing.T) Fixture, parts []part) {
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			x := &try{T: t, Fixture: fresh(t)}
			p.f(t, x)
		})
	}
}

type try struct {
	*testing.T
	Fixture
}

func (x *try) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	x.Cleanup(cancel)
	return ctx
}

func (x *try) create(name string) driver.Info {
	x.Helper()
	info, err := x.Driver.Create(x.ctx(), driver.Spec{Name: name, UID: uuid.Must(uuid.NewV7()).String(), Options: x.Options})
	if err != nil {
		x.Fatalf("create %s: %v", name, err)
	}
	return info
}

func (x *try) mount(name, uid, id string) string {
	x.Helper()
	path, err := x.Driver.Mount(x.ctx(), driver.MountSpec{Name: name, UID: uid, ID: id})
	if err != nil {
		x.Fatalf("mount %s: %v", name, err)
	}
	x.Cleanup(func() { _ = x.Driver.Unmount(context.Background(), name, id) })
	if !filepath.IsAbs(path) || strings.ContainsAny(path, "\n\x00") {
		x.Fatalf("mount %s: path %q is not absolute and one line", name, path)
	}
	if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
		x.Fatalf("mount %s: %s is no directory (%v)", name, path, err)
	}
	return path
}

func (x *try) unmount(name, id string) {
	x.Helper()
	if err := x.Driver.Unmount(x.ctx(), name, id); err != nil {
		x.Fatalf("unmount %s: %v", name, err)
	}
}

func (x *try) want(class fault.Class, err error, what string) {
	x.Helper()
	if !fault.Is(err, class) {
		x.Fatalf("%s: error %v has class %q, want %q", what, err, fault.ClassOf(err), class)
	}
}

func facts(t *testing.T, x *try) {
	f, err := x.Driver.Facts(x.ctx())
	if err != nil {
		t.Fatal(err)
	}
	switch f.Scope {
	case driver.ScopeCluster, driver.ScopeZone, driver.ScopeNode:
	default:
		t.Errorf("scope %q", f.Scope)
	}
	if f.Verify != driver.VerifyScan && f.Verify != driver.VerifySuperblock {
		t.Errorf("verify %q", f.Verify)
	}
	if x.Driver.Name() == "" {
		t.Error("no name")
	}
}

func absent(t *testing.T, x *try) {
	_, err := x.Driver.Get(x.ctx(), "nobody")
	x.want(fault.NotFound, err, "get what was never made")
	if err := x.Driver.Remove(x.ctx(), "nobody", ""); err != nil && !fault.Is(err, fault.NotFound) {
		t.Errorf("remove what was never made: %v", err)
	}
	if err := x.Driver.Unmount(x.ctx(), "nobody", "id"); err != nil {
		t.Errorf("unmount what was never made: %v", err)
	}
}

func life(t *testing.T, x *try) {
	made := x.create("life")
	got, err := x.Driver.Get(x.ctx(), "life")
	if err != nil || got.Name != "life" || got.UID != made.UID {
		t.Fatalf("get: %+v, %v", got, err)
	}
	path := x.mount("life", got.UID, "one")
	if again := x.mount("life", got.UID, "one"); again != path {
		t.Errorf("mounted again with the same id at %s, before at %s", again, path)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 0 {
		t.Errorf("a new volume is not empty: %v %v", entries, err)
	}
	x.unmount("life", "one")
	if err := x.Driver.Remove(x.ctx(), "life", got.UID); err != nil {
		t.Fatal(err)
	}
	_, err = x.Driver.Get(x.ctx(), "life")
	x.want(fault.NotFound, err, "get after remove")
}

func names(t *testing.T, x *try) {
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a b", "a\x00b", "a\nb", ".bin", "-x", strings.Repeat("n", 300), "é"} {
		if _, err := x.Driver.Get(x.ctx(), name); !fault.Is(err, fault.Invalid) {
			t.Errorf("get %q: %v", name, err)
		}
		if _, err := x.Driver.Create(x.ctx(), driver.Spec{Name: name, Options: x.Options}); !fault.Is(err, fault.Invalid) {
			t.Errorf("create %q: %v", name, err)
		}
		if _, err := x.Driver.Mount(x.ctx(), driver.MountSpec{Name: name, ID: "i"}); !fault.Is(err, fault.Invalid) {
			t.Errorf("mount %q: %v", name, err)
		}
		if err := x.Driver.Unmount(x.ctx(), name, "i"); !fault.Is(err, fault.Invalid) {
			t.Errorf("unmount %q: %v", name, err)
		}
		if err := x.Driver.Remove(x.ctx(), name, ""); !fault.Is(err, fault.Invalid) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
}

func exists(t *testing.T, x *try) {
	made := x.create("twice")
	_, err := x.Driver.Create(x.ctx(), driver.Spec{Name: "twice", UID: uuid.NewString(), Options: x.Options})
	x.want(fault.Exists, err, "create another of the name")
	if !x.KeepsUID {
		return
	}
	if _, err := x.Driver.Create(x.ctx(), driver.Spec{Name: "twice", UID: made.UID, Options: x.Options}); err != nil {
		t.Errorf("create the same again: %v", err)
	}
}

func identity(t *testing.T, x *try) {
	if !x.KeepsUID {
		t.Skip("the driver keeps no uids")
	}
	made := x.create("ident")
	_, err := x.Driver.Mount(x.ctx(), driver.MountSpec{Name: "ident", UID: uuid.NewString(), ID: "i"})
	x.want(fault.Conflict, err, "mount by a wrong uid")
	err = x.Driver.Remove(x.ctx(), "ident", uuid.NewString())
	x.want(fault.Conflict, err, "remove by a wrong uid")
	x.mount("ident", made.UID, "i")
}

func neverCreates(t *testing.T, x *try) {
	path, err := x.Driver.Mount(x.ctx(), driver.MountSpec{Name: "ghost", ID: "i"})
	if err == nil {
		t.Fatalf("a volume that was never made is mounted at %s", path)
	}
	_, err = x.Driver.Get(x.ctx(), "ghost")
	x.want(fault.NotFound, err, "get after a mount of nothing")
}

func unmountTwice(t *testing.T, x *try) {
	made := x.create("two")
	x.mount("two", made.UID, "i")
	x.unmount("two", "i")
	x.unmount("two", "i")
}

func contentStays(t *testing.T, x *try) {
	made := x.create("keep")
	path := x.mount("keep", made.UID, "a")
	if err := os.WriteFile(filepath.Join(path, "f"), []byte("kept"), 0o644); err != nil {
		t.Fatal(err)
	}
	x.unmount("keep", "a")
	path = x.mount("keep", made.UID, "b")
	raw, err := os.ReadFile(filepath.Join(path, "f"))
	if err != nil || string(raw) != "kept" {
		t.Fatalf("after remount: %q, %v", raw, err)
	}
	if x.Again == nil {
		return
	}
	other := x.Again()
	if got, err := other.Get(x.ctx(), "keep"); err != nil || got.UID != made.UID {
		t.Fatalf("through another: %+v %v", got, err)
	}
}

func list(t *testing.T, x *try) {
	for _, n := range []string{"c", "a", "b"} {
		x.create(n)
	}
	all, err := x.Driver.List(x.ctx())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range all {
		got = append(got, i.Name)
	}
	if fmt.Sprint(got) != "[a b c]" {
		t.Errorf("list: %v", got)
	}
}

func contextEnds(t *testing.T, x *try) {
	x.create("ctx")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := x.Driver.Get(ctx, "ctx"); err == nil || fault.Is(err, fault.NotFound) {
		t.Errorf("get with an ended context: %v", err)
	}
	if _, err := x.Driver.Mount(ctx, driver.MountSpec{Name: "ctx", ID: "i"}); err == nil {
		t.Error("mount with an ended context succeeded")
	}
}

func sideBySide(t *testing.T, x *try) {
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			name := fmt.Sprintf("side-%d", i)
			info, err := x.Driver.Create(x.ctx(), driver.Spec{Name: name, UID: uuid.NewString(), Options: x.Options})
			if err != nil {
				errs <- err
				return
			}
			for range 3 {
				_, err := x.Driver.Mount(x.ctx(), driver.MountSpec{Name: name, UID: info.UID, ID: "i"})
				errs <- errors.Join(err, x.Driver.Unmount(x.ctx(), name, "i"))
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// race has several creators of one name: one wins, the others learn that it exists, and what is there is whole.
func race(t *testing.T, x *try) {
	if !x.KeepsUID {
		t.Skip("the plugin orders creations by itself")
	}
	var wg sync.WaitGroup
	won := make(chan string, 8)
	for range 8 {
		d := x.Driver
		if x.Again != nil {
			d = x.Again()
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			uid := uuid.NewString()
			_, err := d.Create(x.ctx(), driver.Spec{Name: "race", UID: uid, Options: x.Options})
			switch {
			case err == nil:
				won <- uid
			case !fault.Is(err, fault.Exists):
				t.Errorf("loser: %v", err)
			}
		}()
	}
	wg.Wait()
	close(won)
	var winners []string
	for uid := range won {
		winners = append(winners, uid)
	}
	got, err := x.Driver.Get(x.ctx(), "race")
	if err != nil || len(winners) != 1 || got.UID != winners[0] {
		t.Errorf("winners %v, there is %+v %v", winners, got, err)
	}
}

func adopt(t *testing.T, x *try) {
	a, ok := x.Driver.(driver.Adopter)
	if !ok {
		t.Skip("the driver cannot adopt")
	}
	made := x.create("adopt")
	uid := uuid.NewString()
	if got, err := a.Adopt(x.ctx(), "adopt", uid, "cluster"); err != nil || got.UID != uid {
		t.Fatalf("adopt: %+v %v", got, err)
	}
	if _, err := a.Adopt(x.ctx(), "adopt", uid, "cluster"); err != nil {
		t.Fatalf("adopt again: %v", err)
	}
	_, err := x.Driver.Mount(x.ctx(), driver.MountSpec{Name: "adopt", UID: made.UID, ID: "i"})
	x.want(fault.Conflict, err, "mount by the former uid")
	_, err = a.Adopt(x.ctx(), "nobody", uid, "cluster")
	x.want(fault.NotFound, err, "adopt what is not there")
}

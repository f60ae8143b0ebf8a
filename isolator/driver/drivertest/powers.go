package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

func (x *try) facts() driver.Facts {
	x.Helper()
	f, err := x.Driver.Facts(x.ctx())
	if err != nil {
		x.Fatal(err)
	}
	return f
}

func (x *try) write(path, name, content string) {
	x.Helper()
	f, err := os.Create(filepath.Join(path, name))
	if err != nil {
		x.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		x.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		x.Fatal(err)
	}
}

func (x *try) read(path, name, want string) {
	x.Helper()
	if raw, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(raw) != want {
		x.Errorf("%s is %.40q (%v), want %q", name, raw, err, want)
	}
}

// syncFS brings to the storage what the figures of some are taken from.
func (x *try) syncFS(path string) {
	x.Helper()
	d, err := os.Open(path)
	if err == nil {
		err = unix.Syncfs(int(d.Fd()))
		_ = d.Close()
	}
	if err != nil {
		x.Fatal(err)
	}
}

func usage(t *testing.T, x *try) {
	m, ok := x.Driver.(driver.Measurer)
	if !ok {
		t.Skip("the driver cannot measure")
	}
	_, err := m.Usage(x.ctx(), "nobody")
	x.want(fault.NotFound, err, "measure what is not there")
	made := x.create("full")
	idle, err := m.Usage(x.ctx(), "full")
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Invalid) {
		usageMounted(x, m, err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if limits := x.facts().LimitsSize; (limits && idle.Size != made.Size) || (!limits && idle.Size != 0) {
		t.Errorf("size %d of a volume of %d, limits %v", idle.Size, made.Size, limits)
	}
	x.create("other")
	path := x.mount("other", "", "i")
	before, err := m.Usage(x.ctx(), "other")
	if err != nil {
		t.Fatal(err)
	}
	x.write(path, "f", string(bytes.Repeat([]byte("holdfast"), 4<<20/8)))
	x.syncFS(path)
	if x.Later != nil {
		x.Later()
	}
	after, err := m.Usage(x.ctx(), "other")
	if err != nil || after.Used < before.Used+3<<20 || after.Used > before.Used+6<<20 || after.Available <= 0 {
		t.Errorf("after 4 MiB: %+v %v, before %+v", after, err, before)
	}
	if after.Inodes > 0 && after.InodesUsed <= before.InodesUsed-1 {
		t.Errorf("inodes %+v, before %+v", after, before)
	}
	x.unmount("other", "i")
	if later, err := m.Usage(x.ctx(), "other"); err != nil || later.Used < idle.Used+3<<20 || later.Used > idle.Used+6<<20 || later.Size != after.Size {
		t.Errorf("unmounted: %+v %v, mounted %+v, an empty one %+v", later, err, after, idle)
	}
}

// usageMounted is usage for a driver that can measure only what is mounted, as why says; or, Invalid, nothing.
func usageMounted(x *try, m driver.Measurer, why error) {
	x.Helper()
	path := x.mount("full", "", "i")
	before, err := m.Usage(x.ctx(), "full")
	if fault.Is(why, fault.Invalid) {
		x.want(fault.Invalid, err, "measure where that cannot be")
		return
	}
	x.write(path, "f", string(bytes.Repeat([]byte("holdfast"), 2<<20/8)))
	x.syncFS(path)
	after, aerr := m.Usage(x.ctx(), "full")
	if err != nil || aerr != nil || after.Used < before.Used || after.Available < 0 {
		x.Errorf("after 2 MiB: %+v %v, before %+v %v", after, aerr, before, err)
	}
	x.unmount("full", "i")
}

func (x *try) grower() driver.Grower {
	g, ok := x.Driver.(driver.Grower)
	if !ok || x.facts().Grows == "" {
		x.Skip("the driver cannot grow volumes")
	}
	return g
}

// enlarged checks that a volume that was of size old has room for more than that now.
func (x *try) enlarged(path string, old volume.Bytes) {
	x.Helper()
	if !x.facts().LimitsSize {
		return
	}
	f, err := os.Create(filepath.Join(path, "filler"))
	if err != nil {
		x.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	more := int64(old + 1<<20)
	if err = unix.Fallocate(int(f.Fd()), 0, 0, more); errors.Is(err, unix.EOPNOTSUPP) {
		_, err = io.Copy(f, io.LimitReader(zeros{}, more))
	}
	if err != nil {
		x.Errorf("after the growth there is no room for %d bytes: %v", more, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func growth(t *testing.T, x *try) {
	g := x.grower()
	_, err := g.Grow(x.ctx(), "nobody", "", 1<<30)
	x.want(fault.NotFound, err, "grow what is not there")
	made := x.create("small")
	x.write(x.mount("small", made.UID, "i"), "f", "kept")
	x.unmount("small", "i")
	_, err = g.Grow(x.ctx(), "small", uuid.NewString(), 3*made.Size)
	if x.KeepsUID {
		x.want(fault.Conflict, err, "grow by a wrong uid")
	}
	if made.Size == 0 {
		if got, err := g.Grow(x.ctx(), "small", made.UID, 1<<30); err != nil || got.Size != 0 || got.Pending != 0 {
			t.Errorf("grow what has no limit: %+v %v", got, err)
		}
		return
	}
	_, err = g.Grow(x.ctx(), "small", made.UID, made.Size-1<<20)
	x.want(fault.Invalid, err, "shrink")
	size := 3 * made.Size
	for i, again := range []string{"", " again"} {
		got, err := g.Grow(x.ctx(), "small", made.UID, size)
		if err != nil || (got.Size < size && got.Pending < size) || (got.Pending != 0) != (got.Because != "") {
			t.Fatalf("grow%s to %d: %+v %v", again, size, got, err)
		}
		if i == 0 {
			path := x.mount("small", made.UID, "i")
			x.enlarged(path, made.Size)
			x.read(path, "f", "kept")
			x.unmount("small", "i")
		} else if got.Pending != 0 {
			t.Errorf("after a mount there is still pending %+v", got)
		}
	}
	if got, err := x.Driver.Get(x.ctx(), "small"); err != nil || got.Size < size {
		t.Errorf("get says %+v %v", got, err)
	}
}

func growthMounted(t *testing.T, x *try) {
	g := x.grower()
	made := x.create("online")
	if made.Size == 0 {
		t.Skip("its volumes have no size")
	}
	path := x.mount("online", made.UID, "i")
	open, err := os.Create(filepath.Join(path, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	size := 2 * made.Size
	got, err := g.Grow(x.ctx(), "online", made.UID, size)
	if err != nil {
		t.Fatal(err)
	}
	if x.facts().Grows == driver.GrowsOnline && (got.Pending != 0 || got.Size < size) {
		t.Errorf("grows online, it says, and: %+v", got)
	}
	if got.Pending == 0 {
		x.enlarged(path, made.Size)
	} else if got.Because == "" || got.Size != made.Size {
		t.Errorf("pending: %+v", got)
	}
	if _, err := open.WriteString("written"); err != nil {
		t.Errorf("through a growth: %v", err)
	}
	_ = open.Close()
	x.unmount("online", "i")
	path = x.mount("online", made.UID, "j")
	x.enlarged(path, made.Size)
	x.read(path, "open", "written")
	if got, err := g.Grow(x.ctx(), "online", made.UID, size); err != nil || got.Pending != 0 || got.Size < size {
		t.Errorf("after the next mount: %+v %v", got, err)
	}
}

func (x *try) snapshotter() driver.Snapshotter {
	s, ok := x.Driver.(driver.Snapshotter)
	if !ok || !x.facts().Snapshots {
		x.Skip("the driver takes no snapshots")
	}
	return s
}

func snapshots(t *testing.T, x *try) {
	s := x.snapshotter()
	_, err := s.Snapshot(x.ctx(), "nobody", "", "one")
	x.want(fault.NotFound, err, "snapshot of what is not there")
	x.want(fault.NotFound, s.RemoveSnapshot(x.ctx(), "nobody", "one"), "remove a snapshot that is not there")
	for _, name := range []string{"", "..", "a/b", ".x", "a\x00b"} {
		_, err := s.Snapshot(x.ctx(), "nobody", "", name)
		x.want(fault.Invalid, err, "snapshot "+name)
	}
	made := x.create("pic")
	if x.KeepsUID {
		_, err = s.Snapshot(x.ctx(), "pic", uuid.NewString(), "one")
		x.want(fault.Conflict, err, "snapshot by a wrong uid")
	}
	first, err := s.Snapshot(x.ctx(), "pic", made.UID, "one")
	if err != nil || first.Volume != "pic" || first.Name != "one" || first.Created.IsZero() || (x.KeepsUID && first.UID != made.UID) {
		t.Fatalf("%+v %v", first, err)
	}
	again, err := s.Snapshot(x.ctx(), "pic", made.UID, "one")
	if err != nil || !again.Created.Equal(first.Created) {
		t.Errorf("again: %+v %v", again, err)
	}
	if _, err := s.Snapshot(x.ctx(), "pic", made.UID, "another"); err != nil {
		t.Fatal(err)
	}
	x.create("zoo")
	if _, err := s.Snapshot(x.ctx(), "zoo", "", "one"); err != nil {
		t.Fatal(err)
	}
	x.listed(s, "", "[pic/another pic/one zoo/one]")
	x.listed(s, "pic", "[pic/another pic/one]")
	x.listed(s, "none", "[]")
	err = x.Driver.Remove(x.ctx(), "pic", made.UID)
	if err != nil && !fault.Is(err, fault.Conflict) {
		t.Errorf("remove the volume: %v", err)
	}
	x.listed(s, "pic", "[pic/another pic/one]") // they outlive it, or it does not go
	if err == nil && x.KeepsUID {
		other := x.create("pic")
		_, err := s.Snapshot(x.ctx(), "pic", other.UID, "one")
		x.want(fault.Exists, err, "a snapshot of the former volume's name")
	}
	for _, name := range []string{"one", "another"} {
		if err := s.RemoveSnapshot(x.ctx(), "pic", name); err != nil {
			t.Error(err)
		}
	}
	x.want(fault.NotFound, s.RemoveSnapshot(x.ctx(), "pic", "one"), "remove it again")
	x.listed(s, "", "[zoo/one]")
}

func (x *try) listed(s driver.Snapshotter, vol, want string) {
	x.Helper()
	all, err := s.Snapshots(x.ctx(), vol)
	got := []string{}
	for _, i := range all {
		got = append(got, i.Volume+"/"+i.Name)
	}
	if err != nil || fmt.Sprint(got) != want {
		x.Errorf("snapshots of %q: %v %v, want %s", vol, got, err, want)
	}
}

// snapshotsMounted takes one of a volume in use, frozen as the isolator does it where the facts ask for that.
func snapshotsMounted(t *testing.T, x *try) {
	s := x.snapshotter()
	made := x.create("live")
	path := x.mount("live", made.UID, "i")
	x.write(path, "f", "then")
	_, err := x.frozen(path, func() error { _, err := s.Snapshot(x.ctx(), "live", made.UID, "s"); return err })
	if fault.Is(err, fault.Conflict) {
		t.Skipf("not while it is mounted: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	x.write(path, "f", "now")
	x.write(path, "g", "more")
	x.unmount("live", "i")
	if !x.facts().Clones {
		return
	}
	x.clone("copy", driver.Source{Volume: "live", UID: made.UID, Snapshot: "s"})
	path = x.mount("copy", "", "i")
	x.read(path, "f", "then")
	if _, err := os.Stat(filepath.Join(path, "g")); !os.IsNotExist(err) {
		t.Errorf("what came after the snapshot is in it: %v", err)
	}
}

// frozen runs f with the file system at a path frozen, where the facts ask for it.
func (x *try) frozen(path string, f func() error) (was bool, err error) {
	x.Helper()
	if !x.facts().Freeze {
		return false, f()
	}
	const freeze, thaw = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW
	d, err := os.Open(path)
	if err != nil {
		x.Fatal(err)
	}
	defer d.Close()
	if err := unix.IoctlSetInt(int(d.Fd()), freeze, 0); err != nil {
		x.Fatalf("freeze: %v", err)
	}
	err = f()
	if err := unix.IoctlSetInt(int(d.Fd()), thaw, 0); err != nil {
		x.Fatalf("thaw: %v", err)
	}
	return true, err
}

func (x *try) clone(name string, from driver.Source) driver.Info {
	x.Helper()
	info, err := x.Driver.Create(x.ctx(), driver.Spec{Name: name, UID: uuid.NewString(), Source: &from})
	if err != nil {
		x.Fatalf("clone %+v: %v", from, err)
	}
	return info
}

func snapshotsRead(t *testing.T, x *try) {
	s := x.snapshotter()
	r, ok := x.Driver.(driver.SnapshotReader)
	if !ok {
		t.Skip("the driver shows no snapshots")
	}
	_, err := r.MountSnapshot(x.ctx(), "nobody", "s", "i")
	x.want(fault.NotFound, err, "read a snapshot that is not there")
	made := x.create("shown")
	path := x.mount("shown", made.UID, "i")
	x.write(path, "f", "then")
	if _, err := x.frozen(path, func() error { _, err := s.Snapshot(x.ctx(), "shown", made.UID, "s"); return err }); err != nil {
		if !fault.Is(err, fault.Conflict) {
			t.Fatal(err)
		}
		x.unmount("shown", "i")
		if _, err := s.Snapshot(x.ctx(), "shown", made.UID, "s"); err != nil {
			t.Fatal(err)
		}
		path = x.mount("shown", made.UID, "i")
	}
	x.write(path, "f", "now")
	for range 2 {
		var at [2]string
		for i, id := range []string{"a", "b"} {
			for range 2 {
				if at[i], err = r.MountSnapshot(x.ctx(), "shown", "s", id); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { _ = r.UnmountSnapshot(context.Background(), "shown", "s", id) })
			x.read(at[i], "f", "then")
			if err := os.WriteFile(filepath.Join(at[i], "f"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("write into a snapshot: %v", err)
			}
		}
		x.want(fault.Conflict, s.RemoveSnapshot(x.ctx(), "shown", "s"), "remove a snapshot that is mounted")
		for i, id := range []string{"a", "b"} {
			for range 2 {
				if err := r.UnmountSnapshot(x.ctx(), "shown", "s", id); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := os.Stat(filepath.Join(at[i], "f")); err == nil {
				t.Errorf("%s is still mounted", at[i])
			}
		}
	}
	x.read(path, "f", "now")
	if err := s.RemoveSnapshot(x.ctx(), "shown", "s"); err != nil {
		t.Error(err)
	}
}

func clones(t *testing.T, x *try) {
	if !x.facts().Clones {
		t.Skip("the driver cannot clone")
	}
	_, err := x.Driver.Create(x.ctx(), driver.Spec{Name: "c", UID: uuid.NewString(), Source: &driver.Source{Volume: "nobody"}})
	x.want(fault.NotFound, err, "clone what is not there")
	made := x.create("mother")
	x.write(x.mount("mother", made.UID, "i"), "f", "hers")
	x.unmount("mother", "i")
	if x.KeepsUID {
		_, err = x.Driver.Create(x.ctx(), driver.Spec{Name: "c", UID: uuid.NewString(), Source: &driver.Source{Volume: "mother", UID: uuid.NewString()}})
		x.want(fault.Conflict, err, "clone by a wrong uid")
	}
	if made.Size > 0 && x.facts().LimitsSize {
		_, err = x.Driver.Create(x.ctx(), driver.Spec{Name: "c", UID: uuid.NewString(), Size: made.Size / 2, Source: &driver.Source{Volume: "mother"}})
		x.want(fault.Invalid, err, "clone into less")
	}
	_, err = x.Driver.Get(x.ctx(), "c")
	x.want(fault.NotFound, err, "get a clone that failed")
	child := x.clone("child", driver.Source{Volume: "mother", UID: made.UID})
	if child.UID == made.UID || child.Size != made.Size {
		t.Errorf("the clone is %+v, its source %+v", child, made)
	}
	path := x.mount("mother", made.UID, "i")
	other := x.mount("child", child.UID, "i") // both at once
	x.write(path, "f", "hers still")
	x.write(other, "f", "its own")
	x.read(path, "f", "hers still")
	x.unmount("mother", "i")
	x.unmount("child", "i")
	grandchild, err := x.Driver.Create(x.ctx(), driver.Spec{Name: "grandchild", UID: uuid.NewString(), Size: 2 * made.Size, Source: &driver.Source{Volume: "child", UID: child.UID}})
	if err != nil || grandchild.Size != 2*made.Size {
		t.Fatalf("a larger clone: %+v %v", grandchild, err)
	}
	path = x.mount("grandchild", grandchild.UID, "i")
	x.read(path, "f", "its own")
	if made.Size > 0 {
		x.enlarged(path, made.Size)
	}
	x.unmount("grandchild", "i")
	if err := x.Driver.Remove(x.ctx(), "mother", made.UID); err != nil {
		t.Error(err)
	}
	x.read(x.mount("child", child.UID, "j"), "f", "its own")
}

// noSuchPowers holds a driver to its facts: what it does not do it refuses as invalid, and nothing comes of it.
func noSuchPowers(t *testing.T, x *try) {
	f := x.facts()
	x.create("plain")
	if s, ok := x.Driver.(driver.Snapshotter); ok && !f.Snapshots {
		_, err := s.Snapshot(x.ctx(), "plain", "", "s")
		x.want(fault.Invalid, err, "snapshot")
	}
	if g, ok := x.Driver.(driver.Grower); ok && f.Grows == "" {
		_, err := g.Grow(x.ctx(), "plain", "", 1<<40)
		x.want(fault.Invalid, err, "grow")
	}
	if !f.Clones {
		_, err := x.Driver.Create(x.ctx(), driver.Spec{Name: "c", UID: uuid.NewString(), Options: x.Options, Source: &driver.Source{Volume: "plain"}})
		x.want(fault.Invalid, err, "clone")
		_, err = x.Driver.Get(x.ctx(), "c")
		x.want(fault.NotFound, err, "get a clone that was refused")
	}
}

func bin(t *testing.T, x *try) {
	b, ok := x.Driver.(driver.Binner)
	if !ok {
		t.Skip("the driver has no bin")
	}
	if all, err := b.Bin(x.ctx()); err != nil || len(all) != 0 {
		t.Fatalf("a new bin: %+v %v", all, err)
	}
	_, err := b.Undelete(x.ctx(), "nobody", "")
	x.want(fault.NotFound, err, "undelete what was never there")
	x.want(fault.NotFound, b.Purge(x.ctx(), "nobody", ""), "purge what was never there")
	first := x.create("thrown")
	x.write(x.mount("thrown", first.UID, "i"), "f", "kept")
	x.unmount("thrown", "i")
	x.remove("thrown", first.UID)
	all, err := b.Bin(x.ctx())
	if err != nil || len(all) != 1 || all[0].Name != "thrown" || all[0].UID != first.UID || all[0].Size != first.Size || !all[0].Until.After(all[0].At) {
		t.Fatalf("bin: %+v %v", all, err)
	}
	second := x.create("thrown")
	_, err = b.Undelete(x.ctx(), "thrown", first.UID)
	x.want(fault.Exists, err, "undelete while the name is taken")
	x.remove("thrown", second.UID)
	_, err = b.Undelete(x.ctx(), "thrown", uuid.NewString())
	x.want(fault.NotFound, err, "undelete by a wrong uid")
	for range 2 { // again is success
		if got, err := b.Undelete(x.ctx(), "thrown", first.UID); err != nil || got.UID != first.UID || got.Size != first.Size {
			t.Fatalf("undelete: %+v %v", got, err)
		}
	}
	x.read(x.mount("thrown", first.UID, "i"), "f", "kept")
	x.unmount("thrown", "i")
	x.want(fault.NotFound, b.Purge(x.ctx(), "thrown", first.UID), "purge what is in use")
	if err := b.Purge(x.ctx(), "thrown", second.UID); err != nil {
		t.Error(err)
	}
	x.want(fault.NotFound, b.Purge(x.ctx(), "thrown", second.UID), "purge again")
	if all, err := b.Bin(x.ctx()); err != nil || len(all) != 0 {
		t.Errorf("bin at the end: %+v %v", all, err)
	}
}

func (x *try) remove(name, uid string) {
	x.Helper()
	if err := x.Driver.Remove(x.ctx(), name, uid); err != nil {
		x.Fatal(err)
	}
}

// check has a whole volume found whole. What a damaged one needs is the driver's own test.
func check(t *testing.T, x *try) {
	c, ok := x.Driver.(driver.Checker)
	if !ok {
		t.Skip("the driver cannot check")
	}
	_, _, err := c.Check(x.ctx(), "nobody", "", false)
	x.want(fault.NotFound, err, "check what is not there")
	made := x.create("whole")
	if _, _, err := c.Check(x.ctx(), "whole", made.UID, false); fault.Is(err, fault.Invalid) {
		t.Skipf("its volumes cannot be checked: %v", err)
	}
	if x.KeepsUID {
		_, _, err = c.Check(x.ctx(), "whole", uuid.NewString(), false)
		x.want(fault.Conflict, err, "check by a wrong uid")
	}
	path := x.mount("whole", made.UID, "i")
	x.write(path, "f", "kept")
	for _, repair := range []bool{false, true} {
		_, _, err = c.Check(x.ctx(), "whole", made.UID, repair)
		x.want(fault.Conflict, err, "check while it is mounted")
	}
	x.read(path, "f", "kept")
	x.unmount("whole", "i")
	for _, repair := range []bool{false, true} {
		if clean, report, err := c.Check(x.ctx(), "whole", made.UID, repair); err != nil || !clean {
			t.Errorf("repair %v: %v %q %v", repair, clean, report, err)
		}
	}
	x.read(x.mount("whole", made.UID, "i"), "f", "kept")
}

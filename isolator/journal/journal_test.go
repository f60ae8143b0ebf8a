package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/volume"
)

func ref(n int) volume.Ref { return volume.Ref{Driver: "pool", Name: fmt.Sprintf("v%d", n)} }

func vol(n int, p Phase, e volume.Epoch) Volume {
	return Volume{Ref: ref(n), UID: fmt.Sprint("uid-", n), Phase: p, Epoch: e}
}

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func write(t *testing.T, j *Journal, v Volume, st State) {
	t.Helper()
	if err := j.Append("mount", "driver", st, v); err != nil {
		t.Fatal(err)
	}
}

func TestLastRecordWins(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	write(t, j, vol(1, Mounting, 1), Intent)
	write(t, j, vol(2, Mounting, 5), Intent)
	write(t, j, vol(1, Mounted, 1), Done)
	j.Close()
	j = open(t, dir)
	if v, _ := j.Volume(ref(1)); v.Phase != Mounted {
		t.Errorf("%+v", v)
	}
	if v, ok := j.Volume(ref(2)); !ok || v.Epoch != 5 || v.UID != "uid-2" {
		t.Errorf("%+v", v)
	}
	if _, ok := j.Volume(ref(3)); ok {
		t.Error("a volume that nobody wrote")
	}
	if len(j.Volumes()) != 2 || len(j.Damaged()) != 0 {
		t.Errorf("%v %v", j.Volumes(), j.Damaged())
	}
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir); !fault.Is(err, fault.Conflict) {
		t.Errorf("second: %v", err)
	}
}

// However much of the last line is there, it is cut off and the rest stands.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	write(t, j, vol(1, Mounted, 1), Intent)
	write(t, j, vol(1, Unmounting, 1), Intent)
	j.Close()
	log := filepath.Join(dir, "log")
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(whole, '\n') + 1
	for n := first; n < len(whole); n++ {
		if err := os.WriteFile(log, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if v, _ := j.Volume(ref(1)); v.Phase != Mounted || len(j.Damaged()) != 0 {
			t.Fatalf("%d bytes: %+v %v", n, v, j.Damaged())
		}
		write(t, j, vol(2, Mounted, 2), Intent)
		j.Close()
		j, err = Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := j.Volume(ref(2)); !ok || v.Epoch != 2 || len(j.Damaged()) != 0 {
			t.Fatalf("%d bytes, written after: %+v %v", n, v, j.Damaged())
		}
		j.Close()
	}
}

// Damage in the middle is named, the damaged file is kept, and what is good is there.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for i := range 5 {
		write(t, j, vol(i, Mounted, 1), Intent)
	}
	j.Close()
	log := filepath.Join(dir, "log")
	whole, _ := os.ReadFile(log)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lines[2][20] ^= 1
	if err := os.WriteFile(log, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	if d := j.Damaged(); len(d) != 1 || d[0].Line != 3 || !strings.Contains(d[0].Why, "checksum") {
		t.Errorf("damage %v", d)
	}
	if len(j.Volumes()) != 4 {
		t.Errorf("%d volumes", len(j.Volumes()))
	}
	kept, _ := filepath.Glob(filepath.Join(dir, "log.damaged-*"))
	if len(kept) != 1 {
		t.Errorf("kept aside: %v", kept)
	}
	write(t, j, vol(9, Mounted, 1), Intent)
	j.Close()
	j = open(t, dir)
	if len(j.Damaged()) != 0 || len(j.Volumes()) != 5 {
		t.Errorf("after: %v, %d volumes", j.Damaged(), len(j.Volumes()))
	}
	j.Close()
	snap := filepath.Join(dir, "snapshot")
	if err := os.WriteFile(snap, []byte("00000000 {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	if d := j.Damaged(); len(d) != 1 || d[0].File != snap {
		t.Errorf("damaged snapshot: %v", d)
	}
}

func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	j.limit = 50
	for i := range 500 {
		write(t, j, vol(i%7, Mounted, volume.Epoch(i)), Done)
	}
	st, _ := os.Stat(filepath.Join(dir, "log"))
	if st.Size() > 60*500 {
		t.Errorf("log has %d bytes", st.Size())
	}
	j.Close()
	j = open(t, dir)
	for i := range 7 {
		want := volume.Epoch(497 + (i-497%7+7)%7)
		if want > 499 {
			want -= 7
		}
		if v, _ := j.Volume(ref(i)); v.Epoch != want {
			t.Errorf("v%d: epoch %d, want %d", i, v.Epoch, want)
		}
	}
	if j.seq != 500 {
		t.Errorf("seq %d", j.seq)
	}
}

// A crash between the snapshot's rename and the emptying of the log: records that the snapshot has are passed over.
func TestCrashInCompaction(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	write(t, j, vol(1, Mounted, 1), Intent)
	write(t, j, vol(1, Known, 0), Intent)
	old, _ := os.ReadFile(filepath.Join(dir, "log"))
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	write(t, j, vol(2, Mounted, 2), Intent)
	added, _ := os.ReadFile(filepath.Join(dir, "log"))
	j.Close()
	if err := os.WriteFile(filepath.Join(dir, "log"), append(old, added...), 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	one, _ := j.Volume(ref(1))
	two, _ := j.Volume(ref(2))
	if one.Phase != Known || two.Epoch != 2 {
		t.Errorf("%+v %+v", one, two)
	}
}

func TestSideBySide(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	j.limit = 40
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for e := range 20 {
				if err := j.Append("mount", "driver", Intent, vol(i, Mounted, volume.Epoch(e))); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	j.Close()
	j = open(t, dir)
	for i := range 16 {
		if v, _ := j.Volume(ref(i)); v.Epoch != 19 {
			t.Errorf("v%d: epoch %d", i, v.Epoch)
		}
	}
}

// A full disk refuses the intent, keeps the journal whole, and lets it go on when there is room again.
func TestHeavyFullDisk(t *testing.T) {
	heavy.Require(t, heavy.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	j := open(t, filepath.Join(dir, "j"))
	write(t, j, vol(1, Mounted, 1), Intent)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	refused := 0
	for i := range 100 {
		if err := j.Append("mount", "driver", Intent, vol(2, Mounting, volume.Epoch(i+1))); err != nil {
			if !fault.Is(err, fault.Unavailable) {
				t.Fatal(err)
			}
			refused++
		}
	}
	if refused == 0 {
		t.Fatal("a full disk refused nothing")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	write(t, j, vol(3, Mounted, 3), Intent)
	j.Close()
	j = open(t, filepath.Join(dir, "j"))
	if v, ok := j.Volume(ref(3)); !ok || v.Epoch != 3 || len(j.Damaged()) != 0 {
		t.Errorf("%+v %v", v, j.Damaged())
	}
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	j, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	_ = j.Append("mount", "driver", Intent, vol(1, Mounted, 1))
	_ = j.Append("mount", "driver", Done, vol(1, Known, 0))
	j.Close()
	whole, _ := os.ReadFile(filepath.Join(dir, "log"))
	f.Add(whole)
	f.Add([]byte("x\n"))
	f.Add([]byte("00000000 null\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "log"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if err := j.Append("mount", "driver", Intent, vol(1, Mounted, 7)); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkIntent(b *testing.B) {
	j, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for i := 0; b.Loop(); i++ {
		if err := j.Append("mount", "driver", Intent, vol(i%100, Mounting, 1)); err != nil {
			b.Fatal(err)
		}
	}
}

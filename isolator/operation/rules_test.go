package operation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/client"
)

func TestCheck(t *testing.T) {
	good := client.OperationRequest{Kind: client.OpSnapshot, Driver: "pool", Name: "v", Snapshot: "s"}
	for _, c := range []struct {
		change func(*client.OperationRequest)
		want   string // "" is good
	}{
		{func(*client.OperationRequest) {}, ""},
		{func(r *client.OperationRequest) { r.Kind = "format" }, `operation "format" is not known`},
		{func(r *client.OperationRequest) { r.Driver = "" }, "driver is missing"},
		{func(r *client.OperationRequest) { r.Name = "../etc" }, "volume name"},
		{func(r *client.OperationRequest) { r.Snapshot = "" }, "snapshot is missing"},
		{func(r *client.OperationRequest) { r.Snapshot = "a/b" }, `snapshot "a/b"`},
		{func(r *client.OperationRequest) { r.Snapshot = "-rf" }, `snapshot "-rf"`},
		{func(r *client.OperationRequest) { r.UID = "x y" }, `uid "x y"`},
		{func(r *client.OperationRequest) { r.SizeBytes = 5 }, "sizeBytes does not belong to it"},
		{func(r *client.OperationRequest) { r.Repository = "r" }, "repository does not belong to it"},
		{func(r *client.OperationRequest) { r.Repair = true }, "repair does not belong to it"},
		{func(r *client.OperationRequest) {
			*r = client.OperationRequest{Kind: client.OpResize, Driver: "p", Name: "v"}
		}, "sizeBytes is missing"},
		{func(r *client.OperationRequest) {
			*r = client.OperationRequest{Kind: client.OpResize, Driver: "p", Name: "v", SizeBytes: -1}
		}, "negative"},
		{func(r *client.OperationRequest) {
			*r = client.OperationRequest{Kind: client.OpClone, Driver: "p", Name: "v", Target: &client.TargetVolume{Name: "v"}}
		}, "a name of its own"},
		{func(r *client.OperationRequest) {
			*r = client.OperationRequest{Kind: client.OpClone, Driver: "p", Name: "v", Target: &client.TargetVolume{Name: "w", Options: map[string]string{"holdfast.epoch": "1"}}}
		}, "holdfast."},
		{func(r *client.OperationRequest) {
			*r = client.OperationRequest{Kind: client.OpRestore, Driver: "p", Repository: "r", Backup: "latest", Target: &client.TargetVolume{}}
		}, "target: name is missing"},
		{func(r *client.OperationRequest) {
			*r = client.OperationRequest{Kind: client.OpUndelete, Driver: "p", Name: "v", Target: &client.TargetVolume{Name: "w"}}
		}, "its own name"},
		{func(r *client.OperationRequest) { *r = client.OperationRequest{Kind: client.OpBin} }, ""},
	} {
		r := good
		c.change(&r)
		err := Check(r)
		if c.want == "" && err != nil || c.want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", r, err, c.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("snapshot", "pool", "v", "s", "u")
	f.Add("backup", "csi/x", "..", "-o", "")
	f.Fuzz(func(t *testing.T, kind, driver, name, snapshot, uid string) {
		r := client.OperationRequest{Kind: kind, Driver: driver, Name: name, Snapshot: snapshot, UID: uid, ID: uid}
		if Check(r) != nil {
			return
		}
		for _, v := range []string{name, snapshot, uid} {
			if strings.ContainsAny(v, "/\n\x00 ") || strings.HasPrefix(v, "-") || v == ".." {
				t.Fatalf("%+v is taken", r)
			}
		}
	})
}

// A level is left three percent below where it began.
func TestLevels(t *testing.T) {
	level := LevelNone
	for _, c := range []struct {
		used int64
		want Level
	}{{84, LevelNone}, {85, LevelNearly}, {83, LevelNearly}, {82, LevelNone}, {84, LevelNone}, {96, LevelFull}, {93, LevelFull}, {92, LevelNearly}, {50, LevelNone}} {
		level = LevelOf(level, client.Usage{SizeBytes: 100, UsedBytes: c.used, AvailableBytes: 100 - c.used})
		if level != c.want {
			t.Errorf("at %d %% the level is %q, want %q", c.used, level, c.want)
		}
	}
	if l := LevelOf(LevelNone, client.Usage{UsedBytes: 99, AvailableBytes: 1}); l != LevelNone {
		t.Errorf("a volume without a size is %q", l)
	}
	if l := LevelOf(LevelNone, client.Usage{SizeBytes: 100, AvailableBytes: 100, Inodes: 100, InodesUsed: 99}); l != LevelFull {
		t.Errorf("without inodes left it is %q", l)
	}
}

// The book keeps what it was told over a restart, names what it cannot read, and forgets what is over for long.
func TestBook(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	b, err := openBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Operation{
		{ID: "a", State: client.OperationRunning, Created: now.Add(-48 * time.Hour)},
		{ID: "b", State: client.OperationDone, Created: now.Add(-48 * time.Hour), Ended: now.Add(-25 * time.Hour)},
		{ID: "c", State: client.OperationFailed, Created: now, Ended: now},
	} {
		if err := b.put(o); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"d.json": "{", "new-1": "half", "e.json": `{"id":"f"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, err = openBook(dir); err != nil {
		t.Fatal(err)
	}
	if len(b.list()) != 3 || len(b.bad) != 2 {
		t.Errorf("%d records, bad: %v", len(b.list()), b.bad)
	}
	b.prune(now)
	if all := b.list(); len(all) != 2 || all[0].ID != "c" || all[1].ID != "a" {
		t.Errorf("%+v", all)
	}
	if _, err := os.Stat(filepath.Join(dir, "new-1")); err == nil {
		t.Error("half a record stays")
	}
}

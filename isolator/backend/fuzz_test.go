package backend

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
)

// What passes for a label can be made part of paths and of sums, and what does not is a conflict.
func FuzzDecodeLabel(f *testing.F) {
	for _, s := range []string{"", "{", `{"v":1,"uid":"u","name":"v","size":5}`, `{"v":1,"uid":"../u","name":"v"}`, `{"v":1,"uid":"u","name":"../v"}`, `{"v":2}`, `{"v":1,"uid":"u","name":"v","grow":-1}`,
		`{"v":1,"uid":"u","name":"v","size":9223372036854775807,"grow":1}`, `{"v":1,"uid":"u","name":"v","encrypt":{"kind":"x","key":"zz"}}`, `{"v":1,"uid":"u","name":"v","snapshot":"a/b"}`, `{"v":1,"uid":"u\u0000","name":"v"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := decodeLabel(raw, "dir")
		if err != nil {
			if !fault.Is(err, fault.Conflict) {
				t.Errorf("%v has class %s", err, fault.ClassOf(err))
			}
			return
		}
		if strings.ContainsAny(l.UID+l.Name+l.Snapshot, "/\x00\n") || l.UID == "" || volume.CheckName(l.Name) != nil || l.Size < 0 || l.Grow < 0 || (l.Grow > 0 && l.Grow < l.Size) {
			t.Errorf("%q passed as %+v", raw, l)
		}
		again, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeLabel(again, "dir"); err != nil && len(again) <= labelMax {
			t.Errorf("%q was read, written as %q, and then: %v", raw, again, err)
		}
	})
}

// Options that pass have known names and sizes that fit; what does not is invalid, and named.
func FuzzParseOptions(f *testing.F) {
	f.Add("size", "5g")
	f.Add("encrypt", "true")
	f.Add("fsck", "ask")
	f.Add("size", "1e308")
	f.Add("size", "99999999999999999999P")
	f.Add("\x00", "\n")
	f.Fuzz(func(t *testing.T, k, v string) {
		w, err := ParseOptions(map[string]string{k: v})
		if err != nil {
			if !fault.Is(err, fault.Invalid) || strings.ContainsAny(err.Error(), "\x00\n") {
				t.Errorf("%q: %q has class %s", k, err, fault.ClassOf(err))
			}
			return
		}
		if k != "size" && k != "encrypt" && k != "fsck" || w.Size < 0 || (w.Fsck != "" && CheckFsck(w.Fsck) != nil) {
			t.Errorf("%q=%q passed as %+v", k, v, w)
		}
	})
}

func FuzzParseOwnership(f *testing.F) {
	for _, s := range []string{"", "root", "0:0", ":5", "root:", "-1", "4294967296:1", "a:b:c", "root:root"} {
		f.Add(s, "755")
	}
	f.Fuzz(func(t *testing.T, owner, mode string) {
		o, err := ParseOwnership(owner, mode)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v has class %s", err, fault.ClassOf(err))
			}
			return
		}
		if o.uid < -1 || o.gid < -1 || o.mode > 0o7777 {
			t.Errorf("%q %q passed as %+v", owner, mode, o)
		}
	})
}

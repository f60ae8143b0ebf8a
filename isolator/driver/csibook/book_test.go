package csibook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// A record is there whole or not at all, is added once, and a damaged one is unknown and never absent.
func TestStore(t *testing.T) {
	s := Store[Volume]{Dir: t.TempDir(), What: "record"}
	if _, ok, err := s.Get("v"); ok || err != nil {
		t.Errorf("%t %v", ok, err)
	}
	if err := s.Add("v", Volume{V: 1, Name: "v"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Add("v", Volume{V: 1, Name: "other"}); !fault.Is(err, fault.Exists) {
		t.Errorf("added twice: %v", err)
	}
	if err := s.Put("v@s", Volume{V: 1, Name: "v"}); err != nil {
		t.Fatal(err)
	}
	for _, junk := range []string{".new-1", "x.txt", "../x.json", "a@b@c.json", "@.json"} {
		_ = os.WriteFile(filepath.Join(s.Dir, filepath.Base(junk)), nil, 0o600)
	}
	if all, err := s.All(); err != nil || strings.Join(all, " ") != "v v@s x" {
		t.Errorf("%v %v", all, err)
	}
	for what, content := range map[string]string{"torn": `{"v":1,"na`, "empty": "", "large": strings.Repeat(" ", maxFile+1)} {
		if err := os.WriteFile(s.Path("v"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Get("v"); !fault.Is(err, fault.Unknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range 2 {
		if err := s.Remove("v"); err != nil {
			t.Error(err)
		}
	}
	if err := (Store[Volume]{Dir: "/nowhere"}).Put("v", Volume{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v", err)
	}
}

// FuzzParseWish: whatever the options, they are understood or refused, and what is understood makes a request that asks for a mounted file system in one known way.
func FuzzParseWish(f *testing.F) {
	f.Add("size", "5", "access", "multi-node-multi-writer")
	f.Add("Block", "true", "FSTYPE", "xfs")
	f.Add("mountflags", ",,a", "tier", "gold=1,2")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		options := map[string]string{k1: v1, k2: v2}
		w, err := ParseWish(0, options, "")
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v", err)
			}
			return
		}
		for _, single := range []bool{true, false} {
			for _, shared := range []bool{true, false} {
				c := w
				if err := c.Choose(single, shared); err != nil {
					continue
				}
				if q := c.Capability(); q.GetMount() == nil || q.GetBlock() != nil || q.GetAccessMode().GetMode() == 0 {
					t.Fatalf("%v gives %v", options, q)
				}
			}
		}
		for k := range w.Parameters {
			switch strings.ToLower(k) {
			case "size", "fs", "fstype", "access", "mountflags", "block", "volumemode":
				t.Fatalf("%s went to the plugin", k)
			}
		}
	})
}

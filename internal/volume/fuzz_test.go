package volume

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"
)

// What is taken for a name can be a file's name, an argument and a line, and never leaves its directory.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"db", "db-1", "a.b_c", "..", ".", "", "a/b", "a\nb", "-rf", "a b", "é", "a\x00", strings.Repeat("x", 201), "csi/ebs", "a/../b", "a//b"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, driver, name string) {
		safe := func(what, s string) {
			if s == "" || strings.ContainsAny(s, "\x00\n\r\t \\'\"`$;&|<>*?~#=,") || s[0] == '-' || s[0] == '.' || strings.Contains(s, "/.") {
				t.Errorf("%s %q is taken", what, s)
			}
		}
		if CheckName(name) == nil {
			safe("name", name)
			if strings.Contains(name, "/") || filepath.Join("/pool", name) != "/pool/"+name || len(name) > MaxName {
				t.Errorf("name %q is taken", name)
			}
		}
		if CheckDriver(driver) == nil {
			safe("driver", driver)
			if !strings.HasPrefix(filepath.Join("/x", driver)+"/", "/x/"+driver+"/") || strings.Count(driver, "/") > 1 {
				t.Errorf("driver %q is taken", driver)
			}
		}
		if got := (Ref{driver, name}).Check(); (got == nil) != (CheckName(name) == nil && CheckDriver(driver) == nil) {
			t.Errorf("%q %q: %v", driver, name, got)
		}
	})
}

// No option of ours reaches a driver, none of the user's is lost, and a grant comes back as it was.
func FuzzOptions(f *testing.F) {
	f.Add("size", "5", "holdfast.epoch", "7")
	f.Add("holdfast.volume-id", "u", "holdfast.nonce", "n")
	f.Add("Holdfast.epoch", "1", "a=b", "c,d=e")
	f.Add("holdfast.", "", "holdfast.epoch", "-1")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		all := map[string]string{k1: v1, k2: v2}
		g, given, user, err := SplitOptions(all)
		if err == nil {
			for k := range user {
				if strings.HasPrefix(k, OptionPrefix) {
					t.Errorf("%q goes to the driver", k)
				}
			}
			for k, v := range all {
				if !strings.HasPrefix(k, OptionPrefix) && user[k] != v {
					t.Errorf("%q is lost", k)
				}
			}
			if given && (g.Epoch == 0 || g.VolumeUID == "" || g.Nonce == "") {
				t.Errorf("half a grant: %+v", g)
			}
		}
		if CheckOptions(all) != nil {
			return
		}
		want := Grant{VolumeUID: "u" + v1, Epoch: 1 + Epoch(len(v2)), Nonce: "n" + v2, Task: v1, MustExist: len(v1)%2 == 0}
		got, given, rest, err := SplitOptions(want.Encode(all))
		if err != nil || !given || got != want || !maps.Equal(rest, all) {
			t.Errorf("%+v %v came back as %+v %v %v", want, all, got, rest, err)
		}
	})
}

// A size is positive, and says itself in a way that is read as the same.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"5", "0.5", "10GiB", "1 TB", "1e9", "-1", "NaN", "9999999T", "0", "0.0000000001", "3b", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if again, err := ParseSize(n.String()); n <= 0 || err != nil || again != n {
			t.Errorf("%q is %d, which says %s and is read as %d %v", s, n, n, again, err)
		}
	})
}

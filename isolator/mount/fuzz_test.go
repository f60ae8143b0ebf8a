package mount

import (
	"path/filepath"
	"strings"
	"testing"
)

// A path that a driver gave is used only if it is one absolute, clean line.
func FuzzDriverPath(f *testing.F) {
	for _, s := range []string{"/mnt/v", "", "/", "rel", "/a/../b", "/a\n/b", "/a/", "//a", "/a\x00", "/a/./b", strings.Repeat("/x", 3000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if checkShape(path) != nil {
			return
		}
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.ContainsAny(path, "\n\r\x00") || strings.Contains(path+"/", "/../") || len(path) > 4096 {
			t.Errorf("%q is taken", path)
		}
	})
}

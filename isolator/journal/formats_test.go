package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// The journal of every earlier version, as it was while a volume was mounted, is read whole.
func TestJournalsOfEarlierVersions(t *testing.T) {
	files, err := filepath.Glob("testdata/*/log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		dir := t.TempDir()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "log"), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		j, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(j.Damaged()) > 0 || j.Healthy() != nil {
			t.Errorf("%s: %v %v", name, j.Damaged(), j.Healthy())
		}
		found := false
		for _, v := range j.Volumes() {
			if v.Ref.String() == "pool/counter" {
				found = v.UID != "" && v.Epoch == 1 && v.Nonce != ""
			}
		}
		if !found {
			t.Errorf("%s: %+v", name, j.Volumes())
		}
		if err := j.Compact(); err != nil {
			t.Error(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

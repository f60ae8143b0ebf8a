package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Exports of every earlier version are imported as they are, and definitions in them are still apps.
func TestExportsOfEarlierVersions(t *testing.T) {
	files, err := filepath.Glob("testdata/*/export.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "new")
		hfOK(t, string(raw), "state", "import", "--dir", dir)
		if again := hfOK(t, "", "state", "export", "--dir", dir); again != string(raw) {
			t.Errorf("%s: the state is another after import and export", name)
		}
		h, ops, err := readState(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		defs := 0
		for _, op := range ops {
			w, err := store.Decode(op.Key[len(store.Prefix(h.Cluster)):], op.Value)
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := w.Value.(*state.Def); ok {
				defs++
				if _, err := marathon.Stored(d.Source); err != nil {
					t.Errorf("%s: %v", d.App, err)
				}
			}
		}
		if defs == 0 {
			t.Errorf("%s has no definition", name)
		}
	}
}

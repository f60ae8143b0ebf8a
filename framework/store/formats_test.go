package store_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Every format that was ever written stays here as a file, made by that version (the directory's name) while a cluster ran, and is opened by this one.
func TestFilesOfEarlierVersions(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/state.db.gz")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range dirs {
		t.Run(filepath.Base(filepath.Dir(name)), func(t *testing.T) {
			dir := t.TempDir()
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := io.ReadAll(z)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "state.db"), raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			back, err := bolt.Open(dir, bolt.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer back.Close()
			st, err := store.Open(t.Context(), back, "", "test")
			if err == nil {
				err = st.Lead(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			writes, bad, err := st.Load(t.Context())
			if err != nil || len(bad) > 0 {
				t.Fatal(err, bad)
			}
			s := state.New()
			s.Apply(writes)
			if s.Framework.ID == "" || s.Framework.Cluster != st.Cluster() || len(s.Apps) != 2 || len(s.Defs) != 2 || len(s.Instances) != 5 || len(s.Volumes) != 3 {
				t.Errorf("framework %+v, %d apps, %d definitions, %d instances, %d volumes", s.Framework, len(s.Apps), len(s.Defs), len(s.Instances), len(s.Volumes))
			}
			for id, i := range s.Instances {
				if i.Phase != state.PhaseRunning || i.Run == nil || i.Run.Task == "" || i.Run.AgentURL == "" || s.Defs[i.App][i.Version] == nil {
					t.Errorf("%s: %+v %+v", id, i, i.Run)
				}
			}
			for _, v := range s.Volumes {
				if v.Phase != state.VolumeReady || v.Instance == "" || v.Epoch == 0 || v.Policy != "lease" || len(s.Instances[v.Instance].Run.Claims) != 1 {
					t.Errorf("%+v", v)
				}
			}
			// What is read can be written, and says the same.
			ops, err := st.Encode(writes)
			if err != nil {
				t.Fatal(err)
			}
			var b store.Batch
			b.Add(ops)
			if err := st.Commit(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			if again, bad, err := st.Load(t.Context()); err != nil || len(bad) > 0 || len(again) != len(writes) {
				t.Error(err, bad, len(again))
			}
		})
	}
}

package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/isolator/driver/dockertest"
)

// TestHeavyRclone runs the scripts of testdata/rclone against a real `rclone serve docker`, with no isolator on the node.
func TestHeavyRclone(t *testing.T) {
	heavy.Require(t, heavy.Root, heavy.Program("rclone"), heavy.Program("fusermount3"))
	testscript.Run(t, testscript.Params{
		Dir: "testdata/rclone",
		Setup: func(e *testscript.Env) error {
			home, err := os.MkdirTemp("/tmp", "hfr")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(home) })
			r, err := dockertest.StartRclone(home)
			if err != nil {
				return err
			}
			e.Defer(func() {
				if leaked := r.Close(); len(leaked) > 0 {
					t.Errorf("left mounted: %v", leaked)
				}
			})
			for k, v := range map[string]string{"HOLDFAST_PLUGIN_DIR": r.Dir, "HOLDFAST_ISOLATOR": "", "STORAGE": r.Storage, "BASE": r.Base} {
				e.Setenv(k, v)
			}
			return nil
		},
	})
}

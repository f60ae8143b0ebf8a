package main

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast-io/holdfast/cmd/holdfast/devtest"
	"github.com/holdfast-io/holdfast/internal/heavy"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"holdfast": main})
}

// exits runs a command and wants its exit code: `exits 3 holdfast app show /none`. stdout and stderr can be matched after it.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v ended with exit code %d, not %d", args[1:], got, want)
	}
}

func params(dir string, env ...string) testscript.Params {
	return testscript.Params{
		Dir: dir, RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Setup: func(e *testscript.Env) error {
			root, err := devtest.Root()
			// The HOME of scripts is /no-home.
			e.Vars = append(e.Vars, append(env, "EXAMPLES="+filepath.Join(root, "examples"), "XDG_DATA_HOME="+e.WorkDir)...)
			return err
		},
	}
}

// TestScripts runs what needs no cluster: usage, and errors.
func TestScripts(t *testing.T) { testscript.Run(t, params("testdata/plain")) }

// TestHeavyScripts runs scripts against a live cluster, one after the other.
func TestHeavyScripts(t *testing.T) {
	heavy.Require(t)
	c := devtest.Start(t)
	if err := c.API.Ping(context.Background()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/live/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		p := params("", "HOLDFAST_API="+c.URL, "DEVDIR="+c.Dir)
		p.Files = []string{f}
		t.Run(filepath.Base(f), func(t *testing.T) { testscript.Run(t, p) })
	}
}

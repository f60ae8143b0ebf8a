// Package heavy marks the tests that the inner loop leaves out: those that need root, real mounts,
// real servers, or more than a couple of seconds. `go test ./...` skips them and says why;
// `make test` sets HOLDFAST_HEAVY=1 and runs them.
package heavy

import (
	"os"
	"os/exec"
	"testing"
)

// Need is one thing that a test cannot do without.
type Need func(t testing.TB) (missing string)

// Root needs effective uid 0.
func Root(testing.TB) string {
	if os.Geteuid() != 0 {
		return "needs root"
	}
	return ""
}

// Program returns a Need for an executable on PATH.
func Program(name string) Need {
	return func(testing.TB) string {
		if _, err := exec.LookPath(name); err != nil {
			return "needs the program " + name
		}
		return ""
	}
}

// Require skips the test, saying why, unless heavy tests are switched on and every need is met.
// With HOLDFAST_HEAVY=strict a need that is not met fails the test instead: CI uses that, so that
// nothing is skipped because an install step went missing.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	mode := os.Getenv("HOLDFAST_HEAVY")
	if mode == "" {
		t.Skip("heavy test: run by `make test` (HOLDFAST_HEAVY=1)")
	}
	for _, need := range needs {
		if missing := need(t); missing != "" {
			if mode == "strict" {
				t.Fatalf("heavy test: %s", missing)
			}
			t.Skipf("heavy test: %s", missing)
		}
	}
}

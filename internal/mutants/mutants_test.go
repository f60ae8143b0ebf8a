package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const top = "../.."

// Every mutant has its place in the code and its test, every case has a mutant, and docs/safety.md names them all. Whether they are caught, `make mutants` shows.
func TestMutantsHaveTheirPlaces(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(top, "docs", "safety.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range mutants {
		if seen[m.name] {
			t.Errorf("mutant %s is there twice", m.name)
		}
		seen[m.name] = true
		if broken, err := m.apply(top); err != nil {
			t.Error(err)
		} else if len(broken) == 0 {
			t.Errorf("mutant %s changes nothing", m.name)
		}
		if !hasTest(t, m.pkg, m.test) {
			t.Errorf("mutant %s: there is no %s in %s", m.name, m.test, m.pkg)
		}
		if !regexp.MustCompile(`(?m)^\| ` + m.name[:2] + ` .*` + m.test).Match(doc) {
			t.Errorf("mutant %s: docs/safety.md does not name %s for case %s", m.name, m.test, m.name[:2])
		}
	}
	for n := 1; n <= 20; n++ {
		if !seen[fmt.Sprintf("%02d", n)] {
			t.Errorf("case %d has no mutant", n)
		}
	}
}

func hasTest(t *testing.T, pkg, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(top, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "func "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// A mutant whose place is gone, or is no longer the only one, is an error and not a mutant that changes nothing.
func TestPlaceMustBeUnique(t *testing.T) {
	for old, n := range map[string]int{"nowhere in it": 0, "return": 2} {
		m := mutant{name: "x", edits: one("internal/mutants/main.go", old, "")}
		if _, err := m.apply(top); err == nil || !strings.Contains(err.Error(), "the code has changed") {
			t.Errorf("%q, %d times or more: %v", old, n, err)
		}
	}
}

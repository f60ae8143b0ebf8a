// Command mutants shows that the tests of the twenty cases of docs/safety.md can fail: it builds each test once more with one decision broken, by the
// go command's -overlay, so that the code itself has no hooks for it, and wants the named test to fail. `make mutants` runs it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "regular expression for the names of mutants to run")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	bad := 0
	sound := map[string]error{} // the tests as they are
	for _, m := range mutants {
		if !pattern.MatchString(m.name) {
			continue
		}
		began := time.Now()
		key := m.pkg + " " + m.test
		if _, known := sound[key]; !known {
			sound[key] = passes(m)
		}
		verdict := "caught by " + m.test
		if err := errors.Join(sound[key], caught(m)); err != nil {
			bad++
			verdict = "NOT SHOWN: " + err.Error()
		}
		fmt.Printf("%-4s %s: %s (%.1fs)\n", m.name, m.what, verdict, time.Since(began).Seconds())
	}
	if bad > 0 {
		fmt.Printf("%d mutants were not shown to be caught\n", bad)
		os.Exit(1)
	}
}

// passes runs a mutant's test on the code as it is.
func passes(m mutant) error {
	out, err := run(m, "")
	if err != nil {
		return fmt.Errorf("%s fails without the mutant:\n%s", m.test, out)
	}
	if !strings.Contains(out, "--- PASS: "+m.test) {
		return fmt.Errorf("%s does not run here:\n%s", m.test, out)
	}
	return nil
}

// caught runs a mutant's test on the broken code, and is nil when exactly that test fails.
func caught(m mutant) error {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := m.overlay(".", dir)
	if err != nil {
		return err
	}
	out, err := run(m, overlay)
	switch {
	case err == nil:
		return fmt.Errorf("%s passes", m.test)
	case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
		return fmt.Errorf("it does not build:\n%s", out)
	case !strings.Contains(out, "--- FAIL: "+m.test) && !strings.Contains(out, "panic:"):
		return fmt.Errorf("something else than %s failed:\n%s", m.test, out)
	}
	return nil
}

func run(m mutant, overlay string) (string, error) {
	args := []string{"test", "-count=1", "-vet=off", "-v", "-timeout", "120s", "-run", "^" + m.test + "$"}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, m.pkg)...)
	cmd.Env = append(os.Environ(), "HOLDFAST_HEAVY=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// overlay writes the broken files below dir and the list that -overlay takes.
func (m mutant) overlay(top, dir string) (string, error) {
	broken, err := m.apply(top)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range broken {
		copied := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			return "", err
		}
		abs, err := filepath.Abs(filepath.Join(top, file))
		if err != nil {
			return "", err
		}
		replace[abs] = copied
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, raw, 0o600)
}

// apply gives the broken files' texts, by name.
func (m mutant) apply(top string) (map[string]string, error) {
	out := map[string]string{}
	for _, e := range m.edits {
		text, have := out[e.file]
		if !have {
			raw, err := os.ReadFile(filepath.Join(top, e.file))
			if err != nil {
				return nil, err
			}
			text = string(raw)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("mutant %s: its place stands %d times in %s; the code has changed, and so must the mutant: %s", m.name, n, e.file, e.old)
		}
		out[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return out, nil
}

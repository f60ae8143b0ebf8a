package examples

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/marathon"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestEveryExampleLoadsAndPlans reads each app as the API does and hands it to the scheduler.
func TestEveryExampleLoadsAndPlans(t *testing.T) {
	files, err := filepath.Glob("*/app.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Dir(file), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			app, warnings, err := marathon.Parse(body, marathon.Options{Role: "holdfast"})
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%v, warnings %q", err, warnings)
			}
			if want := "/" + filepath.Dir(file); app.ID != want {
				t.Errorf("id %s, not %s", app.ID, want)
			}
			spec, err := app.Spec()
			if err != nil {
				t.Fatal(err)
			}
			if !spec.Exclusive() {
				t.Error("it has no volume of its own")
			}
			plan(t, app.ID, spec, *app.Instances)
			readme, err := os.ReadFile(filepath.Join(filepath.Dir(file), "README.md"))
			if lines := strings.Count(string(readme), "\n"); err != nil || lines < 5 || lines > 12 {
				t.Errorf("README of %d lines: %v", lines, err)
			}
		})
	}
}

// plan adds the app to an empty cluster and wants its instances, each waiting with a volume of its own name.
func plan(t *testing.T, id string, spec state.Spec, instances int) {
	t.Helper()
	s := state.New()
	env := scheduler.Env{Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Entropy: [32]byte{1},
		Config: scheduler.Config{Role: "holdfast", DefaultPolicy: "lease", MinGrade: "soft"}}
	step := func(e scheduler.Event) scheduler.Plan {
		p := scheduler.Step(s, e, env)
		s.Apply(p.Writes)
		env.Entropy[0]++
		return p
	}
	step(scheduler.Loaded{})
	def := &state.Def{App: state.AppID(id), Version: "2026-01-01T00:00:00.000Z", Spec: spec}
	p := step(scheduler.PutApp{Changes: []scheduler.AppPut{{Def: def, Instances: instances}}, Create: true})
	if p.Reply == nil || p.Reply.Err != nil || p.Reply.Deployment == "" {
		t.Fatalf("reply %+v", p.Reply)
	}
	if len(s.Instances) != instances {
		t.Fatalf("%d instances, not %d", len(s.Instances), instances)
	}
	for i := range instances {
		if s.Instances[state.NewInstanceID(def.App, i)] == nil {
			t.Errorf("instance %d is missing", i)
		}
		if spec.Volumes[0].Kind == state.MountPersistent {
			continue // its volume is named when it is made
		}
		name := volume.NameFor(spec.Volumes[0].Pattern, i, false)
		if err := volume.CheckName(name); err != nil {
			t.Error(err)
		}
	}
}

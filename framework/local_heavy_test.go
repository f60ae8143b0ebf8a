package framework_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// TestHeavyLocalSuite is the suite with an app that has local persistent volumes, which change their size, on agents and masters that are killed
// and cut off at random: whatever happens, an instance goes on with the volume that it had, no second one is ever made, and in the end nothing
// is reserved but what is needed.
func TestHeavyLocalSuite(t *testing.T) {
	heavy.Require(t)
	dir := t.TempDir()
	p := newSuite(t, func() (store.Backend, error) { return bolt.Open(dir, bolt.Options{}) }, nil)
	p.shape = func(s *state.Spec) {
		s.Cmd = "echo $HOLDFAST_INSTANCE >> data/runs; " + s.Cmd
		s.Container.Type = "MESOS"
		s.Volumes = []state.Mount{{Kind: state.MountPersistent, ContainerPath: "data", SizeMB: []int64{32, 32, 48, 24}[p.rnd.IntN(4)], DiskType: "root"}}
		s.Residency, s.Unreachable = &state.Residency{}, state.Unreachable{Disabled: true}
		s.Upgrade.MaxOver = 0
	}
	home := map[string]string{} // the volume that a number has written to, by number
	p.run(func() { p.checkVolumes(home) })
	if len(home) == 0 {
		t.Error("no instance ever wrote to its volume")
	}
}

func (p *party) checkVolumes(home map[string]string) {
	t := p.t
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(filepath.Dir(p.cfg.Dir), "*", "volumes", "roles", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]state.InstanceID{}
	said := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if said = p.unsettled(recorded); said == "" {
			break
		}
	}
	if said != "" {
		t.Errorf("reservations do not settle: %s", said)
	}
	for _, d := range dirs {
		id := filepath.Base(d)
		if recorded[id] == "" {
			t.Errorf("volume %s is in no record; there are %v", id, slices.Collect(maps.Keys(recorded)))
		}
		raw, err := os.ReadFile(filepath.Join(d, "runs"))
		if err != nil {
			continue // no task of it ever began
		}
		for _, number := range strings.Fields(string(raw)) {
			if home[number] != "" && home[number] != id {
				t.Errorf("instance %s has written to %s and to %s", number, home[number], id)
			}
			home[number] = id
		}
	}
}

// unsettled says which reservations are not as they are to be in the end; recorded gets the volumes that are known.
func (p *party) unsettled(recorded map[string]state.InstanceID) (said string) {
	p.f.View(func(s *state.State) {
		for _, r := range s.Reserved {
			for _, v := range r.Volumes {
				recorded[v.ID] = r.Instance
			}
			ok := r.Phase == state.ReservedHeld || r.Phase == state.ReservedRetained && (r.Trimmed || !r.MissingSince.IsZero())
			if !ok || len(r.Ops) > 0 {
				said += fmt.Sprintf("%s on %s is %s, operations %v; ", r.Instance, r.Hostname, r.Phase, r.Ops)
			}
		}
		for id, l := range s.Leftovers {
			said += fmt.Sprintf("leftover %s %v; ", id, l.Volumes)
		}
	})
	return said
}

package registry

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
	bolt "go.etcd.io/bbolt"
)

func open(t *testing.T, dir string) *Registry {
	t.Helper()
	r, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	r := open(t, dir)
	id := r.MasterID()
	now := time.Now().Round(0)
	a := Agent{ID: "s", State: Unreachable, Since: now, Deactivated: true, Info: mesos.AgentInfo{Hostname: "h", ID: &mesos.AgentID{Value: "s"}}}
	f := Framework{ID: "f", Registered: now, Info: mesos.FrameworkInfo{User: "u", Name: "n"}}
	gone := Framework{ID: "g", Registered: now, Removed: now, Info: mesos.FrameworkInfo{User: "u", Name: "n"}}
	if err := r.PutAgents(a, Agent{ID: "x", State: Gone}); err != nil {
		t.Fatal(err)
	}
	if err := r.PutFrameworks(f, gone); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteAgents("x", "never was"); err != nil {
		t.Fatal(err)
	}
	first, err := r.Reserve("offer", 10)
	if err != nil || first != 0 {
		t.Fatal(first, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = open(t, dir)
	if r.MasterID() != id || id == "" {
		t.Errorf("master %q, was %q", r.MasterID(), id)
	}
	if first, err = r.Reserve("offer", 1); err != nil || first != 10 {
		t.Errorf("next number %d, %v", first, err)
	}
	agents, err := r.Agents()
	if err != nil || len(agents) != 1 || agents[0].State != Unreachable || !agents[0].Since.Equal(now) || agents[0].Info.Hostname != "h" || !agents[0].Deactivated {
		t.Errorf("agents %+v, %v", agents, err)
	}
	fws, err := r.Frameworks()
	if err != nil || len(fws) != 2 || !fws[0].Removed.IsZero() || !fws[1].Removed.Equal(now) || fws[0].Info.Name != "n" {
		t.Errorf("frameworks %+v, %v", fws, err)
	}
}

func TestTrouble(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("a second process: %v", err)
	}
	if err := r.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketAgents).Put([]byte("bad"), []byte("{")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Agents(); err == nil || !strings.Contains(err.Error(), "record bad of agents") {
		t.Errorf("a damaged record: %v", err)
	}
	if err := r.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, []byte("2")) }); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), `format "2"`) {
		t.Errorf("a newer format: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file in place of the directory")
	}
}

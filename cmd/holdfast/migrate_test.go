package main

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/bolt"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/heavy"
	"github.com/holdfast-io/holdfast/internal/servertest"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
)

// change does one commit in a state directory that nobody uses.
func change(t *testing.T, dir string, ops ...store.Op) {
	t.Helper()
	ctx := context.Background()
	back, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	term, err := back.Lead(ctx, stateCluster, "test")
	if err == nil {
		err = back.Commit(ctx, stateCluster, term, ops)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// refusesMoved wants a store to say where the state is.
func refusesMoved(t *testing.T, dir, to string) {
	t.Helper()
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
	var m *store.Moved
	if _, _, err := st.Load(t.Context()); !errors.As(err, &m) || m.To != to || fault.ClassOf(err) != fault.Conflict {
		t.Errorf("the old store is opened: %v", err)
	}
}

func TestStateMigrate(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
	seedState(t, from, 100)
	before := hfOK(t, "", "state", "export", "--dir", from)
	hfOK(t, "", "state", "migrate", from, to)
	if after := hfOK(t, "", "state", "export", "--dir", to); after != before {
		t.Error("the state is another")
	}
	refusesMoved(t, from, to)
	if code, _, errs := hf(t, "", "state", "export", "--dir", from); code == 0 || !strings.Contains(errs, to) {
		t.Errorf("export of what was moved: %d %s", code, errs)
	}
	// Again: nothing is to be done, even when the new one has gone on.
	change(t, to, store.Op{Key: store.Prefix(stateCluster) + "apps/a%2Fb"})
	if code, _, errs := hf(t, "", "state", "migrate", from, to); code != 0 || !strings.Contains(errs, "before") {
		t.Errorf("again: %d %s", code, errs)
	}
	if code, _, errs := hf(t, "", "state", "migrate", from, t.TempDir()); code != fault.ExitCode(fault.Conflict) || !strings.Contains(errs, to) {
		t.Errorf("to somewhere else: %d %s", code, errs)
	}
	// Back: the old place is not empty.
	if code, _, errs := hf(t, "", "state", "migrate", to, from); code != fault.ExitCode(fault.Exists) {
		t.Errorf("back: %d %s", code, errs)
	}
}

// A migration that was interrupted anywhere is finished by running it again, and until then at most one of both stores is opened.
func TestStateMigrateInterrupted(t *testing.T) {
	key := store.FrameworkKey(stateCluster)
	for name, cut := range map[string]func(t *testing.T, from, to string, framework []byte){
		"in the copy": func(t *testing.T, from, to string, _ []byte) {
			change(t, to, store.Op{Key: store.Prefix(stateCluster) + "apps/a%2Fb", Value: []byte("old")})
		},
		"after the mark": func(t *testing.T, from, to string, framework []byte) {
			hfOK(t, "", "state", "migrate", from, to)
			change(t, to, store.Op{Key: key})
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
			seedState(t, from, 10)
			before := hfOK(t, "", "state", "export", "--dir", from)
			cut(t, from, to, nil)
			if code, _, errs := hf(t, "", "state", "migrate", from, to); code != 0 {
				t.Fatal(code, errs)
			}
			if after := hfOK(t, "", "state", "export", "--dir", to); after != before {
				t.Error("the state is another")
			}
			refusesMoved(t, from, to)
		})
	}
	from, to := t.TempDir(), t.TempDir()
	seedState(t, from, 10)
	change(t, to, store.Op{Key: store.Prefix(stateCluster) + "apps/other", Value: []byte("x")})
	if code, _, errs := hf(t, "", "state", "migrate", from, to); code != fault.ExitCode(fault.Exists) || !strings.Contains(errs, "apps/other") {
		t.Errorf("to what is not empty: %d %s", code, errs)
	}
	for _, args := range [][]string{{from}, {from, "ftp://x"}, {from, "", "--to-secret-file", "x"}, {from, to, "--to-secret-file", "x"}} {
		if code, _, errs := hf(t, "", append([]string{"state", "migrate"}, args...)...); code != fault.ExitUsage {
			t.Errorf("%q: %d %s", args, code, errs)
		}
	}
}

// An unreadable record stops the migration and is named; nothing is marked.
func TestStateMigrateNamesWhatItCannotRead(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
	seedState(t, from, 3)
	raw, _ := json.Marshal(map[string]any{"v": 7, "kind": "app"})
	change(t, from, store.Op{Key: store.Prefix(stateCluster) + "apps/later", Value: raw})
	if code, _, errs := hf(t, "", "state", "migrate", from, to); code == 0 || !strings.Contains(errs, "apps/later") || !strings.Contains(errs, "version 7") {
		t.Errorf("%d %s", code, errs)
	}
	change(t, from, store.Op{Key: store.Prefix(stateCluster) + "apps/later"})
	hfOK(t, "", "state", "migrate", from, to)
}

// File to ZooKeeper to Consul; a store that somebody leads is refused, at either end.
func TestHeavyStateMigrate(t *testing.T) {
	heavy.Require(t, servertest.NeedZooKeeper, servertest.NeedConsul)
	dir := t.TempDir()
	seedState(t, dir, 300)
	before := hfOK(t, "", "state", "export", "--dir", dir)
	zk, consul := "zk://"+servertest.StartZooKeeper(t, 1).Servers()[0]+"/hf/state", "consul://"+servertest.StartConsul(t, "").Addr()+"/hf/state"
	hfOK(t, "", "state", "migrate", dir, zk)
	refusesMoved(t, dir, zk)
	r, err := dial.Open(zk, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	live, err := registers.Open(r, registers.Options{Name: zk})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if _, err = live.Lead(t.Context(), stateCluster, "a live framework"); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := hf(t, "", "state", "migrate", zk, consul); code != fault.ExitCode(fault.Conflict) || !strings.Contains(errs, "a live framework") {
		t.Errorf("somebody leads: %d %s", code, errs)
	}
	if err := live.Close(); err != nil {
		t.Fatal(err)
	}
	hfOK(t, "", "state", "migrate", zk, consul)
	if after := hfOK(t, "", "state", "export", "--store", consul); after != before {
		t.Error("the state is another")
	}
	if code, _, errs := hf(t, "", "state", "export", "--store", zk); code == 0 || !strings.Contains(errs, consul) {
		t.Errorf("the old store: %d %s", code, errs)
	}
}
